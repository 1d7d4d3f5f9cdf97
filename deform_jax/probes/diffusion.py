"""How a pixel spreads through homogeneous layers, and the scaling laws that follow for wide images and deep layers."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from deform_jax import checks
from deform_jax.probes.homogeneous import concrete


class Exponents(NamedTuple):
    """Exponents of D_k, G_k and R_k as powers of the width A_k."""

    deformation: float
    """Of D_k."""
    noise: float
    """Of G_k."""
    ratio: float
    """Of R_k: the first less the second."""


def asymptotic_exponents(*, strided: bool, ndim: int = 1) -> Exponents:
    """Exponents of D_k, G_k and R_k = D_k/G_k against the width A_k of a homogeneous network, asymptotically.

    ============  ====  ====  ========
    stride        D     G     R
    ============  ====  ====  ========
    1             −2    d     −(2 + d)
    filter size   −1    d     −(1 + d)
    ============  ====  ====  ========

    They hold for noise that is rectified, 1 ≪ A_k and A_k well below the image and the scale of the task. SI's own
    sizes are far from that: of 12 layers with F = 3 on 32 pixels the slopes of D and G against A_k are −1.65 and 0.95.
    :func:`homogeneous_network` has the exact curves.

    Args:
      strided: strides equal the filter size, not 1.
      ndim: d, dimensions of the image.

    Returns:
      ``(deformation, noise, ratio)``, exponents of D, G and R.

    Raises:
      TypeError: ``strided`` is not a bool.
      ValueError: ``ndim`` below 1.

    Source: SI Eqs 5, 7, 8 and 9, in one dimension. SI 4 says that they carry "unaltered" to two, which for G holds only
    if A_k is the number of sites in the receptive field; with A_k its width, G ~ A^d, since ‖f_k(δ)‖² ~ A^−d.
    """
    strided = checks.flag("strided", strided)
    ndim = checks.integer("ndim", ndim, minimum=1, maximum=checks.LONGEST)
    deformation = -1.0 if strided else -2.0
    return Exponents(deformation, float(ndim), deformation - ndim)


def log_log_slope(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Least-squares slope of log ``y`` against log ``x``: the exponent a of y ~ x^a.

    Args:
      x: (n,) positive values, not all the same.
      y: (n,) positive values.

    Raises:
      TypeError: not real numbers, or traced.
      ValueError: fewer than two points, different lengths, values not positive or not finite, or ``x`` all the same.

    Source: SI Fig. 7, where laws are lines.
    """
    logs = []
    for name, value in (("x", x), ("y", y)):
        value = _positive(name, value)
        if value.ndim != 1 or len(value) < 2:
            checks.fail(name, "have shape (n,) with n ≥ 2", f"its shape is {value.shape}")
        logs.append(np.log(value))
    if len(logs[0]) != len(logs[1]):
        checks.fail("y", "be as long as `x`", f"the lengths are {len(logs[1])} and {len(logs[0])}")
    centred = logs[0] - logs[0].mean()
    if np.ptp(logs[0]) == 0:
        checks.fail("x", "hold different values", "they are all the same")
    return float(centred @ logs[1] / (centred @ centred))


def diffusion_constant(filter_size: int, *, printed: bool = False) -> float:
    """Diffusion constant D of a pixel in homogeneous layers of stride 1: half the variance that a layer adds, px².

    (F² − 1)/24 for odd and even F, since the uniform distribution on F sites has variance (F² − 1)/12.

    Args:
      filter_size: F ≥ 1.
      printed: the constants of SI's Eqs 11 and 12 instead, (F − 1)³/(12 F) for odd F and
        (F³ − 3F² + 6F − 4)/(12 F) for even F. They come of Eq. 16, which takes ∫ x² dx/F over an interval of length
        F − 1 for a sum over F sites, about 0 and not about the drift, and lacks the ½ of D: for odd F ≫ 1 twice too
        large, for F = 3 a third too small.

    Raises:
      TypeError, ValueError: ``filter_size`` is not an integer ≥ 1.

    Source: SI Prop. A.1, corrected; its √k stands.
    """
    size = checks.integer("filter_size", filter_size, minimum=1, maximum=checks.LONGEST)
    if not checks.flag("printed", printed):
        return (size**2 - 1) / 24
    return ((size - 1) ** 3 if size % 2 else size**3 - 3 * size**2 + 6 * size - 4) / (12 * size)


def drift(filter_size: int, *, printed: bool = False) -> float:
    """How far homogeneous layers of stride 1 move a pixel, in pixels to the right for each layer: 0 for odd F.

    For even F it is ½: windows hold F/2 sites to the left of theirs and F/2 − 1 to the right, so that a pixel is seen
    from −F/2 + 1 to F/2 about itself. SI's v^(2), on the other side of the equation, has the opposite sign.

    Args:
      filter_size: F ≥ 1.
      printed: the constant of SI's Eq. 12 instead, (F − 1)/(2 F) for even F: that of an integral over an interval of
        length F − 1, which is ½ only for F ≫ 1.

    Raises:
      TypeError, ValueError: ``filter_size`` is not an integer ≥ 1.

    Source: SI Prop. A.1, corrected.
    """
    size = checks.integer("filter_size", filter_size, minimum=1, maximum=checks.LONGEST)
    printed = checks.flag("printed", printed)
    if size % 2:
        return 0.0
    return (size - 1) / (2 * size) if printed else 0.5


def diffusion_profile(offsets: Any, *, filter_size: int, layer: int, printed: bool = False) -> np.ndarray:
    """The Gaussian that a pixel's representation approaches in deep homogeneous layers of stride 1, unwrapped.

    exp(−(x − u k)²/(4 D k)) / √(4 π D k), with D the :func:`diffusion_constant` and u the :func:`drift`.

    Args:
      offsets: (…) x, sites relative to the pixel, in pixels; any real numbers.
      filter_size: F ≥ 2.
      layer: k ≥ 1.
      printed: with the constants of SI's Eqs 11 and 12, to set beside the right ones.

    Returns:
      (…) float64, of sum 1 over all sites where D k is well above 1.

    Raises:
      TypeError, ValueError: offsets that are no real numbers or traced; sizes out of range.

    Source: SI Prop. A.1 (Eqs 11 and 12), corrected.
    """
    filter_size = checks.integer("filter_size", filter_size, minimum=2, maximum=checks.LONGEST)
    layer = checks.integer("layer", layer, minimum=1, maximum=checks.LONGEST)
    offsets = concrete("offsets", offsets, "...", "real").astype(np.float64)
    spread = 4 * diffusion_constant(filter_size, printed=printed) * layer
    with np.errstate(over="ignore"):  # where the square leaves float64, the profile is 0
        exponent = -((offsets - drift(filter_size, printed=printed) * layer) ** 2) / spread
    return np.exp(exponent) / np.sqrt(np.pi * spread)


def _positive(name: str, value: Any) -> np.ndarray:
    value = concrete(name, value, "...", "real").astype(np.float64)
    if value.min() <= 0:
        given = f"its least value is {value.min():g}"
        checks.fail(name, "be positive", given, "Leave out what has no logarithm.")
    return value
