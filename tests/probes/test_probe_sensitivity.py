"""Sensitivities against an oracle in plain float64 numpy, with loops over images, pairs and coordinates."""

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

N = 7
OPTIONS = [
    {"distance": "cosine", "normaliser": "median"},
    {"distance": "cosine", "normaliser": "mean"},
    {"distance": "squared", "normaliser": "median"},
    {"distance": "squared", "normaliser": "mean"},
    {"distance": "squared", "normaliser": "median", "numerator": "coordinate_median"},
    {"distance": "squared", "normaliser": "mean", "numerator": "coordinate_median"},
]


def network(weights, images, xp=jnp):
    """Taps of rank 4, 3 and 2, named so that their sorted order is not their depth order."""
    n = len(images)
    hidden = xp.maximum(images.reshape(n, -1) @ weights["first"], 0)
    return OrderedDict(z_input=images, middle=hidden.reshape(n, 4, 5), a_output=hidden @ weights["second"])


@pytest.fixture
def setting():
    rng = np.random.default_rng(1)
    weights = {"first": rng.normal(size=(3 * 4 * 2, 20)), "second": rng.normal(size=(20, 3))}
    images = rng.normal(size=(N, 3, 4, 2))
    perturbed = images + 0.05 * rng.normal(size=images.shape)
    return jax.tree.map(np.float32, (weights, images, perturbed))


def oracle_distance(a, b, distance):
    if distance == "squared":
        return np.sum((a - b) ** 2)
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


@pytest.mark.parametrize("chunk", [None, 1, 3, N, 50])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
def test_matches_the_oracle(setting, options, chunk):
    weights, images, perturbed = setting
    result = probes.sensitivity(Partial(network, weights), images, perturbed, **options, chunk=chunk)
    assert isinstance(result, OrderedDict)
    assert_close(result, exact(*setting, **options))


def test_defaults_are_those_of_learned_stability(setting):
    weights, images, perturbed = setting
    assert_close(probes.sensitivity(Partial(network, weights), images, perturbed), exact(*setting))


@pytest.mark.parametrize("n", [2, 3, 4])  # one pair, an odd and an even number of pairs
@pytest.mark.parametrize(("distance", "metric"), [("cosine", "cosine"), ("squared", "sqeuclidean")])
def test_normaliser_matches_scipy(n, distance, metric):
    images = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
    pairs = pdist(images.astype(float), metric)
    for normaliser, expected in (("median", np.median(pairs)), ("mean", np.mean(pairs))):
        parts = probes.sensitivity_parts(
            Partial(lambda x: {"x": x}), images, images, distance=distance, normaliser=normaliser
        )
        np.testing.assert_allclose(parts.normaliser["x"], expected, rtol=2e-6)
        np.testing.assert_array_equal(parts.numerators["x"], np.zeros(n))


@pytest.mark.parametrize("options", OPTIONS[:4], ids=lambda o: "-".join(o.values()))
@pytest.mark.parametrize("chunk", [None, 3])
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


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
def test_large_taps_go_piece_by_piece(setting, options, monkeypatch):
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "BLOCK", 7)  # does not divide 24 or 20, exceeds 3
    weights, images, perturbed = setting
    for chunk in (None, 3):
        # a plain function, so that nothing compiled with other sizes is used
        result = probes.sensitivity(lambda x: network(weights, x), images, perturbed, **options, chunk=chunk)
        assert_close(result, exact(*setting, **options))


@pytest.mark.parametrize("spread", [1e-3, 1e-4])
@pytest.mark.parametrize("options", OPTIONS[:4], ids=lambda o: "-".join(o.values()))
def test_nearly_equal_representations(options, spread):
    # Cosine distances of 1e-6 and 1e-8. Rounding a/‖a‖ once moves ½‖u − v‖² by about 6e-8·(2/d)^½/√features
    # relative to d: 2e-6 and 2e-5 here for one pair; the median of many is no worse.
    rng = np.random.default_rng(2)
    base = rng.normal(size=(1, 3000))
    images = (base + spread * rng.normal(size=(12, 3000))).astype(np.float32)
    perturbed = (images + 0.1 * spread * rng.normal(size=images.shape)).astype(np.float32)
    expected = oracle({"x": images}, {"x": perturbed}, **options)
    for chunk in (None, 5):
        result = probes.sensitivity(Partial(lambda x: {"x": x}), images, perturbed, **options, chunk=chunk)
        assert_close(result, expected, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS[:2], ids=lambda o: "-".join(o.values()))
@pytest.mark.parametrize("chunk", [None, 2])
def test_zero_vectors(options, chunk):
    images = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    images[[0, 1, 4]] = 0
    perturbed = images + np.float32(0.1)
    perturbed[1] = 0
    result = probes.sensitivity(Partial(lambda x: {"x": x}), images, perturbed, **options, chunk=chunk)
    assert_close(result, oracle({"x": images}, {"x": perturbed}, **options))

    def total(x):
        return probes.sensitivity(Partial(lambda x: {"x": x}), x, perturbed, **options, chunk=chunk)["x"]

    assert np.isfinite(jax.grad(total)(images)).all()


def test_tiny_and_huge_taps(setting):
    weights, images, perturbed = setting
    expected = exact(*setting)

    def scaled(scale, x):
        return OrderedDict((tap, value * scale) for tap, value in network(weights, x).items())

    for scale in (1e-30, 1e30):
        assert_close(probes.sensitivity(Partial(scaled, jnp.float32(scale)), images, perturbed), expected)


def test_half_precision_taps(setting):
    weights, images, perturbed = setting

    def represent(weights, x):
        return jax.tree.map(lambda tap: tap.astype(jnp.bfloat16), network(weights, x))

    represent = Partial(represent, weights)
    expected = oracle(*(jax.tree.map(np.float64, represent(x)) for x in (images, perturbed)))
    result = probes.sensitivity(represent, images, perturbed)
    assert all(value.dtype == jnp.float32 for value in result.values())
    # the input tap is rounded alike; the others may differ by bfloat16 roundings of fused operations
    np.testing.assert_allclose(result["z_input"], expected["z_input"], rtol=1e-4)
    assert_close(result, expected, rtol=0.05)


def test_symmetries(setting):
    weights, images, perturbed = setting
    represent = Partial(network, weights)
    plain = probes.sensitivity(represent, images, perturbed)
    order = np.random.default_rng(0).permutation(N)
    assert_close(probes.sensitivity(represent, images[order], perturbed[order]), plain, rtol=1e-6)
    still = probes.sensitivity(represent, images, images)
    assert all(value == 0 for value in still.values())


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
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
    exact_total = [
        sum(exact(*jax.tree.map(lambda x, t: np.float64(x) + s * t, arguments, towards).values(), **options).values())
        for s in (-step, step)
    ]
    expected = (exact_total[1] - exact_total[0]) / (2 * step)
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, t: np.sum(np.float64(g) * t), gradient, towards)))
    np.testing.assert_allclose(along, expected, rtol=1e-4)


def test_jit_vmap_and_closures_agree(setting):
    weights, images, perturbed = setting
    stacked = jax.tree.map(lambda w: jnp.stack([w, -w, 2 * w + 1]), weights)

    def measure(weights, images, perturbed):
        return probes.sensitivity(Partial(network, weights), images, perturbed)

    def measure_closed(weights, images, perturbed):
        return probes.sensitivity(lambda x: network(weights, x), images, perturbed)

    plain = measure(weights, images, perturbed)
    assert_close(jax.jit(measure)(weights, images, perturbed), plain, rtol=1e-5)
    assert_close(measure_closed(weights, images, perturbed), plain, rtol=1e-5)
    assert_close(jax.jit(measure_closed)(weights, images, perturbed), plain, rtol=1e-5)
    one_by_one = [measure(jax.tree.map(lambda w: w[i], stacked), images, perturbed) for i in range(3)]  # noqa: B023
    for function in (measure, measure_closed):
        batched = jax.vmap(function, in_axes=(0, None, None))(stacked, images, perturbed)
        assert_close(batched, OrderedDict((t, jnp.stack([o[t] for o in one_by_one])) for t in plain), rtol=1e-5)
    gradients = [jax.grad(lambda w: f(w, images, perturbed)["a_output"])(weights) for f in (measure, measure_closed)]  # noqa: B023
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), *gradients)
