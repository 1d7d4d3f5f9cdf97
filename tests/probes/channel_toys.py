"""Parameters of a few convolutions, a network of them, and what tells how they were changed."""

from collections import OrderedDict

import jax
import numpy as np
from jax import lax

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 6, 6, 3)).astype(np.float32)
CONVOLUTIONS = ["conv1", "conv2", "conv2_shortcut", "conv10", "line"]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def tree():
    """Three convolutions of a network, and everything that could be mistaken for one."""
    return {
        "conv1": {"kernel": normal(3, 3, 3, 4), "bias": normal(4)},
        "conv2": {"kernel": normal(3, 3, 4, 5), "bias": normal(5)},
        "conv2_norm": {"scale": normal(5), "bias": normal(5)},
        "conv2_shortcut": {"kernel": normal(1, 1, 4, 5)},
        "conv10": {"kernel": normal(3, 3, 5, 4), "bias": normal(4)},
        "line": {"w": normal(3, 4, 2), "b": normal(2)},
        "head": {"kernel": normal(4, 3), "bias": normal(3)},
        "counts": [np.arange(3)],
    }


PARAMS = tree()
SMALL = {layer: PARAMS[layer] for layer in ("conv1", "conv2_norm", "line")}


def kernel_of(params, layer):
    return np.asarray(params[layer]["w" if layer == "line" else "kernel"])


def permutation(old, new, axis):
    """The order of channels that turns one kernel into another, found by looking for each."""
    old, new = np.moveaxis(np.asarray(old), axis, 0), np.moveaxis(np.asarray(new), axis, 0)
    order = [next(i for i in range(len(old)) if (old[i] == channel).all()) for channel in new]
    assert sorted(order) == list(range(len(old)))
    return tuple(order)


def changed(new, old=PARAMS):
    leaves = zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for (path, a), b in leaves if a is not b}


def forward(params, images):
    """conv1, conv2 and conv10 in a row, each with its bias and a ReLU; average-pooled at the end."""
    taps = OrderedDict(input=images)
    for layer in ("conv1", "conv2", "conv10"):
        x = next(reversed(taps.values()))
        x = lax.conv_general_dilated(
            x, params[layer]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        taps[layer] = jax.nn.relu(x + params[layer]["bias"][None, None, None])
    taps["features"] = taps["conv10"].mean((1, 2))
    return taps


def kernels(params):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
