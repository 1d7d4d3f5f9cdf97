"""The block VGG against a float64 numpy network, Flax's interception of module calls, and closed-form counts."""

import dataclasses
import functools
from collections import OrderedDict

import block_vgg_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from deform_jax import models

BLOCKS = ((2, 4), (1, 6))
SHAPE = (3, 9, 8, 2)


@pytest.fixture(scope="module", params=models.DOWNSAMPLINGS)
def network(request):
    """A small net of each downsampling, all its variables away from their initial values, and images."""
    model = models.BlockVGG(blocks=BLOCKS, downsampling=request.param, num_classes=5)
    images = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return model, oracle.scattered(model, images), images


def abstract(model, size, channels=3):
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    return variables, jax.eval_shape(lambda v, x: model.apply(v, x)[1], variables, images)


def expected_taps(blocks, size, channels=3):
    taps = OrderedDict(input=(2, size, size, channels))
    for b, (layers, features) in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            taps[f"block{b}_conv{layer}"] = (2, size, size, features)
        size //= 2
        taps[f"block{b}_down"] = (2, size, size, features)
    return taps


@pytest.mark.parametrize("downsampling", models.DOWNSAMPLINGS)
@pytest.mark.parametrize(
    ("name", "blocks", "size", "count", "classes"),
    [
        ("block_vgg_cifar10", models.CIFAR10_BLOCKS, 32, 13, 10),
        ("block_vgg_imagenet", models.IMAGENET_BLOCKS, 224, 19, 1000),
    ],
)
def test_published_sizes(name, blocks, size, count, classes, downsampling):
    model = models.create(name, downsampling=downsampling)
    variables, taps = abstract(model, size)
    assert [(tap, value.shape) for tap, value in taps.items()] == list(expected_taps(blocks, size).items())
    assert len(taps) == count
    assert variables["params"]["head"]["bias"].shape == (classes,)
    layers = [name for name in variables["params"] if not name.endswith("_norm") and name != "head"]
    assert sorted(layers) == layers  # depth order survives jit, which sorts
    assert set(layers) <= set(taps)
    parameters = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == oracle.parameter_count(blocks, downsampling, 3, classes)


def test_published_parameter_count():
    """LS's CIFAR10 form with max-pooling, added up by hand: 9 · (3·32 + 32² + 32·64 + 64² + …) + 2 · 960 + 2570."""
    convolutions = 9 * (3 * 32 + 32**2 + 32 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 256**2)
    assert oracle.parameter_count(models.CIFAR10_BLOCKS, "max", 3, 10) == convolutions + 2 * 960 + 2570 == 1_175_786


def test_equals_a_numpy_network(network):
    model, variables, images = network
    logits, taps = jax.jit(model.apply)(variables, images)
    expected_logits, expected, _ = oracle.forward(variables, images, BLOCKS, model.downsampling)
    assert list(taps) == list(expected)
    # Float32 against float64 through four layers of sums of up to 54 products.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    for tap in taps:
        np.testing.assert_allclose(taps[tap], expected[tap], **tolerance, err_msg=tap)
    np.testing.assert_allclose(logits, expected_logits, **tolerance)


def test_training_mode_equals_a_numpy_network(network):
    """With batch statistics, whose running averages keep nine tenths of what they were."""
    model, variables, images = network
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    (logits, _), updated = apply(variables, images)
    expected_logits, _, statistics = oracle.forward(variables, images, BLOCKS, model.downsampling, train=True)
    # As above; the division by a batch's standard deviation can enlarge rounding tenfold.
    tolerance = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(logits, expected_logits, **tolerance)
    for name, new in updated["batch_stats"].items():
        for kind in ("mean", "var"):
            before = variables["batch_stats"][name][kind]
            np.testing.assert_allclose(new[kind], 0.9 * before + 0.1 * statistics[name][kind], **tolerance)


def test_half_precision_is_near_and_keeps_its_parameters(network):
    model, variables, images = network
    half = model.clone(compute_dtype="bfloat16")
    apply = jax.jit(functools.partial(half.apply, train=True, mutable=["batch_stats"]))
    (logits, taps), updated = apply(variables, images)
    assert logits.dtype == jnp.float32
    assert {name for name, tap in taps.items() if tap.dtype != jnp.bfloat16} == {"input"}
    shapes = jax.eval_shape(half.init, jax.random.key(0), images)
    for leaf in jax.tree.leaves((shapes, updated)):
        assert leaf.dtype == jnp.float32
    expected_logits, expected, statistics = oracle.forward(variables, images, BLOCKS, model.downsampling, train=True)
    # Rounded to 8 bits, 0.4 %, by each of up to nine operations in a row.
    for tap in expected:
        error = np.float64(taps[tap]) - expected[tap]
        assert np.sqrt((error**2).mean()) < 0.03 * np.sqrt((expected[tap] ** 2).mean()), tap
    assert np.abs(logits - expected_logits).max() < 0.05 * np.abs(expected_logits).max()
    head = variables["params"]["head"]  # the average and the head are in float32
    pooled = np.float64(taps[list(taps)[-1]]).mean((1, 2))
    # XLA leaves out the rounding between a bias and the average that follows it.
    tolerance = 1e-2 if model.downsampling == "strided" else 1e-4
    np.testing.assert_allclose(logits, pooled @ np.float64(head["kernel"]) + head["bias"], rtol=tolerance, atol=1e-5)
    equations = jax.make_jaxpr(half.apply)(variables, images).eqns
    products = [one for one in equations if one.primitive.name in ("conv_general_dilated", "dot_general")]
    assert [one.invars[0].aval.dtype for one in products] == [*[jnp.bfloat16] * (len(products) - 1), jnp.float32]
    assert len(products) == (6 if "strided" in model.downsampling else 4)
    for name, new in updated["batch_stats"].items():
        before = variables["batch_stats"][name]["var"]
        np.testing.assert_allclose(new["var"], 0.9 * before + 0.1 * statistics[name]["var"], rtol=0.03)


def test_taps_are_what_flax_sees(network):
    model, variables, images = network

    @jax.jit
    def watched(variables, images):
        calls = OrderedDict()

        def record(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if context.method_name == "__call__" and context.module.path:
                calls["/".join(context.module.path)] = output
            return output

        with nn.intercept_methods(record):
            return model.apply(variables, images)[1], calls

    taps, calls = watched(variables, images)
    seen = OrderedDict(input=images)
    for name, output in calls.items():
        if name.endswith("_norm"):
            seen[name.removesuffix("_norm")] = np.maximum(output, 0)
        elif name.endswith("_down") and f"{name}_norm" not in calls:
            seen[name] = output
    pooled = model.downsampling in ("subsample", "max", "average")
    assert list(seen) == [tap for tap in taps if not (pooled and tap.endswith("_down"))]
    for tap in seen:
        np.testing.assert_array_equal(taps[tap], seen[tap], err_msg=tap)


def test_initial_variables():
    model = models.BlockVGG(blocks=BLOCKS, downsampling="strided", num_classes=5)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros(SHAPE))
    for name, layer in variables["params"].items():
        assert not np.any(layer.get("bias", 0)), name
        if name.endswith("_norm"):
            assert np.all(layer["scale"] == 1)
        else:
            # Truncated at two standard deviations, so that wherever the kernel is large enough it comes near to them.
            limit = 2 / np.sqrt(np.prod(layer["kernel"].shape[:-1]))
            assert 0.85 * limit < np.abs(layer["kernel"]).max() <= limit * (1 + 1e-6), name
    for statistics in variables["batch_stats"].values():
        assert not np.any(statistics["mean"])
        assert np.all(statistics["var"] == 1)


@pytest.mark.parametrize("downsampling", models.DOWNSAMPLINGS)
def test_every_downsampling_drops_the_odd_row_and_column(downsampling):
    model = models.BlockVGG(blocks=((1, 2), (1, 2)), downsampling=downsampling)
    images = jax.ShapeDtypeStruct((1, 11, 7, 1), jnp.float32)
    taps = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0][1], images)
    assert taps["block1_down"].shape == (1, 5, 3, 2)
    assert taps["block2_down"].shape == (1, 2, 1, 2)


def test_width_scales_every_channel_count():
    half, _ = abstract(models.create("block_vgg_cifar10", width=0.5), 32)
    explicit, _ = abstract(models.BlockVGG(blocks=((2, 16), (2, 32), (2, 64), (2, 128))), 32)
    assert jax.tree.map(jnp.shape, half) == jax.tree.map(jnp.shape, explicit)
    thin, _ = abstract(models.create("block_vgg_cifar10", width=1e-3), 32)
    assert thin["params"]["block4_conv2"]["kernel"].shape == (3, 3, 1, 1)


def test_ten_blocks_sort_in_depth_order():
    variables, taps = abstract(models.BlockVGG(blocks=((1, 1),) * 10), 1024)
    layers = [name for name in variables["params"] if name.endswith("conv1")]
    assert layers == sorted(layers) == [f"block{b:02d}_conv1" for b in range(1, 11)]
    assert list(taps)[1:3] == ["block01_conv1", "block01_down"]


def test_create_overrides_fields():
    model = models.create("block_vgg_imagenet", num_classes=7, downsampling="strided")
    assert model == models.BlockVGG(models.IMAGENET_BLOCKS, "strided", 7)
    assert hash(model) == hash(models.BlockVGG(models.IMAGENET_BLOCKS, "strided", 7))


def test_blocks_may_be_lists():
    """As JSON holds them; a module must hash to be a static argument."""
    model = models.BlockVGG(blocks=[[1, 4], [1, 8]])
    assert model == models.BlockVGG(blocks=((1, 4), (1, 8)))
    assert hash(model) == hash(models.BlockVGG(blocks=((1, 4), (1, 8))))
    assert dataclasses.replace(model, width=2.0).blocks == ((1, 4), (1, 8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": ()}, r"`blocks` must be a tuple of at least one \(layers, channels\) pair, but \(\) was given"),
        ({"blocks": 3}, "`blocks` must be a tuple .* but 3 was given"),
        ({"blocks": ((1, 2, 3),)}, r"`blocks` must be a pair of integers \(layers, channels\)"),
        ({"blocks": ((1, 0),)}, r"each ≥ 1, but \(1, 0\) was given"),
        ({"blocks": ((10, 4),)}, "`layers of a block` must be an integer ≤ 9, but 10 was given"),
        ({"downsampling": "mean"}, "`downsampling` must be one of 'subsample', .* but 'mean'"),
        ({"num_classes": 0}, "`num_classes` must be an integer ≥ 1, but 0 was given"),
        ({"width": 0}, "`width` must be a finite number > 0, but 0 was given"),
        ({"width": float("nan")}, "`width` must be a finite number > 0, but nan was given"),
        ({"compute_dtype": "half"}, "`compute_dtype` must be one of 'float32', 'bfloat16', but 'half'"),
    ],
)
def test_refuses_impossible_fields(fields, message):
    model = models.BlockVGG(**{"blocks": ((1, 2),), **fields})
    with pytest.raises((ValueError, TypeError), match=message):
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 1), np.float32), r"shape \(n, h, w, c\), but its shape is \(8, 8, 1\). Add a leading axis"),
        (np.zeros((1, 8, 8, 1), np.uint8), r"floating-point numbers, but its dtype is uint8. Convert it"),
        (np.zeros((8, 8, 1), np.uint8), r"floating-point numbers, but its dtype is uint8. Convert it"),
        (np.zeros((0, 8, 8, 1), np.float32), "`images` must not be empty"),
        (np.zeros((1, 3, 8, 1), np.float32), "at least 4 × 4 pixels for 2 halvings, but they are 3 × 8. Use larger"),
        ("a photograph", "`images` must be an array"),
    ],
)
def test_refuses_impossible_images(images, message):
    with pytest.raises((ValueError, TypeError), match=message):
        models.BlockVGG(blocks=((1, 2), (1, 2))).init(jax.random.key(0), images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg"}, "`name` must be one of 'fc_l2', .*'block_vgg_imagenet', but 'vgg'"),
        ({"name": "block_vgg_cifar10", "classes": 3}, "`settings` must be one of 'blocks', .* but 'classes'"),
        ({"name": "block_vgg_cifar10", "parent": None}, "`settings` must be one of .* but 'parent'"),
    ],
)
def test_create_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.create(**arguments)
