"""Factories of random warps: settings → ``perturb(key, image)``."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from deform_jax import checks
from deform_jax.typing import Image, Perturb, RandomKey, Shifts
from deform_jax.warps import _inputs
from deform_jax.warps.remap import BOUNDARIES
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
    checks.number("max_shift", max_shift, minimum=0)
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
        max_shift=_plain(checks.number("max_shift", max_shift, minimum=0)),
        boundary=checks.option("boundary", boundary, BOUNDARIES),
        fill=_plain(checks.number("fill", fill)),
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


def _plain(value: Any) -> Any:
    """A Python float, which can be hashed and compared, unless the value is traced."""
    return value if checks.is_traced(value) else float(value)
