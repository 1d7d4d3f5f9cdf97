"""How much more a deformation of the images moves a representation than noise of the same norm."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes import pairs, parts
from deform_jax.probes.represent import call, compiled
from deform_jax.probes.sensitivity import Normaliser, Numerator
from deform_jax.typing import Represent, Taps

_WHAT = "The relative sensitivity"
_STILL = "the noise does not move the representations there"


class RelativeSensitivity(NamedTuple):
    """Sensitivities to deformations and to noise of the same norm, and their ratio, tap by tap."""

    deformation: OrderedDict[str, Float[Array, ""]]
    """D: squared distance that deformations move the representations, over that between two images."""
    noise: OrderedDict[str, Float[Array, ""]]
    """G: squared distance that noise moves them, over the same."""
    ratio: OrderedDict[str, Float[Array, ""]]
    """R = D/G, the relative sensitivity: below 1 where deformations move representations less than noise does."""


def relative_sensitivity(
    represent: Represent,
    images: Float[Array, "n ..."],
    deformed: Float[Array, "n ..."],
    noisy: Float[Array, "n ..."],
    *,
    normaliser: Normaliser = "mean",
    numerator: Numerator = "mean",
    chunk: int | None = None,
) -> RelativeSensitivity:
    """D, G and R = D/G of every tap: how far deformations move it, how far noise does, and the one over the other.

    Distances are squared. The defaults are SI's; those of Petrini et al. 2021 (RS) are ``normaliser="median",
    numerator="coordinate_median"``. As ``sensitivity(…, distance="squared")`` of the deformed and of the noisy images,
    with the clean ones passed once for both. Differentiable in the images and in the arrays of ``represent``; works
    inside ``jit`` and ``vmap``.

    Args:
      represent: images (n, …) → ordered mapping {tap: (n, …)}, compiled as for :func:`sensitivity`; the network's
        output is one more tap, which gives D_f, G_f and R_f.
      images: n ≥ 2 clean images (n, …).
      deformed: one deformed version of each, of the same shape.
      noisy: one noisy version of each, of the same shape, as :func:`matched_noise` makes them.
      normaliser: ``"mean"`` or ``"median"`` over the n (n − 1)/2 pairs of distinct clean images.
      numerator: ``"mean"`` over images, or ``"coordinate_median"``: the median over images of the squared difference
        at each coordinate, summed over coordinates.
      chunk: images that go through together, or ``None`` for all; what else is held at once is as for
        :func:`sensitivity`. For more images than fit on the device, see :func:`streamed_relative_sensitivity`.

    Returns:
      ``(deformation, noise, ratio)``, each ``{tap: ()}`` in the order of ``represent``, without unit. All are ``nan``
      where the clean representations are all alike, R too although its normalisers cancel; R is ``nan`` where noise
      moves nothing (G = 0); and where values are not finite. Called eagerly, a ``RuntimeWarning`` names these taps.

    Raises:
      TypeError, ValueError: as :func:`sensitivity`.

    Source: SI Eq. 1; RS. Distinct pairs only, and RS's median normaliser, as :func:`sensitivity` reads them.
    """
    chunk = parts.check_options("squared", normaliser, numerator, chunk)
    images, deformed, noisy = parts.check_images(images, deformed=deformed, noisy=noisy)
    options = {"normaliser": normaliser, "numerator": numerator, "chunk": chunk}
    result, normalisers = call(_relative, represent, images, deformed, noisy, **options)
    parts.warn_undefined(_WHAT, result.ratio, {parts.ALIKE: normalisers, _STILL: result.noise})
    return result


def streamed_relative_sensitivity(
    represent: Represent,
    batches: Iterable[tuple[Array, Array, Array]],
    *,
    normaliser: Normaliser = "mean",
    numerator: Numerator = "mean",
) -> RelativeSensitivity:
    """:func:`relative_sensitivity` of any number of images, given batch by batch, for the same result.

    Of each batch only sums are kept, and one mean image's representation; its activations are dropped before the next
    goes through. What is compiled serves all batches no larger than one before, which are filled up to its size.

    Args:
      represent: as for :func:`relative_sensitivity`; each image by itself, without statistics of its batch.
      batches: tuples ``(images, deformed, noisy)``, each (m, …) of the shapes of one another; m ≥ 1 may change from
        batch to batch. Let a generator read, deform and add noise as it goes: no more than two
        batches of images are held at once.
      normaliser: ``"mean"`` only: a median over pairs would need every representation at once.
      numerator: ``"mean"`` only, likewise.

    Returns:
      ``(deformation, noise, ratio)`` of all images together, as :func:`relative_sensitivity`, ``nan`` and warning too.

    Raises:
      TypeError: ``batches`` is no iterable of tuples of three arrays; the rest as :func:`relative_sensitivity`.
      ValueError: fewer than two images in all, images of different shapes, or options other than ``"mean"``.

    Source: SI Eq. 1, there with 500 images; sums merge exactly (Chan, Golub and LeVeque 1979).
    """
    parts.check_options("squared", normaliser, numerator, None)
    for name, value in (("normaliser", normaliser), ("numerator", numerator)):
        if value != "mean":
            remedy = "A median needs all images at once: `relative_sensitivity(…, chunk=…)` takes them so."
            checks.fail(name, "be 'mean' for images in batches", f"'{value}' was given", remedy)
    if not callable(represent):
        given = f"its type is {type(represent).__name__}"
        checks.fail("represent", "be callable, from images to taps", given, error=TypeError)
    reduce = compiled(_sums, represent)
    total, count = None, 0
    for number, batch in _filled(batches):
        if total is not None and not checks.is_traced(total):
            jax.block_until_ready(total)  # or the host would run ahead, and fill the device with batches
        sums = reduce(*batch)
        total = sums if total is None else _merged(total, sums)
        count += number
    if total is None or count < 2:
        remedy = "A generator is spent after one pass: make it anew, or pass a list."
        checks.fail("batches", "hold at least two images in all", f"it holds {count}", remedy)
    result, normalisers = _of_sums(total)
    parts.warn_undefined(_WHAT, result.ratio, {parts.ALIKE: normalisers, _STILL: result.noise})
    return result


def _relative(
    represent: Represent, images: Array, deformed: Array, noisy: Array, *, numerator: str, **options: Any
) -> tuple[RelativeSensitivity, Taps]:
    coordinates = numerator == "coordinate_median"
    versions, normalisers = parts.parts(
        represent, images, (deformed, noisy), distance="squared", coordinates=coordinates, **options
    )
    moved, noised = (parts.averaged(differences, coordinates=coordinates) for differences in versions)
    return _quotients(moved, noised, normalisers), normalisers


def _quotients(moved: Taps, noised: Taps, normalisers: Taps) -> RelativeSensitivity:
    deformation, noise = parts.quotient(moved, normalisers), parts.quotient(noised, normalisers)
    ratio = parts.quotient(moved, noised)  # of the numerators, free of the normaliser's rounding
    for tap, value in ratio.items():
        ratio[tap] = jnp.where(jnp.isfinite(deformation[tap]) & jnp.isfinite(noise[tap]), value, jnp.nan)
    return RelativeSensitivity(deformation, noise, ratio)


class _Sums(NamedTuple):
    """What is kept of the images seen so far."""

    moments: OrderedDict[str, pairs.Moments]
    moved: Taps
    """{tap: ()} sum over images of the squared distance that deformations move them."""
    noised: Taps


def _sums(represent: Represent, images: Array, deformed: Array, noisy: Array, weight: Float[Array, " n"]) -> _Sums:
    clean, differences = parts.read(represent, images, (deformed, noisy), "squared")
    moments = OrderedDict((tap, pairs.moments(value, "squared", weight)) for tap, value in clean.items())
    moved, noised = jax.tree.map(lambda squares: jnp.sum(jnp.where(weight > 0, squares, 0)), differences)
    return _Sums(moments, moved, noised)


@jax.jit
def _merged(a: _Sums, b: _Sums) -> _Sums:
    moments = OrderedDict((tap, pairs.merge(a.moments[tap], b.moments[tap])) for tap in a.moments)
    return _Sums(moments, jax.tree.map(jnp.add, a.moved, b.moved), jax.tree.map(jnp.add, a.noised, b.noised))


@jax.jit
def _of_sums(sums: _Sums) -> tuple[RelativeSensitivity, Taps]:
    normalisers = OrderedDict((tap, pairs.mean_distance(part, "squared")) for tap, part in sums.moments.items())
    numbers = OrderedDict((tap, part.number) for tap, part in sums.moments.items())
    moved, noised = jax.tree.map(jnp.divide, sums.moved, numbers), jax.tree.map(jnp.divide, sums.noised, numbers)
    return _quotients(moved, noised, normalisers), normalisers


def _filled(batches: Any) -> Iterator[tuple[int, tuple[Array, Array, Array, Array]]]:
    """The number of images in each batch, and the batch at the size of the largest so far with the images' weights."""
    if not isinstance(batches, Iterable) or getattr(batches, "ndim", 1) == 0:
        given = f"its type is {type(batches).__name__}"
        checks.fail("batches", "be an iterable of (images, deformed, noisy)", given, error=TypeError)
    size, shape = 0, None
    for i, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 3:
            length = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            given = f"batch {i} is a {type(batch).__name__}{length}"
            checks.fail("batches", "hold tuples (images, deformed, noisy)", given, error=TypeError)
        images, deformed, noisy = (
            checks.array(f"batches[{i}][{k}]", value, "...", finite=True) for k, value in enumerate(batch)
        )
        name = f"batches[{i}][0]"
        if images.ndim == 0:
            checks.fail(name, "hold images along its first axis", "its shape is ()")
        checks.same_shape(f"batches[{i}][1]", deformed, name, images)
        checks.same_shape(f"batches[{i}][2]", noisy, name, images)
        shape = images.shape[1:] if shape is None else shape
        if images.shape[1:] != shape:
            checks.fail(name, f"hold images of shape {shape} as `batches[0][0]`", f"theirs is {images.shape[1:]}")
        number = len(images)
        size = max(size, number)
        weight = jnp.asarray(np.arange(size) < number, jnp.float32)
        yield number, (parts.fill(images, size), parts.fill(deformed, size), parts.fill(noisy, size), weight)
