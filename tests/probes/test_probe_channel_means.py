"""Mean channels and averaged taps against loops over channels, and what they do to a network's activations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_toys import CONVOLUTIONS, IMAGES, PARAMS, SMALL, changed, forward, kernel_of, permutation
from flax import nnx
from jax.tree_util import Partial

from deform_jax import probes


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
        (
            lambda: probes.mean_channel(PARAMS, layers=lambda name: False),
            ValueError,
            r"it chooses none\. There are",
        ),
        (lambda: probes.mean_channel(PARAMS, first="conv3"), ValueError, r"`first` must name.*'conv3' is none"),
        (lambda: probes.mean_channel([np.ones(3)]), ValueError, r"`params` must hold a convolution kernel"),
        (lambda: probes.average_channels("net"), TypeError, r"`represent` must be callable"),
        (lambda: probes.average_channels(lambda x: x)(IMAGES), TypeError, r"`represent` must return an ordered"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()
