"""LeNet, the smallest convolutional network of SI's zoo."""

from collections import OrderedDict

import jax
from flax import linen as nn

from deform_jax.models import downsampling as down
from deform_jax.models._layers import ZooNetwork
from deform_jax.typing import Images, Taps


class LeNet(ZooNetwork):
    """Two 5 × 5 convolutions without padding (6 and 16 channels), each max-pooled by 2; dense 120, 84; the logits (SI).

    ReLUs throughout, biases everywhere, no batch norm; 62,006 parameters for 32 × 32 × 3 images and 10 classes.

    Taps: ``input``, ``conv1``, ``conv2``, ``dense1``, ``dense2``.
    """

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)`` of at least 32 × 32 pixels."""
        images = self._check(images, 32)
        taps: Taps = OrderedDict(input=images)
        x = images
        for name, channels in (("conv1", 6), ("conv2", 16)):
            x = taps[name] = nn.relu(self._conv(x, self._scaled(channels), 5, padding=0, name=name))
            x = down.max_pool(x)
        x = x.reshape(len(x), -1)
        for name, hidden in (("dense1", 120), ("dense2", 84)):
            x = taps[name] = nn.relu(self._dense(x, self._scaled(hidden), name=name))
        return self._head(x), taps
