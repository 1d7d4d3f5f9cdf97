"""Laplacian modes against the grid's explicit Laplacian, and what is measured in them against loops in float64."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import probes

SOBEL = np.outer([1, 2, 1], [1, 0, -1])
BINOMIAL = np.outer([1, 2, 1], [1, 2, 1])
SIZES = [(3, 3), (2, 2), (6, 6), (3, 5), (3,), (4,), (1, 1)]
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)
LINE = RNG.normal(size=(3, 2, 4)).astype(np.float32)


def laplacian(size):
    """Degrees less adjacency, one pair of entries at a time."""
    entries = list(product(*map(range, size)))
    adjacent = np.array([[sum(abs(a - b) for a, b in zip(p, q, strict=True)) == 1 for q in entries] for p in entries])
    return np.diag(adjacent.sum(1)) - adjacent


def eigenspaces(kernel):
    """[(eigenvalue, power)] of a kernel from LAPACK's eigenvectors, whichever those are within an eigenspace."""
    eigenvalues, vectors = np.linalg.eigh(laplacian(kernel.shape[:-2]))
    projections = vectors.T @ np.float64(kernel).reshape(len(vectors), -1)
    power = (projections**2).mean(1)
    distinct = np.unique(eigenvalues.round(9))
    return [(value, power[np.abs(eigenvalues - value) < 1e-6].sum()) for value in distinct]


def frequency(kernel):
    """SI Fig. 12's formula, word by word."""
    spaces = eigenspaces(kernel)
    norm = (np.float64(kernel) ** 2).sum() / np.prod(kernel.shape[-2:])
    scale = np.prod(kernel.shape[:-2]) / np.trace(laplacian(kernel.shape[:-2]))
    return scale / norm * sum(value * power for value, power in spaces)


@pytest.mark.parametrize("size", SIZES)
def test_modes_of_the_grid(size):
    eigenvalues, modes = probes.laplacian_modes(size)
    assert modes.shape == (np.prod(size), *size)
    flat = modes.reshape(len(modes), -1)
    np.testing.assert_allclose(laplacian(size) @ flat.T, flat.T * eigenvalues, atol=1e-11)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-12)
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(laplacian(size)), atol=1e-11)
    gaps = np.diff(eigenvalues)
    assert ((gaps == 0) | (gaps > 1e-6)).all(), "equal eigenvalues are exactly so"
    assert (flat[:, 0] > 0).all()
    np.testing.assert_allclose(flat[0], len(flat) ** -0.5)


def test_three_by_three():
    eigenvalues, modes = probes.laplacian_modes(3)
    np.testing.assert_array_equal(eigenvalues, [0, 1, 1, 2, 3, 3, 4, 4, 6])
    half, whole = np.array([1, 0, -1]) / np.sqrt(6), np.array([1, -2, 1]) / np.sqrt(18)
    flat, ones = np.ones((3, 3)), np.ones(3)
    np.testing.assert_allclose(modes[1], flat * half, atol=1e-15)  # fewer half-waves along the first axis come first
    np.testing.assert_allclose(modes[2], (flat * half).T, atol=1e-15)
    np.testing.assert_allclose(modes[4], np.outer(ones, whole), atol=1e-15)
    np.testing.assert_allclose(modes[6], 3 * np.outer(half, whole), atol=1e-15)
    np.testing.assert_allclose(modes[7], modes[6].T, atol=1e-15)


def test_sizes_and_dimensions():
    for short, long in [((3,), (3, 3)), ((4, 1), (4,))]:
        ndim = short[1] if len(short) == 2 else 2
        for given, expected in zip(
            probes.laplacian_modes(short[0], ndim=ndim), probes.laplacian_modes(long), strict=True
        ):
            np.testing.assert_array_equal(given, expected)
    with pytest.raises(ValueError, match="read-only"):
        probes.laplacian_modes(3)[1][0] = 0


@pytest.mark.parametrize("kernel", [KERNEL, LINE, RNG.normal(size=(5, 2, 1, 3)).astype(np.float32)])
def test_power_and_frequency_match_other_eigenvectors(kernel):
    total = probes.laplacian_power(kernel, degenerate="sum")
    np.testing.assert_allclose(total, [power for _, power in eigenspaces(kernel)], rtol=1e-5)
    np.testing.assert_allclose(probes.spatial_frequency(kernel), frequency(kernel), rtol=1e-6)


def test_power_of_each_mode_matches_loops():
    _, modes = probes.laplacian_modes(3)
    expected = np.zeros(9)
    for l, i, j in product(range(9), range(2), range(4)):  # noqa: E741
        expected[l] += (modes[l] * KERNEL[:, :, i, j]).sum() ** 2 / 8
    np.testing.assert_allclose(probes.laplacian_power(KERNEL), expected, rtol=1e-5)
    pairs = [[0], [1, 2], [3], [4, 5], [6, 7], [8]]
    np.testing.assert_allclose(
        probes.laplacian_power(KERNEL, degenerate="sum"), [expected[pair].sum() for pair in pairs], rtol=1e-5
    )
    even = np.concatenate([np.full(len(pair), expected[pair].mean()) for pair in pairs])
    np.testing.assert_allclose(probes.laplacian_power(KERNEL, degenerate="mean"), even, rtol=1e-5)


@pytest.mark.parametrize("kernel", [KERNEL, LINE])
@pytest.mark.parametrize("degenerate", ["separate", "mean", "sum"])
def test_powers_add_up_to_the_norm(kernel, degenerate):
    norm = (np.float64(kernel) ** 2).sum() / 8
    np.testing.assert_allclose(probes.laplacian_power(kernel, degenerate=degenerate).sum(), norm, rtol=1e-6)


def test_a_turned_kernel_has_the_same_power_in_every_eigenspace():
    turned = np.rot90(KERNEL)
    for degenerate in ("mean", "sum"):
        expected = probes.laplacian_power(KERNEL, degenerate=degenerate)
        np.testing.assert_allclose(probes.laplacian_power(turned, degenerate=degenerate), expected, rtol=1e-5)
    expected = probes.laplacian_power(KERNEL)
    np.testing.assert_allclose(probes.laplacian_power(turned)[jnp.array([2, 1])], expected[1:3], rtol=1e-5)
    np.testing.assert_allclose(probes.spatial_frequency(turned), probes.spatial_frequency(KERNEL), rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(SOBEL, 0.5), (SOBEL.T, 0.5), (BINOMIAL, 0.25), (np.ones((3, 3)), 0.0), (probes.laplacian_modes(3)[1][8], 2.25)],
)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_known_filters(kernel, expected, scale):
    kernel = np.tile(np.float32(kernel * scale)[:, :, None, None], (1, 1, 2, 4))
    np.testing.assert_allclose(probes.spatial_frequency(kernel), expected, rtol=1e-6)


def test_white_noise():
    # With P pairs γ_l has a relative sd of √(2/P), the aggregate √(2/P) √(Σ (λ_l/λ̄ − 1)²) / 9 = 0.0049: 3.5 sd.
    kernel = RNG.normal(size=(3, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(probes.spatial_frequency(kernel), 1, atol=0.017)
    np.testing.assert_allclose(probes.laplacian_power(kernel), np.ones(9), atol=3.5 * np.sqrt(2 / 4096))


def test_nearly_constant_filters_keep_their_accuracy():
    kernel = np.float32(1 + 1e-5 * KERNEL)
    _, modes = probes.laplacian_modes(3)
    expected = ((modes.reshape(9, 9) @ np.float64(kernel).reshape(9, -1)) ** 2).mean(1)
    np.testing.assert_allclose(probes.laplacian_power(kernel), expected, rtol=1e-6)
    assert expected[1:].max() < 1e-9
    np.testing.assert_allclose(probes.spatial_frequency(kernel), frequency(kernel), rtol=1e-5)
    np.testing.assert_array_equal(probes.laplacian_power(np.full_like(KERNEL, 0.1))[1:], 0)


def test_kernels_of_zeros():
    zero = np.zeros_like(KERNEL)
    assert np.isnan(probes.spatial_frequency(zero))
    np.testing.assert_array_equal(probes.laplacian_power(zero), 0)
    for at in (zero, np.ones_like(zero), KERNEL):
        assert np.isfinite(jax.grad(probes.spatial_frequency)(at)).all()


def test_mean_filter():
    for kernel in (KERNEL, LINE):
        expected = np.zeros(kernel.shape[:-2])
        for i, j in product(range(2), range(4)):
            expected += np.float64(kernel[..., i, j]) / 8
        np.testing.assert_allclose(probes.mean_filter(kernel), expected, atol=1e-7)


def test_narrow_types_are_widened():
    kernel = jnp.asarray(KERNEL, jnp.bfloat16)
    for measure in (probes.laplacian_power, probes.spatial_frequency, probes.mean_filter):
        assert measure(kernel).dtype == jnp.float32
        np.testing.assert_allclose(measure(kernel), measure(np.float32(kernel)), rtol=1e-6)


def everything(kernel):
    return jnp.concatenate(
        [
            probes.laplacian_power(kernel),
            probes.laplacian_power(kernel, degenerate="sum"),
            probes.spatial_frequency(kernel)[None],
            probes.mean_filter(kernel).reshape(-1),
        ]
    )


def test_statistics_of_stacked_seeds():
    seeds = [{"conv2": {"kernel": KERNEL * s}, "conv1": {"kernel": KERNEL**s}} for s in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    result = jax.jit(jax.vmap(lambda params: probes.filter_statistics(params, everything, size=3)))(stacked)
    assert list(result) == ["conv1", "conv2"]
    for i, seed in enumerate(seeds):
        for layer, values in result.items():
            np.testing.assert_allclose(values[i], everything(seed[layer]["kernel"]), rtol=1e-5, atol=1e-6)


def test_gradients_match_differences():
    towards = RNG.normal(size=KERNEL.shape)
    weights = RNG.normal(size=6)

    def total(kernel):
        powers = probes.laplacian_power(kernel, degenerate="sum")
        return powers @ jnp.float32(weights) + probes.spatial_frequency(kernel)

    def exact(kernel):
        return sum(w * power for w, (_, power) in zip(weights, eigenspaces(kernel), strict=True)) + frequency(kernel)

    step = 1e-6  # in float64: truncation 1e-12, rounding 1e-10
    expected = (exact(KERNEL + step * towards) - exact(KERNEL - step * towards)) / (2 * step)
    np.testing.assert_allclose(np.sum(jax.grad(total)(KERNEL) * towards), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: probes.laplacian_modes(0), ValueError, r"`size` must be an integer ≥ 1, but 0"),
        (lambda: probes.laplacian_modes(3.0), TypeError, r"`size` must be an integer ≥ 1, but 3.0"),
        (lambda: probes.laplacian_modes((3, 3, 3)), TypeError, r"`size` must be an integer"),
        (lambda: probes.laplacian_modes(3, ndim=3), ValueError, r"`ndim` must be an integer ≥ 1 and ≤ 2, but 3"),
        (lambda: jax.jit(probes.laplacian_modes)(3), TypeError, r"`size` must be .*traced"),
        (
            lambda: probes.laplacian_power(KERNEL, degenerate="all"),
            ValueError,
            r"`degenerate` must be one of 'separate",
        ),
        (lambda: probes.laplacian_power(SOBEL), TypeError, r"`kernel` must hold floating-point numbers"),
        (lambda: probes.laplacian_power(KERNEL[0, 0]), ValueError, r"`kernel` must have shape \(h, w, in, out\) or"),
        (lambda: probes.spatial_frequency(KERNEL[:0]), ValueError, r"`kernel` must not be empty"),
        (lambda: probes.spatial_frequency(KERNEL[:1, :1]), ValueError, r"more than one spatial entry.*Leave pointwise"),
        (lambda: probes.mean_filter(KERNEL[None]), ValueError, r"`kernel` must have shape"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()
