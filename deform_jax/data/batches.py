"""The order in which an epoch visits the training images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from deform_jax import checks
from deform_jax.typing import RandomKey


def epoch_order(key: RandomKey, n: int, batch_size: int) -> Int[Array, "steps batch_size"]:
    """Return a random order of ``n`` images cut into full batches; the remainder is left out of this epoch.

    Args:
      key: a random key, such as ``fold_in(seed, epoch)``.
      n: number of images, static.
      batch_size: images per batch, static, at most ``n``.

    Returns:
      (n // batch_size, batch_size) int32 indices, all different.

    Raises:
      TypeError, ValueError: ``n`` or ``batch_size`` is no integer ≥ 1, or ``batch_size`` exceeds ``n``.
    """
    n = checks.integer("n", n, minimum=1)
    batch_size = checks.integer("batch_size", batch_size, minimum=1, maximum=n)
    steps = n // batch_size
    order = jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)
