"""ResNet18, 34 and 50, in SI's form for CIFAR10 and in torchvision's for ImageNet."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
from flax import linen as nn

from deform_jax import checks
from deform_jax.models import downsampling as down
from deform_jax.models._layers import ZooNetwork
from deform_jax.typing import Images, Taps

CHANNELS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Depth, which counts the stem, the convolutions of all blocks and the logits' layer → blocks of each stage."""
EXPANSION = 4
"""Output channels of a bottleneck per channel of its 3 × 3 convolution."""


class ResNet(ZooNetwork):
    """A stem, then four stages of residual blocks (64, 128, 256, 512 channels), averaged; the logits (SI; He 2016).

    A block is two 3 × 3 convolutions, or at depth 50 a bottleneck: 1 × 1, 3 × 3, then 1 × 1 to four times the channels.
    Its input is added before the last ReLU, through a 1 × 1 convolution and a batch norm where the shape changes. The
    last three stages begin with stride 2, in the 3 × 3 convolution of a bottleneck, as in torchvision. Every
    convolution is followed by a batch norm and has no bias.

    Taps: ``input``; ``block00``, the stem after its ReLU and before any pooling; each block's output, ``block01`` ….

    Attributes:
      depth: 18, 34 or 50.
      form: ``"cifar10"``: the stem is 3 × 3 with stride 1; PyTorch's default initialisation. ``"imagenet"``:
        torchvision's, which its weights fit: the stem is 7 × 7 with stride 2, max-pooled 3 × 3 with stride 2;
        convolutions from N(0, 2/n_out).
    """

    depth: int = 18
    form: str = "cifar10"

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)`` of at least 32 × 32 pixels."""
        images = self._check(images, 32)
        if checks.integer("depth", self.depth) not in BLOCKS:
            checks.fail("depth", "be one of 18, 34, 50", f"{self.depth!r} was given")
        taps: Taps = OrderedDict(input=images)
        size, stride = (7, 2) if self.form == "imagenet" else (3, 1)
        x = self._unit(images, self._scaled(64), size, stride=stride, name="block00_conv", train=train)
        x = taps["block00"] = nn.relu(x)
        if self.form == "imagenet":
            x = down.max_pool(x, window=3, padding=1)
        block = 0
        for stage, (count, channels) in enumerate(zip(BLOCKS[self.depth], CHANNELS, strict=True)):
            for first in (True, *[False] * (count - 1)):
                block += 1
                name = f"block{block:02d}"
                stride = 2 if stage and first else 1
                x = taps[name] = self._block(x, self._scaled(channels), stride, name, train)
        return self._head(x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))), taps

    def _block(self, x: jax.Array, channels: int, stride: int, name: str, train: bool) -> jax.Array:
        if self.depth < 50:
            layers = ((channels, 3, stride), (channels, 3, 1))
        else:
            layers = ((channels, 1, 1), (channels, 3, stride), (EXPANSION * channels, 1, 1))
        shortcut = x
        for layer, (features, size, step) in enumerate(layers, 1):
            x = nn.relu(x) if layer > 1 else x
            x = self._unit(x, features, size, stride=step, name=f"{name}_conv{layer}", train=train)
        if stride != 1 or shortcut.shape[-1] != x.shape[-1]:
            shortcut = self._unit(shortcut, x.shape[-1], 1, stride=stride, name=f"{name}_shortcut", train=train)
        return nn.relu(x + shortcut)

    def _unit(self, x: jax.Array, features: int, size: int, *, stride: int, name: str, train: bool) -> jax.Array:
        """Convolution and batch norm."""
        normal = self.form == "imagenet"
        x = self._conv(x, features, size, stride=stride, use_bias=False, normal=normal, name=name)
        return self._norm(x, name, train)
