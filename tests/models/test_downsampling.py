"""Downsamplings and initial weights against numpy, Flax's own layers and scipy's distributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from deform_jax import models

SIZES = [(8, 8), (7, 4), (2, 3)]


def blocks(images):
    """(n, h // 2, w // 2, c, 4): the 2 × 2 blocks, an odd last row or column left out, by explicit loops."""
    n, h, w, c = images.shape
    result = np.zeros((n, h // 2, w // 2, c, 4))
    for i in range(h // 2):
        for j in range(w // 2):
            for k, (di, dj) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
                result[:, i, j, :, k] = images[:, 2 * i + di, 2 * j + dj]
    return result


ORACLES = {
    "subsample": (models.subsample, lambda x: blocks(x)[..., 0]),
    "max_pool": (models.max_pool, lambda x: blocks(x).max(-1)),
    "average_pool": (models.average_pool, lambda x: blocks(x).mean(-1)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ORACLES)
def test_pools_match_numpy(name, size):
    function, oracle = ORACLES[name]
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    result = function(jnp.asarray(images))
    assert result.shape == (2, size[0] // 2, size[1] // 2, 3)
    np.testing.assert_allclose(result, oracle(images), rtol=1e-6, atol=1e-6)  # float32 rounding of a sum of four
    np.testing.assert_array_equal(jax.jit(function)(images), result)
    np.testing.assert_array_equal(jax.vmap(lambda x: function(x[None])[0])(jnp.asarray(images)), result)


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_is_flaxs_in_value_and_gradient(size):
    rng = np.random.default_rng(1)
    # Distinct values: at ties the two share the gradient out differently.
    images = rng.permutation(2 * size[0] * size[1] * 3).reshape(2, *size, 3).astype(np.float32)
    weights = rng.normal(size=(2, size[0] // 2, size[1] // 2, 3)).astype(np.float32)

    def theirs(x):
        return nn.max_pool(x, (2, 2), strides=(2, 2))

    np.testing.assert_array_equal(models.max_pool(jnp.asarray(images)), theirs(images))
    gradients = [jax.jit(jax.grad(lambda x, f=f: (weights * f(x)).sum()))(images) for f in (models.max_pool, theirs)]
    np.testing.assert_array_equal(*gradients)


def test_max_pool_shares_the_gradient_at_ties():
    gradient = jax.jit(jax.grad(lambda x: models.max_pool(x).sum()))
    two, four = jnp.zeros((1, 2, 2, 1)).at[0, 1].set(-1), jnp.zeros((1, 2, 2, 1))
    np.testing.assert_array_equal(np.squeeze(gradient(two)), [[0.5, 0.5], [0, 0]])
    np.testing.assert_array_equal(np.squeeze(gradient(four)), [[1 / 8, 1 / 8], [1 / 4, 1 / 2]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("use_bias", [True, False])
def test_patch_conv_is_the_strided_convolution(size, use_bias):
    rng = np.random.default_rng(2)
    images = rng.normal(size=(2, *size, 3)).astype(np.float32)
    weights = rng.normal(size=(2, size[0] // 2, size[1] // 2, 5)).astype(np.float32)
    params = {"kernel": rng.normal(size=(2, 2, 3, 5)).astype(np.float32)}
    params |= {"bias": rng.normal(size=5).astype(np.float32)} if use_bias else {}
    ours = models.PatchConv(5, use_bias=use_bias)
    theirs = nn.Conv(5, (2, 2), strides=2, padding="VALID", use_bias=use_bias)
    for module in (ours, theirs):
        shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
        assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(module, params, images):
        def weighted(params, images):
            output = module.apply({"params": params}, images)
            return (weights * output).sum(), output

        return jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True)(params, images)

    # Sums of up to 2 · 4 · 4 · 12 products of order 1 in float32, in another order.
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)
    jax.tree.map(compare, value_and_gradients(ours, params, images), value_and_gradients(theirs, params, images))


def test_patch_conv_reads_its_windows_in_row_order(key):
    """A kernel that picks the bottom-left pixel of each window."""
    images = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = jnp.zeros((2, 2, 1, 1)).at[1, 0].set(1)
    result = models.PatchConv(1).apply({"params": {"kernel": kernel, "bias": jnp.zeros(1)}}, images)
    np.testing.assert_array_equal(np.squeeze(result), [[4, 6], [12, 14]])


@pytest.mark.parametrize("shape", [(3, 3, 32, 128), (2, 2, 64, 128), (256, 128)])
def test_initial_weights_are_truncated_normals(key, shape):
    draws = np.asarray(models.truncated_normal_fan_in(key, shape), np.float64)
    n_in = np.prod(shape[:-1])
    scaled = draws.ravel() * np.sqrt(n_in)
    law = scipy.stats.truncnorm(-2, 2)
    assert law.std() == pytest.approx(0.8796, abs=5e-5)
    assert np.abs(scaled).max() <= 2 + 1e-6
    assert np.abs(scaled).max() > 1.99
    # 5 standard errors of a mean, and of a standard deviation with the law's kurtosis, over at least 32,768 draws.
    standard_error = law.std() / np.sqrt(scaled.size)
    assert abs(scaled.mean()) < 5 * standard_error
    kurtosis = law.stats(moments="k") + 3
    assert abs(scaled.std() - law.std()) < 5 * standard_error * np.sqrt((kurtosis - 1) / 4)
    assert scipy.stats.kstest(scaled, law.cdf).pvalue > 1e-3


def test_initial_weights_keep_their_type(key):
    assert models.truncated_normal_fan_in(key, (3, 3, 2, 4), jnp.bfloat16).dtype == jnp.bfloat16
