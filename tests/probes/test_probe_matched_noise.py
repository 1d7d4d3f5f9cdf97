"""Noise of each deformation's norm, in no direction of its own."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from deform_jax import probes


@pytest.mark.parametrize("shape", [(6, 16, 16, 3), (6, 100), (6,)])
def test_noise_has_each_deformation_s_norm(shape):
    rng = np.random.default_rng(0)
    images = rng.normal(size=shape).astype(np.float32)
    sizes = 10.0 ** np.linspace(-2, 1, 6).reshape(-1, *[1] * (len(shape) - 1))
    deformed = (images + sizes * rng.normal(size=shape)).astype(np.float32)
    deformed[2] = images[2]
    noisy = np.asarray(probes.matched_noise(jax.random.key(0), images, deformed))
    assert noisy.dtype == np.float32
    np.testing.assert_array_equal(noisy[2], images[2])
    norms = [np.linalg.norm((np.float64(x) - images).reshape(6, -1), axis=1) for x in (noisy, deformed)]
    # The sum's rounding, 3e-8 of an image's norm over √pixels, against a deformation of 1 % of it.
    np.testing.assert_allclose(*norms, rtol=1e-6 if len(shape) > 1 else 1e-4)
    again = probes.matched_noise(jax.random.key(0), images, deformed)
    np.testing.assert_array_equal(again, noisy)
    assert np.abs(probes.matched_noise(jax.random.key(1), images, deformed) - noisy).max() > 0.1


def test_noise_has_no_direction_of_its_own():
    # Cosines of 500 directions with one another in 300 dimensions: mean 0, mean square 1/300 with a relative sd of
    # √(2 / 124,750) = 0.004; and entries of variance 1/300, kurtosis 3 with an sd of √(24 / 150,000) = 0.013.
    images = np.zeros((500, 10, 10, 3), np.float32)
    noise = np.asarray(probes.matched_noise(jax.random.key(0), images, images + 1)).reshape(500, 300)
    directions = np.float64(noise) / np.linalg.norm(noise, axis=1, keepdims=True)
    cosines = (directions @ directions.T)[np.triu_indices(500, 1)]
    np.testing.assert_allclose(np.mean(cosines**2) * 300, 1, atol=5 * 0.004)
    np.testing.assert_allclose(np.mean(directions**4) * 300**2, 3 * 300 / 302, atol=5 * 0.013)
    assert abs(directions.mean()) < 5 / np.sqrt(500 * 300 * 300)


def test_noise_under_jit_vmap_and_grad():
    rng = np.random.default_rng(0)
    images, deformed = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    deformed[0] = images[0]
    keys = jax.random.split(jax.random.key(0), 2)
    noisy = probes.matched_noise(keys[0], images, deformed)
    batched = jax.jit(jax.vmap(probes.matched_noise, in_axes=(0, None, None)))(keys, images, deformed)
    np.testing.assert_allclose(batched[0], noisy, rtol=1e-6)
    towards = rng.normal(size=images.shape)
    slope = jax.jit(jax.grad(lambda d: jnp.sum(towards * probes.matched_noise(keys[0], images, d))))(deformed)
    # η = ‖τx − x‖ · direction: its derivative is the direction times the unit vector of the deformation
    unit, direction = (np.float64(x) - images for x in (deformed, noisy))
    norms = np.sqrt(np.sum(unit[1:] ** 2, axis=(1, 2), keepdims=True))
    along = np.sum(towards * direction, axis=(1, 2), keepdims=True)[1:]
    np.testing.assert_allclose(slope[1:], along / norms * unit[1:] / norms, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slope[0], 0)


def test_white_noise_through_a_linear_map():
    # E‖Aη‖² = ‖η‖² ‖A‖²/d for a direction uniform in d dimensions. One draw's ‖Aη‖² has a relative variance below
    # 2 Σσ⁴/(Σσ²)² ≤ 2 in the singular values σ of A: 2000 images bring the sd to at most 0.032, and 0.015 here.
    n, d = 2000, 24
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(d, 5)).astype(np.float32)
    images = rng.normal(size=(n, d)).astype(np.float32)
    deformed = np.roll(images, 1, axis=1)
    noisy = probes.matched_noise(jax.random.key(1), images, deformed)
    result = probes.relative_sensitivity(
        Partial(lambda a, x: OrderedDict(input=x, linear=x @ a), matrix), images, deformed, noisy
    )
    np.testing.assert_allclose(result.ratio["input"], 1, rtol=1e-6)  # the same norms
    square = np.mean(np.sum((np.float64(deformed) - images) ** 2, axis=1))
    pairs = 2 * np.var(images @ np.float64(matrix), axis=0, ddof=1).sum()  # over distinct pairs
    expected = square * np.sum(np.float64(matrix) ** 2) / d / pairs
    np.testing.assert_allclose(result.noise["linear"], expected, rtol=4 * 0.015)


IMAGES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
PAIR = (IMAGES, IMAGES + np.float32(1))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: probes.matched_noise(0, *PAIR), TypeError, r"`key` must be one random key, but int was given"),
        (lambda: probes.matched_noise(jnp.ones(2), *PAIR), TypeError, "an array of dtype float32"),
        (
            lambda: probes.matched_noise(jax.random.split(jax.random.key(0), 4), *PAIR),
            ValueError,
            r"keys of shape \(4,\) were given.*own noise",
        ),
        (
            lambda: probes.matched_noise(jax.random.key(0), IMAGES, IMAGES[:2]),
            ValueError,
            "`deformed` must have the shape",
        ),
        (lambda: probes.matched_noise(jax.random.key(0), *np.float32([1, 2])), ValueError, "`images` must hold images"),
        (lambda: probes.matched_noise(jax.random.key(0), IMAGES.astype(int), IMAGES), TypeError, "floating-point"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
