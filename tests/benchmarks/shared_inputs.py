"""The inputs that all contenders of a work share, drawn by numpy from fixed seeds."""

import numpy as np

SEED = 2018


def images(count, size, channels=3, *, seed=SEED):
    """(count, size, size, channels) float32 in [0, 1]: sums of waves, so that neighbouring pixels are alike."""
    rng = np.random.default_rng(seed)
    grid = np.arange(size) / size
    result = np.empty((count, size, size, channels), np.float32)
    for index in np.ndindex(count, channels):
        frequency, phase = rng.uniform(1, 8, (4, 2)), rng.uniform(0, 2 * np.pi, (4, 2))
        waves = np.cos(2 * np.pi * frequency[..., None] * grid + phase[..., None])
        result[index[0], ..., index[1]] = 0.5 + (waves[:, 0, :, None] * waves[:, 1, None, :]).mean(0) / 2
    return result


def shifts(count, grid, bound):
    """(count, grid, grid, 2) control-point shifts in pixels."""
    return np.random.default_rng(SEED + 1).uniform(-bound, bound, (count, grid, grid, 2)).astype(np.float32)


def coefficients(count, cutoff):
    """(count, 2, cutoff, cutoff) standard normals."""
    return np.random.default_rng(SEED + 2).standard_normal((count, 2, cutoff, cutoff)).astype(np.float32)


def labels(count, classes):
    """(count,) integers."""
    return np.random.default_rng(SEED + 3).integers(classes, size=count).astype(np.int32)


def perturbed(clean):
    """The images with a tenth of other images mixed in."""
    return (0.9 * clean + 0.1 * images(*clean.shape[:2], clean.shape[-1], seed=SEED + 4)).astype(np.float32)


def kernels(shapes):
    """{name: float32 array}: weights of He's variance for each shape (…, c_in, c_out), drawn in the order given."""
    rng = np.random.default_rng(SEED + 5)
    return {
        name: (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)
        for name, shape in shapes.items()
    }


def vgg_kernels(blocks, channels, classes, downsampling):
    """Kernels of the block VGG, by the names of ``deform_jax.models.BlockVGG``'s layers."""
    shapes, before = {}, channels
    for b, (layers, features) in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            shapes[f"block{b}_conv{layer}"] = (3, 3, before, features)
            before = features
        if downsampling == "strided":
            shapes[f"block{b}_down"] = (2, 2, features, features)
    return kernels(shapes | {"head": (before, classes)})


def simple_cnn(layers, width, filter_size):
    """Standard normal kernels, biases and readout of SI's simple CNN, by the names of its layers."""
    rng = np.random.default_rng(SEED + 6)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    params = {}
    for layer in range(1, layers + 1):
        entering = 1 if layer == 1 else width
        params[f"conv{layer:02d}"] = {"kernel": draw(filter_size, entering, width), "bias": draw(width)}
    return params | {"head": {"readout": draw(width, 1), "bias": draw(1)}}


def pixels(count, length):
    """(count, length, 1) inputs of two active pixels, and (count,) labels 0 or 1."""
    rng = np.random.default_rng(SEED + 7)
    x = np.zeros((count, length, 1), np.float32)
    for row in x:
        row[rng.choice(length, 2, replace=False)] = np.sqrt(length / 2)
    return x, rng.integers(2, size=count).astype(np.int32)


def convolutions(count, size, blocks):
    """For each 3 × 3 layer of a block VGG: input (n, h, w, c), kernel (3, 3, c, f), gradient of the output."""
    rng = np.random.default_rng(SEED + 8)
    layers, before = [], 3
    for layers_of_block, features in blocks:
        for _ in range(layers_of_block):
            shapes = (count, size, size, before), (3, 3, before, features), (count, size, size, features)
            layers.append([rng.standard_normal(shape).astype(np.float32) for shape in shapes])
            before = features
        size //= 2
    return layers
