"""What may be probed, how often it is traced, what it must return, and every refusal."""

import dataclasses
import warnings
from collections import OrderedDict, namedtuple
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from deform_jax import probes

OPTIONS = {"distance": "squared", "normaliser": "mean"}  # the fastest to compile
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 4, 4, 1)).astype(np.float32)
PERTURBED = IMAGES + np.float32(0.1) * RNG.normal(size=IMAGES.shape).astype(np.float32)


def measure(represent, images=IMAGES, perturbed=PERTURBED, **options):
    return probes.sensitivity(represent, images, perturbed, **{**OPTIONS, **options})


traces = []


@dataclasses.dataclass(frozen=True)
class Network:
    """What `deform_jax.models.represent` puts in a `Partial`: settings compared by value, no arrays."""

    widths: tuple[int, ...]
    negative_slope: float = 0.0

    def init(self, seed):
        rng = np.random.default_rng(seed)
        return [rng.normal(size=size).astype(np.float32) for size in pairwise((16, *self.widths))]

    def __call__(self, weights, images):
        traces.append(self)
        x = images.reshape(len(images), -1)
        taps = OrderedDict()
        for i, weight in enumerate(weights):
            x = jax.nn.leaky_relu(x @ weight, self.negative_slope)
            taps[f"layer{len(weights) - i}"] = x
        return taps


@pytest.mark.parametrize("chunk", [None, 2])
def test_one_trace_serves_every_seed_before_and_after_training(chunk):
    traces.clear()
    results = []
    for seed in range(3):
        initial = Network((8,)).init(seed)
        trained = jax.tree.map(lambda w: w - np.float32(0.1), initial)
        for weights in (initial, trained):
            results.append(measure(Partial(Network((8,)), weights), chunk=chunk))
            # clean and perturbed; a chunked mean asks once more, for the shapes of its accumulators
            assert len(traces) == (2 if chunk is None else 3)
    assert len({float(result["layer1"]) for result in results}) == 6
    measure(Partial(Network((8,), negative_slope=0.5), initial), chunk=chunk)
    assert len(traces) > 3, "another architecture must be traced"


def test_a_plain_function_is_read_anew_at_every_call():
    weights = {"scale": jnp.float32(1)}

    def represent(images):
        return {"tap": images + weights["scale"] * images**2}

    before = measure(represent)
    weights["scale"] = jnp.float32(100)
    assert abs(measure(represent)["tap"] - before["tap"]) > 0.01 * before["tap"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """A module that is itself a pytree, as in Equinox or Flax NNX."""

    weight: jax.Array
    settings: object = dataclasses.field(metadata={"static": True}, default=None)

    def __call__(self, images):
        traces.append(self)
        return {"tap": jnp.tanh(self.weight * images)}


def test_a_module_that_is_a_pytree_is_traced_once():
    traces.clear()
    small, large = (measure(Module(jnp.float32(w))) for w in (0.1, 3.0))
    assert len(traces) == 2
    assert small["tap"] != large["tap"]
    assert jax.grad(lambda m: measure(m)["tap"])(Module(jnp.float32(3))).weight != 0


class Unhashable:
    __hash__ = None

    def __call__(self, *arguments):
        return {"tap": jnp.tanh(arguments[-1])}


def test_unhashable_callables():
    expected = measure(Partial(lambda x: {"tap": jnp.tanh(x)}))
    settings = [1, 2]  # makes the tree's structure unhashable
    partials = Partial(Unhashable(), np.ones(2)), Partial(lambda function, x: function(x), Unhashable())
    for represent in (Unhashable(), *partials, Module(jnp.float32(1), settings)):
        np.testing.assert_allclose(measure(represent)["tap"], expected["tap"], rtol=1e-6)


@pytest.mark.parametrize(
    "kind", [dict, OrderedDict, namedtuple("Taps", ["zebra", "apple"])], ids=["dict", "OrderedDict", "namedtuple"]
)
def test_order_is_the_functions_own(kind):
    result = measure(lambda x: kind(zebra=x, apple=x[:, 0]))
    assert list(result) == ["zebra", "apple"]
    assert isinstance(result, OrderedDict)


def test_products_are_precise_unless_told_otherwise():
    seen = []

    def represent(images):
        seen.append(jax.config.jax_default_matmul_precision)
        return {"tap": images}

    measure(represent)
    with jax.default_matmul_precision("bfloat16"):
        measure(represent)
    assert seen == ["highest", "highest", "bfloat16", "bfloat16"]


def test_constant_taps_are_nan_with_a_warning():
    def represent(images):
        n = len(images)
        return OrderedDict(
            moving=images,
            zero=jnp.zeros((n, 3)),
            constant=jnp.full((n, 7), 0.1) * 3,
            rounding=(0.1 * images) / images,
        )

    for distance, normaliser in (("squared", "mean"), ("cosine", "median"), ("euclidean", "mean")):
        options = {"distance": distance, "normaliser": normaliser}
        with pytest.warns(RuntimeWarning, match=r"nan at tap 'zero', 'constant', 'rounding': the clean") as caught:
            result = measure(represent, **options)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert np.isfinite(result.pop("moving"))
        assert all(np.isnan(value) for value in result.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jitted = jax.jit(lambda x: measure(lambda x: {"zero": 0 * x}, x))(IMAGES)
        parts = probes.sensitivity_parts(Partial(lambda x: {"zero": 0 * x}), IMAGES, PERTURBED, **OPTIONS)
    assert np.isnan(jitted["zero"])
    assert parts.normaliser["zero"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", [OPTIONS, {"distance": "cosine", "normaliser": "median"}])
def test_taps_that_are_not_finite_are_nan_with_a_warning(bad, options):
    def represent(bad, images):
        return OrderedDict(good=images, bad=images.at[1, 0, 0, 0].set(bad))

    with pytest.warns(RuntimeWarning, match=r"nan at tap 'bad': values or distances there are not finite"):
        result = measure(Partial(represent, np.float32(bad)), **options)
    assert np.isnan(result["bad"])
    assert np.isfinite(result["good"])


def test_squares_that_leave_float32_are_nan_with_a_warning():
    with pytest.warns(RuntimeWarning, match="not finite in float32"):
        assert np.isnan(measure(lambda x: {"huge": 1e30 * x})["huge"])
    with pytest.warns(RuntimeWarning, match="not finite in float32"):
        assert np.isnan(measure(lambda x: {"far": x}, perturbed=1e25 * PERTURBED)["far"])


def identity(images):
    return {"tap": images}


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"represent": 3}, TypeError, r"`represent` must be callable, .* but its type is int"),
        (
            {"represent": lambda x: x},
            TypeError,
            r"an ordered mapping .* but its result has type \w+\. Return for",
        ),
        ({"represent": lambda x: [x]}, TypeError, r"return an ordered mapping .* but its result has type list"),
        ({"represent": lambda x: {}}, ValueError, r"at least one tap, but it returned an empty mapping"),
        ({"represent": lambda x: {"conv1": x, "head": x.sum()}}, ValueError, r"\(5, …\).* tap 'head' has shape \(\)"),
        (
            {"represent": lambda x: {"head": x[:3]}},
            ValueError,
            r"for 5 images, but tap 'head' has shape \(3, 4, 4, 1\)",
        ),
        ({"represent": lambda x: {"head": x[:, :0]}}, ValueError, r"tap 'head' has shape \(5, 0, 4, 1\)"),
        ({"represent": lambda x: {"head": x > 0}}, TypeError, r"floating-point taps, but tap 'head' has dtype bool"),
        (
            {"represent": lambda x: {"block": {"conv": x}}},
            TypeError,
            r"one array .*tap 'block' has type dict",
        ),
        ({"represent": lambda x: {0: x}}, TypeError, r"name its taps by strings, but one is named 0"),
        ({"images": IMAGES[:1], "perturbed": PERTURBED[:1]}, ValueError, r"`images` must hold at least two images"),
        ({"images": np.float32(1)}, ValueError, r"`images` must hold at least two images"),
        ({"perturbed": PERTURBED[:4]}, ValueError, r"`perturbed` must have the shape of `images`, \(5, 4, 4, 1\)"),
        ({"images": (IMAGES * 0).astype(int)}, TypeError, r"`images` must hold floating-point numbers"),
        ({"images": IMAGES * np.nan}, ValueError, r"`images` must be finite, but it holds 80 NaN"),
        ({"perturbed": PERTURBED + np.inf}, ValueError, r"`perturbed` must be finite"),
        (
            {"distance": "manhattan"},
            ValueError,
            r"`distance` must be one of 'cosine', 'squared', 'euclidean', but 'manhattan'",
        ),
        ({"normaliser": "max"}, ValueError, r"`normaliser` must be one of 'median', 'mean'"),
        ({"numerator": "median"}, ValueError, r"`numerator` must be one of 'mean', 'coordinate_median'"),
        (
            {"numerator": "coordinate_median", "distance": "cosine"},
            ValueError,
            r"`numerator` must be 'mean' with distance='cosine', .*Use it with distance='squared'",
        ),
        ({"chunk": 0}, ValueError, r"`chunk` must be an integer ≥ 1, but 0 was given"),
        ({"chunk": 2.0}, TypeError, r"`chunk` must be an integer ≥ 1, but 2.0"),
        ({"chunk": True}, TypeError, r"`chunk` must be an integer ≥ 1"),
    ],
)
def test_bad_input(changes, error, text):
    arguments = {"represent": identity, "images": IMAGES, "perturbed": PERTURBED, **OPTIONS, **changes}
    with pytest.raises(error, match=text):
        probes.sensitivity(**arguments)
    if "numerator" not in changes:
        with pytest.raises(error, match=text):
            probes.sensitivity_parts(**arguments)


def test_traced_options_are_refused_in_our_words():
    with pytest.raises(TypeError, match=r"`chunk` must be an integer ≥ 1 known when the function is traced"):
        jax.jit(lambda chunk: measure(identity, chunk=chunk))(2)
