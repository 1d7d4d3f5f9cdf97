"""How far a perturbation of the images moves a representation, in units of the distance between images."""

from collections import OrderedDict
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Float

from deform_jax.probes import parts
from deform_jax.probes.distances import Distance
from deform_jax.probes.represent import call
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
        result in less memory and, on CPUs, 0.8 to 1.4 times the time; the median normaliser still takes the clean
        images at once, and so does the mean of ``"euclidean"``; the other means stream. ``"coordinate_median"`` keeps
        the differences of every tap.

    Returns:
      ``{tap: ratio}`` in the order of ``represent``; without unit, 0 for a representation that does not move. It is
      ``nan`` where the clean representations are all alike (a normaliser of zero, or no more than float32's rounding
      of the representations) and where values or distances are not finite; called eagerly, a ``RuntimeWarning``
      names these taps.

    Raises:
      TypeError: ``represent`` is not callable or returns no mapping of floating-point arrays; images not floating.
      ValueError: fewer than two images, different shapes, NaN or infinite images, an unknown option, no taps, or a
        tap whose leading axis is not n.

    Source: LS 2.1; SI Eq. 1; RS. Distinct pairs only: the released code of SI counts i = j too. Ours: the median
    normaliser of RS is read as the median over pairs of the squared distance.
    """
    chunk = parts.check_options(distance, normaliser, numerator, chunk)
    images, perturbed = parts.check_images(images, perturbed=perturbed)
    options = {"distance": distance, "normaliser": normaliser, "numerator": numerator, "chunk": chunk}
    values, normalisers = call(_sensitivity, represent, images, perturbed, **options)
    parts.warn_undefined("The sensitivity", values, {parts.ALIKE: normalisers})
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
      ``(numerators, normaliser)``, mappings ``{tap: (n,)}`` and ``{tap: ()}`` in the order of ``represent``, both in
      the unit of the distance. Nothing is divided here and nothing warned of: the normaliser of a constant tap is 0.

    Raises:
      TypeError, ValueError: as :func:`sensitivity`.

    Source: LS 2.1; SI Eq. 1.
    """
    chunk = parts.check_options(distance, normaliser, "mean", chunk)
    images, perturbed = parts.check_images(images, perturbed=perturbed)
    options = {"distance": distance, "normaliser": normaliser, "chunk": chunk}
    return SensitivityParts(*call(_parts, represent, images, perturbed, **options))


def _sensitivity(
    represent: Represent, images: Array, perturbed: Array, *, numerator: str, **options: Any
) -> tuple[Taps, Taps]:
    coordinates = numerator == "coordinate_median"
    (differences,), normalisers = parts.parts(represent, images, (perturbed,), coordinates=coordinates, **options)
    return parts.quotient(parts.averaged(differences, coordinates=coordinates), normalisers), normalisers


def _parts(represent: Represent, images: Array, perturbed: Array, **options: Any) -> tuple[Taps, Taps]:
    (numerators,), normalisers = parts.parts(represent, images, (perturbed,), coordinates=False, **options)
    return numerators, normalisers
