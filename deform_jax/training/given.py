"""What steps, states and meshes are given: checks of kinds that jax and flax would refuse in words of their own."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from deform_jax import checks


def check_mesh(mesh: Any) -> None:
    """Refuse anything but a mesh of ``make_mesh``'s axes."""
    if not isinstance(mesh, Mesh) or set(mesh.axis_names) != {"seed", "data"}:
        given = f"one of axes {mesh.axis_names} was given" if isinstance(mesh, Mesh) else f"{mesh!r} was given"
        remedy = "Make it with `training.make_mesh`."
        checks.fail("mesh", "be a mesh of the axes 'seed' and 'data'", given[:200], remedy, error=TypeError)


def check_kind(name: str, value: Any, kind: type, remedy: str = "") -> None:
    """Refuse what is not of a class."""
    if not isinstance(value, kind):
        checks.fail(name, f"be a `{kind.__name__}`", f"{type(value).__name__} was given", remedy, error=TypeError)


def check_model(model: Any, variables: Any = None) -> None:
    """Refuse what is no Flax module, and variables that hold no parameters."""
    check_kind("model", model, nn.Module, "Make one with `models.create`.")
    if variables is not None and (not isinstance(variables, Mapping) or "params" not in variables):
        given = f"{list(variables) if isinstance(variables, Mapping) else type(variables).__name__} was given"
        checks.fail("variables", "be a mapping with the key 'params'", given, "Pass {'params': params}.")


def check_trainable(model: Any) -> None:
    """Refuse a module that training cannot tell over which mapped axis a batch is split."""
    check_model(model)
    if not hasattr(model, "axis_name"):
        remedy = "Add `axis_name: str | None = None`, and give it to every batch norm."
        checks.fail("model", "have the field `axis_name`", f"{type(model).__name__} lacks it", remedy)


def check_leaves(name: str, tree: Any) -> list[Any]:
    """Return the leaves of a pytree after checking that there are some, all of them arrays of numbers or keys."""
    checks.pytree(name, tree)
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic) or not is_storable(leaf.dtype):
            what = f"of dtype {leaf.dtype}" if hasattr(leaf, "dtype") else f"a {type(leaf).__name__}"
            checks.fail(name, "hold arrays of numbers", f"one of its leaves is {what}", error=TypeError)
    if not leaves:
        checks.fail(name, "hold at least one array", "it holds none")
    return leaves


def is_storable(dtype: Any) -> bool:
    """Whether jax has arrays of the dtype: numbers, truth values and random keys."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_, jax.dtypes.prng_key))


def check_batch(batch: Any, *more: str) -> None:
    """Refuse a batch without ``images``, ``labels`` and ``more``, or with labels that are not one for each image.

    Of a batch with an ``order``, the images are the whole set.
    """
    wanted = ("images", "labels", *more)
    if not isinstance(batch, Mapping) or not set(wanted) <= set(batch):
        given = f"it holds {', '.join(map(str, batch)) or 'nothing'}" if isinstance(batch, Mapping) else f"{batch!r}"
        listed = ", ".join(f"'{name}'" for name in wanted)
        checks.fail("batch", f"be a mapping with {listed}", given[:200], error=TypeError)
    images = checks.array("batch['images']", batch["images"], "...", kind="real")
    labels = checks.array("batch['labels']", batch["labels"], "n", kind="integer")
    for name in more:
        checks.array(f"batch[{name!r}]", batch[name], "n", kind="integer")
    if images.ndim < 2 or len(images) != len(labels):
        checks.fail("batch", "have one label per image", f"the shapes are {images.shape} and {labels.shape}")


def check_prepare(prepare: Any) -> None:
    """Refuse a ``prepare`` that cannot be called."""
    if not callable(prepare):
        remedy = "Use `data.Prepare`, or a function of keys and raw images."
        checks.fail("prepare", "be callable", f"{prepare!r} was given"[:200], remedy, error=TypeError)
