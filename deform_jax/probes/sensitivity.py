"""How far a perturbation of the images moves a representation, in units of the distance between images."""

import warnings
from collections import OrderedDict
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes import pairs
from deform_jax.probes.distances import DISTANCES, Distance, widen
from deform_jax.probes.pieces import block_sum, each_image
from deform_jax.probes.represent import call, read_taps
from deform_jax.typing import Represent, Taps

Normaliser = Literal["median", "mean"]
Numerator = Literal["mean", "coordinate_median"]


class SensitivityParts(NamedTuple):
    """What a sensitivity is made of, tap by tap: its mean numerator over its normaliser."""

    numerators: OrderedDict[str, Float[Array, " n"]]
    """Distance of each image's representation to that of its perturbed version."""
    normaliser: OrderedDict[str, Float[Array, ""]]
    """Mean or median distance between the representations of two different clean images."""


def sensitivity(
    represent: Represent,
    images: Float[Array, "n ..."],
    perturbed: Float[Array, "n ..."],
    *,
    distance: Distance = "cosine",
    normaliser: Normaliser = "median",
    numerator: Numerator = "mean",
    chunk: int | None = None,
) -> OrderedDict[str, Float[Array, ""]]:
    """Distance that a perturbation moves each tap, over the distance between two images there.

    The defaults are LS 2.1, which has ``distance="euclidean"`` as a variant. SI's D_f and G_f are
    ``distance="squared", normaliser="mean"``; those of Petrini et al. 2021 (RS) are ``distance="squared",
    normaliser="median", numerator="coordinate_median"``. Differentiable in the images and in the arrays of
    ``represent``; works inside ``jit`` and ``vmap``.

    Args:
      represent: images (n, …) → ordered mapping {tap: (n, …)}. A pytree that can be called, such as
        ``jax.tree_util.Partial(function, variables)``, is compiled once for all values of its arrays; a plain
        function is compiled at every call, since what it closes over may have changed. Products and convolutions
        in it run at the highest precision, unless they or ``jax.default_matmul_precision`` say otherwise. Under a
        ``jit`` of its own a plain ``dict`` comes back sorted: return an ``OrderedDict``.
      images: n ≥ 2 clean images (n, …).
      perturbed: one perturbed version of each, of the same shape.
      distance: ``"cosine"``, ``"squared"`` (Euclidean distance squared) or ``"euclidean"`` (not squared), between whole
        taps.
      normaliser: ``"median"`` or ``"mean"`` over the n (n − 1)/2 pairs of distinct clean images.
      numerator: ``"mean"`` over images, or ``"coordinate_median"``: the median over images of the squared difference
        at each coordinate, summed over coordinates; only with ``distance="squared"``.
      chunk: ``None`` holds both batches at once. With ``c``, pairs go through in chunks of at most c, for the same
        result in less memory and about 1.45 times the time; the median normaliser still takes the clean images at
        once, and so does the mean of ``"euclidean"``; the other means stream. ``"coordinate_median"`` keeps the
        differences of every tap.

    Returns:
      {tap: ratio} in the order of ``represent``; without unit, 0 for a representation that does not move. It is
      ``nan`` where the clean representations are all alike (a normaliser of zero, or no more than float32's rounding
      of the representations) and where values or distances are not finite; called eagerly, a ``RuntimeWarning``
      names these taps.

    Raises:
      TypeError: ``represent`` is not callable or returns no mapping of floating-point arrays; images not floating.
      ValueError: fewer than two images, different shapes, NaN or infinite images, an unknown option, no taps, or a
        tap whose leading axis is not n.

    Source: LS 2.1; SI Eq. 2; RS. Distinct pairs only: the released code of SI counts i = j too. Ours: the median
    normaliser of RS is read as the median over pairs of the squared distance.
    """
    chunk = _check_options(distance, normaliser, chunk)
    checks.option("numerator", numerator, ("mean", "coordinate_median"))
    if numerator == "coordinate_median" and distance != "squared":
        given = "'coordinate_median' was given"
        checks.fail("numerator", f"be 'mean' with distance='{distance}'", given, "Use it with distance='squared'.")
    images, perturbed = _check_images(images, perturbed)
    options = {"distance": distance, "normaliser": normaliser, "numerator": numerator, "chunk": chunk}
    values, normalisers = call(_sensitivity, represent, images, perturbed, **options)
    _warn(values, normalisers)
    return values


def sensitivity_parts(
    represent: Represent,
    images: Float[Array, "n ..."],
    perturbed: Float[Array, "n ..."],
    *,
    distance: Distance = "cosine",
    normaliser: Normaliser = "median",
    chunk: int | None = None,
) -> SensitivityParts:
    """The numerator of every image, and the normaliser, behind ``sensitivity(…, numerator="mean")``.

    For error bars over images and perturbations: resample the numerators, or split them by class.

    Args:
      represent: as for :func:`sensitivity`, and so the others.
      images: n ≥ 2 clean images (n, …).
      perturbed: one perturbed version of each, of the same shape.
      distance: ``"cosine"``, ``"squared"`` or ``"euclidean"``.
      normaliser: ``"median"`` or ``"mean"`` over pairs of distinct clean images.
      chunk: images that go through together, or ``None`` for all.

    Returns:
      ``(numerators, normaliser)``, mappings {tap: (n,)} and {tap: ()} in the order of ``represent``, both in the unit
      of the distance. Nothing is divided here and nothing warned of: the normaliser of a constant tap is 0.

    Raises:
      TypeError, ValueError: as :func:`sensitivity`.

    Source: LS 2.1; SI Eq. 2.
    """
    chunk = _check_options(distance, normaliser, chunk)
    images, perturbed = _check_images(images, perturbed)
    options = {"distance": distance, "normaliser": normaliser, "chunk": chunk, "coordinates": False}
    return SensitivityParts(*call(_parts, represent, images, perturbed, **options))


def _check_options(distance: str, normaliser: str, chunk: int | None) -> int | None:
    checks.option("distance", distance, DISTANCES)
    checks.option("normaliser", normaliser, ("median", "mean"))
    return None if chunk is None else checks.integer("chunk", chunk, minimum=1)


def _check_images(images: Array, perturbed: Array) -> tuple[Array, Array]:
    images = checks.array("images", images, "...", finite=True)
    perturbed = checks.array("perturbed", perturbed, "...", finite=True)
    if images.ndim == 0 or len(images) < 2:
        requirement = "hold at least two images along its first axis"
        checks.fail("images", requirement, f"its shape is {images.shape}", "Distances between images normalise.")
    checks.same_shape("perturbed", perturbed, "images", images)
    return images, perturbed


def _sensitivity(
    represent: Represent, images: Array, perturbed: Array, *, numerator: str, **options: Any
) -> tuple[Taps, Taps]:
    coordinates = numerator == "coordinate_median"
    differences, normalisers = _parts(represent, images, perturbed, coordinates=coordinates, **options)
    values = OrderedDict()
    for tap, normaliser in normalisers.items():
        moved = block_sum(_median_square, differences[tap]) if coordinates else differences[tap].mean()
        defined = (normaliser > 0) & jnp.isfinite(normaliser) & jnp.isfinite(moved)
        values[tap] = jnp.where(defined, moved / jnp.where(defined, normaliser, 1), jnp.nan)
    return values, normalisers


def _parts(
    represent: Represent,
    images: Array,
    perturbed: Array,
    *,
    distance: str,
    normaliser: str,
    coordinates: bool,
    chunk: int | None,
) -> tuple[Taps, Taps]:
    """Numerators {tap: (n,)}, or for ``coordinates`` the differences {tap: (n, …)} they are made of; normalisers."""
    if chunk is not None and chunk < len(images):
        return _streamed(represent, images, perturbed, distance, normaliser, coordinates, chunk)
    clean, moved = read_taps(represent, images), read_taps(represent, perturbed)
    differences = OrderedDict((tap, _moved(clean[tap], moved[tap], distance, coordinates)) for tap in clean)
    return differences, pairs.normalisers(clean, distance, normaliser)


def _streamed(
    represent: Represent,
    images: Array,
    perturbed: Array,
    distance: str,
    normaliser: str,
    coordinates: bool,
    chunk: int,
) -> tuple[Taps, Taps]:
    """As ``_parts``, with the pairs in equal chunks of at most ``chunk``; the last one repeats its last image."""
    n = len(images)
    steps = -(-n // chunk)
    size = -(-n // steps)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, steps * size - n)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return x.reshape(steps, size, *x.shape[1:])

    def step(seen: dict[str, pairs.Moments], batch: tuple[Array, Array, Array]) -> tuple[dict, Taps]:
        clean, moved = read_taps(represent, batch[0]), read_taps(represent, batch[1])
        seen = {tap: pairs.merge(seen[tap], pairs.moments(clean[tap], distance, batch[2])) for tap in seen}
        return seen, OrderedDict((tap, _moved(clean[tap], moved[tap], distance, coordinates)) for tap in clean)

    batches = (split(images), split(perturbed), (jnp.arange(steps * size) < n).reshape(steps, size))
    if not pairs.streams(distance, normaliser):
        normalisers = pairs.normalisers(read_taps(represent, images), distance, normaliser)
        _, differences = lax.scan(step, {}, batches)
    else:
        first = jax.eval_shape(lambda x: read_taps(represent, x), batches[0][0])
        empty = jax.eval_shape(lambda x: {tap: pairs.moments(value, distance) for tap, value in x.items()}, first)
        seen, differences = lax.scan(step, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), empty), batches)
        normalisers = OrderedDict((tap, pairs.mean_distance(seen[tap], distance)) for tap in first)
    flat = OrderedDict((tap, d.reshape(steps * size, *d.shape[2:])[:n]) for tap, d in differences.items())
    return flat, normalisers


def _moved(clean: Array, moved: Array, distance: str, coordinates: bool) -> Array:
    """Distance of each image to its perturbed version (n,), or what its coordinate-wise squares are made of."""
    if coordinates:
        return widen(clean) - widen(moved)
    return each_image(DISTANCES[distance], clean, moved)


def _median_square(difference: Float[Array, "n block"]) -> Array:
    return jnp.median(jnp.square(difference.T), axis=1).sum()  # a sort along the last axis is the faster one on CPU


def _warn(values: Taps, normalisers: Taps) -> None:
    """Name the taps whose sensitivity is undefined, where the numbers are known."""
    if checks.is_traced(values):
        return
    values, normalisers = jax.device_get((values, normalisers))
    undefined = [tap for tap, value in values.items() if not np.isfinite(value)]
    alike = [tap for tap in undefined if normalisers[tap] == 0]
    for taps, why in (
        (alike, "the clean images' representations are all alike there, so that the normaliser is zero"),
        ([tap for tap in undefined if tap not in alike], "values or distances there are not finite in float32"),
    ):
        if taps:
            listed = ", ".join(repr(tap) for tap in taps)
            warnings.warn(f"The sensitivity is nan at tap {listed}: {why}.", RuntimeWarning, stacklevel=3)
