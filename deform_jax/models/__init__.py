"""Flax Linen modules, image → (logits, ordered taps), and the callables that probes take."""

from deform_jax.models.alexnet import AlexNet
from deform_jax.models.block_vgg import CIFAR10_BLOCKS, IMAGENET_BLOCKS, BlockVGG
from deform_jax.models.capture import capture
from deform_jax.models.convert import CONVERTIBLE, from_torch, to_torch
from deform_jax.models.downsampling import (
    DOWNSAMPLINGS,
    PatchConv,
    adaptive_average_pool,
    average_pool,
    max_pool,
    subsample,
)
from deform_jax.models.efficientnet import EfficientNetB0
from deform_jax.models.fully_connected import FullyConnected, NTKDense
from deform_jax.models.initializers import normal_fan_out, truncated_normal_fan_in, uniform_bias, uniform_fan_in
from deform_jax.models.lenet import LeNet
from deform_jax.models.pretrained import PRETRAINED, load_pretrained
from deform_jax.models.representation import represent, with_batch_statistics
from deform_jax.models.resnet import ResNet
from deform_jax.models.simple_cnn import NTKConv, SimpleCNN
from deform_jax.models.vgg import VGG
from deform_jax.models.weight_files import read_weights
from deform_jax.models.zoo import IMAGENET_ZOO, ZOO, create

__all__ = [
    "CIFAR10_BLOCKS",
    "CONVERTIBLE",
    "DOWNSAMPLINGS",
    "IMAGENET_BLOCKS",
    "IMAGENET_ZOO",
    "PRETRAINED",
    "VGG",
    "ZOO",
    "AlexNet",
    "BlockVGG",
    "EfficientNetB0",
    "FullyConnected",
    "LeNet",
    "NTKConv",
    "NTKDense",
    "PatchConv",
    "ResNet",
    "SimpleCNN",
    "adaptive_average_pool",
    "average_pool",
    "capture",
    "create",
    "from_torch",
    "load_pretrained",
    "max_pool",
    "normal_fan_out",
    "read_weights",
    "represent",
    "subsample",
    "to_torch",
    "truncated_normal_fan_in",
    "uniform_bias",
    "uniform_fan_in",
    "with_batch_statistics",
]
