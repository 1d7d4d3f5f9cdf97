"""Sensitivities against an oracle in plain float64 numpy, with loops over images, pairs and coordinates."""

import functools
import itertools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.spatial.distance import pdist

from deform_jax import probes
from deform_jax.probes import pieces
from deform_jax.probes.moved import moved as distance_moved

N = 8  # in chunks of 3: the last one holds two images and one that only fills it
OPTIONS = [
    {"distance": "cosine", "normaliser": "median"},
    {"distance": "cosine", "normaliser": "mean"},
    {"distance": "squared", "normaliser": "median"},
    {"distance": "squared", "normaliser": "mean"},
    {"distance": "squared", "normaliser": "median", "numerator": "coordinate_median"},
    {"distance": "squared", "normaliser": "mean", "numerator": "coordinate_median"},
    {"distance": "euclidean", "normaliser": "median"},
    {"distance": "euclidean", "normaliser": "mean"},
]


def network(weights, images, xp=jnp):
    """One tap of rank 3: each tap costs half a second of compilation for each set of options."""
    hidden = xp.maximum(images.reshape(len(images), -1) @ weights["first"], 0)
    return OrderedDict(output=(hidden @ weights["second"]).reshape(len(images), 5, 3))


@pytest.fixture
def setting():
    rng = np.random.default_rng(1)
    weights = {"first": rng.normal(size=(3 * 4 * 2, 20)), "second": rng.normal(size=(20, 15))}
    images = rng.normal(size=(N, 3, 4, 2))
    perturbed = images + 0.05 * rng.normal(size=images.shape)
    return jax.tree.map(np.float32, (weights, images, perturbed))


def oracle_distance(a, b, distance):
    if distance != "cosine":
        return np.sum((a - b) ** 2) ** (1.0 if distance == "squared" else 0.5)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if min(norms) == 0:
        return 0.0 if max(norms) == 0 else 1.0
    return 0.5 * np.sum((a / norms[0] - b / norms[1]) ** 2)


def oracle(taps, perturbed_taps, *, distance="cosine", normaliser="median", numerator="mean"):
    result = OrderedDict()
    for tap in taps:
        clean, moved = (np.float64(t[tap]).reshape(len(t[tap]), -1) for t in (taps, perturbed_taps))
        if numerator == "mean":
            above = np.mean([oracle_distance(a, b, distance) for a, b in zip(clean, moved, strict=True)])
        else:
            above = sum(np.median((clean[:, k] - moved[:, k]) ** 2) for k in range(clean.shape[1]))
        pairs = [oracle_distance(a, b, distance) for a, b in itertools.combinations(clean, 2)]
        result[tap] = above / (np.median(pairs) if normaliser == "median" else np.mean(pairs))
    return result


def assert_close(result, expected, rtol=2e-5):
    assert list(result) == list(expected)
    for tap in expected:
        np.testing.assert_allclose(result[tap], expected[tap], rtol=rtol, err_msg=tap)


def exact(weights, images, perturbed, **options):
    return oracle(network(weights, images, np), network(weights, perturbed, np), **options)


CASES = [*((options, 3) for options in OPTIONS), *((OPTIONS[i], None) for i in (0, 3, 4)), (OPTIONS[3], 1)]


@pytest.mark.parametrize(("options", "chunk"), CASES)
def test_matches_the_oracle(setting, options, chunk):
    weights, images, perturbed = setting
    result = probes.sensitivity(Partial(network, weights), images, perturbed, **options, chunk=chunk)
    assert isinstance(result, OrderedDict)
    assert_close(result, exact(*setting, **options))


def test_defaults_are_those_of_learned_stability(setting):
    _, images, perturbed = setting
    result = probes.sensitivity(lambda x: {"input": x}, images, perturbed)  # a tap of rank 4
    assert_close(result, oracle({"input": images}, {"input": perturbed}))


def identity(x):
    return {"x": x}


@pytest.mark.parametrize("n", [2, 3, 4])  # one pair, an odd and an even number of pairs
@pytest.mark.parametrize(("distance", "metric"), [("squared", "sqeuclidean"), ("euclidean", "euclidean")])
def test_normaliser_matches_scipy(n, distance, metric):
    images = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
    pairs = pdist(images.astype(float), metric)
    for normaliser, expected in (("median", np.median(pairs)), ("mean", np.mean(pairs))):
        options = {"distance": distance, "normaliser": normaliser}
        parts = probes.sensitivity_parts(Partial(identity), images, images, **options)
        np.testing.assert_allclose(parts.normaliser["x"], expected, rtol=2e-6)
        np.testing.assert_array_equal(parts.numerators["x"], np.zeros(n))


@pytest.mark.parametrize(("options", "chunk"), [(OPTIONS[0], None), (OPTIONS[3], 3)])
def test_parts_make_the_whole(setting, options, chunk):
    weights, images, perturbed = setting
    represent = Partial(network, weights)
    numerators, normaliser = probes.sensitivity_parts(represent, images, perturbed, **options, chunk=chunk)
    for tap, clean in network(weights, images, np).items():
        moved = network(weights, perturbed, np)[tap]
        each = [oracle_distance(a, b, options["distance"]) for a, b in zip(clean, moved, strict=True)]
        np.testing.assert_allclose(numerators[tap], each, rtol=2e-5)
    whole = probes.sensitivity(represent, images, perturbed, **options, chunk=chunk)
    assert_close(whole, OrderedDict((t, numerators[t].mean() / normaliser[t]) for t in numerators), rtol=1e-6)


@pytest.mark.parametrize("options", [OPTIONS[i] for i in (0, 3, 4, 6)], ids=lambda o: "-".join(o.values()))
def test_large_taps_go_piece_by_piece(setting, options, monkeypatch):
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "BLOCK", 7)  # does not divide 24 or 20, exceeds 3
    weights, images, perturbed = setting
    # a plain function, so that nothing compiled with other sizes is used
    result = probes.sensitivity(lambda x: network(weights, x), images, perturbed, **options, chunk=3)
    assert_close(result, exact(*setting, **options))


def test_derivatives_of_large_taps(setting, monkeypatch):
    weights, images, perturbed = setting

    def total(moved):  # of normalisers that do not move
        return sum(probes.sensitivity(lambda x: network(weights, x), images, moved, **OPTIONS[0]).values())

    whole, ahead = jax.grad(total)(perturbed), jax.jvp(total, (perturbed,), (images,))[1]
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "BLOCK", 7)
    np.testing.assert_allclose(jax.grad(total)(perturbed), whole, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.jvp(total, (perturbed,), (images,))[1], ahead, rtol=1e-4)


@pytest.mark.parametrize("features", [5000, 2**15 + 3])
def test_cosine_distances_in_blocks(features):
    rng = np.random.default_rng(4)
    clean = rng.normal(size=(34, features)) * 10.0 ** rng.integers(-15, 15, (34, 1))
    far = clean + np.geomspace(1e-5, 2, 34)[:, None] * np.abs(clean).mean(1, keepdims=True) * rng.normal(
        size=clean.shape
    )
    clean, far = (x.astype(np.float32).reshape(34, -1, 1) for x in (clean, far))
    clean[3], far[3], far[4] = 0, 0, 0
    far[5] = 3 * clean[5]  # another length and no angle
    assert clean.size < pieces.LARGE or features > 5000
    a, b = (x.astype(np.float64).reshape(34, -1) for x in (clean, far))
    norms = [np.where(n == 0, 1, n) for n in (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))]
    expected = ((a / norms[0] - b / norms[1]) ** 2).sum(1) / 2
    expected[4] = 1
    result = jax.jit(functools.partial(distance_moved, distance="cosine"))(clean, far)
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-13)


@pytest.mark.parametrize("spread", [1e-3, 1e-4])
@pytest.mark.parametrize(
    ("options", "chunk"),
    [(OPTIONS[0], None), (OPTIONS[1], 5), (OPTIONS[2], None), (OPTIONS[3], 5), (OPTIONS[6], 5), (OPTIONS[7], None)],
)
def test_nearly_equal_representations(options, chunk, spread):
    # Cosine distances of 1e-6 and 1e-8. Rounding a/‖a‖ once moves ½‖u − v‖² by about 6e-8·(2/d)^½/√features
    # relative to d: 2e-6 and 2e-5 here for one pair; the median of many is no worse.
    rng = np.random.default_rng(2)
    base = rng.normal(size=(1, 3000))
    images = (base + spread * rng.normal(size=(12, 3000))).astype(np.float32)
    perturbed = (images + 0.1 * spread * rng.normal(size=images.shape)).astype(np.float32)
    expected = oracle({"x": images}, {"x": perturbed}, **options)
    result = probes.sensitivity(Partial(identity), images, perturbed, **options, chunk=chunk)
    assert_close(result, expected, rtol=1e-5)


@pytest.mark.parametrize(("options", "chunk"), [(OPTIONS[0], None), (OPTIONS[1], 2)])
def test_zero_vectors(options, chunk):
    images = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    images[[0, 1, 4]] = 0
    perturbed = images + np.float32(0.1)
    perturbed[1] = 0
    result = jax.jit(lambda x: probes.sensitivity(Partial(identity), x, perturbed, **options, chunk=chunk))(images)
    assert_close(result, oracle({"x": images}, {"x": perturbed}, **options))


def test_gradient_at_zero_vectors():
    images = np.float32([[0, 0], [1, 2], [0, 0], [2, -1]])

    def total(images, perturbed):
        return probes.sensitivity(Partial(identity), images, perturbed)["x"]

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(images, images[::-1])
    assert value == 1
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("options", [OPTIONS[6], OPTIONS[7]])
def test_equal_images_at_the_euclidean_distance(options):
    images = np.random.default_rng(5).normal(size=(6, 40)).astype(np.float32)
    images[[1, 3]] = images[0]  # three of the 15 distances are zero, or √(rounding) ≈ 3e-4 of the others: 2e-4 in all
    perturbed = images.copy()
    perturbed[4:] += np.float32(1e-3)

    def total(images, perturbed):
        return probes.sensitivity(Partial(identity), images, perturbed, **options)["x"]

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(images, perturbed)
    np.testing.assert_allclose(value, oracle({"x": images}, {"x": perturbed}, **options)["x"], rtol=3e-4)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[1][:4], 0)  # those that have not moved


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[6]])
def test_tiny_and_huge_taps(setting, options):
    weights, images, perturbed = setting
    expected = exact(*setting, **options)

    def scaled(scale, x):
        return OrderedDict((tap, value * scale) for tap, value in network(weights, x).items())

    for scale in (1e-30, 1e30):
        represent = Partial(scaled, jnp.float32(scale))
        assert_close(probes.sensitivity(represent, images, perturbed, **options), expected)


def test_half_precision_taps(setting):
    weights, images, perturbed = setting

    def represent(weights, x):
        return jax.tree.map(lambda tap: tap.astype(jnp.bfloat16), network(weights, x))

    represent = Partial(represent, weights)
    expected = oracle(*(jax.tree.map(np.float64, represent(x)) for x in (images, perturbed)))
    result = probes.sensitivity(represent, images, perturbed)
    assert all(value.dtype == jnp.float32 for value in result.values())
    assert_close(result, expected, rtol=0.05)  # operations fused before the rounding to bfloat16 may differ


def test_symmetries(setting):
    weights, images, perturbed = setting
    represent = Partial(network, weights)
    plain = probes.sensitivity(represent, images, perturbed)
    order = np.random.default_rng(0).permutation(N)
    assert_close(probes.sensitivity(represent, images[order], perturbed[order]), plain, rtol=1e-6)
    still = probes.sensitivity(represent, images, images)
    assert all(value == 0 for value in still.values())


@pytest.mark.parametrize(
    ("options", "chunk"), [(OPTIONS[0], None), (OPTIONS[3], 3), (OPTIONS[4], 3), (OPTIONS[6], 3), (OPTIONS[7], None)]
)
def test_gradients_match_differences_of_the_oracle(setting, options, chunk):
    weights, images, perturbed = setting
    rng = np.random.default_rng(4)
    arguments = {"weights": weights, "images": images, "perturbed": perturbed}
    towards = jax.tree.map(lambda x: rng.normal(size=x.shape), arguments)

    def total(arguments):
        represent = Partial(network, arguments["weights"])
        result = probes.sensitivity(represent, arguments["images"], arguments["perturbed"], **options, chunk=chunk)
        return sum(result.values())

    gradient = jax.jit(jax.grad(total))(arguments)
    step = 1e-6  # in float64: truncation 1e-12, rounding 1e-10

    def exact_total(size):
        moved = jax.tree.map(lambda x, t: np.float64(x) + size * t, arguments, towards)
        return sum(exact(moved["weights"], moved["images"], moved["perturbed"], **options).values())

    expected = (exact_total(step) - exact_total(-step)) / (2 * step)
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, t: np.sum(np.float64(g) * t), gradient, towards)))
    np.testing.assert_allclose(along, expected, rtol=1e-4)


def test_jit_vmap_and_closures_agree(setting):
    weights, images, perturbed = setting
    stacked = jax.tree.map(lambda w: jnp.stack([w, 2 * w + 1]), weights)
    options = OPTIONS[3]  # the fastest to compile

    def measure(weights, images, perturbed):
        return probes.sensitivity(Partial(network, weights), images, perturbed, **options)

    def measure_closed(weights, images, perturbed):
        return probes.sensitivity(lambda x: network(weights, x), images, perturbed, **options)

    each = [measure(jax.tree.map(lambda w, i=i: w[i], stacked), images, perturbed) for i in range(2)]
    expected = OrderedDict((tap, jnp.stack([one[tap] for one in each])) for tap in each[0])
    assert_close(measure_closed(weights, images, perturbed), each[0], rtol=1e-5)
    slopes = []
    for function in (measure, measure_closed):
        batched = jax.jit(jax.vmap(function, in_axes=(0, None, None)))(stacked, images, perturbed)
        assert_close(batched, expected, rtol=1e-5)
        slopes.append(jax.grad(lambda w, f=function: f(w, images, perturbed)["output"])(weights))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), *slopes)
