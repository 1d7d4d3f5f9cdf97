"""The papers' initial weights."""

import math

import jax
import jax.numpy as jnp


def truncated_normal_fan_in(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Return normals of standard deviation 1/√n_in, truncated at two standard deviations (LS footnote 2).

    The deviation is the one before truncation, so the actual one is 0.8796/√n_in. (``jax.nn.initializers`` corrects
    for this in ``variance_scaling``; the paper's words do not, and neither do we.)

    Args:
      key: random key.
      shape: kernel shape with the output features last; n_in is the product of all other axes.
      dtype: floating-point type of the result.

    Returns:
      An array of that shape.
    """
    n_in = math.prod(shape[:-1])
    # Drawn flat: the same numbers, and a network's initialisation compiles five times as fast on CPU.
    flat = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), dtype)
    return flat.reshape(shape) / math.sqrt(n_in)
