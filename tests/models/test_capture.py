"""Taps of Linen modules that know nothing of this package: order, names, values, and one compile for all seeds."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from deform_jax import models, probes

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)


class Block(nn.Module):
    """Compact style; returns more than one array, of which not all are taps."""

    features: int

    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(self.features, (3, 3), name="zebra")(x)
        y = nn.BatchNorm(use_running_average=not train, name="apple")(y)
        return {"mean": y.mean(), "rows": nn.relu(y), "counts": jnp.ones(len(x), int), "first": (y[:1], y[:, 0])}


JittedBlock = nn.jit(Block, static_argnums=2)


class Network(nn.Module):
    """Setup style: the same class twice, nested sequences, a layer used twice, and names that are ours."""

    lifted: bool = False

    def setup(self):
        self.stem = JittedBlock(2) if self.lifted else Block(2)
        self.blocks = [nn.remat(Block, static_argnums=2)(2) if self.lifted else Block(2), Block(3)]
        self.tied = nn.Dense(3)
        self.mixer = nn.Sequential([nn.Dense(5), nn.relu, nn.Sequential([nn.Dense(3)])])
        self.tied_2 = nn.Dense(3)
        self.output = nn.Dense(2, use_bias=False)

    def __call__(self, x, train):
        for block in (self.stem, *self.blocks):
            x = block(x, train)["rows"]
        x = self.tied(self.tied(x.mean((1, 2))))
        self.sow("intermediates", "sown", x)
        return self.output(self.tied_2(self.mixer(x))), x


PARTS = ["zebra", "apple"]
NAMES = [
    "input",
    *(
        f"{block}{part}"
        for block in ("stem", "blocks_0", "blocks_1")
        for part in ("/zebra", "/apple", ".first.1", ".rows")
    ),
    *("tied", "tied_3", "mixer/layers_0", "mixer/layers_2/layers_0", "mixer/layers_2", "mixer", "tied_2", "output_2"),
    *("output.0", "output.1"),
]


@pytest.fixture(scope="module")
def variables():
    fresh = jax.jit(Network().init, static_argnums=2)(jax.random.key(0), IMAGES, False)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: np.abs(leaf + 0.3 * rng.normal(size=leaf.shape)).astype(np.float32), fresh)


@pytest.fixture(scope="module")
def taps(variables):
    return jax.jit(models.capture(Network(), variables, train=False))(IMAGES)


def test_taps_come_in_the_order_of_the_calls(taps):
    assert isinstance(taps, OrderedDict)
    assert list(taps) == NAMES
    np.testing.assert_array_equal(taps["input"], IMAGES)


def test_values_are_the_modules_own(variables, taps):
    """Layer by layer, each applied on its own to the tap before it."""
    params, statistics = variables["params"], variables["batch_stats"]
    before = taps["input"]
    for block, features in (("stem", 2), ("blocks_0", 2), ("blocks_1", 3)):
        ours = {"params": params[block], "batch_stats": statistics[block]}
        conv = nn.Conv(features, (3, 3)).apply({"params": params[block]["zebra"]}, before)
        np.testing.assert_allclose(taps[f"{block}/zebra"], conv, rtol=1e-5, atol=1e-6)
        rows = Block(features).apply(ours, before, False)["rows"]
        np.testing.assert_allclose(taps[f"{block}.rows"], rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(nn.relu(taps[f"{block}/apple"]), taps[f"{block}.rows"])
        np.testing.assert_array_equal(taps[f"{block}/apple"][:, 0], taps[f"{block}.first.1"])
        before = taps[f"{block}.rows"]

    def dense(name, x):
        layer = params
        for part in name.split("/"):
            layer = layer[part]
        return np.float64(x) @ np.float64(layer["kernel"]) + layer.get("bias", 0)

    rounding = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(taps["tied"], dense("tied", np.mean(before, (1, 2))), **rounding)
    np.testing.assert_allclose(taps["tied_3"], dense("tied", taps["tied"]), **rounding)
    np.testing.assert_allclose(taps["mixer/layers_0"], dense("mixer/layers_0", taps["tied_3"]), **rounding)
    hidden = dense("mixer/layers_2/layers_0", np.maximum(taps["mixer/layers_0"], 0))
    for name in ("mixer/layers_2/layers_0", "mixer/layers_2", "mixer"):
        np.testing.assert_allclose(taps[name], hidden, **rounding)
    np.testing.assert_allclose(taps["tied_2"], dense("tied_2", taps["mixer"]), **rounding)
    np.testing.assert_allclose(taps["output_2"], dense("output", taps["tied_2"]), **rounding)
    np.testing.assert_array_equal(taps["output.0"], taps["output_2"])
    np.testing.assert_array_equal(taps["output.1"], taps["tied_3"])


def test_kernels_have_the_names_of_their_taps(variables, taps):
    kernels = probes.filter_statistics(variables["params"], probes.total_variation)
    assert list(kernels) == [name for name in sorted(taps) if name.endswith("zebra")]


def test_lifted_modules_keep_their_order_and_their_values(variables, taps):
    """``nn.remat``, and ``nn.jit``, which does not run Python again for what it has compiled."""
    represent = models.capture(Network(lifted=True), variables, train=False)
    first, again = represent(IMAGES), represent(IMAGES)
    assert list(first) == list(again) == NAMES
    for name, tap in taps.items():
        np.testing.assert_allclose(first[name], tap, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(first[name], again[name])


def only_mixers(name):
    return name.startswith("mixer")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("tied.*", ["tied", "tied_3", "tied_2"]),
        (r".*/zebra|stem\.rows", ["stem/zebra", "stem.rows", "blocks_0/zebra", "blocks_1/zebra"]),
        (["tied_3", "blocks_1.rows", "tied"], ["blocks_1.rows", "tied", "tied_3"]),
        (only_mixers, ["mixer/layers_0", "mixer/layers_2/layers_0", "mixer/layers_2", "mixer"]),
    ],
    ids=["expression", "alternatives", "names", "function"],
)
def test_names_choose_without_reordering(variables, taps, names, expected):
    shapes = jax.eval_shape(models.capture(Network(), variables, names=names, output=False, train=False), IMAGES)
    assert list(shapes) == ["input", *expected]
    assert all(shapes[name].shape == taps[name].shape for name in shapes)
    # Compared by value, so that probes compile once for all captures of these settings.
    same, other = (models.capture(Network(), variables, names=names, output=out, train=False) for out in (False, True))
    assert models.capture(Network(), variables, names=names, output=False, train=False).func == same.func != other.func
    assert hash(same.func) != hash(other.func)


def test_one_compile_for_all_seeds_and_nothing_stale(variables):
    """Interceptors run while tracing and only then; one trace calls the network twice, clean and perturbed."""
    calls = []

    def count(call, args, kwargs, context):
        if isinstance(context.module, Network) and context.method_name == "__call__":
            calls.append(context.module)
        return call(*args, **kwargs)

    results, traced = [], []
    with nn.intercept_methods(count):
        for scale in (1.0, 0.5, 2.0):
            scaled = jax.tree.map(lambda leaf, s=scale: (leaf * s).astype(np.float32), variables)
            represent = models.capture(Network(), scaled, names=[*(f"blocks_{i}.rows" for i in range(2))], train=False)
            results.append(probes.sensitivity(represent, IMAGES, IMAGES + 0.1 * IMAGES**2, distance="squared"))
            traced.append(len(calls))
    assert traced == [2, 2, 2]
    assert list(results[0]) == ["input", "blocks_0.rows", "blocks_1.rows", "output.0", "output.1"]
    assert len({float(result["output.0"]) for result in results}) == 3
    assert len({float(result["input"]) for result in results}) == 1


def test_what_was_sown_before_is_left_out(variables, taps):
    stale = {**variables, "intermediates": {"tied": {"__call__": (np.ones((4, 3)),)}}}
    again = jax.eval_shape(models.capture(Network(), stale, train=False), IMAGES)
    assert list(again) == list(taps)


def test_a_module_without_submodules_is_its_output_and_gradients_reach_it():
    dense = nn.Dense(2)
    variables = dense.init(jax.random.key(0), IMAGES[:, 0, :, 0])
    represent = models.capture(dense, variables)
    assert list(represent(IMAGES[:, 0, :, 0])) == ["input", "output"]
    gradient = jax.grad(lambda r: r(IMAGES[:, 0, :, 0])["output"].sum())(represent)
    np.testing.assert_allclose(gradient.args[0]["params"]["bias"], [4, 4])
    seeds = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), represent)
    both = jax.vmap(lambda r, x: r(x), in_axes=(0, None))(seeds, IMAGES[:, 0, :, 0])
    np.testing.assert_allclose(both["output"][1], 2 * both["output"][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"names": "("},
            ValueError,
            r"`names` must be a regular expression, .* but '\(' was given. As an expression: ",
        ),
        ({"names": 3}, TypeError, "`names` must be a regular expression, several names or .* but 3 was given"),
        ({"names": []}, TypeError, r"`names` must be a regular expression, several names or .* but \(\) was given"),
        ({"names": ["tied", 1]}, TypeError, r"but \('tied', 1\) was given"),
        (
            {"names": ["tied", "head"]},
            ValueError,
            r"`names` must be of submodules .* but \['head'\] was given. .* tied,",
        ),
        ({"names": "tie"}, ValueError, r"`names` must be of submodules .* but 'tie' was given. They are stem/zebra, "),
        ({"names": lambda name: False}, ValueError, "`names` must be of submodules that return an array with one row"),
        ({"train": False, "eval": 1}, TypeError, r"but `eval` was given\. It takes train\."),
        ({"train": [1]}, TypeError, r"`train` must be hashable, but \[1\] was given"),
    ],
)
def test_refuses(variables, options, error, match):
    with pytest.raises(error, match=match):
        jax.eval_shape(models.capture(Network(), variables, **{"train": False, **options}), IMAGES)


def test_says_what_the_module_needs(variables):
    with pytest.raises(TypeError, match=r"`Network.__call__`, but `train` is missing\. Add it, as in `train=False`"):
        models.capture(Network(), variables)


def test_refuses_what_is_no_network(variables):
    with pytest.raises(TypeError, match="`model` must be a Flax Linen module, but function was given"):
        models.capture(lambda x: x, variables)
    with pytest.raises(ValueError, match="`variables` must be a mapping with the key 'params'"):
        models.capture(Network(), variables["params"])
