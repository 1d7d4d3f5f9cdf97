"""Losses per example."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from deform_jax import checks


def cross_entropy(
    logits: Float[Array, "n k"], labels: Integer[Array, "n"], *, smoothing: float = 0.0
) -> Float[Array, "n"]:
    """Return −Σ_k q_k log softmax(logits)_k per example, in nats, computed in float32.

    Args:
      logits: (n, classes).
      labels: (n,) integers in 0 … classes − 1.
      smoothing: s in q = (1 − s) · one-hot(label) + s / classes (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    """
    logits = logits.astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not checks.is_traced(smoothing) and smoothing == 0:
        return loss
    return (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(logits, axis=-1).mean(axis=-1)


def correct(logits: Float[Array, "n k"], labels: Integer[Array, "n"]) -> Float[Array, "n"]:
    """Return 1.0 where the largest logit is the label's, else 0.0."""
    return (jax.lax.stop_gradient(logits).argmax(axis=-1) == labels).astype(jnp.float32)
