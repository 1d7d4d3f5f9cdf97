"""ResNets and EfficientNet-B0 in PyTorch, from their published descriptions, in float64.

Submodules bear the names of Flax's layers up to the separator, so that weights need only be transposed.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional

torch.set_num_threads(1)


class ResNet(nn.Module):
    """He et al. 2016, table 1; 18 and 34 of basic blocks, 50 of bottlenecks with the stride in the 3 × 3."""

    def __init__(self, depth, width, classes, *, imagenet):
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        channels = round(64 * width)
        self.block00 = Stem(channels, nn.ReLU(), size=7 if imagenet else 3, stride=2 if imagenet else 1)
        self.blocks = []
        for stage, count in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)):
            for position in range(count):
                inner = round(64 * 2**stage * width)
                block = (Bottleneck if depth == 50 else Basic)(channels, inner, 2 if stage and not position else 1)
                channels = block.channels
                self.blocks.append(f"block{len(self.blocks) + 1:02d}")
                self.add_module(self.blocks[-1], block)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.pool(self.block00(x))
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Stem(nn.Module):
    def __init__(self, channels, activation, *, size, stride):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, size, stride, padding=(size - 1) // 2, bias=False)
        self.conv_norm = nn.BatchNorm2d(channels)
        self.activation = activation

    def forward(self, x):
        return self.activation(self.conv_norm(self.conv(x)))


class Basic(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.channels = channels
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.conv1_norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.conv2_norm = nn.BatchNorm2d(channels)
        self.project = stride != 1 or before != channels
        if self.project:
            self.shortcut = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = functional.relu(self.conv1_norm(self.conv1(x)))
        y = self.conv2_norm(self.conv2(y))
        return functional.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.project else x))


class Bottleneck(nn.Module):
    def __init__(self, before, inner, stride):
        super().__init__()
        self.channels = 4 * inner
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.conv1_norm = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.conv2_norm = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, self.channels, 1, bias=False)
        self.conv3_norm = nn.BatchNorm2d(self.channels)
        self.project = stride != 1 or before != self.channels
        if self.project:
            self.shortcut = nn.Conv2d(before, self.channels, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(self.channels)

    def forward(self, x):
        y = functional.relu(self.conv1_norm(self.conv1(x)))
        y = functional.relu(self.conv2_norm(self.conv2(y)))
        y = self.conv3_norm(self.conv3(y))
        return functional.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.project else x))


class EfficientNetB0(nn.Module):
    """Tan and Le 2019, table 1, without the convolution to 1280; strides of the stem and stages as for CIFAR10.

    ``keep`` here and in blocks multiplies what training may drop.
    """

    # MBConv1 or 6, kernel size, channels, layers, stride: rows 2 to 8 of the table.
    ROWS = (
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    )
    keep = 1

    def __init__(self, width, classes, rows=ROWS):
        super().__init__()
        channels = round(32 * width)
        self.block00 = Stem(channels, nn.SiLU(), size=3, stride=1)
        self.blocks = []
        for expansion, size, features, layers, stride in rows:
            for layer in range(layers):
                block = MBConv(channels, round(features * width), expansion, size, 1 if layer else stride)
                channels = round(features * width)
                self.blocks.append(f"block{len(self.blocks) + 1:02d}")
                self.add_module(self.blocks[-1], block)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.block00(x)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        return self.head(self.keep * x.mean((2, 3)))


class MBConv(nn.Module):
    keep = 1

    def __init__(self, before, after, expansion, size, stride):
        super().__init__()
        inner, squeezed = before * expansion, max(1, int(before * 0.25))
        self.expanded, self.residual = expansion != 1, stride == 1 and before == after
        if self.expanded:
            self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
            self.conv1_norm = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, size, stride, padding=size // 2, groups=inner, bias=False)
        self.conv2_norm = nn.BatchNorm2d(inner)
        self.conv2_gate1 = nn.Linear(inner, squeezed)
        self.conv2_gate2 = nn.Linear(squeezed, inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.conv3_norm = nn.BatchNorm2d(after)

    def forward(self, x):
        y = functional.silu(self.conv1_norm(self.conv1(x))) if self.expanded else x
        y = functional.silu(self.conv2_norm(self.conv2(y)))
        gates = self.conv2_gate2(functional.silu(self.conv2_gate1(functional.adaptive_avg_pool2d(y, 1).flatten(1))))
        y = self.conv3_norm(self.conv3(y * torch.sigmoid(gates)[:, :, None, None]))
        return x + self.keep * y if self.residual else y


def scattered(network, seed=0):
    """The network in float64, scales, biases and statistics of its norms away from where they begin."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            torch.nn.init.normal_(module.weight, 0, fan_in**-0.5, generator)
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
            ):
                torch.nn.init.uniform_(tensor, low, high, generator)
    return network.eval()


def collections(tensors):
    """{"params", "batch_stats"} as Flax holds them, of a state dict or other tensors by the same names."""
    found = {"params": {}, "batch_stats": {}}
    for name, tensor in tensors.items():
        *path, kind = name.split(".")
        layer = "_".join(path)
        kind = {"running_mean": "mean", "running_var": "var", "bias": "bias"}.get(kind, kind)
        if kind == "weight":
            kind = "scale" if tensor.ndim == 1 else "kernel"
        if tensor.ndim > 1:  # (out, in, h, w) → (h, w, in, out); (out, in) → (in, out)
            tensor = tensor.movedim((1, 0), (-2, -1))
        if kind != "num_batches_tracked":
            collection = found["batch_stats" if kind in ("mean", "var") else "params"]
            collection.setdefault(layer, {})[kind] = tensor.detach().float().numpy()
    return found


def forward(network, images):
    """Logits, and {name: output (n, h, w, c)} of the stem and every block, with their graphs."""
    taps, hooks = OrderedDict(), []
    for name in ("block00", *network.blocks):
        hook = network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: taps.update({name: output.permute(0, 2, 3, 1)})
        )
        hooks.append(hook)
    logits = network(torch.tensor(np.asarray(images, np.float64)).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return logits, taps
