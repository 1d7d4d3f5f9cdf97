"""Effective receptive fields of hand-written networks whose widths are known."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from deform_jax import probes


def pooled(weights, offset, x, axis):
    """A periodic layer of stride 1: weights over shifted copies along one axis."""
    return jax.nn.relu(sum(w * jnp.roll(x, offset - o, axis) for o, w in enumerate(weights)))


def network(weights, images, *, offset=1, layers=4):
    """``layers`` layers along every axis; the last dimension's channels differ in scale and have a bias."""
    taps = OrderedDict(input=images)
    x = images
    for k in range(1, layers + 1):
        for axis in range(1, images.ndim - 1):
            x = pooled(weights, offset, x, axis)
        taps[f"conv{k}"] = jnp.concatenate([x, 0.5 + 3 * x], -1)
    return taps


def strided(size, layers, images):
    taps = OrderedDict()
    x = images
    for k in range(1, layers + 1):
        for axis in range(1, images.ndim - 1):
            side = x.shape[axis] // size
            x = x.reshape(*x.shape[:axis], side, size, *x.shape[axis + 1 :]).sum(axis + 1)
        taps[f"conv{k}"] = x + 1
    return taps


THIRD = np.full(3, 1 / 3, np.float32)


def test_homogeneous_layers_of_stride_1_widen_as_the_theory_says():
    found = probes.effective_receptive_field(jax.jit(lambda x: network(THIRD, x)), (32,), value=4.0)
    assert list(found) == ["input", "conv1", "conv2", "conv3", "conv4"]
    expected = [0, *probes.receptive_field_size(3, layers=4)]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5, atol=1e-3)
    # all of it seen 16 pixels further, across the border; by eye it is the same
    shifted = probes.effective_receptive_field(lambda x: network(THIRD, x, offset=17, layers=1), (32,), value=4.0)
    np.testing.assert_allclose(shifted["conv1"], found["conv1"], rtol=1e-5)


@pytest.mark.parametrize(("shape", "size", "layers"), [((32,), 2, 5), ((27,), 3, 3), ((4, 8), 2, 2)])
def test_strided_layers_are_as_wide_as_their_receptive_field(shape, size, layers):
    found = probes.effective_receptive_field(Partial(strided, size, layers), shape, value=1.0, stride=size, channels=2)
    # the last of 1-D has a single site, uniform over the whole image
    np.testing.assert_allclose(list(found.values()), [size**k for k in range(1, layers + 1)], rtol=1e-5)


def test_axes_are_combined_by_their_mean_variance():
    def blurred(images):
        x = pooled(THIRD, 1, images, 1)
        x = pooled(np.float32([0.25, 0.25, 0, 0.25, 0.25]), 2, x, 2)
        return OrderedDict(conv=x)

    run = jax.jit(blurred)
    found = float(probes.effective_receptive_field(run, (12, 20), value=2.0)["conv"])
    assert found == pytest.approx(np.sqrt((2 / 3 + 2.5) / 2), rel=1e-5)
    assert probes.effective_receptive_field(run, (12, 20), value=2.0, chunk=77)["conv"] == pytest.approx(
        found, rel=1e-6
    )


def widths(weights, value):
    return probes.effective_receptive_field(Partial(network, weights, layers=2), (16,), value=value)


WEIGHTS = np.float32([[0.2, 0.5, 0.1], [0.4, 0.2, 0.7]])


def exact(weights):
    share = weights / weights.sum()
    return np.sqrt(2 * (share @ np.arange(3) ** 2 - (share @ np.arange(3)) ** 2))


def test_vmap_over_networks_and_gradients():
    expected = [exact(np.float64(weights)) for weights in WEIGHTS]
    found, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda w: widths(w, 1.0)["conv2"])))(WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # of the value it does not depend, at the input either, whose variance 0 has no square root's gradient
    total, slope = jax.value_and_grad(lambda value: sum(widths(WEIGHTS[0], value).values()))(3.0)
    np.testing.assert_allclose(total, expected[0] * (1 + np.sqrt(0.5)), rtol=1e-5)
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    step = 1e-6 * np.eye(3)
    slopes = [[(exact(w + e) - exact(w - e)) / 2e-6 for e in step] for w in np.float64(WEIGHTS)]
    np.testing.assert_allclose(gradients, slopes, atol=1e-4)


def test_flat_and_dead_taps():
    def represent(images):
        flat = images.reshape(len(images), -1)
        near = jnp.sum(flat * np.float32([[0, 1, 2, 1, 0, 0, 0, 0]]), 1, keepdims=True)
        return OrderedDict(flat=near, dead=jax.nn.relu(images - 5), broken=images / 0)

    with pytest.warns(RuntimeWarning) as caught:
        found = probes.effective_receptive_field(represent, (8,), value=1.0)
    texts = sorted(str(warning.message) for warning in caught)
    assert "nan at tap 'broken': values or distances there are not finite" in texts[0]
    assert "nan at tap 'dead': no active pixel changes the representation there" in texts[1]
    assert found["flat"] == pytest.approx(np.sqrt(0.5), rel=1e-6)
    assert np.isnan(found["dead"])
    assert np.isnan(found["broken"])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f: f(network, 32, value=1.0), TypeError, r"`shape` must be a tuple"),
        (lambda f: f(network, (0,), value=1.0), ValueError, r"`shape` must be an integer ≥ 1"),
        (lambda f: f(network, (8,), value=0.0), ValueError, r"`value` must be a finite number > 0"),
        (lambda f: f(network, (8,), value=1.0, stride=0), ValueError, r"`stride` must be an integer ≥ 1"),
        (lambda f: f(network, (8,), value=1.0, channels=0), ValueError, r"`channels` must be an integer ≥ 1"),
        (lambda f: f(network, (8,), value=1.0, chunk=0), ValueError, r"`chunk` must be an integer ≥ 1"),
        (lambda f: f(3, (8,), value=1.0), TypeError, r"`represent` must be callable"),
        (
            lambda f: f(lambda x: {"cut": x[..., 0, 0]}, (8,), value=1.0),
            ValueError,
            r"`represent` must return taps \(n, \*sites, features\) with 1 axes.*'cut' has shape \(9,\)",
        ),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(probes.effective_receptive_field)
