"""Residual networks of both libraries with the same weights, and what a module does while it is applied."""

import jax
import jax.numpy as jnp
import numpy as np
import residual_oracles as oracles
from flax import linen as nn


def pytorch_network(name, width=1, classes=5):
    if name == "efficientnet_b0":
        return oracles.EfficientNetB0(width, classes)
    depth, _, form = name.removeprefix("resnet").partition("_")
    return oracles.ResNet(int(depth), width, classes, imagenet=form == "imagenet")


def prepared(theirs, size):
    """The network with every number away from its initial value, the same as Flax's variables, and images."""
    theirs = oracles.scattered(theirs)
    images = np.random.default_rng(0).normal(size=(6, size, size, 3)).astype(np.float32)
    return theirs, oracles.collections(theirs.state_dict()), images


def assert_near(result, expected, message="", tolerance=1e-4, floor=0.0):
    """Float32 against float64 through up to 54 layers: a relative error of the whole, not of each element."""
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    assert result.shape == expected.shape, message
    assert np.abs(result - expected).max() <= tolerance * max(np.abs(expected).max(), floor), message


def record_dropouts(seen):
    """An interceptor that appends (module, inputs, outputs) of every dropout's call."""

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            seen.append((context.module, args[0], output))
        return output

    return nn.intercept_methods(record)


def initialisers(model):
    """{layer: (kernel, bias)} of everything that draws its weights."""
    found = {}

    def record(call, args, kwargs, context):
        if hasattr(context.module, "kernel_init") and context.method_name == "__call__":
            found[context.module.name] = context.module.kernel_init, getattr(context.module, "bias_init", None)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert found.keys() == {layer for layer in params if not layer.endswith("_norm")}
    return found
