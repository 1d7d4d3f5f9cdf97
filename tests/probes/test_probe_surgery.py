"""Blurred and sharpened kernels against scipy's Gaussian filter, and which leaves are touched."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from deform_jax import probes

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)
SIGMAS = [0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 4.0]


def tree(kernel=KERNEL, **others):
    return {"conv": {"kernel": kernel, "bias": np.ones(4, np.float32)}, **others}


def scipy_blur(kernel, sigma):
    """scipy's own radius is ⌊truncate σ + ½⌋, so that it is given the radius; one spatial axis after another."""
    if sigma == 0:
        return np.float64(kernel)
    spatial = tuple(range(kernel.ndim - 2))
    radius = math.ceil(4 * sigma)
    return ndimage.gaussian_filter(np.float64(kernel), sigma, mode="constant", radius=radius, axes=spatial)


def variation(kernel):
    return float(probes.total_variation(kernel))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (3, 2, 4), (5, 2, 1, 2)])
def test_blur_is_scipys(sigma, shape):
    kernel = RNG.normal(size=shape).astype(np.float32)
    params = probes.smooth_filters(tree(kernel), sigma, size=shape[:-2])
    expected = scipy_blur(kernel, sigma)
    # 1e-6 of the largest entry: a few float32 roundings of a sum of 9
    np.testing.assert_allclose(params["conv"]["kernel"], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_a_blurred_impulse_is_the_gaussian_itself():
    impulse = np.zeros((3, 3, 1, 1), np.float32)
    impulse[1, 1] = 1
    gaussian = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    gaussian /= gaussian.sum()
    blurred = probes.smooth_filters(tree(impulse), 1.0)["conv"]["kernel"][:, :, 0, 0]
    np.testing.assert_allclose(blurred, np.outer(gaussian[3:6], gaussian[3:6]), rtol=1e-6)


@pytest.mark.parametrize("same_norm", [False, True])
def test_no_blur_and_no_amount_change_nothing(same_norm):
    for params in (
        probes.smooth_filters(tree(), 0, same_norm=same_norm),
        probes.sharpen_filters(tree(), 0.0, same_norm=same_norm),
    ):
        tolerance = 3e-7 if same_norm else 0.0  # the ratio of two norms, of which jit may round one differently
        np.testing.assert_allclose(params["conv"]["kernel"], KERNEL, rtol=tolerance)
    params = probes.sharpen_filters(tree(), 2.0, sigma=0.0, same_norm=same_norm)
    np.testing.assert_allclose(params["conv"]["kernel"], KERNEL, rtol=1e-6)


def test_hardly_any_blur():
    """Whose Gaussian's exponents overflow on the way."""
    for sigma in (1e-3, 1e-200, 5e-324):
        np.testing.assert_array_equal(probes.smooth_filters(tree(), sigma)["conv"]["kernel"], KERNEL)


@pytest.mark.parametrize("amount", [-2.0, -1.0, -0.5, 0.7, 3.0])
@pytest.mark.parametrize("same_norm", [False, True])
def test_sharpening_matches_its_formula(amount, same_norm):
    kernel = np.float64(KERNEL)
    expected = kernel + amount * (kernel - scipy_blur(kernel, 0.8))
    if same_norm:
        expected *= np.linalg.norm(kernel) / np.linalg.norm(expected)
    result = probes.sharpen_filters(tree(), amount, sigma=0.8, same_norm=same_norm)["conv"]["kernel"]
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_minus_one_is_the_blur():
    for same_norm in (False, True):
        blurred = probes.smooth_filters(tree(), 1.3, same_norm=same_norm)
        negative = probes.sharpen_filters(tree(), -1.0, sigma=1.3, same_norm=same_norm)
        np.testing.assert_array_equal(negative["conv"]["kernel"], blurred["conv"]["kernel"])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norm_is_kept_at_every_scale(scale):
    kernel = KERNEL * np.float32(scale)
    for params in (
        probes.smooth_filters(tree(kernel), 4.0, same_norm=True),
        probes.sharpen_filters(tree(kernel), 5.0),
    ):
        result = np.float64(params["conv"]["kernel"])
        np.testing.assert_allclose(np.linalg.norm(result), np.linalg.norm(np.float64(kernel)), rtol=1e-6)


def test_blurring_smooths_and_sharpening_roughens():
    rough = RNG.normal(size=(3, 3, 8, 8)).astype(np.float32)
    blurred = [variation(probes.smooth_filters(tree(rough), sigma)["conv"]["kernel"]) for sigma in SIGMAS]
    assert (np.diff(blurred) < 0).all()
    smooth = scipy_blur(rough, 0.7).astype(np.float32)  # as training leaves filters
    roughened = [
        variation(probes.sharpen_filters(tree(smooth), amount)["conv"]["kernel"]) for amount in np.linspace(-1, 4, 11)
    ]
    assert (np.diff(roughened) > 0).all()
    assert roughened[0] < variation(smooth) < roughened[-1]


def test_kernels_of_zeros():
    zero = np.zeros((3, 3, 2, 2), np.float32)
    for same_norm in (False, True):
        np.testing.assert_array_equal(probes.smooth_filters(tree(zero), 1.0, same_norm=same_norm)["conv"]["kernel"], 0)

    def total(kernel, amount):
        return probes.sharpen_filters(tree(kernel), amount)["conv"]["kernel"].sum()

    gradients = jax.grad(total, (0, 1))(zero, 1.0)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    # blurred, this one leaves float32's range: 0 or a denormal, which cannot have the old norm
    spike = np.zeros((3, 1, 1), np.float32)
    spike[1] = 1e-36
    faded = probes.smooth_filters(tree(spike), 1e4, same_norm=True)["conv"]["kernel"]
    assert np.isfinite(faded).all()


def test_only_those_kernels_change():
    others = {
        "wide": {"kernel": np.ones((5, 5, 1, 2), np.float32)},
        "line": {"w": RNG.normal(size=(3, 1, 2)).astype(np.float32)},
        "point": {"kernel": np.ones((1, 1, 2, 2), np.float32)},
        "head": {"kernel": np.ones((4, 3), np.float32)},
        "half": {"kernel": jnp.asarray(KERNEL, jnp.bfloat16)},
        "counts": [np.arange(3)],
    }
    params = tree(**others)
    result = probes.smooth_filters(params, 1.0)
    assert jax.tree.structure(result) == jax.tree.structure(params)
    changed = {
        jax.tree_util.keystr(path)
        for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(result), strict=True)
        if old is not new
    }
    assert changed == {"['conv']['kernel']", "['half']['kernel']", "['line']['w']"}
    assert result["half"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(result["half"]["kernel"]), scipy_blur(KERNEL, 1.0), atol=0.01)
    assert probes.smooth_filters(params, 1.0, size=(5, 5))["line"]["w"] is others["line"]["w"]
    every = probes.smooth_filters(params, 1.0, size=None)
    assert every["wide"]["kernel"] is not others["wide"]["kernel"]
    assert every["point"]["kernel"] is others["point"]["kernel"]


def test_traced_amounts_and_kernels():
    seeds = np.stack([KERNEL, KERNEL**2])
    amounts = jnp.float32([-0.5, 2.0])
    result = jax.jit(jax.vmap(lambda kernel, amount: probes.sharpen_filters(tree(kernel), amount)))(seeds, amounts)
    for i in range(2):
        expected = probes.sharpen_filters(tree(seeds[i]), float(amounts[i]))
        np.testing.assert_allclose(result["conv"]["kernel"][i], expected["conv"]["kernel"], atol=2e-6)


def test_gradients_match_differences():
    towards = RNG.normal(size=KERNEL.shape).astype(np.float32)

    def total(kernel, amount):
        return jnp.sum(jnp.sin(probes.sharpen_filters(tree(kernel), amount)["conv"]["kernel"]))

    def exact(kernel, amount):
        result = kernel + amount * (kernel - scipy_blur(kernel, 1.0))
        return np.sum(np.sin(result * np.linalg.norm(kernel) / np.linalg.norm(result)))

    gradient, slope = jax.grad(total, (0, 1))(KERNEL, 0.5)
    step = 1e-6  # in float64: truncation 1e-12, rounding 1e-10
    kernels = [exact(KERNEL + sign * step * np.float64(towards), 0.5) for sign in (1, -1)]
    amounts = [exact(np.float64(KERNEL), 0.5 + sign * step) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(gradient * towards), np.subtract(*kernels) / (2 * step), rtol=1e-4)
    np.testing.assert_allclose(slope, np.subtract(*amounts) / (2 * step), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: probes.smooth_filters(tree(), -1.0), ValueError, r"`sigma` must be a finite number ≥ 0 .*but -1.0"),
        (lambda: probes.smooth_filters(tree(), 1e5), ValueError, r"`sigma` must .*≤ 10000.0, but 100000.0"),
        (lambda: probes.smooth_filters(tree(), "1"), TypeError, r"`sigma` must be a finite number"),
        (
            lambda: jax.jit(lambda s: probes.smooth_filters(tree(), s))(1.0),
            TypeError,
            r"`sigma` must .*traced.* static",
        ),
        (lambda: probes.sharpen_filters(tree(), np.nan), ValueError, r"`amount` must be a finite number, but nan"),
        (lambda: probes.sharpen_filters(tree(), [1.0]), TypeError, r"`amount` must be a finite number"),
        (lambda: probes.smooth_filters({}, 1.0), ValueError, r"`params` must hold a convolution kernel"),
        (lambda: probes.smooth_filters(tree(), 1.0, size=5), ValueError, r"of `size` 5, but .*sizes \(3, 3\)\. Choose"),
        (lambda: probes.smooth_filters(tree(), 1.0, size=0), ValueError, r"`size` must be an integer ≥ 1"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()
