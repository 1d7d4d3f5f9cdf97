"""Derivatives of the warps against finite differences, and at the kinks, where those say nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import warps

BOUNDARIES = ("edge", "constant")


def assert_derivatives(loss, arguments, *, step, tolerance):
    """Forward and reverse mode agree with central differences of ``loss`` along eight random directions at once."""
    rng = np.random.default_rng(7)
    directions = [rng.standard_normal((8, *np.shape(a))).astype(np.float32) for a in arguments]

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def derivatives(point, direction):
        ahead = loss(*(p + step * d for p, d in zip(point, direction, strict=True)))
        behind = loss(*(p - step * d for p, d in zip(point, direction, strict=True)))
        forward = jax.jvp(loss, tuple(point), tuple(direction))[1]
        gradients = jax.grad(loss, argnums=range(len(point)))(*point)
        reverse = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        return (ahead - behind) / (2 * step), forward, reverse

    numeric, forward, reverse = derivatives([jnp.asarray(a, jnp.float32) for a in arguments], directions)
    assert np.abs(numeric).max() > 20 * tolerance
    np.testing.assert_allclose(forward, numeric, rtol=0, atol=tolerance)
    np.testing.assert_allclose(reverse, numeric, rtol=0, atol=tolerance)


def random_shifts(grid, bound):
    return np.random.default_rng(0).uniform(-bound, bound, (*grid, 2))


def test_field_in_the_shifts():
    weights = jnp.asarray(np.random.default_rng(3).standard_normal((9, 7, 2)), jnp.float32)
    # Linear: a wide step is exact.
    assert_derivatives(
        lambda s: (warps.tps_field(s, (9, 7)) * weights).sum(), [random_shifts((3, 4), 2.0)], step=1.0, tolerance=1e-4
    )


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(6, 7, 2), (1, 5, 1)])
def test_remap_in_the_image_the_field_and_the_fill(shape, boundary):
    rng = np.random.default_rng(1)
    # Whole displacements plus a fraction within (0.2, 0.8): steps of 0.01 px times a standard normal stay clear of the
    # kinks at whole pixels, inside the image, across its border and beyond. Between kinks the loss is cubic, so that
    # central differences are off by the square of the step times a sum of some 100 terms.
    field = rng.integers(-4, 4, (*shape[:2], 2)) + rng.uniform(0.2, 0.8, (*shape[:2], 2))
    weights = jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def loss(image, field, fill):
        return (warps.remap(image, field, boundary=boundary, fill=fill) * weights).sum()

    assert_derivatives(loss, [rng.random(shape), field, 0.3], step=0.01, tolerance=4e-3)


def test_deformed_image_in_the_shifts():
    # A smooth image, whose bilinear interpolation has slopes that jump by 1 % from pixel to pixel: so much may central
    # differences across a kink be off. The largest of the eight derivatives is 28.
    y, x = np.meshgrid(np.linspace(0, 2, 24), np.linspace(0, 2, 20), indexing="ij")
    image = jnp.asarray(np.sin(y + x)[..., None], jnp.float32)

    def loss(shifts):
        return (warps.deform_tps(shifts, image) ** 2).sum()

    assert_derivatives(loss, [random_shifts((3, 3), 1.5)], step=0.01, tolerance=0.2)


def test_maximum_entropy_field_in_the_coefficients_and_the_temperature():
    rng = np.random.default_rng(3)
    coefficients, weights = rng.standard_normal((2, 3, 3)), jnp.asarray(rng.standard_normal((9, 7, 2)), jnp.float32)

    def loss(coefficients, temperature):
        return (warps.max_entropy_field(coefficients, (9, 7), temperature=temperature) * weights).sum()

    # A temperature of 1, far above any that is used, so that one step suits both; derivatives are of some tens.
    assert_derivatives(loss, [coefficients, 1.0], step=0.03, tolerance=0.1)


def test_image_deformed_by_maximum_entropy_in_the_coefficients():
    y, x = np.meshgrid(np.linspace(0, 2, 24), np.linspace(0, 2, 20), indexing="ij")
    image = jnp.asarray(np.sin(y + x)[..., None], jnp.float32)  # smooth, as for the spline

    def loss(coefficients):
        return (warps.deform_max_entropy(coefficients, image, temperature=0.01) ** 2).sum()

    assert_derivatives(loss, [np.random.default_rng(0).standard_normal((2, 3, 3))], step=0.01, tolerance=0.2)


def test_derivatives_where_a_square_root_has_none():
    """At temperature 0 and at a field that moves nothing."""
    coefficients = jnp.ones((2, 3, 3))
    derivatives = jax.jit(jax.jacfwd(lambda t: warps.max_entropy_field(coefficients, (5, 4), temperature=t)))(0.0)
    np.testing.assert_array_equal(derivatives, 0)
    gradient = jax.jit(jax.grad(warps.mean_displacement))
    np.testing.assert_array_equal(gradient(jnp.zeros((1, 2, 2))), 0)
    np.testing.assert_allclose(gradient(jnp.full((1, 2, 2), -3.0)), -1 / np.sqrt(2) / 2, rtol=1e-6)


@functools.partial(jax.jit, static_argnames="boundary")
def column_derivatives(dy, boundary):
    """The column 0, 1, 4, 9 moved by dy: derivatives of the four outputs in dy, forward and reverse."""
    column = jnp.asarray([0.0, 1.0, 4.0, 9.0]).reshape(4, 1, 1)

    def moved(dy):
        field = jnp.stack([jnp.full((4, 1), dy), jnp.zeros((4, 1))], axis=-1)
        return warps.remap(column, field, boundary=boundary, fill=2.0).ravel()

    return jax.jacfwd(moved)(dy), jax.jacrev(moved)(dy)


@pytest.mark.parametrize(
    ("boundary", "dy", "expected"),
    [
        ("edge", 0.0, [1, 3, 5, 0]),  # on the pixels: slopes towards larger coordinates, the last one clamped
        ("edge", 0.5, [1, 3, 5, 0]),
        ("edge", -0.5, [0, 1, 3, 5]),
        ("edge", 9.5, [0, 0, 0, 0]),
        ("edge", -9.5, [0, 0, 0, 0]),
        ("constant", 0.5, [1, 3, 5, 2 - 9]),  # towards the fill, 2
        ("constant", -0.5, [0 - 2, 1, 3, 5]),
        ("constant", 9.5, [0, 0, 0, 0]),
        ("constant", -9.5, [0, 0, 0, 0]),
    ],
)
def test_derivatives_at_and_beyond_the_borders(boundary, dy, expected):
    for derivative in column_derivatives(dy, boundary):
        np.testing.assert_allclose(derivative, expected, atol=1e-6)
