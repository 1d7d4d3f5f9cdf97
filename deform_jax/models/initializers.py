"""The papers' initial weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from deform_jax import checks


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
    key, shape, dtype = _check(key, shape, dtype)
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
    key, shape, dtype = _check(key, shape, dtype)
    return uniform_bias(math.prod(shape[:-1]))(key, shape, dtype)


def uniform_bias(fan_in: int) -> Callable[..., jax.Array]:
    """Return the initialiser of a bias beside ``uniform_fan_in``: uniform in ±1/√fan_in, as PyTorch's.

    Args:
      fan_in: n_in of the layer's kernel.

    Returns:
      ``initialise(key, shape, dtype)``.
    """
    bound = 1 / math.sqrt(checks.integer("fan_in", fan_in, minimum=1, maximum=2**62))

    def initialise(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        key, shape, dtype = _check(key, shape, dtype)
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
    key, shape, dtype = _check(key, shape, dtype, rank=2)
    n_out = math.prod(shape[:-2]) * shape[-1]
    return math.sqrt(2 / n_out) * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def _check(key: Any, shape: Any, dtype: Any, *, rank: int = 1) -> tuple[jax.Array, tuple[int, ...], Any]:
    key = checks.key(key, remedy="`jax.vmap` the initialiser over keys.")
    if not isinstance(shape, tuple | list) or len(shape) < rank:
        wanted = f"be a tuple of {rank} or more lengths, the output features last"
        checks.fail("shape", wanted, f"{shape!r} was given", error=TypeError)
    shape = tuple(checks.integer("shape", length, minimum=1, maximum=checks.LONGEST) for length in shape)
    checks.entries("shape", *shape)
    try:
        floating = not hasattr(dtype, "ndim") and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except (TypeError, ValueError):
        floating = False
    if not floating:
        checks.fail("dtype", "be a floating-point type", f"{dtype!r} was given", error=TypeError)
    return key, shape, dtype
