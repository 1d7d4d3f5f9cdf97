"""The records of a prepared TFDS set, decoded and cropped by grain in threads or worker processes."""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from deform_jax import checks
from deform_jax.data import crops, tfds_sets
from deform_jax.data.archives import needed

Example = dict[str, np.ndarray]
"""``images`` (size, size, 3) uint8 and ``labels`` () int32; batches have a leading axis."""
THREADS = 16


@dataclasses.dataclass(frozen=True)
class Records:
    """One split of a set, as encoded images with their labels. It travels to worker processes.

    Attributes:
      name, split: TFDS's.
      place: the folder of the files, for messages.
      num_classes: number of classes.
      source: TFDS's data source, its images not decoded.
      image_key, label_key: the entries of its examples.
    """

    name: str
    split: str
    place: str
    num_classes: int
    source: Sequence[dict[str, Any]]
    image_key: str
    label_key: str

    def __len__(self) -> int:
        return len(self.source)

    def example(self, index: int, crop: Callable[[bytes], np.ndarray]) -> Example:
        """Return a record's cropped image and label.

        Raises:
          ValueError: it cannot be read or decoded, or has no label; the message names it.
        """
        try:
            record = self.source[index]
            image, label = crop(record[self.image_key]), int(record[self.label_key])
        except Exception as error:  # Pillow, protobuf and array_record raise many kinds for damaged bytes
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise ValueError(
                f"{self._named(index)} cannot be decoded ({type(error).__name__}: {reason}). Prepare the set again, or "
                "leave the record out by a part of the split, such as 'train[:90%]'."
            ) from error
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f"{self._named(index)} has the label {label}, none of the {self.num_classes} classes. Use a split that "
                "bears labels."
            )
        return {"images": image, "labels": np.asarray(label, np.int32)}

    def _named(self, index: int) -> str:
        return f"Record {index} of split {self.split!r} of {self.name!r} (under {self.place})"


def records(name: str, folder: str | None, split: str) -> Records:
    """Return the split of a prepared set, or say what is wrong with it."""
    tfds = needed("tensorflow_datasets")
    builder = tfds_sets.find(tfds, name, folder, wanted="the name")
    image_key, label_key, num_classes = tfds_sets.features(tfds, builder, name)
    try:
        source = builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
    except NotImplementedError:  # TFDS's own, for a file format without random access
        tfds_sets.not_prepared(name, folder, f"it is stored under {builder.data_path} in another format")
    except (ValueError, KeyError, AssertionError):
        source = []
    if not len(source):
        listed = ", ".join(builder.info.splits) or "none"
        checks.fail("split", f"be one with images, of those that {name!r} has: {listed}", f"{split!r} was given")
    return Records(name, split, str(builder.data_path), num_classes, source, image_key, label_key)


def default_test_split(name: str, folder: str | None) -> str:
    """Return ``"validation"`` where the set has it, else ``"test"``."""
    splits = tfds_sets.find(needed("tensorflow_datasets"), name, folder, wanted="the name").info.splits
    return "validation" if "validation" in splits else "test"


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """(position in the endless order, record) → the training example, random by seed, epoch and record."""

    records: Records
    size: int
    seed: int
    per_epoch: int

    def __call__(self, position: int, index: int) -> Example:
        """Return the example at a position."""
        rng = np.random.default_rng((self.seed, position // self.per_epoch, index))
        return self.records.example(index, lambda encoded: crops.random_resized_crop(encoded, self.size, rng))


@dataclasses.dataclass(frozen=True)
class CentralCrop:
    """Record → the test example; beyond the last record, a black image with the label −1."""

    records: Records
    size: int

    def __call__(self, index: int) -> Example:
        """Return the example of a record."""
        if index >= len(self.records):
            return {"images": np.zeros((self.size, self.size, 3), np.uint8), "labels": np.asarray(-1, np.int32)}
        return self.records.example(int(index), lambda encoded: crops.central_crop(encoded, self.size))


class Ahead:
    """Iterator over a map dataset of grain's, its elements made ahead, each by one thread or worker process."""

    def __init__(self, dataset: Any, worker_count: int):
        grain, flags = needed("grain"), needed("absl.flags").FLAGS
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, min(THREADS, cores // max(1, worker_count)))
        # Buffers count elements, which are whole batches here.
        ahead = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        options = grain.multiprocessing.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=1)
        if worker_count and not flags.is_parsed():  # its workers look at command-line flags, absl's, even if unset
            flags.mark_as_parsed()
        self._workers = worker_count
        self._elements: Any = iter(ahead.mp_prefetch(options))

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> Example:
        # A copy of what lies in memory shared with a worker, which grain wants back.
        return {name: np.array(value, subok=False) for name, value in next(self._elements).items()}

    def close(self) -> None:
        """Stop the threads or workers."""
        self._elements.close()
        if self._workers:  # iterators in reference cycles, which complain if they live until Python ends
            self._elements, self._workers = (element for element in ()), 0
            gc.collect()


def drain(dataset: Any, worker_count: int) -> Iterator[Example]:
    """Yield the elements of a finite dataset, and stop what reads ahead even if not all are taken."""
    with contextlib.closing(Ahead(dataset, worker_count)) as elements:
        yield from elements
