"""Two tiny networks in jax, in any precision, and again in float64 with what rounding may do to every layer."""

import itertools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from references import norm, wide

CHANNELS = (1, 8, 16, 16)
CLASSES = 10
LAMBDA = 4.0
"""Sums of m terms are off by λ √m u Σ|terms|, u the unit roundoff, with probability 1 − 2 exp(−λ²/2) (Higham and Mary
2019, "A new approach to probabilistic rounding error analysis"): for λ = 4 all but once in 1500."""
UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8}


def parameters(seed=0):
    """A VGG of three convolutions with He weights and a linear layer, float32."""
    rng = np.random.default_rng(seed)
    layers = {}
    for i, (c_in, c_out) in enumerate(itertools.pairwise(CHANNELS), start=1):
        layers[f"conv{i}"] = {"kernel": rng.normal(size=(3, 3, c_in, c_out)) * np.sqrt(2 / (9 * c_in))}
    layers["logits"] = {"weight": rng.normal(size=(CHANNELS[-1], CLASSES)) / np.sqrt(CHANNELS[-1])}
    return jax.tree.map(np.float32, layers)


def forward(params, images):
    """Every layer in the dtype of the parameters."""
    x = images.astype(params["conv1"]["kernel"].dtype)
    taps = OrderedDict(input=x)
    for name in ("conv1", "conv2", "conv3"):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(
            lax.conv_general_dilated(x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
        )
        taps[name] = x
        if name != "conv3":
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
    taps["logits"] = x.mean((1, 2)) @ params["logits"]["weight"]
    return taps


def exact(params, images, unit=0.0, rounded=0.0):
    """``forward`` in float64: {tap: values}, and {tap: sd} of what rounding by ``unit`` may do to each value.

    Errors of single operations count as independent, so that their variances add up and pass through each layer by the
    squares of its weights. ``rounded`` is the relative rounding that the images themselves have.
    """
    x = wide(images)
    variance = (rounded * x) ** 2
    taps, errors = OrderedDict(input=x), OrderedDict(input=np.sqrt(variance))
    for name in ("conv1", "conv2", "conv3"):
        kernel = wide(params[name]["kernel"])
        terms = np.prod(kernel.shape[:3])
        variance = convolved(variance, kernel**2)
        magnitude, x = convolved(abs(x), abs(kernel)), np.maximum(convolved(x, kernel), 0)
        # Accumulated in float32 at least, then rounded to the layer's own dtype.
        variance += (UNIT["float32"] * np.sqrt(terms) * magnitude) ** 2 * (unit > 0) + (unit * x) ** 2
        taps[name], errors[name] = x, np.sqrt(variance)
        if name != "conv3":
            x, variance = pooled(x), pooled(variance)
    weight = wide(params["logits"]["weight"])
    sites = x.shape[1] * x.shape[2]
    x, variance = x.mean((1, 2)), variance.mean((1, 2)) / sites
    variance = variance + (unit * x) ** 2 + (UNIT["float32"] * np.sqrt(sites) * x) ** 2 * (unit > 0)
    terms, magnitude, x = len(weight), abs(x) @ abs(weight), x @ weight
    variance = variance @ weight**2 + (UNIT["float32"] * np.sqrt(terms) * magnitude) ** 2 * (unit > 0) + (unit * x) ** 2
    taps["logits"], errors["logits"] = x, np.sqrt(variance)
    return taps, errors


def convolved(x, kernel):
    """Zero-padded to the same size."""
    n, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.zeros((n, height, width, kernel.shape[3]))
    for i in range(3):
        for j in range(3):
            result += padded[:, i : i + height, j : j + width] @ kernel[i, j]
    return result


def pooled(x):
    return np.maximum(np.maximum(x[:, ::2, ::2], x[:, 1::2, ::2]), np.maximum(x[:, ::2, 1::2], x[:, 1::2, 1::2]))


def relative_error(clean, moved, clean_error, moved_error, distance):
    """How far rounding of both may change the distance of two vectors, relative to it (infinite for equal ones)."""
    clean, moved, clean_error, moved_error = (x.reshape(-1) for x in (clean, moved, clean_error, moved_error))
    shift = LAMBDA * (norm(clean_error) + norm(moved_error))
    gap = norm(clean - moved)
    if distance == "cosine":
        gap = norm(clean / norm(clean) - moved / norm(moved))
        shift = 2 * LAMBDA * (norm(clean_error) / norm(clean) + norm(moved_error) / norm(moved))
    ratio = shift / gap if gap else np.inf
    return ratio if distance == "euclidean" else 2 * ratio + ratio**2


def ring(seed=0, size=3, channels=4):
    """Two layers on a ring of pixels: kernels (size, in, out) and biases."""
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=(size, c_in, channels)) / np.sqrt(size * c_in) for c_in in (1, channels)]
    layers = {f"conv{i}": {"kernel": kernel, "bias": np.full(channels, 0.1)} for i, kernel in enumerate(kernels, 1)}
    return jax.tree.map(np.float32, layers)


def ring_forward(strided, params, images):
    """Circular convolutions of stride 1 or of the filter's size, each with ReLU, in the dtype of the parameters."""
    x = images.astype(params["conv1"]["kernel"].dtype)
    taps = OrderedDict()
    for name, layer in params.items():
        size = len(layer["kernel"])
        if strided:
            windows = x.reshape(len(x), -1, size, x.shape[-1])
        else:
            windows = jnp.stack([jnp.roll(x, size // 2 - k, axis=1) for k in range(size)], axis=2)
        x = jax.nn.relu(jnp.einsum("nskc,kco->nso", windows, layer["kernel"]) + layer["bias"][None, None])
        taps[name] = x
    return taps


def ring_exact(strided, params, images):
    x = wide(images)
    taps = OrderedDict()
    for name, layer in params.items():
        kernel, bias = wide(layer["kernel"]), wide(layer["bias"])
        size, length = len(kernel), x.shape[1]
        step, first = (size, 0) if strided else (1, -(size // 2))
        sites = [
            sum(x[:, (site * step + first + k) % length] @ kernel[k] for k in range(size)) + bias
            for site in range(length // step)
        ]
        x = np.maximum(np.stack(sites, axis=1), 0)
        taps[name] = x
    return taps
