"""torchvision's classifiers in PyTorch, from their papers and documentation, with torchvision's names of arrays.

``width`` is a factor on all channel counts and hidden widths. The CIFAR10 forms of VGGs and ResNets have the names of
github.com/kuangliu/pytorch-cifar.
"""

import torch
from torch import nn

torch.set_num_threads(1)

VGGS = {11: "1 1 2 2 2", 13: "2 2 2 2 2", 16: "2 2 3 3 3", 19: "2 2 4 4 4"}
RESNETS = {18: "2 2 2 2", 34: "3 4 6 3", 50: "3 4 6 3"}


class Plain(nn.Module):
    """Convolutions, an adaptive average, linear layers."""

    def __init__(self, features, side, classifier):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = classifier

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def dense(sizes, places):
    """Linear layers with ReLUs between them and dropouts before or after, at these places of a sequence."""
    parts = [nn.Identity() for _ in range(places[-1] + 1)]  # dropout does nothing at evaluation
    for place, before, after in zip(places, sizes, sizes[1:], strict=False):
        parts[place] = nn.Linear(before, after)
        if place != places[-1]:
            parts[place + 1] = nn.ReLU()
    return nn.Sequential(*parts)


def alexnet(width=1, classes=1000):
    a, b, c, d, hidden = (round(size * width) for size in (64, 192, 384, 256, 4096))
    features = [
        *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    return Plain(features, 6, dense([d * 36, hidden, hidden, classes], (1, 4, 6)))


def vgg(depth, batch_norm, width=1, classes=1000, *, cifar=False):
    features, before = [], 3
    for channels, count in zip((64, 128, 256, 512, 512), map(int, VGGS[depth].split()), strict=True):
        for _ in range(count):
            after = round(channels * width)
            norm = [nn.BatchNorm2d(after)] if batch_norm else []
            features += [nn.Conv2d(before, after, 3, padding=1), *norm, nn.ReLU()]
            before = after
        features.append(nn.MaxPool2d(2, 2))
    if cifar:
        return Plain(features, 1, nn.Linear(before, classes))
    hidden = round(4096 * width)
    return Plain(features, 7, dense([before * 49, hidden, hidden, classes], (0, 3, 6)))


class Block(nn.Module):
    """A residual block of two 3 × 3 convolutions, or a bottleneck with its stride in the 3 × 3 convolution."""

    def __init__(self, before, channels, stride, bottleneck, shortcut):
        super().__init__()
        after = 4 * channels if bottleneck else channels
        sizes = (
            [(channels, 1, 1), (channels, 3, stride), (after, 1, 1)]
            if bottleneck
            else [(channels, 3, stride), (channels, 3, 1)]
        )
        inner = before
        for number, (features, size, step) in enumerate(sizes, 1):
            setattr(self, f"conv{number}", nn.Conv2d(inner, features, size, step, size // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(features))
            inner = features
        self.number, self.shortcut_name = len(sizes), shortcut
        if stride != 1 or before != after:
            setattr(
                self, shortcut, nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            )

    def forward(self, x):
        y = x
        for number in range(1, self.number + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = torch.relu(y) if number < self.number else y
        return torch.relu(y + getattr(self, self.shortcut_name, nn.Identity())(x))


class ResNet(nn.Module):
    """A stem, four stages of blocks, the average over pixels, a linear layer."""

    def __init__(self, depth, width=1, classes=1000, *, cifar=False):
        super().__init__()
        before, bottleneck, self.cifar = round(64 * width), depth >= 50, cifar
        self.conv1 = nn.Conv2d(3, before, *((3, 1, 1) if cifar else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        for stage, count in enumerate(map(int, RESNETS[depth].split()), 1):
            blocks, channels = [], round(32 * 2**stage * width)
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                blocks.append(Block(before, channels, stride, bottleneck, "shortcut" if cifar else "downsample"))
                before = 4 * channels if bottleneck else channels
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        setattr(self, "linear" if cifar else "fc", nn.Linear(before, classes))

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x if self.cifar else nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
        return self.linear(x) if self.cifar else self.fc(x)


def network(name, width=1, classes=1000, seed=0):
    """The named architecture, evaluating, with weights and statistics none of which is at its initial value."""
    cifar = not name.endswith("_imagenet")
    kind, _, norm = name.removesuffix("_imagenet").partition("_")
    if kind == "alexnet":
        net = alexnet(width, classes)
    elif kind.startswith("vgg"):
        net = vgg(int(kind[3:]), norm == "bn", width, classes, cifar=cifar)
    else:
        net = ResNet(int(kind[6:]), width, classes, cifar=cifar)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if value.ndim > 1:
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
            elif key.endswith(("running_var", "weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, 0.2, generator=generator)
    return net.eval()


def logits(net, images):
    """Of images (n, h, w, c)."""
    with torch.no_grad():
        return net(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()).numpy()
