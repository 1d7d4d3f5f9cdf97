"""Factories of random warps: settings → ``perturb(key, image)``."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.typing import Field, Image, Perturb, RandomKey, Shifts
from deform_jax.warps import _inputs
from deform_jax.warps.affine import rotation_field, scaling_field, translation_field
from deform_jax.warps.max_entropy import deform_max_entropy
from deform_jax.warps.remap import BOUNDARIES, remap
from deform_jax.warps.temperatures import temperature
from deform_jax.warps.tps import deform_tps


def random_shifts(key: RandomKey, grid: tuple[int, int], max_shift: float | jax.Array) -> Shifts:
    """Draw control-point displacements, each component independent and uniform in [−max_shift, max_shift].

    Args:
      key: one random key.
      grid: (gy, gx), numbers of control points down and across, each ≥ 2; static.
      max_shift: the bound, in pixels, ≥ 0; may be traced.

    Returns:
      (gy, gx, 2) float32 displacements (dy, dx) in pixels, for ``tps_field`` or ``deform_tps``.

    Raises:
      TypeError: ``key`` is not a random key, ``grid`` not a static pair of integers, ``max_shift`` not a number.
      ValueError: a batch of keys, a grid below 2 × 2, or a bound that is negative or not finite.

    Ruderman et al. 2018, section 2.1 ("a maximum distance of 10 in each direction").
    """
    key = _inputs.key(key)
    gy, gx = checks.size_pair("grid", grid, minimum=2, meaning="(rows, columns) of control points")
    max_shift = checks.number("max_shift", max_shift, minimum=0, maximum=checks.LONGEST)
    return jax.random.uniform(key, (gy, gx, 2), dtype=jnp.float32, minval=-max_shift, maxval=max_shift)


def random_tps(
    *,
    grid: tuple[int, int] = (3, 3),
    max_shift: float | jax.Array = 2.0,
    boundary: str = "edge",
    fill: float | jax.Array = 0.0,
) -> Perturb:
    """Random thin-plate-spline warps: ``random_shifts``, then ``deform_tps``.

    The defaults are the paper's for CIFAR10; for ImageNet at 224 × 224 it has ``grid=(5, 5), max_shift=10.0``.

    Args:
      grid: (gy, gx), numbers of control points down and across, each ≥ 2.
      max_shift: bound of each shift's components, in pixels, ≥ 0.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``.
      fill: the value outside the image, as in ``remap``.

    Returns:
      ``perturb(key, image) -> image`` for one floating-point image (h, w, c); ``jax.vmap`` it over keys and images.
      Equal settings make callables that are equal and hash alike, so that jax reuses what it traced for the first;
      with traced settings, which are allowed, the callable cannot be hashed.

    Raises:
      TypeError, ValueError: as ``random_shifts`` and ``remap``; the settings are checked here, key and image on the
        call.

    Ruderman et al. 2018, section 2.1.
    """
    return _RandomTPS(
        grid=checks.size_pair("grid", grid, minimum=2, meaning="(rows, columns) of control points"),
        max_shift=_inputs.plain(checks.number("max_shift", max_shift, minimum=0, maximum=checks.LONGEST)),
        boundary=checks.option("boundary", boundary, BOUNDARIES),
        fill=_inputs.plain(checks.number("fill", fill)),
    )


@dataclasses.dataclass(frozen=True)
class _RandomTPS:
    """A dataclass and not a closure, so that it is compared by its settings."""

    grid: tuple[int, int]
    max_shift: Any
    boundary: str
    fill: Any

    def __call__(self, key: RandomKey, image: Image) -> Image:
        shifts = random_shifts(key, self.grid, self.max_shift)
        return deform_tps(shifts, image, boundary=self.boundary, fill=self.fill)


def random_coefficients(key: RandomKey, cutoff: int) -> Float[Array, "2 c c"]:
    """Draw the coefficients of a maximum-entropy diffeomorphism: independent standard normals.

    Args:
      key: one random key.
      cutoff: c ≥ 2, the number of sine modes along each side; static.

    Returns:
      (2, c, c) float32, without unit, for ``max_entropy_field`` or ``deform_max_entropy``.

    Raises:
      TypeError: ``key`` is not a random key, or ``cutoff`` not a static integer.
      ValueError: a batch of keys, or a cutoff below 2.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468.
    """
    cutoff = checks.integer("cutoff", cutoff, minimum=2, maximum=checks.LONGEST)
    checks.entries("cutoff", 2, cutoff, cutoff)
    return jax.random.normal(_inputs.key(key), (2, cutoff, cutoff), dtype=jnp.float32)


def random_max_entropy(
    *,
    displacement: float | jax.Array = 1.0,
    cutoff: int = 3,
    boundary: str = "edge",
    fill: float | jax.Array = 0.0,
) -> Perturb:
    """Random maximum-entropy diffeomorphisms: ``random_coefficients``, then ``deform_max_entropy``.

    Args:
      displacement: the typical displacement δ ≥ 0, in pixels, on images of any size: the temperature is
        ``temperature(displacement, cutoff=cutoff, size=(h, w))``. It is nominal (see there); for a given temperature
        pass ``typical_displacement(T, ...)``. Beyond ``temperature_range`` is allowed: some warps then fold. May be
        traced; the derivative at 0 is given as 0.
      cutoff: c ≥ 2, the number of sine modes along each side; static.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``.
      fill: the value outside the image, as in ``remap``.

    Returns:
      ``perturb(key, image) -> image`` for one floating-point image (h, w, c), h and w ≥ 3, as from ``random_tps``.

    Raises:
      TypeError, ValueError: as ``temperature`` and ``remap``; the settings are checked here, key and image on the call.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468; the defaults are those of Tomasini et al. 2022.
    """
    return _RandomMaxEntropy(
        displacement=_inputs.plain(checks.number("displacement", displacement, minimum=0, maximum=checks.LONGEST)),
        cutoff=checks.integer("cutoff", cutoff, minimum=2, maximum=checks.LONGEST),
        boundary=checks.option("boundary", boundary, BOUNDARIES),
        fill=_inputs.plain(checks.number("fill", fill)),
    )


@dataclasses.dataclass(frozen=True)
class _RandomMaxEntropy:
    displacement: Any
    cutoff: int
    boundary: str
    fill: Any

    def __call__(self, key: RandomKey, image: Image) -> Image:
        coefficients = random_coefficients(key, self.cutoff)
        height, width, _ = _inputs.example("image", image, "h w c").shape
        strength = temperature(self.displacement, cutoff=self.cutoff, size=(height, width))
        return deform_max_entropy(coefficients, image, temperature=strength, boundary=self.boundary, fill=self.fill)


def random_translation(
    *, max_shift: float | jax.Array = 2.0, boundary: str = "edge", fill: float | jax.Array = 0.0
) -> Perturb:
    """Random translations of the whole picture, both components independent and uniform in [−max_shift, max_shift].

    Args:
      max_shift: bound of each component, in pixels, ≥ 0. Not rounded to whole pixels.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``.
      fill: the value outside the image, as in ``remap``.

    Returns:
      ``perturb(key, image) -> image`` for one floating-point image (h, w, c), as from ``random_tps``.

    Raises:
      TypeError, ValueError: settings that are no numbers or out of range, or an unknown boundary; key and image are
        checked on the call.

    The default is ours, the bound of Ruderman et al.'s deformations for CIFAR10.
    """
    return _affine(
        _translation, checks.number("max_shift", max_shift, minimum=0, maximum=checks.LONGEST), boundary, fill
    )


def random_rotation(
    *, max_angle: float | jax.Array = math.pi / 18, boundary: str = "edge", fill: float | jax.Array = 0.0
) -> Perturb:
    """Random rotations about the picture's centre, by an angle uniform in [−max_angle, max_angle].

    Args:
      max_angle: the bound in radians, ≥ 0; 10 degrees by default, which is ours.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``.
      fill: the value outside the image, as in ``remap``.

    Returns:
      ``perturb(key, image) -> image`` for one floating-point image (h, w, c), as from ``random_tps``.

    Raises:
      TypeError, ValueError: as ``random_translation``.

    Ours, to measure pose.
    """
    return _affine(_rotation, checks.number("max_angle", max_angle, minimum=0), boundary, fill)


def random_scaling(
    *, max_factor: float | jax.Array = 1.1, boundary: str = "edge", fill: float | jax.Array = 0.0
) -> Perturb:
    """Random magnifications about the picture's centre, log-uniform in [1/max_factor, max_factor].

    Args:
      max_factor: the bound, ≥ 1, without unit; the default is ours.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``.
      fill: the value outside the image, as in ``remap``.

    Returns:
      ``perturb(key, image) -> image`` for one floating-point image (h, w, c), as from ``random_tps``.

    Raises:
      TypeError, ValueError: as ``random_translation``.

    Ours, to measure pose.
    """
    return _affine(_scaling, checks.number("max_factor", max_factor, minimum=1), boundary, fill)


def _translation(key: RandomKey, bound: float | jax.Array, shape: tuple[int, int]) -> Field:
    return translation_field(jax.random.uniform(key, (2,), jnp.float32, -bound, bound), shape)


def _rotation(key: RandomKey, bound: float | jax.Array, shape: tuple[int, int]) -> Field:
    return rotation_field(jax.random.uniform(key, (), jnp.float32, -bound, bound), shape)


def _scaling(key: RandomKey, bound: float | jax.Array, shape: tuple[int, int]) -> Field:
    logarithm = jnp.log(jnp.asarray(bound, jnp.float32)) * jax.random.uniform(key, (), jnp.float32, -1.0, 1.0)
    return scaling_field(jnp.exp(logarithm), shape)


def _affine(field: Callable[..., Field], bound: Any, boundary: str, fill: Any) -> Perturb:
    boundary = checks.option("boundary", boundary, BOUNDARIES)
    return _RandomAffine(field, _inputs.plain(bound), boundary, _inputs.plain(checks.number("fill", fill)))


@dataclasses.dataclass(frozen=True)
class _RandomAffine:
    field: Callable[..., Field]
    bound: Any
    boundary: str
    fill: Any

    def __call__(self, key: RandomKey, image: Image) -> Image:
        image = _inputs.example("image", image, "h w c")
        field = self.field(_inputs.key(key), self.bound, image.shape[:2])
        return remap(image, field, boundary=self.boundary, fill=self.fill)
