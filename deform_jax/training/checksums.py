"""Checksums of arrays, summed where they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deform_jax.typing import PyTree


def checksums(tree: PyTree) -> dict[str, list]:
    """Return ``{leaf path: [Σ w mod 2³², Σ w·h(i) mod 2³², dtype, shape]}`` over the leaves' words w.

    Words are 32 bits, or the elements of types below that; h(i) = 2654435762·i + 1 is odd, so that any single changed
    word changes the second sum, and so does the exchange of two. Integer sums do not depend on their order: every
    sharding gives the same.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    sums = jax.device_get(_sums([_words(leaf) for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): [int(plain), int(weighted), str(leaf.dtype), list(leaf.shape)]
        for (path, leaf), (plain, weighted) in zip(leaves, sums, strict=True)
    }


def _words(leaf: Any) -> Any:
    """Spare numpy's 64-bit arrays the rounding to 32 bits that ``jit`` would begin with.

    Of an array that is whole in several processes, each sums its own copy.
    """
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf.addressable_data(0)
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.itemsize > 4:
        return np.ascontiguousarray(leaf).reshape(-1).view(np.uint32)
    return leaf


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [_sum(leaf) for leaf in leaves]


def _sum(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    bits = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(leaf, unsigned)
    words = bits.ravel().astype(jnp.uint32)
    weights = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(2654435762) + jnp.uint32(1)
    return words.sum(dtype=jnp.uint32), (words * weights).sum(dtype=jnp.uint32)
