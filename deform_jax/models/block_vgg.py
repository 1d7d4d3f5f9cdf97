"""The block VGG of LS section 2.2, with any of its five downsamplings."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deform_jax import checks
from deform_jax.models import downsampling as down
from deform_jax.models._layers import check_common
from deform_jax.models.initializers import truncated_normal_fan_in
from deform_jax.typing import Images, Taps

CIFAR10_BLOCKS = ((2, 32), (2, 64), (2, 128), (2, 256))
"""(layers, channels) of each block of LS's network for CIFAR10 (LS 2.2)."""
IMAGENET_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""(layers, channels) of each block of LS's network for ImageNet (LS 2.2)."""
TINY_BLOCKS = ((1, 32), (1, 64))
"""Ours, one layer in each of the CIFAR10 form's first two blocks: to try things out."""


class BlockVGG(nn.Module):
    """Blocks of 3 × 3 conv–batch norm–ReLU, each followed by a halving; global average pooling; one linear layer.

    LS section 2.2. ``model.apply(variables, images, train=False) -> (logits (n, num_classes), taps)``, where
    ``taps`` is an ``OrderedDict`` of ``(n, h, w, c)`` activations: ``input``, each conv layer after its ReLU, and each
    downsampling's output, in depth order (13 for the CIFAR10 form, 19 for the ImageNet form, input included).

    Our readings, where the paper is silent: convolutions that feed a batch norm have no bias of their own (the norm
    would remove it); batch norm has epsilon 1e-5 and a running-average momentum of 0.9; convolutions are padded to
    keep the size.

    Attributes:
      blocks: (layers, channels) of each block. Default: the CIFAR10 form, 2x32, 2x64, 2x128, 2x256.
      downsampling: ``"subsample"``, ``"max"``, ``"average"``, ``"strided"`` (2 × 2 stride-2 convolution with bias) or
        ``"strided_relu"`` (the same without bias, then batch norm and ReLU).
      num_classes: number of logits.
      width: factor on every channel count (rounded, at least 1).
      axis_name: mapped axis over which batch-norm statistics are averaged while training, or None.
      momentum: of the running averages of batch norm.
      precision: of every convolution and product, ``None`` for the platform's default.
      compute_dtype: ``"float32"``, or ``"bfloat16"`` for convolutions, pooling and activations; parameters, batch
        norm's statistics, the global average and the logits stay in float32. For training on accelerators:
        ``models.represent`` probes in float32, whatever stands here.

    Raises:
      ValueError, TypeError: when initialised or applied, unknown downsampling, impossible blocks, a batch that is not
        ``(n, h, w, c)`` floats, or images that a halving would reduce to nothing.
    """

    blocks: tuple[tuple[int, int], ...] = CIFAR10_BLOCKS
    downsampling: str = "max"
    num_classes: int = 10
    width: float = 1.0
    axis_name: str | None = None
    momentum: float = 0.9
    precision: str | None = None
    compute_dtype: str = "float32"

    def __post_init__(self) -> None:
        blocks: Any = self.blocks
        if isinstance(blocks, list | tuple):
            # Lists, as JSON holds them, would make the module unhashable, and so no static argument of `jit`.
            self.blocks = tuple(tuple(block) if isinstance(block, list) else block for block in blocks)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[jax.Array, Taps]:
        """Return logits and taps of a batch of images ``(n, h, w, c)``."""
        images = self._check(images)
        taps: Taps = OrderedDict(input=images)
        x = images
        for b, (layers, channels) in enumerate(self.blocks, 1):
            features = max(1, round(channels * self.width))
            checks.entries("width", 3, 3, x.shape[-1], features)
            for layer in range(1, layers + 1):
                name = f"{self._block_name(b)}_conv{layer}"
                x = nn.Conv(
                    features,
                    (3, 3),
                    use_bias=False,
                    kernel_init=truncated_normal_fan_in,
                    precision=self.precision,
                    dtype=self._dtype,
                    name=name,
                )(x)
                x = taps[name] = nn.relu(self._norm(name, train)(x))
            name = f"{self._block_name(b)}_down"
            x = taps[name] = self._halve(x, name, train)
        pooled = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
        checks.entries("num_classes", x.shape[-1], self.num_classes)
        head = nn.Dense(self.num_classes, kernel_init=truncated_normal_fan_in, precision=self.precision, name="head")
        return head(pooled), taps

    def _halve(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        if self.downsampling == "subsample":
            return down.subsample(x)
        if self.downsampling == "max":
            return down.max_pool(x)
        if self.downsampling == "average":
            return down.average_pool(x)
        with_relu = self.downsampling == "strided_relu"
        patches = down.PatchConv(
            x.shape[-1], use_bias=not with_relu, precision=self.precision, dtype=self._dtype, name=name
        )
        x = patches(x)
        return nn.relu(self._norm(name, train)(x)) if with_relu else x

    def _norm(self, layer: str, train: bool) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self._dtype,
            name=f"{layer}_norm",
        )

    @property
    def _dtype(self) -> Any:
        return jnp.bfloat16 if self.compute_dtype == "bfloat16" else None  # None: that of images and parameters

    def _block_name(self, block: int) -> str:
        return f"block{block}" if len(self.blocks) < 10 else f"block{block:02d}"

    def _check(self, images: Any) -> jax.Array:
        checks.option("downsampling", self.downsampling, down.DOWNSAMPLINGS)
        checks.integer("num_classes", self.num_classes, minimum=1, maximum=checks.LONGEST)
        check_common(self)
        checks.number("width", self.width, minimum=0, exclusive=True)
        checks.option("compute_dtype", self.compute_dtype, ("float32", "bfloat16"))
        if not isinstance(self.blocks, tuple) or not self.blocks:
            checks.fail("blocks", "be a tuple of at least one (layers, channels) pair", f"{self.blocks!r} was given")
        for block in self.blocks:
            checks.size_pair("blocks", block, meaning="(layers, channels) in each block")
            # Single digits keep the sorted order of layer names their depth order.
            checks.integer("layers of a block", block[0], maximum=9)
        images = checks.array("images", images, "...")
        images = checks.array("images", images, "n h w c", remedy="Add a leading axis for a single image.")
        smallest = 2 ** len(self.blocks)
        if min(images.shape[1:3]) < smallest:
            checks.fail(
                "images",
                f"be at least {smallest} × {smallest} pixels for {len(self.blocks)} halvings",
                f"they are {images.shape[1]} × {images.shape[2]}",
                "Use larger images or fewer blocks.",
            )
        return images
