"""The state of a training run: one pytree, its settings static and compared by value."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from deform_jax import checks
from deform_jax.training.given import check_kind, check_model
from deform_jax.training.recipe import Recipe
from deform_jax.typing import PyTree, RandomKey


class State(struct.PyTreeNode):
    """Everything a step reads and writes.

    Attributes:
      step: () int32, steps done.
      params: the network's parameters.
      batch_stats: the averages of its batch norms, empty without.
      opt_state: optax's state.
      key: the run's random key; batch order, augmentation and dropout derive from it, the epoch and the step.
      totals: sums over the current epoch: ``loss`` (nats), ``correct``, ``count``.
      model: the module; static.
      recipe: optimiser settings; static.
      steps_per_epoch: static.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    key: RandomKey
    totals: dict[str, jax.Array]
    model: nn.Module = struct.field(pytree_node=False)
    recipe: Recipe = struct.field(pytree_node=False)
    steps_per_epoch: int = struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, Any]:
        """``{"params": …, "batch_stats": …}`` as the model takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def zero_totals() -> dict[str, jax.Array]:
    """Return the sums of an epoch that has not begun."""
    return {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "count")}


def create_state(
    model: nn.Module, recipe: Recipe, key: RandomKey, image_shape: tuple[int, ...], steps_per_epoch: int
) -> State:
    """Return the state before the first step, with freshly initialised variables.

    Args:
      model: module with ``init(key, images, train=False)``.
      recipe: optimiser settings.
      key: the run's random key; the initial weights use ``fold_in(key, 2**31 - 1)``.
      image_shape: (h, w, c), or (length, c).
      steps_per_epoch: optimiser steps an epoch.

    Raises:
      TypeError, ValueError: arguments of other kinds, or sizes out of range.
    """
    check_model(model)
    check_kind("recipe", recipe, Recipe)
    checks.key(key, remedy="Each run has a key of its own.")
    if not isinstance(image_shape, tuple | list) or not image_shape:
        checks.fail("image_shape", "be (h, w, c) or (length, c)", f"{image_shape!r} was given", error=TypeError)
    image_shape = tuple(checks.integer("image_shape", n, minimum=1, maximum=checks.LONGEST) for n in image_shape)
    checks.entries("image_shape", *image_shape)
    steps_per_epoch = checks.integer("steps_per_epoch", steps_per_epoch, minimum=1, maximum=2**31 - 1)
    return _create(key, model, recipe, image_shape, steps_per_epoch)


def _create_state(
    key: RandomKey, model: nn.Module, recipe: Recipe, image_shape: tuple[int, ...], steps_per_epoch: int
) -> State:
    images = jnp.zeros((1, *image_shape))
    result, variables = model.init_with_output(jax.random.fold_in(key, 2**31 - 1), images, train=False)
    checks.logits_and_taps(model, result, "End it with `return logits, taps`; an empty dict of taps will do.")
    return State(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=recipe.optimizer(steps_per_epoch).init(variables["params"]),
        key=key,
        totals=zero_totals(),
        model=model,
        recipe=recipe,
        steps_per_epoch=steps_per_epoch,
    )


_create = jax.jit(_create_state, static_argnums=(1, 2, 3, 4))
