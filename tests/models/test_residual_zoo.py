"""ResNets and EfficientNet-B0 against PyTorch networks with the same weights, published sizes, initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from deform_jax import models
from deform_jax.models import efficientnet

torch = pytest.importorskip("torch")
oracles = pytest.importorskip("residual_oracles")
networks = pytest.importorskip("residual_networks")


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
    with networks.record_dropouts(seen := []):
        logits, taps, variables = initialised(name, size)
    # Stages of 2, 2, 3, 3 and 4 blocks: all but the first of each add their input, and drop more the deeper they are.
    rates = [*(0.2 * (block - 1) / 16 for block in (3, 5, 7, 8, 10, 11, 13, 14, 15)), 0.2]
    assert [module.rate for module, *_ in seen] == pytest.approx(rates if name == "efficientnet_b0" else [])
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
    assert logits.shape == (2, classes)
    assert [(tap, value.shape) for tap, value in taps.items()][1:] == expected_taps(name, size)[1:]
    assert next(iter(taps)) == "input"
    named = oracles.collections(networks.pytorch_network(name, 1 / 16).state_dict())
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
    theirs, variables, images = networks.prepared(networks.pytorch_network(name, width), size)
    logits, taps = jax.jit(models.create(name, width=width, num_classes=5).apply)(variables, images)
    with torch.no_grad():
        expected_logits, expected = oracles.forward(theirs, images)
    assert list(taps) == ["input", *expected]
    np.testing.assert_array_equal(taps["input"], images)
    for tap, value in expected.items():
        networks.assert_near(taps[tap], value, tap)
    networks.assert_near(logits, expected_logits)


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


@pytest.mark.parametrize(
    ("name", "law"), [("resnet18", scipy.stats.uniform(-1, 2)), ("resnet18_imagenet", scipy.stats.norm)]
)
def test_initial_weights_are_pytorch_s_and_torchvision_s(name, law):
    """CIFAR10 forms: uniform in ±1/√n_in; ImageNet forms: convolutions of variance 2/n_out. The head: the former."""
    for layer, (kernel, bias) in networks.initialisers(models.create(name, width=1 / 16)).items():
        values = np.ravel(kernel(jax.random.key(0), (2, 2, 8, 100), jnp.float32))
        if layer == "head":
            assert 0.98 < np.abs(values).max() * np.sqrt(32) <= 1 + 1e-6
            # Of 32 channels, at this width.
            assert 0.9 < np.abs(bias(jax.random.key(1), (100,), jnp.float32)).max() * np.sqrt(32) <= 1 + 1e-6
        else:
            values = values * np.sqrt(32 if name == "resnet18" else 400 / 2)
            assert scipy.stats.kstest(values, law.cdf).pvalue > 1e-3, layer


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
