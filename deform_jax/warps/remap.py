"""Image + displacement field → image: the only code that moves pixels."""

import functools

import jax
import jax.numpy as jnp

from deform_jax import checks
from deform_jax.typing import Field, Image
from deform_jax.warps import _inputs

BOUNDARIES = ("edge", "constant")


def remap(image: Image, field: Field, *, boundary: str = "edge", fill: float | jax.Array = 0.0) -> Image:
    """Resample an image along a backward displacement field: ``output[p] = image[p + field[p]]``, bilinear.

    Pixel centres lie at the integers 0 … n−1. Differentiable in the image, the field and ``fill``. The result is
    piecewise bilinear in the field; where a sample lands exactly on a pixel, the derivative is the one-sided derivative
    towards larger coordinates (so 0 on the last row of an unmoved image: what follows is a clamped copy of it).

    Args:
      image: (h, w, c), floating point, any height and width ≥ 1, any units.
      field: (h, w, 2), the displacement (dy, dx) of every output pixel's source, in pixels. Coordinates and weights are
        computed in float32 or better whatever the dtypes of the field and the image.
      boundary: what lies outside the image. ``"edge"`` repeats the nearest border pixel (coordinates are clamped).
        ``"constant"`` continues the pixel grid with ``fill``, so that samples between a border pixel and its neighbour
        outside blend the two (scipy's ``"grid-constant"``, not its ``"constant"``, which jumps at the border and so
        has no useful derivative; the choice is ours).
      fill: the value outside, in units of the image; ``boundary="constant"`` only. May be traced.

    Returns:
      The warped image, (h, w, c), with the image's dtype.

    Raises:
      TypeError: the image does not hold floating-point numbers, or the field real ones.
      ValueError: wrong shapes (a batch included), an unknown boundary, or concrete values that are not finite. A traced
        displacement that is not finite gives NaN at its own pixel.

    Bilinear sampling and backward fields are those of Ruderman et al. 2018, section 2.1 and Fig. 2's caption.
    """
    image = _inputs.example("image", image, "h w c")
    field = _inputs.example("field", field, "h w 2", kind="real")
    checks.option("boundary", boundary, BOUNDARIES)
    fill = checks.number("fill", fill)
    height, width, _ = image.shape
    if field.shape[:2] != (height, width):
        required = f"have the image's height and width, ({height}, {width}, 2)"
        checks.fail("field", required, f"its shape is {tuple(field.shape)}", "Make it with `shape=image.shape[:2]`.")

    return _sample(image, field, fill, boundary=boundary)


@functools.partial(jax.jit, static_argnames="boundary")  # so that a call outside jit is one fused program too
def _sample(image: Image, field: Field, fill: float | jax.Array, *, boundary: str) -> Image:
    height, width, _ = image.shape
    compute_dtype = jnp.promote_types(image.dtype, jnp.float32)
    field = field.astype(jnp.promote_types(field.dtype, jnp.float32))
    rows = jnp.arange(height, dtype=field.dtype)[:, None] + field[..., 0]
    columns = jnp.arange(width, dtype=field.dtype)[None, :] + field[..., 1]
    y, above, below = _taps(rows, height, boundary, compute_dtype)
    x, left, right = _taps(columns, width, boundary, compute_dtype)

    def pixels(y: jax.Array, x: jax.Array) -> jax.Array:
        # mode="clip" clamps, which is the edge rule itself. Jax's own default would count negative indices from the end
        # and fill what lies outside with NaN, three times slower.
        return image.at[y, x].get(mode="clip", wrap_negative_indices=False).astype(compute_dtype)

    output = above * (left * pixels(y, x) + right * pixels(y, x + 1))
    output += below * (left * pixels(y + 1, x) + right * pixels(y + 1, x + 1))
    if boundary == "constant":
        # Rounding does not matter: exactly 1 where all four pixels lie inside, exactly 0 where none does.
        inside = (above + below) * (left + right)
        output += (1 - inside) * jnp.asarray(fill, dtype=compute_dtype)
    return output.astype(image.dtype)


def _taps(
    coordinate: jax.Array, length: int, boundary: str, dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Index of the pixel before each coordinate, and the weights (…, 1) of that pixel and of the next."""
    floor = jnp.floor(coordinate)
    after = (coordinate - floor).astype(dtype)
    before = 1 - after
    index = floor.astype(jnp.int32)
    if boundary == "constant":
        before *= (index >= 0) & (index < length)
        after *= (index >= -1) & (index < length - 1)
    return index, before[..., None], after[..., None]
