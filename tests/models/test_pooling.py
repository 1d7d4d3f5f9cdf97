"""Pooling with windows other than 2 × 2: against PyTorch, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import models

torch = pytest.importorskip("torch")


def distinct(shape):
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)


def theirs(layer, images):
    return layer(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (2, 1, 1)])
def test_max_pool_is_pytorch_s_in_value_and_gradient(window, stride, padding):
    images = distinct((2, 9, 8, 3))  # no ties
    given = torch.tensor(images, requires_grad=True)
    expected = theirs(torch.nn.MaxPool2d(window, stride, padding), given)
    weights = np.random.default_rng(1).normal(size=tuple(expected.shape)).astype(np.float32)
    (torch.tensor(weights) * expected).sum().backward()

    def both(x, weights):
        pooled, pull_back = jax.vjp(lambda x: models.max_pool(x[None], **settings)[0], x)
        return pooled, pull_back(weights)[0]

    settings = {"window": window, "stride": stride, "padding": padding}
    pooled, gradients = jax.jit(jax.vmap(both))(images, weights)
    np.testing.assert_array_equal(pooled, expected.detach())
    np.testing.assert_allclose(gradients, given.grad, rtol=1e-6, atol=1e-6)  # sums of up to four


@pytest.mark.parametrize("shape", [(7, 7), (6, 6), (3, 5), (1, 1)])
@pytest.mark.parametrize("size", [(9, 14), (2, 3), (7, 7)])
def test_adaptive_average_pool_is_pytorch_s(size, shape):
    images = np.random.default_rng(2).normal(size=(2, *size, 3)).astype(np.float32)
    given = torch.tensor(images, requires_grad=True)
    expected = theirs(torch.nn.AdaptiveAvgPool2d(shape), given)
    assert expected.shape == (2, *shape, 3)
    result = models.adaptive_average_pool(jnp.asarray(images), shape)
    np.testing.assert_allclose(result, expected.detach(), rtol=1e-5, atol=1e-6)
    if (size, shape) == ((9, 14), (7, 7)):
        weights = np.random.default_rng(3).normal(size=expected.shape).astype(np.float32)
        (torch.tensor(weights) * expected).sum().backward()
        gradient = jax.jit(jax.grad(lambda x: (weights * models.adaptive_average_pool(x, shape)).sum()))(images)
        np.testing.assert_allclose(gradient, given.grad, rtol=1e-5, atol=1e-6)


def test_adaptive_average_of_half_precision_is_rounded_once():
    images = jnp.asarray(np.random.default_rng(4).normal(1, 0.01, size=(1, 5, 5, 2)), jnp.bfloat16)
    result = models.adaptive_average_pool(images, (3, 3))
    exact = models.adaptive_average_pool(images.astype(jnp.float32), (3, 3))
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: models.max_pool(x, window=3), "`images` must be at least as large as the 3 × 3 window, .* 4 × 2"),
        (lambda x: models.max_pool(x, window=0), "`window` must be an integer ≥ 1, but 0"),
        (lambda x: models.max_pool(x, stride=0), "`stride` must be an integer ≥ 1, but 0"),
        (lambda x: models.max_pool(x, padding=2), "`padding` must be an integer ≥ 0 and ≤ 1, but 2"),
        (lambda x: models.adaptive_average_pool(x, (0, 1)), "`shape` must be a pair of integers .* each ≥ 1"),
    ],
)
def test_refuses_impossible_windows(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 4, 2, 1)))
