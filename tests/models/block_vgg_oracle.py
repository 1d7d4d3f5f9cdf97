"""The block VGG once more, in float64 numpy: explicit shifts, batch normalisation and pooling, no jax."""

from collections import OrderedDict

import jax
import numpy as np


def scattered(model, images, *, seed=3):
    """Variables of the module's shapes, none at its initial value: zeros and ones would hide mistakes.

    Drawn by numpy, since jax takes seconds to compile the initial weights.
    """
    rng = np.random.default_rng(seed)
    bounds = {"scale": (0.5, 1.5), "var": (0.5, 2), "bias": (-0.5, 0.5), "mean": (-0.5, 0.5)}

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        return rng.uniform(*bounds[kind], leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), images))


def untrained(variables):
    """The same with the statistics, scales and biases that a network begins with."""
    start = {"scale": 1, "var": 1, "bias": 0, "mean": 0}

    def reset(path, leaf):
        kind = path[-1].key
        return leaf if kind == "kernel" else np.full_like(leaf, start[kind])

    return jax.tree_util.tree_map_with_path(reset, variables)


def parameter_count(blocks, downsampling, channels, classes):
    """3 × 3 kernels and two numbers a channel for each norm; 2 × 2 kernels with a bias, or with a norm; the head."""
    total, before = 0, channels
    for layers, features in blocks:
        total += 9 * before * features + 9 * features**2 * (layers - 1) + 2 * features * layers
        total += {"strided": 4 * features**2 + features, "strided_relu": 4 * features**2 + 2 * features}.get(
            downsampling, 0
        )
        before = features
    return total + before * classes + classes


def forward(variables, images, blocks, downsampling, *, train=False):
    """Logits, taps, and {norm: {"mean", "var"}} of the activations that entered each batch norm."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    running = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["batch_stats"])
    x = np.asarray(images, np.float64)
    taps, statistics = OrderedDict(input=x), {}

    def norm(x, name):
        statistics[name] = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
        used = (statistics if train else running)[name]
        return (x - used["mean"]) / np.sqrt(used["var"] + 1e-5) * params[name]["scale"] + params[name]["bias"]

    for b, (layers, _) in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            name = f"block{b}_conv{layer}"
            x = taps[name] = np.maximum(norm(convolve(x, params[name]["kernel"]), f"{name}_norm"), 0)
        name = f"block{b}_down"
        x = halve(x, params.get(name), downsampling)
        if downsampling == "strided_relu":
            x = np.maximum(norm(x, f"{name}_norm"), 0)
        taps[name] = x
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"], taps, statistics


def convolve(images, kernel):
    """Cross-correlation with a 3 × 3 kernel, zeros outside."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = images.shape[1:3]
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def halve(images, layer, downsampling):
    h, w = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    corners = {(i, j): images[:, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)}
    if downsampling == "subsample":
        return corners[0, 0]
    if downsampling == "max":
        return np.max(list(corners.values()), axis=0)
    if downsampling == "average":
        return np.mean(list(corners.values()), axis=0)
    return sum(corner @ layer["kernel"][i, j] for (i, j), corner in corners.items()) + layer.get("bias", 0)
