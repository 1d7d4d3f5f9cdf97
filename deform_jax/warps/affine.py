"""Translations, rotations, scalings and every other affine map → displacement field."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.typing import Field
from deform_jax.warps import _inputs


def affine_field(matrix: Float[Array, "2 2"], translation: Float[Array, "2"], shape: tuple[int, int]) -> Field:
    """The field of an affine map about the image's centre: ``output[p] = image[c + matrix (p − c) + translation]``.

    Both arguments are those of the backward map, from output to source, as in ``remap`` and in scipy's
    ``affine_transform``: twice the identity shrinks the picture to half, and a positive translation moves it up and to
    the left. The functions below name what happens to the picture instead.

    Args:
      matrix: (2, 2), acting on (y, x) columns; the identity moves nothing. May be traced, like the translation.
      translation: (2,) added to the source position, (dy, dx) in pixels.
      shape: (h, w) of the field in pixels, each ≥ 1; static. The centre is ((h − 1)/2, (w − 1)/2).

    Returns:
      (h, w, 2) backward displacements (dy, dx) in pixels, for ``remap``, in float32 or better.

    Raises:
      TypeError: not real numbers, or ``shape`` is not a static pair of integers.
      ValueError: wrong shapes (a batch included), or values known to be NaN or infinite.

    Ruderman et al. measure pose with such maps in a later version of their paper; the centre and the signs are ours.
    """
    matrix = _real(_inputs.example("matrix", matrix, "2 2", kind="real"))
    translation = _real(_inputs.example("translation", translation, "2", kind="real"))
    height, width = checks.size_pair("shape", shape)
    dtype = jnp.promote_types(matrix.dtype, translation.dtype)
    change = matrix.astype(dtype) - jnp.eye(2, dtype=dtype)
    y = jnp.arange(height, dtype=dtype)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=dtype)[None, :] - (width - 1) / 2
    # Sums of products and no matmul, which an accelerator would run in fewer bits.
    planes = (change[i, 0] * y + change[i, 1] * x + translation[i].astype(dtype) for i in range(2))
    return jnp.stack(tuple(planes), axis=-1)


def translation_field(translation: Float[Array, "2"], shape: tuple[int, int]) -> Field:
    """The field that moves the picture by ``translation``: ``output[p] = image[p − translation]``.

    Args:
      translation: (2,) how far the picture moves, (dy, dx) in pixels; positive is down and to the right, as in scipy's
        ``shift``. May be traced.
      shape: (h, w) of the field in pixels, each ≥ 1; static.

    Returns:
      (h, w, 2) backward displacements (dy, dx) in pixels, for ``remap``; the same at every pixel.

    Raises:
      TypeError, ValueError: as ``affine_field``.

    Ours, to measure pose.
    """
    translation = _real(_inputs.example("translation", translation, "2", kind="real"))
    return affine_field(jnp.eye(2, dtype=translation.dtype), -translation, shape)


def rotation_field(angle: float | Float[Array, ""], shape: tuple[int, int]) -> Field:
    """The field that turns the picture about its centre.

    Args:
      angle: in radians; positive turns counter-clockwise as seen with rows counted downwards (what was right of the
        centre goes up), as in scikit-image's ``rotate``. May be traced.
      shape: (h, w) of the field in pixels, each ≥ 1; static.

    Returns:
      (h, w, 2) backward displacements (dy, dx) in pixels, for ``remap``.

    Raises:
      TypeError: ``angle`` is not a number, or ``shape`` is not a static pair of integers.
      ValueError: an angle that is not finite, or a shape below 1.

    Ours, to measure pose.
    """
    angle = _real(checks.number("angle", angle))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
    return affine_field(matrix, jnp.zeros(2, matrix.dtype), shape)


def scaling_field(factor: float | Float[Array, ""], shape: tuple[int, int]) -> Field:
    """The field that magnifies the picture about its centre: ``output[p] = image[c + (p − c)/factor]``.

    Args:
      factor: > 0, without unit; above 1 the picture grows, below 1 it shrinks. May be traced.
      shape: (h, w) of the field in pixels, each ≥ 1; static.

    Returns:
      (h, w, 2) backward displacements (dy, dx) in pixels, for ``remap``.

    Raises:
      TypeError: ``factor`` is not a number, or ``shape`` is not a static pair of integers.
      ValueError: a factor that is not finite and positive, or a shape below 1.

    Ours, to measure pose.
    """
    factor = _real(checks.number("factor", factor, minimum=0, exclusive=True))
    return affine_field(jnp.eye(2, dtype=factor.dtype) / factor, jnp.zeros(2, factor.dtype), shape)


def _real(value: float | jax.Array) -> jax.Array:
    """An array in float32 or better."""
    value = jnp.asarray(value)
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))
