"""Distances against float64, scipy, and their documented conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance

from deform_jax import probes


def exact_cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return 0.5 * np.sum((a - b) ** 2, axis=-1)


def vectors(features, closeness=1.0, n=8, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, features))
    b = a * (1 + closeness) + closeness * rng.normal(size=(n, features))
    return a.astype(np.float32), b.astype(np.float32)


def test_scipy_agrees():
    a, b = vectors(50)
    expected = [scipy_distance.cosine(x, y) for x, y in zip(a.astype(float), b.astype(float), strict=True)]
    np.testing.assert_allclose(probes.cosine_distance(a, b), expected, rtol=1e-6)
    expected = [scipy_distance.sqeuclidean(x, y) for x, y in zip(a.astype(float), b.astype(float), strict=True)]
    np.testing.assert_allclose(probes.squared_distance(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(probes.euclidean_distance(a, b), np.sqrt(expected), rtol=1e-6)


@pytest.mark.parametrize("features", [3, 64, 5000])
@pytest.mark.parametrize("closeness", [1e-2, 3e-4, 1e-5, 1e-6])
def test_relative_accuracy_of_small_distances(features, closeness):
    # Distances from 5e-5 to 5e-13, of vectors whose lengths differ too. The inputs are float32, the reference is exact
    # for them, so 1e-6 (about 8 roundings) bounds the arithmetic alone; 1 − cos is off by 100 % below 1e-7.
    a, b = vectors(features, closeness)
    np.testing.assert_allclose(probes.cosine_distance(a, b), exact_cosine(a, b), rtol=1e-6)
    exact = np.sum((a.astype(np.float64) - b) ** 2, axis=-1)
    np.testing.assert_allclose(probes.squared_distance(a, b), exact, rtol=1e-6)
    np.testing.assert_allclose(probes.euclidean_distance(a, b), np.sqrt(exact), rtol=1e-6)


def test_close_vectors_on_both_sides_of_a_power_of_two():
    a, b = np.float32([[0.9999999, 0.3]]), np.float32([[1.0000001, 0.3]])
    np.testing.assert_allclose(probes.cosine_distance(a, b), exact_cosine(a, b), rtol=1e-6)


@pytest.mark.parametrize("scale_a", [1e-35, 1.0, 1e37])
@pytest.mark.parametrize("scale_b", [1e-35, 1e-10, 1e37])
def test_tiny_and_huge_vectors(scale_a, scale_b):
    a, b = vectors(10)
    a, b = np.sign(a) + a, np.sign(b) + b  # no entry so small that it would underflow
    a, b = (a * scale_a).astype(np.float32), (b * scale_b).astype(np.float32)
    np.testing.assert_allclose(probes.cosine_distance(a, b), exact_cosine(a, b), rtol=1e-6)
    exact = np.linalg.norm(a.astype(float) - b, axis=-1)
    np.testing.assert_allclose(probes.euclidean_distance(a, b), exact, rtol=1e-6)
    for distance in (probes.cosine_distance, probes.euclidean_distance):
        assert np.isfinite(jax.grad(lambda x, d=distance: d(x, b).sum())(a)).all()


def test_special_values():
    a = np.float32([[1, 2], [1, 2], [1, 2], [3, 4], [0, 0], [3, 4], [0, 0]])
    b = np.float32([[1, 2], [2, 4], [-1, -2], [-4, 3], [3, 4], [0, 0], [0, 0]])
    # the same, parallel, opposite, orthogonal; then one zero vector, the other, both
    np.testing.assert_allclose(probes.cosine_distance(a, b), [0, 0, 2, 1, 1, 1, 0], atol=1e-7)
    assert np.isnan(probes.cosine_distance(np.float32([np.nan, 1]), np.float32([0, 0])))


def test_constants_in_a_jitted_function():
    # XLA rewrites products of constants: (b·s)² as b²·s², where the one underflows and the other overflows
    b = np.float32([[1, 2], [0, 0], [1e-35, 2e-35], [1e37, 2e37]])
    a = np.float32([[3, 1], [3, 1], [3e-35, 1e-35], [3e37, 1e37]])
    expected = [*exact_cosine(a[:1], b[:1]), 1, *exact_cosine(a[2:], b[2:])]
    np.testing.assert_allclose(jax.jit(lambda a: probes.cosine_distance(a, b))(a), expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(lambda a: probes.cosine_distance(a, b))(b), 0)


def test_gradients_are_zero_at_zero_and_right_elsewhere():
    zero, b = np.zeros(2, np.float32), np.float32([3, 4])
    for x, y in ((zero, b), (b, zero), (zero, zero), (b, b)):
        for gradient in jax.jit(jax.grad(probes.cosine_distance, (0, 1)))(x, y):
            np.testing.assert_array_equal(gradient, 0)
    a, b = (v[0].astype(np.float64) for v in vectors(6))
    # ∂d/∂a = (cos·a/‖a‖ − b/‖b‖)/‖a‖
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    expected = ((u @ v) * u - v) / np.linalg.norm(a)
    np.testing.assert_allclose(jax.grad(probes.cosine_distance)(jnp.float32(a), jnp.float32(b)), expected, rtol=1e-5)
    np.testing.assert_array_equal(jax.jit(jax.grad(probes.euclidean_distance))(zero, zero), 0)
    expected = (a - b) / np.linalg.norm(a - b)
    gradient = jax.grad(probes.euclidean_distance)(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("distance", [probes.cosine_distance, probes.squared_distance, probes.euclidean_distance])
def test_leading_axes_jit_and_vmap(distance):
    a, b = vectors(5, n=12)
    a, b = a.reshape(3, 4, 5), b.reshape(3, 4, 5)
    plain = distance(a, b)
    assert plain.shape == (3, 4)
    np.testing.assert_allclose(jax.jit(distance)(a, b), plain, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(distance))(a, b), plain, rtol=1e-6)
    assert distance(a[0, 0], b[0, 0]).shape == ()


@pytest.mark.parametrize("distance", [probes.cosine_distance, probes.squared_distance])
def test_half_precision_is_widened(distance):
    a, b = (jnp.asarray(v, jnp.bfloat16) for v in vectors(4000, 0.1))
    result = distance(a, b)
    assert result.dtype == jnp.float32
    exact = (
        exact_cosine(a, b) if distance is probes.cosine_distance else np.sum((np.float64(a) - np.float64(b)) ** 2, -1)
    )
    np.testing.assert_allclose(result, exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "error", "text"),
    [
        (np.ones(3, int), np.ones(3), TypeError, r"`a` must hold floating-point numbers"),
        (np.ones(3), "b", TypeError, r"`b` must be an array of shape"),
        (np.ones(3), np.ones(4), ValueError, r"`b` must have the shape of `a`, \(3,\), but its shape is \(4,\)"),
        (np.float32(1), np.float32(1), ValueError, r"`a` must have shape \(\.\.\., features\)"),
        (np.ones((2, 0)), np.ones((2, 0)), ValueError, r"`a` must not be empty"),
    ],
)
def test_bad_input(a, b, error, text):
    for distance in (probes.cosine_distance, probes.squared_distance, probes.euclidean_distance):
        with pytest.raises(error, match=text):
            distance(a, b)
