"""Scale detection: are two active pixels on an empty background closer than a scale? (SI sections 3 and 4)

Enumerating the pairs is numpy, exact and done once; moving and drawing pixels is jax, under ``jit`` and ``vmap``.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, UInt8

from deform_jax import checks
from deform_jax.typing import RandomKey

_LAWS = ("step", "neighbourhood", "cross")


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
        object.__setattr__(self, "shape", _shape(self.shape))
        object.__setattr__(self, "scale", float(checks.number("scale", self.scale, minimum=0, exclusive=True)))
        object.__setattr__(self, "gap", float(checks.number("gap", self.gap, minimum=0)))
        for name, allowed in (("full_gap", (True, False)), ("periodic", (True, False, None))):
            if not any(getattr(self, name) is option for option in allowed):
                given = f"{getattr(self, name)!r} was given"
                checks.fail(name, f"be one of {', '.join(map(str, allowed))}", given, error=TypeError)
        if self.value is not None:
            object.__setattr__(self, "value", float(checks.number("value", self.value, minimum=0, exclusive=True)))
        object.__setattr__(self, "pad", checks.integer("pad", self.pad, minimum=0))
        if self.task == "patch" and any(length % self.scale for length in self.shape):
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
    """Disjoint pairs to train and to test on: positions (n, 2, d) and labels (n,), int32 numpy; 1 close, 0 far."""

    train_positions: Int32[np.ndarray, "n 2 d"]
    train_labels: Int32[np.ndarray, " n"]
    test_positions: Int32[np.ndarray, "m 2 d"]
    test_labels: Int32[np.ndarray, " m"]


def pixel_pairs(task: ScaleDetection) -> PixelPairs:
    """Return every unordered pair of different pixels that has a class, by enumeration.

    Raises:
      TypeError, ValueError: not a ``ScaleDetection``, or one with a class to which no pair belongs.

    SI section 3. Numbers of pairs close / far: 256 / 112 in 1-D with L = 32, ξ = 11, g = 4; 1,984 / 6,144 in patches of
    32 pixels out of 128; 130,206 / 145,202 in 2-D with n = 28, ξ = 14, g = 2.
    """
    _check_task(task)
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
      TypeError, ValueError: ``labels`` are not (P,) integers, a number that is no multiple of the number of classes, or
        more than the smallest class can give.
    """
    labels = np.asarray(checks.array("labels", labels, "P", kind="integer"))
    classes, sizes = np.unique(labels, return_counts=True)
    for name, count in (("train", train), ("test", test)):
        if count is not None and checks.integer(name, count, minimum=len(classes)) % len(classes):
            requirement = f"be a multiple of {len(classes)}, the number of classes, for equally many of each"
            checks.fail(name, requirement, f"{count} was given")
    each_train, each_test = train // len(classes), (test or 0) // len(classes)
    if each_train + each_test > sizes.min():
        asked = f"{train} was given" if test is None else f"{train} was given, and {test} as `test`"
        most = f"{sizes.min() * len(classes)}, as the smallest class has {sizes.min()}"
        checks.fail("train", f"{'plus `test` ' if test else ''}be at most {most}", asked)
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


def pixel_displacements(law: str, ndim: int) -> np.ndarray:
    """Return the equally likely moves of one pixel: (m, ndim) int32 numpy, in pixels.

    Args:
      law: ``"step"``: a unit move along one axis, −1 or +1 in 1-D (SI section 4); ``"neighbourhood"``: the 3^ndim
        pixels around and including the pixel itself (SI section 3); ``"cross"``: the unit moves and staying.
      ndim: 1 or 2.

    Raises:
      TypeError, ValueError: an unknown law, or another ``ndim``.
    """
    checks.option("law", law, _LAWS)
    ndim = checks.integer("ndim", ndim, minimum=1, maximum=2)
    moves = np.array(list(itertools.product((-1, 0, 1), repeat=ndim)), np.int32)
    lengths = np.abs(moves).sum(axis=-1)
    return moves[{"step": lengths == 1, "neighbourhood": lengths >= 0, "cross": lengths <= 1}[law]]


def displace_pixels(
    key: RandomKey,
    positions: Any,
    shape: Sequence[int],
    *,
    law: str,
    boundary: Literal["periodic", "clamp"] = "periodic",
    patch: int | None = None,
) -> Int32[Array, "*batch p d"]:
    """Return pixels each moved at random, independently of all others: what a diffeomorphism does to such images.

    Args:
      key: a random key; one for all pixels.
      positions: (…, p, d) integers from 0, the p active pixels of each image.
      shape: (L,) or (h, w), in pixels, without padding; static.
      law: of the moves, as :func:`pixel_displacements`; static.
      boundary: a pixel that leaves the image comes in at the other side (``"periodic"``, SI section 4), or goes to the
        nearest pixel inside (``"clamp"``, the 2-D task); static.
      patch: undo a pixel's move where it leaves its patch of that many pixels a side, so that the class of a
        ``"patch"`` task is kept, as the released code can; static. Default: moves are kept (SI section 4.2 counts on
        those that cross the border).

    Raises:
      TypeError, ValueError: positions of another rank or, where known, outside the image; unknown options; a patch that
        does not divide ``shape``.
    """
    shape = _shape(shape)
    checks.option("boundary", boundary, ("periodic", "clamp"))
    positions = _positions(positions, shape)
    moves = jnp.asarray(pixel_displacements(law, len(shape)))
    limit = jnp.broadcast_to(jnp.asarray(shape, jnp.int32), positions.shape)
    moved = positions + moves[jax.random.randint(key, positions.shape[:-1], 0, len(moves))]
    moved = moved % limit if boundary == "periodic" else jnp.clip(moved, 0, limit - 1)
    if patch is None:
        return moved
    patch = checks.integer("patch", patch, minimum=1)
    if any(length % patch for length in shape):
        checks.fail("patch", f"divide every side of {shape}", f"{patch} was given")
    inside = (moved // patch == positions // patch).all(axis=-1, keepdims=True)
    return jnp.where(inside, moved, positions)


def render_pixels(
    positions: Any,
    shape: Sequence[int],
    *,
    value: Any = 1.0,
    collisions: Literal["superpose", "collapse"] = "superpose",
    pad: int = 0,
) -> Float[Array, "*batch_and_shape 1"]:
    """Return images of active pixels on an empty background.

    Args:
      positions: (…, p, d) integers from 0, the p active pixels of each image; those outside the image are refused where
        they are known, and else not drawn.
      shape: (L,) or (h, w), in pixels, without padding; static.
      value: of an active pixel.
      collisions: two pixels at one place add up (``"superpose"``, the linearity SI section 4 rests on), or make one
        pixel (``"collapse"``, the released code); static.
      pad: zero pixels added on every side; static.

    Returns:
      (…, L + 2 pad, 1) or (…, h + 2 pad, w + 2 pad, 1) float32.

    Raises:
      TypeError, ValueError: positions of another rank or outside the image, unknown options.
    """
    shape = _shape(shape)
    checks.option("collisions", collisions, ("superpose", "collapse"))
    pad = checks.integer("pad", pad, minimum=0)
    value = checks.number("value", value)
    positions = _positions(positions, shape)
    size, batch = math.prod(shape), positions.shape[:-2]
    flat = positions[..., 0] if len(shape) == 1 else positions[..., 0] * shape[1] + positions[..., 1]
    inside = [(positions[..., axis] >= 0) & (positions[..., axis] < length) for axis, length in enumerate(shape)]
    flat = jnp.where(jnp.stack(inside).all(axis=0), flat, size).reshape(-1, positions.shape[-2])
    counts = jax.vmap(lambda index: jnp.zeros(size, jnp.float32).at[index].add(1.0, mode="drop"))(flat)
    images = (jnp.minimum(counts, 1.0) if collisions == "collapse" else counts) * jnp.asarray(value, jnp.float32)
    images = images.reshape(*batch, *shape, 1)
    return jnp.pad(images, [(0, 0)] * len(batch) + [(pad, pad)] * len(shape) + [(0, 0)])


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
    positions = np.asarray(_positions(positions, task.shape, dims="n p"))
    shape = (len(positions), *(length + 2 * task.pad for length in task.shape))
    image = np.broadcast_to(np.arange(len(positions))[:, None], positions.shape[:2])
    images = np.zeros(math.prod(shape), np.uint8)
    np.add.at(images, np.ravel_multi_index((image, *np.moveaxis(positions + task.pad, -1, 0)), shape), 1)
    return images.reshape(*shape, 1)


def active_value(task: ScaleDetection) -> float:
    """Return the value of an active pixel: the task's own, or √(L/2) in 1-D and hw/2 in 2-D (without padding)."""
    _check_task(task)
    if task.value is not None:
        return task.value
    return math.sqrt(task.shape[0] / 2) if len(task.shape) == 1 else math.prod(task.shape) / 2


@dataclasses.dataclass(frozen=True)
class ActivePixels:
    """The ``prepare`` of ``training.fit`` for scale detection: images are counts of active pixels times ``value``.

    Args:
      value: of an active pixel, such as :func:`active_value` gives.

    Raises:
      TypeError, ValueError: ``value`` is no finite number > 0.
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(checks.number("value", self.value, minimum=0, exclusive=True)))

    def __call__(self, keys: jax.Array | None, counts: Any) -> Float[Array, "n *shape 1"]:
        """Return float32 images from uint8 counts (n, …, 1); nothing is random, and ``keys`` are not used."""
        return self.value * jnp.asarray(counts).astype(jnp.float32)


def _check_task(task: Any) -> None:
    if not isinstance(task, ScaleDetection):
        checks.fail("task", "be a `ScaleDetection`", f"{type(task).__name__} was given", error=TypeError)


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list) or len(shape) not in (1, 2):
        error = ValueError if isinstance(shape, tuple | list) else TypeError
        checks.fail("shape", "be (L,) or (h, w), in pixels", f"{shape!r} was given", error=error)
    return tuple(checks.integer("shape", length, minimum=2) for length in shape)


def _positions(positions: Any, shape: tuple[int, ...], *, dims: str = "... p") -> Int[Array, "*batch p d"]:
    positions = checks.array("positions", positions, f"{dims} {len(shape)}", kind="integer").astype(jnp.int32)
    if not checks.is_traced(positions):
        known = np.asarray(positions)
        outside = ((known < 0) | (known >= np.array(shape))).any(axis=-1)
        if outside.any():
            first = known[tuple(np.argwhere(outside)[0])].tolist()
            checks.fail("positions", f"be pixels of an image of shape {shape}", f"{first} was given")
    return positions


def _distances(positions: np.ndarray, task: ScaleDetection) -> np.ndarray:
    """Return the Euclidean distances of pairs, in pixels: exact roots of integers, so that d = ξ ± g/2 is decided."""
    apart = np.abs(positions[:, 0] - positions[:, 1])
    periodic = len(task.shape) == 1 if task.periodic is None else task.periodic
    if periodic:
        apart = np.minimum(apart, np.array(task.shape, np.int32) - apart)
    return np.sqrt(np.square(apart).sum(axis=-1))
