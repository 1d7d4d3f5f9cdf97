"""From stored uint8 images to what a network is fed: augmented (in training), standardised, noisy; under jit."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16, UInt8

from deform_jax import checks
from deform_jax.data.augment import random_crop_flip
from deform_jax.data.corruptions import additive_noise

LEAST = 1e-30
"""The least standard deviation: float32 has smaller numbers as 0, which is not to be divided by."""
_RAW = "Pass the stored uint8 images; `Prepare` scales them itself."
# Folded into an image's key, from which `random_crop_flip` splits two: the folds of 0 and 1, with some generators.
_NOISE = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Crop and flip (if ``augment``), standardise each channel, (pixel / 255 − mean) / std, then add ``noise``.

    Cropping comes first, so that its padding is black (pixel 0), as is customary. Hashable and compared by value, so
    that one compiled function serves every equal ``Prepare``.

    Noise is drawn anew for every key, so in every epoch. Called without keys, as for evaluation, it is fixed: each
    image's noise is drawn by a key hashed from the stored image (ours), so that a test set is always corrupted in the
    same way, whatever else is in the batch and however many devices share it. Equal images then have equal noise.

    Args:
      mean: each channel's mean, in units of pixel / 255.
      std: each channel's standard deviation, in the same units, positive.
      augment: whether to crop and flip at random, by per-image keys.
      pad, flip: see :func:`random_crop_flip`.
      noise: expected L2 norm of each image's noise after standardisation, see :func:`additive_noise`; 0 for none.

    Raises:
      TypeError, ValueError: ``mean`` and ``std`` are not tuples of finite numbers of one length, a ``std`` is not
        positive, or ``pad`` or ``noise`` is negative.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: bool = False
    pad: int = 4
    flip: bool = True
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) or not values:
                checks.fail(name, "be a tuple with one number per channel", f"{values!r} was given", error=TypeError)
            for value in values:
                if checks.is_traced(value):
                    checks.fail(name, "hold numbers known in Python", "a traced array was given", error=TypeError)
                checks.number(name, value, minimum=0.0 if name == "std" else None, exclusive=True)
                if name == "std" and value < LEAST:
                    checks.fail("std", f"hold numbers ≥ {LEAST:g}", f"{value} was given")
            object.__setattr__(self, name, tuple(float(value) for value in values))
        if len(self.mean) != len(self.std):
            checks.fail("std", f"have one number per channel, {len(self.mean)} as `mean`", f"it has {len(self.std)}")
        object.__setattr__(self, "augment", checks.flag("augment", self.augment))
        object.__setattr__(self, "flip", checks.flag("flip", self.flip))
        checks.integer("pad", self.pad, minimum=0)
        object.__setattr__(self, "noise", float(checks.number("noise", self.noise, minimum=0)))

    @classmethod
    def from_images(
        cls, images: Any, *, augment: bool = False, pad: int = 4, flip: bool = True, noise: float = 0.0
    ) -> "Prepare":
        """Standardise by the mean and standard deviation of each channel over all given images and pixels.

        Args:
          images: (n, h, w, c) uint8, the training images.
          augment, pad, flip, noise: as for the class.

        Returns:
          A ``Prepare`` whose ``mean`` and ``std`` are Python floats rounded to 6 digits, so that they hash alike on
          every machine.

        Raises:
          TypeError, ValueError: ``images`` is empty, not uint8 or not (n, h, w, c), or a channel is constant.
        """
        _stored_images(images, (jnp.uint8,))
        moments = [_moments(channel) for channel in np.moveaxis(np.asarray(images), -1, 0)]
        for index, (_, std) in enumerate(moments):
            if round(std, 6) == 0:
                checks.fail("images", "vary in every channel", f"channel {index} is constant", "Leave it out.")
        mean, std = ([round(value, 6) for value in values] for values in zip(*moments, strict=True))
        return cls(mean=tuple(mean), std=tuple(std), augment=augment, pad=pad, flip=flip, noise=noise)

    def __call__(
        self, keys: jax.Array | None, images: UInt8[Array | np.ndarray, "n h w c"] | Int16[Array, "n h w c"]
    ) -> Float[Array, "n h w c"]:
        """Return the float32 images (n, h, w, c) that the network is fed.

        Args:
          keys: (n,) random keys, one per image. May be ``None`` where ``augment`` is off; without ``noise`` they are
            not looked at then.
          images: (n, h, w, c) uint8, or int16 as :func:`random_images` makes them.

        Raises:
          TypeError, ValueError: ``images`` is neither uint8 nor int16 or not (n, h, w, c), has another number of
            channels than ``mean``, or there is not one key per image where keys are used.
        """
        images = _stored_images(images, (jnp.uint8, jnp.int16))
        channels = len(self.mean)
        if images.shape[-1] != channels:
            checks.fail("images", f"have {channels} channel(s), as `mean`", f"the shape is {tuple(images.shape)}")
        noise_keys = None
        if self.noise:
            noise_keys = _content_keys(images) if keys is None else _noise_keys(image_keys(keys, len(images)))
        if self.augment:
            crop_flip = functools.partial(random_crop_flip, pad=self.pad, flip=self.flip)
            images = jax.vmap(crop_flip)(image_keys(keys, len(images)), images)
        mean, std = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, channels) for values in (self.mean, self.std))
        images = (images.astype(jnp.float32) / 255 - mean) / std
        if noise_keys is not None:
            images = jax.vmap(additive_noise, in_axes=(0, 0, None))(noise_keys, images, self.noise)
        return images


def image_keys(keys: jax.Array | None, count: int) -> jax.Array:
    """Return ``keys`` if they are one random key for each image."""
    wanted, remedy = f"hold one random key per image, {count}", "Use `jax.random.split(key, n)`."
    if not isinstance(keys, jax.Array):
        checks.fail("keys", wanted, f"{type(keys).__name__} was given", remedy, error=TypeError)
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed and keys.dtype != "uint32":
        checks.fail("keys", wanted, f"an array of dtype {keys.dtype} was given", remedy, error=TypeError)
    if keys.shape[:1] != (count,) or keys.ndim != (1 if typed else 2):
        checks.fail("keys", wanted, f"an array of shape {keys.shape} and dtype {keys.dtype} was given", remedy)
    return keys


def _noise_keys(keys: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, _NOISE)


def _content_keys(images: jax.Array) -> jax.Array:
    """Return one key per stored image (n, h, w, c), from the image alone: its pixels, weighted, modulo 2³²."""
    weights_key, base = jax.random.split(jax.random.key(_NOISE))
    weights = jax.random.bits(weights_key, (1, *images.shape[1:]), jnp.uint32)
    hashes = (images.astype(jnp.uint32) * weights).sum(axis=(1, 2, 3), dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(base, hashes)


def _stored_images(images: Any, dtypes: tuple[Any, ...]) -> Array:
    images = checks.array("images", images, "n h w c", kind="integer", remedy=_RAW)
    if images.dtype not in dtypes:
        checks.fail("images", "be uint8", f"the dtype is {images.dtype}", _RAW, error=TypeError)
    return images


def _moments(channel: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation in units of pixel / 255, by exact whole-number sums over the histogram."""
    count = np.zeros(256, np.int64)
    for start in range(0, len(channel), 1000):  # bincount makes an 8-byte copy: keep it small
        count += np.bincount(channel[start : start + 1000].ravel(), minlength=256)
    total = int(count.sum())
    first = sum(int(c) * value for value, c in enumerate(count))
    second = sum(int(c) * value**2 for value, c in enumerate(count))
    return first / total / 255, math.sqrt(second * total - first**2) / total / 255
