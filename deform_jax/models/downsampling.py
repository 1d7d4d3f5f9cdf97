"""The five ways in which LS section 2.2 halves the resolution, each exactly 2 × 2 with stride 2.

An odd last row or column is dropped by all of them alike.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deform_jax.models.initializers import truncated_normal_fan_in

DOWNSAMPLINGS = ("subsample", "max", "average", "strided", "strided_relu")


def subsample(images: jax.Array) -> jax.Array:
    """Keep the top-left pixel of every 2 × 2 block, ``(n, h, w, c) -> (n, h // 2, w // 2, c)`` (LS 2.2)."""
    return _corners(images)[0]


def max_pool(images: jax.Array) -> jax.Array:
    """Return the maximum of every 2 × 2 block and channel, ``(n, h, w, c) -> (n, h // 2, w // 2, c)`` (LS 2.2).

    At ties the gradient is shared out: ½ each between two, ⅛, ⅛, ¼ and ½ in reading order among four; after a ReLU ties
    occur at zero, where the ReLU stops it anyway. Four corner views instead of a window reduction: on CPU the backward
    pass is 10 to 30 times as fast.
    """
    return functools.reduce(jnp.maximum, _corners(images))


def average_pool(images: jax.Array) -> jax.Array:
    """Return the mean of every 2 × 2 block and channel, ``(n, h, w, c) -> (n, h // 2, w // 2, c)`` (LS 2.2)."""
    return sum(_corners(images)) / jnp.asarray(4, images.dtype)


class PatchConv(nn.Module):
    """Convolution whose 2 × 2 windows tile the image: kernel (2, 2, c_in, c_out), stride 2, bias (LS 2.2).

    The same function as ``nn.Conv(features, (2, 2), strides=2, padding="VALID")`` with the same parameters, computed
    as one matrix product: on CPU its backward pass is 2 to 3 times as fast as that of a strided convolution.

    Attributes:
      features: c_out.
      use_bias: whether to add one.
      precision: of the product.
      dtype: to compute in; the parameters are float32. By default, that of images and parameters together.
    """

    features: int
    use_bias: bool = True
    precision: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c_in)`` to ``(n, h // 2, w // 2, features)``."""
        kernel = self.param("kernel", truncated_normal_fan_in, (2, 2, images.shape[-1], self.features), jnp.float32)
        dtype = self.dtype or jnp.promote_types(images.dtype, kernel.dtype)
        patches = _blocks(images.astype(dtype)).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(*patches.shape[:3], -1)
        output = jnp.matmul(patches, kernel.reshape(-1, self.features).astype(dtype), precision=self.precision)
        if not self.use_bias:
            return output
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return output + bias.reshape(1, 1, 1, -1).astype(dtype)


def _corners(images: jax.Array) -> list[jax.Array]:
    blocks = _blocks(images)
    return [blocks[:, :, row, :, column] for row in (0, 1) for column in (0, 1)]


def _blocks(images: jax.Array) -> jax.Array:
    n, height, width, channels = images.shape
    images = images[:, : height // 2 * 2, : width // 2 * 2]
    return images.reshape(n, height // 2, 2, width // 2, 2, channels)
