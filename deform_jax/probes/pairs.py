"""The normalisers of a sensitivity: the median or mean distance over all pairs of distinct images.

All start from rows u (the flat taps; for the cosine distance, over their norms; for the Euclidean one, times a power of
two), whose distances are ‖u_i − u_j‖², ½ ‖u_i − u_j‖² and ‖u_i − u_j‖. The means of the first two need no pairs, and
stream; medians and the mean of the third come from a Gram matrix of all images. Rows are centred before anything is
squared, since from an uncentred Gram matrix distances of 1e-6 would be all rounding; the first row is subtracted before
the mean, so that equal rows give exactly zero.
"""

from collections import OrderedDict
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deform_jax.probes.distances import opaque, row_norm, row_scale, widen
from deform_jax.probes.pieces import block_sum, each_image
from deform_jax.typing import Taps

RESOLUTION = 2
"""Rows that differ by this many float32 roundings of their norm, or fewer, count as equal."""


class _Rows(NamedTuple):
    """What turns flat features into rows, and what is known of each row."""

    scale: Float[Array, "n 1"]
    inverse: Float[Array, "n 1"]
    """Features times scale times inverse are the rows. Two factors, because their product can underflow."""
    square: Float[Array, "n 1"]
    """‖u‖²; for the cosine distance 1, or 0 for a zero row."""
    weight: Float[Array, "n 1"]
    """1, or 0 for the images that only fill up a chunk."""

    def centred(self, part: Float[Array, "n block"]) -> Float[Array, "n block"]:
        """A block of the rows less their mean; zero where the weight is."""
        rows = part * self.scale * self.inverse
        rows = (rows - rows[:1]) * self.weight
        return rows - self.weight * (rows.sum(0, keepdims=True) / self.weight.sum())


def _rows(tap: Float[Array, "n ..."], distance: str, weight: Array | None = None) -> _Rows:
    def units(features: Array) -> tuple[Array, Array, Array]:
        features = opaque(widen(features))
        scale = row_scale(features)
        norm, zero = row_norm(features * scale)
        return scale, norm, 1 - zero.astype(norm.dtype)

    dtype = jnp.promote_types(tap.dtype, jnp.float32)
    ones = jnp.ones((len(tap), 1), dtype)
    weight = ones if weight is None else weight.astype(dtype)[:, None]
    if distance == "squared":
        square = each_image(lambda features: jnp.sum(jnp.square(widen(features)), keepdims=True), tap)
        return _Rows(ones, ones, square, weight)
    scale, norm, nonzero = each_image(units, tap)
    if distance == "cosine":
        return _Rows(scale, 1 / norm, nonzero, weight)
    shared = scale.min()  # of the largest row, so that distances between rows keep their proportions
    return _Rows(shared * ones, ones, nonzero * jnp.square(norm * (shared / scale)), weight)


def streams(distance: str, normaliser: str) -> bool:
    """Whether the normaliser can be merged from chunks of images; else it takes all of them at once."""
    return normaliser == "mean" and distance != "euclidean"


def normalisers(taps: Taps, distance: str, normaliser: str) -> Taps:
    """Of each tap, the median or mean over pairs i < j; an even number's median is the mean of the two middle ones."""
    if streams(distance, normaliser):
        parts = ((tap, moments(value, distance)) for tap, value in taps.items())
        return OrderedDict((tap, mean_distance(part, distance)) for tap, part in parts)
    grams = [jnp.stack(parts) for parts in zip(*(_gram(tap, distance) for tap in taps.values()), strict=True)]
    # One loop over the taps, not one sort for each: compiling them took longer than a network's forward pass.
    values = lax.map(lambda parts: _from_gram(*parts, distance=distance, normaliser=normaliser), tuple(grams))
    return OrderedDict(zip(taps, values, strict=True))


def _gram(
    tap: Float[Array, "n ..."], distance: str
) -> tuple[Float[Array, "n n"], Float[Array, "n 1"], Float[Array, ""]]:
    """The Gram matrix of the centred rows, the squared norms of the rows before centring, and their unit."""
    u = _rows(tap, distance)

    def product(part: Array) -> Array:
        part = u.centred(part)
        return jnp.matmul(part, part.T, precision=lax.Precision.HIGHEST)

    unit = u.scale[0, 0] if distance == "euclidean" else jnp.ones((), u.scale.dtype)
    return block_sum(product, tap), u.square, unit


def _from_gram(
    gram: Float[Array, "n n"], square: Float[Array, "n 1"], unit: Float[Array, ""], *, distance: str, normaliser: str
) -> Float[Array, ""]:
    norms = jnp.diagonal(gram)
    distances = jnp.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0)
    if distance == "cosine":
        distances = jnp.where(square != square.T, 1.0, distances / 2)  # of a zero row to another, as documented
    n = len(gram)
    itself = jnp.eye(n, dtype=bool)
    if normaliser == "mean":
        value = _root(jnp.where(itself, 0, distances)).sum() / (n * (n - 1))
    else:
        pairs = n * (n - 1) // 2
        # Each pair stands twice off the diagonal, which leaves the median where it was and needs no n²/2 indices.
        ordered = jnp.sort(jnp.where(itself, jnp.inf, distances), axis=None)
        middle = ordered[pairs - 1 : pairs + 1]
        value = (_root(middle) if distance == "euclidean" else middle).mean()
    return _resolved(jnp.where(jnp.isnan(distances).any(), jnp.nan, value), square.mean(), distance) / unit


def _root(square: Array) -> Array:
    """The square root, with a gradient of 0 at 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


class Moments(NamedTuple):
    """Number, Σ‖u‖², mean and scatter Σ‖u − mean‖² of the rows seen so far, so that images can stream."""

    number: Float[Array, ""]
    square: Float[Array, ""]
    mean: Float[Array, " features"]
    scatter: Float[Array, ""]


def moments(tap: Float[Array, "n ..."], distance: str, weight: Float[Array, " n"] | None = None) -> Moments:
    """The moments of the rows whose weight is 1, not 0; that of the first one always is."""
    u = _rows(tap, distance, weight)
    number = u.weight.sum()
    rows = widen(tap.reshape(len(tap), -1)) * u.scale * u.inverse
    mean = rows[0] + jnp.sum((rows - rows[:1]) * u.weight, 0) / number
    scatter = block_sum(lambda part: jnp.sum(jnp.square(u.centred(part))), tap)
    return Moments(number, jnp.sum(u.square * u.weight), mean, scatter)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of rows together (the exact pairwise update of Chan, Golub and LeVeque, 1979)."""
    number = a.number + b.number
    gap = b.mean - a.mean
    scatter = a.scatter + b.scatter + jnp.sum(jnp.square(gap)) * (a.number * b.number / number)
    return Moments(number, a.square + b.square, a.mean + gap * (b.number / number), scatter)


def mean_distance(m: Moments, distance: str) -> Float[Array, ""]:
    """The mean over pairs i < j, by Σ_{i<j} ‖u_i − u_j‖² = n Σ ‖u_i − mean‖²: no loop over pairs."""
    mean = 2 * m.scatter / (m.number - 1)
    if distance == "cosine":
        # The identity puts a zero row at ½ from a unit row; `cosine_distance` puts it at 1.
        zeros = m.number - m.square
        mean = mean / 2 + zeros * m.square / (m.number * (m.number - 1))
    return _resolved(mean, m.square / m.number, distance)


def _resolved(value: Array, square: Array, distance: str) -> Array:
    """``value``, or 0 where it is no more than the rounding of rows of mean square norm ``square``."""
    floor = square * (RESOLUTION * jnp.finfo(value.dtype).eps) ** 2 * (0.5 if distance == "cosine" else 1.0)
    floor = jnp.sqrt(floor) if distance == "euclidean" else floor
    return jnp.where((value <= floor) & jnp.isfinite(floor), 0, value)
