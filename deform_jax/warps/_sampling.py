"""Bilinear sampling for ``remap``, in two formulations of the same weighted sum of four pixels.

Gathers wherever they are fast; for small images on TPUs, where they are not, products with matrices of weights.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from deform_jax.typing import Field, Image

# The numbers that ``by_products`` may hold for one image: 4 MiB in float32, or 59 × 59 pixels of 3 channels. Its work
# and memory grow with the cube of an image's side, those of gathers with the square, so that products suit small images
# only; and vmap multiplies the memory by the size of the batch (0.6 MiB for each image of 32 × 32 × 3). The bound is
# ours, and reckoned rather than timed, since no TPU was at hand.
LARGEST_PRODUCTS = 2**20


class Taps(NamedTuple):
    """Along one axis, the pixel before each coordinate, (h, w), and the weights of it and of the next, (h, w, 1).

    Pixels are numbered from 0. Numbers outside the image stand for the nearest pixel inside.
    """

    pixel: jax.Array
    before: jax.Array
    after: jax.Array


def by_platform(image: Image, y: Taps, x: Taps) -> jax.Array:
    """Blend by products for small images on TPUs, else by gathers; decided when a program is lowered, not when it runs.

    Only one of the two is then compiled, under ``vmap`` and ``grad`` too.
    """
    height, width, channels = image.shape
    if height * width * (height + width + width * channels) > LARGEST_PRODUCTS:
        return by_gathers(image, y, x)
    # Checkpointed: what differentiation keeps from one formulation, it makes room for in the other as well.
    return jax.lax.platform_dependent(image, y, x, tpu=jax.checkpoint(by_products), default=by_gathers)


def by_gathers(image: Image, y: Taps, x: Taps) -> jax.Array:
    """Return (h, w, c), every output pixel's four pixels times their weights, in the weights' dtype."""

    def pixels(y: jax.Array, x: jax.Array) -> jax.Array:
        # mode="clip" clamps, which is the edge rule itself. Jax's own default would count negative indices from the end
        # and fill what lies outside with NaN, three times slower.
        return image.at[y, x].get(mode="clip", wrap_negative_indices=False)

    def row(y: jax.Array) -> jax.Array:
        before, after = (pixels(y, at).astype(x.before.dtype) for at in (x.pixel, x.pixel + 1))
        return x.before * before + x.after * after

    return y.before * row(y.pixel) + y.after * row(y.pixel + 1)


def by_products(image: Image, y: Taps, x: Taps) -> jax.Array:
    """As ``by_gathers``, without gathers: blend all rows for every output pixel, then all columns of that blend.

    Of either sum at most two terms are not zero. Zero times NaN or infinity is NaN, so that such a pixel spreads over
    its whole channel; a weight of NaN stays with its own output pixel.
    """
    height, width, _ = image.shape
    lines = jnp.moveaxis(image, 1, 2).astype(y.before.dtype)
    blended = jnp.tensordot(_weights(y, height), lines, 1, precision=jax.lax.Precision.HIGHEST)  # (h, w, c, w)
    return (blended * _weights(x, width)[:, :, None]).sum(axis=-1)


def _weights(taps: Taps, length: int) -> jax.Array:
    """(h, w, length), for every output pixel the weights of all pixels along one axis: one-hot, but for two of them."""
    positions = jnp.arange(length, dtype=taps.pixel.dtype)[None, None, :]
    # Selected, not multiplied by 0 and 1: a weight of NaN would reach every row of the image's gradient.
    before, after = (
        jnp.where(jnp.clip(pixel, 0, length - 1)[..., None] == positions, weight, 0)
        for pixel, weight in ((taps.pixel, taps.before), (taps.pixel + 1, taps.after))
    )
    return before + after


@functools.partial(jax.jit, static_argnames=("boundary", "blend"))  # a call outside jit is one fused program too
def sample(
    image: Image,
    field: Field,
    fill: float | jax.Array,
    *,
    boundary: str,
    blend: Callable[[Image, Taps, Taps], jax.Array] = by_platform,
) -> Image:
    """What ``remap`` does, once its arguments are checked."""
    height, width, _ = image.shape
    compute_dtype = jnp.promote_types(image.dtype, jnp.float32)
    field = field.astype(jnp.promote_types(field.dtype, jnp.float32))
    rows = jnp.arange(height, dtype=field.dtype)[:, None] + field[..., 0]
    columns = jnp.arange(width, dtype=field.dtype)[None, :] + field[..., 1]
    y, x = _taps(rows, height, boundary, compute_dtype), _taps(columns, width, boundary, compute_dtype)
    output = blend(image, y, x)
    if boundary == "constant":
        # Rounding does not matter: exactly 1 where all four pixels lie inside, exactly 0 where none does.
        inside = (y.before + y.after) * (x.before + x.after)
        output += (1 - inside) * jnp.asarray(fill, dtype=compute_dtype)
    return output.astype(image.dtype)


def _taps(coordinate: jax.Array, length: int, boundary: str, dtype: jax.typing.DTypeLike) -> Taps:
    floor = jnp.floor(coordinate)
    after = (coordinate - floor).astype(dtype)
    before = 1 - after
    index = floor.astype(jnp.int32)
    if boundary == "constant":
        before *= (index >= 0) & (index < length)
        after *= (index >= -1) & (index < length - 1)
    return Taps(index, before[..., None], after[..., None])
