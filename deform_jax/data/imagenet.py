"""Photographs of any size streamed from TFDS sets in the array_record format by grain: ImageNet, and sets like it.

JPEGs are decoded on the host by Pillow, in threads or worker processes, without TensorFlow.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from deform_jax import checks
from deform_jax.data import records
from deform_jax.data.archives import existing, needed
from deform_jax.data.prepare import Prepare

IMAGENET_PREPARE = Prepare(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Standardisation by ImageNet's customary channel means and standard deviations (red, green, blue)."""


@dataclasses.dataclass(frozen=True)
class ImageStream:
    """A set of photographs on disk, read while training; made by :func:`stream`.

    Attributes:
      name: TFDS's.
      folder: TFDS's ``data_dir``.
      train_split: TFDS's name of the split.
      test_split: likewise.
      size: pixels per side of the images that come out.
      worker_count: processes that decode, 0 for threads of this process.
      num_classes: number of classes.
      train_count: number of images to train on.
      test_count: number of images to test on.
    """

    name: str
    folder: str | None
    train_split: str
    test_split: str
    size: int
    worker_count: int
    num_classes: int
    train_count: int
    test_count: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(size, size, 3)."""
        return self.size, self.size, 3

    def train_batches(
        self, seed: int, batch_size: int, *, shard: tuple[int, int] | None = None, state: Any = None
    ) -> "Batches":
        """Return an endless iterator over shuffled training batches of random crops, flipped with probability ½.

        Every epoch has an order of its own, given by the seed, and drops its last incomplete batch. A crop depends on
        the seed, the epoch and the record only. Hosts take every ``count``-th image of each batch, so that neither
        their number nor that of the workers changes which images and crops make up a batch.

        Args:
          seed: 0 or more.
          batch_size: images per batch over all hosts together.
          shard: (index, count) of this host; default: jax's process index and count.
          state: an earlier iterator's ``state()``, to go on after the batch it had reached.

        Raises:
          TypeError, ValueError: impossible numbers, or a state of another stream, seed or batch size. When iterated:
            a record that cannot be decoded; the message names it.
        """
        checks.integer("seed", seed, minimum=0)
        checks.integer("batch_size", batch_size, minimum=1, maximum=self.train_count)
        index, count = _shard(shard, batch_size)
        whole = self.train_count // batch_size * batch_size
        identity = {"name": self.name, "split": self.train_split, "size": self.size, "count": self.train_count}
        identity |= {"seed": int(seed), "batch_size": int(batch_size)}
        # grain shuffles epoch e with seed + e: seeds 0 and 1 would share all orders but the first.
        order = int(np.random.SeedSequence(seed).generate_state(1)[0])
        crop = records.RandomCrop(self._records(self.train_split), self.size, int(seed), whole // count)
        dataset = needed("grain").MapDataset.range(self.train_count).shuffle(order)
        dataset = dataset[:whole][index::count].map_with_index(crop).batch(batch_size // count).repeat()
        return Batches(dataset, identity, self.worker_count, _reached(state, identity))

    def test_batches(self, batch_size: int, *, shard: tuple[int, int] | None = None) -> Iterator[records.Example]:
        """Return an iterator over the central crops of all test images, in the stored order and in batches of one size.

        The last batch is filled up with black images whose label is −1.

        Args:
          batch_size, shard: as for :meth:`train_batches`.
        """
        checks.integer("batch_size", batch_size, minimum=1)
        index, count = _shard(shard, batch_size)
        crop = records.CentralCrop(self._records(self.test_split), self.size)
        filled = -(-self.test_count // batch_size) * batch_size
        dataset = needed("grain").MapDataset.range(filled)[index::count].map(crop).batch(batch_size // count)
        return records.drain(dataset, self.worker_count)

    def test_examples(
        self, count: int, *, seed: int | None = None
    ) -> tuple[UInt8[np.ndarray, "count size size 3"], Int32[np.ndarray, " count"]]:
        """Return the central crops and labels of some test images, as a probe takes them.

        Args:
          count: how many.
          seed: choose them at random, without repetition; by default, the first ones.

        Raises:
          TypeError, ValueError: ``count`` is no integer from 1 to ``test_count``, or a record cannot be decoded.
        """
        checks.integer("count", count, minimum=1, maximum=self.test_count)
        chosen = np.arange(count)
        if seed is not None:
            checks.integer("seed", seed, minimum=0)
            chosen = np.random.default_rng(seed).choice(self.test_count, count, replace=False)
        crop = records.CentralCrop(self._records(self.test_split), self.size)
        examples = list(records.drain(needed("grain").MapDataset.source(chosen).map(crop), 0))
        return np.stack([example["images"] for example in examples]), np.stack([one["labels"] for one in examples])

    def _records(self, split: str) -> records.Records:
        return records.records(self.name, self.folder, split)


def stream(
    name: str,
    *,
    folder: str | os.PathLike | None = None,
    size: int = 224,
    train_split: str = "train",
    test_split: str | None = None,
    worker_count: int = 0,
) -> ImageStream:
    """Return a TFDS image-classification set, prepared as array_record, to be read while training.

    For sets too large to hold, or of images that differ in size; ``load("tfds:NAME")`` reads the others whole.

    Args:
      name: TFDS's name, such as ``"imagenet2012"``, ``"set/config"`` or ``"set:version"``.
      folder: TFDS's ``data_dir``; default: TFDS's own (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
      size: pixels per side of the crops.
      train_split: the split to train on, or a part of it as TFDS writes it: ``"train[:10%]"``.
      test_split: the split to evaluate on; default: ``validation``, else ``test`` (the test images of ImageNet and
        Places bear no labels).
      worker_count: processes that decode, each of which reads whole batches; 0 for threads of this process, which
        reach a few thousand small photographs a second. With workers, a script needs the customary
        ``if __name__ == "__main__":``.

    Raises:
      TypeError, ValueError: the folder or a split does not exist, ``size`` or ``worker_count`` is impossible, or the
        set is unknown, not prepared, or not one of labelled images; the message has the line that prepares it.
      ImportError: grain, Pillow or tensorflow_datasets is missing; the message has the line to run.
    """
    checks.integer("size", size, minimum=1, maximum=checks.LONGEST)
    checks.integer("worker_count", worker_count, minimum=0, maximum=1024)
    for argument, text in (("name", name), ("train_split", train_split)):
        if not isinstance(text, str):
            checks.fail(argument, "be a string", f"{text!r} was given", error=TypeError)
    if test_split is not None and not isinstance(test_split, str):
        checks.fail("test_split", "be a string or None", f"{test_split!r} was given", error=TypeError)
    needed("grain")
    needed("PIL.Image")
    place = None if folder is None else str(existing(folder))
    test_split = records.default_test_split(name, place) if test_split is None else test_split
    train, test = (records.records(name, place, split) for split in (train_split, test_split))
    return ImageStream(
        name=name,
        folder=place,
        train_split=train_split,
        test_split=test_split,
        size=size,
        worker_count=worker_count,
        num_classes=train.num_classes,
        train_count=len(train),
        test_count=len(test),
    )


class Batches:
    """An iterator over training batches that knows its place, for the checkpoint.

    Its ``state()`` is the number of batches that were taken, and what they were taken from; batches that grain has
    read ahead do not count.
    """

    def __init__(self, dataset: Any, identity: dict[str, Any], worker_count: int, taken: int):
        self._identity, self._taken = identity, taken
        # Cut rather than grain's own state, which depends on the number of workers.
        self._batches = records.Ahead(dataset[taken:], worker_count)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> records.Example:
        batch = next(self._batches)
        self._taken += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Return the place as a value that JSON can hold."""
        return {**self._identity, "batches": self._taken}

    def close(self) -> None:
        """Stop the threads or workers that read ahead."""
        self._batches.close()


def _reached(state: Any, identity: dict[str, Any]) -> int:
    if state is None:
        return 0
    if not isinstance(state, dict) or not {*identity, "batches"} <= state.keys():
        checks.fail("state", "be what `state()` of such an iterator returned", f"{state!r} was given", error=TypeError)
    changed = [f"{key} {state[key]!r} instead of {now!r}" for key, now in identity.items() if state[key] != now]
    if changed:
        checks.fail("state", "be of the same stream, seed and batch size", f"it has {', '.join(changed)}")
    return checks.integer("state['batches']", state["batches"], minimum=0)


def _shard(shard: tuple[int, int] | None, batch_size: int) -> tuple[int, int]:
    if shard is None:
        options = needed("grain").sharding.ShardByJaxProcess()
        shard = options.shard_index, options.shard_count
    index, count = shard
    checks.integer("shard's count", count, minimum=1)
    checks.integer("shard's index", index, minimum=0, maximum=count - 1)
    if batch_size % count:
        checks.fail("batch_size", f"be divisible by the {count} hosts", f"{batch_size} was given")
    return index, count
