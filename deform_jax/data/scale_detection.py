"""Scale detection: are two active pixels on an empty background closer than a scale? (SI sections 3 and 4)

Enumerating the pairs is numpy, exact and done once; ``active_pixels`` moves and draws pixels in jax.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from deform_jax import checks
from deform_jax.data.active_pixels import image_shape, pixel_positions
from deform_jax.typing import RandomKey


@dataclasses.dataclass(frozen=True)
class ScaleDetection:
    """Settings of a scale-detection task; frozen, hashable and compared by value.

    Args:
      task: ``"distance"`` (SI's task 1): class 1, close, where the pixels' Euclidean distance d < ξ − g/2, and class 0,
        far, where d ≥ ξ + g/2; pairs in between are dropped. ``"patch"`` (task 2): class 1 where both pixels are in the
        same one of the patches of ξ pixels a side that tile the image.
      shape: (L,) or (h, w), in pixels: where pixels can be active.
      scale: ξ > 0, in pixels; for patches an integer that divides every side.
      gap: g ≥ 0, in pixels; of ``"distance"`` only.
      full_gap: leave out g on each side of ξ, not g/2, as the released 1-D code does; of ``"distance"`` only.
      periodic: whether distances are around a torus; of ``"distance"`` only. Default: in 1-D, not in 2-D.
      value: of an active pixel. Default: √(L/2) in 1-D, so that every image has ‖x‖² = L, and hw/2 in 2-D, as in the
        released code (√(hw/2) would keep SI's norm).
      pad: zero pixels added on every side of a drawn image: SI's 28 × 28 become 32 × 32 with 2.

    Raises:
      TypeError, ValueError: settings out of these ranges.

    SI section 3 prints "d ∈ [ξ − g/2, ξ + g/2]" of the pairs kept, and means those outside. Section 4 and its figure
    use the defaults (task 1) and ``ScaleDetection("patch", (128,), 32)``; the 2-D task of Fig. 8 and 9 is
    ``ScaleDetection(shape=(28, 28), scale=14, gap=2, pad=2)``.
    """

    task: Literal["distance", "patch"] = "distance"
    shape: tuple[int, ...] = (32,)
    scale: float = 11.0
    gap: float = 4.0
    full_gap: bool = False
    periodic: bool | None = None
    value: float | None = None
    pad: int = 0

    def __post_init__(self) -> None:
        checks.option("task", self.task, ("distance", "patch"))
        object.__setattr__(self, "shape", image_shape(self.shape))
        object.__setattr__(self, "scale", float(checks.number("scale", self.scale, minimum=0, exclusive=True)))
        object.__setattr__(self, "gap", float(checks.number("gap", self.gap, minimum=0)))
        for name, allowed in (("full_gap", (True, False)), ("periodic", (True, False, None))):
            if not any(getattr(self, name) is option for option in allowed):
                given = f"{getattr(self, name)!r} was given"
                checks.fail(name, f"be one of {', '.join(map(str, allowed))}", given, error=TypeError)
        if self.value is not None:
            object.__setattr__(self, "value", float(checks.number("value", self.value, minimum=0, exclusive=True)))
        object.__setattr__(self, "pad", checks.integer("pad", self.pad, minimum=0, maximum=checks.LONGEST))
        whole = self.scale == round(self.scale)
        if self.task == "patch" and (not whole or any(length % self.scale for length in self.shape)):
            remedy = "Patches tile the image; choose a divisor of its sides."
            requirement = f"be an integer that divides every side of {self.shape} where `task` is 'patch'"
            checks.fail("scale", requirement, f"{self.scale:g} was given", remedy)


class PixelPairs(NamedTuple):
    """All pairs of a task.

    Attributes:
      positions: (P, 2, d) int32 numpy, the two pixels of each pair, in row-major order of the first, then the second.
      labels: (P,) int32 numpy, 1 close or in the same patch, 0 far.
      dropped: how many more pairs fall in the gap.
    """

    positions: Int32[np.ndarray, "P 2 d"]
    labels: Int32[np.ndarray, " P"]
    dropped: int


class PairSplit(NamedTuple):
    """Disjoint pairs to train and to test on.

    Attributes:
      train_positions: (n, 2, d) int32 numpy, the two pixels of each pair.
      train_labels: (n,) int32 numpy, 1 close or in the same patch, 0 far.
      test_positions: (m, 2, d), likewise.
      test_labels: (m,), likewise.
    """

    train_positions: Int32[np.ndarray, "n 2 d"]
    train_labels: Int32[np.ndarray, " n"]
    test_positions: Int32[np.ndarray, "m 2 d"]
    test_labels: Int32[np.ndarray, " m"]


def pixel_pairs(task: ScaleDetection) -> PixelPairs:
    """Return every unordered pair of different pixels that has a class, by enumeration.

    Args:
      task: the settings.

    Raises:
      TypeError, ValueError: not a ``ScaleDetection``, or one with a class to which no pair belongs.

    SI section 3. Numbers of pairs close / far: 256 / 112 in 1-D with L = 32, ξ = 11, g = 4; 1,984 / 6,144 in patches of
    32 pixels out of 128; 130,206 / 145,202 in 2-D with n = 28, ξ = 14, g = 2.
    """
    _check_task(task)
    count = math.prod(task.shape)
    checks.entries("task", count, count, len(task.shape), remedy="There are as many pairs: take a smaller `shape`.")
    pixels = np.stack(np.unravel_index(np.arange(math.prod(task.shape)), task.shape), axis=-1).astype(np.int32)
    first, second = np.triu_indices(len(pixels), k=1)
    positions = np.stack([pixels[first], pixels[second]], axis=1)
    if task.task == "patch":
        patches = positions // np.int32(task.scale)
        close = (patches[:, 0] == patches[:, 1]).all(axis=-1)
        far = ~close
    else:
        distances = _distances(positions, task)
        half = task.gap if task.full_gap else task.gap / 2
        close, far = distances < task.scale - half, distances >= task.scale + half
    for kind, members, change in (("close", close, "Raise"), ("far", far, "Lower")):
        if not members.any():
            remedy = f"{change} `scale`, lower `gap` or enlarge `shape`."
            checks.fail("task", f"have {kind} pairs", f"{task} has none", remedy)
    kept = close | far
    return PixelPairs(positions[kept], close[kept].astype(np.int32), int(len(kept) - kept.sum()))


def balanced_split(
    key: RandomKey, labels: Any, *, train: int, test: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and of test examples: disjoint, random, equally many of each class.

    Args:
      key: a random key. The same key gives training sets that contain one another as ``train`` grows, and, where
        ``test`` is a number, the same test set whatever ``train``.
      labels: (P,) integers.
      train: number of training examples, a multiple of the number of classes.
      test: number of test examples, likewise; ``None``: every other example, which is not balanced in general.

    Returns:
      Two int arrays, each in random order.

    Raises:
      TypeError, ValueError: no key or more than one, ``labels`` that are not (P,) integers, a number that is no
        multiple of the number of classes, or more than the smallest class can give.
    """
    checks.key(key, remedy="One key makes one split.")
    labels = np.asarray(checks.array("labels", labels, "P", kind="integer"))
    classes, sizes = np.unique(labels, return_counts=True)
    for name, count in (("train", train), ("test", test)):
        if (count is not None or name == "train") and checks.integer(name, count, minimum=len(classes)) % len(classes):
            requirement = f"be a multiple of {len(classes)}, the number of classes, for equally many of each"
            checks.fail(name, requirement, f"{count} was given")
    each_train, each_test = train // len(classes), (test or 0) // len(classes)
    if each_train + each_test > sizes.min():
        asked = f"{train} was given" if test is None else f"{train} was given, and {test} as `test`"
        most = f"{sizes.min() * len(classes)}{' together with `test`' if test else ''}"
        checks.fail("train", f"be at most {most}, as the smallest class has {sizes.min()}", asked)
    if test is None and train == len(labels):
        checks.fail("train", "leave examples to test on", f"{train} was given of {len(labels)}")
    order = np.asarray(jax.random.permutation(key, len(labels)))
    rank = np.empty(len(labels), np.int64)  # of each example among those of its class, in the order drawn
    drawn = labels[order]
    for label, size in zip(classes, sizes, strict=True):
        rank[drawn == label] = np.arange(size)
    chosen = rank < each_train
    last = sizes[np.searchsorted(classes, drawn)] - each_test
    return order[chosen], order[~chosen if test is None else rank >= last]


def scale_detection(key: RandomKey, task: ScaleDetection, *, train: int, test: int | None = None) -> PairSplit:
    """Return pairs to train on, balanced, and others to test on.

    Args:
      key: a random key; :func:`balanced_split` says what it fixes.
      task: the settings.
      train: number of training pairs, even: half of them close.
      test: number of test pairs, even; ``None``: every other pair.

    Raises:
      TypeError, ValueError: as :func:`pixel_pairs` and :func:`balanced_split`.

    SI sections 3, 4: P = 48 (task 1) and 1,024 (task 2 and the 2-D task).
    """
    pairs = pixel_pairs(task)
    train_indices, test_indices = balanced_split(key, pairs.labels, train=train, test=test)
    arrays = [part[chosen] for chosen in (train_indices, test_indices) for part in pairs[:2]]
    for array in arrays:
        array.flags.writeable = False  # device_put may alias it on the CPU
    return PairSplit(*arrays)


def pair_images(task: ScaleDetection, positions: Any) -> UInt8[np.ndarray, "*batch_and_shape 1"]:
    """Return how many active pixels are at each place, as an ``ImageSet`` stores images; :class:`ActivePixels` scales.

    Args:
      task: of which ``shape`` and ``pad`` count.
      positions: (P, p, d) integers from 0.

    Returns:
      (P, L + 2 pad, 1) or (P, h + 2 pad, w + 2 pad, 1) uint8 numpy, zero but at the active pixels.

    Raises:
      TypeError, ValueError: not a ``ScaleDetection``, or positions of another rank or outside the image.
    """
    _check_task(task)
    positions = np.asarray(pixel_positions(positions, task.shape, dims="n p"))
    if positions.shape[1] > np.iinfo(np.uint8).max:
        given = f"there are {positions.shape[1]} in each"
        checks.fail("positions", "be so few pixels that uint8 counts them, 255 in an image", given)
    checks.entries("positions", len(positions), *(length + 2 * task.pad for length in task.shape))
    shape = (len(positions), *(length + 2 * task.pad for length in task.shape))
    image = np.broadcast_to(np.arange(len(positions))[:, None], positions.shape[:2])
    images = np.zeros(math.prod(shape), np.uint8)
    np.add.at(images, np.ravel_multi_index((image, *np.moveaxis(positions + task.pad, -1, 0)), shape), 1)
    return images.reshape(*shape, 1)


def active_value(task: ScaleDetection) -> float:
    """Return the value of an active pixel: the task's own, or √(L/2) in 1-D and hw/2 in 2-D (without padding).

    Args:
      task: of which ``value`` and ``shape`` count.

    Raises:
      TypeError: not a ``ScaleDetection``.

    SI section 4; the released code in 2-D.
    """
    _check_task(task)
    if task.value is not None:
        return task.value
    return math.sqrt(task.shape[0] / 2) if len(task.shape) == 1 else math.prod(task.shape) / 2


def _check_task(task: Any) -> None:
    if not isinstance(task, ScaleDetection):
        checks.fail("task", "be a `ScaleDetection`", f"{type(task).__name__} was given", error=TypeError)


def _distances(positions: np.ndarray, task: ScaleDetection) -> np.ndarray:
    """Return the Euclidean distances of pairs, in pixels: exact roots of integers, so that d = ξ ± g/2 is decided."""
    apart = np.abs(positions[:, 0] - positions[:, 1])
    periodic = len(task.shape) == 1 if task.periodic is None else task.periodic
    if periodic:
        apart = np.minimum(apart, np.array(task.shape, np.int32) - apart)
    return np.sqrt(np.square(apart).sum(axis=-1))
