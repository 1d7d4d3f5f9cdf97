"""Losses against scipy, and recipes against stochastic gradient descent and Adam written out in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from deform_jax import training
from deform_jax.training import losses

RNG = np.random.default_rng(0)
LOGITS = (5 * RNG.normal(size=(7, 4))).astype(np.float32)
LABELS = RNG.integers(0, 4, 7)
cross_entropy = jax.jit(training.cross_entropy, static_argnames="smoothing")


def test_cross_entropy_is_scipys():
    expected = -scipy.special.log_softmax(np.float64(LOGITS), axis=1)[np.arange(7), LABELS]
    result = cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)  # float32 rounding of logits up to 15
    halves = cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), LABELS)
    assert halves.dtype == jnp.float32
    np.testing.assert_allclose(halves, expected, atol=0.1)  # inputs rounded to 8 bits, at most 0.03 each


def test_cross_entropy_gradient_and_extremes():
    gradient = jax.jit(jax.grad(lambda x: training.cross_entropy(x, LABELS).sum()))(LOGITS)
    expected = scipy.special.softmax(np.float64(LOGITS), axis=1) - np.eye(4)[LABELS]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    large = training.cross_entropy(jnp.asarray([[1e4, -1e4]]), jnp.asarray([1]))  # without jit
    np.testing.assert_allclose(large, [2e4])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_is_optax_s(smoothing):
    labels = optax.smooth_labels(jax.nn.one_hot(LABELS, 4), smoothing)
    value_and_gradient = lambda f: jax.jit(jax.value_and_grad(lambda x: f(x).sum()))(LOGITS)  # noqa: E731
    ours = value_and_gradient(lambda x: training.cross_entropy(x, jnp.asarray(LABELS), smoothing=smoothing))
    theirs = value_and_gradient(lambda x: optax.softmax_cross_entropy(x, labels))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
    # In closed form: with equal logits every smoothed label costs log 4.
    flat = cross_entropy(np.zeros((1, 4), np.float32), np.zeros(1, int), smoothing=smoothing)
    np.testing.assert_allclose(flat, np.log(4), rtol=1e-6)


def test_correct_counts_the_largest_logit():
    expected = (LOGITS.argmax(1) == LABELS).astype(np.float32)
    np.testing.assert_array_equal(losses.correct(jnp.asarray(LOGITS), jnp.asarray(LABELS)), expected)
    assert not np.any(jax.grad(lambda x: losses.correct(x, jnp.asarray(LABELS)).sum())(jnp.asarray(LOGITS)))


def rate(recipe, step, steps_per_epoch):
    """Linear from 0 over the warm-up, then constant or half a cosine to 0."""
    total, warmup = recipe.epochs * steps_per_epoch, round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.learning_rate * step / warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) / 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "constant"},
        {"momentum": 0},
        {"weight_decay": 0},
        {"warmup_epochs": 1},
        {"warmup_epochs": 0.7},
        {"warmup_epochs": 1.5, "schedule": "constant"},
        {"method": "adam"},
        {"method": "adam", "momentum": 0.5, "schedule": "constant", "warmup_epochs": 1},
    ],
    ids=str,
)
def test_recipe_is_stochastic_gradient_descent_or_adam(changes):
    """A quadratic loss ½ Σ a (w − t)², whose gradient numpy knows; weight decay adds to it before the momentum."""
    recipe = training.Recipe(**{"learning_rate": 0.2, "weight_decay": 0.1, "epochs": 4, **changes})
    steps_per_epoch, shapes = 3, {"conv": {"kernel": (2, 3), "bias": (3,)}, "norm": {"scale": (3,), "bias": (3,)}}
    rng = np.random.default_rng(1)
    draw = lambda: jax.tree.map(lambda s: rng.normal(size=s), shapes, is_leaf=lambda s: isinstance(s, tuple))  # noqa: E731
    curvature, target, weights = jax.tree.map(np.abs, draw()), draw(), draw()
    velocity, square = (jax.tree.map(np.zeros_like, weights) for _ in range(2))
    optimizer = recipe.optimizer(steps_per_epoch)
    params = jax.tree.map(np.float32, weights)
    state = optimizer.init(params)
    a, t = jax.tree.map(np.float32, (curvature, target))

    @jax.jit
    def descend(params, state):
        gradients = jax.tree.map(lambda a, w, t: a * (w - t), a, params, t)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(recipe.epochs * steps_per_epoch):
        params, state = descend(params, state)
        for layer, kinds in shapes.items():
            for kind in kinds:
                w = weights[layer][kind]
                gradient = curvature[layer][kind] * (w - target[layer][kind])
                if kind == "kernel":
                    gradient = gradient + recipe.weight_decay * w
                if recipe.method == "adam":  # Kingma & Ba 2014, algorithm 1
                    velocity[layer][kind] = recipe.momentum * velocity[layer][kind] + (1 - recipe.momentum) * gradient
                    square[layer][kind] = 0.999 * square[layer][kind] + 0.001 * gradient**2
                    first = velocity[layer][kind] / (1 - recipe.momentum ** (step + 1))
                    second = square[layer][kind] / (1 - 0.999 ** (step + 1))
                    direction = first / (np.sqrt(second) + 1e-8)
                else:
                    direction = velocity[layer][kind] = recipe.momentum * velocity[layer][kind] + gradient
                weights[layer][kind] = w - rate(recipe, step, steps_per_epoch) * direction
        # Float32 rounding, at most doubled by each of 12 steps' momentum.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), params, weights)


def test_the_cosine_ends_at_zero():
    optimizer = training.Recipe(epochs=2).optimizer(3)
    params = {"kernel": jnp.ones(2)}
    state = optimizer.init(params)
    for _ in range(6):
        _, state = optimizer.update(params, state, params)
    updates, _ = optimizer.update(params, state, params)
    np.testing.assert_array_equal(updates["kernel"], np.zeros(2))


def test_recipes_are_values():
    assert training.Recipe() == training.Recipe(0.1, 0.9, 5e-4, "cosine", 0.0, 128, 100)
    assert hash(training.Recipe(epochs=3)) == hash(training.Recipe(epochs=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        training.Recipe().epochs = 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 0, "`learning_rate` must be a finite number > 0, but 0 was given"),
        ("learning_rate", float("inf"), "`learning_rate` must be a finite number > 0, but inf"),
        ("momentum", 1.1, "`momentum` must be a finite number ≥ 0 and ≤ 1, but 1.1"),
        ("weight_decay", -1, "`weight_decay` must be a finite number ≥ 0, but -1"),
        ("schedule", "linear", "`schedule` must be one of 'cosine', 'constant', but 'linear'"),
        ("batch_size", 0, "`batch_size` must be an integer ≥ 1, but 0"),
        ("batch_size", 12.0, "`batch_size` must be an integer ≥ 1, but 12.0"),
        ("epochs", 0, "`epochs` must be an integer ≥ 1, but 0"),
        ("warmup_epochs", 101, "`warmup_epochs` must be a finite number ≥ 0 and ≤ 100, but 101"),
        ("method", "adamw", "`method` must be one of 'sgd', 'adam', but 'adamw'"),
        ("label_smoothing", -0.1, "`label_smoothing` must be a finite number ≥ 0, but -0.1"),
        ("label_smoothing", 1, "`label_smoothing` must be below 1, but 1 was given"),
    ],
)
def test_recipe_refuses(field, value, message):
    with pytest.raises((ValueError, TypeError), match=message):
        training.Recipe(**{field: value})


def test_adam_s_first_moment_must_fade():
    with pytest.raises(ValueError, match="`momentum` must be below 1 for Adam, but 1 was given"):
        training.Recipe(method="adam", momentum=1)
    assert training.Recipe(momentum=1).method == "sgd"
