"""What the networks of the zoo share: their fields, the checks, and layers as PyTorch builds and initialises them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deform_jax import checks
from deform_jax.models.initializers import normal_fan_out, uniform_bias, uniform_fan_in

FORMS = ("cifar10", "imagenet")


class ZooNetwork(nn.Module):
    """Base of SI's networks: ``model.apply(variables, images, train=False) -> (logits (n, num_classes), taps)``.

    ``taps`` is an ``OrderedDict`` of activations in depth order: ``input``, then each layer, by its name, after its
    batch norm and ReLU and before any pooling. Layer names sort in depth order; the batch norm of ``conv01`` is
    ``conv01_norm``.

    Attributes:
      num_classes: number of logits.
      width: factor on every channel count and every hidden dense layer (rounded, at least 1).
      axis_name: mapped axis over which batch-norm statistics are averaged while training, or None.
      momentum: of the running averages of batch norm; 0.9 is PyTorch's 0.1. Variances are averaged as the batch has
        them, not times n/(n − 1).
      precision: of every convolution and product, ``None`` for the platform's default.
      initial_gain: factor on the initial kernels of hidden layers where those are PyTorch's default, uniform in
        ±1/√n_in; √6 makes them He's, with which deep networks without batch norm begin to learn at once. Ours, for
        short runs.
      compute_dtype: ``"float32"``, or ``"bfloat16"`` for all layers but the last; parameters, batch norm's statistics
        and the logits stay in float32. ``models.represent`` probes in float32, whatever stands here.

    Raises:
      ValueError, TypeError: when initialised or applied, fields out of their bounds, or a batch that is not
        ``(n, h, w, c)`` floats of the size that the network needs.
    """

    num_classes: int = 10
    width: float = 1.0
    axis_name: str | None = None
    momentum: float = 0.9
    precision: str | None = None
    initial_gain: float = 1.0
    compute_dtype: str = "float32"

    def _conv(
        self,
        x: jax.Array,
        features: int,
        size: int = 3,
        *,
        name: str,
        stride: int = 1,
        padding: int | None = None,
        use_bias: bool = True,
        normal: bool = False,
    ) -> jax.Array:
        """Convolve with size × size kernels, padded by size // 2 unless told; ``normal``: torchvision's initialiser."""
        checks.entries("width", size, size, x.shape[-1], features)
        fan_in = size**2 * x.shape[-1]
        # The same on every side: "SAME" would pad a stride-2 convolution at the bottom and right only.
        padding = size // 2 if padding is None else padding
        return nn.Conv(
            features,
            (size, size),
            strides=stride,
            padding=padding,
            use_bias=use_bias,
            kernel_init=normal_fan_out if normal else functools.partial(gained, self.initial_gain),
            bias_init=nn.initializers.zeros_init() if normal else uniform_bias(fan_in),
            precision=self.precision,
            dtype=self._dtype,
            name=name,
        )(x)

    def _dense(
        self, x: jax.Array, features: int, *, name: str, normal: bool = False, float32: bool = False
    ) -> jax.Array:
        """Apply a linear layer; ``normal``: kernel N(0, 0.01²) and no bias at first, as in torchvision's VGGs."""
        checks.entries("num_classes" if name == "head" else "width", x.shape[-1], features)
        gain = 1.0 if name == "head" else self.initial_gain
        return nn.Dense(
            features,
            kernel_init=nn.initializers.normal(0.01) if normal else functools.partial(gained, gain),
            bias_init=nn.initializers.zeros_init() if normal else uniform_bias(x.shape[-1]),
            precision=self.precision,
            dtype=None if float32 else self._dtype,
            name=name,
        )(x)

    def _head(self, x: jax.Array, *, normal: bool = False) -> jax.Array:
        """Return the logits of ``(n, features)``, in float32."""
        return self._dense(x, self.num_classes, name="head", normal=normal, float32=True)

    def _norm(self, x: jax.Array, layer: str, train: bool) -> jax.Array:
        """Apply the batch norm of that layer."""
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self._dtype,
            name=f"{layer}_norm",
        )(x)

    def _scaled(self, count: int) -> int:
        """Return a channel count or a hidden width times ``width``."""
        return max(1, round(count * self.width))

    @property
    def _dtype(self) -> Any:
        return jnp.bfloat16 if self.compute_dtype == "bfloat16" else None  # None: that of images and parameters

    def _check(self, images: Any, smallest: int = 1) -> jax.Array:
        """Return the images after checking them and the fields, with ``form`` and ``dropout`` where there are any."""
        checks.integer("num_classes", self.num_classes, minimum=1, maximum=checks.LONGEST)
        check_common(self)
        checks.number("width", self.width, minimum=0, exclusive=True)
        checks.number("initial_gain", self.initial_gain, minimum=0, exclusive=True)
        checks.option("compute_dtype", self.compute_dtype, ("float32", "bfloat16"))
        checks.option("form", getattr(self, "form", "cifar10"), FORMS)
        checks.flag("batch_norm", getattr(self, "batch_norm", False))
        checks.number("dropout", getattr(self, "dropout", 0.0), minimum=0, maximum=1)
        images = checks.array("images", images, "...")
        images = checks.array("images", images, "n h w c", remedy="Add a leading axis for a single image.")
        if min(images.shape[1:3]) < smallest:
            checks.fail(
                "images",
                f"be at least {smallest} × {smallest} pixels for this network",
                f"they are {images.shape[1]} × {images.shape[2]}",
                f"Pad the stored images with `data.pad_images(images, {smallest})`, or use larger ones.",
            )
        return images


def check_common(model: Any) -> None:
    """Refuse fields that every network has, and flax or jax would be the first to look at."""
    checks.number("momentum", model.momentum, minimum=0, maximum=1)
    checks.precision("precision", model.precision)
    if model.axis_name is not None and not isinstance(model.axis_name, str):
        checks.fail("axis_name", "be a string or None", f"{model.axis_name!r} was given", error=TypeError)


def gained(gain: float, key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draw ``uniform_fan_in``'s kernels times a gain; 1 leaves its numbers as they are."""
    kernel = uniform_fan_in(key, shape, dtype)
    factor = float(gain)  # so that an array is compared here, rather than in what jax traces
    return kernel if factor == 1 else factor * kernel
