"""Checks shared by the warps, which all work on one example and are vmapped over batches."""

from typing import Any

import jax

from deform_jax import checks

_VMAP = "Warps take one example: `jax.vmap` the call over the batch axis."


def example(name: str, value: Any, dims: str, *, kind: str = "float") -> jax.Array:
    """Return one example's array after checking its rank, dtype and emptiness, and where concrete that it is finite."""
    # Rank first and alone: a batch of uint8 images should hear about `vmap`, and an unbatched one about its dtype.
    axes = dims.split()
    surplus = getattr(value, "ndim", len(axes)) - len(axes)
    remedy = {1: _VMAP, -1: "Add a channel axis: `image[..., None]`." if axes[-1] == "c" else ""}.get(surplus, "")
    checks.array(name, value, dims, kind="any", nonempty=False, remedy=remedy)
    return checks.array(name, value, dims, kind=kind, finite=True)


def key(value: Any) -> jax.Array:
    """Return ``value`` if it is one random key, new-style or legacy; a batch of keys hears about ``vmap``."""
    return checks.key(value, remedy=_VMAP)


def plain(value: Any) -> Any:
    """A Python float, which can be hashed and compared, of a checked number, unless it is traced."""
    return value if checks.is_traced(value) else float(value)
