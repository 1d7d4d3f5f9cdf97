"""Thin-plate splines: displacements of a few control points → displacement field."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.typing import Field, Image, Shifts
from deform_jax.warps import _inputs
from deform_jax.warps.remap import remap


def control_points(grid: tuple[int, int], shape: tuple[int, int]) -> Float[Array, "gy gx 2"]:
    """Pixel positions of evenly spaced control points, the four corner pixels included.

    Args:
      grid: (gy, gx), numbers of control points down and across, each ≥ 2; static.
      shape: (h, w) of the image in pixels, each ≥ 2; static.

    Returns:
      (gy, gx, 2) positions (y, x) in pixels, from (0, 0) to (h − 1, w − 1); not rounded to whole pixels.

    Raises:
      TypeError: ``grid`` or ``shape`` is not a static pair of integers.
      ValueError: one of them is below 2, where control points would coincide.

    Ruderman et al. 2018, section 2.1, says "evenly spaced"; that the corners are included is our reading.
    """
    grid = checks.size_pair("grid", grid, minimum=2, meaning="(rows, columns) of control points")
    return jnp.asarray(_positions(grid, checks.size_pair("shape", shape, minimum=2)))


def tps_field(shifts: Shifts, shape: tuple[int, int]) -> Field:
    """Thin-plate spline (kernel r² log r plus an affine part) through the shifts of evenly spaced control points.

    The spline is the field of least bending energy that interpolates the shifts at ``control_points(grid, shape)``. It
    is linear in the shifts and reproduces affine fields exactly. The linear map is solved once in float64 per shape and
    grid and cached (4·h·w·gy·gx bytes, the last 16 kept); a call is one matrix product, and so is a vmapped one.

    Args:
      shifts: (gy, gx, 2) displacements (dy, dx) of the control points, in pixels; gy and gx ≥ 2 give the grid.
      shape: (h, w) of the field in pixels, each ≥ 2, square or not; static.

    Returns:
      (h, w, 2) backward displacements (dy, dx) in pixels, for ``remap``, in float32 or better.

    Raises:
      TypeError: ``shifts`` does not hold real numbers, or ``shape`` is not a static pair of integers.
      ValueError: wrong shapes (a batch included), a grid or an image of one row or column, or shifts known to be NaN or
        infinite.

    Ruderman et al. 2018, section 2.1; Duchon 1977, https://doi.org/10.1007/BFb0086566.
    """
    shifts = _inputs.example("shifts", shifts, "gy gx 2", kind="real")
    if min(shifts.shape[:2]) < 2:
        given = f"its shape is {tuple(shifts.shape)}"
        checks.fail("shifts", "have shape (gy, gx, 2) with gy and gx ≥ 2", given, "A spline needs all four corners.")
    height, width = checks.size_pair("shape", shape, minimum=2)
    remedy = "The spline's basis has one entry for each pixel and control point: take fewer of either."
    checks.entries("shape", height, width, *shifts.shape[:2], remedy=remedy)
    shifts = shifts.astype(jnp.promote_types(shifts.dtype, jnp.float32))
    basis = jnp.asarray(_basis(shifts.shape[:2], (height, width)), dtype=shifts.dtype)
    # Components × pixels, so that vmap over n sets of shifts is one (2n, gy·gx) @ (gy·gx, h·w) whose output needs no
    # transposition: remap reads whole planes of dy and dx, 2 to 4 times faster than pairs of them on a CPU.
    planes = jnp.matmul(shifts.reshape(-1, 2).T, basis, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(planes.reshape(2, height, width), 0, -1)


def deform_tps(shifts: Shifts, image: Image, *, boundary: str = "edge", fill: float | jax.Array = 0.0) -> Image:
    """Warp one image by the thin-plate spline through the shifts: what ``random_tps`` draws shifts for.

    Args:
      shifts: (gy, gx, 2) displacements (dy, dx) of the control points, in pixels, gy and gx ≥ 2. Backward: at a control
        point p the result shows ``image[p + shift]``.
      image: (h, w, c), floating point, h and w ≥ 2.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``.
      fill: the value outside the image, as in ``remap``.

    Returns:
      The warped image, (h, w, c), with the image's dtype.

    Raises:
      TypeError, ValueError: as ``tps_field`` and ``remap``.

    Ruderman et al. 2018, section 2.1. Its text speaks of destinations, its Fig. 2 of sources; we follow the figure.
    """
    image = _inputs.example("image", image, "h w c")
    height, width, _ = image.shape
    if min(height, width) < 2:
        checks.fail("image", "be at least 2 pixels high and wide", f"its shape is {tuple(image.shape)}")
    return remap(image, tps_field(shifts, (height, width)), boundary=boundary, fill=fill)


def _positions(grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.linspace(0, n - 1, g) for g, n in zip(grid, shape, strict=True))
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)


@functools.lru_cache(maxsize=16)
def _basis(grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """The spline's linear map, shifts at gy·gx control points → values at h·w pixels, as read-only (gy·gx, h·w).

    A numpy array: a jax array first made while a function is traced would be a tracer, and the cache would leak it.
    """
    height, width = shape
    # Unit square or less: r² log r and the affine part then have like sizes. A common scale leaves the spline as it is.
    scale = 1.0 / (max(shape) - 1)
    points = _positions(grid, shape).reshape(-1, 2) * scale
    solution = _solve(points)
    basis = np.empty((len(points), height, width), dtype=np.float32)
    x = np.arange(width) * scale
    for row in range(height):  # one row at a time: the float64 terms of a whole image would take 5 × the basis
        y = row * scale
        kernel = _kernel((y - points[:, :1]) ** 2 + (x - points[:, 1:]) ** 2)
        affine = np.stack([np.ones(width), np.full(width, y), x])
        basis[:, row] = solution @ np.concatenate([kernel, affine])
    basis = basis.reshape(len(points), -1)
    basis.flags.writeable = False
    return basis


def _solve(points: np.ndarray) -> np.ndarray:
    """Row i: the kernel and affine coefficients of the spline that is 1 at point i and 0 at the others."""
    n = len(points)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = _kernel(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    system[:n, n] = system[n, :n] = 1.0
    system[:n, n + 1 :] = points
    system[n + 1 :, :n] = points.T
    return np.linalg.solve(system, np.eye(n + 3, n)).T


def _kernel(squared_distance: np.ndarray) -> np.ndarray:
    """r² log r from r², 0 at r = 0."""
    positive = np.where(squared_distance > 0, squared_distance, 1.0)
    return 0.5 * squared_distance * np.log(positive)
