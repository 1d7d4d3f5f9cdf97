"""VGG11, 13, 16 and 19, in SI's form for CIFAR10 and in torchvision's for ImageNet."""

from collections import OrderedDict

import jax
from flax import linen as nn

from deform_jax import checks
from deform_jax.models import downsampling as down
from deform_jax.models._layers import ZooNetwork
from deform_jax.typing import Images, Taps

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth, which counts the three linear layers of the ImageNet form, → convolutions of each stage."""


class VGG(ZooNetwork):
    """Five stages of 3 × 3 convolutions (64, 128, 256, 512, 512 channels) with ReLUs, each max-pooled by 2 (SI).

    Convolutions have biases, with batch norm too, as in torchvision. Flattened as (h, w, c).

    Taps: ``input``, ``conv01`` …, and in the ImageNet form ``dense1``, ``dense2``.

    Attributes:
      depth: 11, 13, 16 or 19.
      batch_norm: whether each convolution is followed by one, before its ReLU.
      form: ``"cifar10"``: one linear layer after the last pooling, to 1 × 1 for 32 pixels; PyTorch's default
        initialisation. ``"imagenet"``: torchvision's, which its weights fit: averaged adaptively to 7 × 7, two dense
        layers of 4096 with a dropout after each, the logits; convolutions from N(0, 2/n_out), linear layers from
        N(0, 0.01²), no biases at first.
      dropout: share of the outputs of both dense layers that training drops, under the rng name ``"dropout"``.
    """

    depth: int = 11
    batch_norm: bool = False
    form: str = "cifar10"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)`` of at least 32 × 32 pixels."""
        images = self._check(images, 32)
        if checks.integer("depth", self.depth) not in CONVOLUTIONS:
            checks.fail("depth", "be one of 11, 13, 16, 19", f"{self.depth!r} was given")
        imagenet = self.form == "imagenet"
        taps: Taps = OrderedDict(input=images)
        x, layer = images, 0
        for count, channels in zip(CONVOLUTIONS[self.depth], CHANNELS, strict=True):
            for _ in range(count):
                layer += 1
                name = f"conv{layer:02d}"
                x = self._conv(x, self._scaled(channels), name=name, normal=imagenet)
                x = self._norm(x, name, train) if self.batch_norm else x
                x = taps[name] = nn.relu(x)
            x = down.max_pool(x)
        if imagenet:
            x = down.adaptive_average_pool(x, (7, 7))
        x = x.reshape(len(x), -1)
        for name in ("dense1", "dense2") if imagenet else ():
            x = taps[name] = nn.relu(self._dense(x, self._scaled(4096), name=name, normal=True))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self._head(x, normal=imagenet), taps
