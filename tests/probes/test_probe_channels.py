"""Shuffled channels against loops over channels, and what that does to a network's activations."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_toys import CONVOLUTIONS, IMAGES, PARAMS, SMALL, changed, forward, kernel_of, kernels, normal, permutation
from scipy import stats

from deform_jax import probes


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


def test_shuffles_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(2), 2)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), SMALL)
    result = jax.jit(jax.vmap(probes.shuffle_channels))(keys, stacked)
    for i in range(2):
        expected = probes.shuffle_channels(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
        jax.tree.map(lambda leaf, other, i=i: np.testing.assert_array_equal(leaf[i], other), result, expected)


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
    ],
)
def test_bad_arguments(call, error, text, key):
    with pytest.raises(error, match=text):
        call(key)
