"""Relative sensitivities against float64 numpy with loops over pairs and coordinates; batches."""

import itertools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from deform_jax import probes
from deform_jax.probes import relative

N = 64
MEDIANS = {"normaliser": "median", "numerator": "coordinate_median"}  # of RS
traces = []


def network(weights, images, xp=jnp):
    traces.append(images.shape)
    hidden = xp.maximum(images.reshape(len(images), -1) @ weights["first"], 0)
    return OrderedDict(output=hidden @ weights["second"], hidden=hidden)  # an order that sorting would change


def draw(seed, n=N):
    """Weights, images, deformed and noisy ones; float32."""
    rng = np.random.default_rng(seed)
    weights = {"first": rng.normal(size=(3 * 4 * 2, 10)), "second": rng.normal(size=(10, 7))}
    images = rng.normal(size=(n, 3, 4, 2))
    deformed = images + 0.1 * np.roll(images, 1, axis=2) * rng.uniform(size=(n, 1, 1, 1))
    noisy = images + 0.1 * rng.normal(size=images.shape)
    return jax.tree.map(np.float32, (weights, images, deformed, noisy))


def oracle(clean, deformed, noisy, normaliser="mean", numerator="mean"):
    """Of one tap: D, G and R by loops, from SI Eq. 1."""
    clean, deformed, noisy = (np.float64(x).reshape(len(x), -1) for x in (clean, deformed, noisy))
    if normaliser == "mean":
        ordered = [np.sum((a - b) ** 2) for i, a in enumerate(clean) for j, b in enumerate(clean) if i != j]
        below = sum(ordered) / len(ordered)
    else:
        below = np.median([np.sum((a - b) ** 2) for a, b in itertools.combinations(clean, 2)])
    above = []
    for moved in (deformed, noisy):
        squares = (moved - clean) ** 2
        if numerator == "mean":
            above.append(np.mean([row.sum() for row in squares]))
        else:
            above.append(sum(np.median(column) for column in squares.T))
    return np.array([above[0] / below, above[1] / below, above[0] / above[1]])


def exact(setting, **options):
    weights, *images = setting
    taps = [network(weights, x, np) for x in images]
    return OrderedDict((tap, oracle(*(t[tap] for t in taps), **options)) for tap in taps[0])


def assert_close(result, expected, rtol):
    for values, column in zip(result, range(3), strict=True):
        assert list(values) == list(expected)
        for tap in expected:
            np.testing.assert_allclose(values[tap], np.asarray(expected[tap])[..., column], rtol=rtol, err_msg=tap)


def measure(setting, **options):
    weights, *images = setting
    return probes.relative_sensitivity(Partial(network, weights), *images, **options)


def stream(setting, sizes):
    weights, *images = setting
    cuts = np.cumsum([0, *sizes])
    assert cuts[-1] == len(images[0])
    batches = (tuple(x[a:b] for x in images) for a, b in itertools.pairwise(cuts))
    return probes.streamed_relative_sensitivity(Partial(network, weights), batches)


@pytest.fixture(scope="module")
def setting():
    return draw(1)


CASES = [({}, None), ({}, 10), (MEDIANS, None), (MEDIANS, 10)]


@pytest.mark.parametrize(("options", "chunk"), CASES)
def test_matches_the_oracle(setting, options, chunk):
    result = measure(setting, **options, chunk=chunk)
    assert isinstance(result, probes.RelativeSensitivity)
    assert_close(result, exact(setting, **options), rtol=2e-5)  # the network's roundings


def test_is_two_sensitivities_with_one_normaliser(setting):
    weights, images, deformed, noisy = setting
    result = measure(setting)
    for perturbed, values in ((deformed, result.deformation), (noisy, result.noise)):
        options = {"distance": "squared", "normaliser": "mean"}
        alone = probes.sensitivity(Partial(network, weights), images, perturbed, **options)
        for tap in alone:
            np.testing.assert_allclose(values[tap], alone[tap], rtol=1e-6)


@pytest.mark.parametrize("sizes", [[N], [20, 20, 20, 4], [1, 3, 60]], ids=str)
def test_batches_merge_to_the_whole(setting, sizes):
    whole = measure(setting)
    # Three sums of 64 squares, in another order: a few roundings of 6e-8.
    expected = OrderedDict((tap, [float(v[tap]) for v in whole]) for tap in whole.ratio)
    assert_close(stream(setting, sizes), expected, rtol=1e-6)


def test_one_program_serves_every_seed():
    settings = [draw(seed, 16) for seed in range(3)]
    for run, size in ((measure, 16), (lambda setting: stream(setting, [7, 7, 2]), 7)):  # sizes of no other test
        traces.clear()
        results = [run(setting) for setting in settings]
        assert traces == [(size, 3, 4, 2)] * 3  # the clean images once, the deformed once, the noisy once
        assert len({float(result.ratio["output"]) for result in results}) == 3


def largest(jaxpr):
    """The number of entries of the largest array anywhere in a program."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in equation.outvars if hasattr(v.aval, "size")]
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            sizes += [largest(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


def test_means_need_no_matrix_of_pairs():
    n = 1000
    weights, *images = draw(0, n)
    for options, bound in (({}, 30 * n), ({"normaliser": "median"}, None)):
        run = jax.make_jaxpr(
            lambda w, *x, options=options: probes.relative_sensitivity(Partial(network, w), *x, **options)
        )
        size = largest(run(weights, *images).jaxpr)
        assert size < bound if bound else size >= n * n  # the median's matrix shows that the search would find one


def test_streaming_keeps_one_batch():
    features, batch, count = 5000, 8, 12

    def wide(weights, images):
        return OrderedDict(wide=jnp.tanh(images @ weights))

    weights = np.random.default_rng(0).normal(size=(4, features)).astype(np.float32)
    live = []

    def batches():
        for i in range(count):
            live.append(sum(x.nbytes for x in jax.live_arrays()))
            images = np.random.default_rng(i).normal(size=(batch, 4)).astype(np.float32)
            yield images, 1.01 * images, 1.02 * images

    result = probes.streamed_relative_sensitivity(Partial(wide, weights), batches())
    assert np.isfinite(result.ratio["wide"])
    # Two mean images, the sum so far and that of the last batch, beside the weights; of all images it would be 96.
    assert max(live) - live[0] <= 2 * features * 4 + weights.nbytes + 2000
    shapes = [(batch, 4)] * 3
    arguments = [jax.ShapeDtypeStruct(s, np.float32) for s in (weights.shape, *shapes, (batch,))]
    program = jax.jit(lambda w, *x: relative._sums(Partial(wide, w), *x)).lower(*arguments).compile()
    # In activations of one batch: 3 and a little, with jax 0.7.2 a little more than 4; of all batches it would be 36.
    assert program.memory_analysis().temp_size_in_bytes < 5 * batch * features * 4
    assert program.memory_analysis().output_size_in_bytes < 1.01 * features * 4  # one mean image


@pytest.mark.parametrize(("options", "sizes"), [({}, [5, 3]), (MEDIANS, None)])
def test_gradients_match_differences_of_the_oracle(options, sizes):
    rng = np.random.default_rng(4)
    setting = draw(5, 8)  # with 3, rounding in float32 changes which images are the median ones
    towards = jax.tree.map(lambda x: rng.normal(size=x.shape), setting)

    def total(setting):
        result = stream(setting, sizes) if sizes else measure(setting, **options)
        return sum(result.ratio.values())

    gradient = jax.jit(jax.grad(total))(setting)
    step = 1e-6  # in float64: truncation 1e-12, rounding 1e-10

    def exact_total(size):
        moved = jax.tree.map(lambda x, t: np.float64(x) + size * t, setting, towards)
        return sum(values[2] for values in exact(moved, **options).values())

    expected = (exact_total(step) - exact_total(-step)) / (2 * step)
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, t: np.sum(np.float64(g) * t), gradient, towards)))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    np.testing.assert_allclose(along, expected, rtol=1e-4)


def test_vmap_over_networks():
    settings = [draw(seed, 10) for seed in range(2)]
    images = settings[0][1:]
    expected = [exact((weights, *images)) for weights, *_ in settings]
    expected = OrderedDict((tap, np.stack([one[tap] for one in expected])) for tap in expected[0])
    stacked = jax.tree.map(lambda *w: jnp.stack(w), *(weights for weights, *_ in settings))
    for run in (measure, lambda setting: stream(setting, [5, 5])):
        result = jax.jit(jax.vmap(lambda w, run=run: run((w, *images))))(stacked)
        assert_close(result, expected, rtol=1e-5)


def degenerate(x):
    return OrderedDict(good=x, zero=0 * x, alike=x - jnp.floor(x), blunt=jnp.round(x), far=1e25 * x)


@pytest.mark.parametrize("streamed", [False, True])
def test_undefined_taps_are_nan_and_named(streamed):
    images = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32) * np.float32(3)
    images = np.round(images) + np.float32(0.25)
    deformed, noisy = images + np.float32(1), images + np.float32(0.01)
    run = probes.relative_sensitivity
    arguments = (images, deformed, noisy)
    if streamed:
        run, arguments = probes.streamed_relative_sensitivity, ([arguments],)
    with pytest.warns(RuntimeWarning) as caught:
        result = run(Partial(degenerate), *arguments)
    messages = [str(warning.message) for warning in caught]
    assert [message.split(":")[0] for message in messages] == [
        f"The relative sensitivity is nan at tap {taps}" for taps in ("'zero', 'alike'", "'blunt'", "'far'")
    ]
    for text, message in zip(("all alike", "the noise does not move", "not finite"), messages, strict=True):
        assert text in message
    assert all(warning.filename == __file__ for warning in caught)
    finite = {name: [tap for tap, v in values.items() if np.isfinite(v)] for name, values in result._asdict().items()}
    assert finite == {"deformation": ["good", "blunt"], "noise": ["good", "blunt"], "ratio": ["good"]}
    assert result.noise["blunt"] == 0


IMAGES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
BATCH = (IMAGES, IMAGES + np.float32(1), IMAGES - np.float32(1))


def identity(x):
    return {"tap": x}


def streamed(batches, represent=identity, **options):
    return probes.streamed_relative_sensitivity(represent, batches, **options)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: probes.relative_sensitivity(identity, IMAGES, IMAGES[:3], IMAGES),
            ValueError,
            r"`deformed` must have the shape of `images`, \(4, 3\)",
        ),
        (
            lambda: probes.relative_sensitivity(identity, *BATCH[:2], IMAGES[:, :2]),
            ValueError,
            r"`noisy` must have the shape of `images`",
        ),
        (
            lambda: probes.relative_sensitivity(identity, *BATCH, numerator="median"),
            ValueError,
            "`numerator` must be one of",
        ),
        (
            lambda: probes.relative_sensitivity(identity, *BATCH, normaliser="max"),
            ValueError,
            "`normaliser` must be one",
        ),
        (lambda: probes.relative_sensitivity(3, *BATCH), TypeError, "`represent` must be callable"),
        (lambda: streamed([BATCH], 3), TypeError, "`represent` must be callable"),
        (
            lambda: streamed([BATCH], normaliser="median"),
            ValueError,
            r"`normaliser` must be 'mean' for images in batches, but 'median' was given\. A median needs all images",
        ),
        (lambda: streamed([BATCH], numerator="coordinate_median"), ValueError, "`numerator` must be 'mean' for images"),
        (lambda: streamed([BATCH], numerator="max"), ValueError, "`numerator` must be one of"),
        (lambda: streamed(3), TypeError, r"`batches` must be an iterable .* its type is int"),
        (lambda: streamed([]), ValueError, r"two images in all, but it holds 0\. A generator is spent"),
        (lambda: streamed([[x[:1] for x in BATCH]]), ValueError, "two images in all, but it holds 1"),
        (lambda: streamed(IMAGES), TypeError, r"tuples \(images, deformed, noisy\), but batch 0 is a ndarray"),
        (lambda: streamed([BATCH, BATCH[:2]]), TypeError, "but batch 1 is a tuple of 2"),
        (lambda: streamed([(IMAGES, IMAGES, IMAGES[:2])]), ValueError, r"`batches\[0\]\[2\]` must have the shape of"),
        (
            lambda: streamed([BATCH, (IMAGES.T,) * 3]),
            ValueError,
            r"`batches\[1\]\[0\]` must hold images of shape \(3,\)",
        ),
        (lambda: streamed([(np.float32(1),) * 3]), ValueError, r"`batches\[0\]\[0\]` must hold images along"),
        (lambda: streamed([(IMAGES * np.nan,) * 3]), ValueError, r"`batches\[0\]\[0\]` must be finite"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
