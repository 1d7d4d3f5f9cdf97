"""Losses per example."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer


def cross_entropy(logits: Float[Array, "n k"], labels: Integer[Array, "n"]) -> Float[Array, "n"]:
    """Return −log softmax(logits)[label] per example, in nats, computed in float32.

    Args:
      logits: (n, classes).
      labels: (n,) integers in 0 … classes − 1.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def correct(logits: Float[Array, "n k"], labels: Integer[Array, "n"]) -> Float[Array, "n"]:
    """Return 1.0 where the largest logit is the label's, else 0.0."""
    return (jax.lax.stop_gradient(logits).argmax(axis=-1) == labels).astype(jnp.float32)
