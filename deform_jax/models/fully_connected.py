"""SI's fully connected networks, in the NTK parametrisation."""

import math
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deform_jax import checks
from deform_jax.models._layers import ZooNetwork
from deform_jax.typing import Images, Taps


class NTKDense(nn.Module):
    """Linear layer whose parameters are all standard normals at first: x · kernel · scale + bias.

    The scale stands outside the parameters, so that every weight moves by the same relative amount whatever the width:
    one large Adam learning rate (0.1 in SI) suits all layers.

    Attributes:
      features: number of outputs.
      scale: factor on the product; 1/√n_in, n_in the number of inputs, by default.
      use_bias: whether to add one.
      precision: of the product.
      dtype: to compute in; the parameters are float32. By default, that of inputs and parameters together.
    """

    features: int
    scale: float | None = None
    use_bias: bool = True
    precision: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(…, n_in)`` to ``(…, features)``."""
        x = checks.array("x", x, "... n_in", kind="real")
        checks.integer("features", self.features, minimum=1, maximum=checks.LONGEST)
        checks.entries("features", x.shape[-1], self.features)
        checks.precision("precision", self.precision)
        normal = nn.initializers.normal(1.0)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features), jnp.float32)
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        scale = 1 / math.sqrt(x.shape[-1]) if self.scale is None else checks.number("scale", self.scale)
        # The kernel is scaled, not the product: a sum of thousands of unscaled terms would lose range in bfloat16.
        output = jnp.matmul(x.astype(dtype), (kernel * scale).astype(dtype), precision=self.precision)
        if not checks.flag("use_bias", self.use_bias):
            return output
        bias = self.param("bias", normal, (self.features,), jnp.float32)
        return output + bias.astype(dtype).reshape((1,) * (output.ndim - 1) + (-1,))


class FullyConnected(ZooNetwork):
    """Flattened images through linear layers with ReLUs between them, all of them ``NTKDense`` (SI B.1, RS).

    The papers say "L2, L4, L6", width 64 and Adam with learning rate 0.1, no more. The rest follows the authors'
    published program: L counts the linear layers, the last one included; the biases are standard normals at first too;
    the last layer has none, and divides by n_in instead of √n_in.

    Taps: ``input``, then ``dense1`` … after their ReLUs, ``(n, hidden)``.

    Attributes:
      layers: linear layers, the last one included: 2, 4 or 6 in SI.
      hidden: width of all but the last.
    """

    layers: int = 2
    hidden: int = 64

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)`` of any size."""
        images = self._check(images)
        # Single digits keep the sorted order of layer names their depth order.
        checks.integer("layers", self.layers, minimum=1, maximum=10)
        checks.integer("hidden", self.hidden, minimum=1, maximum=checks.LONGEST)
        taps: Taps = OrderedDict(input=images)
        x = images.reshape(len(images), -1)
        for layer in range(1, self.layers):
            name = f"dense{layer}"
            dense = NTKDense(self._scaled(self.hidden), precision=self.precision, dtype=self._dtype, name=name)
            x = taps[name] = nn.relu(dense(x))
        head = NTKDense(self.num_classes, 1 / x.shape[-1], use_bias=False, precision=self.precision, name="head")
        return head(x), taps
