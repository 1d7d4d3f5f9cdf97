"""Scale detection as a task of experiments: how many pairs, which labels, none in two sets, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from deform_jax import data, models, training
from experiments.common import cli, runs, tasks

RECIPE = training.Recipe(loss="hinge", batch_size=8, epochs=1)
LINE = tasks.Training(dataset="scale_detection", train_images=48, augment=False, recipe=RECIPE)


def load(settings=LINE, **changes):
    return tasks.load_task(dataclasses.replace(settings, **changes), cli.Options())


def parts(task):
    """Images and labels to train on, held out, and to test on."""
    held_out = [] if task.validation is None else [task.validation]
    return [(np.asarray(part["images"]), part["labels"]) for part in (task.train, *held_out, task.evaluation)]


def pairs_of(images):
    """The two active pixels of each image of one dimension."""
    assert images.dtype == np.uint8
    assert images.shape[1:] == (32, 1)
    assert (images.sum(axis=(1, 2)) == 2).all()
    return np.nonzero(images)[1].reshape(-1, 2)


@pytest.mark.parametrize(
    ("held_out", "test", "counts"), [(16, 20, (48, 16, 20)), (0, None, (48, 320)), (0, 8, (48, 8))]
)
def test_sets_are_disjoint_and_labels_are_distances(held_out, test, counts):
    """Of 256 close and 112 far pairs of 32 pixels on a ring; close below 9 pixels, far from 13 on."""
    task = load(validation_images=held_out, test_images=test)
    found = parts(task)
    assert tuple(len(labels) for _, labels in found) == counts
    seen = set()
    for images, labels in found:
        pairs = pairs_of(images)
        apart = np.abs(pairs[:, 0] - pairs[:, 1])
        apart = np.minimum(apart, 32 - apart)
        assert ((apart < 9) | (apart >= 13)).all()
        np.testing.assert_array_equal(labels, apart < 9)
        new = {tuple(pair) for pair in pairs.tolist()}
        assert len(new) == len(pairs)
        assert not new & seen
        seen |= new
    balanced = found if test is not None else found[:-1]
    assert {labels.mean() for _, labels in balanced} == {0.5}
    if test is None:
        assert len(seen) == 256 + 112


def test_the_task_says_which_pixels_and_how_many_outputs():
    task = load(validation_images=16, test_images=20)
    assert task.num_classes == 1
    assert task.noise == 0
    assert task.train_count == 48
    (train, _), (held_out, _), (test, labels) = parts(task)
    ordered = lambda pairs: sorted(map(tuple, np.sort(pairs).tolist()))  # noqa: E731
    known = ordered(task.pairs.train_positions[..., 0])
    assert known == ordered(np.concatenate([pairs_of(train), pairs_of(held_out)]))
    np.testing.assert_array_equal(np.sort(task.pairs.test_positions[..., 0]), pairs_of(test))
    np.testing.assert_array_equal(task.pairs.test_labels, labels)
    chosen = task.test_examples(20, seed=3)
    assert ordered(pairs_of(chosen["images"])) == ordered(pairs_of(test))
    assert not np.array_equal(chosen["images"], test)


def test_prepared_images_have_si_s_norm():
    """‖x‖² = L: two pixels of √(L/2)."""
    task = load()
    for prepare in (task.prepare, task.prepare_clean):
        images = prepare(None, task.train["images"][:4])
        assert images.dtype == np.float32
        np.testing.assert_allclose(np.square(images).sum(axis=(1, 2)), 32, rtol=1e-6)
    assert task.statistics_examples().shape == (48, 32, 1)  # all that there are
    model = models.SimpleCNN(layers=1, channels=2)
    assert runs.initial(model, 0, images.shape[1:])["params"]["conv01"]["kernel"].shape == (3, 1, 2)


def test_two_dimensions_are_padded():
    pairs = data.ScaleDetection("patch", (6, 6), scale=3, gap=0, pad=1)
    task = load(pairs=pairs, train_images=20, test_images=None)
    (train, train_labels), (test, test_labels) = parts(task)
    assert train.shape == (20, 8, 8, 1)
    assert len(test) == 36 * 35 // 2 - 20
    images, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    patches = images[:, 1:-1, 1:-1].reshape(-1, 2, 3, 2, 3).sum(axis=(2, 4))
    np.testing.assert_array_equal(labels, patches.max(axis=(1, 2)) == 2)
    assert patches.sum() == images.sum() == 2 * len(images)
    np.testing.assert_array_equal(np.unique(task.prepare(None, train)), [0, 18])


def test_the_seed_of_the_task_decides_and_nothing_else():
    first, again, other = (load(task_seed=seed).train["images"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    key = jax.random.fold_in(jax.random.key(1), tasks.TASK_STREAM)
    split = data.scale_detection(key, LINE.pairs, train=48)
    np.testing.assert_array_equal(pairs_of(other), np.sort(split.train_positions[..., 0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": training.Recipe()}, "error: --loss hinge is for --dataset scale_detection, which takes no other"),
        ({"dataset": "fashion_mnist_subset"}, "error: --loss hinge is for --dataset scale_detection"),
        ({"augment": True}, "error: --augment does not go with --dataset scale_detection."),
        ({"noise": 1.0}, "error: --noise does not go with --dataset scale_detection."),
        ({"task": "random_labels"}, "error: --task does not go with --dataset scale_detection."),
        (
            {"train_images": None},
            "error: --dataset scale_detection needs --train-images, the number of training pairs.",
        ),
        ({"train_images": 0, "validation_images": 4}, "error: --dataset scale_detection needs --train-images"),
        ({"validation_images": -2}, "error: --validation-images must not be negative; -2 given."),
        ({"selection": "best"}, "error: --selection best takes held-out images"),
        (
            {"dataset": "stream:x", "recipe": training.Recipe(), "train_images": None, "test_images": 8},
            "error: --test-images is for images in memory",
        ),
        (
            {
                "dataset": "fashion_mnist_subset",
                "recipe": training.Recipe(),
                "task": "deformed_templates",
                "test_images": 8,
            },
            "error: --test-images does not go with --task deformed_templates, which takes all.",
        ),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(SystemExit, match=message):
        load(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": 47}, "`train` must be a multiple of 2, the number of classes, .* 47 was given"),
        ({"train_images": 226}, "`train` must be at most 224, as the smallest class has 112, but 226 was given"),
        ({"test_images": 178}, "at most 224 together with `test`, .* 48 was given, and 178 as `test`"),
    ],
    ids=str,
)
def test_impossible_numbers_of_pairs_are_refused(changes, message):
    """In the words of ``data.scale_detection``, with which a figure's command then ends."""
    with pytest.raises(ValueError, match=message):
        load(**changes)


def test_more_test_images_than_there_are_are_refused():
    with pytest.raises(SystemExit, match="error: 21 test images are wanted in all, which exceed the 20 test images"):
        load(test_images=20).test_examples(21)
