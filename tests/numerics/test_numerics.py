"""Every probe against float64, within bounds that have reasons; the whole campaign is ``report.py``."""

import re
from collections import OrderedDict

import cases_filters  # noqa: F401
import cases_representations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from cases import CASES, arithmetic, error, errors
from inputs import Inputs, features
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import probes

RESULTS = "a result type, without arithmetic"
EXACT = "computed by numpy in float64 already; tests/probes/test_probe_theory.py holds it against closed forms"
EXEMPT = {
    "HomogeneousTheory": RESULTS,
    "RelativeSensitivity": RESULTS,
    "SensitivityParts": RESULTS,
    "WorstCase": RESULTS,
    "Exponents": RESULTS,
    "asymptotic_exponents": EXACT,
    "balanced_weights": EXACT,
    "diffusion_constant": EXACT,
    "diffusion_profile": EXACT,
    "drift": EXACT,
    "homogeneous_network": EXACT,
    "homogeneous_representations": EXACT,
    "log_log_slope": EXACT,
    "receptive_field_size": EXACT,
    "translation_sensitivity": EXACT,
}
# One of each probe, on eight devices: a compilation each. The report has all options, dtypes and numbers of devices.
NAMES = {
    "cosine_distance()": "bfloat16",
    "squared_distance()": "float32",
    "euclidean_distance()": "float32",
    "matched_noise()": "float32",
    "rectified_noise()": "float32",
    "total_variation(pooled)": "bfloat16",
    "filter_statistics(total_variation)": "float32",
    "spatial_frequency()": "bfloat16",
    "laplacian_modes(3 × 3)": "float32",
    "laplacian_power(separate)": "bfloat16",
    "mean_filter()": "bfloat16",
    "smooth_filters(sigma=1.0)": "float32",
    "sharpen_filters(amount=0.5)": "float32",
    "shuffle_channels()": "float32",
    "mean_channel()": "bfloat16",
    "average_channels()": "bfloat16",
    "sensitivity(cosine, median, mean; VGG)": "float32",
    "sensitivity(squared, median, coordinate_median, chunk=8)": "bfloat16",
    "sensitivity_parts(euclidean)": "float32",
    "relative_sensitivity(mean, mean, chunk=8)": "bfloat16",
    "streamed_relative_sensitivity(batches of 8)": "float32",
    "worst_case(VGG)": "float32",
    "effective_receptive_field(stride 1)": "float32",
}
BY_NAME = {case.name: case for case in CASES}


def test_every_probe_has_a_reference_or_a_reason_to_have_none():
    measured = {case.probe for case in CASES}
    assert set(probes.__all__) == measured | set(EXEMPT)
    assert not measured & set(EXEMPT)
    assert {BY_NAME[name].probe for name in NAMES} == measured


def test_what_is_called_exact_is_in_float64():
    layers = {"filter_size": 3, "stride": 1, "layers": 2}
    pairs, moves = np.array([[[0], [3]], [[1], [2]]]), np.array([[-1], [1]])
    theory = probes.homogeneous_network(pairs, None, (8,), displacements=moves, **layers)
    found = [
        *theory,
        *probes.homogeneous_representations(np.ones(8), **layers),
        probes.translation_sensitivity(8, **layers),
        probes.receptive_field_size(3, layers=2),
        probes.diffusion_profile(np.arange(4), filter_size=3, layer=2),
        probes.balanced_weights(np.array([0, 1, 1])),
    ]
    assert all(isinstance(value, np.ndarray) and value.dtype == np.float64 for value in found)
    numbers = probes.diffusion_constant(3), probes.drift(4), probes.log_log_slope(np.arange(1.0, 4), np.arange(1.0, 4))
    assert all(type(value) is float for value in (*numbers, *probes.asymptotic_exponents(strided=True)))


@pytest.mark.parametrize("name", NAMES)
def test_within_the_bound(name):
    # Perturbations of a thousandth of each image's norm: 1 − cos in float32 has no digit left of them.
    case, inputs = BY_NAME[name], Inputs(NAMES[name], devices=8, closeness=1e-3)
    measured, reference, bound = case.run(inputs)
    assert errors(case, measured, reference) <= bound < 1


def test_the_bounds_are_tight_enough_to_see_what_is_feared():
    clean, deformed, _ = features(1e-3)
    exact = references.row_distances(clean, deformed, "cosine")
    bound = arithmetic(clean.shape[1], cases_representations.NUMERATOR_SUMS)
    norms = np.linalg.norm(clean, axis=1) * np.linalg.norm(deformed, axis=1)
    assert error(1 - (clean * deformed).sum(1) / norms, exact, each=True) > 100 * bound
    exact = references.row_distances(clean, deformed, "squared")
    steps = np.cumsum(np.square(clean - deformed).astype(jnp.bfloat16), axis=1, dtype=jnp.bfloat16)
    assert error(steps[:, -1], exact, each=True) > 100 * bound


def identity(images):
    return OrderedDict(tap=images)


MEANS = {"distance": "squared", "normaliser": "mean"}


@pytest.mark.parametrize(
    ("probe", "whole"),
    [
        (lambda a, b: probes.sensitivity(identity, a, b, **MEANS), 0),
        (lambda a, b: probes.sensitivity(identity, a, b, chunk=8, **MEANS), 0),
        (lambda a, b: probes.sensitivity(identity, a, b), 8192),  # a Gram matrix, by blocks of features
    ],
    ids=["mean", "chunks", "median"],
)
def test_images_spread_over_devices_stay_there(probe, whole):
    # 16 images of 65,536 pixels: beyond 2²⁰ entries taps are reduced piece by piece, for which a loop over images would
    # send every image to every device, and have all of them do all of the work.
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    images = jax.ShapeDtypeStruct((16, 65536), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    program = jax.jit(probe).lower(images, images).compile().as_text()
    found = re.findall(r"= \(?\w+\[([\d,]*)\].* (?:all-gather|all-to-all|collective-permute)\(", program)
    sizes = [np.prod([int(side) for side in shape.split(",") if side]) for shape in found]
    assert max(sizes, default=0) <= 16 * whole


@pytest.mark.parametrize("name", ["rectified_noise()", "squared_distance()", "mean_filter()"])
def test_two_and_eight_devices_give_the_values_of_one(name):
    # Sums in another order: a few roundings of each result, or of what is larger than it: the images that noise is
    # added to (here 10 times), and the weights of both signs whose mean is taken.
    case = BY_NAME[name]
    one, two, eight = (jax.device_get(case.run(Inputs("float32", devices, 0.1))[0]) for devices in (1, 2, 8))
    for several in (two, eight):
        assert errors(case, several, one) <= 16 * 2.0**-24 * {"rectified_noise()": 10, "mean_filter()": 4}.get(name, 1)
