"""ResNets and EfficientNet-B0 in training against PyTorch's, and EfficientNet's fields on a small form of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import models, training
from deform_jax.models import efficientnet

torch = pytest.importorskip("torch")
oracles = pytest.importorskip("residual_oracles")
networks = pytest.importorskip("residual_networks")


@functools.partial(jax.jit, static_argnums=0)
def trained(model, variables, images, weights, key):
    """Gradients of sum(weights · logits) in training, logits, taps, statistics, inputs and outputs of dropouts."""

    def weighted(params):
        with networks.record_dropouts(seen := []):
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
        networks.assert_near(taps[tap], value.detach(), tap)
    networks.assert_near(logits, expected_logits.detach())
    named = oracles.collections({key: value.grad for key, value in theirs.named_parameters()})["params"]
    largest = max(np.abs(value).max() for value in jax.tree.leaves(named))
    for layer, part in named.items():
        for kind, value in part.items():
            # Each norm divides by the standard deviation of as few as 96 numbers; a bias before a norm has no gradient.
            networks.assert_near(gradients[layer][kind], value, f"{layer} {kind}", 1e-3, floor=1e-3 * largest)
    for layer, part in oracles.collections(theirs.state_dict())["batch_stats"].items():
        before = 0.9 * variables["batch_stats"][layer]["var"]
        networks.assert_near(statistics[layer]["mean"], part["mean"], layer)
        networks.assert_near(statistics[layer]["var"], before + (part["var"] - before) * (1 - 1 / counts[layer]), layer)


def test_training_equals_pytorch_s_resnet():
    theirs, variables, images = networks.prepared(networks.pytorch_network("resnet18", 1 / 16), 32)
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

    theirs, variables, images = networks.prepared(theirs, 32)
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
    with networks.record_dropouts(seen := []):
        jax.eval_shape(model.apply, state.variables, images)
    assert all(inputs is outputs for _, inputs, outputs in seen)


def test_a_gain_multiplies_the_kernels_of_every_hidden_layer(small):
    plain = models.uniform_fan_in(jax.random.key(0), (2, 2, 8, 100))
    for layer, (kernel, _) in networks.initialisers(small[0].clone(initial_gain=2.0)).items():
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
