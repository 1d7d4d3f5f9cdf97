"""EfficientNet-B0 in its form for CIFAR10."""

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deform_jax import checks
from deform_jax.models._layers import ZooNetwork, gained
from deform_jax.models.initializers import uniform_fan_in
from deform_jax.typing import Images, Taps

STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Of each stage: expansion, output channels, blocks, kernel size, stride of the first block."""


class DepthwiseConv(nn.Module):
    """One size × size filter per channel: kernel (size, size, 1, c), padded alike on every side, no bias.

    The same function as ``nn.Conv(c, (size, size), strides=stride, padding=size // 2, feature_group_count=c)`` with the
    same parameter, computed as a sum of shifted images: on CPU value and gradients take a seventh (5 × 5) or a
    twelfth (3 × 3) of the time of XLA's grouped convolution.

    Attributes:
      size: of the kernel, odd.
      stride: between windows.
      kernel_init: ``uniform_fan_in`` by default.
      dtype: to compute in; the parameter is float32. By default, that of images and parameter together.
    """

    size: int
    stride: int = 1
    kernel_init: Callable[..., jax.Array] = uniform_fan_in
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, ⌈h / stride⌉, ⌈w / stride⌉, c)``."""
        n, height, width, channels = images.shape
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, channels), jnp.float32)
        dtype = self.dtype or jnp.promote_types(images.dtype, kernel.dtype)
        border, step = self.size // 2, self.stride
        padded = jnp.pad(images.astype(dtype), ((0, 0), (border, border), (border, border), (0, 0)))
        weights = kernel.astype(dtype).reshape(self.size**2, 1, 1, 1, channels)
        output = jnp.zeros((), dtype)
        for (i, j), weight in zip(itertools.product(range(self.size), repeat=2), weights, strict=True):
            window = jax.lax.slice(padded, (0, i, j, 0), (n, i + height, j + width, channels), (1, step, step, 1))
            output += window * weight
        return output


class EfficientNetB0(ZooNetwork):
    """A stem of 32 channels, then 16 inverted bottlenecks in seven stages, averaged; dropout; the logits (SI).

    Tan and Le's B0 (2019) for 32 × 32 pixels, as is usual for CIFAR10: the stem and the fifth stage have stride 1 (and
    so 2 × 2 pixels are left), and the logits are read from the last stage's 320 channels without the 1280 between.

    A block: 1 × 1 convolution to ``expansion`` times the channels (absent where that is 1), depthwise convolution, each
    with a batch norm and a swish; a gate on every channel (averages → ¼ of the block's input channels, rounded down →
    swish → sigmoid); 1 × 1 convolution and batch norm. Its input is added where the shape stays. PyTorch's default
    initialisation.

    Taps: ``input``; ``block00``, the stem after its swish; each block's output, ``block01`` … ``block16``; no gates.

    Attributes:
      dropout: share of the head's inputs that training drops, under the rng name ``"dropout"``.
      drop_connect: share of the images for which training leaves a residual block out, under the same name, were there
        a 17th block: it grows linearly from 0 in the first.
    """

    dropout: float = 0.2
    drop_connect: float = 0.2

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)`` of at least 32 × 32 pixels."""
        images = self._check(images, 32)
        checks.number("drop_connect", self.drop_connect, minimum=0, maximum=1)
        taps: Taps = OrderedDict(input=images)
        x = nn.swish(self._unit(images, self._scaled(32), 3, "block00_conv", train))
        taps["block00"] = x
        blocks = [
            (expansion, channels, size, stride if first else 1)
            for expansion, channels, count, size, stride in STAGES
            for first in (True, *[False] * (count - 1))
        ]
        for block, (expansion, channels, size, stride) in enumerate(blocks, 1):
            name = f"block{block:02d}"
            y = self._branch(x, expansion, self._scaled(channels), size, stride, name, train)
            if y.shape == x.shape:
                rate = self.drop_connect * (block - 1) / len(blocks)
                y = x + nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
            x = taps[name] = y
        pooled = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
        return self._head(nn.Dropout(self.dropout, deterministic=not train)(pooled)), taps

    def _branch(
        self, x: jax.Array, expansion: int, features: int, size: int, stride: int, name: str, train: bool
    ) -> jax.Array:
        squeezed = max(1, x.shape[-1] // 4)
        if expansion > 1:
            x = nn.swish(self._unit(x, expansion * x.shape[-1], 1, f"{name}_conv1", train))
        initial = functools.partial(gained, self.initial_gain)
        x = DepthwiseConv(size, stride, kernel_init=initial, dtype=self._dtype, name=f"{name}_conv2")(x)
        x = nn.swish(self._norm(x, f"{name}_conv2", train))
        gates = x.mean(axis=(1, 2))
        gates = nn.swish(self._dense(gates, squeezed, name=f"{name}_conv2_gate1"))
        gates = nn.sigmoid(self._dense(gates, x.shape[-1], name=f"{name}_conv2_gate2"))
        return self._unit(x * gates[:, None, None], features, 1, f"{name}_conv3", train)

    def _unit(self, x: jax.Array, features: int, size: int, name: str, train: bool) -> jax.Array:
        """Convolution and batch norm."""
        return self._norm(self._conv(x, features, size, use_bias=False, name=name), name, train)
