"""What a step draws beside augmentation: dropout's masks; and evaluation, which draws nothing, on noisy images."""

import dataclasses
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys
from flax import linen as nn

from deform_jax import training
from deform_jax.training import evaluation
from deform_jax.training.step import DROPOUT


class Dropped(nn.Module):
    """A dense layer whose inputs are dropped in training."""

    num_classes: int = toys.CLASSES
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        logits = nn.Dense(self.num_classes)(nn.Dropout(0.5)(x, deterministic=not train))
        return logits, OrderedDict(input=images)


BATCH = {
    "images": np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32),
    "labels": np.random.default_rng(1).integers(0, toys.CLASSES, 16),
}
NOISY = dataclasses.replace(toys.CLEAN, noise=4.0)


def start(seed=0, step=0):
    state = training.create_state(Dropped(), toys.RECIPE, jax.random.key(seed), (8, 8, 1), toys.STEPS)
    return state.replace(step=jnp.int32(step))


def loss_of(state, batch, index):
    """The loss, with dropout's key written out."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), int(state.step)), index)
    logits, _ = Dropped().apply({"params": state.params}, batch["images"], train=True, rngs={"dropout": key})
    return float(training.cross_entropy(logits, jnp.asarray(batch["labels"])).mean())


def test_masks_are_the_key_s_and_the_step_s():
    losses = []
    for state in (start(), start(step=5), start().replace(key=jax.random.key(1))):
        _, metrics = toys.step(state, BATCH)
        assert float(metrics["loss"]) == pytest.approx(loss_of(state, BATCH, 0), rel=1e-5)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3
    _, again = toys.step(start(), BATCH)
    assert float(again["loss"]) == losses[0]


@pytest.mark.parametrize("devices", [1, 2])
def test_each_device_of_a_batch_has_masks_of_its_own(devices):
    mesh = training.make_mesh(1, devices)
    step = training.pmapped(training.train_step, mesh)
    _, metrics = step(training.stack([start(step=3)], mesh), jax.tree.map(lambda leaf: leaf[None], BATCH))
    parts = [jax.tree.map(lambda leaf, i=i: np.split(leaf, devices)[i], BATCH) for i in range(devices)]
    expected = np.mean([loss_of(start(step=3), part, index) for index, part in enumerate(parts)])
    np.testing.assert_allclose(metrics["loss"], [expected], rtol=1e-5)
    if devices == 2:
        alike = np.mean([loss_of(start(step=3), part, 0) for part in parts])
        assert abs(alike - expected) > 1e-3


def test_a_network_without_dropout_does_not_look_at_the_key():
    state = toys.state()
    first, _ = toys.step(state, BATCH)
    second, _ = toys.step(state.replace(key=jax.random.key(9)), BATCH)
    toys.assert_identical(first.variables, second.variables)


def test_noisy_images_are_evaluated_alike_whatever_the_batches_and_devices(monkeypatch):
    """Without dropout, and with the noise that ``Prepare`` gives those images when called without keys."""
    variables = start().variables
    images, labels = jax.jit(lambda x: NOISY(None, x))(toys.TEST["images"]), jnp.asarray(toys.TEST["labels"])
    logits, _ = Dropped().apply(variables, images)
    loss, correct = training.cross_entropy(logits, labels), (logits.argmax(axis=1) == labels)
    expected = {"loss": pytest.approx(float(loss.mean()), rel=1e-5), "accuracy": pytest.approx(float(correct.mean()))}
    clean = training.evaluate(Dropped(), variables, toys.TEST, prepare=toys.CLEAN)
    assert clean["loss"] != expected["loss"]
    assert training.evaluate(Dropped(), variables, toys.TEST, prepare=NOISY) == expected
    monkeypatch.setattr(evaluation, "BATCH", 16)
    for devices in (1, 8):
        mesh = training.make_mesh(1, devices)
        evaluate = evaluation.evaluator(Dropped(), toys.TEST, NOISY, mesh)
        assert evaluate(training.stack([variables], mesh)) == [expected]
