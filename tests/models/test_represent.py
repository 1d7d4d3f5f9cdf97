"""From modules to callables: order, values, derivatives, frozen batch statistics, and one compile for all seeds."""

import re
from collections import OrderedDict

import block_vgg_oracle as oracle
import jax
import numpy as np
import pytest
from flax import linen as nn

from deform_jax import models, probes

BLOCKS = ((2, 4), (1, 6))
NAMES = ["input", "block1_conv1", "block1_conv2", "block1_down", "block2_conv1", "block2_down"]


@pytest.fixture(scope="module")
def model():
    return models.BlockVGG(blocks=BLOCKS, downsampling="average", num_classes=5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(6, 8, 8, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(model, images):
    return oracle.scattered(model, images)


def assert_same(result, expected, **tolerance):
    assert list(result) == list(expected)
    for tap in expected:
        np.testing.assert_allclose(result[tap], expected[tap], err_msg=tap, **tolerance)


# Float32 rounding, where the compiler orders sums differently for another batch or program.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def test_taps_and_output_keep_their_order(model, variables, images):
    logits, taps = jax.jit(model.apply)(variables, images)
    plain, with_output = models.represent(model, variables), models.represent(model, variables, output=True)
    assert list(taps) == NAMES != sorted(NAMES)
    expected = OrderedDict(taps, output=logits)
    result = jax.jit(with_output)(images)
    assert list(result) == [*NAMES, "output"]
    assert_same(result, expected, **ROUNDING)
    alone = jax.jit(plain)(images)
    assert isinstance(alone, OrderedDict)
    assert list(alone) == NAMES


def test_vmap_over_batches_and_over_seeds(model, variables, images):
    call = jax.jit(lambda represent, x: represent(x))
    first, second = (models.represent(model, jax.tree.map(lambda leaf, f=f: leaf * f, variables)) for f in (1.0, 1.5))
    batches = images.reshape(2, 3, *images.shape[1:])
    loop = [call(first, batch) for batch in batches]
    together = jax.jit(jax.vmap(first))(batches)
    assert_same(together, jax.tree.map(lambda *x: np.stack(x), *loop), **ROUNDING)

    seeds = jax.tree.map(lambda *x: np.stack(x), first, second)
    together = jax.jit(jax.vmap(lambda represent, x: represent(x), in_axes=(0, None)))(seeds, images[:3])
    apart = [call(first, images[:3]), call(second, images[:3])]
    assert_same(together, jax.tree.map(lambda *x: np.stack(x), *apart), **ROUNDING)


def test_derivative_along_a_direction(model, variables, images):
    """Against central differences of the float64 network; average pooling leaves only the ReLUs' kinks."""
    represent = models.represent(model, variables, output=True)
    direction = np.random.default_rng(4).normal(size=images.shape)
    step = 1e-7
    up, down = (oracle.forward(variables, images + sign * step * direction, BLOCKS, "average")[0] for sign in (1, -1))
    weights = np.random.default_rng(5).normal(size=up.shape)
    expected = (weights * (up - down)).sum() / (2 * step)
    gradient = jax.jit(jax.grad(lambda x: (weights.astype(np.float32) * represent(x)["output"]).sum()))(images)
    # Float32 gradient of 768 terms against a difference quotient with relative error 1e-8.
    np.testing.assert_allclose((np.float64(gradient) * direction).sum(), expected, rtol=1e-4)


def test_gradient_in_the_variables_reaches_every_layer(model, variables, images):
    represent = models.represent(model, variables, output=True)
    gradient = jax.jit(jax.grad(lambda r: (r(images)["output"] ** 2).sum()))(represent)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient.args[0]))


def test_precision_is_highest_unless_said_otherwise(model, variables, images):
    def precisions(represent):
        text = str(jax.make_jaxpr(represent)(images))
        found = re.findall(r"(?:conv_general_dilated|dot_general)\[.*?\bprecision=\(?(?:Precision\.)?(\w+)", text, re.S)
        assert len(re.findall(r"conv_general_dilated\[|dot_general\[", text)) == 4  # three convolutions and the head
        return found

    assert precisions(models.represent(model, variables, output=True)) == ["HIGHEST"] * 4
    assert precisions(models.represent(model, variables, output=True, precision=None))[:3] == ["None"] * 3
    assert model.precision is None


def test_one_compile_for_all_seeds_before_and_after_training(model, images):
    """Interceptors run while tracing and only then; one trace calls the network twice, clean and perturbed."""
    calls = []

    def count(call, args, kwargs, context):
        if isinstance(context.module, models.BlockVGG) and context.method_name == "__call__":
            calls.append(context.module)
        return call(*args, **kwargs)

    perturbed = images + 0.1
    with nn.intercept_methods(count):
        traced, results = [], []
        for seed in range(3):
            trained = oracle.scattered(model, images, seed=seed)
            initial = models.with_batch_statistics(model, oracle.untrained(trained), images)
            for variables in (initial, trained):
                calls.clear()
                represent = models.represent(models.BlockVGG(BLOCKS, "average", 5), variables)
                results.append(probes.sensitivity(represent, images, perturbed))
                traced.append(len(calls))
    assert traced == [2, 0, 0, 0, 0, 0]
    assert list(results[0]) == NAMES
    assert len({float(result["block2_down"]) for result in results}) == 6  # and no network stands in for another


@pytest.mark.parametrize("downsampling", ["max", "strided_relu"])
def test_batch_statistics_are_those_of_all_images(downsampling, images):
    model = models.BlockVGG(blocks=BLOCKS, downsampling=downsampling, num_classes=5)
    initial = oracle.scattered(model, images)
    frozen = models.with_batch_statistics(model, initial, images)
    _, expected_taps, statistics = oracle.forward(initial, images, BLOCKS, downsampling, train=True)
    # Float32 variances as E[x²] − E[x]², of up to 384 values with means below 3 standard deviations.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    assert frozen["batch_stats"].keys() == statistics.keys()
    for name, moments in statistics.items():
        for kind, value in moments.items():
            np.testing.assert_allclose(frozen["batch_stats"][name][kind], value, **tolerance, err_msg=name)
    np.testing.assert_array_equal(jax.tree.leaves(frozen["params"])[0], jax.tree.leaves(initial["params"])[0])
    represent = jax.jit(models.represent(model, frozen))
    taps = represent(images)
    assert_same(taps, expected_taps, rtol=1e-3, atol=1e-4)
    alone = represent(images[2:3])  # the same function whatever else is in the batch
    assert_same(alone, OrderedDict((tap, value[2:3]) for tap, value in taps.items()), **ROUNDING)


def test_a_network_trained_in_half_precision_is_probed_in_float32(model, variables, images):
    half = model.clone(compute_dtype="bfloat16")
    represents = [models.represent(one, variables, output=True) for one in (half, model)]
    assert represents[0].func == represents[1].func  # and so compiled once
    assert {tap.dtype for tap in represents[0](images).values()} == {np.dtype("float32")}
    statistics = [models.with_batch_statistics(one, variables, images)["batch_stats"] for one in (half, model)]
    jax.tree.map(np.testing.assert_array_equal, *statistics)


def test_batch_statistics_need_no_mapped_axis_and_may_be_absent(images):
    mapped, plain = (models.BlockVGG(blocks=((1, 2),), axis_name=axis) for axis in ("data", None))
    variables = oracle.scattered(plain, images)
    same = [models.with_batch_statistics(model, variables, images)["batch_stats"] for model in (mapped, plain)]
    jax.tree.map(np.testing.assert_array_equal, *same)

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(2)(x.mean((1, 2))), OrderedDict(input=x)

    without = {"params": {"Dense_0": {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}}}
    assert models.with_batch_statistics(Plain(), without, images) is without
    assert list(models.represent(Plain(), without, output=True)(images)) == ["input", "output"]


class Own(nn.Module):
    """A user's network: its own names, an axis and a momentum of its own, and logits alone."""

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Conv(3, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=deterministic, momentum=0.9, axis_name="devices")(x)
        return nn.Dropout(0.5)(nn.relu(x).mean((1, 2)), deterministic=deterministic)


class Part(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Conv(3, (3, 3))(x)
        return nn.BatchNorm(use_running_average=deterministic, momentum=0.9)(x)


JittedPart = nn.jit(Part, static_argnums=2)


class Compiled(nn.Module):
    """A network of which a part is compiled by itself."""

    @nn.compact
    def __call__(self, x, deterministic):
        return JittedPart(name="part")(x, deterministic)


@pytest.mark.parametrize("kind", [Own, Compiled])
def test_batch_statistics_of_any_linen_module(kind, images):
    """Exact ones, also where batch norm was compiled before; the module is as it was."""
    variables = kind().init(jax.random.key(0), images, True)
    before = kind().apply(variables, images, True)
    if kind is Compiled:  # as in training
        kind().apply(variables, images, False, mutable=["batch_stats"])
    frozen = models.with_batch_statistics(kind(), variables, images, deterministic=False)
    np.testing.assert_array_equal(kind().apply(variables, images, True), before)
    params, found = (tree.get("part", tree) for tree in (variables["params"], frozen["batch_stats"]))
    conv = nn.Conv(3, (3, 3)).apply({"params": params["Conv_0"]}, images)
    for name, moment in (("mean", np.mean), ("var", np.var)):
        wanted = moment(np.float64(conv), (0, 1, 2))
        np.testing.assert_allclose(found["BatchNorm_0"][name], wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"those of `\w+.__call__`, but `deterministic` is missing"):
        models.with_batch_statistics(kind(), variables, images)


def test_batch_statistics_of_a_list_of_layers(images):
    norm = nn.BatchNorm(momentum=0.9)
    model = nn.Sequential([norm])
    variables = model.init(jax.random.key(0), images, use_running_average=True)
    frozen = models.with_batch_statistics(model, variables, images, use_running_average=False)
    np.testing.assert_allclose(frozen["batch_stats"]["layers_0"]["mean"], images.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    assert norm.momentum == 0.9


def test_a_module_of_another_kind_is_told_of_capture(images):
    own = Own().init(jax.random.key(0), images, True)

    class Alone(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return Own()(x, not train)

    said = r"must return \(logits, {tap: activations}\).*Alone returns .*Use `models.capture`"
    with pytest.raises(ValueError, match=said):
        models.represent(Alone(), {name: {"Own_0": tree} for name, tree in own.items()})(images)


@pytest.mark.parametrize("function", [models.represent, lambda m, v: models.with_batch_statistics(m, v, None)])
def test_refuses_what_is_no_network(function, model, variables):
    with pytest.raises(TypeError, match="`model` must be a Flax Linen module, but function was given"):
        function(lambda x: x, variables)
    with pytest.raises(
        ValueError, match=r"`variables` must .* 'params', but \['block1_conv1'.* Pass {'params': params}"
    ):
        function(model, variables["params"])
    with pytest.raises(ValueError, match="`variables` must be a mapping with the key 'params', but list was given"):
        function(model, [variables])


def test_batch_statistics_refuse_images_that_are_not_finite(model, variables, images):
    with pytest.raises(ValueError, match=r"`images` must be finite, but it holds 768 NaN"):
        models.with_batch_statistics(model, variables, images * np.nan)
    with pytest.raises(ValueError, match=r"`images` must have shape \(n, h, w, c\), but its shape is \(8, 8, 2\)"):
        models.with_batch_statistics(model, variables, images[0])
