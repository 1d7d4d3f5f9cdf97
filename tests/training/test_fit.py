"""The loop as a user meets it: history, files, progress, errors; and evaluation against numpy."""

import dataclasses
import importlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import training_toys as toys
from flax import linen as nn

from deform_jax import data, models, training
from deform_jax.training import evaluation, progress


@jax.jit
def logits_of(variables, images):
    return toys.MODEL.apply(variables, toys.CLEAN(None, images))[0]


def numpy_evaluation(variables, dataset):
    """Mean loss and accuracy in float64, from logits of the whole set at once."""
    logits, rows = np.float64(logits_of(variables, dataset["images"])), np.arange(len(dataset["labels"]))
    loss = -scipy.special.log_softmax(logits, axis=1)[rows, dataset["labels"]].mean()
    return {"loss": loss, "accuracy": (logits.argmax(1) == dataset["labels"]).mean()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two epochs with everything kept."""
    folder = tmp_path_factory.mktemp("run")
    (run,) = toys.fit(evaluation=toys.TEST, folders=[folder], save_epochs=(1, 2), checkpoint_steps=3)
    return folder, run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_history(finished):
    _, run = finished
    assert run.seed == 0
    assert [(row["epoch"], row["step"]) for row in run.history] == [(1, 4), (2, 8)]
    for row in run.history:
        assert row["loss"] > 0
        assert row["accuracy"] * 64 == pytest.approx(round(row["accuracy"] * 64))  # a count out of 64 images
        assert row["images_per_second"] > 0
    expected = numpy_evaluation(run.variables, toys.TEST)
    assert run.history[-1]["evaluation_loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32 rounding
    assert run.history[-1]["evaluation_accuracy"] == pytest.approx(expected["accuracy"])
    assert run.history[-1]["loss"] < run.history[0]["loss"]  # it learns


def test_files(finished):
    folder, run = finished
    best = max(run.history, key=lambda row: (row["evaluation_accuracy"], -row["epoch"]))["epoch"]
    assert names(folder) == ["lock", "log.jsonl", "resume", "states"]
    assert names(folder / "states") == ["best", "epoch_0001", "epoch_0002", "final", "init"]
    assert names(folder / "states" / "best") == [str(best)]
    assert names(folder / "resume") == ["6", "8"]
    final = training.load(folder / "states" / "final")
    toys.assert_identical(final.variables, run.variables)
    assert final.manifest["history"] == run.history
    assert final.manifest["step"] == 8
    toys.assert_identical(training.load(folder / "states" / "epoch_0002").variables, run.variables)
    initial = toys.state()
    toys.assert_identical(training.load(folder / "states" / "init").variables, jax.device_get(initial.variables))
    first = training.load(folder / "states" / "epoch_0001")
    assert first.manifest["history"] == run.history[:1]
    kept = training.load(folder / "states" / "best" / str(best))
    assert kept.manifest["history"][-1]["evaluation_accuracy"] == run.history[best - 1]["evaluation_accuracy"]
    accuracy = numpy_evaluation(kept.variables, toys.TEST)["accuracy"]
    assert accuracy == pytest.approx(max(row["evaluation_accuracy"] for row in run.history))


def test_a_finished_run_is_read_back_at_once(finished, monkeypatch):
    folder, run = finished
    monkeypatch.setattr("deform_jax.training.feed.IndexedFeed.batches", lambda *_: pytest.fail("it trained again"))
    times = lambda: {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"}  # noqa: E731
    before = times()
    (again,) = toys.fit(evaluation=toys.TEST, folders=[folder], save_epochs=(1, 2), checkpoint_steps=3)
    toys.assert_identical(again.variables, run.variables)
    assert again.history == run.history
    assert times() == before


def test_files_change_nothing_and_seeds_do_not_meet(finished):
    """Without folders, and beside another seed: the same bits; then another seed alone."""
    _, run = finished
    together = toys.fit(seeds=(7, 0), mesh=training.make_mesh(2, 1), evaluation=toys.TEST)
    (seven,) = toys.fit(seeds=(7,), evaluation=toys.TEST)
    assert [one.seed for one in together] == [7, 0]
    for one, apart in zip(together, (seven, run), strict=True):
        toys.assert_identical(one.variables, apart.variables)
        assert toys.timeless(one.history) == toys.timeless(apart.history)


def test_without_evaluation_nothing_is_best(tmp_path):
    (run,) = toys.fit(folders=[str(tmp_path / "deep" / "run")])
    assert names(tmp_path / "deep" / "run" / "states") == ["final", "init"]
    assert set(run.history[0]) == {"epoch", "step", "loss", "accuracy", "images_per_second"}


def test_an_augmenting_prepare_is_refused_for_evaluation_before_training(tmp_path):
    """It stands in for ``prepare_evaluation``, and has no keys then."""
    with pytest.raises(TypeError, match="`keys` must hold one random key per image") as caught:
        toys.fit(prepare_evaluation=None, evaluation=toys.TEST, folders=[tmp_path / "run"])
    assert any("called with keys None" in note for note in caught.value.__notes__)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 37, 500, 507])
def test_evaluate_counts_every_image_once(finished, count):
    """Below, at and beyond one batch of 500."""
    dataset = toys.images(count, 3)
    result = training.evaluate(toys.MODEL, finished[1].variables, dataset, prepare=toys.CLEAN)
    expected = numpy_evaluation(finished[1].variables, dataset)
    assert result["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-12)
    assert result["loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32 sums over batches of 500


@pytest.mark.parametrize(("layout", "batch"), [((1, 8), 16), ((2, 4), 500)], ids=str)
def test_evaluation_over_a_mesh(finished, monkeypatch, layout, batch):
    """37 images: neither the batch nor the data axis divides them; each seed's own variables."""
    monkeypatch.setattr(evaluation, "BATCH", batch)
    mesh = training.make_mesh(*layout)
    variables = [jax.tree.map(lambda leaf, f=f: leaf * f, finished[1].variables) for f in (1.0, 0.5)[: layout[0]]]
    evaluate = evaluation.evaluator(toys.MODEL, toys.TEST, toys.CLEAN, mesh)
    for result, one in zip(evaluate(training.stack(variables, mesh)), variables, strict=True):
        expected = numpy_evaluation(one, toys.TEST)
        assert result["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-12)
        assert result["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_the_bar_shows_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    toys.fit(progress="a label of mine")
    text = capsys.readouterr().err
    assert "a label of mine" in text
    assert re.search(r"epoch=1", text)
    assert re.search(r"loss=\d\.\d{3}", text)
    assert re.search(r"accuracy=\d\.\d{3}", text)
    assert re.search(r"img/s", text)
    assert re.search(r"128/128 \[\d\d:\d\d<\d\d:\d\d", text)  # images done, time taken, time left
    assert capsys.readouterr().out == ""


def test_the_bar_can_be_left_out(capsys):
    toys.fit()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("why", ["no tqdm", "a file", "a notebook without widgets"])
def test_where_there_is_no_bar_there_is_a_line_for_each_epoch(capsys, monkeypatch, why):
    def importing(name, *rest):
        if name.startswith("tqdm") and why == "no tqdm":
            raise ImportError(name)
        return real(name, *rest)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", importing)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: why != "a file")
    if "notebook" in why:
        shell = types.SimpleNamespace(kernel="a kernel")
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(progress, "LINES", 0)
    runs = toys.fit(seeds=(7, 0), mesh=training.make_mesh(2, 1), progress=True)
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert len(lines) == 2
    assert "\r" not in text
    loss = np.mean([run.history[1]["loss"] for run in runs])
    assert lines[1].startswith(f"training: epoch 2, step 8, loss {loss:.4g}, accuracy 0.")
    assert "images per second " in lines[1]
    assert re.fullmatch(r"training: epoch 1, step 4, .* images per second [\d.e+]+, \d+ s left", lines[0])


def test_lines_come_now_and_then(capsys, monkeypatch):
    """The first epoch, the last one, and those that end long after the line before; within an epoch, if it is long."""
    recipe = dataclasses.replace(toys.RECIPE, epochs=4)
    toys.fit(recipe, progress=True)
    assert [int(n) for n in re.findall(r"epoch (\d)", capsys.readouterr().err)] == [1, 4]
    monkeypatch.setattr(progress, "LINE_WITHIN", 0)
    toys.fit(recipe, progress=True)
    assert re.search(
        r"training: epoch 1, step 3, loss \d\.\d{3}, accuracy 0\.\d{3}, \d+ s left", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (99, "99 s"), (700, "12 min"), (11100, "3 h 05 min"), (187_000, "2 days 4 h")],
)
def test_times_are_said_in_words(seconds, text):
    assert progress.duration(seconds) == text


@pytest.fixture(scope="module")
def exploding():
    return dataclasses.replace(toys.RECIPE, learning_rate=1e30, warmup_epochs=1, epochs=3)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, exploding):
    """The warm-up has a rate of 0 at the first step; the second throws the weights away, and the third has no loss."""
    message = r"The loss of seed 0 became nan in epoch \d. Lower the learning rate \(it is 1e\+30\)"
    with pytest.raises(FloatingPointError, match=message):
        toys.fit(exploding, folders=[tmp_path], evaluation=toys.TEST, checkpoint_steps=1, save_steps=[3])
    assert names(tmp_path / "resume") == ["1", "2"]  # the second step's loss was its last one
    found = training.load(tmp_path / "resume" / "1", resume=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found.variables, found.resume)))
    assert names(tmp_path / "states") == ["init"]
    with pytest.raises(FloatingPointError, match=message):  # and again from there
        toys.fit(exploding, folders=[tmp_path], evaluation=toys.TEST, checkpoint_steps=1)


class Own(nn.Module):
    """The least that training takes, or less."""

    complete: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        logits = nn.Dense(toys.CLASSES)(x.mean((1, 2)))
        return (logits, {}) if self.complete else logits


def test_a_model_of_one_s_own_is_trained_or_told_what_it_lacks():
    options = {"prepare": toys.CLEAN, "progress": False}
    recipe = dataclasses.replace(toys.RECIPE, epochs=1)
    (run,) = training.fit(Own(), recipe, toys.TRAIN, **options)
    assert run.history[0]["loss"] > 0
    with pytest.raises(ValueError, match=r"must return \(logits, \{tap: .*Own returns .*`return logits, taps`"):
        training.fit(Own(complete=False), recipe, toys.TRAIN, **options)
    beyond = {**toys.TRAIN, "labels": toys.TRAIN["labels"] + toys.CLASSES}
    with pytest.raises(FloatingPointError, match="Labels beyond the model's outputs would make it so, too"):
        training.fit(Own(), recipe, beyond, **options)


GOOD = {name: value[:20] for name, value in toys.TRAIN.items()}
NEGATIVE = np.where(np.arange(20) == 3, -1, GOOD["labels"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, r"`seeds` must be one or more different integers, but \(\) was given"),
        ({"seeds": (1, 1)}, r"`seeds` must be one or more different integers, but \(1, 1\) was given"),
        ({"seeds": (-1,)}, "`seeds` must be an integer ≥ 0 .* but -1 was given"),
        ({"seeds": (0.5,)}, "`seeds` must be an integer"),
        ({"seeds": (0, 1), "mesh": (1, 1)}, "`seeds` must be as many as the mesh's seed axis is long, 1, but 2 were"),
        ({"seeds": (0, 1, 2)}, "`seed × data` must divide the number of devices, 8, but 3 × 1 = 3"),
        ({"folders": ["a", "b"]}, "`folders` must be a different one per seed, 1, but 2 were given"),
        ({"seeds": (0, 1), "folders": ["a", "./a"]}, "`folders` must be a different one per seed, 2, but two are the"),
        ({"batch_size": 21}, "`batch_size` must be at most the 20 training images, but 21 was given"),
        ({"save_epochs": (3,)}, "`save_epochs` must be an integer ≥ 1 and ≤ 2, but 3 was given"),
        ({"checkpoint_steps": 0}, "`checkpoint_steps` must be an integer ≥ 1, but 0 was given"),
        ({"prepare": None}, "`prepare` must be callable and hashable, but None was given. Use a function, or a frozen"),
        ({"prepare_evaluation": []}, r"`prepare_evaluation` must be callable and hashable, but \[\]"),
        ({"train": {"images": GOOD["images"]}}, "`train` must hold 'images' and 'labels', but it holds images"),
        (
            {"train": {**GOOD, "labels": GOOD["labels"][:9]}},
            "`train` must have one label per image, .* 20 images and",
        ),
        ({"train": {**GOOD, "images": GOOD["images"][0]}}, "`train` must have one label per image, .* 8 images and 20"),
        (
            {"train": {**GOOD, "images": GOOD["images"][0, 0]}},
            r"`train\['images'\]` must have shape \(n, h, w, c\), or \(n, length, c\), but its shape is \(8, 1\)",
        ),
        ({"train": {**GOOD, "images": GOOD["images"][..., 0]}}, r"`images` must have shape \(n, h, w, c\)"),
        ({"checkpoint_epochs": 0}, "`checkpoint_epochs` must be an integer ≥ 1, but 0 was given"),
        ({"train": {**GOOD, "labels": np.ones(20)}}, r"`train\['labels'\]` must hold integer numbers"),
        (
            {"train": {**GOOD, "labels": NEGATIVE}},
            r"`train\['labels'\]` must be classes .* but they run from -1",
        ),
        ({"train": {**GOOD, "labels": GOOD["labels"] + 1}}, r"0 to 3, but they run from 1 to 4"),
        ({"evaluation": {}}, "`evaluation` must hold 'images' and 'labels', but it holds nothing"),
        ({"evaluation": {**GOOD, "labels": NEGATIVE}}, r"`evaluation\['labels'\]` must be classes of the model"),
    ],
    ids=str,
)
def test_refuses(tmp_path, monkeypatch, change, message):
    """Before anything is computed or written."""
    monkeypatch.chdir(tmp_path)
    options = {"prepare": toys.CLEAN, "folders": ["run"], "progress": False, **change}
    recipe = dataclasses.replace(toys.RECIPE, batch_size=options.pop("batch_size", 4))
    if "mesh" in options:
        options["mesh"] = training.make_mesh(*options["mesh"])
    if len(options.get("seeds", (0,))) > 1 and "folders" not in change:
        options["folders"] = [str(seed) for seed in options["seeds"]]
    train = options.pop("train", GOOD)
    with pytest.raises((ValueError, TypeError), match=message):
        training.fit(toys.MODEL, recipe, train, **options)
    assert not list(tmp_path.iterdir())


def test_evaluate_refuses(finished):
    with pytest.raises(ValueError, match="`evaluation` must hold 'images' and 'labels', but it holds images"):
        training.evaluate(toys.MODEL, finished[1].variables, {"images": GOOD["images"]}, prepare=toys.CLEAN)


def test_lists_and_device_arrays_will_do():
    """What ``numpy.asarray`` takes, as everywhere."""
    lists = {"images": GOOD["images"].tolist(), "labels": GOOD["labels"].tolist()}
    arrays = {name: jnp.asarray(value) for name, value in GOOD.items()}
    variables = jax.eval_shape(toys.MODEL.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), variables)
    results = [training.evaluate(toys.MODEL, variables, s, prepare=as_uint8) for s in (lists, arrays, GOOD)]
    assert results[0] == results[1] == results[2]


def as_uint8(keys, images):
    return toys.CLEAN(keys, images.astype(jnp.uint8))


def test_public_names():
    wanted = {"Recipe", "train_step", "pmapped", "fit", "save", "load"}
    assert wanted <= set(training.__all__)
    assert set(training.__all__) <= set(dir(training))
    assert {"BlockVGG", "create", "represent", "with_batch_statistics"} <= set(models.__all__) <= set(dir(models))
    for module in (training, models):
        for name in module.__all__:
            value = getattr(module, name)
            assert not callable(value) or value.__doc__, name
    assert data.Prepare  # what the docstring of fit recommends
