"""How networks of every kind are handed to a probe: Flax Linen and NNX, Equinox, functions, Haiku, PyTorch's files.

Each builder gives the same small CNN with batch norm and dropout, at evaluation, made of the parameters and averages it
is given; ``test_other_networks.py`` probes them all by the same two calls.
"""

import functools
import tempfile
from collections import OrderedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.tree_util import Partial

from deform_jax import models


# Flax Linen: any module, whatever it returns.
class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(3, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x).mean((1, 2)))
        return nn.Dense(4, name="head")(x)


def linen(params, stats):
    variables = {"params": params, "batch_stats": {"norm": stats}}
    return models.capture(LinenNet(), variables, names=["conv", "norm"], train=False)


# Flax NNX: a module is a pytree; its method returns the taps.
class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, images):
        conv = self.conv(images)
        norm = self.norm(conv)
        output = self.head(self.dropout(nnx.relu(norm).mean((1, 2))))
        return OrderedDict(input=images, conv=conv, norm=norm, output=output)


def nnx_module(params, stats):
    net = into_nnx(NNXNet(nnx.Rngs(0)), params, stats)
    net.eval()  # batch norm by its averages, no dropout
    return net


def into_nnx(net, params, stats):
    for name, layer in {**params, "norm": {**params["norm"], **stats}}.items():
        for kind, value in layer.items():
            getattr(getattr(net, name), kind)[...] = value
    return net


def nnx_split(params, stats):
    graph, state = nnx.split(nnx_module(params, stats))
    return Partial(merged, graph, state)


def merged(graph, state, images):
    return nnx.merge(graph, state)(images)


# Equinox: a module is a pytree, written for one image with its channels first; batch norm keeps its averages apart.
class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(2, 3, 3, padding="SAME", key=key)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="ema")
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(3, 4, key=key)

    def __call__(self, state, image):
        conv = self.conv(jnp.moveaxis(image, -1, 0))
        norm, _ = self.norm(conv, state)
        output = self.head(self.dropout(jax.nn.relu(norm).mean((1, 2))))
        channels_last = {"conv": jnp.moveaxis(conv, 0, -1), "norm": jnp.moveaxis(norm, 0, -1)}
        return OrderedDict(input=image, **channels_last, output=output)


def equinox(params, stats):
    net, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0))
    net, state = into_equinox(net, state, params, stats)
    return Partial(batched, eqx.nn.inference_mode(net), state)


def batched(net, state, images):
    return jax.vmap(net, in_axes=(None, 0), axis_name="batch")(state, images)


def into_equinox(net, state, params, stats):
    """Equinox's convolution has a weight (out, in, h, w) and a bias (out, 1, 1), its dense layer a weight (out, in)."""
    where = lambda net: [getattr(getattr(net, name), kind) for name in params for kind in ("weight", "bias")]  # noqa: E731
    conv, norm, head = (params[name] for name in ("conv", "norm", "head"))
    values = [conv["kernel"].transpose(3, 2, 0, 1), conv["bias"].reshape(3, 1, 1), norm["scale"], norm["bias"]]
    net = eqx.tree_at(where, net, jax.tree.map(jnp.asarray, [*values, head["kernel"].T, head["bias"]]))
    return net, state.set(net.norm.ema_state_index, (jnp.asarray(stats["mean"]), jnp.asarray(stats["var"])))


# A function of a dict of parameters; `Partial` binds them as arguments of what is compiled.
def function(params, stats):
    return Partial(plain, params, stats)


def plain(params, stats, images):
    dimensions = ("NHWC", "HWIO", "NHWC")
    conv = jax.lax.conv_general_dilated(images, params["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
    conv = conv + params["conv"]["bias"].reshape(1, 1, 1, -1)
    mean, var, scale, bias = (x.reshape(1, 1, 1, -1) for x in (stats["mean"], stats["var"], *scales(params)))
    norm = (conv - mean) / jnp.sqrt(var + 1e-5) * scale + bias
    output = jax.nn.relu(norm).mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)
    return OrderedDict(input=images, conv=conv, norm=norm, output=output)


def scales(params):
    return params["norm"]["scale"], params["norm"]["bias"]


# Haiku: so is what `transform` makes.
@functools.cache  # one function, compiled once
def transformed():
    hk = pytest.importorskip("haiku")

    def network(images):
        conv = hk.Conv2D(3, 3, name="conv")(images)
        norm = hk.BatchNorm(True, True, 0.9, name="norm")(conv, is_training=False)
        output = hk.Linear(4, name="head")(jax.nn.relu(norm).mean((1, 2)))
        return OrderedDict(input=images, conv=conv, norm=norm, output=output)

    return Partial(hk.transform_with_state(network).apply)


def haiku(params, stats):
    theirs = {name: {"w": params[name]["kernel"], "b": params[name]["bias"]} for name in ("conv", "head")}
    theirs["norm"] = {k: v.reshape(1, 1, 1, 3) for k, v in zip(("scale", "offset"), scales(params), strict=True)}
    state = {f"norm/~/{kind}_ema": {"average": stats[kind].reshape(1, 1, 1, 3)} for kind in stats}
    return Partial(evaluated, transformed(), theirs, state)


def evaluated(apply, params, state, images):
    return apply(params, state, None, images)[0]


# A network trained in PyTorch: its weights from the file that was saved there, in PyTorch's layout.
def torch_network(params, stats):
    torch = pytest.importorskip("torch")
    layers = torch.nn
    net = layers.Sequential(
        *(layers.Conv2d(2, 3, 3, padding="same"), layers.BatchNorm2d(3), layers.ReLU(), layers.AdaptiveAvgPool2d(1)),
        *(layers.Flatten(), layers.Dropout(), layers.Linear(3, 4)),
    )
    conv, norm, head = (params[name] for name in ("conv", "norm", "head"))
    values = [conv["kernel"].transpose(3, 2, 0, 1), conv["bias"], norm["scale"], norm["bias"], stats["mean"]]
    values += [stats["var"], np.array(0), head["kernel"].T, head["bias"]]
    net.load_state_dict({name: torch.tensor(value) for name, value in zip(net.state_dict(), values, strict=True)})
    return net.eval()


def torch_file(params, stats):
    net = torch_network(params, stats)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        pytest.importorskip("torch").save(net.state_dict(), file.name)
        return Partial(channels_first, models.read_weights(file.name))


def safetensors_file(params, stats):
    net = torch_network(params, stats)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        safetensors_torch = pytest.importorskip("safetensors.torch")
        safetensors_torch.save_file(net.state_dict(), file.name)
        return Partial(channels_first, models.read_weights(file.name))


def channels_first(weights, images):
    x = jnp.moveaxis(images, -1, 1)
    conv = jax.lax.conv_general_dilated(x, weights["0.weight"], (1, 1), "SAME")
    conv = conv + weights["0.bias"].reshape(1, -1, 1, 1)
    mean, var, scale, bias = (
        weights[f"1.{name}"].reshape(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    norm = (conv - mean) / jnp.sqrt(var + 1e-5) * scale + bias
    output = jax.nn.relu(norm).mean((2, 3)) @ weights["6.weight"].T + weights["6.bias"].reshape(1, -1)
    return OrderedDict(input=images, conv=conv, norm=norm, output=output)


BUILDERS = [linen, nnx_module, nnx_split, equinox, function, haiku, torch_file, safetensors_file]
