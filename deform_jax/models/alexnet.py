"""AlexNet, in SI's form for CIFAR10 and in torchvision's for ImageNet."""

from collections import OrderedDict

import jax
from flax import linen as nn

from deform_jax import checks
from deform_jax.models import downsampling as down
from deform_jax.models._layers import FORMS, ZooNetwork
from deform_jax.typing import Images, Taps


class AlexNet(ZooNetwork):
    """Five convolutions (64, 192, 384, 256, 256 channels), two dense layers of 4096 after a dropout each; the logits.

    ReLUs throughout, biases everywhere, no batch norm; max-pooled after the first, second and fifth convolution.
    Flattened as (h, w, c).

    Taps: ``input``, ``conv1`` … ``conv5``, ``dense1``, ``dense2``.

    Attributes:
      form: ``"cifar10"``: all kernels 3 × 3, the first with stride 2, pooled by 2 (SI). ``"imagenet"``: torchvision's,
        which its weights fit: kernels 11 × 11 with stride 4, 5 × 5, then 3 × 3, pooled 3 × 3 with stride 2, then
        averaged adaptively to 6 × 6.
      dropout: share of the inputs of both dense layers that training drops, under the rng name ``"dropout"``.
    """

    form: str = "cifar10"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)``: at least 32 × 32, or 63 × 63 for ImageNet."""
        imagenet = checks.option("form", self.form, FORMS) == "imagenet"
        images = self._check(images, 63 if imagenet else 32)
        # Of each convolution: channels, kernel size, stride, padding, and whether it is pooled.
        layers = [(64, 3, 2, 1, True), (192, 3, 1, 1, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False)]
        if imagenet:
            layers[:2] = [(64, 11, 4, 2, True), (192, 5, 1, 2, True)]
        layers.append((256, 3, 1, 1, True))
        taps: Taps = OrderedDict(input=images)
        x = images
        for layer, (channels, size, stride, padding, pooled) in enumerate(layers, 1):
            name = f"conv{layer}"
            x = self._conv(x, self._scaled(channels), size, stride=stride, padding=padding, name=name)
            x = taps[name] = nn.relu(x)
            if pooled:
                x = down.max_pool(x, window=3 if imagenet else 2)
        if imagenet:
            x = down.adaptive_average_pool(x, (6, 6))
        x = x.reshape(len(x), -1)
        for name in ("dense1", "dense2"):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = taps[name] = nn.relu(self._dense(x, self._scaled(4096), name=name))
        return self._head(x), taps
