"""Laws of the zoo's initial weights against PyTorch's, widths, and fields and images that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from deform_jax import models

torch = pytest.importorskip("torch")


def layers(name, **fields):
    """The convolutions and linear layers of a network by name, the number of inputs of each, without computing."""
    model, found = models.create(name, width=1 / 16, **fields), {}

    def record(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, nn.Conv | nn.Dense):
            found[context.module.name] = context.module
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return {layer: (found[layer], np.prod(params[layer]["kernel"].shape[:-1])) for layer in found}


UNIFORM = scipy.stats.uniform(-1, 2)
NORMAL = scipy.stats.norm()


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("lenet", UNIFORM),
        ("alexnet", UNIFORM),
        ("alexnet_imagenet", UNIFORM),
        ("vgg11_bn", UNIFORM),
        ("vgg11_bn_imagenet", NORMAL),
    ],
)
def test_initial_weights_are_those_of_pytorch_and_torchvision(name, law):
    """Drawn from each layer's own initialisers, at one shape for all, so as to compile two programs."""
    for layer, (module, inputs) in layers(name).items():
        shape = (2, 2, 8, 500) if isinstance(module, nn.Conv) else (32, 500)
        kernel = np.ravel(module.kernel_init(jax.random.key(1), shape, jnp.float32))
        bias = np.asarray(module.bias_init(jax.random.key(2), (500,), jnp.float32))
        if law is NORMAL:
            kernel = kernel / (np.sqrt(2 / (4 * 500)) if isinstance(module, nn.Conv) else 0.01)
            assert not np.any(bias)
        else:
            kernel, bias = kernel * np.sqrt(32), bias * np.sqrt(inputs)
            assert np.abs(kernel).max() <= 1 + 1e-6
            assert 0.98 < np.abs(bias).max() <= 1 + 1e-6, layer
            assert scipy.stats.kstest(bias, law.cdf).pvalue > 1e-3
        assert scipy.stats.kstest(kernel, law.cdf).pvalue > 1e-3, layer


@pytest.mark.parametrize("name", ["lenet", "vgg11_imagenet"])
def test_a_gain_multiplies_the_uniform_kernels_of_hidden_layers_only(name):
    for (layer, (plain, _)), (gained, _) in zip(
        layers(name).items(), layers(name, initial_gain=3.0).values(), strict=True
    ):
        shape = (2, 2, 8, 500) if isinstance(plain, nn.Conv) else (32, 500)
        before, after = (module.kernel_init(jax.random.key(1), shape, jnp.float32) for module in (plain, gained))
        factor = 1 if layer == "head" or name == "vgg11_imagenet" else 3
        np.testing.assert_allclose(after, factor * before, rtol=1e-6)


def test_initialisers_are_pytorch_s():
    """The laws as its own layers draw them."""
    theirs = torch.nn.Conv2d(8, 500, 2)
    kernel = models.uniform_fan_in(jax.random.key(0), (2, 2, 8, 500))
    bias = models.uniform_bias(32)(jax.random.key(1), (500,))
    assert scipy.stats.ks_2samp(np.ravel(kernel), theirs.weight.detach().numpy().ravel()).pvalue > 1e-3
    assert scipy.stats.ks_2samp(bias, theirs.bias.detach().numpy()).pvalue > 1e-3
    torch.nn.init.kaiming_normal_(theirs.weight, mode="fan_out", nonlinearity="relu")
    kernel = models.normal_fan_out(jax.random.key(2), (2, 2, 8, 500))
    assert scipy.stats.ks_2samp(np.ravel(kernel), theirs.weight.detach().numpy().ravel()).pvalue > 1e-3


def test_initial_parameters_of_fully_connected_nets_are_standard_normals():
    params = jax.jit(models.create("fc_l2").init)(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))["params"]
    for values in (params["dense1"]["kernel"], params["dense1"]["bias"], params["head"]["kernel"]):
        assert scipy.stats.kstest(np.ravel(values), NORMAL.cdf).pvalue > 1e-3


def test_width_scales_channels_and_hidden_layers():
    def features(name, width):
        model = models.create(name, width=width)
        images = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        return [layer["kernel"].shape[-1] for layer in params.values() if "kernel" in layer]

    assert features("lenet", 0.5) == [3, 8, 60, 42, 10]
    assert features("alexnet_imagenet", 1 / 64) == [1, 3, 6, 4, 4, 64, 64, 1000]
    assert features("vgg11_bn_imagenet", 0.001) == [1] * 8 + [4, 4, 1000]
    assert features("fc_l4", 0.25) == [16, 16, 16, 10]


@pytest.mark.parametrize(
    ("name", "fields", "size", "message"),
    [
        ("vgg11", {}, 28, r"`images` must be at least 32 × 32 .* 28 × 28. Pad .* `data.pad_images\(images, 32\)`"),
        ("lenet", {}, 28, "at least 32 × 32 pixels for this network"),
        ("alexnet", {}, 31, "at least 32 × 32 pixels for this network"),
        ("alexnet_imagenet", {}, 62, "at least 63 × 63 pixels for this network"),
        ("vgg11_imagenet", {}, 31, "at least 32 × 32 pixels for this network"),
        ("vgg11", {"depth": 12}, 32, "`depth` must be one of 11, 13, 16, 19, but 12 was given"),
        ("vgg11", {"form": "cifar"}, 32, "`form` must be one of 'cifar10', 'imagenet', but 'cifar'"),
        ("alexnet", {"dropout": 1.5}, 32, "`dropout` must be a finite number ≥ 0 and ≤ 1, but 1.5"),
        ("alexnet", {"width": 0}, 32, "`width` must be a finite number > 0, but 0"),
        ("lenet", {"initial_gain": 0}, 32, "`initial_gain` must be a finite number > 0, but 0"),
        ("lenet", {"num_classes": 0}, 32, "`num_classes` must be an integer ≥ 1, but 0"),
        ("lenet", {"compute_dtype": "half"}, 32, "`compute_dtype` must be one of 'float32', 'bfloat16', but 'half'"),
        ("fc_l2", {"layers": 11}, 32, "`layers` must be an integer ≥ 1 and ≤ 10, but 11"),
        ("fc_l2", {"hidden": 0}, 32, "`hidden` must be an integer ≥ 1, but 0"),
    ],
)
def test_refuses_impossible_fields_and_images(name, fields, size, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **fields).init(jax.random.key(0), jnp.zeros((1, size, size, 1)))


def test_refuses_what_is_no_batch_of_images():
    with pytest.raises(ValueError, match=r"shape \(n, h, w, c\), but its shape is \(32, 32, 1\). Add a leading axis"):
        models.LeNet().init(jax.random.key(0), jnp.zeros((32, 32, 1)))
    with pytest.raises(TypeError, match="floating-point numbers, but its dtype is uint8"):
        models.LeNet().init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.uint8))
    with pytest.raises(ValueError, match=r"`settings` must be one of 'num_classes', .*'depth'.* but 'downsampling'"):
        models.create("vgg11", downsampling="max")
