"""Bilinear resampling against scipy, and at its borders, in either formulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from deform_jax import warps
from deform_jax.warps import _sampling

SHAPES = [(17, 23, 3), (1, 9, 2), (8, 1, 1), (1, 1, 4), (30, 12, 7)]
SCIPY_MODES = {"edge": "nearest", "constant": "grid-constant"}


@pytest.fixture(params=["by_gathers", "by_products"], autouse=True)
def formulation(request, monkeypatch):
    """Sample in this way whatever the platform and the size of the image."""
    sample = functools.partial(_sampling.sample, blend=getattr(_sampling, request.param))
    monkeypatch.setattr(_sampling, "sample", sample)


def random_case(shape, reach, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.random(shape).astype(np.float32)
    return image, rng.uniform(-reach, reach, (*shape[:2], 2)).astype(np.float32)


def scipy_remap(image, field, boundary, fill):
    rows, columns = np.meshgrid(*map(np.arange, image.shape[:2]), indexing="ij")
    at = np.stack([rows + field[..., 0].astype(float), columns + field[..., 1].astype(float)])
    channels = [
        map_coordinates(image[..., c].astype(float), at, order=1, mode=SCIPY_MODES[boundary], cval=fill)
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.9, 6.0, 1e3])
def test_remap_equals_scipys_map_coordinates(shape, reach, boundary):
    image, field = random_case(shape, reach)
    output = warps.remap(image, field, boundary=boundary, fill=0.25)
    # Coordinates up to 30 px are rounded by 1e-6 px in float32, and the image's slope is at most 1 per pixel; those of
    # 1000 px are rounded by 3e-5 px, but fall inside the image only by chance.
    np.testing.assert_allclose(
        output, scipy_remap(image, field, boundary, 0.25), rtol=0, atol=1e-5 if reach < 9 else 1e-4
    )


@pytest.mark.parametrize("boundary", SCIPY_MODES)
def test_whole_pixel_displacements_copy_pixels_exactly(boundary):
    image, _ = random_case((6, 5, 2), 1.0)
    np.testing.assert_array_equal(warps.remap(image, np.zeros((6, 5, 2)), boundary=boundary, fill=9.0), image)
    moved = warps.remap(image, np.broadcast_to([2, -1], (6, 5, 2)), boundary=boundary, fill=9.0)
    np.testing.assert_array_equal(moved[:4, 1:], image[2:, :-1])  # backward: the content moves up and to the right
    outside = np.repeat(image[-1:, :-1], 2, axis=0) if boundary == "edge" else np.full((2, 4, 2), 9.0)
    np.testing.assert_array_equal(moved[4:, 1:], outside)


def test_linear_ramps_are_sampled_exactly_between_pixels():
    rows, columns = np.meshgrid(np.arange(12.0), np.arange(9.0), indexing="ij")
    ramp = np.stack([rows, columns, rows + 2 * columns], axis=-1).astype(np.float32)
    dy, dx = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 12, 9))
    output = warps.remap(ramp, np.stack([dy, dx], axis=-1))
    y, x = rows + dy, columns + dx
    inner = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(output[inner], np.stack([y, x, y + 2 * x], axis=-1)[inner], rtol=0, atol=1e-5)


def test_constant_fill_is_exact_far_outside_and_absent_inside():
    image, _ = random_case((5, 5, 1), 1.0)
    far = np.full((5, 5, 2), 50.3, np.float32)
    np.testing.assert_array_equal(warps.remap(image, far, boundary="constant", fill=1e6), np.full((5, 5, 1), 1e6))
    near = np.full((5, 5, 2), 0.3, np.float32)
    with_fill, without = (warps.remap(image, near, boundary="constant", fill=f) for f in (1e6, 0.0))
    np.testing.assert_array_equal(with_fill[:-1, :-1], without[:-1, :-1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_images_are_interpolated_in_float32(dtype):
    image, field = random_case((40, 40, 3), 5.0)
    image = jnp.asarray(image, dtype)
    output = warps.remap(image, field)
    assert output.dtype == dtype
    exact = warps.remap(image.astype(jnp.float32), field)
    # Half a unit in the last place of the half type, and a hair for the last bit of the float32 sum before rounding.
    # Interpolating in the half type itself would be out by several units.
    error = np.abs(np.asarray(output, np.float32) - np.asarray(exact))
    assert (error <= 0.501 * np.asarray(jnp.finfo(dtype).eps) * np.asarray(jnp.maximum(jnp.abs(exact), 2.0**-10))).all()


def test_half_precision_fields_do_not_round_coordinates():
    image, _ = random_case((600, 2, 1), 1.0)  # beyond 256, bfloat16 cannot count pixels
    field = jnp.full((600, 2, 2), 0.25, jnp.bfloat16)
    expected = warps.remap(image, field.astype(jnp.float32))
    np.testing.assert_allclose(warps.remap(image, field), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
@pytest.mark.parametrize("far", [1e9, -1e9, 1e30, -1e30])
def test_huge_displacements_land_on_the_border(far, boundary):
    image, field = random_case((6, 5, 2), 1.0)
    field[..., 0] = far
    expected = warps.remap(image, np.clip(field, -100, 100), boundary=boundary, fill=0.5)
    np.testing.assert_array_equal(warps.remap(image, field, boundary=boundary, fill=0.5), expected)


def test_traced_nan_displacement_gives_nan_at_its_pixel_only():
    image, field = random_case((6, 5, 2), 1.0)
    bad = field.copy()
    bad[2, 3, 0] = np.nan
    output = np.array(jax.jit(lambda i, f: warps.remap(i, f))(image, bad))  # new to jit for either formulation
    assert np.isnan(output[2, 3]).all()
    output[2, 3] = warps.remap(image, field)[2, 3]
    np.testing.assert_allclose(output, warps.remap(image, field), rtol=0, atol=1e-6)
