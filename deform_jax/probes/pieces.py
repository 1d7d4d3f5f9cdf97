"""Reductions of a large tap piece by piece, so that no copy of the whole is made.

XLA fuses a reduction with the layer before it, computing that layer again, and on CPU keeps every intermediate that
two reductions share: a cosine distance between two whole taps holds three more taps. In a loop it holds one row.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deform_jax.probes.distances import widen
from deform_jax.typing import PyTree

LARGE = 2**20
"""Entries of a tap from which images are reduced one after another."""
BLOCK = 8192
"""Features reduced at a time."""


def each_image(function: Callable[..., PyTree], *taps: Float[Array, "n ..."]) -> PyTree:
    """``function`` of each image's flat features (features,), its results stacked along n."""

    def flat(rows: tuple[Array, ...]) -> PyTree:
        return function(*(row.reshape(-1) for row in rows))

    if taps[0].size < LARGE:
        return jax.vmap(flat)(taps)
    # As many at a time as there are devices: were it one, each device would be sent the images of all others.
    steps = len(taps[0]) // math.gcd(len(taps[0]), jax.device_count())

    def step(i: Array) -> PyTree:
        # Reshaped in here, since outside it would be a copy of every tap.
        groups = (tap.reshape(-1, steps, *tap.shape[1:]) for tap in taps)
        return jax.vmap(flat)(tuple(lax.dynamic_index_in_dim(group, i, axis=1, keepdims=False) for group in groups))

    return jax.tree.map(join, lax.map(step, jnp.arange(steps)))


def split(x: Float[Array, "n ..."], steps: int) -> Float[Array, "steps n_by_steps ..."]:
    """Image i to step i modulo ``steps``: images that are spread over devices are so in every step, and stay there."""
    return x.reshape(-1, steps, *x.shape[1:]).swapaxes(0, 1)


def join(x: Float[Array, "steps n_by_steps ..."]) -> Float[Array, "n ..."]:
    """The images of all steps in the order they had before :func:`split`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def block_sum(
    term: Callable[..., PyTree],
    *taps: Float[Array, "n ..."],
    combine: Callable[[Array, Array], Array] = jnp.add,
    block: int | None = None,
) -> PyTree:
    """The sum of ``term(parts)`` over blocks of features, a part being (n, block) of one tap in float32.

    The last block overlaps the one before; its repeated columns are set to zero, for which ``term`` must be zero.
    ``combine`` may be another operation of which zero is the neutral element; ``block`` replaces ``BLOCK``.
    """
    n = len(taps[0])
    features = taps[0].size // n
    size = min(block or BLOCK, features)

    def step(total: PyTree, first: Array) -> tuple[PyTree, None]:
        start = jnp.minimum(first, features - size)
        fresh = (start + jnp.arange(size) >= first)[None]
        parts = (widen(lax.dynamic_slice_in_dim(tap.reshape(n, -1), start, size, axis=1)) for tap in taps)
        return jax.tree.map(combine, total, term(*(jnp.where(fresh, part, 0) for part in parts))), None

    parts = (jax.eval_shape(lambda tap: widen(tap).reshape(n, -1)[:, :size], tap) for tap in taps)
    result = jax.eval_shape(term, *parts)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), result)
    total, _ = lax.scan(step, empty, jnp.arange(0, features, size))
    return total
