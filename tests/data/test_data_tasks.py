"""Random labels, random images and deformed templates, against their laws and against scipy's spline."""

import jax
import numpy as np
import pytest
from scipy import stats

from deform_jax import data, warps


@pytest.fixture(scope="module")
def subset():
    return data.load("fashion_mnist_subset")


def test_random_labels_are_uniform_and_seeded(key):
    labels = np.asarray(data.random_labels(key, 20_000, 7))
    assert labels.dtype == np.int32
    # p = 1e-4 would fail one seed in ten thousand; this seed is fixed.
    assert stats.chisquare(np.bincount(labels, minlength=7)).pvalue > 1e-4
    np.testing.assert_array_equal(labels, data.random_labels(key, 20_000, 7))
    assert not np.array_equal(labels, data.random_labels(jax.random.key(1), 20_000, 7))
    jitted = jax.jit(data.random_labels, static_argnums=(1, 2))(key, 20_000, 7)
    np.testing.assert_array_equal(labels, jitted)


def test_random_images_are_white_noise_with_each_channel_s_moments(key, subset):
    grey = np.asarray(subset.train_images[:2000])
    images = np.concatenate([grey, 255 - grey // 2], axis=-1)
    noise = np.asarray(data.random_images(key, images))
    assert noise.dtype == np.int16
    assert noise.shape == images.shape
    count = images[..., 0].size
    for channel in range(2):
        mean, deviation = images[..., channel].mean(), images[..., channel].std()
        found = noise[..., channel].astype(float)
        assert found.mean() == pytest.approx(mean, abs=5 * deviation / np.sqrt(count))
        # Rounding adds 1/12 to the variance.
        expected = np.sqrt(deviation**2 + 1 / 12)
        assert found.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * count))
        standard = (found - mean) / expected
        assert stats.kurtosis(standard.ravel()) == pytest.approx(0, abs=5 * np.sqrt(24 / count))
        neighbours = np.mean(standard[:, 1:] * standard[:, :-1])
        assert neighbours == pytest.approx(0, abs=5 / np.sqrt(count))
    assert noise.min() < 0  # not clipped
    assert not np.array_equal(noise[0], noise[1])


def test_prepare_takes_random_images_as_they_are(key, subset):
    images = np.asarray(subset.train_images[:64])
    prepare = data.Prepare.from_images(images)
    standard = np.asarray(prepare(None, data.random_images(key, images)))
    assert standard.mean() == pytest.approx(0, abs=5 / np.sqrt(standard.size))
    assert standard.std() == pytest.approx(1, rel=0.02)


def test_templates_are_one_image_of_each_class(key, subset):
    templates = data.choose_templates(key, subset.train_images, subset.train_labels, 10)
    for label, template in enumerate(templates):
        same = (subset.train_images == template).all(axis=(1, 2, 3))
        assert same.any()
        assert set(subset.train_labels[same]) == {label}
    other = data.choose_templates(jax.random.key(1), subset.train_images, subset.train_labels, 10)
    assert not np.array_equal(templates, other)
    with pytest.raises(
        ValueError, match="`labels` must have an image of every class, 0 to 10, but there is none of 10"
    ):
        data.choose_templates(key, subset.train_images, subset.train_labels, 11)


def test_a_task_of_deformed_templates(key, subset):
    task, prepare = data.deformed_templates(subset, key, strength=3.0, train_images=25, test_images=20)
    assert task.num_classes == 10
    np.testing.assert_array_equal(task.train_labels, np.arange(25) % 10)
    np.testing.assert_array_equal(task.train_images[:5], task.train_images[20:])
    assert task.test_images.dtype == np.uint8
    assert not np.array_equal(task.test_images[0], task.test_images[10])  # one class, two deformations
    again, _ = data.deformed_templates(subset, key, strength=3.0, train_images=25, test_images=20)
    np.testing.assert_array_equal(task.test_images, again.test_images)
    still, _ = data.deformed_templates(subset, key, strength=0.0, train_images=25, test_images=20)
    np.testing.assert_array_equal(still.test_images, task.train_images[:20])  # the same templates at every strength
    assert prepare == data.DeformedTemplates(prepare.prepare, 3)
    assert hash(prepare) == hash(data.DeformedTemplates(prepare.prepare, 3.0))


def test_training_images_are_the_deformed_templates(key, subset):
    """Each by its own key, as ``random_tps`` deforms them; without keys, they are only standardised."""
    task, prepare = data.deformed_templates(subset, key, strength=4.0, train_images=10, test_images=10)
    keys = jax.random.split(jax.random.key(5), 10)
    fed = jax.jit(prepare)(keys, task.train_images)
    pixels = jax.vmap(warps.random_tps(grid=(3, 3), max_shift=4.0))(keys, task.train_images.astype(np.float32))
    expected = (np.asarray(pixels) / 255 - prepare.prepare.mean[0]) / prepare.prepare.std[0]
    np.testing.assert_allclose(fed, expected, atol=2e-5)
    np.testing.assert_array_equal(prepare(None, task.train_images), prepare.prepare(None, task.train_images))
    rounded = prepare.deform(keys, task.train_images)
    assert np.abs(rounded - np.asarray(pixels)).max() <= 0.5001


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda key, _: data.random_labels(key, 0, 10), ValueError, "`count` must be an integer ≥ 1"),
        (lambda key, _: data.random_labels(key, 5, 1.5), TypeError, "`num_classes` must be an integer ≥ 1"),
        (lambda key, s: data.random_images(key, s.train_images[0]), ValueError, "`images` must have shape"),
        (lambda key, _: data.random_images(key, np.zeros((1, 2, 2, 1))), TypeError, "`images` must hold integer"),
        (lambda key, s: data.deformed_templates(s, key, strength=-1.0), ValueError, "`max_shift` must be"),
        (lambda key, s: data.deformed_templates(s, key, strength=1.0, train_images=9), ValueError, "`train_images`"),
        (lambda key, s: data.deformed_templates(s, key, strength=1.0, grid=(1, 3)), ValueError, "`grid` must be"),
        (lambda *_: data.DeformedTemplates("standard", 1.0), ValueError, "`prepare` must be a `Prepare`"),
        (
            lambda *_: data.DeformedTemplates(data.Prepare((0.5,), (0.5,), augment=True), 1.0),
            ValueError,
            "`prepare` must be a `Prepare` that does not augment",
        ),
    ],
)
def test_refuses(key, subset, call, error, message):
    with pytest.raises(error, match=message):
        call(key, subset)
