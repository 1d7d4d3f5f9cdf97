"""Random crop and horizontal flip, written for one image: ``jax.vmap`` them over keys and images."""

import jax
import jax.numpy as jnp

from deform_jax import checks
from deform_jax.typing import RandomKey


def random_crop_flip(key: RandomKey, image: jax.Array, *, pad: int = 4, flip: bool = True) -> jax.Array:
    """Shift an image by a random crop of its zero-padded self and mirror it left to right with probability ½.

    Args:
      key: a random key; the corner of the crop is uniform over the (2·pad + 1)² whole-pixel positions.
      image: (h, w, c), uint8 or any other numbers; ``vmap`` it over keys and images for a batch.
      pad: pixels of zeros (black) added on every side, at most the image's shorter side; 0 leaves the crop out.
      flip: whether to mirror at all.

    Returns:
      (h, w, c), of the image's dtype.

    Raises:
      TypeError, ValueError: ``image`` is not (h, w, c), ``pad`` no integer from 0 to the shorter side,
        ``flip`` no bool, or ``key`` not one random key.

    The customary CIFAR augmentation (He et al. 2016, arXiv 1512.03385, section 4.2), used in both papers' training.
    """
    image = checks.array("image", image, "h w c", kind="real")
    pad = checks.integer("pad", pad, minimum=0, maximum=min(image.shape[:2]))
    key = checks.key(key, remedy="`jax.vmap` the call over keys and images.")
    flip = checks.flag("flip", flip)
    crop_key, flip_key = jax.random.split(key)
    corner = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
    mirrored = jax.random.bernoulli(flip_key) if flip else jnp.asarray(False)
    return _crop_flip(image, corner, mirrored, pad)


def _crop_flip(image: jax.Array, corner: jax.Array, mirrored: jax.Array, pad: int) -> jax.Array:
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    cropped = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
    return jnp.where(mirrored, cropped[:, ::-1], cropped)
