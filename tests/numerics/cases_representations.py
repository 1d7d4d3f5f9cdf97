"""Probes of representations: of taps that are given, where all rounding is the probe's, and of networks."""

import functools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import networks
import numpy as np
import references
from cases import arithmetic, case
from inputs import IMAGES, WIDTHS, Inputs
from networks import LAMBDA, UNIT
from references import wide

from deform_jax import probes

# Distances.


NUMERATOR_SUMS = 4
"""Two norms, the difference of the two, and the distance: those of the cosine distance. Others have fewer."""

for distance in references.DISTANCES:

    @case(f"{distance}_distance", each=True, perturbed=True)
    def _(inputs, distance=distance):
        clean, deformed, _ = inputs.rows()
        measured = getattr(probes, f"{distance}_distance")(clean, deformed)
        return measured, references.row_distances(clean, deformed, distance), arithmetic(clean.shape[1], NUMERATOR_SUMS)


# Sensitivities: of taps that are given, where all rounding is the probe's, and of a network that is computed.


def split(rows):
    """{tap: (n, …)} of joined rows."""
    parts = jnp.split(rows, np.cumsum(list(WIDTHS.values()))[:-1], axis=1)
    return OrderedDict(zip(WIDTHS, parts, strict=True))


given = jax.tree_util.Partial(split)


def probe_error(clean, distance, normaliser):
    """What the probe's own arithmetic may do to the quotient, at the worst of the taps."""
    return max(
        arithmetic(tap[0].size, NUMERATOR_SUMS) + normaliser_error(references.flat(tap), distance, normaliser)
        for tap in clean.values()
    )


def normaliser_error(rows, distance, normaliser):
    """Means come from the scatter about the mean. Medians, and means of Euclidean distances, come from a Gram matrix of
    centred rows, ‖v_i‖² + ‖v_j‖² − 2 v_i·v_j: what is added up is larger than what is left of it."""
    if normaliser == "mean" and distance != "euclidean":
        return arithmetic(rows.shape[1], sums=2)
    if distance == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    sizes = 4 * ((rows - rows.mean(0)) ** 2).sum(1).max()
    squares = references.pair_distances(rows, "squared")
    if distance != "euclidean":
        amplified = sizes / np.median(squares)
    elif normaliser == "median":
        amplified = 0.5 * sizes / np.median(squares)
    else:
        amplified = 0.5 * np.mean(sizes / np.sqrt(squares)) / np.sqrt(squares).mean()
    return arithmetic(rows.shape[1], sums=3, amplified=amplified)


def quotients(numerators, normalisers):
    return OrderedDict((tap, numerators[tap] / normalisers[tap]) for tap in numerators)


SENSITIVITIES = [
    {"distance": distance, "normaliser": normaliser, "numerator": numerator}
    for distance in references.DISTANCES
    for normaliser in ("median", "mean")
    for numerator in (("mean", "coordinate_median") if distance == "squared" else ("mean",))
]


def written(options):
    return ", ".join(str(value) for value in options.values())


for options in SENSITIVITIES:
    for chunk in (None, 8):

        @case("sensitivity", written(options) + (f", chunk={chunk}" if chunk else ""), perturbed=True)
        def _(inputs, options=options, chunk=chunk):
            clean, deformed, _ = inputs.rows()
            measured = probes.sensitivity(given, clean, deformed, chunk=chunk, **options)
            reference = quotients(*references.sensitivity(split(clean), split(deformed), **options))
            return measured, reference, probe_error(split(clean), options["distance"], options["normaliser"])


for distance in references.DISTANCES:

    @case("sensitivity_parts", distance, each=True, perturbed=True)
    def _(inputs, distance=distance):
        clean, deformed, _ = inputs.rows()
        measured = probes.sensitivity_parts(given, clean, deformed, distance=distance)
        taps, moved = split(clean), split(deformed)
        numerators = OrderedDict((tap, references.row_distances(taps[tap], moved[tap], distance)) for tap in taps)
        normalisers = references.sensitivity(taps, moved, distance=distance)[1]
        return measured, (numerators, normalisers), probe_error(taps, distance, "median")


def relative(clean, deformed, noisy, **options):
    """D, G and R."""
    options = {"distance": "squared", **options}
    moved, normalisers = references.sensitivity(clean, deformed, **options)
    noised, _ = references.sensitivity(clean, noisy, **options)
    return quotients(moved, normalisers), quotients(noised, normalisers), quotients(moved, noised)


for normaliser, numerator in (("mean", "mean"), ("median", "coordinate_median")):
    for chunk in (None, 8):

        @case(
            "relative_sensitivity", f"{normaliser}, {numerator}" + (f", chunk={chunk}" if chunk else ""), perturbed=True
        )
        def _(inputs, normaliser=normaliser, numerator=numerator, chunk=chunk):
            versions = inputs.rows()
            options = {"normaliser": normaliser, "numerator": numerator}
            measured = probes.relative_sensitivity(given, *versions, chunk=chunk, **options)
            reference = relative(*map(split, versions), **options)
            return measured, reference, 2 * probe_error(split(versions[0]), "squared", normaliser)


@case("streamed_relative_sensitivity", "batches of 8", perturbed=True)
def _(inputs):
    versions = inputs.rows()
    batches = [tuple(x[i : i + 8] for x in versions) for i in range(0, IMAGES, 8)]
    measured = probes.streamed_relative_sensitivity(given, batches)
    reference = relative(*map(split, versions), normaliser="mean", numerator="mean")
    return measured, reference, 2 * probe_error(split(versions[0]), "squared", "mean")


vgg = functools.partial(jax.tree_util.Partial, networks.forward)


def propagated(inputs, images, rounded=0.0):
    unit = UNIT[inputs.dtype]
    return networks.exact(inputs.params(), images, unit, rounded)


def network_error(clean, moved, distance):
    """The largest relative error, over taps and images, that rounding within the network may give a distance."""
    (taps, errors), (others, other_errors) = clean, moved
    return max(
        networks.relative_error(taps[tap][i], others[tap][i], errors[tap][i], other_errors[tap][i], distance)
        for tap in taps
        for i in range(IMAGES)
    )


def pair_error(clean, distance):
    """The same for distances between images, whose median and mean are off by no more."""
    taps, errors = clean
    return max(
        networks.relative_error(taps[tap][i], taps[tap][j], errors[tap][i], errors[tap][j], distance)
        for tap in taps
        for i in range(IMAGES)
        for j in range(i)
    )


@case("sensitivity", "cosine, median, mean; VGG", perturbed=True)
def _(inputs):
    images, deformed, _ = inputs.images()
    measured = probes.sensitivity(vgg(inputs.params()), images, deformed)
    clean, moved = propagated(inputs, images), propagated(inputs, deformed)
    added = network_error(clean, moved, "cosine") + pair_error(clean, "cosine")
    reference = quotients(*references.sensitivity(clean[0], moved[0]))
    return measured, reference, added + probe_error(clean[0], "cosine", "median")


@case("relative_sensitivity", "mean, mean; VGG", perturbed=True)
def _(inputs):
    versions = inputs.images()
    measured = probes.relative_sensitivity(vgg(inputs.params()), *versions)
    clean, moved, noised = (propagated(inputs, version) for version in versions)
    changes = network_error(clean, moved, "squared"), network_error(clean, noised, "squared")
    reference = relative(clean[0], moved[0], noised[0], normaliser="mean")
    # R is a quotient of two such numerators, D and G of one and of the normaliser.
    added = max(changes) + max(*changes, pair_error(clean, "squared"))
    return measured, reference, added + 2 * probe_error(clean[0], "squared", "mean")


def add(patterns, parameters, image):
    """Deform an image by what it gains along each of some patterns."""
    return image + jnp.tensordot(parameters, patterns, 1)


@case("worst_case", "VGG", comparable=False, each=True, perturbed=True)
def _(inputs):
    images, _, _ = inputs.images()
    rng = np.random.default_rng(5)
    patterns = np.float32(rng.normal(size=(4, *images.shape[1:])))
    limit = inputs.closeness
    start = Inputs(devices=inputs.devices).place(np.float32(rng.uniform(-limit, limit, (IMAGES, 4))))
    deform = jax.tree_util.Partial(add, patterns)
    options = {"weights": {"conv3": 1.0}, "limit": limit, "steps": 2, "distance": "squared"}
    found = probes.worst_case(vgg(inputs.params()), deform, images, start, **options)
    moved = wide(images) + np.tensordot(wide(found.parameters), wide(patterns), 1)
    # The deformed images are themselves rounded, to the dtype of the images.
    clean, moved = propagated(inputs, images), propagated(inputs, moved, rounded=2 * UNIT[inputs.dtype])
    distances = OrderedDict(
        (tap, references.row_distances(clean[0][tap], moved[0][tap], "squared")) for tap in clean[0]
    )
    reference = (distances, distances["conv3"].mean())
    bound = network_error(clean, moved, "squared") + arithmetic(max(WIDTHS.values()), NUMERATOR_SUMS)
    return (found.distances, found.trace[-1]), reference, bound


# The receptive field, of two layers on a ring of 16 pixels.


def field_error(strided, params, value, dtype):
    """Each profile a(i) is a sum of |f(active) − f(empty)|, whose terms are rounded by u |f|, twice, in every layer.
    The width is the root of a mean of squared offsets over it, and so off by half of what two such sums are."""
    taps = networks.ring_exact(strided, params, np.concatenate([np.zeros((1, 16, 1)), value * np.eye(16)[..., None]]))
    worst = 0
    for tap in taps.values():
        change, size = abs(tap[1:] - tap[:1]), 2 * abs(tap[1:]) * (tap[1:] != tap[:1])
        sites = np.arange(tap.shape[1]) * 16 // tap.shape[1]
        offsets = (np.arange(16)[:, None, None] - sites[:, None] + 8) % 16 - 8
        worst = max(worst, *(((size * w).sum() / (change * w).sum()) for w in (offsets**2, np.ones_like(offsets))))
    terms = max(np.prod(layer["kernel"].shape[:2]) for layer in params.values())
    return len(params) * worst * LAMBDA * (UNIT[dtype] + np.sqrt(terms) * UNIT["float32"])


for strided in (False, True):

    @case("effective_receptive_field", "stride 2" if strided else "stride 1")
    def _(inputs, strided=strided):
        params = jax.tree.map(lambda x: jnp.asarray(x, inputs.dtype), networks.ring(size=2 if strided else 3))
        represent = jax.tree_util.Partial(networks.ring_forward, strided, params)
        value = 4.0
        measured = probes.effective_receptive_field(represent, (16,), value=value, stride=2 if strided else 1)
        exact = functools.partial(networks.ring_exact, strided, params)
        reference = references.receptive_field(exact, 16, value, strided)
        return measured, reference, arithmetic(16, 4) + field_error(strided, params, value, inputs.dtype)
