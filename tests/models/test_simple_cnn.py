"""SI's simple CNNs against loops written out in numpy, PyTorch's convolutions and the moments of random weights."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from deform_jax import models, probes

CHANNELS = 5
LAYERS = 2
# (shape, F, stride): windows centred (odd F), one more to the left (even F), and tiling the image.
CASES = {
    "1d": ((9,), 3, 1),
    "1d even": ((9,), 4, 1),
    "1d tiled": ((18,), 3, 3),
    "2d": ((5, 4), 3, 1),
    "2d even": ((5, 4), 2, 1),
    "2d tiled": ((8, 4), 2, 2),
}


def network(case, **settings):
    _, filter_size, stride = CASES[case]
    settings = {"layers": LAYERS, "channels": CHANNELS, "precision": "highest", **settings}
    return models.SimpleCNN(filter_size=filter_size, stride=stride, **settings)


def images_of(case, count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *CASES[case][0], 2)).astype(np.float32)


def draw(model, images, seed=1):
    """Standard normal parameters from numpy, which compile nothing."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return {"params": jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)}


@partial(jax.jit, static_argnums=0)
def forward(model, variables, images):
    return model.apply(variables, images)


@partial(jax.jit, static_argnums=0)
def with_gradients(model, variables, images, weights):
    """Outputs, taps, and the gradients of a sum of all of these with random weights."""

    def total(variables, images):
        outputs, taps = model.apply(variables, images)
        return sum((weights[name] * x).sum() for name, x in (taps | {"output": outputs}).items()), (outputs, taps)

    gradients, (outputs, taps) = jax.grad(total, argnums=(0, 1), has_aux=True)(variables, images)
    return outputs, taps, gradients


def computed(case, images):
    """Return a case's model, parameters and weights, and what comes out: compiled once for each case."""
    model = network(case)
    variables = draw(model, images)
    outputs, taps = jax.eval_shape(model.apply, variables, images)
    rng = np.random.default_rng(2)
    weights = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in (taps | {"output": outputs}).items()}
    return model, variables["params"], weights, with_gradients(model, variables, images, weights)


def by_loops(model, params, images):
    """Every sum over a window written out, in float64."""
    x, taps = np.float64(images), {"input": images}
    for layer in range(1, model.layers + 1):
        kernel, bias = (np.float64(params[f"conv{layer:02d}"][name]) for name in ("kernel", "bias"))
        sides, filter_sizes = x.shape[1:-1], kernel.shape[:-2]
        window, start = math.prod(filter_sizes), model.filter_size // 2 if model.stride == 1 else 0
        y = np.zeros((len(x), *(side // model.stride for side in sides), kernel.shape[-1]))
        for site in np.ndindex(*y.shape[1:-1]):
            for place in np.ndindex(*filter_sizes):
                source = [(i * model.stride - start + f) % side for i, f, side in zip(site, place, sides, strict=True)]
                y[(slice(None), *site)] += x[(slice(None), *source)] @ kernel[place] / math.sqrt(window * x.shape[-1])
        y = math.sqrt(window) * (y + bias)
        x = taps[f"conv{layer:02d}"] = np.maximum(y, 0) if model.activation == "relu" else y
    mean = x.reshape(len(x), -1, x.shape[-1]).mean(axis=1)
    return mean @ params["head"]["readout"] / x.shape[-1] + params["head"]["bias"], taps


def close(result, expected, name=""):
    # Float32 rounding of sums of up to 45 terms of order one.
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_layers_are_the_sums_over_windows(case):
    images = images_of(case)
    model, params, _, (outputs, taps, _) = computed(case, images)
    expected, expected_taps = by_loops(model, params, images)
    assert list(taps) == list(expected_taps) == ["input", "conv01", "conv02"]
    for name, tap in expected_taps.items():
        close(taps[name], tap, name)
    close(outputs, expected)
    assert outputs.shape == (2, 1)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_pytorchs(case):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    images = images_of(case)
    model, params, weights, (outputs, _, (gradients, image_gradient)) = computed(case, images)
    ndim = images.ndim - 2
    leaves = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), params)
    given = torch.tensor(images, requires_grad=True)
    last, first = (0, ndim + 1, *range(1, ndim + 1)), (0, *range(2, ndim + 2), 1)
    convolve = torch.nn.functional.conv1d if ndim == 1 else torch.nn.functional.conv2d
    left, volume = model.filter_size // 2, model.filter_size**ndim
    total, x = (torch.tensor(weights["input"]) * given).sum(), given.permute(last)
    for name in ("conv01", "conv02"):
        kernel = leaves[name]["kernel"].permute(ndim + 1, ndim, *range(ndim)) / math.sqrt(volume * x.shape[1])
        if model.stride == 1:
            x = torch.nn.functional.pad(x, (left, model.filter_size - 1 - left) * ndim, mode="circular")
        x = convolve(x, kernel, leaves[name]["bias"], stride=model.stride).relu() * math.sqrt(volume)
        total = total + (torch.tensor(weights[name]) * x.permute(first)).sum()
    output = x.flatten(2).mean(-1) @ leaves["head"]["readout"] / CHANNELS + leaves["head"]["bias"]
    close(outputs, output.detach())
    (total + (torch.tensor(weights["output"]) * output).sum()).backward()
    for name, layer in leaves.items():
        for kind, leaf in layer.items():
            close(gradients["params"][name][kind], leaf.grad, f"{name}/{kind}")
    close(image_gradient, given.grad)


def test_initial_weights_are_raw_standard_normals():
    """Kolmogorov and Smirnov's test at 0.1 %: of the 2,000 numbers of a kind it would see a scale off by a tenth."""
    model = models.SimpleCNN(layers=1, channels=2000, filter_size=3)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, 2)))["params"]
    for values in (params["conv01"]["kernel"], params["conv01"]["bias"], params["head"]["readout"]):
        assert scipy.stats.kstest(np.ravel(values), "norm").pvalue > 1e-3


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_second_moments_of_random_networks(activation):
    """Given a layer of second moment m, the next one's is n_F (m + 1), and half of it behind the ReLU.

    The mean over 32 networks of 64 channels: of a squared ReLU of a normal, the standard deviation is √5 of its mean,
    so at most √5/√2048 = 5 % a layer if all positions were alike, and 9 % for the three layers; 4 of these.
    """
    model, images = network("2d even", activation=activation, channels=64, layers=3), images_of("2d even")
    means = dict.fromkeys(("conv01", "conv02", "conv03"), 0.0)
    for seed in range(32):
        _, taps = forward(model, draw(model, images, seed), images)
        means = {name: mean + float(np.square(taps[name]).mean()) / 32 for name, mean in means.items()}
    expected = float(np.square(images).mean())
    for name in means:
        expected = 4 * (expected + 1) * (0.5 if activation == "relu" else 1)
        np.testing.assert_allclose(means[name], expected, rtol=0.36, err_msg=name)


@pytest.mark.parametrize("case", ["1d even", "2d"])
def test_stride_one_commutes_with_circular_shifts(case):
    images = images_of(case)
    axes = tuple(range(1, images.ndim - 1))
    shift = (2, -1)[: len(axes)]
    *_, (outputs, taps, _) = computed(case, images)
    *_, (moved_outputs, moved, _) = computed(case, np.roll(images, shift, axes))
    close(moved_outputs, outputs)
    for name, tap in taps.items():
        close(moved[name], np.roll(tap, shift, axes), name)


def test_stride_f_commutes_with_shifts_by_whole_windows():
    images = images_of("1d tiled")
    *_, (_, taps, _) = computed("1d tiled", images)
    for shift, layers in ((9, ("conv01", "conv02")), (3, ("conv01",))):
        *_, (_, moved, _) = computed("1d tiled", np.roll(images, shift, 1))
        for layer in layers:
            close(moved[layer], np.roll(taps[layer], shift // 3 ** int(layer[-1]), 1))
    assert np.abs(moved["conv02"] - taps["conv02"]).max() > 0.1  # by one window of the first layer only


def test_the_linear_network_superposes_and_has_the_same_parameters():
    case = "1d even"
    images, model = images_of(case), network(case, activation="linear")
    variables = draw(model, images)
    assert jax.eval_shape(network(case).init, jax.random.key(0), images) == jax.eval_shape(
        model.init, jax.random.key(0), images
    )
    batch = np.concatenate([images, images[:1] + images[1:], 0 * images[:1]])
    for activation in ("linear", "relu"):
        outputs, taps = forward(network(case, activation=activation), variables, batch)
        for tap in (taps["conv02"], outputs):
            difference = np.abs(tap[0] + tap[1] - tap[2] - tap[3]).max()
            assert (difference < 1e-4) == (activation == "linear")
    for name, tap in by_loops(model, variables["params"], batch)[1].items():
        close(forward(model, variables, batch)[1][name], tap, name)


def shapes(name, image, **settings):
    model = models.create(name, **settings)
    images = jnp.zeros((2, *image))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs, taps = jax.eval_shape(model.apply, variables, images)
    return variables["params"], outputs.shape, {name: tap.shape for name, tap in taps.items()}


def test_the_zoo_has_both_of_si():
    params, output, taps = shapes("simple_cnn_stride1", (32, 1), width=0.01)
    assert list(params) == sorted(params) == [*(f"conv{i:02d}" for i in range(1, 13)), "head"]
    assert jax.tree.map(jnp.shape, params["conv01"]) == {"kernel": (3, 1, 10), "bias": (10,)}
    assert jax.tree.map(jnp.shape, params["conv12"]) == {"kernel": (3, 10, 10), "bias": (10,)}
    assert jax.tree.map(jnp.shape, params["head"]) == {"readout": (10, 1), "bias": (1,)}
    assert output == (2, 1)
    assert list(taps) == ["input", *(name for name in params if name != "head")]
    assert set(taps.values()) == {(2, 32, 1), (2, 32, 10)}
    params, output, taps = shapes("simple_cnn_stride2", (128, 1))
    assert params["conv07"]["kernel"].shape == (2, 1000, 1000)
    assert [tap[1] for tap in taps.values()] == [128, 64, 32, 16, 8, 4, 2, 1]
    params, _, taps = shapes("simple_cnn_stride1", (32, 16, 3), width=0.002, layers=2, num_classes=10)
    assert params["conv01"]["kernel"].shape == (3, 3, 3, 2)
    assert taps["conv02"] == (2, 32, 16, 2)


@pytest.fixture(scope="module")
def probed():
    """A network of one dimension, images, and the same ones moved."""
    model, images = network("1d"), images_of("1d", count=4)
    return model, draw(model, images), images, np.roll(images, 1, 1)


def test_it_is_probed_like_any_other(probed):
    """SI's sensitivity under jit; the distances are numpy's."""
    model, variables, images, moved = probed
    represent = models.represent(model, variables, output=True)
    result = jax.jit(partial(probes.sensitivity, distance="squared", normaliser="mean"))(represent, images, moved)
    assert list(result) == ["input", "conv01", "conv02", "output"]
    clean, perturbed = (by_loops(model, variables["params"], x)[1]["conv02"].reshape(4, -1) for x in (images, moved))
    pairs = [np.square(clean[i] - clean[j]).sum() for i in range(4) for j in range(i)]
    expected = np.square(clean - perturbed).sum(axis=1).mean() / np.mean(pairs)
    np.testing.assert_allclose(result["conv02"], expected, rtol=1e-4)
    np.testing.assert_allclose(result["output"], 0, atol=1e-6)  # the mean over positions


def test_seeds_side_by_side_are_seeds_alone(probed):
    model, variables, images, _ = probed
    other = draw(model, images, seed=5)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), variables, other)
    outputs, taps = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(stacked, images)
    for i, one in enumerate((variables, other)):
        expected, expected_taps = forward(model, one, images)
        close(outputs[i], expected)
        close(taps["conv02"][i], expected_taps["conv02"])


def test_filters_are_found_and_changed(probed):
    """Kernels of rank 3 by probes made for images, and what a network is with them."""
    model, variables, images, _ = probed
    params = variables["params"]
    means = probes.filter_statistics(params, probes.mean_filter)
    powers = probes.filter_statistics(params, probes.laplacian_power)
    assert list(means) == list(powers) == ["conv01", "conv02"]
    for name, mean in means.items():
        kernel = np.float64(params[name]["kernel"])
        np.testing.assert_allclose(mean, kernel.mean((1, 2)), rtol=1e-5, atol=1e-6)
        modes = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
        power = np.square(np.einsum("lf,fio->lio", modes, kernel)).mean((1, 2))
        np.testing.assert_allclose(powers[name], power, rtol=1e-5)

    shuffled = probes.shuffle_channels(jax.random.key(1), params)
    for name in means:
        old, new = (np.moveaxis(p[name]["kernel"], 1, 0) for p in (params, shuffled))
        assert {one.tobytes() for one in old} == {np.asarray(one).tobytes() for one in new}
    assert not np.array_equal(shuffled["conv02"]["kernel"], params["conv02"]["kernel"])
    np.testing.assert_array_equal(shuffled["head"]["readout"], params["head"]["readout"])

    positive = {name: {**params[name], "bias": params[name]["bias"] + 3} for name in means}  # so that no ReLU is 0
    _, taps = forward(model, {"params": probes.mean_channel({**params, **positive})}, images)
    for name in means:
        close(taps[name], np.broadcast_to(taps[name][..., :1], taps[name].shape))
        assert np.ptp(taps[name][..., 0]) > 0.01


def test_computing_in_bfloat16_keeps_parameters_and_outputs_in_float32(probed):
    model, variables, images, _ = probed
    half = model.clone(compute_dtype="bfloat16")
    outputs, taps = forward(half, variables, images)
    exact, _ = forward(model, variables, images)
    assert outputs.dtype == jnp.float32
    assert taps["conv02"].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), images))} == {
        np.dtype("float32")
    }
    assert 0 < np.abs(outputs - exact).max() < 0.1  # 8 bits, of outputs of order one


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"stride": 2}, (2, 9, 1), "`stride` must be 1 or the filter size, 3, but 2 was given"),
        ({"stride": 0}, (2, 9, 1), "`stride` must be an integer ≥ 1, but 0 was given"),
        ({"stride": 3.0}, (2, 9, 1), "`stride` must be an integer"),
        ({"stride": 3}, (2, 12, 1), r"`images` must have sides that stride\^layers, 9, divides, but a side is 12"),
        ({"stride": 3}, (2, 9, 12, 1), "9, divides, but a side is 12. Use fewer layers"),
        ({}, (2, 2, 1), "`images` must have sides of at least the filter size, 3 pixels, but a side is 2"),
        ({}, (2, 9, 2, 1), "at least the filter size, 3 pixels, but a side is 2"),
        ({}, (9, 1), r"`images` must have shape \(n, length, c\) or \(n, h, w, c\), but it is \(9, 1\). Add a leading"),
        ({}, (2, 9, 9, 9, 1), r"but it is \(2, 9, 9, 9, 1\)"),
        ({}, (0, 9, 1), "`images` must not be empty"),
        ({"layers": 0}, (2, 9, 1), "`layers` must be an integer ≥ 1 and ≤ 99, but 0 was given"),
        ({"filter_size": 0}, (2, 9, 1), "`filter_size` must be an integer ≥ 1, but 0"),
        ({"channels": 0}, (2, 9, 1), "`channels` must be an integer ≥ 1, but 0"),
        ({"num_classes": 0}, (2, 9, 1), "`num_classes` must be an integer ≥ 1, but 0"),
        ({"width": 0.0}, (2, 9, 1), "`width` must be a finite number > 0"),
        ({"activation": "tanh"}, (2, 9, 1), "`activation` must be one of 'relu', 'linear', but 'tanh' "),
    ],
    ids=str,
)
def test_refuses(settings, shape, message):
    model = dataclasses.replace(models.SimpleCNN(layers=2, channels=4), **settings)
    with pytest.raises((ValueError, TypeError), match=message):
        model.init(jax.random.key(0), jnp.zeros(shape))


def test_refuses_images_of_integers():
    with pytest.raises(TypeError, match="`images` must hold floating-point numbers, but its dtype is uint8"):
        models.SimpleCNN(layers=1).init(jax.random.key(0), jnp.zeros((2, 9, 1), jnp.uint8))
