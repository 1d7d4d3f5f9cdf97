"""Data from which some of its meaning has been taken: random labels, random images, additive noise."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16, Int32

from deform_jax import checks
from deform_jax.typing import RandomKey

_ONE = "One key serves all images; `jax.vmap` the call for more."


def random_labels(key: RandomKey, count: int, num_classes: int) -> Int32[Array, " n"]:
    """Return labels that say nothing about the images: uniform, independent, to be kept over all epochs.

    Args:
      key: a random key.
      count: number of labels, ≥ 1; static.
      num_classes: labels are 0 to ``num_classes`` − 1; ≥ 1; static.

    Raises:
      TypeError, ValueError: ``count`` or ``num_classes`` is no static integer ≥ 1.

    LS section 5, after Zhang et al. 2016 (arXiv 1611.03530). A label can come out right by chance.
    """
    checks.key(key, remedy=_ONE)
    count = checks.integer("count", count, minimum=1)
    checks.entries("count", count)
    num_classes = checks.integer("num_classes", num_classes, minimum=1, maximum=checks.LONGEST)
    return jax.random.randint(key, (count,), 0, num_classes, jnp.int32)


def random_images(key: RandomKey, images: Array) -> Int16[Array, "n h w c"]:
    """Return white Gaussian noise in the place of the images, with the mean and deviation of each of their channels.

    Args:
      key: a random key.
      images: (n, h, w, c) uint8 or int16, 0 to 255; only their shape and each channel's mean and deviation count.

    Returns:
      (n, h, w, c) int16 in units of the images, rounded, and not clipped to 0 … 255, which would change the moments.
      ``Prepare`` takes such images as it takes uint8.

    Raises:
      TypeError, ValueError: ``images`` are not (n, h, w, c) uint8 or int16.

    LS section 5 ("networks trained on random images (modifying P(X))") announces this task and never shows it; Gaussian
    noise with the data's mean and deviation, fixed over epochs, is the choice of Zhang et al. 2016 (arXiv 1611.03530).
    """
    checks.key(key, remedy=_ONE)
    images = checks.array("images", images, "n h w c", kind="integer")
    if images.dtype not in (jnp.uint8, jnp.int16):
        checks.fail(
            "images", "be uint8 or int16", f"the dtype is {images.dtype}", "Pass the stored images.", error=TypeError
        )
    values = images.astype(jnp.float32)
    mean = values.mean(axis=(0, 1, 2), keepdims=True)
    deviation = jnp.sqrt(jnp.square(values - mean).mean(axis=(0, 1, 2), keepdims=True))
    noise = jax.random.normal(key, images.shape, jnp.float32)
    return jnp.round(mean + deviation * noise).astype(jnp.int16)


def additive_noise(key: RandomKey, images: Array, magnitude: float) -> Float[Array, "... h w c"]:
    """Return the images with white Gaussian noise added: x + s · N(0, 1) / √(h w c), of root mean square norm s.

    Args:
      key: a random key; one for all images, each of which has noise of its own.
      images: (…, h, w, c) floats, as the network takes them (standardised).
      magnitude: s ≥ 0, the noise's expected L2 norm in each image, in units of the images.

    Returns:
      (…, h, w, c), of the images' dtype.

    Raises:
      TypeError, ValueError: ``images`` are no floats or lack one of the three axes, or ``magnitude`` is negative.

    SI Fig. 1 (right) and Fig. 10, "noisy CIFAR10": s ∈ {0, 0.01, 0.1, 1, 10, 30, 100}, where ‖x‖ is about 55. Unlike
    the probes' noise, whose norm is that of a deformation of the same image.
    """
    checks.key(key, remedy=_ONE)
    images = checks.array("images", images, "... h w c")
    magnitude = checks.number("magnitude", magnitude, minimum=0)
    height, width, channels = images.shape[-3:]
    scale = jnp.asarray(magnitude / math.sqrt(height * width * channels), images.dtype)
    return images + scale * jax.random.normal(key, images.shape, images.dtype)
