"""``Prepare`` against float64 numpy, and as a static argument of jit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import data

MEAN, STD = (0.5, 0.25, 0.125), (0.3, 0.2, 0.1)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), np.uint8)


def standardised(images, mean=MEAN, std=STD):
    return (np.asarray(images, np.float64) / 255 - np.array(mean)) / np.array(std)


@pytest.mark.parametrize("jit", [False, True])
def test_standardises_each_channel(images, jit):
    prepare = data.Prepare(MEAN, STD)
    outputs = (jax.jit(prepare) if jit else prepare)(None, images)
    assert outputs.dtype == jnp.float32
    # float32 rounding of three operations on numbers up to 10
    np.testing.assert_allclose(outputs, standardised(images), atol=3e-6, rtol=0)


def test_keys_are_not_looked_at_without_augmentation(images, key):
    prepare = data.Prepare(MEAN, STD)
    np.testing.assert_array_equal(prepare(jax.random.split(key, 6), images), prepare(None, images))


@pytest.mark.parametrize(("jit", "raw"), [(False, False), (True, False), (True, True)])
def test_augments_each_image_by_its_own_key_then_standardises(images, key, jit, raw):
    prepare = data.Prepare(MEAN, STD, augment=True, pad=3)
    keys = jax.random.split(key, 6)
    outputs = (jax.jit(prepare) if jit else prepare)(jax.random.key_data(keys) if raw else keys, images)
    one = jax.jit(lambda k, x: data.random_crop_flip(k, x, pad=3))
    each = [one(k, x) for k, x in zip(keys, images, strict=True)]
    np.testing.assert_allclose(outputs, standardised(jnp.stack(each)), atol=3e-6, rtol=0)


def test_the_padding_is_black_not_mean(key):
    white = np.full((64, 8, 8, 3), 255, np.uint8)
    outputs = np.asarray(jax.jit(data.Prepare(MEAN, STD, augment=True))(jax.random.split(key, 64), white))
    for channel in range(3):
        values = np.unique(outputs[..., channel])
        expected = [(0 - MEAN[channel]) / STD[channel], (1 - MEAN[channel]) / STD[channel]]
        np.testing.assert_allclose(values, expected, atol=3e-6, rtol=0)


def test_flip_and_pad_reach_the_augmentation(images, key):
    keys = jax.random.split(key, 6)
    plain = data.Prepare(MEAN, STD, augment=True, pad=0, flip=False)
    np.testing.assert_allclose(jax.jit(plain)(keys, images), standardised(images), atol=3e-6, rtol=0)


def test_from_images_takes_mean_and_std_of_each_channel(images):
    prepare = data.Prepare.from_images(images, augment=True, pad=2, flip=False)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(prepare.mean, scaled.mean((0, 1, 2)), atol=5.01e-7, rtol=0)  # rounded to 6 digits
    np.testing.assert_allclose(prepare.std, scaled.std((0, 1, 2)), atol=5.01e-7, rtol=0)
    assert all(type(value) is float and value == round(value, 6) for value in (*prepare.mean, *prepare.std))
    assert (prepare.augment, prepare.pad, prepare.flip) == (True, 2, False)
    assert prepare == data.Prepare.from_images(jnp.asarray(images), augment=True, pad=2, flip=False)


def test_from_images_counts_more_images_than_it_handles_at_once():
    images = np.random.default_rng(1).integers(0, 256, (2500, 4, 4, 1), np.uint8)
    images[:1000] //= 4
    prepare = data.Prepare.from_images(images)
    np.testing.assert_allclose(prepare.mean[0], (images / 255).mean(), atol=5.01e-7, rtol=0)
    np.testing.assert_allclose(prepare.std[0], (images / 255).std(), atol=5.01e-7, rtol=0)


def test_the_embedded_set_is_standard_after_its_own_prepare():
    images = data.load("fashion_mnist_subset").test_images
    outputs = np.asarray(data.Prepare.from_images(images)(None, images), np.float64)
    assert abs(outputs.mean()) < 1e-5
    assert abs(outputs.std() - 1) < 1e-5


def test_equal_settings_are_equal_hash_alike_and_compile_once(images):
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def prepared(prepare, images):
        traces.append(prepare)
        return prepare(None, images)

    for prepare in (data.Prepare(MEAN, STD), data.Prepare(list(MEAN), list(STD)), data.Prepare(MEAN, STD, pad=4)):
        assert prepare == data.Prepare(MEAN, STD)
        assert hash(prepare) == hash(data.Prepare(MEAN, STD))
        prepared(prepare, images)
    assert len(traces) == 1
    assert data.Prepare(MEAN, STD) != data.Prepare(MEAN, STD, augment=True)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (((), ()), TypeError, r"`mean` must be a tuple"),
        ((0.5, 0.5), TypeError, r"`mean` must be a tuple"),
        (((0.5,), ("a",)), TypeError, r"`std` must be a finite number > 0"),
        (((float("nan"),), (1.0,)), ValueError, r"`mean` must be a finite number"),
        (((0.5,), (0.0,)), ValueError, r"`std` must be a finite number > 0"),
        (((0.5, 0.5), (1.0,)), ValueError, r"`std` must have one number per channel, 2 as `mean`, but it has 1"),
        (((0.5,), (1.0,), True, -1), ValueError, r"`pad` must be an integer ≥ 0"),
    ],
)
def test_bad_settings(arguments, error, match):
    with pytest.raises(error, match=match):
        data.Prepare(*arguments)


@pytest.mark.parametrize(
    ("change", "keys", "options", "error", "match"),
    [
        (lambda x: x / 255, None, {}, TypeError, r"`images` must hold integer numbers, but its dtype is float64"),
        (lambda x: x.astype(np.int32), None, {}, TypeError, r"`images` must be uint8, but the dtype is int32"),
        (lambda x: x[0], None, {}, ValueError, r"`images` must have shape \(n, h, w, c\)"),
        (lambda x: x[:0], None, {}, ValueError, r"`images` must not be empty"),
        (lambda x: x[..., :1], None, {}, ValueError, r"`images` must have 3 channel\(s\), as `mean`"),
        (lambda x: x, None, {"augment": True}, TypeError, r"`keys` must hold one random key per image, 6, but None"),
        (lambda x: x, 5, {"augment": True}, ValueError, r"`keys` must hold one random key per image, 6"),
        (lambda x: x, (6, 2), {"augment": True}, ValueError, r"`keys` must hold one random key per image, 6"),
        (lambda x: x, 6, {"augment": True, "pad": 11}, ValueError, r"`pad` must be an integer ≥ 0 and ≤ 10"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_bad_calls(images, key, change, keys, options, error, match, jit):
    prepare = data.Prepare(MEAN, STD, **options)
    if jit:
        prepare = jax.jit(prepare)
    if jit and "float64" in match:
        match = match.replace("64", "32")  # jax's own dtype for a traced argument
    with pytest.raises(error, match=match.replace("None", "NoneType")):
        prepare(None if keys is None else jax.random.split(key, keys), change(images))


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (np.zeros((0, 4, 4, 1), np.uint8), ValueError, r"`images` must not be empty"),
        (np.zeros((2, 4, 4, 1), np.float32), TypeError, r"`images` must hold integer numbers"),
        (np.zeros((4, 4, 1), np.uint8), ValueError, r"`images` must have shape"),
        (np.full((2, 4, 4, 1), 9, np.uint8), ValueError, r"`images` must vary in every channel, but channel 0"),
    ],
)
def test_from_bad_images(images, error, match):
    with pytest.raises(error, match=match):
        data.Prepare.from_images(images)
