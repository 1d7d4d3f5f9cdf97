"""One optimiser step, pure; the same on raw images, and on a data set that lives on the device; and evaluation."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Integer

from deform_jax import checks
from deform_jax.training import losses
from deform_jax.training.given import check_batch, check_kind, check_prepare, check_trainable
from deform_jax.training.state import State
from deform_jax.typing import Images, PyTree, RandomKey

Prepare: TypeAlias = Callable[[Any, Array], Images]
"""(per-image keys (n,) or None, raw images (n, h, w, c)) → images as the network takes them. Compared by value."""
Metrics: TypeAlias = dict[str, jax.Array]
DROPOUT = 2**31 - 2
"""Folded into the run's key where epochs (data order, augmentation) and 2³¹ − 1 (initial weights) also are."""


def train_step(state: State, batch: Mapping[str, Array], *, axis_name: str | None = None) -> tuple[State, Metrics]:
    """Return the state after one optimiser step on ``batch``, and the step's ``loss`` and ``accuracy``.

    Dropout's key is ``fold_in(fold_in(fold_in(key, DROPOUT), step), index on the axis)``: networks with dropout, and
    they only, depend on how many devices share a batch.

    Args:
      state: the run's state.
      batch: ``images`` (n, h, w, c) floats as the network takes them, ``labels`` (n,) integers.
      axis_name: mapped axis over which the batch is split (inside ``jax.shard_map``), or None. The loss is averaged
        over that axis inside the differentiated function, so that gradients come out averaged too.

    Raises:
      TypeError, ValueError: not a state, one of a model without a field ``axis_name``, or a batch of other entries,
        shapes or kinds.
    """
    check_kind("state", state, State, "Make it with `training.create_state`.")
    check_trainable(state.model)
    check_batch(batch)
    model = state.model.clone(axis_name=axis_name)
    part = jax.lax.axis_index(axis_name) if axis_name else 0
    dropout = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), state.step), part)

    def mean_loss(params: PyTree) -> tuple[jax.Array, tuple[PyTree, jax.Array]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), updated = model.apply(
            variables, batch["images"], train=True, mutable=["batch_stats"], rngs={"dropout": dropout}
        )
        smoothing = state.recipe.label_smoothing
        loss = losses.of(state.recipe.loss, logits, batch["labels"], smoothing).mean()
        accuracy = losses.correct(logits, batch["labels"]).mean()
        if axis_name is not None:
            # One by one: jax 0.7.2 cannot differentiate the mean of a pair of which one has no gradient.
            loss = jax.lax.pmean(loss, axis_name)
            accuracy = jax.lax.pmean(accuracy, axis_name)
        return loss, (updated.get("batch_stats", {}), accuracy)

    (loss, (batch_stats, accuracy)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    optimizer = state.recipe.optimizer(state.steps_per_epoch)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    first = state.step % state.steps_per_epoch == 0
    count = jnp.float32(batch["labels"].shape[0] * (jax.lax.axis_size(axis_name) if axis_name else 1))
    sums = {"loss": loss * count, "correct": accuracy * count, "count": count}
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        totals={name: jnp.where(first, 0, state.totals[name]) + value for name, value in sums.items()},
    )
    return state, {"loss": loss, "accuracy": accuracy}


def epoch_order(key: RandomKey, epoch: int, n: int, batch_size: int) -> Integer[Array, "steps batch"]:
    """Return the image indices of every step of one epoch: a permutation of 0 … n − 1, its remainder dropped.

    Args:
      key: the run's random key.
      epoch: from 0; may be traced.
      n: number of images.
      batch_size: images per step.

    Returns:
      (n // batch_size, batch_size) integers.

    Raises:
      TypeError, ValueError: no key or more than one, or numbers out of range.
    """
    checks.key(key, remedy="Each run has a key of its own.")
    if not checks.is_traced(epoch):
        epoch = checks.integer("epoch", epoch, minimum=0, maximum=2**31 - 1)
    n = checks.integer("n", n, minimum=1)
    batch_size = checks.integer("batch_size", batch_size, minimum=1, maximum=2**31 - 1)
    checks.entries("n", n)
    steps = n // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), n)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def prepared_train_step(
    state: State, batch: Mapping[str, Array], *, prepare: Prepare, axis_name: str | None = None
) -> tuple[State, Metrics]:
    """Augment and standardise a batch on the device, then ``train_step``.

    Every image's augmentation key is ``fold_in(fold_in(fold_in(key, epoch), step), position in the whole batch)``, so
    that the same images come out whatever the number of devices.

    Args:
      state: the run's state.
      batch: ``images`` (n, h, w, c) uint8 and ``labels`` (n,), the part of the batch that falls to this device.
      prepare: keys (n,) and raw images (n, h, w, c) → network images.
      axis_name: as in ``train_step``.

    Returns:
      The state after the step, and its ``loss`` and ``accuracy``.

    Raises:
      TypeError, ValueError: as ``train_step``, and a ``prepare`` that cannot be called.
    """
    check_kind("state", state, State, "Make it with `training.create_state`.")
    check_prepare(prepare)
    check_batch(batch)
    count = batch["labels"].shape[0]
    offset = jax.lax.axis_index(axis_name) * count if axis_name else 0
    epoch, step = jnp.divmod(state.step, state.steps_per_epoch)
    key = jax.random.fold_in(jax.random.fold_in(state.key, epoch), step)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, offset + jnp.arange(count))
    images = prepare(keys, batch["images"])
    return train_step(state, {"images": images, "labels": batch["labels"]}, axis_name=axis_name)


def indexed_train_step(
    state: State, batch: Mapping[str, Array], *, prepare: Prepare, axis_name: str | None = None
) -> tuple[State, Metrics]:
    """Gather a batch from a data set on the device, then ``prepared_train_step``.

    Args:
      state: the run's state.
      batch: ``images`` (N, h, w, c) uint8 and ``labels`` (N,), the whole data set; ``order`` (n,) indices into it,
        the part of the batch that falls to this device.
      prepare: keys (n,) and raw images (n, h, w, c) → network images.
      axis_name: as in ``train_step``.

    Returns:
      The state after the step, and its ``loss`` and ``accuracy``.

    Raises:
      TypeError, ValueError: as ``prepared_train_step``.
    """
    check_batch(batch, "order")
    chosen = {name: jnp.asarray(batch[name])[batch["order"]] for name in ("images", "labels")}
    return prepared_train_step(state, chosen, prepare=prepare, axis_name=axis_name)


def prepared_evaluate_step(
    network: tuple[nn.Module, PyTree],
    batch: Mapping[str, Array],
    *,
    prepare: Prepare,
    loss: str = "cross_entropy",
    axis_name: str | None = None,
) -> Metrics:
    """Return the sums ``loss``, ``correct``, ``count`` over a batch; a label of −1 counts for nothing.

    Args:
      network: (model, variables), the model static.
      batch: as in ``prepared_train_step``.
      prepare: called with keys ``None``.
      loss: as ``Recipe.loss``.
      axis_name: mapped axis over which the batch is split, or None.
    """
    model, variables = network
    valid = (batch["labels"] >= 0).astype(jnp.float32)
    labels = jnp.maximum(batch["labels"], 0)
    logits, _ = model.apply(variables, prepare(None, batch["images"]), train=False)
    sums: dict[str, Float[Array, ""]] = {
        "loss": (losses.of(loss, logits, labels) * valid).sum(),
        "correct": (losses.correct(logits, labels) * valid).sum(),
        "count": valid.sum(),
    }
    return jax.lax.psum(sums, axis_name) if axis_name else sums


def indexed_evaluate_step(
    network: tuple[nn.Module, PyTree],
    batch: Mapping[str, Array],
    *,
    prepare: Prepare,
    loss: str = "cross_entropy",
    axis_name: str | None = None,
) -> Metrics:
    """Gather a batch as ``indexed_train_step``, then ``prepared_evaluate_step``; an index of −1 counts for nothing."""
    order = jnp.maximum(batch["order"], 0)
    labels = jnp.where(batch["order"] >= 0, batch["labels"][order], -1)
    chosen = {"images": batch["images"][order], "labels": labels}
    return prepared_evaluate_step(network, chosen, prepare=prepare, loss=loss, axis_name=axis_name)
