"""Affine fields against scipy's and scikit-image's transforms and the spline; and the three random factories."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import transform

from deform_jax import warps

RNG = np.random.default_rng(0)
SHAPE = 13, 10
IMAGE = RNG.random((*SHAPE, 2)).astype(np.float32)
CENTRE = (np.array(SHAPE) - 1) / 2
MATRIX = np.float32([[1.2, -0.4], [0.3, 0.8]])
SHIFT = np.float32([1.3, -2.6])
CASES = {
    "affine": (warps.affine_field, (MATRIX, SHIFT)),
    "translation": (warps.translation_field, (SHIFT,)),
    "rotation": (warps.rotation_field, (np.float32(0.4),)),
    "scaling": (warps.scaling_field, (np.float32(1.3),)),
}
RANDOM = [warps.random_translation, warps.random_rotation, warps.random_scaling]


def channelwise(function):
    return np.stack([function(IMAGE[..., c].astype(np.float64)) for c in range(2)], axis=-1)


@pytest.mark.parametrize("boundary", ["edge", "constant"])
def test_scipys_affine_transform(boundary):
    mode, fill = {"edge": ("nearest", 0.0), "constant": ("grid-constant", 0.7)}[boundary]
    offset = CENTRE + SHIFT - MATRIX @ CENTRE  # scipy maps about the first pixel
    expected = channelwise(lambda x: ndimage.affine_transform(x, MATRIX, offset, order=1, mode=mode, cval=fill))
    result = warps.remap(IMAGE, warps.affine_field(MATRIX, SHIFT, SHAPE), boundary=boundary, fill=fill)
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-6)  # coordinates of 10 px rounded to 1e-6


def test_translation_is_scipys_shift():
    expected = channelwise(lambda x: ndimage.shift(x, SHIFT, order=1, mode="nearest"))
    result = warps.remap(IMAGE, warps.translation_field(SHIFT, SHAPE))
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("degrees", [-35.0, 10.0, 90.0, 170.0])
def test_rotation_is_scikit_images(degrees):
    expected = transform.rotate(IMAGE.astype(np.float64), degrees, order=1, mode="edge")
    result = warps.remap(IMAGE, warps.rotation_field(math.radians(degrees), SHAPE))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_scaling_is_scipys(factor):
    offset = CENTRE - CENTRE / factor
    expected = channelwise(lambda x: ndimage.affine_transform(x, np.eye(2) / factor, offset, order=1, mode="nearest"))
    result = warps.remap(IMAGE, warps.scaling_field(factor, SHAPE))
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-6)


def test_which_way_the_picture_goes():
    dot = np.zeros((9, 9, 1), np.float32)
    dot[4, 6] = 1  # two pixels right of the centre

    def seen(field):
        return [tuple(map(int, place)) for place in np.argwhere(np.asarray(warps.remap(dot, field))[..., 0] > 0.99)]

    assert seen(warps.translation_field(np.float32([2, 1]), (9, 9))) == [(6, 7)]  # down and right
    assert seen(warps.rotation_field(np.pi / 2, (9, 9))) == [(2, 4)]  # up: counter-clockwise
    assert (4, 8) in seen(warps.scaling_field(2.0, (9, 9)))  # away from the centre
    assert seen(warps.affine_field(np.eye(2), np.float32([2, 1]), (9, 9))) == [(2, 5)]  # backward: up and left


@pytest.mark.parametrize("name", CASES)
def test_the_spline_through_its_control_points_is_the_field(name):
    function, arguments = CASES[name]
    shape = 13, 9  # so that control points lie on pixels
    field = function(*arguments, shape)
    points = np.asarray(warps.control_points((4, 3), shape)).astype(int)
    spline = warps.tps_field(field[points[..., 0], points[..., 1]], shape)
    np.testing.assert_allclose(field, spline, rtol=0, atol=2e-5)


def test_maps_compose_to_the_identity():
    """Sampling at 1/s after s, and at −θ after θ, of a linear picture, which bilinear sampling reproduces."""
    for function, argument, inverse in ((warps.rotation_field, 0.3, -0.3), (warps.scaling_field, 1.25, 0.8)):
        there, back = np.asarray(function(argument, SHAPE)), np.asarray(function(inverse, SHAPE))
        grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
        moved = grid + there - CENTRE
        matrix = np.linalg.lstsq((grid - CENTRE).reshape(-1, 2), (grid + back - CENTRE).reshape(-1, 2))[0]
        np.testing.assert_allclose(moved @ matrix + CENTRE, grid, atol=1e-5)
    np.testing.assert_array_equal(warps.affine_field(np.eye(2), np.zeros(2), SHAPE), 0)
    assert warps.rotation_field(1.0, (1, 1)).shape == (1, 1, 2)


def exact_field(name, *arguments):
    """In float64."""
    if name == "translation":
        return np.broadcast_to(-arguments[0], (*SHAPE, 2))
    matrix, shift = arguments if name == "affine" else (np.eye(2), np.zeros(2))
    if name == "rotation":
        (angle,) = arguments
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    elif name == "scaling":
        matrix = matrix / arguments[0]
    positions = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) - CENTRE
    return positions @ (matrix - np.eye(2)).T + shift


@pytest.mark.parametrize("name", CASES)
def test_jit_vmap_and_gradients(name):
    function, arguments = CASES[name]
    plain = function(*arguments, SHAPE)
    assert plain.dtype == jnp.float32
    batch = tuple(np.stack([argument, 0.5 * argument + 0.1]) for argument in arguments)
    fields = jax.jit(jax.vmap(lambda *x: function(*x, SHAPE)))(*batch)
    np.testing.assert_allclose(fields[0], plain, rtol=0, atol=2e-6)
    np.testing.assert_allclose(fields[1], function(*(b[1] for b in batch), SHAPE), rtol=0, atol=2e-6)

    weights = RNG.normal(size=(*SHAPE, 2)).astype(np.float32)
    gradients = jax.grad(lambda *x: jnp.sum(weights * function(*x, SHAPE) ** 2), tuple(range(len(arguments))))
    towards = [RNG.normal(size=np.shape(argument)) for argument in arguments]
    along = sum(np.sum(g * t) for g, t in zip(gradients(*arguments), towards, strict=True))
    step = 1e-6  # in float64: truncation 1e-12, rounding 1e-9

    def total(size):
        return np.sum(
            weights * exact_field(name, *(a + size * t for a, t in zip(arguments, towards, strict=True))) ** 2
        )

    np.testing.assert_allclose(along, (total(step) - total(-step)) / (2 * step), rtol=1e-4)


def test_random_parameters_fill_their_ranges(key):
    draws = 2000
    keys = jax.random.split(key, draws)
    ramp = jnp.stack(jnp.meshgrid(*map(jnp.arange, (9.0, 9.0)), indexing="ij"), -1)  # shows what was sampled, inside

    def sampled(perturb):
        return np.asarray(jax.jit(jax.vmap(lambda k: perturb(k, ramp)))(keys))

    # Uniform on [−m, m]: variance m²/3 with relative standard error √(4/5N) = 0.02, mean with m/√(3N) = 0.013 m.
    shifts = 4 - sampled(warps.random_translation(max_shift=3.0))[:, 4, 4]
    angles = sampled(warps.random_rotation(max_angle=0.5))[:, 4, 6] - 4
    angles = np.arctan2(angles[:, 0], angles[:, 1])[:, None]  # source of the point right of the centre: below it
    logarithms = np.log(2 / (sampled(warps.random_scaling(max_factor=1.5))[:, 4, 6, 1:] - 4))
    for values, bound in ((shifts, 3.0), (-angles, 0.5), (logarithms, math.log(1.5))):
        assert np.abs(values).max() <= bound * (1 + 1e-5)
        assert values.min() < -0.98 * bound  # all N miss the last hundredth with probability 0.99^N = 2e-9
        assert values.max() > 0.98 * bound
        assert np.abs(values.mean(0)).max() < 0.07 * bound
        np.testing.assert_allclose(values.var(0), bound**2 / 3, rtol=0.1)
    assert abs(np.corrcoef(shifts, rowvar=False)[0, 1]) < 5 / math.sqrt(draws)


@pytest.mark.parametrize("factory", RANDOM)
def test_factories(factory, key):
    perturb = factory(boundary="constant", fill=0.5)
    warped = perturb(key, IMAGE)
    assert warped.shape == IMAGE.shape
    assert float(jnp.abs(warped - IMAGE).max()) > 0.05
    assert not np.array_equal(warped, perturb(jax.random.fold_in(key, 1), IMAGE))
    assert perturb == factory(boundary="constant", fill=np.float32(0.5))
    assert len({perturb, factory(boundary="constant", fill=0.5), factory()}) == 2
    still = {"random_scaling": {"max_factor": 1}, "random_rotation": {"max_angle": 0}}
    none = factory(**still.get(factory.__name__, {"max_shift": 0}))
    np.testing.assert_allclose(none(key, IMAGE), IMAGE, rtol=0, atol=1e-6)
    keys = jax.random.split(key, 3)
    batch = jax.jit(jax.vmap(perturb, in_axes=(0, None)))(keys, IMAGE)
    np.testing.assert_allclose(batch[2], perturb(keys[2], IMAGE), rtol=0, atol=1e-5)
    # One of three at least shows what lies outside; a picture that grows does not.
    clamped = jax.vmap(factory(), in_axes=(0, None))(keys, IMAGE)
    assert float(jnp.abs(batch - clamped).max()) > 0.01


def test_bounds_may_be_traced(key):
    for factory, name, bounds in (
        (warps.random_translation, "max_shift", (1.0, 2.0)),
        (warps.random_rotation, "max_angle", (0.1, 0.3)),
        (warps.random_scaling, "max_factor", (1.2, 1.5)),
    ):
        warped = jax.vmap(lambda bound, f=factory, n=name: f(**{n: bound})(key, IMAGE))(jnp.float32(bounds))
        np.testing.assert_allclose(warped[1], factory(**{name: bounds[1]})(key, IMAGE), rtol=0, atol=1e-5)


def test_defaults():
    assert warps.random_translation() == warps.random_translation(max_shift=2.0, boundary="edge", fill=0.0)
    assert warps.random_rotation() == warps.random_rotation(max_angle=math.radians(10))
    assert warps.random_scaling() == warps.random_scaling(max_factor=1.1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: warps.affine_field(np.eye(3), SHIFT, SHAPE), ValueError, r"`matrix` must have shape \(2, 2\)"),
        (lambda: warps.affine_field(np.ones((4, 2, 2)), SHIFT, SHAPE), ValueError, r"`matrix`.*jax.vmap"),
        (lambda: warps.affine_field(np.eye(2), np.zeros(3), SHAPE), ValueError, r"`translation` must have shape \(2\)"),
        (lambda: warps.affine_field(np.eye(2) * np.nan, SHIFT, SHAPE), ValueError, r"`matrix` must be finite"),
        (lambda: warps.affine_field(np.eye(2), SHIFT, (0, 3)), ValueError, r"`shape` must be a pair of integers"),
        (lambda: jax.jit(warps.affine_field)(np.eye(2), SHIFT, SHAPE), TypeError, r"`shape`.*traced.*static"),
        (lambda: warps.translation_field(2.0, SHAPE), ValueError, r"`translation` must have shape \(2\)"),
        (lambda: warps.rotation_field("10", SHAPE), TypeError, r"`angle` must be a finite number"),
        (lambda: warps.rotation_field(np.ones(2), SHAPE), TypeError, r"`angle` must be a finite number"),
        (lambda: warps.scaling_field(0.0, SHAPE), ValueError, r"`factor` must be a finite number > 0, but 0.0"),
        (lambda: warps.random_translation(max_shift=-1), ValueError, r"`max_shift` must be a finite number ≥ 0"),
        (lambda: warps.random_rotation(max_angle=np.inf), ValueError, r"`max_angle` must be a finite number ≥ 0"),
        (lambda: warps.random_scaling(max_factor=0.9), ValueError, r"`max_factor` must be a finite number ≥ 1"),
        (lambda: warps.random_scaling(boundary="wrap"), ValueError, r"`boundary` must be one of"),
        (lambda: warps.random_scaling(fill="0"), TypeError, r"`fill` must be a finite number"),
        (lambda: warps.random_rotation()(0, IMAGE), TypeError, r"`key` must be one random key"),
        (
            lambda: warps.random_rotation()(jax.random.key(0), np.uint8(IMAGE)),
            TypeError,
            r"`image` must hold floating",
        ),
        (
            functools.partial(warps.random_scaling(), jax.random.key(0), np.ones((2, 4, 4, 1), np.float32)),
            ValueError,
            r"`image` must have shape.*jax.vmap",
        ),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=f"^Argument {text}"):
        call()
