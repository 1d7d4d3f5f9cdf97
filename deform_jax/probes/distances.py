"""Distances between representations that keep float32's relative accuracy when the two are nearly equal."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks


def cosine_distance(a: Float[Array, "*n features"], b: Float[Array, "*n features"]) -> Float[Array, "*n"]:
    """Cosine distance 1 − a·b / (‖a‖ ‖b‖), reduced over the last axis.

    It is computed as ½ ‖a/‖a‖ − b/‖b‖‖² from the difference a − b, which is exact where the two nearly agree, so that
    distances far below 1e-7, where 1 − cos is all rounding, keep their relative accuracy. Vectors are scaled by powers
    of two first: squares neither overflow nor underflow.

    A zero vector is at distance 1 from a nonzero one and 0 from another zero vector (our convention; the ratio is
    undefined there), with zero gradient.

    Args:
      a: (…, features) vectors, any floating dtype; narrower ones than float32 are widened first.
      b: vectors of the same shape.

    Returns:
      (…) distances between 0 and 2, without unit.

    Raises:
      TypeError: not floating-point arrays.
      ValueError: no feature axis, an empty axis, or different shapes.

    Source: LS 2.1, d_cos.
    """
    return _cosine(*_pair(a, b))


def squared_distance(a: Float[Array, "*n features"], b: Float[Array, "*n features"]) -> Float[Array, "*n"]:
    """Squared Euclidean distance ‖a − b‖², reduced over the last axis.

    Args:
      a: (…, features) vectors, any floating dtype; narrower ones than float32 are widened first.
      b: vectors of the same shape.

    Returns:
      (…) squared distances, in the squared unit of the features. Below 1e-38 and above 3e38 they leave float32.

    Raises:
      TypeError: not floating-point arrays.
      ValueError: no feature axis, an empty axis, or different shapes.

    Source: SI Eq. 1 (D_f, G_f).
    """
    a, b = _pair(a, b)
    return jnp.sum(jnp.square(widen(a) - widen(b)), axis=-1)


def euclidean_distance(a: Float[Array, "*n features"], b: Float[Array, "*n features"]) -> Float[Array, "*n"]:
    """Euclidean distance ‖a − b‖, reduced over the last axis.

    The difference is scaled by a power of two before it is squared, so that squares neither overflow nor underflow.
    The gradient of two equal vectors, where there is none, is 0.

    Args:
      a: (…, features) vectors, any floating dtype; narrower ones than float32 are widened first.
      b: vectors of the same shape.

    Returns:
      (…) distances, in the unit of the features.

    Raises:
      TypeError: not floating-point arrays.
      ValueError: no feature axis, an empty axis, or different shapes.

    Source: LS 2.1 ("using the Euclidean distance instead").
    """
    return _euclidean(*_pair(a, b))


Distance = Literal["cosine", "squared", "euclidean"]
DISTANCES = {"cosine": cosine_distance, "squared": squared_distance, "euclidean": euclidean_distance}


def widen(x: Array) -> Array:
    """The same values in float32, or in float64 where they came so."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def opaque(x: Array) -> Array:
    """The same values, hidden from XLA's algebra: were ``x`` a constant, (x·s)² would become x²·s² and overflow."""
    return lax.optimization_barrier(x)


def row_scale(x: Float[Array, "*n features"]) -> Float[Array, "*n 1"]:
    """The power of two that brings the largest entry of each row into [1, 2); a constant for differentiation."""
    return scale_of(jnp.max(jnp.abs(x), axis=-1, keepdims=True))


def scale_of(largest: Array) -> Array:
    """The power of two that brings each number into [1, 2); a constant for differentiation.

    Built from the exponent's bits, because multiplying by an exact power of two is free of rounding, and because
    ``exp2`` and division need not be exact on an accelerator.
    """
    largest = lax.stop_gradient(largest)
    info = jnp.finfo(largest.dtype)
    bias = int(info.maxexp) - 1
    exponent = lax.bitcast_convert_type(largest, f"int{info.bits}") >> info.nmant
    return lax.bitcast_convert_type(jnp.maximum(2 * bias - exponent, 1) << info.nmant, largest.dtype)


def pair_scales(largest_a: Array, largest_b: Array) -> tuple[Array, Array]:
    """``scale_of`` each of two rows, but one and the same if they are nearly equal: their difference is exact then."""
    scale_a, scale_b = scale_of(largest_a), scale_of(largest_b)
    shared = jnp.minimum(scale_a, scale_b)
    alike = jnp.maximum(scale_a, scale_b) <= 2 * shared
    return jnp.where(alike, shared, scale_a), jnp.where(alike, shared, scale_b)


def row_norm(x: Float[Array, "*n features"]) -> tuple[Float[Array, "*n 1"], Array]:
    """The norm of each scaled row, 1 in place of 0 so that it can be divided by, and which rows are zero."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    zero = square == 0
    return jnp.sqrt(jnp.where(zero, 1.0, square)), zero


def _pair(a: Array, b: Array) -> tuple[Array, Array]:
    a = checks.array("a", a, "... features")
    b = checks.array("b", b, "... features")
    checks.same_shape("b", b, "a", a)
    return a, b


@jax.jit
def _euclidean(a: Array, b: Array) -> Array:
    difference = opaque(widen(a) - widen(b))
    scale = row_scale(difference)
    norm, zero = row_norm(difference * scale)
    return jnp.where(zero, 0, norm / scale)[..., 0]


@jax.jit
def _cosine(a: Array, b: Array) -> Array:
    a, b = opaque(widen(a)), opaque(widen(b))
    scale_a, scale_b = pair_scales(*(jnp.max(jnp.abs(x), axis=-1, keepdims=True) for x in (a, b)))
    a, b = a * scale_a, b * scale_b
    square_a, square_b, gap = (jnp.sum(x, axis=-1, keepdims=True) for x in cosine_terms(a, b))
    norms, slope = cosine_norms(square_a, square_b, gap)
    chord = jnp.sum(cosine_chord(a, b, slope), axis=-1, keepdims=True)
    return cosine_from(chord, norms)[..., 0]


def cosine_terms(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """What is summed over the features of scaled rows: to ‖a‖², ‖b‖², and ‖a‖² − ‖b‖² from the difference."""
    return jnp.square(a), jnp.square(b), (a - b) * (a + b)


def cosine_norms(square_a: Array, square_b: Array, gap: Array) -> tuple[tuple[Array, ...], Array]:
    """``(‖a‖, ‖b‖, whether a and b are zero)``, and (‖a‖ − ‖b‖)/‖b‖."""
    zero_a, zero_b = square_a == 0, square_b == 0
    norm_a, norm_b = (jnp.sqrt(jnp.where(square == 0, 1.0, square)) for square in (square_a, square_b))
    return (norm_a, norm_b, zero_a, zero_b), gap / (norm_a + norm_b) / norm_b


def cosine_chord(a: Array, b: Array, slope: Array) -> Array:
    """What is summed over the features to ‖a‖² ‖a/‖a‖ − b/‖b‖‖².

    a/‖a‖ − b/‖b‖ = (a − b − b (‖a‖ − ‖b‖)/‖b‖) / ‖a‖, so that nothing is lost where a and b are nearly equal.
    """
    return jnp.square(a - b - b * slope)


def cosine_from(chord: Array, norms: tuple[Array, ...]) -> Array:
    """The distance from the summed chord; 1 to a zero row and 0 between two; ``nan`` where norms are not finite."""
    norm_a, norm_b, zero_a, zero_b = norms
    distance = 0.5 * chord / jnp.square(norm_a)
    distance = jnp.where(zero_a | zero_b, jnp.where(zero_a & zero_b, 0.0, 1.0), distance)
    return jnp.where(jnp.isfinite(norm_a + norm_b), distance, jnp.nan)
