"""Weights from PyTorch's modules and back; the oracle is PyTorch itself.

``DEFORM_JAX_FULL=1`` compares every ImageNet form, narrow and at its full width on 224 × 224 pixels (a few minutes,
4 GB); else one narrow network of each build.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrow_networks import CLASSES, NARROW, message, same, state_of, variables

from deform_jax import models
from deform_jax.models import convert

FULL = os.environ.get("DEFORM_JAX_FULL") == "1"
BUILDS = ("alexnet_imagenet", "vgg11_imagenet", "vgg11_bn_imagenet", "resnet18_imagenet", "resnet50_imagenet")


@functools.cache
def images(size):
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


@pytest.fixture
def oracles():
    pytest.importorskip("torch")
    return pytest.importorskip("torchvision_oracles")


def relative_error(model, values, net, oracles, size):
    logits = np.asarray(jax.jit(lambda v, x: model.apply(v, x)[0])(values, images(size)))
    expected = oracles.logits(net, images(size))
    return np.abs(logits - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", [*(models.IMAGENET_ZOO if FULL else BUILDS), "vgg11_bn", "resnet18"])
def test_logits_are_torch_s(oracles, name):
    """To 1e-4; rounding makes 1e-6. Of 96 and 64 pixels, 2 × 2 are left to average adaptively."""
    net = oracles.network(name, NARROW, CLASSES)
    size = {"alexnet_imagenet": 96}.get(name, 64 if name.endswith("imagenet") else 32)
    converted = models.from_torch(name, net.state_dict(), width=NARROW)
    model = models.create(name, width=NARROW, num_classes=CLASSES)
    assert relative_error(model, converted, net, oracles, size) < 1e-4


@pytest.mark.skipif(not FULL, reason="minutes and gigabytes")
@pytest.mark.parametrize("name", models.IMAGENET_ZOO)
def test_logits_are_torch_s_at_full_width(oracles, name, tmp_path):
    import torch

    net = oracles.network(name)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    model, converted = models.load_pretrained(tmp_path / "w.pth", name)
    (tmp_path / "w.pth").unlink()  # all of them would fill gigabytes
    error = relative_error(model, converted, net, oracles, 224)
    print(f"\n{name}: {error:.1e}")
    assert error < 1e-4


@pytest.mark.parametrize("name", ["alexnet_imagenet", "vgg11_bn_imagenet", "vgg11", "resnet18_imagenet", "resnet18"])
def test_to_torch_and_back_is_exact(name):
    state = state_of(name)
    assert all(array.dtype == np.float32 and array.flags.writeable for array in state.values())
    back = models.from_torch(name, state, width=NARROW)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {jnp.dtype("float32")}
    same(back, variables(name))


def test_torch_takes_what_to_torch_gives(oracles):
    import torch

    net = oracles.network("vgg11_bn_imagenet", NARROW, CLASSES)
    given = {name: torch.from_numpy(array) for name, array in state_of("vgg11_bn_imagenet").items()}
    net.load_state_dict(given)  # strictly
    same(models.from_torch("vgg11_bn_imagenet", net.state_dict(), width=NARROW), variables("vgg11_bn_imagenet"))


def test_each_number_goes_where_torch_s_layout_has_it():
    """The first linear layer of a VGG reads (c, h, w) there and (h, w, c) here; a convolution is (o, i, h, w) there."""
    state, params = state_of("vgg11_imagenet"), variables("vgg11_imagenet")["params"]
    kernel = params["dense1"]["kernel"].reshape(7, 7, 32, 256)
    weight = state["classifier.0.weight"].reshape(256, 32, 7, 7)
    for h, w, c, o in [(0, 0, 0, 0), (6, 0, 31, 255), (2, 5, 7, 11)]:
        assert weight[o, c, h, w] == kernel[h, w, c, o]
    assert state["features.3.weight"][5, 3, 0, 2] == params["conv02"]["kernel"][0, 2, 3, 5]
    assert state["classifier.6.weight"][1, 9] == params["head"]["kernel"][9, 1]


def test_the_state_is_copied_and_its_type_widened():
    state = {key: array.astype(jnp.bfloat16) for key, array in state_of("alexnet_imagenet").items()}
    memory = np.zeros(256 + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    state["classifier.4.bias"] = bias = memory[start : start + 256]  # aligned as jax needs it to keep the memory
    result = models.from_torch("alexnet_imagenet", state, width=NARROW)["params"]
    bias += 1
    np.testing.assert_array_equal(result["dense2"]["bias"], np.zeros(256))
    assert result["conv2"]["kernel"].dtype == jnp.float32


def test_parallel_modules_counters_and_timm_s_vggs_are_accepted():
    state = state_of("vgg11_bn_imagenet")
    counted = {**state, "features.1.num_batches_tracked": np.array(5)}
    parallel = {f"module.{key}": array for key, array in counted.items()}
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    timm = {}
    for key, array in counted.items():
        layer, field = key.rsplit(".", 1)
        if key == "classifier.0.weight":
            array = array.reshape(256, 32, 7, 7)
        elif key == "classifier.3.weight":
            array = array.reshape(256, 256, 1, 1)
        timm[f"{names.get(layer, layer)}.{field}"] = array
    for given in (counted, parallel, timm):
        same(models.from_torch("vgg11_bn_imagenet", given, width=NARROW), variables("vgg11_bn_imagenet"))


def test_grey_images_and_any_number_of_classes():
    state = state_of("resnet18")
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    state["linear.weight"], state["linear.bias"] = state["linear.weight"][:3], state["linear.bias"][:3]
    params = models.from_torch("resnet18", state, width=NARROW)["params"]
    assert params["block00_conv"]["kernel"].shape == (3, 3, 1, 4)
    assert params["head"]["kernel"].shape == (32, 3)
    same(models.to_torch("resnet18", models.from_torch("resnet18", state, width=NARROW), width=NARROW), state)


def test_one_error_lists_what_is_missing_unexpected_and_of_another_shape():
    state = state_of("vgg11_imagenet")
    state["features.03.weight"] = state.pop("features.3.weight")
    state["features.0.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    text = message(ValueError, models.from_torch, "vgg11_imagenet", state, width=NARROW)
    assert text.startswith("Argument `state` must hold the 22 arrays of vgg11_imagenet, but there are 1 missing")
    for part in (
        "1 missing (features.3.weight (8, 4, 3, 3))",
        "1 unexpected (features.03.weight (8, 4, 3, 3))",
        "1 of another shape (features.0.weight is (4, 3, 5, 5), not (4, 3, 3, 3))",
        "Give the name of the architecture",
    ):
        assert part in text
    text = message(ValueError, models.from_torch, "vgg11_imagenet", state_of("resnet18_imagenet"), width=NARROW)
    for part in ("22 missing (features.0.weight", "102 unexpected (conv1.weight (4, 3, 7, 7), ", ", …)"):
        assert part in text
    assert text.count("(") < 50
    assert "17 of another shape" in message(ValueError, models.from_torch, "vgg11", state_of("vgg11"))


def test_variables_are_compared_too():
    given = variables("vgg11_bn_imagenet")
    text = message(ValueError, models.to_torch, "vgg11_bn_imagenet", {"params": given["params"]}, width=NARROW)
    assert "16 missing (batch_stats/conv01_norm/mean (4,), " in text
    text = message(ValueError, models.to_torch, "vgg11_imagenet", given, width=NARROW)
    assert "`variables` must hold the 22 arrays" in text
    assert "32 unexpected (" in text


@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        (lambda: models.from_torch("lenet", {}), ValueError, "`name` must be one of 'alexnet_imagenet', 'vgg11_image"),
        (lambda: models.from_torch("alexnet", {}), ValueError, "`name` must be one of"),
        (lambda: models.to_torch("lenet", {}), ValueError, "`name` must be one of"),
        (lambda: models.from_torch("vgg11", {}, depht=3), ValueError, "`settings` must be one of"),
        (lambda: models.from_torch("vgg11", []), TypeError, "`state` must be a mapping of names to arrays, but a list"),
        (lambda: models.to_torch("vgg11", 3), TypeError, "`variables` must be a mapping"),
        (lambda: models.from_torch("vgg11", {"a": "b"}), TypeError, "must hold floating-point numbers, but a is of"),
        (lambda: models.from_torch("vgg11", {"a": np.ones(2, int)}), TypeError, "but a is of type int64"),
        (lambda: models.from_torch("vgg11", {"a": [[1.0], [1.0, 2.0]]}), TypeError, "must hold arrays, but a is not"),
        (lambda: models.from_torch("vgg11", {}), ValueError, "18 missing (features.0.weight (64, 3, 3, 3)"),
    ],
)
def test_other_arguments_are_refused(call, error, part):
    assert part in message(error, call)


def test_tensors_that_numpy_cannot_take_say_what_to_pass(oracles):
    net = oracles.network("vgg11", NARROW, CLASSES)
    parameters = dict(net.named_parameters())
    assert "Pass `module.float().cpu().state_dict()`" in message(TypeError, models.from_torch, "vgg11", parameters)
    assert "Pass `module.float()" in message(TypeError, models.from_torch, "vgg11", net.bfloat16().state_dict())


def test_convertible_names_are_those_of_the_zoo():
    assert set(models.CONVERTIBLE) <= {*models.ZOO, *models.IMAGENET_ZOO}
    assert set(models.IMAGENET_ZOO) <= set(convert.CONVERTIBLE)
