"""Probes of filters and channels, and noise."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import references
from cases import arithmetic, case
from inputs import IMAGES
from networks import UNIT
from references import wide

from deform_jax import probes

KEY = jax.random.key(3)


# Noise: what it adds to the images, and so no better than their own rounding lets it be.


def noise_errors(images, noise, dtype):
    """The sum images + η is rounded by u of it: relative to the largest entry of η, by this."""
    return UNIT[dtype] * max(abs(x + n).max() / abs(n).max() for x, n in zip(wide(images), noise, strict=True))


@case("matched_noise", perturbed=True)
def _(inputs):
    images, deformed, _ = inputs.images()
    measured = wide(probes.matched_noise(KEY, images, deformed)) - wide(images)
    draw = jax.random.normal(KEY, (IMAGES, 1024), jnp.float32).reshape(images.shape)
    reference = references.matched(images, deformed, draw)
    bound = arithmetic(draw[0].size, sums=2) + noise_errors(images, reference, inputs.dtype)
    return list(measured), list(reference), bound


@case("rectified_noise", perturbed=True)
def _(inputs):
    images, deformed, _ = inputs.images()
    measured = wide(probes.rectified_noise(KEY, images, deformed)) - wide(images)
    reference = references.rectified(images, deformed, jax.random.normal(KEY, images.shape, jnp.float32))
    bound = arithmetic(images.size) + noise_errors(images, reference, inputs.dtype)
    return list(measured), list(reference), bound


# Filters. Nothing cancels in what is summed: differences of neighbours are exact where they are small.

ENTRIES = 9 * 32 * 64
SUMS = arithmetic(ENTRIES, sums=2)
"""Of two sums over a kernel, and their quotient."""


def of_each(inputs, probe, reference):
    kernels = inputs.kernels()
    measured = {name: probe(kernel) for name, kernel in kernels.items()}
    return measured, {name: reference(kernel) for name, kernel in kernels.items()}


for per_slice in (False, True):

    @case("total_variation", "per_slice" if per_slice else "pooled", perturbed=True)
    def _(inputs, per_slice=per_slice):
        pooled = lambda kernel: references.total_variation(kernel, per_slice)  # noqa: E731
        return *of_each(inputs, lambda k: probes.total_variation(k, per_slice=per_slice), pooled), SUMS


@case("filter_statistics", "total_variation", perturbed=True)
def _(inputs):
    layers = inputs.tree()
    measured = probes.filter_statistics(layers, probes.total_variation)
    reference = [(name, references.total_variation(layers[name]["kernel"])) for name in sorted(layers)]
    return measured, OrderedDict(reference), SUMS


@case("spatial_frequency", perturbed=True)
def _(inputs):
    return *of_each(inputs, probes.spatial_frequency, references.spatial_frequency), SUMS


@case("laplacian_modes", "3 × 3")
def _(inputs):
    """As projectors, since the basis of an eigenspace is a choice; in float64, whatever the inputs."""
    values, modes = probes.laplacian_modes(3)
    spaces = references.eigenspaces(3, 3)
    found = [[modes[np.isclose(values, value)].reshape(-1, 9)] for value, _ in spaces]
    reference = [projector for _, projector in spaces], np.array([value for value, _ in spaces])
    # In float64, whose eigenvalues are rounded to 12 digits.
    return ([part.T @ part for (part,) in found], np.unique(values)), reference, 1e-12


for degenerate in ("separate", "mean", "sum"):

    @case("laplacian_power", degenerate, each=True, perturbed=True)
    def _(inputs, degenerate=degenerate):
        """A mode's product with a filter cancels, as far as the filter without its first entry is larger than it."""
        kernels = inputs.kernels()
        amplified = max(mode_amplification(kernel) for kernel in kernels.values())
        measured, reference = of_each(
            inputs, lambda k: probes.laplacian_power(k, degenerate=degenerate), lambda k: powers(k, degenerate)
        )
        return measured, reference, SUMS + arithmetic(9, amplified=amplified)


def powers(kernel, degenerate):
    if degenerate == "separate":
        return references.mode_powers(kernel)
    total = references.eigenspace_powers(kernel)
    counts = [round(np.trace(projector)) for _, projector in references.eigenspaces(3, 3)]
    return total if degenerate == "sum" else np.repeat(total / counts, counts)


def mode_amplification(kernel):
    filters = wide(kernel).reshape(9, -1)
    return 2 * 9 * np.square(filters - filters[0]).sum(0).mean() / references.mode_powers(kernel).min()


@case("mean_filter", perturbed=True)
def _(inputs):
    """Weights of both signs: their sum is smaller than that of their sizes."""
    means = {name: references.mean_filter(kernel) for name, kernel in inputs.kernels().items()}
    amplified = max(abs(wide(k)).mean() / abs(means[name]).max() for name, k in inputs.kernels().items())
    return (
        {name: probes.mean_filter(k) for name, k in inputs.kernels().items()},
        means,
        arithmetic(32 * 64, amplified=amplified),
    )


for name, options in (
    ("smooth_filters", {"sigma": 1.0}),
    ("smooth_filters", {"sigma": 0.5, "same_norm": True}),
    ("sharpen_filters", {"amount": 0.5}),
    ("sharpen_filters", {"amount": 2.0, "sigma": 2.0, "same_norm": False}),
):

    @case(name, ", ".join(f"{k}={v}" for k, v in options.items()), perturbed=True)
    def _(inputs, name=name, options=options):
        layers = inputs.tree()
        measured = getattr(probes, name)(layers, **options)
        amount = options.get("amount", -1.0)
        same_norm = options.get("same_norm", name == "sharpen_filters")
        sigma = options.get("sigma", 1.0)
        kernels = {k: references.sharpened(v["kernel"], amount, sigma, same_norm) for k, v in layers.items()}
        # Two sums of three terms, one for each axis; 1 + 2 |amount| times as much goes in as may come out. For the same
        # norm, two sums over the kernel; and the result is rounded to the kernel's own dtype.
        largest = max(abs(wide(layers[k]["kernel"])).max() / abs(v).max() for k, v in kernels.items())
        bound = arithmetic(3, sums=2, amplified=(1 + 2 * abs(amount)) * largest) + same_norm * SUMS
        return {k: measured[k]["kernel"] for k in layers}, kernels, bound + UNIT[inputs.dtype]


# Channels.


@case("shuffle_channels")
def _(inputs):
    """A permutation of input channels, one for all outputs: each slice is looked up, no number may change."""
    layers = inputs.tree()
    shuffled = probes.shuffle_channels(KEY, layers)
    expected = {}
    for name, layer in layers.items():
        old, new = wide(layer["kernel"]), wide(shuffled[name]["kernel"])
        order = [int(abs(old - new[:, :, [i]]).sum((0, 1, 3)).argmin()) for i in range(new.shape[2])]
        assert sorted(order) == list(range(len(order)))
        expected[name] = {**layer, "kernel": old[:, :, order]}
    return shuffled, expected, 0.0


@case("mean_channel", perturbed=True)
def _(inputs):
    layers = inputs.tree()
    measured = probes.mean_channel(layers, first="rough")
    rough, smooth = wide(layers["rough"]["kernel"]), wide(layers["smooth"]["kernel"])
    bias = wide(layers["rough"]["bias"])
    reference = {
        "rough": {
            "kernel": np.repeat(rough.mean(3, keepdims=True), rough.shape[3], 3),
            "bias": np.full(bias.shape, bias.mean()),
        },
        "smooth": {"kernel": np.broadcast_to(smooth.mean((2, 3), keepdims=True), smooth.shape)},
    }
    sizes = [(abs(x).mean(), abs(x.mean(a)).max()) for x, a in ((rough, 3), (smooth, (2, 3)), (bias, 0))]
    amplified = max(size / mean for size, mean in sizes)
    return measured, reference, arithmetic(32 * 64, amplified=amplified) + UNIT[inputs.dtype]


@case("average_channels")
def _(inputs):
    images = inputs.place(np.float32(abs(np.random.default_rng(6).normal(size=(IMAGES, 7, 7, 64)))))
    measured = probes.average_channels(lambda x: OrderedDict(tap=x))(images)
    return measured["tap"], wide(images).mean(-1, keepdims=True), arithmetic(64)
