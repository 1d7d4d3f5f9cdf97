"""Every architecture by its name: SI's zoo in its forms for CIFAR10 and ImageNet, and LS's block VGGs."""

from typing import Any

from flax import linen as nn

from deform_jax import checks
from deform_jax.models.alexnet import AlexNet
from deform_jax.models.block_vgg import CIFAR10_BLOCKS, IMAGENET_BLOCKS, TINY_BLOCKS, BlockVGG
from deform_jax.models.efficientnet import EfficientNetB0
from deform_jax.models.fully_connected import FullyConnected
from deform_jax.models.lenet import LeNet
from deform_jax.models.resnet import BLOCKS, ResNet
from deform_jax.models.simple_cnn import SimpleCNN
from deform_jax.models.vgg import CONVOLUTIONS, VGG

_VGGS = {f"vgg{depth}{bn}": {"depth": depth, "batch_norm": bn != ""} for depth in CONVOLUTIONS for bn in ("", "_bn")}
_RESNETS = {f"resnet{depth}": {"depth": depth} for depth in BLOCKS}
_IMAGENET: dict[str, Any] = {"form": "imagenet", "num_classes": 1000}

_CIFAR10_FORMS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "fc_l2": (FullyConnected, {"layers": 2}),
    "fc_l4": (FullyConnected, {"layers": 4}),
    "fc_l6": (FullyConnected, {"layers": 6}),
    "lenet": (LeNet, {}),
    "alexnet": (AlexNet, {}),
    **{name: (VGG, settings) for name, settings in _VGGS.items()},
    **{name: (ResNet, settings) for name, settings in _RESNETS.items()},
    "efficientnet_b0": (EfficientNetB0, {}),
}
_IMAGENET_FORMS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "alexnet_imagenet": (AlexNet, _IMAGENET),
    **{f"{name}_imagenet": (VGG, {**settings, **_IMAGENET}) for name, settings in _VGGS.items()},
    **{f"{name}_imagenet": (ResNet, {**settings, **_IMAGENET}) for name, settings in _RESNETS.items()},
}
_BLOCK_VGGS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "block_vgg_cifar10": (BlockVGG, {"blocks": CIFAR10_BLOCKS}),
    "block_vgg_tiny": (BlockVGG, {"blocks": TINY_BLOCKS}),
    "block_vgg_imagenet": (BlockVGG, {"blocks": IMAGENET_BLOCKS, "num_classes": 1000}),
}
_SIMPLE_CNNS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "simple_cnn_stride1": (SimpleCNN, {"layers": 12, "filter_size": 3, "stride": 1}),
    "simple_cnn_stride2": (SimpleCNN, {"layers": 7, "filter_size": 2, "stride": 2}),
}

ZOO = tuple(_CIFAR10_FORMS)
"""Names of SI's architectures in their forms for CIFAR10 (32 × 32 pixels, 10 classes), simplest first."""
IMAGENET_ZOO = tuple(_IMAGENET_FORMS)
"""Names of those in torchvision's forms for ImageNet (1000 classes), which its trained weights fit."""


def create(name: str, **settings: Any) -> Any:
    """Return the named architecture, a Flax module; ``settings`` override any of its fields.

    Args:
      name: one of ``models.ZOO``, such as ``"vgg11_bn"`` (SI's forms for CIFAR10); one of ``models.IMAGENET_ZOO``, such
        as ``"vgg11_bn_imagenet"`` (torchvision's forms); ``"block_vgg_cifar10"`` (2x32, 2x64, 2x128, 2x256; 10
        classes) or ``"block_vgg_imagenet"`` (2x64, 2x128, 3x256, 3x512, 3x512; 1000 classes), both LS section 2.2;
        ``"block_vgg_tiny"`` (1x32, 1x64; ours, to try things out);
        ``"simple_cnn_stride1"`` (12 layers, F = 3) or ``"simple_cnn_stride2"`` (7 layers, F = 2), SI section 4.
      **settings: fields of its class, such as ``num_classes`` and ``width``.

    Raises:
      ValueError: unknown name or field.
    """
    known = {**_CIFAR10_FORMS, **_IMAGENET_FORMS, **_SIMPLE_CNNS, **_BLOCK_VGGS}
    architecture, defaults = known[checks.option("name", name, known)]
    fields = [field for field in architecture.__dataclass_fields__ if field not in ("parent", "name")]
    for setting in settings:
        checks.option("settings", setting, fields)
    return architecture(**{**defaults, **settings})
