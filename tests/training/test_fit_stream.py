"""Training on streams: the same as on arrays, and on real photographs, killed in mid-epoch, to the same bits."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
import training_toys as toys

from deform_jax import data, models, training
from deform_jax.training import evaluation, feed, mesh

SEEDS = (3, 8)


def assert_close(result, expected):
    """The same numbers in another compiled program."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), result, expected)


def test_a_stream_trains_like_arrays():
    """Two seeds, each on two devices: the order, the augmentation keys, the evaluation and the averages."""
    recipe = dataclasses.replace(toys.RECIPE, learning_rate=0.02)
    options = {"seeds": SEEDS, "mesh": training.make_mesh(2, 2)}
    arrays = toys.fit(recipe, evaluation=toys.TEST, **options)
    stream = toys.ArrayStream()
    fit = {"prepare": toys.AUGMENTED, "prepare_evaluation": toys.CLEAN, "progress": False, **options}
    streamed = training.fit(toys.MODEL, recipe, stream, evaluation=stream, **fit)
    for run, expected in zip(streamed, arrays, strict=True):
        assert_close(run.variables, expected.variables)
        for row, other in zip(toys.timeless(run.history), toys.timeless(expected.history), strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1.01 / 37)  # one image may fall to another class
            assert row["evaluation_loss"] == pytest.approx(other["evaluation_loss"], rel=1e-3)
    assert [one.seed for one in stream.opened] == list(SEEDS)
    assert [(one.taken, one.closed) for one in stream.opened] == 2 * [(8, True)]
    for one, run in zip(arrays, streamed, strict=True):
        result = training.evaluate(toys.MODEL, one.variables, stream, prepare=toys.CLEAN)
        assert result == pytest.approx(training.evaluate(toys.MODEL, one.variables, toys.TEST, prepare=toys.CLEAN))
        assert result["loss"] != run.history[0]["evaluation_loss"]


@pytest.fixture(scope="module")
def task(photographs):
    """The photographs at 8 × 8 pixels, five batches of eight an epoch, and the arguments to ``fit`` on them."""
    stream = data.stream("photographs", folder=photographs, size=8)
    model = models.BlockVGG(blocks=((1, 8),), downsampling="max", num_classes=stream.num_classes)
    recipe = training.Recipe(learning_rate=0.02, warmup_epochs=1, batch_size=8, epochs=3)
    options = {"prepare": data.IMAGENET_PREPARE, "evaluation": stream, "progress": False}
    options |= {"seeds": SEEDS, "mesh": training.make_mesh(2, 1), "checkpoint_steps": 2}
    return stream, lambda folder, train=stream, **more: training.fit(
        model, recipe, train, folders=[folder / str(seed) for seed in SEEDS], **{**options, **more}
    )


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, task[1](folder)


def test_killed_in_mid_epoch_it_goes_on_with_the_next_batch(task, whole, tmp_path, monkeypatch):
    """In step 8, before its checkpoint is written: the second epoch goes on after step 6."""
    _, fit = task
    steps, opened = [], []
    pace, open_batches = feed.StreamFeed.pace, data.ImageStream.train_batches

    def count_and_die(self, metrics):
        pace(self, metrics)
        steps.append(metrics)
        if len(steps) == 8:
            raise KeyboardInterrupt

    def watched(self, *arguments, state, **options):
        opened.append((state, open_batches(self, *arguments, state=state, **options)))
        return opened[-1][1]

    monkeypatch.setattr(feed.StreamFeed, "pace", count_and_die)
    monkeypatch.setattr(data.ImageStream, "train_batches", watched)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path)
    kept = training.load_newest(tmp_path / str(SEEDS[0]) / "resume")
    assert kept.manifest["step"] == kept.manifest["feed"]["batches"] == 6
    assert kept.manifest["feed"]["seed"] == SEEDS[0]
    opened.clear()
    runs = fit(tmp_path)
    assert [(state["seed"], state["batches"]) for state, _ in opened] == [(seed, 6) for seed in SEEDS]
    assert {batches.state()["batches"] for _, batches in opened} == {15}
    for run, expected in zip(runs, whole[1], strict=True):
        toys.assert_identical(run.variables, expected.variables)
        assert toys.timeless(run.history) == toys.timeless(expected.history)
        name = f"{run.seed}/resume/15"
        states = [training.load(folder / name, resume=True) for folder in (tmp_path, whole[0])]
        toys.assert_identical(*((state.variables, state.resume) for state in states))
        assert states[0].manifest["feed"] == states[1].manifest["feed"]


def test_photographs_are_learned_from_and_evaluated_in_full(task, whole):
    stream, _ = task
    for run in whole[1]:
        assert [row["step"] for row in run.history] == [5, 10, 15]
        assert run.history[-1]["loss"] < run.history[0]["loss"]
        images, labels = stream.test_examples(stream.test_count)
        arrays = {"images": images, "labels": labels}
        model = models.BlockVGG(blocks=((1, 8),), downsampling="max", num_classes=stream.num_classes)
        expected = training.evaluate(model, run.variables, arrays, prepare=data.IMAGENET_PREPARE)
        assert run.history[-1]["evaluation_loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert run.history[-1]["evaluation_accuracy"] == pytest.approx(expected["accuracy"])
    assert np.abs(run.variables["params"]["head"]["kernel"] - whole[1][0].variables["params"]["head"]["kernel"]).max()


def test_a_finished_run_opens_no_stream(task, whole, monkeypatch):
    monkeypatch.setattr(data.ImageStream, "train_batches", lambda *_, **__: pytest.fail("it reads"))
    for run, expected in zip(task[1](whole[0]), whole[1], strict=True):
        toys.assert_identical(run.variables, expected.variables)


def test_a_run_goes_on_with_what_it_began_with(task, whole):
    stream, fit = task
    arrays = {"images": np.zeros((40, 8, 8, 3), np.uint8), "labels": np.zeros(40, np.int32)}
    with pytest.raises(ValueError, match=r"`train` must be what the run in the folder began with, but that was a str"):
        fit(whole[0], arrays)
    one = feed.StreamFeed(stream, training.make_mesh(2, 1))
    with pytest.raises(ValueError, match=r"`train` must be what the run in the folder began with, but that was arrays"):
        one.start(SEEDS, 8, [None, None])
    places = [training.load_newest(whole[0] / str(seed) / "resume").manifest["feed"] for seed in SEEDS]
    one.start(SEEDS, 8, places)
    assert one.states() == places  # also before anything is read
    other = feed.StreamFeed(dataclasses.replace(stream, train_split="train[:40]"), training.make_mesh(2, 1))
    other.start(SEEDS, 8, places)
    with pytest.raises(ValueError, match=r"`state` must be of the same stream.* split 'train' instead of 'train\[:40"):
        next(other.batches(2, 1))


def test_what_is_no_fitting_stream_is_refused(task, tmp_path):
    stream, fit = task
    with pytest.raises(TypeError, match=r"`train` must be a mapping of arrays or a stream, but list was given"):
        fit(tmp_path, [])
    with pytest.raises(TypeError, match=r"`evaluation` must be a mapping of arrays or a stream, but str was given"):
        fit(tmp_path, evaluation="photographs")
    for name in ("train", "evaluation"):
        many = dataclasses.replace(stream, num_classes=11)
        with pytest.raises(ValueError, match=rf"`{name}` must have no more classes than the model, 10, but it has 11"):
            fit(tmp_path, **{name: many})
    few = dataclasses.replace(stream, train_count=7)
    with pytest.raises(ValueError, match=r"`batch_size` must be at most the 7 training images, but 8"):
        fit(tmp_path, few)
    assert not list(tmp_path.iterdir())


def test_the_host_waits_for_the_device(monkeypatch):
    """Step k + 2 is begun only once step k is done."""
    waited = []
    monkeypatch.setattr(feed.jax, "block_until_ready", waited.append)
    one = feed.StreamFeed(toys.ArrayStream(), training.make_mesh(1, 1))
    for step in range(5):
        one.pace({"loss": step})
    assert waited == [{"loss": step} for step in range(5 - feed.AHEAD)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 4), [([0], (0, 2)), ([0], (1, 2)), ([1], (0, 2)), ([1], (1, 2))]),
        ((4, 2), [([0], (0, 1)), ([1], (0, 1)), ([2], (0, 1)), ([3], (0, 1))]),
        ((8, 1), [([0, 1], (0, 1)), ([2, 3], (0, 1)), ([4, 5], (0, 1)), ([6, 7], (0, 1))]),
        ((1, 8), [([0], (0, 4)), ([0], (1, 4)), ([0], (2, 4)), ([0], (3, 4))]),
    ],
)
def test_every_host_feeds_its_devices(monkeypatch, shape, expected):
    """Four processes of two devices each."""
    devices = np.array([types.SimpleNamespace(process_index=i // 2) for i in range(8)], dtype=object).reshape(shape)
    layout = types.SimpleNamespace(devices=devices, shape={"seed": shape[0], "data": shape[1]})
    for process, part in enumerate(expected):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert mesh.host_part(layout) == part
        json.dumps(part)


@pytest.mark.parametrize("owners", [[[0, 1, 0, 1]], [[0, 1, 1, 1]], [[0, 0], [0, 1]], [[1, 1, 1, 1]]])
def test_scattered_devices_are_refused(monkeypatch, owners):
    devices = np.array([[types.SimpleNamespace(process_index=i) for i in row] for row in owners], dtype=object)
    layout = types.SimpleNamespace(devices=devices, shape={"seed": len(owners), "data": len(owners[0])})
    process = 1 if owners == [[0, 1, 1, 1]] else 0
    monkeypatch.setattr(jax, "process_index", lambda: process)
    with pytest.raises(ValueError, match=r"`mesh` must give each process a block of devices, all equally wide"):
        mesh.host_part(layout)


def test_evaluation_in_batches_that_do_not_divide_the_set(monkeypatch):
    """37 images in batches of 8: the last is filled up."""
    monkeypatch.setattr(evaluation, "STREAM_BATCH", 8)
    state = training.create_state(toys.MODEL, toys.RECIPE, jax.random.key(0), (8, 8, 1), toys.STEPS)
    result = training.evaluate(toys.MODEL, state.variables, toys.ArrayStream(), prepare=toys.CLEAN)
    expected = training.evaluate(toys.MODEL, state.variables, toys.TEST, prepare=toys.CLEAN)
    assert result == pytest.approx(expected)
