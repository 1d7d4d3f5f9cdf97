"""The papers' initial weights."""

import math
from collections.abc import Callable

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


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Return kernels uniform in ±1/√n_in, PyTorch's default for convolutions and linear layers, which SI's nets use.

    Args:
      key: random key.
      shape: kernel shape with the output features last; n_in is the product of all other axes.
      dtype: floating-point type of the result.

    Returns:
      An array of that shape.
    """
    return uniform_bias(math.prod(shape[:-1]))(key, shape, dtype)


def uniform_bias(fan_in: int) -> Callable[..., jax.Array]:
    """Return the initialiser of a bias beside ``uniform_fan_in``: uniform in ±1/√fan_in, as PyTorch's.

    Args:
      fan_in: n_in of the layer's kernel.

    Returns:
      ``initialise(key, shape, dtype)``.
    """

    def initialise(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return initialise


def normal_fan_out(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Return kernels from N(0, 2/n_out), n_out = height · width · output features: torchvision's VGGs and ResNets.

    Args:
      key: random key.
      shape: kernel shape with the output features last; n_out is the product of all axes but the one before the last.
      dtype: floating-point type of the result.

    Returns:
      An array of that shape.
    """
    n_out = math.prod(shape[:-2]) * shape[-1]
    return math.sqrt(2 / n_out) * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)
