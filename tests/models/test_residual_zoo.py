"""ResNets and EfficientNet-B0 against PyTorch networks with the same weights, in use and in training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from deform_jax import models, training
from deform_jax.models import efficientnet

torch = pytest.importorskip("torch")
oracles = pytest.importorskip("residual_oracles")

PARAMETERS = {
    # As github.com/kuangliu/pytorch-cifar's networks have them.
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "efficientnet_b0": 3_598_598,
    # As torchvision's documentation gives them.
    "resnet18_imagenet": 11_689_512,
    "resnet34_imagenet": 21_797_672,
    "resnet50_imagenet": 25_557_032,
}


def pytorch_network(name, width=1, classes=5):
    if name == "efficientnet_b0":
        return oracles.EfficientNetB0(width, classes)
    depth, _, form = name.removeprefix("resnet").partition("_")
    return oracles.ResNet(int(depth), width, classes, imagenet=form == "imagenet")


def prepared(theirs, size):
    """The network with every number away from its initial value, the same as Flax's variables, and images."""
    theirs = oracles.scattered(theirs)
    images = np.random.default_rng(0).normal(size=(6, size, size, 3)).astype(np.float32)
    return theirs, oracles.collections(theirs.state_dict()), images


def assert_near(result, expected, message="", tolerance=1e-4, floor=0.0):
    """Float32 against float64 through up to 54 layers: a relative error of the whole, not of each element."""
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    assert result.shape == expected.shape, message
    assert np.abs(result - expected).max() <= tolerance * max(np.abs(expected).max(), floor), message


def initialised(name, size, **fields):
    """Shapes of logits, taps and initial variables."""
    model = models.create(name, **fields)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    (logits, taps), variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    return logits, taps, variables


def expected_taps(name, size):
    if name == "efficientnet_b0":
        stages = [(size, 32, 1), (size, 16, 1), (size // 2, 24, 2), (size // 4, 40, 2), (size // 8, 80, 3)]
        stages += [(size // 8, 112, 3), (size // 16, 192, 4), (size // 16, 320, 1)]
    else:
        size, first = (size // 2, size // 4) if name.endswith("imagenet") else (size, size)
        counts = (2, 2, 2, 2) if "18" in name else (3, 4, 6, 3)
        channels = 256 if "50" in name else 64
        stages = [(size, 64, 1), *((first // 2**s, channels * 2**s, count) for s, count in enumerate(counts))]
    shapes = [(2, side, side, features) for side, features, count in stages for _ in range(count)]
    return [("input", 3), *((f"block{block:02d}", shape) for block, shape in enumerate(shapes))]


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes_and_names_in_depth_order(name):
    size, classes = (224, 1000) if name.endswith("imagenet") else (32, 10)
    with record_dropouts(seen := []):
        logits, taps, variables = initialised(name, size)
    # Stages of 2, 2, 3, 3 and 4 blocks: all but the first of each add their input, and drop more the deeper they are.
    rates = [*(0.2 * (block - 1) / 16 for block in (3, 5, 7, 8, 10, 11, 13, 14, 15)), 0.2]
    assert [module.rate for module, *_ in seen] == pytest.approx(rates if name == "efficientnet_b0" else [])
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
    assert logits.shape == (2, classes)
    assert [(tap, value.shape) for tap, value in taps.items()][1:] == expected_taps(name, size)[1:]
    assert next(iter(taps)) == "input"
    named = oracles.collections(pytorch_network(name, 1 / 16).state_dict())
    assert set(variables["params"]) == set(named["params"])
    assert set(variables["batch_stats"]) == set(named["batch_stats"])
    layers = [layer for layer in variables["params"] if not layer.endswith("_norm")]
    assert layers == [layer for layer in named["params"] if not layer.endswith("_norm")]
    assert sorted(layers[:-1]) == layers[:-1]  # depth order survives jit, which sorts
    assert layers[-1] == "head"


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [("resnet18_imagenet", 1 / 16, 64), ("resnet50_imagenet", 1 / 16, 67), ("efficientnet_b0", 1 / 8, 35)],
)
def test_equals_a_pytorch_network(name, width, size):
    """Logits and every block's output, with running statistics; some sides on the way are odd."""
    theirs, variables, images = prepared(pytorch_network(name, width), size)
    logits, taps = jax.jit(models.create(name, width=width, num_classes=5).apply)(variables, images)
    with torch.no_grad():
        expected_logits, expected = oracles.forward(theirs, images)
    assert list(taps) == ["input", *expected]
    np.testing.assert_array_equal(taps["input"], images)
    for tap, value in expected.items():
        assert_near(taps[tap], value, tap)
    assert_near(logits, expected_logits)


def record_dropouts(seen):
    """An interceptor that appends (module, inputs, outputs) of every dropout's call."""

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            seen.append((context.module, args[0], output))
        return output

    return nn.intercept_methods(record)


@functools.partial(jax.jit, static_argnums=0)
def trained(model, variables, images, weights, key):
    """Gradients of sum(weights · logits) in training, logits, taps, statistics, inputs and outputs of dropouts."""

    def weighted(params):
        with record_dropouts(seen := []):
            (logits, taps), updated = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
        return (weights * logits).sum(), (logits, taps, updated["batch_stats"], [pair for _, *pair in seen])

    gradients, rest = jax.grad(weighted, has_aux=True)(variables["params"])
    return gradients, *rest


def check_training(model, theirs, variables, images, drop=lambda dropouts: None):
    """Batch statistics and what they leave behind, and the gradient in every parameter."""
    weights = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    gradients, logits, taps, statistics, dropouts = trained(model, variables, images, weights, jax.random.key(0))
    drop(dropouts)
    # PyTorch divides a running variance by n − 1: undone where n is known, from the inputs of each norm.
    counts = {}
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: counts.update(
                    {name.replace(".", "_"): inputs[0].numel() / inputs[0].shape[1]}
                )
            )
    expected_logits, expected = oracles.forward(theirs.train(), images)
    (torch.tensor(weights) * expected_logits).sum().backward()
    for tap, value in expected.items():
        assert_near(taps[tap], value.detach(), tap)
    assert_near(logits, expected_logits.detach())
    named = oracles.collections({key: value.grad for key, value in theirs.named_parameters()})["params"]
    largest = max(np.abs(value).max() for value in jax.tree.leaves(named))
    for layer, part in named.items():
        for kind, value in part.items():
            # Each norm divides by the standard deviation of as few as 96 numbers; a bias before a norm has no gradient.
            assert_near(gradients[layer][kind], value, f"{layer} {kind}", 1e-3, floor=1e-3 * largest)
    for layer, part in oracles.collections(theirs.state_dict())["batch_stats"].items():
        before = 0.9 * variables["batch_stats"][layer]["var"]
        assert_near(statistics[layer]["mean"], part["mean"], layer)
        assert_near(statistics[layer]["var"], before + (part["var"] - before) * (1 - 1 / counts[layer]), layer)


def test_training_equals_pytorch_s_resnet():
    theirs, variables, images = prepared(pytorch_network("resnet18", 1 / 16), 32)
    check_training(models.ResNet(width=1 / 16, num_classes=5), theirs, variables, images)


@pytest.fixture
def small(monkeypatch):
    """EfficientNet of three blocks, a tenth of the whole's compile time, which often leaves the last one out."""
    monkeypatch.setattr(efficientnet, "STAGES", ((1, 16, 1, 3, 1), (6, 24, 1, 3, 2), (6, 24, 1, 5, 1)))
    theirs = oracles.EfficientNetB0(1 / 4, 5, rows=[(1, 3, 16, 1, 1), (6, 3, 24, 1, 2), (6, 5, 24, 1, 1)])
    return models.EfficientNetB0(width=1 / 4, num_classes=5, drop_connect=0.8), theirs


def test_training_equals_pytorch_s_efficientnet(small):
    """With what is left out of the residual block, and of the head's inputs, taken from ours."""
    model, theirs = small

    def drop(dropouts):
        (branch, added), (pooled, read) = dropouts
        blocks = np.any(added, axis=(1, 2, 3), keepdims=True)  # of whole images
        for part, share, kept, before, after in (
            (theirs.block03, 0.8 * 2 / 3, blocks, branch, added),
            (theirs, 0.2, np.not_equal(read, 0), pooled, read),
        ):
            assert 0 < kept.sum() < kept.size
            np.testing.assert_allclose(after, kept / (1 - share) * before, rtol=1e-5)
            part.keep = torch.tensor(kept / (1 - share))

    theirs, variables, images = prepared(theirs, 32)
    check_training(model, theirs, variables, images, drop)


def test_efficientnet_trains_by_the_package_s_step_and_needs_no_key_otherwise(small):
    model = small[0]
    images = jnp.zeros((4, 32, 32, 3))
    state = jax.eval_shape(
        lambda key: training.create_state(model, training.Recipe(), key, (32, 32, 3), 10), jax.random.key(0)
    )
    after, _ = jax.eval_shape(training.train_step, state, {"images": images, "labels": jnp.zeros(4, jnp.int32)})
    assert jax.tree.map(jnp.shape, after.variables) == jax.tree.map(jnp.shape, state.variables)
    frozen = jax.eval_shape(functools.partial(models.with_batch_statistics, model), state.variables, images)
    assert jax.tree.structure(frozen) == jax.tree.structure(state.variables)
    with record_dropouts(seen := []):
        jax.eval_shape(model.apply, state.variables, images)
    assert all(inputs is outputs for _, inputs, outputs in seen)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_convolution_equals_pytorch_s(size, stride):
    """Of even and odd sides, up to the last row and column."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(size, size, 1, 3))
    module = efficientnet.DepthwiseConv(size, stride)
    result = module.apply({"params": {"kernel": jnp.float32(kernel)}}, jnp.float32(images))
    weight, planes = torch.tensor(kernel).permute(3, 2, 0, 1), torch.tensor(images).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(planes, weight, stride=stride, padding=size // 2, groups=3)
    np.testing.assert_allclose(result, expected.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def initialisers(model):
    """{layer: (kernel, bias)} of everything that draws its weights."""
    found = {}

    def record(call, args, kwargs, context):
        if hasattr(context.module, "kernel_init") and context.method_name == "__call__":
            found[context.module.name] = context.module.kernel_init, getattr(context.module, "bias_init", None)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert found.keys() == {layer for layer in params if not layer.endswith("_norm")}
    return found


@pytest.mark.parametrize(
    ("name", "law"), [("resnet18", scipy.stats.uniform(-1, 2)), ("resnet18_imagenet", scipy.stats.norm)]
)
def test_initial_weights_are_pytorch_s_and_torchvision_s(name, law):
    """CIFAR10 forms: uniform in ±1/√n_in; ImageNet forms: convolutions of variance 2/n_out. The head: the former."""
    for layer, (kernel, bias) in initialisers(models.create(name, width=1 / 16)).items():
        values = np.ravel(kernel(jax.random.key(0), (2, 2, 8, 100), jnp.float32))
        if layer == "head":
            assert 0.98 < np.abs(values).max() * np.sqrt(32) <= 1 + 1e-6
            # Of 32 channels, at this width.
            assert 0.9 < np.abs(bias(jax.random.key(1), (100,), jnp.float32)).max() * np.sqrt(32) <= 1 + 1e-6
        else:
            values = values * np.sqrt(32 if name == "resnet18" else 400 / 2)
            assert scipy.stats.kstest(values, law.cdf).pvalue > 1e-3, layer


def test_a_gain_multiplies_the_kernels_of_every_hidden_layer(small):
    plain = models.uniform_fan_in(jax.random.key(0), (2, 2, 8, 100))
    for layer, (kernel, _) in initialisers(small[0].clone(initial_gain=2.0)).items():
        values = kernel(jax.random.key(0), (2, 2, 8, 100), jnp.float32)
        np.testing.assert_allclose(values, (1 if layer == "head" else 2) * plain, rtol=1e-6, err_msg=layer)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_half_precision_keeps_parameters_and_logits(name, small):
    model = models.create(name, width=1 / 16, compute_dtype="bfloat16")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    jaxpr, (logits, taps) = jax.make_jaxpr(model.apply, return_shape=True)(variables, images)
    assert logits.dtype == jnp.float32
    assert {tap for tap, value in taps.items() if value.dtype != jnp.bfloat16} == {"input"}
    products = [one for one in jaxpr.eqns if one.primitive.name in ("conv_general_dilated", "dot_general")]
    assert [one.invars[0].aval.dtype for one in products] == [*[jnp.bfloat16] * (len(products) - 1), jnp.float32]


def test_width_scales_every_channel_count():
    def features(name, width):
        params = initialised(name, 32, width=width, num_classes=7)[2]["params"]
        return [part["kernel"].shape[-1] for layer, part in params.items() if not layer.endswith("_norm")]

    # Stem; bottlenecks of 8, 8, 32 and, first in each stage, a projection.
    stages = [[*[c, c, 4 * c] * count] for c, count in ((8, 3), (16, 4), (32, 6), (64, 3))]
    expected = [8, *(n for c in stages for n in (*c[:3], c[2], *c[3:])), 7]
    assert features("resnet50", 1 / 8) == expected
    assert features("resnet18", 1e-3) == [1] * 20 + [7]
    # Expanded, filtered, squeezed to a quarter of the block's input, opened, projected.
    first, second = [2, 1, 2, 1], [6, 6, 1, 6, 2]
    assert features("efficientnet_b0", 1 / 16)[:10] == [2, *first, *second]


@pytest.mark.parametrize(
    ("name", "fields", "size", "message"),
    [
        ("resnet18", {}, 28, r"`images` must be at least 32 × 32 .* 28 × 28. Pad .* `data.pad_images\(images, 32\)`"),
        ("efficientnet_b0", {}, 31, "`images` must be at least 32 × 32 pixels for this network, but they are 31 × 31"),
        ("resnet18", {"depth": 20}, 32, "`depth` must be one of 18, 34, 50, but 20 was given"),
        ("resnet18", {"form": "cifar"}, 32, "`form` must be one of 'cifar10', 'imagenet', but 'cifar'"),
        ("efficientnet_b0", {"dropout": 2}, 32, "`dropout` must be a finite number ≥ 0 and ≤ 1, but 2"),
        ("efficientnet_b0", {"drop_connect": -1}, 32, "`drop_connect` must be a finite number ≥ 0 and ≤ 1, but -1"),
    ],
)
def test_refuses_impossible_fields_and_images(name, fields, size, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **fields).init(jax.random.key(0), jnp.zeros((1, size, size, 1)))
