"""Flax Linen modules, image → (logits, ordered taps), and the callables that probes take."""

from deform_jax.models.downsampling import DOWNSAMPLINGS, PatchConv, average_pool, max_pool, subsample
from deform_jax.models.initializers import truncated_normal_fan_in
from deform_jax.models.representation import represent, with_batch_statistics
from deform_jax.models.vgg import CIFAR10_BLOCKS, IMAGENET_BLOCKS, BlockVGG, create

__all__ = [
    "CIFAR10_BLOCKS",
    "DOWNSAMPLINGS",
    "IMAGENET_BLOCKS",
    "BlockVGG",
    "PatchConv",
    "average_pool",
    "create",
    "max_pool",
    "represent",
    "subsample",
    "truncated_normal_fan_in",
    "with_batch_statistics",
]
