"""Held-out training images, and stored images padded with black."""

import dataclasses
import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import data


def image_set(sizes, seed=0):
    """Every image unlike all others, its number in its first two pixels; classes of those sizes, shuffled."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(len(labels)), 256)
    return data.ImageSet("toy", images, labels, images[:7] + 1, labels[:7], len(sizes))


def numbers(images):
    return 256 * images[:, 0, 0, 0].astype(int) + images[:, 0, 1, 0]


@pytest.mark.parametrize("sizes", [(100, 100, 100), (300, 90, 7, 1)], ids=str)
@pytest.mark.parametrize("count", [30, 31, 1])
def test_each_class_gives_its_share(key, sizes, count):
    whole = image_set(sizes)
    rest, validation = data.validation_split(key, whole, count)
    assert validation.keys() == {"images", "labels"}
    given = np.bincount(validation["labels"], minlength=len(sizes))
    assert given.sum() == len(validation["images"]) == count
    for size, found in zip(sizes, given, strict=True):
        assert abs(found - fractions.Fraction(size * count, sum(sizes))) < 1
    # Disjoint, together everything, each label still beside its image, and in the set's order.
    held, left = numbers(validation["images"]), numbers(rest.train_images)
    np.testing.assert_array_equal(np.sort(np.concatenate([held, left])), np.arange(sum(sizes)))
    np.testing.assert_array_equal(whole.train_labels[held], validation["labels"])
    np.testing.assert_array_equal(whole.train_labels[left], rest.train_labels)
    assert np.all(np.diff(held) > 0)
    assert np.all(np.diff(left) > 0)


def test_the_rest_is_the_same_set_otherwise(key):
    whole = image_set((20, 20))
    rest, validation = data.validation_split(key, whole, 10)
    assert (rest.name, rest.num_classes) == (whole.name, whole.num_classes)
    assert rest.test_images is whole.test_images
    assert rest.test_labels is whole.test_labels
    assert validation["images"].dtype == rest.train_images.dtype == np.uint8
    assert validation["labels"].dtype == rest.train_labels.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        rest.train_images[0] = 0


def test_the_split_is_random_and_the_key_s_alone(key):
    whole = image_set((50, 50))
    held = lambda key: numbers(data.validation_split(key, whole, 40)[1]["images"])  # noqa: E731
    np.testing.assert_array_equal(held(key), held(key))
    draws = np.concatenate([held(one) for one in jax.random.split(key, 50)])
    times = np.bincount(draws, minlength=100)
    # Each image is held out in 50 draws by a chance of 0.4: 20 ± 3.5 times; none in 100 by 5 deviations.
    assert times.min() > 2
    assert times.max() < 38
    on_device = dataclasses.replace(whole, train_images=jnp.asarray(whole.train_images))
    np.testing.assert_array_equal(numbers(data.validation_split(key, on_device, 40)[1]["images"]), held(key))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_padding_puts_images_in_the_middle_of_black(dtype):
    images = np.random.default_rng(0).integers(1, 200, (3, 28, 27, 2)).astype(dtype)
    padded = data.pad_images(images, 32)
    expected = np.zeros((3, 32, 32, 2), dtype)
    expected[:, 2:30, 2:29] = images
    assert isinstance(padded, np.ndarray)
    np.testing.assert_array_equal(padded, expected, strict=True)
    np.testing.assert_array_equal(data.pad_images(jnp.asarray(images), (30, 32)), expected[:, 1:31], strict=True)
    np.testing.assert_array_equal(data.pad_images(images, (28, 27)), images, strict=True)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda s, k: data.validation_split(k, s, 0), ValueError, r"`count` must be an integer ≥ 1 and ≤ 39, but 0"),
        (lambda s, k: data.validation_split(k, s, 40), ValueError, r"`count` must be an integer ≥ 1 and ≤ 39, but 40"),
        (lambda s, k: data.validation_split(k, s, 0.1), TypeError, r"`count` must be an integer"),
        (lambda s, k: data.validation_split(k, {}, 1), TypeError, r"`image_set` must be an `ImageSet`, but dict"),
        (lambda s, k: data.pad_images(s.train_images, 3), ValueError, r"`size` must be at least .* 3 .* 4 × 4 images"),
        (lambda s, k: data.pad_images(s.train_images, (8, 3)), ValueError, r"`size` must be at least the images' own"),
        (lambda s, k: data.pad_images(s.train_images, 0), ValueError, r"`size` must be a pair of integers"),
        (lambda s, k: data.pad_images(s.train_images, 8.0), TypeError, r"`size` must be a pair of integers"),
        (
            lambda s, k: data.pad_images(s.train_images / 255, 8),
            TypeError,
            r"`images` must be uint8 or int16, but .* P",
        ),
        (lambda s, k: data.pad_images(s.train_images[0], 8), ValueError, r"`images` must have shape \(n, h, w, c\)"),
    ],
)
def test_refuses(key, call, error, match):
    with pytest.raises(error, match=match):
        call(image_set((20, 20)), key)
