"""The pure step against a loop written out with ``jax.grad``; batch order; augmentation keys."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_toys as toys

from deform_jax import training

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 16, 8, 8, 1)), jnp.float32)
LABELS = jnp.asarray(np.random.default_rng(1).integers(0, toys.CLASSES, (6, 16)))


@pytest.fixture(scope="module")
def start():
    return toys.state()


@pytest.fixture(scope="module")
def trail(start):
    """The states before and after each of six steps, and their metrics."""
    states, metrics = [start], []
    for images, labels in zip(IMAGES, LABELS, strict=True):
        state, measured = toys.step(states[-1], {"images": images, "labels": labels})
        states.append(state)
        metrics.append(measured)
    return states, metrics


def test_equals_a_loop_written_out(trail):
    """Momentum 0.9, and weight decay 5e-4 on kernels only."""
    states, metrics = trail

    @jax.jit
    def by_hand(params, batch_stats, velocity, images, labels):
        def loss_of(params):
            variables = {"params": params, "batch_stats": batch_stats}
            (logits, _), new = toys.MODEL.apply(variables, images, train=True, mutable=["batch_stats"])
            logits = logits - logits.max(axis=1, keepdims=True)
            chosen = (logits * jax.nn.one_hot(labels, toys.CLASSES)).sum(axis=1)
            loss = jnp.mean(jnp.log(jnp.exp(logits).sum(axis=1)) - chosen)
            return loss, (new["batch_stats"], jnp.mean(logits.argmax(axis=1) == labels))

        (loss, (batch_stats, accuracy)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)

        def decayed(path, g, w):
            return g + 5e-4 * w if path[-1].key == "kernel" else g

        gradient = jax.tree_util.tree_map_with_path(decayed, gradient, params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda w, v: w - 0.1 * v, params, velocity)
        return params, batch_stats, velocity, loss, accuracy

    params, batch_stats = states[0].params, states[0].batch_stats
    velocity = jax.tree.map(jnp.zeros_like, params)
    for i in range(len(metrics)):
        params, batch_stats, velocity, loss, accuracy = by_hand(params, batch_stats, velocity, IMAGES[i], LABELS[i])
        np.testing.assert_allclose(metrics[i]["loss"], loss, rtol=1e-4)
        np.testing.assert_allclose(metrics[i]["accuracy"], accuracy)
    # Float32 rounding after six steps of a net with batch norm; seen: 1e-6.
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)  # noqa: E731
    jax.tree.map(compare, states[-1].variables, {"params": params, "batch_stats": batch_stats})


def test_smoothed_labels_in_half_precision():
    """The loss of bfloat16 activations and smoothed labels, as optax has it, and parameters that stay in float32."""
    model, recipe = toys.MODEL.clone(compute_dtype="bfloat16"), dataclasses.replace(toys.RECIPE, label_smoothing=0.3)
    state = training.create_state(model, recipe, jax.random.key(0), (8, 8, 1), toys.STEPS)
    apply = jax.jit(functools.partial(toys.MODEL.apply, train=True, mutable=["batch_stats"]))
    (logits, _), _ = apply(state.variables, IMAGES[0])
    labels = logits.argmax(axis=1)  # labels that the network gives, so that smoothing them costs something
    after, metrics = jax.jit(training.train_step)(state, {"images": IMAGES[0], "labels": labels})
    learned = {leaf.dtype for leaf in jax.tree.leaves((after.params, after.batch_stats, after.opt_state))}
    assert learned <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert jax.tree.all(jax.tree.map(lambda a: bool(np.isfinite(a).all()), after.params))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, toys.CLASSES), 0.3)
    smoothed = optax.softmax_cross_entropy(logits, targets).mean()
    np.testing.assert_allclose(metrics["loss"], smoothed, rtol=0.01)  # bfloat16 keeps 8 bits
    assert smoothed > 1.03 * optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_totals_cover_the_epoch_so_far(trail):
    states, metrics = trail
    for i, state in enumerate(states[1:]):
        epoch = metrics[i // toys.STEPS * toys.STEPS : i + 1]
        assert float(state.totals["count"]) == 16 * len(epoch)
        np.testing.assert_allclose(state.totals["loss"], 16 * sum(float(m["loss"]) for m in epoch), rtol=1e-6)
        np.testing.assert_allclose(state.totals["correct"], 16 * sum(float(m["accuracy"]) for m in epoch), rtol=1e-6)
        assert int(state.step) == i + 1


def test_the_step_is_pure(start, trail):
    again, _ = toys.step(start, {"images": IMAGES[0], "labels": LABELS[0]})
    toys.assert_identical(again.variables, trail[0][1].variables)
    assert int(start.step) == 0


def test_the_initial_state_depends_on_the_key_only(start):
    fresh = [toys.state(seed) for seed in (0, 1)]
    toys.assert_identical(fresh[0].variables, start.variables)
    assert np.any(fresh[1].params["head"]["kernel"] != start.params["head"]["kernel"])
    assert start.variables.keys() == {"params", "batch_stats"}


def test_epoch_order_is_a_fresh_permutation(key):
    orders = {epoch: np.asarray(training.epoch_order(key, epoch, 67, 16)) for epoch in range(3)}
    for order in orders.values():
        assert order.shape == (4, 16)
        assert order.dtype == np.int32
        assert len(np.unique(order)) == 64
        assert order.min() >= 0
        assert order.max() < 67
    assert not np.array_equal(orders[0], orders[1])
    assert len({tuple(sorted(set(range(67)) - set(order.flat))) for order in orders.values()}) > 1  # others left out
    np.testing.assert_array_equal(training.epoch_order(key, 1, 67, 16), orders[1])
    assert not np.array_equal(training.epoch_order(jax.random.key(1), 1, 67, 16), orders[1])
    assert sorted(np.asarray(training.epoch_order(key, 0, 64, 16)).flat) == list(range(64))


def test_the_indexed_step_gathers_and_augments_by_position(start, trail):
    """Augmentation keys are fold_in(fold_in(fold_in(key, epoch), step in the epoch), position in the batch)."""
    state = trail[0][5]  # the second step of the second epoch
    order = np.random.default_rng(2).permutation(67)[:16].astype(np.int32)
    key = jax.random.fold_in(jax.random.fold_in(start.key, 1), 1)
    keys = jnp.stack([jax.random.fold_in(key, position) for position in range(16)])
    batch = {
        "images": jax.jit(toys.AUGMENTED)(keys, toys.TRAIN["images"][order]),
        "labels": toys.TRAIN["labels"][order],
    }
    expected, _ = toys.step(state, batch)
    whole = {**jax.tree.map(jnp.asarray, toys.TRAIN), "order": jnp.asarray(order)}
    indexed = jax.jit(lambda s, b: training.indexed_train_step(s, b, prepare=toys.AUGMENTED))
    result, _ = indexed(state, whole)
    # The same numbers in another compiled program.
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(compare, result.variables, expected.variables)
