"""The hinge loss against PyTorch's, and runs that end after a multiple of the epochs it took them to reach 0."""

import dataclasses
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys

from deform_jax import data, models, training
from deform_jax.training import losses

MODEL = models.SimpleCNN(layers=2, channels=8)
RECIPE = training.Recipe(
    learning_rate=1.0,
    momentum=0.0,
    weight_decay=1e-3,
    schedule="constant",
    batch_size=4,
    epochs=30,
    loss="hinge",
    stop_interpolation=3,
)
STEPS = 2
"""Steps an epoch."""
SEEDS = (0, 2)
"""Two that fit the task in different epochs."""
INTERVAL = 5
"""Epochs between resumable checkpoints."""


def bars():
    """Eight sequences of 8 pixels, to be told apart by their sums: 4 active pixels or 1."""
    images = np.zeros((8, 8, 1), np.uint8)
    rng = np.random.default_rng(0)
    for i, image in enumerate(images):
        image[rng.permutation(8)[: 4 if i < 4 else 1]] = 1
    return {"images": images, "labels": np.repeat([1, 0], 4).astype(np.int32)}


TRAIN = bars()
PREPARE = data.ActivePixels(2.0)


def fit(recipe=RECIPE, **options):
    return training.fit(MODEL, recipe, TRAIN, **{"prepare": PREPARE, "progress": False, **options})


def fit_pair(folder=None, **options):
    folders = None if folder is None else [folder / str(seed) for seed in SEEDS]
    mesh = training.make_mesh(2, 1)
    return fit(seeds=SEEDS, folders=folders, mesh=mesh, checkpoint_epochs=INTERVAL, **options)


def interpolated(run):
    """The first epoch without any loss."""
    return next(row["epoch"] for row in run.history if row["loss"] == 0)


# The loss.

OUTPUTS = np.array([2.5, 1.0, 0.25, 0.0, -1.0, -3.0], np.float32)
ALL = [(output, label) for output in OUTPUTS for label in (0, 1)]
LOGITS, LABELS = np.array([[output] for output, _ in ALL]), np.array([label for _, label in ALL])


def test_hinge_in_closed_form():
    """Exactly: none of these numbers is rounded."""
    value_and_gradient = jax.jit(jax.value_and_grad(lambda x: (training.hinge(x, LABELS) * np.arange(12)).sum()))
    total, gradient = value_and_gradient(LOGITS)
    margins = np.where(LABELS == 1, 1, -1) * LOGITS[:, 0]
    expected = np.maximum(0, 1 - margins)
    np.testing.assert_array_equal(training.hinge(jnp.asarray(LOGITS), jnp.asarray(LABELS)), expected)
    assert (expected == 0).sum() == 4  # at the margin, too
    assert total == (expected * np.arange(12)).sum()
    slope = np.where(margins < 1, np.where(LABELS == 1, -1, 1), 0)
    np.testing.assert_array_equal(gradient[:, 0], slope * np.arange(12))


def test_hinge_is_pytorchs():
    """That of embeddings with its margin of 1, of y · output."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    outputs = torch.tensor(np.random.default_rng(0).normal(size=40).astype(np.float32), requires_grad=True)
    labels = np.arange(40) % 2
    margins = outputs * torch.tensor(2 * labels - 1)
    expected = torch.nn.functional.hinge_embedding_loss(margins, -torch.ones(40), margin=1.0, reduction="none")
    expected.sum().backward()
    logits = outputs.detach().numpy()[:, None]
    np.testing.assert_allclose(losses.of("hinge", jnp.asarray(logits), labels), expected.detach(), rtol=1e-6)
    gradient = jax.grad(lambda x: training.hinge(x, jnp.asarray(labels)).sum())(logits)
    np.testing.assert_array_equal(gradient[:, 0], outputs.grad)


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_a_single_output_is_right_by_its_sign_and_zero_never(dtype):
    labels = jnp.asarray(LABELS, dtype)
    expected = np.sign(LOGITS[:, 0]) == np.where(LABELS == 1, 1, -1)
    np.testing.assert_array_equal(losses.correct(jnp.asarray(LOGITS), labels), expected)
    np.testing.assert_array_equal(training.hinge(LOGITS, labels), training.hinge(LOGITS, LABELS))


def test_half_precision_is_computed_in_float32():
    halves = training.hinge(jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(LABELS))
    assert halves.dtype == jnp.float32
    np.testing.assert_array_equal(halves, training.hinge(LOGITS, LABELS))


# When a run ends.


@pytest.fixture(scope="module")
def alone():
    """Each seed by itself and never stopped: after every epoch, what it looked like."""
    recipe = dataclasses.replace(RECIPE, stop_interpolation=None)
    found = {}
    for seed in SEEDS:
        (found[seed],) = fit(recipe, seeds=(seed,))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, fit_pair(folder)


def test_a_run_ends_after_three_times_the_epochs_it_took(alone, finished):
    first = [interpolated(alone[seed]) for seed in SEEDS]
    assert first[0] != first[1]
    assert 3 * max(first) < RECIPE.epochs, "change the seeds"
    assert min(first) > 1
    folder, runs = finished
    for run, epoch in zip(runs, first, strict=True):
        assert [row["epoch"] for row in run.history] == list(range(1, 3 * epoch + 1))
        assert interpolated(run) == epoch
        assert toys.timeless(run.history) == toys.timeless(alone[run.seed].history[: 3 * epoch])
        assert run.history[-1]["accuracy"] == 1
        saved = training.load(folder / str(run.seed) / "states" / "final")
        toys.assert_identical(saved.variables, run.variables)
        assert saved.manifest["step"] == 3 * epoch * STEPS
        assert toys.timeless(saved.manifest["history"]) == toys.timeless(run.history)


def test_a_seed_of_a_group_ends_as_it_would_alone(alone, finished):
    """A run of exactly as many epochs, without the rule: the group that went on has changed nothing."""
    for run in finished[1]:
        recipe = dataclasses.replace(RECIPE, stop_interpolation=None, epochs=len(run.history))
        (expected,) = fit(recipe, seeds=(run.seed,))
        toys.assert_identical(run.variables, expected.variables)
        # The weights still shrink by their decay where there is no loss any more.
        norms = [np.linalg.norm(one.variables["params"]["conv02"]["kernel"]) for one in (run, alone[run.seed])]
        assert norms[1] < norms[0]


def test_the_recipe_s_epochs_come_first(alone, finished):
    """Fitted, but with fewer epochs than three times those it took."""
    epochs = interpolated(alone[SEEDS[1]]) + 2
    assert epochs < 3 * interpolated(alone[SEEDS[1]])
    (run,) = fit(dataclasses.replace(RECIPE, epochs=epochs), seeds=SEEDS[1:])
    assert toys.timeless(run.history) == toys.timeless(finished[1][1].history[:epochs])


def test_checkpoints_are_kept_every_few_epochs_and_at_the_end(finished):
    """The newest two; the last one where the group ended, which both seeds have."""
    last = max(len(run.history) for run in finished[1])
    assert last % INTERVAL
    for seed in SEEDS:
        names = {path.name for path in (finished[0] / str(seed) / "resume").iterdir()}
        assert names == {str(last // INTERVAL * INTERVAL * STEPS), str(last * STEPS)}


class Killed(Exception):
    """In place of SIGKILL."""


@pytest.mark.parametrize("epoch", [3, 6, 17], ids=["before any checkpoint", "between two", "one seed at its end"])
def test_a_killed_run_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch, epoch):
    """From the newest multiple of five epochs; the epochs of each seed's end are known again from its history."""
    assert min(len(run.history) for run in finished[1]) < 17 < max(len(run.history) for run in finished[1])
    close, calls = training.loop._close_epoch, itertools.count(1)

    def close_and_die(*arguments):
        close(*arguments)
        if next(calls) == epoch:
            raise Killed

    monkeypatch.setattr(training.loop, "_close_epoch", close_and_die)
    with pytest.raises(Killed):
        fit_pair(tmp_path)
    monkeypatch.undo()
    steps = {path.name for path in tmp_path.glob("*/resume/*")}
    assert steps == {str(STEPS * one) for one in range(INTERVAL, epoch, INTERVAL)[-2:]}
    for run, expected in zip(fit_pair(tmp_path), finished[1], strict=True):
        toys.assert_identical(run.variables, expected.variables)
        assert toys.timeless(run.history) == toys.timeless(expected.history)
        saved = training.load(tmp_path / str(run.seed) / "states" / "final")
        toys.assert_identical(saved.variables, expected.variables)


def test_a_finished_run_is_read_back_at_once(finished, monkeypatch):
    def step(*_):
        pytest.fail("a step was taken")

    monkeypatch.setattr(training.feed.IndexedFeed, "step", lambda *_: step)
    for run, expected in zip(fit_pair(finished[0]), finished[1], strict=True):
        toys.assert_identical(run.variables, expected.variables)
        assert run.history == expected.history


def test_another_multiple_is_another_run(finished):
    with pytest.raises(ValueError, match=r"has one with recipe\.stop_interpolation 3 instead of 4"):
        fit_pair(finished[0], recipe=dataclasses.replace(RECIPE, stop_interpolation=4))


def test_the_bar_is_told_when_the_end_is_known(finished, capsys, monkeypatch):
    """Images of both seeds to the end of the later one; before, those of all epochs."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    pytest.importorskip("tqdm")
    fit_pair(progress=True)
    text = capsys.readouterr().err
    seen = 2 * 4 * STEPS * max(len(run.history) for run in finished[1])
    assert f"0.00/{2 * 4 * STEPS * RECIPE.epochs} [" in text
    assert f"{seen}/{seen} [" in text


# Evaluation.


def test_evaluation_is_numpys(finished):
    """Loss and accuracy of the finished network, over more images than a batch of evaluation and in unsigned labels."""
    run = finished[1][0]
    counts = np.random.default_rng(1).integers(0, 3, (503, 8, 1)).astype(np.uint8)
    labels = (counts.sum(axis=(1, 2)) > 8).astype(np.uint8)
    outputs = np.asarray(jax.jit(MODEL.apply)(run.variables, 2.0 * counts.astype(np.float32))[0])[:, 0]
    signs = np.where(labels == 1, 1, -1)
    test = {"images": counts, "labels": labels}
    measured = training.evaluate(MODEL, run.variables, test, prepare=PREPARE, loss="hinge")
    np.testing.assert_allclose(measured["loss"], np.maximum(0, 1 - signs * outputs).mean(), rtol=1e-5)
    assert measured["accuracy"] == (signs * outputs > 0).mean()
    assert 0 < measured["accuracy"] < 1
    (again,) = fit(dataclasses.replace(RECIPE, epochs=1), evaluation=test)
    assert again.history[0]["evaluation_loss"] > 0


# What is refused.

TEN = models.SimpleCNN(layers=2, channels=8, num_classes=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "squared"}, "`loss` must be one of 'cross_entropy', 'hinge', but 'squared'"),
        ({"label_smoothing": 0.1}, "`label_smoothing` must be 0 with a hinge loss, but 0.1 was given"),
        ({"loss": "cross_entropy"}, '`stop_interpolation` must be None, but cross-entropy .* Use `loss="hinge"`, or'),
        ({"stop_interpolation": 0}, "`stop_interpolation` must be an integer ≥ 1, but 0 was given"),
        ({"stop_interpolation": 2.5}, "`stop_interpolation` must be an integer ≥ 1"),
    ],
    ids=str,
)
def test_impossible_recipes_are_refused(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        dataclasses.replace(RECIPE, **settings)


@pytest.mark.parametrize("entry", ["fit", "evaluate"])
@pytest.mark.parametrize(
    ("model", "loss", "train", "message"),
    [
        (
            MODEL,
            "cross_entropy",
            TRAIN,
            r"`loss` must be .* but it is 'cross_entropy', for 1 output",
        ),
        (TEN, "hinge", TRAIN, r"`loss` must be .* but it is 'hinge', for 10 output"),
        (MODEL, "hinge", {**TRAIN, "labels": TRAIN["labels"] + 1}, r"be classes of the model, 0 to 1, .* from 1 to 2"),
        (MODEL, "hinge", {**TRAIN, "labels": TRAIN["labels"] - 1}, r"be classes of the model, 0 to 1, .* from -1 to 0"),
        (MODEL, "hinge", {**TRAIN, "images": TRAIN["images"][:, 0]}, r"\(n, length, c\), but its shape is \(8, 1\)"),
    ],
    ids=["one output", "ten outputs", "label 2", "label -1", "no length"],
)
def test_refuses(model, loss, train, message, entry):
    recipe = training.Recipe(loss=loss, batch_size=4)
    calls = {
        "fit": lambda: training.fit(model, recipe, train, prepare=PREPARE, progress=False),
        "evaluate": lambda: training.evaluate(model, {}, train, prepare=PREPARE, loss=loss),
    }
    with pytest.raises(ValueError, match=message):
        calls[entry]()


def test_hinge_refuses_several_outputs():
    with pytest.raises(ValueError, match=r"`logits` must have shape \(n, 1\) for a hinge loss, .* \(5, 2\)"):
        training.hinge(jnp.zeros((5, 2)), jnp.zeros(5, int))


@pytest.mark.parametrize("value", [0, 1.5])
def test_impossible_intervals_are_refused(value):
    with pytest.raises((ValueError, TypeError), match="`checkpoint_epochs` must be an integer ≥ 1"):
        fit(checkpoint_epochs=value)
