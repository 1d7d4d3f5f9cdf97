"""One small task for all training tests, so that they share what is compiled."""

import dataclasses
import shutil

import jax
import numpy as np

from deform_jax import data, models, training

CLASSES = 4
MODEL = models.BlockVGG(blocks=((1, 8),), downsampling="strided_relu", num_classes=CLASSES)
# The compiled step of a constant schedule is the same for any number of epochs.
RECIPE = training.Recipe(schedule="constant", batch_size=16, epochs=2)
STEPS = 4
"""Steps an epoch: 64 of 67 images in batches of 16."""


def images(count, seed):
    """Noisy 8 × 8 images whose four quarters tell the classes apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    pixels = rng.integers(0, 128, (count, 2, 4, 2, 4, 1))
    for i, label in enumerate(labels):
        pixels[i, label // 2, :, label % 2] += 100
    return {"images": pixels.reshape(count, 8, 8, 1).astype(np.uint8), "labels": labels}


TRAIN, TEST = images(67, 0), images(37, 1)
CLEAN = data.Prepare.from_images(TRAIN["images"])
AUGMENTED = dataclasses.replace(CLEAN, augment=True)
step = jax.jit(training.train_step)


def state(seed=0):
    """The task's state before its first step."""
    return training.create_state(MODEL, RECIPE, jax.random.key(seed), (8, 8, 1), STEPS)


def fit(recipe=RECIPE, train=TRAIN, **options):
    """``training.fit`` on the task."""
    options = {"prepare": AUGMENTED, "prepare_evaluation": CLEAN, "progress": False, **options}
    return training.fit(MODEL, recipe, train, **options)


def share(batch, shard):
    """The part of a batch that falls to one host, its devices' in their order."""
    index, count = shard
    return batch[index * len(batch) // count : (index + 1) * len(batch) // count]


class ArrayStream:
    """The sets as a stream, their order that of ``fit`` on arrays; it counts what is open."""

    train_count, test_count, image_shape, num_classes = 67, 37, (8, 8, 1), CLASSES

    def __init__(self):
        self.opened = []

    def train_batches(self, seed, batch_size, *, shard=None, state=None):
        iterator = ArrayBatches(seed, batch_size, shard, (state or {"batches": 0})["batches"])
        self.opened.append(iterator)
        return iterator

    def test_batches(self, batch_size, *, shard=None):
        filled = -(-self.test_count // batch_size) * batch_size
        extra = filled - self.test_count
        images = np.concatenate([TEST["images"], np.zeros((extra, 8, 8, 1), np.uint8)])
        labels = np.concatenate([TEST["labels"], np.full(extra, -1, np.int32)])
        for start in range(0, filled, batch_size):
            part = share(np.arange(start, start + batch_size), shard)
            yield {"images": images[part], "labels": labels[part]}


class ArrayBatches:
    def __init__(self, seed, batch_size, shard, taken):
        self.seed, self.size, self.shard, self.taken, self.closed = seed, batch_size, shard, taken, False

    def __next__(self):
        epoch, step = divmod(self.taken, 67 // self.size)
        order = np.asarray(training.epoch_order(jax.random.key(self.seed), epoch, 67, self.size))[step]
        order = share(order, self.shard)
        self.taken += 1
        return {"images": TRAIN["images"][order], "labels": TRAIN["labels"][order]}

    def state(self):
        return {"batches": self.taken}

    def close(self):
        self.closed = True


def tamper(path):
    """Change one number of a checkpoint's arrays without telling its manifest."""
    other = training.load(path).variables
    leaf = jax.tree.leaves(other)[-1]
    leaf.flat[0] += 1
    training.save(path.parent / "tampered", other)
    shutil.rmtree(path / "variables")
    shutil.move(path.parent / "tampered" / "variables", path / "variables")
    shutil.rmtree(path.parent / "tampered")


def assert_identical(a, b):
    """The same bits in every leaf."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True), a, b)


def timeless(history):
    """A history without its speeds."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in history]
