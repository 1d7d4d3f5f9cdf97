"""The zoo once more, in PyTorch: layers in a row, as the papers and torchvision's documentation describe them."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)

# Channels of a convolution, "M": max-pooling by 2.
VGGS = {
    11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    16: [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    19: [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
}


def fully_connected(layers, inputs, width, classes):
    hidden = [part for before in [inputs, *[width] * (layers - 2)] for part in (nn.Linear(before, width), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, classes, bias=False))


def lenet(width, classes):
    a, b, c, d = (round(size * width) for size in (6, 16, 120, 84))
    convolutions = [nn.Conv2d(3, a, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Linear(b * 5 * 5, c), nn.ReLU(), nn.Linear(c, d), nn.ReLU(), nn.Linear(d, classes)]
    return nn.Sequential(*convolutions, nn.Flatten(), *dense)


def alexnet(width, classes, *, imagenet):
    a, b, c, d, e, hidden = (round(size * width) for size in (64, 192, 384, 256, 256, 4096))
    pool = nn.MaxPool2d(3, 2) if imagenet else nn.MaxPool2d(2)
    first = nn.Conv2d(3, a, 11, stride=4, padding=2) if imagenet else nn.Conv2d(3, a, 3, stride=2, padding=1)
    second = nn.Conv2d(a, b, 5, padding=2) if imagenet else nn.Conv2d(a, b, 3, padding=1)
    third, fourth, fifth = (nn.Conv2d(*pair, 3, padding=1) for pair in ((b, c), (c, d), (d, e)))
    features = [first, nn.ReLU(), pool, second, nn.ReLU(), pool, third, nn.ReLU(), fourth, nn.ReLU(), fifth, nn.ReLU()]
    side = 6 if imagenet else 2
    average = [nn.AdaptiveAvgPool2d(side)] if imagenet else []
    dense = [
        nn.Dropout(),
        nn.Linear(e * side**2, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    ]
    return nn.Sequential(*features, pool, *average, nn.Flatten(), *dense, nn.Linear(hidden, classes))


def vgg(depth, width, classes, *, batch_norm, imagenet):
    features, before = [], 3
    for channels in VGGS[depth]:
        if channels == "M":
            features.append(nn.MaxPool2d(2))
            continue
        channels = round(channels * width)
        features += [nn.Conv2d(before, channels, 3, padding=1), *[nn.BatchNorm2d(channels)] * batch_norm, nn.ReLU()]
        before = channels
    if not imagenet:
        return nn.Sequential(*features, nn.Flatten(), nn.Linear(before, classes))
    hidden = round(4096 * width)
    dense = [
        nn.Linear(before * 49, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
    ]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *dense, nn.Linear(hidden, classes))


def load(network, variables):
    """Put the module's variables into the PyTorch network, layer by layer in depth order, and return it."""
    params = dict(variables["params"])
    names = [name for name in sorted(params, key=lambda name: (name == "head", name)) if not name.endswith("_norm")]
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    channels = None
    with torch.no_grad():
        for name, layer in zip(names, layers, strict=True):
            kernel = np.asarray(params[name]["kernel"])
            if isinstance(layer, nn.Conv2d):
                weight, channels = kernel.transpose(3, 2, 0, 1), kernel.shape[3]
            else:
                weight, channels = _linear(kernel, channels or 3), kernel.shape[1]
            assert layer.weight.shape == weight.shape, name
            layer.weight.copy_(torch.tensor(weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.tensor(params[name]["bias"]))
        for name, norm in zip([name for name in names if f"{name}_norm" in params], norms, strict=True):
            norm.weight.copy_(torch.tensor(params[f"{name}_norm"]["scale"]))
            norm.bias.copy_(torch.tensor(params[f"{name}_norm"]["bias"]))
            norm.running_mean.copy_(torch.tensor(variables["batch_stats"][f"{name}_norm"]["mean"]))
            norm.running_var.copy_(torch.tensor(variables["batch_stats"][f"{name}_norm"]["var"]))
    return network.eval()


def _linear(kernel, channels):
    """The weights of a linear layer on flattened (h, w, c), for flattened (c, h, w): a square of pixels."""
    side = round((kernel.shape[0] / channels) ** 0.5)
    return kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)


def forward(network, images):
    """Logits and the outputs of all ReLUs in order, from hooks, both as (n, h, w, c) or (n, features) tensors."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(channels_last(output)))
        for layer in network
        if isinstance(layer, nn.ReLU)
    ]
    logits = network(torch.tensor(np.asarray(images)).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return logits, seen


def channels_last(values):
    return values.permute(0, 2, 3, 1) if values.ndim == 4 else values


def gradients(network, weights, images):
    """Of sum(weights · logits) in each convolution and linear layer: {"kernel", "bias"}, in the module's shapes."""
    logits, _ = forward(network, images)
    network.zero_grad()
    (torch.tensor(np.asarray(weights)) * logits).sum().backward()
    result, channels = [], None
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            kernel, channels = layer.weight.grad.permute(2, 3, 1, 0).numpy(), layer.out_channels
        elif isinstance(layer, nn.Linear):
            side = round((layer.in_features / channels) ** 0.5)
            kernel = layer.weight.grad.reshape(-1, channels, side, side).permute(2, 3, 1, 0)
            kernel, channels = kernel.reshape(layer.in_features, -1).numpy(), layer.out_features
        else:
            continue
        result.append(OrderedDict(kernel=kernel, bias=layer.bias.grad.numpy()))
    return result
