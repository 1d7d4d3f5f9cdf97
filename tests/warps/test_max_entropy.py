"""Maximum-entropy diffeomorphisms against loops over their definition, closed forms of their law, and folding."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import warps

# (cutoff, shape): the papers' on small images, then what might go wrong beside it.
CASES = [
    pytest.param(3, (8, 8), id="square"),
    pytest.param(3, (5, 12), id="wide"),
    pytest.param(4, (11, 6), id="tall"),
    pytest.param(2, (3, 4), id="smallest"),
    pytest.param(7, (6, 5), id="more_modes_than_pixels"),
]


def modes(cutoff):
    """(i, j, 1/√(i² + j²)) within the cutoff."""
    pairs = [(i, j) for i in range(1, cutoff + 1) for j in range(1, cutoff + 1)]
    return [(i, j, 1 / math.hypot(i, j)) for i, j in pairs if math.hypot(i, j) < cutoff + 0.5]


def defined(coefficients, shape, temperature):
    """The field in plain loops over pixels and modes, from its definition."""
    cutoff, (height, width) = coefficients.shape[1], shape
    scale = math.sqrt(temperature) * min(shape)
    field = np.zeros((*shape, 2))
    for y, x, k in np.ndindex(height, width, 2):
        for i, j, envelope in modes(cutoff):
            wave = math.sin(i * math.pi * y / (height - 1)) * math.sin(j * math.pi * x / (width - 1))
            field[y, x, k] -= scale * envelope * coefficients[k, i - 1, j - 1] * wave
    return field


def single(component, i, j, cutoff=3):
    """Coefficients of one mode alone."""
    coefficients = np.zeros((2, cutoff, cutoff), np.float32)
    coefficients[component, i - 1, j - 1] = 1
    return coefficients


@pytest.mark.parametrize(("cutoff", "shape"), CASES)
def test_field_is_the_sum_over_modes(cutoff, shape):
    coefficients = np.random.default_rng(0).standard_normal((2, cutoff, cutoff)).astype(np.float32)
    field = warps.max_entropy_field(coefficients, shape, temperature=0.01)
    assert field.dtype == jnp.float32
    np.testing.assert_allclose(field, defined(coefficients, shape, 0.01), rtol=0, atol=1e-6)  # pixels
    border = np.ones(shape, bool)
    border[1:-1, 1:-1] = False
    np.testing.assert_array_equal(np.asarray(field)[border], 0)  # exactly


def test_which_way_a_coefficient_moves_the_picture():
    numbered = np.arange(81, dtype=np.float32).reshape(9, 9, 1)

    def centre(coefficients):  # √T · 9 · 1/√2 = 2 pixels there
        return float(warps.deform_max_entropy(coefficients, numbered, temperature=2 * (2 / 9) ** 2)[4, 4, 0])

    # The picture moves along τ: where that is downwards, x − τ is above x.
    assert centre(single(0, 1, 1)) == pytest.approx(numbered[2, 4, 0])
    assert centre(single(1, 1, 1)) == pytest.approx(numbered[4, 2, 0])
    assert centre(-single(0, 1, 1)) == pytest.approx(numbered[6, 4, 0])
    # c_12: one half-wave down the rows, two along the columns.
    field = np.asarray(warps.max_entropy_field(single(1, 1, 2), (9, 9), temperature=0.01))
    np.testing.assert_array_equal(field[..., 0], 0)
    assert (field[1:-1, 1:4, 1] < 0).all()  # −τ
    assert (field[1:-1, 5:-1, 1] > 0).all()
    np.testing.assert_allclose(field[:, 4], 0, atol=1e-7)


def test_modes_outside_the_cutoff_do_nothing():
    beyond = {(3, 5), (4, 4), (4, 5), (5, 3), (5, 4), (5, 5)}  # i² + j² > 5.5² = 30.25
    for i, j in np.ndindex(5, 5):
        field = warps.max_entropy_field(single(0, i + 1, j + 1, 5), (12, 12), temperature=0.01)
        assert bool(np.any(field)) == ((i + 1, j + 1) not in beyond)


def test_temperatures_of_the_papers():
    assert warps.temperature(1.0, cutoff=3, size=32) == pytest.approx(1.13179e-3, rel=1e-5)
    assert warps.temperature(1.0, cutoff=3, size=224) == pytest.approx(2.30977e-5, rel=1e-5)
    low, high = warps.temperature_range(cutoff=3, size=32)
    assert high == pytest.approx(0.0130474, rel=1e-5)
    assert low == pytest.approx(warps.temperature(0.5, cutoff=3, size=32))  # half a pixel
    for cutoff, size in ((3, 32), (15, 224), (5, (40, 60))):
        side = size if isinstance(size, int) else 40
        for end, pixels in zip(
            warps.temperature_range(cutoff=cutoff, size=size), (0.5, side / (math.pi * cutoff)), strict=True
        ):
            assert warps.typical_displacement(end, cutoff=cutoff, size=size) == pytest.approx(pixels)
            assert warps.temperature(pixels, cutoff=cutoff, size=size) == pytest.approx(end)
    low, high = warps.temperature_range(cutoff=15, size=20)
    assert low > high  # nothing is valid on so few pixels


def test_temperatures_may_be_traced_and_are_python_floats_otherwise():
    for known in (1, 1.0, np.float32(1), jnp.asarray(1.0)):
        assert type(warps.temperature(known, cutoff=3, size=32)) is float
        assert type(warps.typical_displacement(known, cutoff=3, size=32)) is float
    # dT/dδ = 2T/δ and dδ/dT = δ/2T.
    there = jax.grad(lambda d: warps.temperature(d, cutoff=5, size=28))(2.0)
    np.testing.assert_allclose(there, warps.temperature(2.0, cutoff=5, size=28), rtol=1e-6)
    back = jax.grad(lambda t: warps.typical_displacement(t, cutoff=5, size=28))(0.01)
    np.testing.assert_allclose(back, warps.typical_displacement(0.01, cutoff=5, size=28) / 0.02, rtol=1e-6)


def test_grid_of_temperatures():
    grid = warps.temperature_grid(size=(32, 40))
    assert list(grid) == [3, 5, 15]
    for cutoff, temperatures in grid.items():
        low, high = warps.temperature_range(cutoff=cutoff, size=32)
        expected = [low / 15 * (30 * high / low) ** (k / 29) for k in range(30)]
        np.testing.assert_allclose(temperatures, expected, rtol=1e-6)
    assert [len(values) for values in warps.temperature_grid(size=32, cutoffs=(7, 2), count=4).values()] == [4, 4]


def variances(cutoff, shape, temperature):
    """E dy² and E dx² at every pixel: squares of the fields of single coefficients, summed."""
    count = 2 * cutoff**2
    unit = np.eye(count, dtype=np.float32).reshape(count, 2, cutoff, cutoff)
    fields = jax.vmap(lambda c: warps.max_entropy_field(c, shape, temperature=temperature))(unit)
    return np.sum(np.square(np.asarray(fields, np.float64)), axis=0)


def exact_rms(cutoff, shape, displacement):
    """Of |τ| over pixels and fields: Σ_p sin²(iπp/(n−1)) = (n−1)/2 for 0 < i < n − 1."""
    means = [(n - 1) / (2 * n) for n in shape]
    total = sum(envelope**2 for *_, envelope in modes(cutoff))
    return displacement * math.sqrt(2 * 4 / (math.pi * math.log(cutoff)) * means[0] * means[1] * total)


def test_displacements_of_the_papers_settings():
    square = variances(3, (32, 32), warps.temperature(1.0, cutoff=3, size=32)).sum(-1)
    assert math.sqrt(square.mean()) == pytest.approx(0.816, abs=5e-4)
    assert math.sqrt(square.mean()) == pytest.approx(exact_rms(3, (32, 32), 1.0), rel=1e-5)
    np.testing.assert_allclose(np.sqrt(square[15:17, 15:17]), 1.2706, atol=5e-5)
    odd = variances(3, (33, 33), warps.temperature(1.0, cutoff=3, size=33)).sum(-1)
    assert math.sqrt(odd[16, 16]) == pytest.approx(1.2738, abs=5e-5)  # a pixel at x = y = ½


@pytest.mark.parametrize(("cutoff", "shape"), [(3, (24, 48)), (5, (61, 17)), (15, (20, 33))])
def test_displacements_keep_their_size_and_have_no_direction_on_any_shape(cutoff, shape):
    by_component = variances(cutoff, shape, warps.temperature(2.0, cutoff=cutoff, size=shape))
    np.testing.assert_allclose(by_component[..., 0], by_component[..., 1], rtol=1e-6)
    assert math.sqrt(by_component.sum(-1).mean()) == pytest.approx(exact_rms(cutoff, shape, 2.0), rel=1e-5)
    # Images of any size and shape have the same but for the border's share.
    same = [exact_rms(cutoff, (n, n), 2.0) * n / (n - 1) for n in (32, 224)]
    inner = math.prod(math.sqrt(n / (n - 1)) for n in shape)
    assert exact_rms(cutoff, shape, 2.0) * inner == pytest.approx(same[0]) == pytest.approx(same[1])


@functools.partial(jax.jit, static_argnames="shape")
def sampled_fields(key, temperature, *, shape):
    """500 fields with c = 3, and their mean displacements."""

    def field(key):
        return warps.max_entropy_field(warps.random_coefficients(key, 3), shape, temperature=temperature)

    fields = jax.vmap(field)(jax.random.split(key, 500))
    return fields, jax.vmap(warps.mean_displacement)(fields)


def test_sampled_displacements(key):
    shape = 32, 64
    fields, measured = sampled_fields(key, warps.temperature(1.0, cutoff=3, size=shape), shape=shape)
    squares = np.square(fields, dtype=np.float64).sum(-1).mean((1, 2))
    np.testing.assert_allclose(np.asarray(measured, np.float64) ** 2, squares, rtol=1e-5)
    # One field's mean square is Σ w z² over modes with weights w = 1/(i² + j²), of relative deviation √Σw²/Σw = 0.49:
    # five standard errors of the root of the mean are 2.5 × 0.49/√500 = 5.5 %; the nominal δ would be 20 % out.
    assert math.sqrt(np.mean(squares)) == pytest.approx(exact_rms(3, shape, 1.0), rel=0.055)


def test_coefficients_are_independent_standard_normals(key):
    draws = 4000
    keys = jax.random.split(key, draws)
    values = np.asarray(jax.vmap(lambda k: warps.random_coefficients(k, 3))(keys), np.float64).reshape(draws, -1)
    assert values.shape == (draws, 18)
    # Five standard errors each: mean 1/√N, variance √(2/N), fourth moment √(96/N), correlation 1/√draws.
    count = values.size
    assert abs(values.mean()) < 5 / math.sqrt(count)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs(np.mean(values**4) - 3) < 5 * math.sqrt(96 / count)
    assert np.abs(np.corrcoef(values, rowvar=False) - np.eye(18)).max() < 5 / math.sqrt(draws)


def smallest_jacobian(fields):
    """Of x − τ, by differences between neighbouring pixels: not positive where the map folds."""
    fields = np.asarray(fields, np.float64)
    down, across = np.diff(fields, axis=1)[:, :, :-1], np.diff(fields, axis=2)[:, :-1]
    return ((1 + down[..., 0]) * (1 + across[..., 1]) - down[..., 1] * across[..., 0]).min(axis=(1, 2))


def test_typical_fields_do_not_fold_below_the_highest_temperature(key):
    high = warps.temperature_range(cutoff=3, size=32)[1]
    folded = {}
    for name, shape, factor in (
        ("papers", (32, 32), warps.temperature(1.0, cutoff=3, size=32) / high),
        ("quarter", (32, 32), 0.25),
        ("highest", (32, 32), 1.0),
        ("twice", (32, 32), 2.0),
        ("wide", (32, 64), 1.0),
    ):
        jacobian = smallest_jacobian(sampled_fields(key, factor * high, shape=shape)[0])
        folded[name] = float((jacobian <= 0).mean())
        assert (np.median(jacobian) > 0) == (factor <= 1), name
    assert folded["papers"] == 0
    assert folded["quarter"] < 0.01  # 0.001 of 4,000
    assert 0.3 < folded["highest"] < 0.47  # 0.383 of 4,000, whose standard error at 500 is 0.022
    assert folded["twice"] > 0.7
    assert folded["wide"] < folded["highest"]  # the longer side only eases it


def test_field_asks_for_full_precision_whatever_the_platforms_default():
    jaxpr = str(jax.make_jaxpr(lambda c: warps.max_entropy_field(c, (8, 8), temperature=0.01))(single(0, 1, 1)))
    assert jaxpr.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == jaxpr.count("dot_general") == 2


def test_mean_displacement_is_the_root_mean_square():
    for dtype in (np.int32, jnp.bfloat16):
        measured = warps.mean_displacement(np.asarray([[[3, -4], [0, 0]]], dtype))
        assert measured.dtype == jnp.float32
        assert float(measured) == pytest.approx(5 / math.sqrt(2))


def test_factory_is_the_sampler_then_the_geometry(key):
    image = jax.random.uniform(key, (20, 14, 3))
    perturb = warps.random_max_entropy(displacement=8.0, cutoff=4, boundary="constant", fill=0.5)
    coefficients = warps.random_coefficients(key, 4)
    assert coefficients.shape == (2, 4, 4)
    assert coefficients.dtype == jnp.float32
    temperature = warps.temperature(8.0, cutoff=4, size=(20, 14))
    field = warps.max_entropy_field(coefficients, (20, 14), temperature=temperature)
    expected = warps.remap(image, field, boundary="constant", fill=0.5)
    np.testing.assert_array_equal(perturb(key, image), expected)
    clamped = warps.remap(image, field)
    assert 0.1 < float(jnp.abs(expected - clamped).max()) < 1  # folded, it shows what lies outside
    np.testing.assert_array_equal(warps.random_max_entropy(displacement=0.0)(key, image), image)


def test_default_settings_are_the_papers_and_callables_compare_by_value():
    default = warps.random_max_entropy()
    assert default == warps.random_max_entropy(displacement=1, cutoff=3, boundary="edge", fill=np.float32(0))
    assert len({default, warps.random_max_entropy(displacement=jnp.asarray(1.0))}) == 1
    assert len({default, warps.random_max_entropy(cutoff=5), warps.random_max_entropy(displacement=2.0)}) == 3


def test_displacement_may_be_traced(key):
    image = jax.random.uniform(key, (12, 10, 1))
    warped = jax.vmap(lambda d: warps.random_max_entropy(displacement=d)(key, image))(jnp.float32([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(warped[0], image, rtol=0, atol=1e-6)
    np.testing.assert_allclose(warped[2], warps.random_max_entropy(displacement=2.0)(key, image), rtol=0, atol=1e-5)


def test_each_image_of_a_batch_has_its_own_warp(key):
    keys, images = jax.random.split(key, 4), jnp.tile(jax.random.uniform(key, (1, 12, 10, 1)), (4, 1, 1, 1))
    warped = np.asarray(jax.vmap(warps.random_max_entropy())(keys, images)).reshape(4, -1)
    distances = np.linalg.norm(warped[:, None] - warped[None], axis=-1)
    assert distances[~np.eye(4, dtype=bool)].min() > 0.1
