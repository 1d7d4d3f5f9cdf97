"""Peers in PyTorch and kornia, as someone who knows them would write them; channels last where that is faster."""

import numpy as np
import shared_inputs as inputs
import torch
from jobs import Job
from torch import nn
from torch.nn import functional

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tps_basis(*, count, size, grid, bound, chunk):
    """Our basis, computed beforehand: one product for the fields of a chunk, then ``grid_sample``."""
    from deform_jax.warps.tps import _basis

    images = _planes(inputs.images(count, size))
    basis = torch.from_numpy(_basis((grid, grid), (size, size)).copy()).to(DEVICE)
    identity = torch.stack(torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 2, indexing="ij"), -1).to(DEVICE)

    @torch.inference_mode()
    def warped(shifts, part):
        field = (shifts.reshape(len(shifts), -1, 2).transpose(1, 2).reshape(-1, grid**2) @ basis).reshape(
            -1, 2, size, size
        )
        at = (identity + field.permute(0, 2, 3, 1)).flip(-1) * (2 / (size - 1)) - 1
        return functional.grid_sample(part, at, padding_mode="border", align_corners=True)

    def run():
        for part in images.split(chunk):
            warped((torch.rand(len(part), grid, grid, 2, device=DEVICE) * 2 - 1) * bound, part)
        _wait()

    def answer():
        parts = torch.from_numpy(inputs.shifts(count, grid, bound)).to(DEVICE).split(chunk)
        done = [warped(shifts, part) for shifts, part in zip(parts, images.split(chunk), strict=True)]
        return _rows(torch.cat(done))

    return Job(run=run, answer=answer, count=count)


def tps_kornia(*, count, size, grid, bound, chunk, part=1):
    """kornia's own spline; it is no exact TPS (r² log r²·… of its own scaling), so that values are not compared."""
    from kornia.geometry import transform

    images = _planes(inputs.images(count, size)[::part])
    line = torch.linspace(-1, 1, grid, device=DEVICE)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, -1, 2)

    @torch.inference_mode()
    def run():
        for some in images.split(chunk):
            source = points.expand(len(some), -1, -1)
            shift = (torch.rand(len(some), grid**2, 2, device=DEVICE) * 2 - 1) * bound * 2 / (size - 1)
            kernel, affine = transform.get_tps_transform(source + shift, source)
            transform.warp_image_tps(some, source, kernel, affine, align_corners=True)
        _wait()

    return Job(run=run, answer=None, count=len(images))


def max_entropy_loop(*, count, size, displacement, cutoff, part=1):
    """The reference's formula (Petrini et al. 2021), one image after another."""
    images = _planes(inputs.images(count, size)[::part])
    mode = torch.arange(1, cutoff + 1, device=DEVICE)
    sines = torch.sin(torch.pi * torch.linspace(0, 1, size, device=DEVICE)[:, None] * mode)
    radius = (mode[:, None] ** 2 + mode**2).sqrt()
    envelope = (radius < cutoff + 0.5) / radius
    # displacement² = (π/4) T n² log(c), their typical displacement
    temperature = 4 * displacement**2 / (np.pi * size**2 * np.log(cutoff))
    rows, columns = torch.meshgrid(*[torch.arange(size, dtype=torch.float32, device=DEVICE)] * 2, indexing="ij")

    @torch.inference_mode()
    def warped(coefficients, image):
        dy, dx = (
            torch.einsum("ij,yi,xj->yx", part * envelope, sines, sines) * (temperature**0.5 * size)
            for part in coefficients
        )
        at = torch.stack([columns - dx, rows - dy], -1)[None] * (2 / (size - 1)) - 1
        return functional.grid_sample(image[None], at, padding_mode="border", align_corners=True)

    def run():
        for image in images:
            warped(torch.randn(2, cutoff, cutoff, device=DEVICE), image)
        _wait()

    def answer():
        drawn = torch.from_numpy(inputs.coefficients(count, cutoff)[::part]).to(DEVICE)
        return _rows(torch.cat([warped(c, image) for c, image in zip(drawn, images, strict=True)]))

    return Job(run=run, answer=answer, count=len(images))


def sensitivity_hooks(*, count, size, blocks, channels_last):
    """Two forward passes with hooks that keep every layer's output, then the distances."""
    network, clean, moved = _for_sensitivity(count, size, blocks, channels_last)
    taps = []
    for layer in network:
        if isinstance(layer, nn.ReLU | nn.MaxPool2d):
            layer.register_forward_hook(lambda module, entered, left: taps.append(left))

    @torch.inference_mode()
    def run():
        held = []
        for images in (clean, moved):
            taps.clear()
            network(images)
            held.append([images, *taps])
        values = [_sensitivity(a, b) for a, b in zip(*held, strict=True)]
        taps.clear()
        _wait()
        return np.asarray([float(value) for value in values])

    return Job(run=run, answer=run, count=2 * count)


def sensitivity_layers(*, count, size, blocks, channels_last):
    """Both batches through one layer after another; only the newest outputs are kept."""
    network, clean, moved = _for_sensitivity(count, size, blocks, channels_last)

    @torch.inference_mode()
    def run():
        a, b = clean, moved
        values = [_sensitivity(a, b)]
        for layer in network:
            a, b = layer(a), layer(b)
            if isinstance(layer, nn.ReLU | nn.MaxPool2d):
                values.append(_sensitivity(a, b))
            if isinstance(layer, nn.AdaptiveAvgPool2d):
                break
        _wait()
        return np.asarray([float(value) for value in values])

    return Job(run=run, answer=run, count=2 * count)


def train_step(*, count, size, blocks, downsampling, channels_last=True, mixed=False, compiled=False):
    """SGD with momentum and weight decay on kernels; gradients are set to None."""
    images = _planes(inputs.images(count, size))
    images = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    labels = torch.from_numpy(inputs.labels(count, 10)).long().to(DEVICE)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def start():
        network = _vgg(blocks, 3, downsampling).to(DEVICE, memory_format=layout).train()
        kernels = [value for value in network.parameters() if value.ndim > 1]
        others = [value for value in network.parameters() if value.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
        return torch.compile(network) if compiled else network, torch.optim.SGD(groups, 0.01, momentum=0.9)

    return _steps(start, images, lambda logits: functional.cross_entropy(logits.float(), labels), count, mixed)


def simple_cnn(*, count, length, layers, width, filter_size):
    """SI's 1-D simple CNN: circular convolutions of standard normal weights over √(c_in F), √F after each ReLU."""
    given = inputs.simple_cnn(layers, width, filter_size)
    images, labels = inputs.pixels(count, length)
    images = torch.from_numpy(images).transpose(1, 2).contiguous().to(DEVICE)
    signs = torch.from_numpy(labels).to(DEVICE) * 2.0 - 1

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            own = lambda array: nn.Parameter(torch.from_numpy(array.copy()))  # noqa: E731
            layers = [given[name] for name in sorted(given) if name != "head"]
            self.kernels = nn.ParameterList([own(layer["kernel"].transpose(2, 1, 0)) for layer in layers])
            self.biases = nn.ParameterList([own(layer["bias"]) for layer in layers])
            self.readout, self.bias = own(given["head"]["readout"]), own(given["head"]["bias"])

        def forward(self, x):
            for kernel, bias in zip(self.kernels, self.biases, strict=True):
                # Scaled is x, as with us: the kernel is larger by far.
                x = x / (kernel.shape[1] * filter_size) ** 0.5
                x = functional.pad(x, (filter_size // 2, filter_size // 2), mode="circular")
                x = functional.conv1d(x, kernel, bias).relu() * filter_size**0.5
            return x.mean(-1) @ (self.readout / width) + self.bias

    def start():
        network = Net().to(DEVICE)
        return network, torch.optim.SGD(network.parameters(), 0.1)

    return _steps(start, images, lambda outputs: functional.relu(1 - signs * outputs[:, 0]).mean(), 1)


def _steps(start, images, loss_of, count, mixed=False):
    held = list(start())

    def run():
        network, optimizer = held
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=mixed):
            outputs = network(images)
        loss = loss_of(outputs)
        loss.backward()
        optimizer.step()
        return loss.item()

    def answer():
        held[:] = start()
        losses = np.asarray([run() for _ in range(3)])
        held[:] = start()
        return losses

    return Job(run=run, answer=answer, count=count)


def _vgg(blocks, channels, downsampling, classes=10):
    """``models.BlockVGG`` layer by layer, with the shared weights; momentum 0.1 is flax's 0.9."""
    weights, before, layers = inputs.vgg_kernels(blocks, channels, classes, downsampling), channels, []

    def conv(name, size, **settings):
        kernel = torch.from_numpy(weights[name].transpose(3, 2, 0, 1).copy())
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], size, **settings)
        layer.weight = nn.Parameter(kernel)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer

    for b, (count, features) in enumerate(blocks, 1):
        for index in range(1, count + 1):
            layers += [conv(f"block{b}_conv{index}", 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU()]
        layers.append(nn.MaxPool2d(2) if downsampling == "max" else conv(f"block{b}_down", 2, stride=2))
        before = features
    head = nn.Linear(before, classes)
    head.weight, head.bias = (
        nn.Parameter(torch.from_numpy(weights["head"].T.copy())),
        nn.Parameter(torch.zeros(classes)),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def _for_sensitivity(count, size, blocks, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = _vgg(blocks, 3, "max").to(DEVICE, memory_format=layout).eval()
    clean = inputs.images(count, size)
    return network, *(_planes(x).contiguous(memory_format=layout) for x in (clean, inputs.perturbed(clean)))


def _sensitivity(clean, moved):
    """Mean cosine distance to the moved images over the median between clean ones; features in the order stored.

    Half the squared distance of unit vectors, image by image, which holds no copies: ``cosine_similarity`` adds up
    millions of features in float32, and what is left when its result is taken from 1 is some per cent off.
    """
    a, b = (x.permute(0, 2, 3, 1).reshape(len(x), -1) for x in (clean, moved))
    norms, others = (torch.linalg.vector_norm(x, dim=1) for x in (a, b))
    pairs = 1 - a @ a.T / norms[:, None] / norms
    above = torch.triu_indices(len(a), len(a), 1)
    values = pairs[above[0], above[1]].sort().values
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    chords = [(x / n - y / m).square().sum() for x, y, n, m in zip(a, b, norms, others, strict=True)]
    return torch.stack(chords).mean() / 2 / middle


def _planes(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(DEVICE)


def _rows(planes):
    return planes.permute(0, 2, 3, 1).cpu().numpy()


def _wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def convolutions(*, count, size, blocks, what, channels_last):
    """One kind of the training step's convolutions, alone."""
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def given(x, kernel, back):
        kernel = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).to(DEVICE, memory_format=layout)
        return *(_planes(a).contiguous(memory_format=layout) for a in (x, back)), kernel

    layers = [given(*layer) for layer in inputs.convolutions(count, size, blocks)]
    wanted = {"input gradient": 0, "weight gradient": 1}

    @torch.inference_mode()
    def run():
        results = []
        for x, back, kernel in layers:
            if what == "forward":
                results.append(functional.conv2d(x, kernel, padding=1))
                continue
            mask = [what == "input gradient", what == "weight gradient", False]
            both = torch.ops.aten.convolution_backward(
                back, x, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
            )
            results.append(both[wanted[what]])
        _wait()
        return results

    def answer():
        order = (2, 3, 1, 0) if what == "weight gradient" else (0, 2, 3, 1)
        return np.concatenate([result.permute(*order).cpu().numpy().ravel() for result in run()])

    return Job(run=run, answer=answer, count=count)
