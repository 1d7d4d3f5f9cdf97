"""Homogeneous networks against enumeration of every image and displacement, and the tables derived for SI's tasks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from deform_jax import data, probes

STEP = [[-1], [1]]
CROSS = [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]
SQUARE = list(itertools.product((-1, 0, 1), repeat=2))


def layer(images, filter_size, stride, ndim):
    """Sums over windows, axis by axis: shifted copies for stride 1, blocks for stride F."""
    for axis in range(images.ndim - ndim, images.ndim):
        if stride == 1:
            before = filter_size // 2
            images = sum(np.roll(images, before - o, axis) for o in range(filter_size)) / filter_size
        else:
            shape = images.shape
            blocks = (*shape[:axis], shape[axis] // filter_size, filter_size, *shape[axis + 1 :])
            images = images.reshape(blocks).sum(axis + 1)
    return images


def drawn(places, shape, collapse):
    """Images of the pixels at places (n, 2, d)."""
    images = np.zeros((len(places), *shape))
    for image, pixels in zip(images, places, strict=True):
        for pixel in pixels:
            image[tuple(pixel)] += 1
    return np.minimum(images, 1) if collapse else images


def enumerated(places, weights, shape, options):
    """D and G by drawing every image, every displaced image, and one image for every site's noise."""
    ndim, value = len(shape), options["value"]
    collapse = options["collisions"] == "collapse"
    size, stride = options["filter_size"], options["stride"]
    clean = value * drawn(places, shape, collapse)
    moves = np.array(list(itertools.product(options["displacements"], repeat=2)))
    moved = []
    for move in moves:
        new = places + move
        new = np.clip(new, 0, np.array(shape) - 1) if options["boundary"] == "clamp" else new % shape
        moved.append(value * drawn(new, shape, collapse))
    difference = np.stack(moved) - clean
    single = np.eye(np.prod(shape)).reshape(-1, *shape)
    variance = options["noise_variance"]
    if variance is None:
        variance = weights @ np.square(difference).mean((0, *range(2, 2 + ndim)))
    mean, second = 0.0, variance
    if options["rectified"]:
        law = stats.norm(scale=np.sqrt(variance))
        mean, second = (integrate.quad(lambda x, p=p: x**p * law.pdf(x), 0, np.inf)[0] for p in (1, 2))
    found = []
    for _ in range(options["layers"]):
        clean, difference, single = (layer(x, size, stride, ndim) for x in (clean, difference, single))
        flat = clean.reshape(len(clean), -1)
        apart = np.square(flat[:, None] - flat[None]).sum(-1)
        pairs = np.outer(weights, weights)
        if options["normaliser"] == "distinct":
            pairs = pairs * (1 - np.eye(len(pairs)))
        normaliser = np.sum(pairs * apart) / pairs.sum()
        axes = tuple(range(2, 2 + ndim))
        moved = weights @ np.square(difference).sum(axes).mean(0)
        noise = (second - mean**2) * np.square(single).sum() + mean**2 * np.square(single.sum(0)).sum()
        found.append((moved / normaliser, noise / normaliser))
    return np.array(found).T


DEFAULTS = {
    "value": 1.0,
    "boundary": "periodic",
    "collisions": "superpose",
    "rectified": True,
    "normaliser": "independent",
    "noise_variance": None,
}
CASES = [
    ((64,), {"filter_size": 5, "stride": 1, "layers": 5, "displacements": STEP, "value": 4.0}),
    (
        (20,),
        {"filter_size": 4, "stride": 1, "layers": 3, "displacements": [[-2], [1]], "boundary": "clamp"}
        | {"normaliser": "distinct", "rectified": False},
    ),
    (
        (27,),
        {"filter_size": 3, "stride": 3, "layers": 2, "displacements": [[-1], [0], [1]], "boundary": "clamp"}
        | {"collisions": "collapse", "value": 0.3},
    ),
    (
        (6, 5),
        {"filter_size": 3, "stride": 1, "layers": 3, "displacements": CROSS, "boundary": "clamp"}
        | {"collisions": "collapse", "noise_variance": 0.7, "value": 2.0},
    ),
    (
        (4, 8),
        {"filter_size": 2, "stride": 2, "layers": 2, "displacements": SQUARE, "collisions": "collapse"}
        | {"normaliser": "distinct"},
    ),
]


@pytest.mark.parametrize(("shape", "options"), CASES)
def test_equals_enumeration(shape, options):
    rng = np.random.default_rng(0)
    sites = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), 1)
    pairs = np.array(list(itertools.combinations(range(len(sites)), 2)))
    pairs = pairs[rng.random(len(pairs)) < 0.2]
    pairs = np.where(rng.random((len(pairs), 1)) < 0.5, pairs, pairs[:, ::-1])  # which is first does not matter
    weights = rng.random(len(pairs))
    theory = probes.homogeneous_network(sites[pairs], 3 * weights, shape, **options)
    weights = weights / weights.sum()
    deformation, noise = enumerated(sites[pairs], weights, shape, DEFAULTS | options)
    np.testing.assert_allclose(theory.deformation, deformation, rtol=1e-9)
    np.testing.assert_allclose(theory.noise, noise, rtol=1e-9)
    np.testing.assert_allclose(theory.ratio, deformation / noise, rtol=1e-9)


def of_task(task, **options):
    pairs = data.pixel_pairs(task)
    return probes.homogeneous_network(
        pairs.positions,
        probes.balanced_weights(pairs.labels),
        task.shape,
        displacements=data.pixel_displacements("step", 1),
        value=data.active_value(task),
        **options,
    )


TASK1 = data.ScaleDetection()
LAYERS1 = {"filter_size": 3, "stride": 1, "layers": 12}


def test_table_of_task_1():
    theory = of_task(TASK1, **LAYERS1)
    d = [0.3750, 0.1875, 0.1312, 0.1045, 0.0880, 0.0765, 0.0681, 0.0616, 0.0566, 0.0525, 0.0491, 0.0463]
    g = [0.9133, 1.1914, 1.4079, 1.6005, 1.7808, 1.9538, 2.1225, 2.2890, 2.4548, 2.6209, 2.7881, 2.9570]
    np.testing.assert_array_equal(theory.deformation.round(4), d)
    np.testing.assert_array_equal(theory.noise.round(4), g)
    layers = np.arange(1, 13)
    assert round(probes.log_log_slope(layers, theory.deformation), 2) == -0.82
    assert round(probes.log_log_slope(layers, theory.noise), 2) == 0.48
    given = of_task(TASK1, noise_variance=1.95313, **LAYERS1)
    np.testing.assert_allclose(given.noise, theory.noise, rtol=3e-6)
    distinct = of_task(TASK1, normaliser="distinct", **LAYERS1)
    np.testing.assert_allclose(distinct.deformation / theory.deformation, 0.99679, rtol=1e-5)
    np.testing.assert_allclose(distinct.noise / theory.noise, 0.99679, rtol=1e-5)


def test_table_of_task_1_with_collapsed_collisions():
    theory = of_task(TASK1, collisions="collapse", **LAYERS1)
    d = [0.3735, 0.1892, 0.1340, 0.1078, 0.0917, 0.0806, 0.0724, 0.0662, 0.0613, 0.0574, 0.0543, 0.0517]
    np.testing.assert_array_equal(theory.deformation.round(4), d)
    np.testing.assert_array_equal(theory.noise[[0, -1]].round(4), [0.9023, 2.9215])
    assert round(probes.log_log_slope(np.arange(1, 13), theory.deformation), 2) == -0.78


def test_table_of_task_2():
    task = data.ScaleDetection(task="patch", shape=(128,), scale=32)
    with pytest.warns(RuntimeWarning, match="nan at layer 7: the images are all represented alike"):
        theory = of_task(task, filter_size=2, stride=2, layers=7)
    d, g = [0.5038, 0.2517, 0.1257, 0.0627, 0.0313, 0.0234], [0.6613, 0.9796, 1.6144, 2.8761, 5.3690, 15.6018]
    np.testing.assert_array_equal(theory.deformation[:6].round(4), d)
    np.testing.assert_array_equal(theory.noise[:6].round(4), g)
    np.testing.assert_array_equal(theory.receptive_field, 2.0 ** np.arange(1, 8))
    assert np.isnan([theory.deformation[6], theory.noise[6], theory.ratio[6]]).all()
    below = slice(5)  # up to 2⁵, the scale of the task
    assert round(probes.log_log_slope(theory.receptive_field[below], theory.deformation[below]), 2) == -1.0
    assert round(probes.log_log_slope(theory.receptive_field[below], theory.noise[below]), 2) == 0.76


def test_single_pixel_estimate_is_its_definition_in_any_dimension():
    table = [0.66667, 0.31579, 0.21277, 0.16441, 0.13470, 0.11419, 0.09911, 0.08755, 0.07840, 0.07098, 0.06485, 0.05969]
    found = probes.translation_sensitivity(32, filter_size=3, layers=12)
    np.testing.assert_array_equal(found.round(5), table)
    for shape, options in [
        ((32,), {"filter_size": 4, "stride": 1}),
        ((9, 27), {"filter_size": 3, "stride": 3}),
        ((12, 8), {"filter_size": 3, "stride": 1}),
    ]:
        pixels = np.eye(np.prod(shape)).reshape(-1, *shape)
        taps = [pixels, np.roll(pixels, 1, 1)]
        found = probes.translation_sensitivity(shape[0], layers=2, **options)
        for expected in found:
            taps = [layer(tap, options["filter_size"], options["stride"], len(shape)) for tap in taps]
            assert np.square(taps[1] - taps[0]).sum() / np.square(taps[0]).sum() == pytest.approx(expected)


def test_representations_and_their_widths():
    rng = np.random.default_rng(1)
    images = rng.random((3, 2, 8, 16))
    for options in ({"filter_size": 4, "stride": 1}, {"filter_size": 2, "stride": 2}):
        expected = images
        for found in probes.homogeneous_representations(images, layers=3, ndim=2, **options):
            expected = layer(expected, options["filter_size"], options["stride"], 2)
            np.testing.assert_allclose(found, expected, rtol=1e-12)
    sites = np.arange(64)
    taps = probes.homogeneous_representations(np.eye(64)[32], filter_size=5, stride=1, layers=6)
    variances = [stats.rv_discrete(values=(sites, tap)).var() for tap in taps]
    np.testing.assert_allclose(probes.receptive_field_size(5, layers=6) ** 2, variances)
    np.testing.assert_array_equal(probes.receptive_field_size(3, stride=3, layers=3), [3, 9, 27])


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 9])
def test_diffusion_has_the_exact_moments_of_a_layer_and_its_limit(size):
    pixel = np.eye(256)[128]
    taps = probes.homogeneous_representations(pixel, filter_size=size, stride=1, layers=24)
    offsets = np.arange(256) - 128
    assert probes.drift(size) == pytest.approx(offsets @ taps[0])
    assert probes.diffusion_constant(size) == pytest.approx((offsets**2 @ taps[0] - probes.drift(size) ** 2) / 2)
    right, printed = (
        probes.diffusion_profile(offsets, filter_size=size, layer=24, printed=printed) for printed in (False, True)
    )
    law = stats.norm(24 * probes.drift(size), probes.receptive_field_size(size, layers=24)[-1])
    np.testing.assert_allclose(right, law.pdf(offsets), rtol=1e-12, atol=1e-300)
    peak = taps[-1].max()
    # Edgeworth: the first correction is 3 κ₄/(24 k) at the peak, with κ₄ ≥ −2 for F = 2: 1 % of it
    assert np.abs(taps[-1] - right).max() < 0.012 * peak
    assert np.abs(taps[-1] - printed).max() > 0.02 * peak


def test_printed_constants():
    printed = {size: probes.diffusion_constant(size, printed=True) for size in (2, 3, 5)}
    assert printed == pytest.approx({2: 1 / 6, 3: 2 / 9, 5: 16 / 15})
    assert [probes.drift(size, printed=True) for size in (2, 3, 4)] == [0.25, 0, 0.375]
    for size in (3, 4, 7, 8):  # SI's integral over [−F/2, F/2 − 1], or [−(F − 1)/2, (F − 1)/2]
        low = -(size // 2)
        second, _ = integrate.quad(lambda x, size=size: x**2 / size, low, low + size - 1)
        first, _ = integrate.quad(lambda x, size=size: x / size, low, low + size - 1)
        assert probes.diffusion_constant(size, printed=True) == pytest.approx(second)
        assert probes.drift(size, printed=True) == pytest.approx(-first)


def noise_slope(shape, corners, keep, **options):
    """Exponent of G of two images whose pixels are so far apart that only single pixels count."""
    moves = np.zeros((1, len(shape)), int)
    result = probes.homogeneous_network(
        np.array(corners), None, shape, displacements=moves, noise_variance=1.0, normaliser="distinct", **options
    )
    return probes.log_log_slope(result.receptive_field[keep:], result.noise[keep:])


def test_exponents_are_approached_by_exact_networks():
    line, square = ([[[0], [64]], [[128], [192]]], [[[0, 0], [16, 16]], [[0, 16], [16, 0]]])
    wide, strided = probes.asymptotic_exponents(strided=False), probes.asymptotic_exponents(strided=True)
    assert (wide, strided) == ((-2, 1, -3), (-1, 1, -2))
    sizes = probes.receptive_field_size(9, layers=20)
    slope = probes.log_log_slope(sizes[10:], probes.translation_sensitivity(256, filter_size=9, layers=20)[10:])
    # Edgeworth: D is 1 − 0.3/k of its Gaussian limit, so that the slope in A is 0.6/k smaller
    assert slope == pytest.approx(wide.deformation + 0.6 / 15, abs=0.01)
    sizes = probes.receptive_field_size(2, stride=2, layers=6)
    slope = probes.log_log_slope(sizes, probes.translation_sensitivity(128, filter_size=2, stride=2, layers=6))
    assert slope == pytest.approx(strided.deformation, abs=1e-6)
    # the noise's variance adds (π − 1)/(2 √π A) for stride 1, (π − 1)/A for stride F, to what grows
    found = noise_slope((256,), line, 10, filter_size=9, stride=1, layers=20)
    assert found == pytest.approx(wide.noise - 0.06, abs=0.02)
    found = noise_slope((256,), line, 4, filter_size=2, stride=2, layers=6)
    assert found == pytest.approx(strided.noise - 0.05, abs=0.02)
    wide, strided = (probes.asymptotic_exponents(strided=s, ndim=2) for s in (False, True))
    assert (wide, strided) == ((-2, 2, -4), (-1, 2, -3))
    # at layer 8, (π − 1)/(4 π A²) of variance takes 0.064, and Edgeworth's 0.19/k of 1/‖f‖² 0.047
    found = noise_slope((32, 32), square, 4, filter_size=3, stride=1, layers=12)
    assert found == pytest.approx(wide.noise - 0.11, abs=0.02)
    found = noise_slope((32, 32), square, 1, filter_size=2, stride=2, layers=4)
    assert found == pytest.approx(strided.noise, abs=0.1)


def test_balanced_weights_give_each_class_the_same():
    weights = probes.balanced_weights(np.array([1, 0, 0, 7, 0, 1]))
    np.testing.assert_allclose(weights, [1 / 6, 1 / 9, 1 / 9, 1 / 3, 1 / 9, 1 / 6])


def test_slope_is_numpys():
    x, y = np.array([1.0, 2.0, 5.0, 9.0]), np.array([3.0, 1.0, 0.5, 0.6])
    assert probes.log_log_slope(x, y) == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])


PAIRS = np.array([[[0], [3]], [[1], [6]]])


def network(**changes):
    options = {"positions": PAIRS, "weights": None, "shape": (8,), "filter_size": 3, "stride": 1, "layers": 2}
    return probes.homogeneous_network(**(options | {"displacements": STEP} | changes))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: network(positions=PAIRS + 2),
            ValueError,
            r"`positions` must lie within the shape \(8,\), but .* to 8",
        ),
        (lambda: network(positions=PAIRS * 0), ValueError, r"`positions` must be pairs of different pixels"),
        (lambda: network(positions=PAIRS * 1.0), TypeError, r"`positions` must hold integer"),
        (lambda: network(positions=PAIRS[..., 0]), ValueError, r"`positions` must have shape \(pairs, 2, 1\)"),
        (lambda: network(weights=[1.0]), ValueError, r"`weights` must have shape \(2\)"),
        (lambda: network(weights=[-1.0, 2.0]), ValueError, r"`weights` must not be negative"),
        (lambda: network(weights=[0.0, 0.0]), ValueError, r"`weights` must .*nor all zero"),
        (lambda: network(shape=8), TypeError, r"`shape` must be a tuple"),
        (lambda: network(shape=(8, 8)), ValueError, r"`positions` must have shape \(pairs, 2, 2\)"),
        (lambda: network(filter_size=9), ValueError, r"`filter_size` must be an integer ≥ 2 and ≤ 8"),
        (lambda: network(stride=2), ValueError, r"`stride` must be 1 or `filter_size` 3, but 2"),
        (lambda: network(filter_size=2, stride=2, layers=4), ValueError, r"`layers` must leave .*2\^4 does not divide"),
        (lambda: network(layers=0), ValueError, r"`layers` must be an integer ≥ 1"),
        (lambda: network(value=0.0), ValueError, r"`value` must be a finite number > 0"),
        (lambda: network(displacements=[[1, 0]]), ValueError, r"`displacements` must have shape \(moves, 1\)"),
        (lambda: network(boundary="open"), ValueError, r"`boundary` must be one of 'periodic', 'clamp'"),
        (lambda: network(collisions="or"), ValueError, r"`collisions` must be one of 'superpose', 'collapse'"),
        (lambda: network(normaliser="mean"), ValueError, r"`normaliser` must be one of 'independent', 'distinct'"),
        (lambda: network(noise_variance=-1.0), ValueError, r"`noise_variance` must be a finite number ≥ 0"),
        (
            lambda: jax.jit(lambda p: network(positions=p).deformation)(jnp.asarray(PAIRS)),
            TypeError,
            r"`positions` must be known in Python, but a traced array",
        ),
        (lambda: probes.balanced_weights([0.5]), TypeError, r"`labels` must hold integer"),
        (lambda: probes.log_log_slope([1.0, 2.0], [1.0, 0.0]), ValueError, r"`y` must be positive"),
        (lambda: probes.log_log_slope([1.0], [1.0]), ValueError, r"`x` must have shape \(n,\) with n ≥ 2"),
        (lambda: probes.log_log_slope([1.0, 2.0], [1.0, 2.0, 3.0]), ValueError, r"`y` must be as long as `x`"),
        (lambda: probes.log_log_slope([2.0, 2.0], [1.0, 3.0]), ValueError, r"`x` must hold different values"),
        (lambda: probes.asymptotic_exponents(strided=2), TypeError, r"`strided` must be True or False"),
        (lambda: probes.asymptotic_exponents(strided=True, ndim=0), ValueError, r"`ndim` must be an integer ≥ 1"),
        (lambda: probes.receptive_field_size(3, stride=2, layers=1), ValueError, r"`stride` must be 1 or"),
        (
            lambda: probes.translation_sensitivity(1, filter_size=3, layers=1),
            ValueError,
            r"`length` must be an integer ≥ 2",
        ),
        (
            lambda: probes.homogeneous_representations(-np.ones(8), filter_size=3, stride=1, layers=1),
            ValueError,
            r"`images` must not be negative, but the least value is -1",
        ),
        (lambda: probes.diffusion_profile("0", filter_size=3, layer=1), TypeError, r"`offsets` must"),
        (lambda: probes.diffusion_constant(2.5), TypeError, r"`filter_size` must be an integer"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()
