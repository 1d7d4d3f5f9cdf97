"""Thin-plate splines against scipy and scikit-image, and the properties that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator
from skimage.transform import ThinPlateSplineTransform, warp

from deform_jax import warps
from deform_jax.warps import tps

# (grid, shape, bound of the shifts in pixels): the paper's two settings, then what might go wrong beside them.
CASES = [
    pytest.param((5, 5), (224, 224), 10.0, id="imagenet"),
    pytest.param((3, 3), (32, 32), 2.0, id="cifar10"),
    pytest.param((2, 2), (7, 5), 1.0, id="smallest_grid"),
    pytest.param((4, 3), (40, 57), 5.0, id="not_square"),
    pytest.param((5, 2), (100, 2), 3.0, id="two_columns"),
    pytest.param((6, 7), (5, 4), 1.0, id="more_points_than_pixels"),
]


def positions(grid, shape):
    """Evenly spaced (y, x) including the corners, in float64, derived apart from the code under test."""
    (gy, gx), (h, w) = grid, shape
    return np.array([[[i * (h - 1) / (gy - 1), j * (w - 1) / (gx - 1)] for j in range(gx)] for i in range(gy)])


def pixels(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)


def random_shifts(grid, bound, seed=0):
    return np.random.default_rng(seed).uniform(-bound, bound, (*grid, 2)).astype(np.float32)


@pytest.mark.parametrize(("grid", "shape", "bound"), CASES)
def test_control_points_are_evenly_spaced_with_the_corners(grid, shape, bound):
    np.testing.assert_allclose(warps.control_points(grid, shape), positions(grid, shape), rtol=1e-6)


@pytest.mark.parametrize(("grid", "shape", "bound"), CASES)
def test_field_equals_scipys_thin_plate_spline(grid, shape, bound):
    shifts = random_shifts(grid, bound)
    points = positions(grid, shape).reshape(-1, 2)
    spline = RBFInterpolator(points, shifts.reshape(-1, 2).astype(float), kernel="thin_plate_spline")
    expected = spline(pixels(shape).reshape(-1, 2)).reshape(*shape, 2)
    field = warps.tps_field(jnp.asarray(shifts), shape)
    assert field.dtype == jnp.float32
    np.testing.assert_allclose(field, expected, rtol=0, atol=1e-5)  # pixels


def scikit_image_spline(shifts, shape):
    """The map p → p + field[p] as scikit-image's transform, which speaks of (x, y)."""
    points = positions(shifts.shape[:2], shape)
    source, target = ((p.reshape(-1, 2)[:, ::-1]).astype(float) for p in (points, points + shifts))
    return ThinPlateSplineTransform.from_estimate(source, target)


# scikit-image 0.26 calls functions that SciPy 1.18 has deprecated.
of_scikit_image = pytest.mark.filterwarnings("ignore:.*in favor of .scipy.spatial:DeprecationWarning")


@of_scikit_image
def test_field_equals_scikit_images_thin_plate_spline():
    grid, shape = (4, 3), (40, 57)
    shifts = random_shifts(grid, 5.0)
    there = scikit_image_spline(shifts, shape)(pixels(shape)[..., ::-1].reshape(-1, 2))[:, ::-1].reshape(*shape, 2)
    # scikit-image solves in raw pixel coordinates, and is itself 1.4e-5 px from scipy here.
    np.testing.assert_allclose(warps.tps_field(shifts, shape), there - pixels(shape), rtol=0, atol=3e-5)


@of_scikit_image
def test_deformed_image_equals_scikit_images_warp():
    shape, shifts = (40, 57), random_shifts((4, 3), 5.0)
    image = np.random.default_rng(1).random((*shape, 3)).astype(np.float32)
    expected = warp(image, scikit_image_spline(shifts, shape), order=1, mode="edge", preserve_range=True)
    # Neighbouring pixels of this noise differ by up to 1, so 1e-5 px moves a value by up to 2e-5.
    np.testing.assert_allclose(warps.deform_tps(shifts, image), expected, rtol=0, atol=5e-5)


def test_deformed_image_is_the_field_remapped_with_the_options_given():
    shifts, image = random_shifts((3, 3), 4.0), np.random.default_rng(1).random((12, 10, 2)).astype(np.float32)
    options = {"boundary": "constant", "fill": 0.5}
    expected = warps.remap(image, warps.tps_field(shifts, (12, 10)), **options)
    np.testing.assert_array_equal(warps.deform_tps(shifts, image, **options), expected)
    assert np.abs(expected - warps.deform_tps(shifts, image)).max() > 0.1


def test_field_interpolates_the_shifts_at_control_points():
    grid, shape = (4, 5), (31, 49)  # control points every 10 and every 12 pixels
    shifts = random_shifts(grid, 6.0)
    field = warps.tps_field(shifts, shape)
    np.testing.assert_allclose(field[::10, ::12], shifts, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("grid", "shape", "bound"), CASES)
def test_affine_fields_are_reproduced(grid, shape, bound):
    rng = np.random.default_rng(2)
    matrix, offset = rng.uniform(-bound, bound, (2, 2)) / max(shape), rng.uniform(-bound, bound, 2)
    shifts = (positions(grid, shape) @ matrix + offset).astype(np.float32)
    expected = pixels(shape) @ matrix + offset
    np.testing.assert_allclose(warps.tps_field(shifts, shape), expected, rtol=0, atol=1e-5)


def test_field_is_linear_in_the_shifts():
    shape, a, b = (33, 20), random_shifts((4, 3), 4.0, 0), random_shifts((4, 3), 4.0, 1)
    mixed = warps.tps_field(2.0 * a - 3.0 * b, shape)
    np.testing.assert_allclose(
        mixed, 2.0 * warps.tps_field(a, shape) - 3.0 * warps.tps_field(b, shape), rtol=0, atol=2e-5
    )


def test_basis_made_under_jit_serves_eager_calls():
    tps._basis.cache_clear()
    shifts = random_shifts((3, 4), 2.0)
    traced = jax.jit(warps.tps_field, static_argnames="shape")(shifts, (18, 11))
    assert tps._basis.cache_info().misses == 1
    np.testing.assert_allclose(warps.tps_field(shifts, (18, 11)), traced, rtol=0, atol=1e-5)
    assert tps._basis.cache_info().hits == 1
    basis = tps._basis((3, 4), (18, 11))
    assert type(basis) is np.ndarray
    assert basis.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        basis[0, 0] = 1.0


def test_many_shifts_are_one_matrix_product():
    jaxpr = str(jax.make_jaxpr(jax.vmap(lambda s: warps.tps_field(s, (18, 11))))(jnp.zeros((6, 3, 4, 2))))
    assert jaxpr.count("dot_general[") == 1
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in jaxpr
