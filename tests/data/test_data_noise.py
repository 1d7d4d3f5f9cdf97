"""Additive noise: its law against scipy, and what ``Prepare`` draws it from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deform_jax import data
from deform_jax.data.prepare import _NOISE

CLEAN = data.Prepare((0.5, 0.25), (0.3, 0.2))
NOISY = data.Prepare((0.5, 0.25), (0.3, 0.2), noise=10)
SHAPE = (8, 6, 2)
prepared = jax.jit(lambda prepare, keys, images: prepare(keys, images), static_argnums=0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), 12)


def noise_of(keys, images, **changes):
    """What ``noise=10`` adds to the very same images without it."""
    clean, noisy = (data.Prepare(CLEAN.mean, CLEAN.std, noise=noise, **changes) for noise in (0, 10))
    return np.asarray(prepared(noisy, keys, images)) - np.asarray(prepared(clean, keys, images))


def test_the_noise_is_white_and_of_the_norm_said(key):
    images = jax.random.normal(jax.random.key(1), (500, *SHAPE))
    added = np.asarray(jax.jit(data.additive_noise)(key, images, 30.0) - images, np.float64)
    # Squared norms are 900 · χ²(96) / 96: their mean over 500 images has a relative deviation of √(2 / 96 / 500).
    squared = (added**2).sum(axis=(1, 2, 3))
    assert squared.mean() == pytest.approx(900, rel=5 * np.sqrt(2 / 96 / 500))
    assert stats.kstest(squared * 96 / 900, stats.chi2(96).cdf).pvalue > 1e-3  # of each image, not of all together
    assert stats.kstest(added.ravel() * np.sqrt(96) / 30, stats.norm.cdf).pvalue > 1e-3
    for moved in (added[1:], added[:, 1:], added[:, :, 1:], added[..., 1:]):
        kept = added[tuple(slice(0, length) for length in moved.shape)]
        assert (moved * kept).mean() == pytest.approx(0, abs=5 * 900 / 96 / np.sqrt(moved.size))


def test_the_noise_under_transformations(key, keys):
    images = jnp.ones((12, *SHAPE))
    each = jax.vmap(data.additive_noise, in_axes=(0, 0, None))(keys, images, 1.0)
    alone = data.additive_noise(keys[5], images[5], 1.0)
    np.testing.assert_allclose(each[5], alone, rtol=1e-6)
    np.testing.assert_array_equal(data.additive_noise(key, images, 0), images)
    gradient = jax.grad(lambda x: (data.additive_noise(key, x, 2.0) * images).sum())(images)
    np.testing.assert_array_equal(gradient, images)
    by_magnitude = jax.jacfwd(lambda s: data.additive_noise(key, images[0], s))(2.0)
    expected = data.additive_noise(key, images[0], 1.0) - images[0]
    np.testing.assert_allclose(by_magnitude, expected, atol=1e-6)  # float32 rounding of 1 + 0.1
    assert data.additive_noise(key, images.astype(jnp.bfloat16), 1.0).dtype == jnp.bfloat16


def test_noise_comes_after_standardisation_and_is_fresh_for_each_key(images, keys):
    noise = noise_of(keys, images)
    # Squared norms of 100 · χ²(96) / 96, and channels of unlike deviations that get the same noise.
    assert (noise**2).sum(axis=(1, 2, 3)).mean() == pytest.approx(100, rel=5 * np.sqrt(2 / 96 / 12))
    assert (noise[..., 0] ** 2).mean() == pytest.approx((noise[..., 1] ** 2).mean(), rel=0.3)
    assert np.unique(noise.round(5)).size > 0.99 * noise.size
    again = noise_of(jax.random.split(jax.random.key(4), 12), images)
    assert abs(np.corrcoef(noise.ravel(), again.ravel())[0, 1]) < 5 / np.sqrt(noise.size)
    assert np.array_equal(noise_of(jax.random.key_data(keys), images), noise)
    # Rounding of sums of at most 10.
    np.testing.assert_allclose(noise_of(keys, images[::-1]), noise, atol=1e-5)  # from the key, not from the image


@pytest.mark.parametrize("changes", [{"pad": 3}, {"flip": False}, {"pad": 0}], ids=str)
def test_noise_leaves_crop_and_flip_as_they_were(images, keys, changes):
    """Whatever the augmentation, the same key adds the same noise."""
    augmented = noise_of(keys, images, augment=True, **changes)
    np.testing.assert_allclose(augmented, noise_of(keys, images), atol=1e-5)


def test_the_noise_s_key_is_none_of_the_augmentation_s(key):
    used = [key, *jax.random.split(key), jax.random.fold_in(key, _NOISE)]
    assert len({tuple(jax.random.key_data(one).tolist()) for one in used}) == 4


def test_without_keys_each_image_has_noise_of_its_own_whatever_the_batch(images):
    whole = np.asarray(prepared(NOISY, None, images))
    noise = whole - np.asarray(prepared(CLEAN, None, images))
    assert (noise**2).sum(axis=(1, 2, 3)).mean() == pytest.approx(100, rel=5 * np.sqrt(2 / 96 / 12))
    pairs = np.corrcoef(noise.reshape(12, -1))[np.triu_indices(12, 1)]
    assert np.abs(pairs).max() < 5 / np.sqrt(96)
    order = np.random.default_rng(1).permutation(12)[:5]
    np.testing.assert_array_equal(prepared(NOISY, None, images[order]), whole[order])
    np.testing.assert_array_equal(prepared(NOISY, None, images[order].astype(np.int16)), whole[order])
    one_pixel = images[:1].copy()
    one_pixel[0, 2, 3, 1] ^= 1
    for changed in (one_pixel, images[:1, :, ::-1]):  # the second has the same pixels elsewhere
        other = np.asarray(prepared(NOISY, None, changed)) - np.asarray(prepared(CLEAN, None, changed))
        assert abs(np.corrcoef(other.ravel(), noise[0].ravel())[0, 1]) < 5 / np.sqrt(96)


def test_noise_is_a_setting_compared_by_value(images):
    assert data.Prepare(CLEAN.mean, CLEAN.std, noise=np.float32(10)) == NOISY
    assert hash(data.Prepare(CLEAN.mean, CLEAN.std, noise=10.0)) == hash(NOISY)
    assert NOISY != CLEAN
    assert data.Prepare.from_images(images, noise=0.5).noise == 0.5
    assert CLEAN.noise == data.Prepare.from_images(images).noise == 0


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: data.Prepare((0.5,), (1.0,), noise=-1), ValueError, "`noise` must be a finite number ≥ 0, but -1"),
        (lambda x: data.Prepare((0.5,), (1.0,), noise="1"), TypeError, "`noise` must be a finite number ≥ 0, but '1'"),
        (
            functools.partial(NOISY, jax.random.split(jax.random.key(0), 5)),
            ValueError,
            "`keys` must hold one random key per image, 12",
        ),
        (
            functools.partial(data.Prepare((0.5, 0.5), (1.0, 1.0), augment=True, noise=1.0), None),
            TypeError,
            "`keys` must hold one random key per image, 12, but NoneType was given",
        ),
        (lambda x: data.additive_noise(jax.random.key(0), x, 1.0), TypeError, "`images` must hold floating-point"),
        (lambda x: data.additive_noise(jax.random.key(0), x[0, 0] / 255, 1.0), ValueError, "`images` must have shape"),
        (lambda x: data.additive_noise(jax.random.key(0), x / 255, -1.0), ValueError, "`magnitude` must be a finite"),
    ],
)
def test_refuses(images, call, error, match):
    with pytest.raises(error, match=match):
        call(images)
