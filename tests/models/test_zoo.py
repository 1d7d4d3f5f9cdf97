"""SI's zoo against PyTorch networks with the same weights, and published parameter counts."""

import functools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from block_vgg_oracle import scattered
from flax import linen as nn

from deform_jax import models

torch = pytest.importorskip("torch")
oracles = pytest.importorskip("zoo_oracles")

PARAMETERS = {
    # 3072 · 64 + 640, and 64 · 65 for each layer between, with the 64 biases of the first.
    "fc_l2": 197_312,
    "fc_l4": 205_632,
    "fc_l6": 213_952,
    "lenet": 62_006,
    # 1792 + 110,784 + 663,936 + 884,992 + 590,080; 4,198,400 + 16,781,312 + 40,970.
    "alexnet": 23_272_266,
    "vgg11": 9_225_610,
    "vgg11_bn": 9_231_114,
    "vgg13": 9_410_122,
    "vgg13_bn": 9_416_010,
    "vgg16": 14_719_818,
    "vgg16_bn": 14_728_266,
    "vgg19": 20_029_514,
    "vgg19_bn": 20_040_522,
    # As torchvision's documentation gives them.
    "alexnet_imagenet": 61_100_840,
    "vgg11_imagenet": 132_863_336,
    "vgg11_bn_imagenet": 132_868_840,
    "vgg13_imagenet": 133_047_848,
    "vgg13_bn_imagenet": 133_053_736,
    "vgg16_imagenet": 138_357_544,
    "vgg16_bn_imagenet": 138_365_992,
    "vgg19_imagenet": 143_667_240,
    "vgg19_bn_imagenet": 143_678_248,
}
VGG = functools.partial(oracles.vgg, width=1 / 16, classes=5)
# Name, width, image size, PyTorch's network. Of 95 and 67 pixels 2 × 2 are left to average adaptively.
NETWORKS = [
    ("fc_l4", 1, 32, lambda: oracles.fully_connected(4, 3072, 64, 5)),
    ("lenet", 1, 32, lambda: oracles.lenet(1, 5)),
    ("alexnet", 1 / 16, 32, lambda: oracles.alexnet(1 / 16, 5, imagenet=False)),
    ("alexnet_imagenet", 1 / 16, 95, lambda: oracles.alexnet(1 / 16, 5, imagenet=True)),
    ("vgg11", 1 / 16, 32, lambda: VGG(11, batch_norm=False, imagenet=False)),
    ("vgg13_bn", 1 / 16, 32, lambda: VGG(13, batch_norm=True, imagenet=False)),
    ("vgg16", 1 / 16, 32, lambda: VGG(16, batch_norm=False, imagenet=False)),
    ("vgg19_bn", 1 / 16, 32, lambda: VGG(19, batch_norm=True, imagenet=False)),
    ("vgg11_bn_imagenet", 1 / 16, 67, lambda: VGG(11, batch_norm=True, imagenet=True)),
]
WITH_GRADIENTS = ("lenet", "alexnet_imagenet")


def network(name, width=1 / 16, size=32, seed=3, **fields):
    """The module, variables none of which is at its initial value, and four images."""
    model = models.create(name, width=width, num_classes=5, **fields)
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype(np.float32)
    variables = scattered(model, images, seed=seed)
    if name.startswith("fc"):
        scale = {layer: np.sqrt(len(part["kernel"])) for layer, part in variables["params"].items()}
        variables = {"params": {k: {**v, "kernel": v["kernel"] * scale[k]} for k, v in variables["params"].items()}}
    return model, variables, images


def standard(name, variables):
    """NTK kernels as those of ordinary linear layers; other networks as they are."""
    if not name.startswith("fc"):
        return variables
    params = dict(variables["params"])
    for layer, part in params.items():
        n = len(part["kernel"])
        params[layer] = {**part, "kernel": (part["kernel"] / (n if layer == "head" else np.sqrt(n))).astype(np.float32)}
    return {"params": params}


def assert_near(result, expected, message=""):
    """Float32 sums in another order, through up to 19 layers: a relative error of the whole, not of each element."""
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    assert result.shape == expected.shape, message
    assert np.abs(result - expected).max() <= 1e-4 * np.abs(expected).max(), message


@functools.cache
def abstract(name):
    size = 224 if name.endswith("imagenet") else 32
    model = models.create(name)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    (logits, taps), variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    return logits, taps, variables


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name):
    logits, taps, variables = abstract(name)
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
    assert logits.shape == (2, 1000 if name.endswith("imagenet") else 10)
    layers = [layer for layer in variables["params"] if not layer.endswith("_norm")]
    assert ["input", *layers] == [*taps, "head"]
    assert sorted(layers[:-1]) == layers[:-1]  # depth order survives jit, which sorts
    norms = {f"{layer}_norm" for layer in layers if "_bn" in name and layer.startswith("conv")}
    assert set(variables.get("batch_stats", {})) == norms == set(variables["params"]) - set(layers)


def test_names_are_those_of_the_papers():
    assert set(PARAMETERS) <= {*models.ZOO, *models.IMAGENET_ZOO}
    assert {f"{name.removesuffix('_imagenet')}_imagenet" for name in models.IMAGENET_ZOO} == set(models.IMAGENET_ZOO)
    assert {name.removesuffix("_imagenet") for name in models.IMAGENET_ZOO} <= set(models.ZOO)
    for name in (*models.ZOO, *models.IMAGENET_ZOO):
        assert models.create(name).num_classes == (1000 if name.endswith("imagenet") else 10)


@pytest.mark.parametrize(("name", "width", "size", "theirs"), NETWORKS, ids=[case[0] for case in NETWORKS])
def test_equals_a_pytorch_network(name, width, size, theirs):
    """Logits, every tap against a hook on its ReLU, and, for some, the gradient in every kernel and bias."""
    model, variables, images = network(name, width, size)
    expected = oracles.load(theirs(), standard(name, variables))
    weights = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)

    def forward(params, images):
        logits, taps = model.apply({**variables, "params": params}, images)
        return (weights * logits).sum(), (logits, taps)

    if name in WITH_GRADIENTS:
        gradients, (logits, taps) = jax.jit(jax.grad(forward, has_aux=True))(variables["params"], images)
        ordered = [gradients[layer] for layer in [*list(taps)[1:], "head"]]
        for layer, part in zip(ordered, oracles.gradients(expected, weights, images), strict=True):
            for kind in ("kernel", "bias"):
                assert_near(layer[kind], part[kind])
    else:
        logits, taps = jax.jit(forward)(variables["params"], images)[1]
    with torch.no_grad():
        expected_logits, seen = oracles.forward(expected, images)
    assert_near(logits, expected_logits)
    assert isinstance(taps, OrderedDict)
    np.testing.assert_array_equal(taps.pop("input"), images)
    assert len(taps) == len(seen)
    for (tap, value), other in zip(taps.items(), seen, strict=True):
        assert_near(value, other, tap)


def test_training_mode_equals_a_pytorch_network():
    """With batch statistics; running variances keep a tenth of the batch's own, PyTorch's of n/(n − 1) times it."""
    model, variables, images = network("vgg11_bn")
    expected = oracles.load(VGG(11, batch_norm=True, imagenet=False), variables).train()
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    (logits, _), updated = apply(variables, images)
    with torch.no_grad():
        expected_logits, seen = oracles.forward(expected, images)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-3, atol=1e-3)
    norms = [layer for layer in expected if isinstance(layer, torch.nn.BatchNorm2d)]
    for (name, new), norm, values in zip(updated["batch_stats"].items(), norms, seen, strict=True):
        before, n = variables["batch_stats"][name]["var"], np.prod(values.shape[:3])
        variance = 0.9 * before + (norm.running_var.numpy() - 0.9 * before) * (n - 1) / n
        np.testing.assert_allclose(new["mean"], norm.running_mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(new["var"], variance, rtol=1e-3, atol=1e-4)


def test_batch_statistics_need_neither_dropout_key_nor_mapped_axis_and_are_absent_without_batch_norm():
    model, variables, images = network("vgg11_bn_imagenet", axis_name="data")
    expected = oracles.load(VGG(11, batch_norm=True, imagenet=True), variables).train()
    norms = [layer for layer in expected if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # PyTorch's: the share of the new
    with torch.no_grad():
        _, seen = oracles.forward(expected, images)
    frozen = models.with_batch_statistics(model, variables, images)["batch_stats"]
    for new, norm, values in zip(frozen.values(), norms, seen, strict=False):
        n = np.prod(values.shape[:3])
        np.testing.assert_allclose(new["mean"], norm.running_mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(new["var"], norm.running_var * (n - 1) / n, rtol=1e-3, atol=1e-4)
    lenet, variables, _ = network("lenet")
    assert models.with_batch_statistics(lenet, variables, images) is variables


@pytest.mark.parametrize("name", ["alexnet", "vgg11_imagenet"])
def test_dropout_halves_what_the_dense_layers_read_in_training(name):
    """(And not otherwise: above, without a key.)"""
    model, variables, images = network(name)

    @jax.jit
    def watched(key):
        seen = []

        def record(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
                seen.append((args[0], output))
            return output

        with nn.intercept_methods(record):
            logits, taps = model.apply(variables, images, train=True, rngs={"dropout": key})
        return logits, taps, seen

    (first, taps, seen), (second, *_) = (watched(jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    assert len(seen) == 2
    for values, dropped in seen:
        values, dropped = np.asarray(values), np.asarray(dropped)
        kept, active = dropped != 0, values != 0
        np.testing.assert_array_equal(dropped[kept], 2 * values[kept])
        # Five standard errors of a fair coin.
        assert abs(kept[active].mean() - 0.5) < 2.5 / np.sqrt(active.sum())
    read = {"alexnet": "dense1", "vgg11_imagenet": "dense2"}[name]  # dropped before each layer, or after it
    np.testing.assert_array_equal(seen[-1][0], taps[read])


def test_half_precision_is_near_and_its_logits_are_float32():
    model, variables, images = network("vgg13_bn")
    half = model.clone(compute_dtype="bfloat16")
    logits, taps = jax.jit(half.apply)(variables, images)
    with torch.no_grad():
        expected, seen = oracles.forward(oracles.load(VGG(13, batch_norm=True, imagenet=False), variables), images)
    assert logits.dtype == jnp.float32
    assert {tap for tap, value in taps.items() if value.dtype != jnp.bfloat16} == {"input"}
    # Rounded to 8 bits, 0.4 %, by each of three operations in up to ten layers.
    assert np.abs(logits - expected.numpy()).max() < 0.05 * expected.abs().max()
    for value, other in zip([*taps.values()][1:], seen, strict=True):
        assert np.abs(np.float32(value) - other.numpy()).max() < 0.05 * other.abs().max()
    represents = [models.represent(one, variables) for one in (half, model)]
    assert represents[0].func == represents[1].func  # probed in float32


def test_every_network_keeps_its_parameters_in_float32_and_products_in_half_precision():
    for name in ("lenet", "alexnet", "alexnet_imagenet", "vgg11_bn_imagenet", "fc_l2"):
        model = models.create(name, width=1 / 16, compute_dtype="bfloat16")
        images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}, name
        equations = jax.make_jaxpr(model.apply)(variables, images).eqns
        products = [one for one in equations if one.primitive.name in ("conv_general_dilated", "dot_general")]
        dtypes = [one.invars[0].aval.dtype for one in products if not one.params["precision"]]
        assert dtypes == [*[jnp.bfloat16] * (len(dtypes) - 1), jnp.float32], name
        layers = [layer for layer in variables["params"] if not layer.endswith("_norm")]
        assert len(dtypes) == len(layers), name


def test_one_trace_for_all_seeds():
    """Interceptors run while tracing and only then."""
    calls, results = [], []

    def count(call, args, kwargs, context):
        if isinstance(context.module, models.LeNet) and context.method_name == "__call__":
            calls.append(context.module.precision)
        return call(*args, **kwargs)

    call = jax.jit(lambda represent, x: represent(x))
    for seed in range(3):
        model, variables, images = network("lenet", seed=seed)
        with nn.intercept_methods(count):
            results.append(call(models.represent(model, variables, output=True), images)["output"])
    assert calls == ["highest"]
    assert len({float(result[0, 0]) for result in results}) == 3
