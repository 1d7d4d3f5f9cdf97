"""Maximum-entropy diffeomorphisms: standard normals, one per sine mode → displacement field."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.typing import Field, Image
from deform_jax.warps import _inputs
from deform_jax.warps.remap import remap


def max_entropy_field(
    coefficients: Float[Array, "2 c c"], shape: tuple[int, int], *, temperature: float | Float[Array, ""]
) -> Field:
    """The field −τ of a diffeomorphism x → x − τ, with each component of τ a sum of sine modes, zero on the border.

    Each component is √T · n · Σ_ij e_ij coefficients_ij sin(iπ·row) sin(jπ·column), with row and column running from 0
    on the first pixel to 1 on the last, i and j from 1 to c, and e_ij = 1/√(i² + j²) where √(i² + j²) < c + ½, else 0.
    For standard normals, on a square, this is the law of largest entropy at a given mean squared gradient. It is linear
    in the coefficients. A side of h pixels tells h − 2 modes apart and aliases those above: keep c at or below that.

    Images need not be square, and here the choice is ours: the modes stretch with the image while the displacements
    keep their size, the same in both directions, and n is the shorter side. So √T n, the size in pixels, means on every
    shape what it means on a square, and neither direction folds before the square of the shorter side would.

    Args:
      coefficients: (2, c, c), without unit, [0] for dy and [1] for dx; c ≥ 2 is the cutoff. ``random_coefficients``
        draws them; the envelope and the cutoff act in here.
      shape: (h, w) of the field in pixels, each ≥ 3, since all of a smaller one is border; static.
      temperature: T ≥ 0, without unit; ``temperature`` has that of a displacement in pixels and ``temperature_range``
        the values that make sense, others being allowed. May be traced. The derivative at 0, in truth infinite, is 0.

    Returns:
      (h, w, 2) backward displacements (dy, dx) in pixels, for ``remap``, in float32 or better.

    Raises:
      TypeError: not real numbers, or ``shape`` is not a static pair of integers.
      ValueError: wrong shapes (a batch included), a cutoff below 2, a side below 3, a negative temperature, or values
        known to be NaN or infinite.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468, whose images are square; the ½ in the cutoff and
    the modes that vanish on the outermost pixels are those of its released experiments.
    """
    coefficients = _inputs.example("coefficients", coefficients, "2 cutoff cutoff", kind="real")
    _, cutoff, other = coefficients.shape
    if cutoff != other or cutoff < 2:
        given = f"its shape is {tuple(coefficients.shape)}"
        checks.fail("coefficients", "have shape (2, cutoff, cutoff) with cutoff ≥ 2", given)
    height, width = checks.size_pair("shape", shape, minimum=3)
    temperature = checks.number("temperature", temperature, minimum=0)
    dtype = jnp.promote_types(coefficients.dtype, jnp.float32)
    return _field(coefficients.astype(dtype), jnp.asarray(temperature, dtype), shape=(height, width))


@functools.partial(jax.jit, static_argnames="shape")  # so that a call outside jit is one program too
def _field(coefficients: jax.Array, temperature: jax.Array, *, shape: tuple[int, int]) -> Field:
    dtype, cutoff = coefficients.dtype, coefficients.shape[1]
    rows, columns = (jnp.asarray(_sines(length, cutoff), dtype) for length in shape)
    scaled = -min(shape) * _root(temperature) * jnp.asarray(_envelope(cutoff), dtype)[None] * coefficients
    # One axis at a time, in the order that leaves whole planes of dy and dx without a transposition (as in tps_field).
    planes = jnp.tensordot(scaled, rows, (1, 0), precision=jax.lax.Precision.HIGHEST)
    planes = jnp.tensordot(planes, columns, (1, 0), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(planes, 0, -1)


def deform_max_entropy(
    coefficients: Float[Array, "2 c c"],
    image: Image,
    *,
    temperature: float | Float[Array, ""],
    boundary: str = "edge",
    fill: float | jax.Array = 0.0,
) -> Image:
    """Warp one image by a maximum-entropy diffeomorphism: what ``random_max_entropy`` draws coefficients for.

    Args:
      coefficients: (2, c, c), without unit, as in ``max_entropy_field``; c ≥ 2.
      image: (h, w, c), floating point, h and w ≥ 3.
      temperature: T ≥ 0, without unit. May be traced.
      boundary: ``"edge"`` or ``"constant"``, as in ``remap``. The border stays where it is: only a field that folds
        samples outside the image.
      fill: the value outside the image, as in ``remap``.

    Returns:
      The warped image, (h, w, c), with the image's dtype.

    Raises:
      TypeError, ValueError: as ``max_entropy_field`` and ``remap``.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468.
    """
    image = _inputs.example("image", image, "h w c")
    height, width, _ = image.shape
    if min(height, width) < 3:
        checks.fail("image", "be at least 3 pixels high and wide", f"its shape is {tuple(image.shape)}")
    field = max_entropy_field(coefficients, (height, width), temperature=temperature)
    return remap(image, field, boundary=boundary, fill=fill)


def mean_displacement(field: Field) -> Float[Array, ""]:
    """How far a field displaces, measured: the root of the mean over all pixels of dy² + dx².

    The quadratic mean, and over the border too. For maximum-entropy fields it is to be compared with the displacement δ
    they are drawn for, which is nominal: at c = 3 and 32 × 32, δ = 1 gives 0.816 over many fields.

    Args:
      field: (h, w, 2) displacements (dy, dx) in pixels, of any warp.

    Returns:
      Scalar, in pixels, in float32 or better. Its gradient at a field of zeros is 0.

    Raises:
      TypeError: the field does not hold real numbers.
      ValueError: a wrong shape (a batch included), or values known to be NaN or infinite.

    Ours, to hold a field against the δ of Petrini et al. 2021.
    """
    field = _inputs.example("field", field, "h w 2", kind="real")
    field = field.astype(jnp.promote_types(field.dtype, jnp.float32))
    return _root(jnp.mean(jnp.sum(field**2, axis=-1)))


def _root(value: jax.Array) -> jax.Array:
    """Square root with derivative 0 at 0, where the true one is infinite and makes NaN of whatever it meets."""
    zero = value == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, value)))


@functools.lru_cache(maxsize=32)
def _sines(length: int, cutoff: int) -> np.ndarray:
    """Row i − 1: sin(iπx) for x from 0 on the first of ``length`` pixels to 1 on the last, as read-only float64.

    A numpy array, like every cached one here: a jax array first made while a function is traced would be a tracer.
    """
    sines = np.sin(np.pi * np.arange(1, cutoff + 1)[:, None] * np.linspace(0, 1, length))
    sines[:, -1] = 0.0  # not the 1e-16 that the rounding of π leaves: the border stays exactly where it is
    sines.flags.writeable = False
    return sines


@functools.lru_cache(maxsize=32)
def _envelope(cutoff: int) -> np.ndarray:
    mode = np.arange(1, cutoff + 1)
    radius = np.hypot(mode[:, None], mode)
    envelope = (radius < cutoff + 0.5) / radius
    envelope.flags.writeable = False
    return envelope
