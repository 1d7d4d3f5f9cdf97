"""Checksums of arrays."""

from typing import Any

import jax
import numpy as np

from deform_jax.typing import PyTree

BLOCK = 2**20
"""Words that are weighed together: what stays in a cache."""


def checksums(tree: PyTree) -> dict[str, list]:
    """Return ``{leaf path: [Σ w mod 2³², Σ w·h(i) mod 2³², dtype, shape]}`` over the leaves' words w.

    Words are 32 bits, or the elements of types below that; h(i) = 2654435762·i + 1 is odd, so that any single changed
    word changes the second sum, and so does the exchange of two. Summed by numpy, since a program for every network
    would take longer to compile than its arrays to be fetched.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            _here(leaf).copy_to_host_async()
    return {
        jax.tree_util.keystr(path): [*_sums(_words(leaf)), str(leaf.dtype), list(leaf.shape)] for path, leaf in leaves
    }


def _here(leaf: jax.Array) -> jax.Array:
    """Of an array that is whole in several processes, each sums its own copy."""
    return leaf if leaf.is_fully_addressable else leaf.addressable_data(0)


def _words(leaf: Any) -> np.ndarray:
    array = np.ascontiguousarray(_here(leaf) if isinstance(leaf, jax.Array) else leaf).reshape(-1)
    return array.view({1: np.uint8, 2: np.uint16}.get(array.dtype.itemsize, np.uint32))


def _sums(words: np.ndarray) -> tuple[int, int]:
    plain = weighted = 0
    for start in range(0, words.size, BLOCK):
        block = words[start : start + BLOCK].astype(np.uint32)
        weights = np.arange(start, start + block.size, dtype=np.uint32) * np.uint32(2654435762) + np.uint32(1)
        plain += int(block.sum(dtype=np.uint32))
        weighted += int((block * weights).sum(dtype=np.uint32))
    return plain % 2**32, weighted % 2**32
