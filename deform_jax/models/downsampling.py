"""The five ways in which LS section 2.2 halves the resolution, each exactly 2 × 2 with stride 2; the zoo's pooling.

An odd last row or column is dropped by all five alike.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from deform_jax import checks
from deform_jax.models.initializers import truncated_normal_fan_in

DOWNSAMPLINGS = ("subsample", "max", "average", "strided", "strided_relu")
"""Names of the downsamplings that ``BlockVGG`` knows (LS 2.2)."""


def subsample(images: jax.Array) -> jax.Array:
    """Return the top-left pixel of every 2 × 2 block, ``(n, h, w, c) -> (n, h // 2, w // 2, c)`` (LS 2.2).

    Args:
      images: ``(n, h, w, c)`` numbers.

    Raises:
      ValueError, TypeError: another rank, images smaller than 2 × 2, or no real numbers.
    """
    return _corners(_image_batch(images, kind="real"))[0]


def max_pool(images: jax.Array, *, window: int = 2, stride: int = 2, padding: int = 0) -> jax.Array:
    """Return the maximum of every window and channel, by default ``(n, h, w, c) -> (n, h // 2, w // 2, c)`` (LS 2.2).

    At ties the gradient is shared out: ½ each between two, ⅛, ⅛, ¼ and ½ in reading order among the four of a 2 × 2
    window; after a ReLU ties occur at zero, where the ReLU stops it anyway. Shifted views instead of a window
    reduction: on CPU the backward pass is 10 to 30 times as fast.

    Args:
      images: ``(n, h, w, c)`` floats.
      window: side of the square window; the defaults are LS's and VGG's, AlexNet and ResNet take 3.
      stride: distance between windows. Rows and columns that fill no whole window are dropped.
      padding: rows and columns of −∞ on every side, at most window / 2.

    Raises:
      ValueError, TypeError: sizes out of their bounds, or images smaller than the window.
    """
    window = checks.integer("window", window, minimum=1, maximum=checks.LONGEST)
    stride = checks.integer("stride", stride, minimum=1, maximum=checks.LONGEST)
    padding = checks.integer("padding", padding, minimum=0, maximum=window // 2)
    images = _image_batch(images, kind="float" if padding else "real", smallest=1)
    if (window, stride, padding) == (2, 2, 0) and min(images.shape[1:3]) > 1:
        return functools.reduce(jnp.maximum, _corners(images))
    if min(images.shape[1:3]) + 2 * padding < window:
        size = f"{images.shape[1]} × {images.shape[2]}"
        checks.fail("images", f"be at least as large as the {window} × {window} window", f"they are {size}")
    if padding:
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        images = jnp.pad(images, sides, constant_values=-jnp.inf)
    # One axis after the other: 2 · window views instead of window².
    return _maximum_along(2, _maximum_along(1, images, window, stride), window, stride)


def average_pool(images: jax.Array) -> jax.Array:
    """Return the mean of every 2 × 2 block and channel, ``(n, h, w, c) -> (n, h // 2, w // 2, c)`` (LS 2.2).

    Args:
      images: ``(n, h, w, c)`` floats.

    Raises:
      ValueError, TypeError: another rank, images smaller than 2 × 2, or no floats.
    """
    images = _image_batch(images)
    return sum(_corners(images)) / jnp.asarray(4, images.dtype)


def adaptive_average_pool(images: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Return means over a grid of ``shape`` cells, ``(n, h, w, c) -> (n, *shape, c)``, as PyTorch's layer of that name.

    Cell i of k along a side of length l holds the pixels from ⌊i·l/k⌋ up to but not including ⌈(i+1)·l/k⌉: cells
    overlap where k does not divide l, and repeat pixels where k is larger than l. Computed in float32 at least.

    Args:
      images: ``(n, h, w, c)`` floats.
      shape: (height, width) of the result, static.

    Raises:
      ValueError, TypeError: a shape that is no pair of positive integers.
    """
    images = _image_batch(images, smallest=1)
    height, width = checks.size_pair("shape", shape)
    checks.entries("shape", len(images), height, width, images.shape[-1])
    if images.shape[1:3] == (height, width):
        return images
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    rows, columns = (jnp.asarray(_cells(images.shape[axis], k), dtype) for axis, k in ((1, height), (2, width)))
    return jnp.einsum("nhwc,ih,jw->nijc", images, rows, columns, precision="highest").astype(images.dtype)


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
        images = _image_batch(images, kind="real")
        checks.integer("features", self.features, minimum=1, maximum=checks.LONGEST)
        checks.entries("features", 2, 2, images.shape[-1], self.features)
        checks.precision("precision", self.precision)
        kernel = self.param("kernel", truncated_normal_fan_in, (2, 2, images.shape[-1], self.features), jnp.float32)
        dtype = self.dtype or jnp.promote_types(images.dtype, kernel.dtype)
        patches = _blocks(images.astype(dtype)).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(*patches.shape[:3], -1)
        output = jnp.matmul(patches, kernel.reshape(-1, self.features).astype(dtype), precision=self.precision)
        if not checks.flag("use_bias", self.use_bias):
            return output
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return output + bias.reshape(1, 1, 1, -1).astype(dtype)


def _image_batch(images: Any, *, kind: str = "float", smallest: int = 2) -> jax.Array:
    images = checks.array("images", images, "n h w c", kind=kind)
    if min(images.shape[1:3]) < smallest:
        size = f"{images.shape[1]} × {images.shape[2]}"
        checks.fail("images", f"be at least {smallest} × {smallest} pixels", f"they are {size}")
    return images


def _maximum_along(axis: int, images: jax.Array, window: int, stride: int) -> jax.Array:
    last = (images.shape[axis] - window) // stride * stride
    views = [jax.lax.slice_in_dim(images, i, i + last + 1, stride, axis) for i in range(window)]
    return functools.reduce(jnp.maximum, views)


def _cells(length: int, count: int) -> np.ndarray:
    """``(count, length)``: each row the weights of one cell's mean."""
    pixels, cells = np.arange(length), np.arange(count)[:, None]
    inside = (pixels >= cells * length // count) & (pixels < -(-(cells + 1) * length // count))
    return inside / inside.sum(1, keepdims=True)


def _corners(images: jax.Array) -> list[jax.Array]:
    blocks = _blocks(images)
    return [blocks[:, :, row, :, column] for row in (0, 1) for column in (0, 1)]


def _blocks(images: jax.Array) -> jax.Array:
    n, height, width, channels = images.shape
    images = images[:, : height // 2 * 2, : width // 2 * 2]
    return images.reshape(n, height // 2, 2, width // 2, 2, channels)
