"""Channel surgery against loops over channels, and what it does to a network's activations."""

import dataclasses
from collections import OrderedDict
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.tree_util import Partial
from scipy import stats

from deform_jax import probes

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


def test_inputs_are_permuted_alike_for_all_outputs(key):
    shuffled = probes.shuffle_channels(key, PARAMS)
    assert jax.tree.structure(shuffled) == jax.tree.structure(PARAMS)
    assert changed(shuffled) == {f"{layer}/{'w' if layer == 'line' else 'kernel'}" for layer in CONVOLUTIONS}
    for layer in CONVOLUTIONS:
        old, new = kernel_of(PARAMS, layer), kernel_of(shuffled, layer)
        order = permutation(old, new, -2)
        for c in range(old.shape[-1]):
            for i, from_channel in enumerate(order):
                np.testing.assert_array_equal(new[..., i, c], old[..., from_channel, c])


def test_outputs_too(key):
    inputs, both = (probes.shuffle_channels(key, PARAMS, outputs=outputs) for outputs in (False, True))
    assert changed(both) == changed(inputs)
    orders = {layer: permutation(kernel_of(inputs, layer), kernel_of(both, layer), -1) for layer in CONVOLUTIONS}
    assert any(order != tuple(range(len(order))) for order in orders.values())
    square = {"conv": {"kernel": normal(1, 1, 9, 9)}}  # 9! orders: equal or identical ones by chance are out of reach
    inputs, both = (
        kernel_of(probes.shuffle_channels(key, square, outputs=outputs), "conv") for outputs in (False, True)
    )
    assert permutation(kernel_of(square, "conv"), inputs, -2) != permutation(inputs, both, -1)


def test_layers_have_permutations_of_their_own(key):
    params = {f"conv{i}": {"kernel": normal(2, 2, 6, 3)} for i in range(12)}
    shuffled = probes.shuffle_channels(key, params)
    orders = {layer: permutation(kernel_of(params, layer), kernel_of(shuffled, layer), -2) for layer in params}
    assert len(set(orders.values())) == 12  # by chance equal with probability 66/720 at most; the key is fixed
    # Of the layer's place in natural order, so that no choice of other layers changes it.
    for layers in (["conv10", "conv2"], lambda layer: layer in ("conv10", "conv2")):
        some = probes.shuffle_channels(key, params, layers=layers)
        assert changed(some, params) == {"conv10/kernel", "conv2/kernel"}
        for layer in ("conv10", "conv2"):
            np.testing.assert_array_equal(some[layer]["kernel"], shuffled[layer]["kernel"])
    others = probes.shuffle_channels(jax.random.key(1), params)
    assert permutation(kernel_of(params, "conv0"), kernel_of(others, "conv0"), -2) != orders["conv0"]


def test_permutations_are_uniform_and_independent():
    params = {name: {"kernel": jnp.arange(3.0).reshape(1, 1, 3, 1)} for name in "ab"}
    keys = jax.random.split(jax.random.key(0), 3600)
    shuffled = jax.jit(jax.vmap(lambda key: probes.shuffle_channels(key, params, outputs=True)))(keys)
    orders = {tuple(order): i for i, order in enumerate(permutations((0, 1, 2)))}
    a, b = ([orders[tuple(row)] for row in np.asarray(shuffled[name]["kernel"][:, 0, 0, :, 0], int)] for name in "ab")
    # 100 expected in each of 36 cells; the key is fixed, and a fair shuffle passes with probability 0.999
    assert stats.chisquare(np.bincount(6 * np.array(a) + b, minlength=36)).pvalue > 1e-3


def test_statistics_of_filters_do_not_change(key):
    for outputs in (False, True):
        shuffled = probes.shuffle_channels(key, PARAMS, outputs=outputs)
        for statistic in (probes.laplacian_power, probes.spatial_frequency, probes.total_variation, probes.mean_filter):
            for layer, value in probes.filter_statistics(PARAMS, statistic).items():
                result = probes.filter_statistics(shuffled, statistic)[layer]
                np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)  # sums in another order


def pooling(params):
    """Each filter the mean over its inputs, so that a network only pools over channels."""

    def pooled(kernel):
        return np.broadcast_to(kernel.mean(-2, keepdims=True), kernel.shape)

    names = ("conv1", "conv2", "conv10")
    return {name: {**params[name], "kernel": pooled(params[name]["kernel"])} for name in names}


def test_what_a_shuffle_does_to_activations():
    run = jax.jit(forward)
    key = jax.random.key(1)
    shuffled = probes.shuffle_channels(key, PARAMS)
    assert permutation(PARAMS["conv1"]["kernel"], shuffled["conv1"]["kernel"], -2) != (0, 1, 2)
    for params, same in ((PARAMS, False), (pooling(PARAMS), True)):
        before, after = run(params, IMAGES), run(probes.shuffle_channels(key, params), IMAGES)
        for tap in ("conv1", "conv2", "conv10"):
            assert np.allclose(before[tap], after[tap], atol=1e-5) == same, tap


def test_depthwise_kernels_stay(key):
    params = {"depthwise": {"kernel": normal(3, 3, 1, 6)}}
    np.testing.assert_array_equal(kernel_of(probes.shuffle_channels(key, params), "depthwise"), *kernels(params))
    moved = probes.shuffle_channels(key, params, outputs=True)
    assert permutation(*kernels(params), *kernels(moved), -1) != tuple(range(6))


def kernels(params):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def test_shuffles_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(2), 2)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), SMALL)
    result = jax.jit(jax.vmap(probes.shuffle_channels))(keys, stacked)
    for i in range(2):
        expected = probes.shuffle_channels(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
        jax.tree.map(lambda leaf, other, i=i: np.testing.assert_array_equal(leaf[i], other), result, expected)


def expected_means(params, first):
    """One entry at a time, in float64."""
    means = {}
    for layer in CONVOLUTIONS:
        old = np.float64(kernel_of(params, layer))
        new = means[layer] = np.zeros_like(old)
        for i in range(old.shape[-2]):
            inputs = [i] if layer == first else range(old.shape[-2])
            filters = [old[..., j, c] for j in inputs for c in range(old.shape[-1])]
            for c in range(old.shape[-1]):
                new[..., i, c] = sum(filters) / len(filters)
    return means


@pytest.mark.parametrize("first", [None, "conv10"])
def test_means_match_loops(first):
    result = probes.mean_channel(PARAMS, first=first)
    expected = expected_means(PARAMS, first or "conv1")
    biases = {"conv1/bias", "conv2/bias", "conv10/bias", "line/b"}
    assert changed(result) == biases | {f"{layer}/{'w' if layer == 'line' else 'kernel'}" for layer in CONVOLUTIONS}
    for layer in CONVOLUTIONS:
        np.testing.assert_allclose(kernel_of(result, layer), expected[layer], atol=1e-6)
    for layer, name in (bias.split("/") for bias in biases):
        np.testing.assert_allclose(
            result[layer][name], np.full_like(PARAMS[layer][name], PARAMS[layer][name].mean()), atol=1e-6
        )


def test_one_layer_at_a_time():
    whole = probes.mean_channel(PARAMS)
    for layer in ("conv1", "conv2"):  # the second is not taken for the first
        one = probes.mean_channel(PARAMS, layers=[layer])
        assert changed(one) == {f"{layer}/kernel", f"{layer}/bias"}
        np.testing.assert_array_equal(one[layer]["kernel"], whole[layer]["kernel"])
        np.testing.assert_array_equal(one[layer]["bias"], whole[layer]["bias"])


def test_all_channels_become_equal_and_mean_channels_stay():
    params = probes.mean_channel(PARAMS)
    taps = jax.jit(forward)(params, IMAGES)
    for tap in ("conv1", "conv2", "conv10"):
        np.testing.assert_allclose(taps[tap], np.broadcast_to(taps[tap][..., :1], taps[tap].shape), atol=1e-6)
        assert np.ptp(taps[tap]) > 0.1
    again = probes.mean_channel(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), again, params)
    for layer, mean in probes.filter_statistics(PARAMS, probes.mean_filter).items():
        np.testing.assert_allclose(probes.mean_filter(kernel_of(params, layer)), mean, atol=1e-6)


def test_means_under_jit_vmap_and_in_narrow_types():
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), SMALL)
    result = jax.jit(jax.vmap(probes.mean_channel))(stacked)
    for factor in (1, 2):
        expected = probes.mean_channel(jax.tree.map(lambda leaf, f=factor: f * leaf, SMALL))
        jax.tree.map(lambda a, b, i=factor - 1: np.testing.assert_allclose(a[i], b, atol=1e-6), result, expected)
    half = probes.mean_channel({"conv": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS["conv2"])})
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_other_trees(key):
    class Module(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Conv(2, 3, (3, 3), rngs=rngs, bias_init=nnx.initializers.normal())

    state = nnx.state(Module(nnx.Rngs(0)), nnx.Param)
    assert np.ptp(probes.mean_channel(state)["first"]["bias"][...]) == 0 < np.ptp(state["first"]["bias"][...])
    shuffled = probes.shuffle_channels(jax.random.key(1), state)["first"]["kernel"][...]
    permutation(state["first"]["kernel"][...], shuffled, -2)
    bare = probes.mean_channel(PARAMS["conv1"])  # one module's own leaves, under no name
    np.testing.assert_array_equal(bare["bias"], probes.mean_channel(PARAMS)["conv1"]["bias"])


traces = []


@dataclasses.dataclass(frozen=True)
class Network:
    """Compared by value, as `deform_jax.models.represent` has it."""

    def __call__(self, params, images):
        traces.append(self)
        return forward(params, images)


def test_averaged_taps():
    for represent in (Partial(Network(), PARAMS), lambda images: forward(PARAMS, images)):
        averaged, plain = probes.average_channels(represent)(IMAGES), forward(PARAMS, IMAGES)
        assert list(averaged) == list(plain)
        np.testing.assert_array_equal(averaged["features"], plain["features"])
        for tap in ("input", "conv1", "conv2", "conv10"):
            expected = sum(np.float64(plain[tap][..., c]) for c in range(plain[tap].shape[-1])) / plain[tap].shape[-1]
            np.testing.assert_allclose(averaged[tap][..., 0], expected, atol=1e-5)
            assert averaged[tap].shape == (*plain[tap].shape[:-1], 1)


def test_averaged_taps_are_compiled_as_often_as_others():
    def measure(represent):
        options = {"distance": "squared", "normaliser": "mean"}
        return probes.sensitivity(probes.average_channels(represent), IMAGES, IMAGES[:, ::-1], **options)["conv2"]

    traces.clear()
    seeds = [jax.tree.map(lambda leaf, i=i: leaf + i, PARAMS) for i in range(3)]
    values = [measure(Partial(Network(), seed)) for seed in seeds]
    assert len(traces) == 2  # clean and perturbed
    assert len(set(map(float, values))) == 3
    params = {"scale": 1.0}

    def represent(images):
        return {"conv2": images + params["scale"] * images**2}

    before = measure(represent)
    params["scale"] = 100.0
    assert abs(measure(represent) - before) > 0.01 * before, "a plain function is read anew"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda key: probes.shuffle_channels(0, PARAMS), TypeError, r"`key` must be one random key, but int.*Make one"),
        (lambda key: probes.shuffle_channels(jnp.ones(2), PARAMS), TypeError, r"`key` must .*of dtype float32"),
        (lambda key: probes.shuffle_channels(jax.random.split(key), PARAMS), ValueError, r"keys of shape \(2,\).*vmap"),
        (lambda key: probes.shuffle_channels(key, {}), ValueError, r"`params` must hold a convolution kernel"),
        (lambda key: probes.shuffle_channels(key, PARAMS, layers="conv1"), TypeError, r"`layers` must .*\['conv1'\]"),
        (lambda key: probes.shuffle_channels(key, PARAMS, layers=1), TypeError, r"`layers` must be names of layers"),
        (
            lambda key: probes.shuffle_channels(key, PARAMS, layers=["head"]),
            ValueError,
            r"'head' is none.*There are co",
        ),
        (lambda key: probes.shuffle_channels(key, PARAMS, layers=[]), ValueError, r"`layers` must choose at least one"),
        (
            lambda key: probes.mean_channel(PARAMS, layers=lambda name: False),
            ValueError,
            r"it chooses none\. There are",
        ),
        (lambda key: probes.mean_channel(PARAMS, first="conv3"), ValueError, r"`first` must name.*'conv3' is none"),
        (lambda key: probes.mean_channel([np.ones(3)]), ValueError, r"`params` must hold a convolution kernel"),
        (lambda key: probes.average_channels("net"), TypeError, r"`represent` must be callable"),
        (lambda key: probes.average_channels(lambda x: x)(IMAGES), TypeError, r"`represent` must return an ordered"),
    ],
)
def test_bad_arguments(call, error, text, key):
    with pytest.raises(error, match=text):
        call(key)
