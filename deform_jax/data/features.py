"""Images of features out of a vocabulary, whose combination makes the class: the rule, drawing and moving them.

SI section 5 asks for "synthetic models of data whose features are combinatorial and stable to smooth transformations".
This one is ours: every feature is a constellation of equal Gaussian blobs, at a place in a small neighbourhood.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from deform_jax import checks
from deform_jax.typing import RandomKey

_LATTICE = 3  # blobs are on 3 × 3 places
_REACH = 3  # blob widths after which a Gaussian has fallen to 1 %


@dataclasses.dataclass(frozen=True)
class Combinatorial:
    """Settings of a combinatorial task; frozen, hashable and compared by value.

    **The rule.** Features are numbered f = 0 … v − 1, and an image of features f₁ … f_k is of class
    (f₁ + … + f_k) mod ``num_classes``. The vocabulary v is a multiple of the number of classes, so that where features
    are drawn uniformly, any k − 1 of them say nothing about the class: the last one can still make it each class,
    equally often. In particular no feature alone does, if k ≥ 2. The order of the features does not count.

    **The features** are different constellations of ``blobs`` places out of 3 × 3, none a translation of another, so
    that all have one brightness, and only the arrangement of their blobs tells them apart.

    Args:
      features: k ≥ 1, per image. Lower-order statistics being silent, 3 and more are hard to learn from few images.
      vocabulary: v, a multiple of ``num_classes``.
      num_classes: ≥ 2.
      size: pixels per side.
      grid: the image is divided into ``grid`` × ``grid`` cells, at least k, with at most one feature in each.
      placement: feature i always in cell i, row by row (``"fixed"``), or in any one, drawn anew per image (``"free"``).
      jitter: a feature is off its cell's centre by up to so many pixels in each direction, uniformly, ≥ 0.
      blobs: of each feature.
      spacing: between neighbouring places of blobs, in pixels, > 0.
      width: standard deviation of a blob, in pixels, > 0.
      noise: standard deviation of white noise, in units of the brightest pixel, ≥ 0; clipped to black and white.
        (``Prepare`` can add noise that is not clipped.)
      disjoint: train and test on different combinations of features, whatever their order. With f = c q + r, where c is
        the number of classes, test images are those with (q₁ + … + q_k) mod (v/c) = v/c − 1, a share c/v of all. The
        class is in r alone: the rule above holds in either part, and every feature is in both. Needs k ≥ 2, v ≥ 2 c.
      seed: draws the vocabulary, which is a part of the task.

    Raises:
      TypeError, ValueError: settings out of these ranges, a larger vocabulary than there are constellations (97 of 4
        blobs), or features that reach (3 widths beyond their outermost blobs) out of their cells.
    """

    features: int = 2
    vocabulary: int = 8
    num_classes: int = 2
    size: int = 32
    grid: int = 2
    placement: Literal["fixed", "free"] = "fixed"
    jitter: float = 2.0
    blobs: int = 4
    spacing: float = 2.5
    width: float = 1.0
    noise: float = 0.0
    disjoint: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in (("num_classes", 2), ("size", 1), ("grid", 1), ("seed", 0)):
            most = 2**31 - 1 if name == "seed" else checks.LONGEST
            checks.integer(name, getattr(self, name), minimum=minimum, maximum=most)
        checks.entries("size", self.size, self.size)
        for name in ("jitter", "spacing", "width", "noise"):
            value = checks.number(name, getattr(self, name), minimum=0, exclusive=name in ("spacing", "width"))
            object.__setattr__(self, name, float(value))
        checks.option("placement", self.placement, ("fixed", "free"))
        object.__setattr__(self, "disjoint", checks.flag("disjoint", self.disjoint))
        checks.integer("features", self.features, minimum=2 if self.disjoint else 1, maximum=self.grid**2)
        checks.integer("blobs", self.blobs, minimum=1, maximum=_LATTICE**2)
        most = len(_constellations(self.blobs))
        checks.integer("vocabulary", self.vocabulary, minimum=self.num_classes * (1 + self.disjoint), maximum=most)
        if self.vocabulary % self.num_classes:
            requirement = f"be a multiple of `num_classes`, {self.num_classes}, for no feature alone to tell the class"
            checks.fail("vocabulary", requirement, f"{self.vocabulary} was given")
        half = self.size / self.grid / 2
        if self.reach + self.jitter > half:
            requirement = f"keep features, which reach {self.reach:g} px, in their cells of ± {half:g} px"
            remedy = "Lower `jitter`, `spacing`, `width` or `grid`, or enlarge `size`."
            checks.fail("jitter", requirement, f"{self.jitter:g} was given", remedy)

    @property
    def reach(self) -> float:
        """Pixels from the middle of a feature to where its outermost blobs have faded to 1 %."""
        return self.spacing + _REACH * self.width


def feature_vocabulary(settings: Combinatorial) -> Float32[np.ndarray, "v blobs 2"]:
    """Return where the blobs of every feature are, in pixels from its middle, (row, column): (v, blobs, 2) numpy.

    Args:
      settings: of which ``vocabulary``, ``blobs``, ``seed`` and ``spacing`` count.

    Raises:
      TypeError: not a ``Combinatorial``.
    """
    check_settings(settings)
    return _vocabulary(settings.vocabulary, settings.blobs, settings.seed) * np.float32(settings.spacing)


def combination_label(features: Any, settings: Combinatorial) -> Int32[Array, "*batch"]:
    """Return the classes of combinations of features: their sum modulo the number of classes.

    Args:
      features: (…, k) integers, 0 to ``vocabulary`` − 1.
      settings: of which ``vocabulary`` and ``num_classes`` count; static.

    Returns:
      (…) int32, 0 to ``num_classes`` − 1.

    Raises:
      TypeError, ValueError: not a ``Combinatorial``; ``features`` are not (…, k) integers or, where known, not in the
        vocabulary.
    """
    return _features(features, settings).sum(axis=-1) % settings.num_classes


def combination_held_out(features: Any, settings: Combinatorial) -> Bool[Array, "*batch"]:
    """Return whether combinations of features are for testing alone, where ``disjoint`` is asked for.

    Args:
      features: (…, k) integers, 0 to ``vocabulary`` − 1.
      settings: of which ``vocabulary`` and ``num_classes`` count; static.

    Returns:
      (…) bool.

    Raises:
      TypeError, ValueError: as :func:`combination_label`.
    """
    check_settings(settings)
    groups = settings.vocabulary // settings.num_classes
    return (_features(features, settings) // settings.num_classes).sum(axis=-1) % groups == groups - 1


def render_features(features: Any, positions: Any, settings: Combinatorial) -> Float[Array, "*batch h w 1"]:
    """Return images of features: sums of Gaussian blobs on black, exact at any place and smooth in it.

    Args:
      features: (…, k) integers, 0 to ``vocabulary`` − 1; any number k of them.
      positions: (…, k, 2) floats, the middles of the features in pixels, (row, column), from 0.
      settings: of which the vocabulary, ``size`` and ``width`` count; static.

    Returns:
      (…, size, size, 1), of the positions' dtype, 0 to 1 where features do not overlap. No noise.

    Raises:
      TypeError, ValueError: as :func:`combination_label`, or positions that are not (…, k, 2) floats.
    """
    features = _features(features, settings, count="k")
    positions = checks.array("positions", positions, "... k 2")
    if positions.shape[:-1] != features.shape:
        requirement = f"have one place for each of `features`, shape {(*features.shape, 2)}"
        checks.fail("positions", requirement, f"its shape is {tuple(positions.shape)}")
    vocabulary = jnp.asarray(feature_vocabulary(settings), positions.dtype)
    centres = positions[..., None, :] + vocabulary[features]
    centres = centres.reshape(*positions.shape[:-2], 1, -1, 2)
    pixels = jnp.arange(settings.size, dtype=positions.dtype).reshape((1,) * len(features.shape[:-1]) + (-1, 1))
    rows, columns = (jnp.exp(-0.5 * jnp.square((pixels - centres[..., axis]) / settings.width)) for axis in (0, 1))
    image = jnp.einsum("...ib,...jb->...ij", rows, columns, precision=jax.lax.Precision.HIGHEST)
    return (image / _brightest(settings))[..., None]


def displace_features(
    key: RandomKey, positions: Any, settings: Combinatorial, *, max_shift: float
) -> Float[Array, "*batch k 2"]:
    """Return every feature's place moved at random: a smooth deformation of the image, which keeps its class.

    Args:
      key: a random key; one for all features, each of which moves independently.
      positions: (…, k, 2) floats, in pixels.
      settings: features that would reach out of the image stop at its border; static.
      max_shift: each component of a shift is uniform between ± ``max_shift`` pixels, ≥ 0. Beyond what is left of
        the cells (``size / grid / 2 − reach − jitter`` on each side), features of neighbouring cells can overlap.

    Returns:
      (…, k, 2), of the positions' dtype.

    Raises:
      TypeError, ValueError: no key or more than one, positions that are not (…, k, 2) floats, or ``max_shift`` < 0.
    """
    check_settings(settings)
    checks.key(key, remedy="One key moves all features; `jax.vmap` over keys and positions for one key per image.")
    positions = checks.array("positions", positions, "... k 2")
    max_shift = checks.number("max_shift", max_shift, minimum=0)
    shifts = max_shift * jax.random.uniform(key, positions.shape, positions.dtype, -1, 1)
    return jnp.clip(positions + shifts, settings.reach - 0.5, settings.size - 0.5 - settings.reach)


@functools.cache
def _constellations(blobs: int) -> np.ndarray:
    """Return every set of ``blobs`` places on the lattice up to translation, about the middle of its extent."""
    places = list(itertools.product(range(_LATTICE), repeat=2))
    sets = np.array(list(itertools.combinations(places, blobs)), np.float32)
    sets = sets[(sets.min(axis=1) == 0).all(axis=-1)]  # of all translations, the one that touches top and left
    return sets - sets.max(axis=1, keepdims=True) / 2


@functools.cache
def _vocabulary(vocabulary: int, blobs: int, seed: int) -> np.ndarray:
    sets = _constellations(blobs)
    with jax.ensure_compile_time_eval():
        chosen = np.asarray(jax.random.permutation(jax.random.key(seed), len(sets)))[:vocabulary]
    return sets[chosen]


def _brightest(settings: Combinatorial) -> float:
    """Return the most that blobs on all 3 × 3 places sum to, which is in the middle."""
    return (1 + 2 * math.exp(-0.5 * (settings.spacing / settings.width) ** 2)) ** 2


def check_settings(settings: Any) -> None:
    """Refuse anything but a ``Combinatorial``."""
    if not isinstance(settings, Combinatorial):
        checks.fail("settings", "be a `Combinatorial`", f"{type(settings).__name__} was given", error=TypeError)


def _features(features: Any, settings: Combinatorial, *, count: str = "") -> Int32[Array, "*batch k"]:
    check_settings(settings)
    features = checks.array("features", features, f"... {count or settings.features}", kind="integer")
    if not checks.is_traced(features):
        known = np.asarray(features)
        if known.min() < 0 or known.max() >= settings.vocabulary:
            outside = known[(known < 0) | (known >= settings.vocabulary)][0]
            checks.fail("features", f"be from 0 to {settings.vocabulary - 1}, the vocabulary", f"{outside} was given")
    return features.astype(jnp.int32)
