"""SI's simple CNNs for the scale-detection tasks: identical layers, NTK parametrisation, one or two dimensions."""

import math
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.models._layers import ZooNetwork
from deform_jax.typing import Taps


class SimpleCNN(ZooNetwork):
    """Layers √n_F · φ(conv(x, w/√(c_in n_F)) + b) with circular padding, n_F = F in one dimension and F² in two (SI 4).

    Weights and biases are standard normals at first, and the scales stand in the forward pass. The output is the mean
    over positions of y · β/H + b_f, with H channels y of the last layer: one number, whose sign is the class. β is
    named ``readout``, so that weight decay, which is for kernels, leaves it alone (SI's penalty is on the
    convolutions).

    With stride 1, the window of site i is i − ⌊F/2⌋ … i − ⌊F/2⌋ + F − 1: centred for odd F, one more to the left for
    even F (SI appendix A). With stride F, windows tile the image: {0 … F − 1}, {F … 2F − 1}, ….

    Taps: ``input``, then ``conv01`` … after their activations.

    Attributes:
      num_classes: outputs; 1 in SI.
      layers: number of convolutions.
      filter_size: F, pixels per side.
      stride: 1 or F, at every layer.
      channels: H, times ``width``.
      activation: φ, ``"relu"``; or ``"linear"``, with which SI 4.2 expects G_k not to grow. The parameters are the
        same.
    """

    num_classes: int = 1
    layers: int = 12
    filter_size: int = 3
    stride: int = 1
    channels: int = 1000
    activation: str = "relu"

    @nn.compact
    def __call__(
        self, images: Float[Array, "n length c"] | Float[Array, "n h w c"], train: bool = False
    ) -> tuple[jax.Array, Taps]:
        """Return outputs ``(n, num_classes)`` and taps of images ``(n, L, c)`` or ``(n, h, w, c)``."""
        images = self._check_images(images)
        taps: Taps = OrderedDict(input=images)
        x, hidden = images, self._scaled(self.channels)
        for layer in range(1, self.layers + 1):
            name = f"conv{layer:02d}"
            x = NTKConv(hidden, self.filter_size, self.stride, self.precision, self._dtype, name=name)(x)
            x = taps[name] = nn.relu(x) * self._gain(x) if self.activation == "relu" else x * self._gain(x)
        y = x.reshape(len(x), -1, hidden).mean(axis=1, dtype=jnp.float32)
        return _Readout(self.num_classes, self.precision, name="head")(y), taps

    def _gain(self, x: jax.Array) -> float:
        return math.sqrt(self.filter_size ** (x.ndim - 2))

    def _check_images(self, images: Any) -> jax.Array:
        checks.integer("layers", self.layers, minimum=1, maximum=99)
        checks.integer("filter_size", self.filter_size, minimum=1, maximum=checks.LONGEST)
        checks.integer("stride", self.stride, minimum=1)
        checks.integer("channels", self.channels, minimum=1, maximum=checks.LONGEST)
        checks.option("activation", self.activation, ("relu", "linear"))
        images = checks.array("images", images, "...")
        if images.ndim not in (3, 4):
            remedy = "Add a leading axis for a single image."
            checks.fail("images", "have shape (n, length, c) or (n, h, w, c)", f"it is {tuple(images.shape)}", remedy)
        self._check(images if images.ndim == 4 else images[:, None])
        check_windows("images", images.shape[1:-1], self.filter_size, self.stride)
        for side in images.shape[1:-1]:
            if self.stride > 1 and side % self.stride**self.layers:
                unit = self.stride**self.layers
                remedy = "Use fewer layers, or other images."
                checks.fail("images", f"have sides that stride^layers, {unit}, divides", f"a side is {side}", remedy)
        return images


class NTKConv(nn.Module):
    """Circular convolution conv(x, w/√(c_in n_F)) + b, with standard normal w and b at first.

    One product of all windows with the kernel: on CPUs, the gradient of a convolution takes twice as long.

    Attributes:
      features: output channels.
      filter_size: F.
      stride: 1 or F.
      precision: of the product.
      dtype: to compute in; the parameters are float32. By default, that of inputs and parameters together.
    """

    features: int
    filter_size: int
    stride: int = 1
    precision: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, *sides, c_in)`` to ``(n, *sides / stride, features)``."""
        x = checks.array("x", x, "... n side c", kind="real")
        for field in ("features", "filter_size", "stride"):
            checks.integer(field, getattr(self, field), minimum=1, maximum=checks.LONGEST)
        checks.precision("precision", self.precision)
        check_windows("x", x.shape[1:-1], self.filter_size, self.stride)
        entries = self.filter_size ** (x.ndim - 2) * x.shape[-1]
        checks.entries("features", entries, self.features)
        checks.entries("filter_size", len(x), *x.shape[1:-1], entries)
        ndim, normal = x.ndim - 2, nn.initializers.normal(1.0)
        kernel = self.param("kernel", normal, (*[self.filter_size] * ndim, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", normal, (self.features,), jnp.float32)
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        patches = windows(x.astype(dtype), self.filter_size, self.stride)
        flat = kernel.reshape(-1, self.features).astype(dtype)
        rows = patches.reshape(-1, patches.shape[-1])
        # The product is scaled, not the kernel, which is larger by far: its gradient then needs no scaling either.
        product = jnp.matmul(rows, flat, precision=self.precision) / math.sqrt(patches.shape[-1])
        return (product + bias.astype(dtype)[None]).reshape(*patches.shape[:-1], self.features)


class _Readout(nn.Module):
    """y · β/H + b, in float32."""

    features: int
    precision: Any = None

    @nn.compact
    def __call__(self, y: jax.Array) -> jax.Array:
        normal = nn.initializers.normal(1.0)
        readout = self.param("readout", normal, (y.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", normal, (self.features,), jnp.float32)
        product = jnp.matmul(y.astype(jnp.float32), readout / y.shape[-1], precision=self.precision)
        return product + bias.reshape(1, -1)


def check_windows(name: str, sides: tuple[int, ...], filter_size: int, stride: int) -> None:
    """Refuse strides other than 1 and F, sides shorter than a window, and those that windows do not tile."""
    if stride not in (1, filter_size):
        checks.fail("stride", f"be 1 or the filter size, {filter_size}", f"{stride!r} was given")
    for side in sides:
        if side < filter_size:
            given = f"a side is {side}"
            checks.fail(name, f"have sides of at least the filter size, {filter_size} pixels", given)
        if side % stride:
            checks.fail(name, f"have sides that the stride, {stride}, divides", f"a side is {side}")


def windows(x: Float[Array, "n *sides c"], filter_size: int, stride: int) -> Float[Array, "n *sites w"]:
    """Return every window's values, first pixel first, channels last, of circular images: (n, *sites, F^d · c)."""
    ndim = x.ndim - 2
    if stride == 1:
        for axis in range(ndim, 0, -1):  # the last axis first, so that the first one varies slowest in the result
            shifts = [filter_size // 2 - f for f in range(filter_size)]
            x = jnp.concatenate([jnp.roll(x, shift, axis) for shift in shifts], axis=-1)
        return x
    sites = [side // filter_size for side in x.shape[1:-1]]
    split = x.reshape(len(x), *[n for side in sites for n in (side, filter_size)], x.shape[-1])
    order = (0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1)
    return split.transpose(order).reshape(len(x), *sites, -1)
