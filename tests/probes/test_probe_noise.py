"""Rectified noise: its law, where its size comes from, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deform_jax import probes

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(50, 40, 25, 2)).astype(np.float32)
SIZES = RNG.random((50, 1, 1, 1)).astype(np.float32) * 0.2
DEFORMED = IMAGES + SIZES * RNG.normal(size=IMAGES.shape).astype(np.float32)
SIGMA = np.sqrt(np.square(np.float64(DEFORMED) - IMAGES).mean())


def test_noise_is_a_rectified_normal_of_one_size():
    key = jax.random.key(3)
    noise = np.float64(probes.rectified_noise(key, IMAGES, DEFORMED)) - IMAGES
    plain = np.float64(probes.rectified_noise(key, IMAGES, DEFORMED, rectified=False)) - IMAGES
    np.testing.assert_allclose(noise, np.maximum(plain, 0), atol=1e-6)  # the same draw; adding rounds at 1e-7
    # 100,000 entries: Kolmogorov–Smirnov rejects a σ that is 2 % off at p ~ 1e-2; this seed gives p = 0.1 or more
    assert stats.kstest(plain.ravel() / SIGMA, "norm").pvalue > 0.05
    # sampling errors of moments: 1/√100,000 = 0.3 %, × 3
    assert noise.mean() == pytest.approx(SIGMA / np.sqrt(2 * np.pi), rel=0.01)
    assert noise.var() == pytest.approx(SIGMA**2 * (0.5 - 0.5 / np.pi), rel=0.02)
    # every image has the same σ, whatever its own deformation: 2000 entries each, 1.6 %, × 4
    np.testing.assert_allclose(plain.std((1, 2, 3)), SIGMA, rtol=0.065)
    assert np.abs(np.corrcoef(plain.reshape(50, -1)) - np.eye(50)).max() < 5 / np.sqrt(2000)


def test_under_jit_vmap_and_grad():
    images, deformed = IMAGES[:2, :3, :2], DEFORMED[:2, :3, :2]
    keys = jax.random.split(jax.random.key(0), 2)
    batched = jax.jit(jax.vmap(probes.rectified_noise, in_axes=(0, None, None)))(keys, images, deformed)
    single = probes.rectified_noise(keys[0], images, deformed)
    np.testing.assert_allclose(batched[0], single, rtol=1e-6)
    assert np.abs(batched[1] - single).max() > 0.01

    def total(moved):
        return jnp.sum(probes.rectified_noise(keys[0], images, moved))

    # Σ ReLU(η) = σ Σ ReLU(z), and dσ/dx = (τx − x)/(n σ)
    difference = np.float64(deformed) - images
    sigma = np.sqrt(np.square(difference).mean())
    scale = (np.float64(single) - images).sum() / sigma
    np.testing.assert_allclose(jax.grad(total)(deformed), scale * difference / (difference.size * sigma), rtol=1e-4)
    np.testing.assert_array_equal(jax.grad(total)(images), 0)
    np.testing.assert_array_equal(probes.rectified_noise(keys[0], images, images), images)
    assert probes.rectified_noise(keys[0], jnp.bfloat16(images), deformed).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((0, IMAGES, DEFORMED), {}, TypeError, r"`key` must be one random key"),
        ((jax.random.split(jax.random.key(0)), IMAGES, DEFORMED), {}, ValueError, r"`key` must be one random key"),
        ((jax.random.key(0), IMAGES, DEFORMED[:3]), {}, ValueError, r"`deformed` must have the shape of `images`"),
        ((jax.random.key(0), np.arange(3), np.arange(3)), {}, TypeError, r"`images` must hold floating-point"),
        ((jax.random.key(0), IMAGES, DEFORMED), {"rectified": 1}, TypeError, r"`rectified` must be True or False"),
    ],
)
def test_bad_arguments(arguments, options, error, text):
    with pytest.raises(error, match=text):
        probes.rectified_noise(*arguments, **options)
