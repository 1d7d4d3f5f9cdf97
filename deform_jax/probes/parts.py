"""What sensitivities are made of: how far every image's representation moves, and the normaliser of every tap."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes import pairs
from deform_jax.probes.distances import DISTANCES, widen
from deform_jax.probes.moved import moved as distance_moved
from deform_jax.probes.pieces import block_sum, join, split
from deform_jax.probes.represent import read_taps
from deform_jax.typing import Represent, Taps

ALIKE = "the clean images' representations are all alike there, so that the normaliser is zero"
NOT_FINITE = "values or distances there are not finite in float32"


def check_options(distance: str, normaliser: str, numerator: str, chunk: int | None) -> int | None:
    """Refuse what is no option, and return the chunk as a Python int."""
    checks.option("distance", distance, DISTANCES)
    checks.option("normaliser", normaliser, ("median", "mean"))
    checks.option("numerator", numerator, ("mean", "coordinate_median"))
    if numerator == "coordinate_median" and distance != "squared":
        given = "'coordinate_median' was given"
        checks.fail("numerator", f"be 'mean' with distance='{distance}'", given, "Use it with distance='squared'.")
    return None if chunk is None else checks.integer("chunk", chunk, minimum=1)


def check_images(images: Array, **versions: Array) -> tuple[Array, ...]:
    """The images and their perturbed versions as arrays of one shape, of two images at least."""
    images = checks.array("images", images, "...", finite=True)
    versions = {name: checks.array(name, value, "...", finite=True) for name, value in versions.items()}
    if images.ndim == 0 or len(images) < 2:
        requirement = "hold at least two images along its first axis"
        checks.fail("images", requirement, f"its shape is {images.shape}", "Distances between images normalise.")
    for name, value in versions.items():
        checks.same_shape(name, value, "images", images)
    return images, *versions.values()


def parts(
    represent: Represent,
    images: Array,
    versions: tuple[Array, ...],
    *,
    distance: str,
    normaliser: str,
    coordinates: bool,
    chunk: int | None,
) -> tuple[tuple[Taps, ...], Taps]:
    """The numerators {tap: (n,)} of each version, and the normalisers; the clean images go through once for all.

    For ``coordinates``, the differences {tap: (n, …)} of which numerators are made.
    """
    if chunk is not None and chunk < len(images):
        return _in_chunks(represent, images, versions, distance, normaliser, coordinates, chunk)
    clean, differences = read(represent, images, versions, distance, coordinates=coordinates)
    return differences, pairs.normalisers(clean, distance, normaliser)


def _in_chunks(
    represent: Represent,
    images: Array,
    versions: tuple[Array, ...],
    distance: str,
    normaliser: str,
    coordinates: bool,
    chunk: int,
) -> tuple[tuple[Taps, ...], Taps]:
    """As ``parts``, with the images in equal chunks of at most ``chunk``; the last one repeats its last image."""
    n = len(images)
    steps = -(-n // chunk)
    size = -(-n // steps)

    def chunks(x: Array) -> Array:
        return split(fill(x, steps * size), steps)

    def step(seen: dict[str, pairs.Moments], batch: tuple) -> tuple[dict, tuple[Taps, ...]]:
        part, versions_of_part, weight = batch
        clean, differences = read(represent, part, versions_of_part, distance, coordinates=coordinates)
        seen = {tap: pairs.merge(seen[tap], pairs.moments(clean[tap], distance, weight)) for tap in seen}
        return seen, differences

    batches = (chunks(images), tuple(map(chunks, versions)), split(jnp.arange(steps * size) < n, steps))
    if not pairs.streams(distance, normaliser):
        normalisers = pairs.normalisers(read_taps(represent, images), distance, normaliser)
        _, differences = lax.scan(step, {}, batches)
    else:
        first = jax.eval_shape(lambda x: read_taps(represent, x), batches[0][0])
        empty = jax.eval_shape(lambda x: {tap: pairs.moments(value, distance) for tap, value in x.items()}, first)
        seen, differences = lax.scan(step, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), empty), batches)
        normalisers = OrderedDict((tap, pairs.mean_distance(seen[tap], distance)) for tap in first)
    return jax.tree.map(lambda d: join(d)[:n], differences), normalisers


def read(
    represent: Represent, images: Array, versions: tuple[Array, ...], distance: str, *, coordinates: bool = False
) -> tuple[Taps, tuple[Taps, ...]]:
    """The clean taps, and for each version how far they move: (n,), or with ``coordinates`` the differences."""
    clean = read_taps(represent, images)
    differences = []
    for version in versions:
        moved = read_taps(represent, version)
        differences.append(OrderedDict((t, _moved(clean[t], moved[t], distance, coordinates)) for t in clean))
    return clean, tuple(differences)


def _moved(clean: Array, moved: Array, distance: str, coordinates: bool) -> Array:
    if coordinates:
        return widen(clean) - widen(moved)
    return distance_moved(clean, moved, distance)


def fill(x: Float[Array, "n ..."], size: int) -> Float[Array, "size ..."]:
    """``x`` with its last row repeated up to ``size`` rows; what is made of those must get the weight 0."""
    if len(x) == size:
        return x
    return jnp.pad(x, [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1), mode="edge")


def averaged(differences: Taps, *, coordinates: bool) -> Taps:
    """Each tap's numerator: the mean over images, or the sum of the median squares of all coordinates."""
    return OrderedDict(
        (tap, block_sum(_median_square, value) if coordinates else value.mean()) for tap, value in differences.items()
    )


def _median_square(difference: Float[Array, "n block"]) -> Array:
    return jnp.median(jnp.square(difference.T), axis=1).sum()  # a sort along the last axis is the faster one on CPU


def quotient(above: Taps, below: Taps) -> Taps:
    """Tap by tap; ``nan`` where either is not finite or ``below`` is not positive, with a gradient of 0."""
    values = OrderedDict()
    for tap, divisor in below.items():
        defined = (divisor > 0) & jnp.isfinite(divisor) & jnp.isfinite(above[tap])
        values[tap] = jnp.where(defined, above[tap] / jnp.where(defined, divisor, 1), jnp.nan)
    return values


def warn_undefined(what: str, values: Taps, zero: Mapping[str, Taps]) -> None:
    """Name the taps where ``values`` are undefined, where the numbers are known; called by what the user called.

    Each is named under the first reason of ``zero``, {reason: taps}, whose tap is 0, or else as not finite.
    """
    if checks.is_traced(values):
        return
    values, zero = jax.device_get((values, dict(zero)))
    undefined = [tap for tap, value in values.items() if not np.isfinite(value)]
    for why, taps in (*zero.items(), (NOT_FINITE, None)):
        named = [tap for tap in undefined if taps is None or taps[tap] == 0]
        undefined = [tap for tap in undefined if tap not in named]
        if named:
            listed = ", ".join(repr(tap) for tap in named)
            warnings.warn(f"{what} is nan at tap {listed}: {why}.", RuntimeWarning, stacklevel=3)
