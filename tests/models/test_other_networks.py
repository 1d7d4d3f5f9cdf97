"""One small network in Flax Linen, Flax NNX, Equinox and plain functions, probed alike and as numpy says.

Each of them shows how a network of that kind is handed to a probe, and that a probe of the same object after its
parameters have changed reads the new ones.
"""

from collections import OrderedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.tree_util import Partial

from deform_jax import models, probes

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 8, 8, 2)).astype(np.float32)
PERTURBED = (IMAGES + 0.2 * RNG.normal(size=IMAGES.shape)).astype(np.float32)
NAMES = ["input", "conv", "output"]


def draw(seed):
    """Parameters as Flax has them: kernels (h, w, in, out) and (in, out)."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": {"kernel": (3, 3, 2, 3), "bias": (3,)}, "head": {"kernel": (3, 4), "bias": (4,)}}
    normal = lambda shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(normal, shapes, is_leaf=lambda shape: isinstance(shape, tuple))


# Linen: any module, whatever it returns.
class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="conv")(x)
        return nn.Dense(4, name="head")(nn.relu(x).mean((1, 2)))


# NNX: a module is a pytree; its method returns the taps.
class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.head = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, images):
        conv = self.conv(images)
        return OrderedDict(input=images, conv=conv, output=self.head(nnx.relu(conv).mean((1, 2))))


# Equinox: so is its module, written for one image with its channels first.
class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(2, 3, 3, padding="SAME", key=key)
        self.head = eqx.nn.Linear(3, 4, key=key)

    def one(self, image):
        conv = self.conv(jnp.moveaxis(image, -1, 0))
        output = self.head(jax.nn.relu(conv).mean((1, 2)))
        return OrderedDict(input=image, conv=jnp.moveaxis(conv, 0, -1), output=output)

    def __call__(self, images):
        return jax.vmap(self.one)(images)


def plain(params, images):
    """A function of a dict of parameters; `Partial` binds them as arguments of what is compiled."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    conv = jax.lax.conv_general_dilated(images, params["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
    conv = conv + params["conv"]["bias"].reshape(1, 1, 1, -1)
    output = jax.nn.relu(conv).mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)
    return OrderedDict(input=images, conv=conv, output=output)


def linen(params):
    return models.capture(LinenNet(), {"params": params}, names=["conv"])


def into_nnx(net, params):
    for name, layer in params.items():
        for kind, value in layer.items():
            getattr(getattr(net, name), kind)[...] = value
    return net


def nnx_module(params):
    return into_nnx(NNXNet(nnx.Rngs(0)), params)


def nnx_split(params):
    graph, state = nnx.split(nnx_module(params))
    return Partial(merged, graph, state)


def merged(graph, state, images):
    return nnx.merge(graph, state)(images)


def into_equinox(net, params):
    """Equinox's convolution has a weight (out, in, h, w) and a bias (out, 1, 1), its dense layer a weight (out, in)."""
    where = lambda net: (net.conv.weight, net.conv.bias, net.head.weight, net.head.bias)  # noqa: E731
    conv, head = params["conv"], params["head"]
    values = (conv["kernel"].transpose(3, 2, 0, 1), conv["bias"].reshape(3, 1, 1), head["kernel"].T, head["bias"])
    return eqx.tree_at(where, net, jax.tree.map(jnp.asarray, values))


def equinox(params):
    return into_equinox(EquinoxNet(jax.random.key(0)), params)


def function(params):
    return Partial(plain, params)


BUILDERS = [linen, nnx_module, nnx_split, equinox, function]


def measure(represent):
    """LS's sensitivity and SI's: the same two calls for every kind of network."""
    cosine = probes.sensitivity(represent, IMAGES, PERTURBED)
    squared = probes.sensitivity(represent, IMAGES, PERTURBED, distance="squared", normaliser="mean")
    return cosine, squared


def expected(params):
    """Both in float64, written out."""
    params = jax.tree.map(np.float64, params)

    def taps(images):
        padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        conv = np.einsum("nhwcij,ijco->nhwo", patches, params["conv"]["kernel"]) + params["conv"]["bias"]
        output = np.maximum(conv, 0).mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
        return {"input": images, "conv": conv, "output": output}

    def cosine(a, b):
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))

    def squared(a, b):
        return ((a - b) ** 2).sum()

    clean, moved = ({name: np.float64(x).reshape(5, -1) for name, x in taps(x).items()} for x in (IMAGES, PERTURBED))
    results = []
    for distance, average in ((cosine, np.median), (squared, np.mean)):
        results.append({})
        for name, x in clean.items():
            pairs = [distance(x[i], x[j]) for i in range(5) for j in range(i)]
            results[-1][name] = np.mean([distance(a, b) for a, b in zip(x, moved[name], strict=True)]) / average(pairs)
    return results


def assert_as_expected(results, params):
    for result, reference in zip(results, expected(params), strict=True):
        assert list(result) == NAMES
        for name in NAMES:
            # Float32 rounding of taps, against cosine distances of 0.01 and more.
            np.testing.assert_allclose(result[name], reference[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("build", BUILDERS)
def test_every_kind_of_network_is_probed_as_numpy_says(build):
    for seed in (1, 2):
        assert_as_expected(measure(build(draw(seed))), draw(seed))


def test_a_network_probed_before_and_after_a_change_in_place():
    """NNX modules and dicts of parameters change in place; nothing of the first probe may come back."""
    net, params = nnx_module(draw(1)), draw(1)
    bound, closed = Partial(plain, params), lambda images: plain(params, images)
    assert_as_expected(measure(net), draw(1))
    into_nnx(net, draw(2))
    assert_as_expected(measure(net), draw(2))
    for represent in (bound, closed):
        params.update(draw(1))
        before = measure(represent)
        params.update(draw(3))
        assert_as_expected(measure(represent), draw(3))
        assert_as_expected(before, draw(1))


def test_equinox_modules_before_and_after_an_update():
    net = equinox(draw(1))
    before = measure(net)
    assert_as_expected(measure(into_equinox(net, draw(2))), draw(2))
    assert_as_expected(before, draw(1))


@pytest.mark.parametrize("build", BUILDERS)
def test_two_networks_of_one_kind_share_what_is_compiled(build):
    """The arrays apart, both are the same: structure, and leaves that are no arrays."""
    (first, structure), (second, same) = (jax.tree.flatten(build(draw(seed))) for seed in (1, 2))
    assert structure == same
    assert hash(structure) == hash(same)
    assert not jax.tree_util.treedef_is_leaf(structure)
    fixed = [[leaf for leaf in leaves if not eqx.is_array_like(leaf)] for leaves in (first, second)]
    assert fixed[0] == fixed[1]


def test_filter_statistics_of_every_kind():
    """By name where kernels are Flax's; Equinox's weights are renamed and transposed to (h, w, in, out) first."""
    params = draw(1)
    expected = probes.filter_statistics(params, probes.total_variation)
    assert list(expected) == ["conv"]
    net = equinox(params)
    renamed = {"conv": {"kernel": net.conv.weight.transpose(2, 3, 1, 0)}}
    for given in (nnx.state(nnx_module(params), nnx.Param), renamed):
        assert probes.filter_statistics(given, probes.total_variation) == expected
