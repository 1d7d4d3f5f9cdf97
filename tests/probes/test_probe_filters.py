"""Total variation against closed forms and loops, and which kernels of a pytree are measured, in which order."""

from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate, stats

from deform_jax import probes

SOBEL = np.outer([1, 2, 1], [1, 0, -1])
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
BINOMIAL = np.outer([1, 2, 1], [1, 2, 1])


def loops(kernel):
    """TV/L1 of (h, w, in, out), one neighbour at a time."""
    kernel = np.float64(kernel)
    h, w = kernel.shape[:2]
    variation = sum(np.abs(kernel[i + 1, j] - kernel[i, j]).sum() for i in range(h - 1) for j in range(w))
    variation += sum(np.abs(kernel[i, j + 1] - kernel[i, j]).sum() for i in range(h) for j in range(w - 1))
    return variation / np.abs(kernel).sum()


def normals(shape, seed=0, truncated=True):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape).astype(np.float32)
    while truncated and (outside := np.abs(kernel) > 2).any():
        kernel[outside] = rng.normal(size=outside.sum())
    return kernel


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(SOBEL, 1.5), (SOBEL.T, 1.5), (LAPLACIAN, 3.5), (BINOMIAL, 1.0), (np.ones((3, 3)), 0.0), (-BINOMIAL, 1.0)],
)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_known_filters(kernel, expected, scale):
    kernel = np.tile(np.float32(kernel * scale)[:, :, None, None], (1, 1, 2, 3))
    for per_slice in (False, True):
        np.testing.assert_allclose(probes.total_variation(kernel, per_slice=per_slice), expected, rtol=1e-6)


def test_one_dimension():
    kernel = jnp.float32([1, 0, -3])[:, None, None]
    np.testing.assert_allclose(probes.total_variation(kernel), (1 + 3) / 4)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (5, 2, 1, 2), (1, 1, 3, 3)])
def test_matches_loops(shape):
    kernel = normals(shape)
    np.testing.assert_allclose(probes.total_variation(kernel), loops(kernel), rtol=1e-6)
    slices = [loops(kernel[:, :, i : i + 1, j : j + 1]) for i in range(shape[2]) for j in range(shape[3])]
    np.testing.assert_allclose(probes.total_variation(kernel, per_slice=True), np.mean(slices), rtol=1e-6)


def mean_ratio(law):
    """E|X − Y| / E|X| for independent draws of a symmetric law: 2 ∫ F (1 − F) over 2 ∫₀ x p."""
    gap, _ = integrate.quad(lambda x: law.cdf(x) * law.sf(x), -8, 8, points=[-2, 2])
    size, _ = integrate.quad(lambda x: x * law.pdf(x), 0, 8, points=[2])
    return gap / size


def test_expected_values_at_initialisation():
    # A 3×3 kernel has 12 neighbour pairs for 9 entries, a 2×2 kernel 4 for 4. In the limit of many slices the exact
    # value for normals truncated at 2σ is 1.856638; shared/protocols.md has 1.85684, which fits a layer of 3→32.
    normal, truncated = 12 / 9 * mean_ratio(stats.norm()), 12 / 9 * mean_ratio(stats.truncnorm(-2, 2))
    np.testing.assert_allclose([normal, truncated], [4 * np.sqrt(2) / 3, 1.856638], atol=1e-6)
    np.testing.assert_allclose(truncated, 1.85684, atol=2.5e-4)
    # Sampled: a 3→32 layer has sd 0.0356 (protocols), so 512·512 slices have 0.0356·√(96/512²) = 0.0007: 3.5 sd.
    kernel = normals((3, 3, 512, 512))
    np.testing.assert_allclose(probes.total_variation(kernel), truncated, atol=0.0025)
    np.testing.assert_allclose(probes.total_variation(kernel, per_slice=True), 1.8705, atol=0.003)
    np.testing.assert_allclose(probes.total_variation(normals((2, 2, 512, 512))), 3 / 4 * truncated, atol=0.003)
    np.testing.assert_allclose(probes.total_variation(normals((3, 3, 512, 512), truncated=False)), normal, atol=0.0025)


def test_zero_kernels_and_slices():
    zero = np.zeros((3, 3, 2, 2), np.float32)
    kernel = zero.copy()
    kernel[:, :, 0, 0] = SOBEL
    for per_slice in (False, True):
        assert np.isnan(probes.total_variation(zero, per_slice=per_slice))
        np.testing.assert_allclose(probes.total_variation(kernel, per_slice=per_slice), 1.5)  # zero slices left out
        for at in (zero, kernel, np.ones_like(zero)):
            gradient = jax.grad(lambda k, p=per_slice: probes.total_variation(k, per_slice=p))(at)
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("per_slice", [False, True])
def test_gradient_jit_and_vmap(per_slice):
    kernels = normals((4, 3, 3, 2, 3))

    def measure(kernel):
        return probes.total_variation(kernel, per_slice=per_slice)

    plain = jnp.stack([measure(kernel) for kernel in kernels])
    np.testing.assert_allclose(jax.jit(jax.vmap(measure))(kernels), plain, rtol=1e-6)
    towards = np.random.default_rng(0).normal(size=(3, 3, 2, 3))

    def exact(kernel):
        if not per_slice:
            return loops(kernel)
        return np.mean([loops(kernel[:, :, i : i + 1, j : j + 1]) for i in range(2) for j in range(3)])

    step = 1e-6
    kernel = np.float64(kernels[0])
    expected = (exact(kernel + step * towards) - exact(kernel - step * towards)) / (2 * step)
    np.testing.assert_allclose(np.sum(jax.grad(measure)(kernels[0]) * towards), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "error", "text"),
    [
        (np.ones((3, 3)), ValueError, r"`kernel` must have shape \(h, w, in, out\) or \(width, in, out\)"),
        (np.ones((1, 3, 3, 1, 1)), ValueError, r"`kernel` must have shape"),
        (np.ones((3, 3, 0, 1)), ValueError, r"`kernel` must not be empty"),
        (np.ones((3, 3, 1, 1), int), TypeError, r"`kernel` must hold floating-point numbers"),
        ("kernel", TypeError, r"`kernel` must be an array"),
    ],
)
def test_bad_kernels(kernel, error, text):
    with pytest.raises(error, match=text):
        probes.total_variation(kernel)


def tree(*shapes):
    return {f"Conv_{i}": {"kernel": normals(shape, i), "bias": np.zeros(shape[-1])} for i, shape in enumerate(shapes)}


def test_natural_order_and_values():
    params = tree(*[(3, 3, 2, 2)] * 12)
    params = {"head": {"kernel": jnp.ones((2, 3))}, "block10": params, "block9": {"deep": params}}
    expected = [f"block9/deep/Conv_{i}" for i in range(12)] + [f"block10/Conv_{i}" for i in range(12)]
    for measure in (probes.filter_statistics, jax.jit(probes.filter_statistics, static_argnums=1)):
        result = measure(params, probes.total_variation)
        assert isinstance(result, OrderedDict)
        assert list(result) == expected
        np.testing.assert_allclose(result["block10/Conv_3"], loops(params["block10"]["Conv_3"]["kernel"]), rtol=1e-6)


def test_which_kernels():
    params = {
        **tree((3, 3, 2, 4), (2, 2, 4, 4), (1, 1, 4, 4), (3, 4, 4), (2, 3, 4), (1, 3, 3), (3, 3, 1, 1)),
        "norm": {"scale": np.ones((3, 3, 2, 2))},
        "counter": {"kernel": np.ones((3, 3, 2, 2), int)},
        "dense": {"kernel": np.ones((4, 4))},
        "haiku": {"w": np.ones((3, 3, 1, 1))},
        "torch": {"weight": np.ones((4, 2, 3, 3))},
    }

    def layers(size=None):
        return list(probes.filter_statistics(params, jnp.shape, size=size))

    assert layers() == ["Conv_0", "Conv_1", "Conv_3", "Conv_4", "Conv_6", "haiku"]
    assert layers(3) == ["Conv_0", "Conv_3", "Conv_6", "haiku"]
    assert layers(2) == ["Conv_1", "Conv_4"]
    assert layers((3, 3)) == ["Conv_0", "Conv_6", "haiku"]
    assert layers((3,)) == ["Conv_3"]
    assert layers((5, 5)) == []
    assert list(probes.filter_statistics(params["Conv_0"], jnp.shape)) == ["kernel"]


def test_flax_modules():
    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(11):
                x = nn.Conv(2, (3, 3))(x)
            return nn.Dense(2)(x)

    params = Linen().init(jax.random.key(0), jnp.ones((1, 4, 4, 2)))["params"]
    assert list(probes.filter_statistics(params, probes.total_variation)) == [f"Conv_{i}" for i in range(11)]

    class Module(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Conv(2, 3, (3, 3), rngs=rngs)

    state = nnx.state(Module(nnx.Rngs(0)), nnx.Param)
    assert list(probes.filter_statistics(state, probes.total_variation)) == ["first"]


def test_vmap_over_seeds():
    seeds = [tree((3, 3, 2, 4)), jax.tree.map(lambda x: x**2, tree((3, 3, 2, 4)))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    result = jax.vmap(lambda params: probes.filter_statistics(params, probes.total_variation))(stacked)
    expected = [loops(seed["Conv_0"]["kernel"]) for seed in seeds]
    np.testing.assert_allclose(result["Conv_0"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (({}, jnp.mean), ValueError, r"`params` must hold a convolution kernel.* none of its 0 leaves"),
        (({"a": {"kernel": jnp.ones((2, 2))}}, jnp.mean), ValueError, r"none of its 1 leaves is one"),
        ((tree((3, 3, 1, 1)), "mean"), TypeError, r"`statistic` must be callable"),
        ((tree((3, 3, 1, 1)), jnp.mean, 0), ValueError, r"`size` must be an integer ≥ 1, but 0"),
        ((tree((3, 3, 1, 1)), jnp.mean, "3x3"), TypeError, r"`size` must be an integer ≥ 1, but '3x3'"),
        ((tree((3, 3, 1, 1)), jnp.mean, (3, 0)), ValueError, r"`size` must be an integer ≥ 1, but 0"),
    ],
)
def test_bad_arguments(arguments, error, text):
    params, statistic, *size = arguments
    with pytest.raises(error, match=text):
        probes.filter_statistics(params, statistic, size=size[0] if size else None)
