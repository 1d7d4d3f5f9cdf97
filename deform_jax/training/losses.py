"""Losses per example."""

from typing import Any

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
      smoothing: s in q = (1 − s) · one-hot(label) + s / classes (Szegedy et al. 2016, arXiv 1512.00567, section 7);
        0 to 1.

    Raises:
      TypeError, ValueError: other shapes or kinds, or labels that are known to be no classes.
    """
    logits = checks.array("logits", logits, "n k").astype(jnp.float32)
    labels = _labels(labels, *logits.shape)
    smoothing = checks.number("smoothing", smoothing, minimum=0, maximum=1)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not checks.is_traced(smoothing) and smoothing == 0:
        return loss
    return (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(logits, axis=-1).mean(axis=-1)


def hinge(logits: Float[Array, "n 1"], labels: Integer[Array, "n"]) -> Float[Array, "n"]:
    """Return max(0, 1 − y · output) per example, y = +1 for label 1 and −1 for 0; exactly 0 where fitted (SI B.1).

    Args:
      logits: (n, 1), the network's one output.
      labels: (n,) integers, 0 or 1.

    Raises:
      TypeError, ValueError: more than one output, other shapes or kinds, or labels known to be neither 0 nor 1.
    """
    logits = checks.array("logits", logits, "...")
    if logits.shape[1:] != (1,):
        checks.fail("logits", "have shape (n, 1) for a hinge loss", f"its shape is {tuple(logits.shape)}")
    labels = _labels(labels, len(logits), 2)
    sign = 2 * labels.astype(jnp.float32) - 1
    return jax.nn.relu(1 - sign * logits[:, 0].astype(jnp.float32))


def of(name: str, logits: Float[Array, "n k"], labels: Integer[Array, "n"], smoothing: float = 0.0) -> Any:
    """Return the named loss (``"cross_entropy"`` or ``"hinge"``) per example."""
    return hinge(logits, labels) if name == "hinge" else cross_entropy(logits, labels, smoothing=smoothing)


def correct(logits: Float[Array, "n k"], labels: Integer[Array, "n"]) -> Float[Array, "n"]:
    """Return 1.0 where the largest logit is the label's, else 0.0; a single output is right by its sign, 0 never."""
    logits = jax.lax.stop_gradient(logits)
    if logits.shape[-1] == 1:
        sign = jnp.where(labels > 0, 1, -1)  # labels may be unsigned
        return (sign * logits[:, 0] > 0).astype(jnp.float32)
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)


def _labels(labels: Any, count: int, classes: int) -> Array:
    """Labels, one for each of ``count`` examples and, where they are known, from 0 to below ``classes``."""
    labels = checks.array("labels", labels, "n", kind="integer")
    if len(labels) != count:
        checks.fail("labels", f"be one for each of the {count} rows of `logits`", f"there are {len(labels)}")
    if not checks.is_traced(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            checks.fail("labels", f"be classes, 0 to {classes - 1}", f"they run from {low} to {high}")
    return labels
