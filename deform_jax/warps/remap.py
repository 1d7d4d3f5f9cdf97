"""Image + displacement field → image: the only code that moves pixels."""

import jax

from deform_jax import checks
from deform_jax.typing import Field, Image
from deform_jax.warps import _inputs, _sampling

BOUNDARIES = ("edge", "constant")


def remap(image: Image, field: Field, *, boundary: str = "edge", fill: float | jax.Array = 0.0) -> Image:
    """Resample an image along a backward displacement field: ``output[p] = image[p + field[p]]``, bilinear.

    Pixel centres lie at the integers 0 … n−1. Differentiable in the image, the field and ``fill``. The result is
    piecewise bilinear in the field; where a sample lands exactly on a pixel, the derivative is the one-sided derivative
    towards larger coordinates (so 0 on the last row of an unmoved image: what follows is a clamped copy of it).

    Four pixels are gathered for each pixel of the result. Programs for TPUs, which gather slowly, multiply small images
    (up to 59 × 59 × 3) by matrices of weights instead: the same values and derivatives, up to rounding.

    Args:
      image: (h, w, c), floating point, any height and width ≥ 1, any units. A traced one that is not finite is not
        refused: a pixel of NaN spreads to where it is sampled, or by the products for TPUs over its whole channel.
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
    The products, and the size up to which they are taken, are ours; they could not be timed on a TPU.
    """
    image = _inputs.example("image", image, "h w c")
    field = _inputs.example("field", field, "h w 2", kind="real")
    checks.option("boundary", boundary, BOUNDARIES)
    fill = checks.number("fill", fill)
    height, width, _ = image.shape
    if field.shape[:2] != (height, width):
        required = f"have the image's height and width, ({height}, {width}, 2)"
        checks.fail("field", required, f"its shape is {tuple(field.shape)}", "Make it with `shape=image.shape[:2]`.")

    return _sampling.sample(image, field, fill, boundary=boundary)
