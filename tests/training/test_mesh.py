"""Eight simulated devices against one: layouts, placement, and the same parameters however seeds and batches split."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_toys as toys
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from deform_jax import training
from deform_jax.training import losses
from deform_jax.training.mesh import check_batch

# 20 steps with warm-up, cosine, momentum, weight decay, batch norm, crops and flips.
RECIPE = dataclasses.replace(toys.RECIPE, schedule="cosine", epochs=5, warmup_epochs=1)
# Sums over a batch come in another order when it is split: float32 rounding, 5e-7 at most when this was written, which
# 20 steps may enlarge on other machines. A gradient off by a factor moves the same parameters by 0.1 and more.
TOLERANCE = 2e-5


def distance(a, b):
    """The largest difference between two networks' variables."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


@functools.cache
def alone(seed):
    (run,) = toys.fit(RECIPE, seeds=(seed,), mesh=training.make_mesh(1, 1), evaluation=toys.TEST)
    return run


@pytest.mark.parametrize("layout", [(1, 8), (2, 4), (8, 1)], ids=lambda layout: "{}x{}".format(*layout))
def test_twenty_steps_give_the_parameters_of_one_device(layout):
    seeds = tuple(range(3, 3 + layout[0]))
    runs = toys.fit(RECIPE, seeds=seeds, mesh=training.make_mesh(*layout), evaluation=toys.TEST)
    initial = training.create_state(toys.MODEL, RECIPE, jax.random.key(3), (8, 8, 1), toys.STEPS).variables
    assert distance(runs[0].variables, initial) > 0.1  # they did move
    for seed, run in zip(seeds, runs, strict=True):
        assert run.seed == seed
        assert distance(run.variables, alone(seed).variables) < TOLERANCE
        for row, expected in zip(run.history, alone(seed).history, strict=True):
            for name in ("loss", "accuracy", "evaluation_loss", "evaluation_accuracy"):
                assert row[name] == pytest.approx(expected[name], abs=1e-4), name  # no image decided otherwise
    assert len({float(run.variables["params"]["head"]["kernel"][0, 0]) for run in runs}) == len(seeds)


def averaged_gradients(state, batch, *, axis_name):
    """The wrong pairing: each device's own loss, and ``pmean`` of its gradients."""
    model = state.model.clone(axis_name=axis_name)

    def mean_loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), updated = model.apply(variables, batch["images"], train=True, mutable=["batch_stats"])
        return losses.cross_entropy(logits, batch["labels"]).mean(), updated["batch_stats"]

    gradients, batch_stats = jax.grad(mean_loss, has_aux=True)(state.params)
    gradients = jax.lax.pmean(gradients, axis_name)
    updates, opt_state = state.recipe.optimizer(state.steps_per_epoch).update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state), {}


@pytest.fixture(scope="module")
def one_step():
    """Two seeds' states and batches, and what a step without devices makes of them."""
    states = [toys.state(seed) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    batch = {"images": rng.normal(size=(2, 16, 8, 8, 1)).astype(np.float32), "labels": rng.integers(0, 4, (2, 16))}
    parts = [{name: value[i] for name, value in batch.items()} for i in (0, 1)]
    return states, batch, [toys.step(state, part) for state, part in zip(states, parts, strict=True)]


def test_a_wrong_pairing_is_seen(one_step):
    """One step suffices: gradients averaged after the fact are the batch's times the length of the axis."""
    states, batch, results = one_step
    mesh = training.make_mesh(2, 4)
    wrong, _ = training.pmapped(averaged_gradients, mesh)(training.stack(states, mesh), batch)
    for state, (expected, _), params in zip(states, results, training.unstack(wrong.params), strict=True):
        assert distance(params, expected.params) > 100 * TOLERANCE
        gradient = jax.tree.map(lambda a, b: a - b, expected.params, state.params)  # times −learning rate
        moved = jax.tree.map(lambda a, b: a - b, params, state.params)
        # 4 times, but for the weight decay: at most 3 · 0.1 · 5e-4 of weights below 1.
        assert distance(moved, jax.tree.map(lambda g: 4 * g, gradient)) < 5e-4


def test_pmapped_steps_on_arrays_and_leaves_what_it_was_given(one_step):
    """Layout (seeds, batch); the memory of the stacked state is reused, that of the states before it is not."""
    mesh = training.make_mesh(2, 4)
    states, batch, results = one_step
    before = jax.tree.map(np.array, [state.variables for state in states])
    stacked = training.stack(states, mesh)
    result, metrics = training.pmapped(training.train_step, mesh)(stacked, batch)
    assert jax.tree.leaves(stacked.params)[0].is_deleted()
    toys.assert_identical([jax.device_get(state.variables) for state in states], before)
    assert metrics["loss"].shape == (2,)
    for i, ((expected, measured), one) in enumerate(zip(results, training.unstack(result), strict=True)):
        assert distance(one.variables, expected.variables) < TOLERANCE
        np.testing.assert_allclose(metrics["loss"][i], measured["loss"], rtol=1e-5)


def test_pmapped_can_keep_its_argument():
    mesh = training.make_mesh(2, 2)
    double = training.pmapped(
        lambda state, batch, axis_name: jax.tree.map(lambda x: x * jax.lax.pmean(batch["a"].sum(), axis_name), state),
        mesh,
        batch_layout={"a": P("seed", "data")},
        donate=False,
    )
    state = training.stack([{"w": jnp.ones(3)}, {"w": 2 * jnp.ones(3)}], mesh)
    result = double(state, {"a": jnp.asarray([[1.0, 3.0], [5.0, 7.0]])})
    np.testing.assert_array_equal(result["w"], [[2] * 3, [12] * 3])
    np.testing.assert_array_equal(state["w"], [[1] * 3, [2] * 3])


def test_meshes():
    mesh = training.make_mesh(2, 4)
    assert dict(mesh.shape) == {"seed": 2, "data": 4}
    assert mesh.axis_types == (AxisType.Auto,) * 2
    assert list(mesh.devices.flat) == jax.devices()
    assert dict(training.make_mesh().shape) == {"seed": 1, "data": 1}
    assert list(training.make_mesh(1, 2).devices.flat) == jax.devices()[:2]
    assert list(training.make_mesh(2, devices=jax.devices()[4:6]).devices.flat) == jax.devices()[4:6]


@pytest.mark.parametrize(("layout", "count"), [((3, 1), 8), ((4, 4), 8), ((1, 5), 6), ((2, 1), 1)])
def test_a_mesh_that_does_not_fit_lists_those_that_would(layout, count):
    devices = jax.devices()[:count]
    message = rf"`seed × data` must divide the number of devices, {count}, but .* = {layout[0] * layout[1]} was given"
    with pytest.raises(ValueError, match=message) as caught:
        training.make_mesh(*layout, devices=devices)
    listed = {(int(s), int(d)) for s, d in re.findall(r"(\d+) × (\d+)[,.]", str(caught.value).split("would: ")[1])}
    fitting = set()
    for s in range(1, 10):
        for d in range(1, 10):
            try:
                training.make_mesh(s, d, devices=devices)
                fitting.add((s, d))
            except ValueError:
                pass
    assert listed == fitting


def test_meshes_refuse_what_is_no_number_of_devices():
    with pytest.raises(ValueError, match="`seed` must be an integer ≥ 1, but 0 was given"):
        training.make_mesh(0)
    with pytest.raises(TypeError, match=r"`data` must be an integer ≥ 1, but 2.0 \(float\) was given"):
        training.make_mesh(1, 2.0)


def test_a_batch_that_does_not_divide_lists_the_axes_that_would():
    message = "`batch_size` must be divisible by the 8 devices .* 12 was given. Use a data axis of 1, 2, 4, or another"
    with pytest.raises(ValueError, match=message):
        toys.fit(dataclasses.replace(toys.RECIPE, batch_size=12), mesh=training.make_mesh(1, 8))
    for data in (1, 2, 4):
        check_batch(12, training.make_mesh(1, data))


def test_stack_lays_seeds_out_and_unstack_brings_them_back():
    mesh = training.make_mesh(4, 2)
    trees = [{"w": jnp.arange(3.0) + seed, "key": jax.random.key(seed)} for seed in range(4)]
    stacked = training.stack(trees, mesh)
    assert stacked["w"].sharding.spec == P("seed")
    assert {shard.data.shape for shard in stacked["w"].addressable_shards} == {(1, 3)}
    for tree, back in zip(trees, training.unstack(stacked), strict=True):
        assert isinstance(back["w"], np.ndarray)
        np.testing.assert_array_equal(back["w"], tree["w"])
        np.testing.assert_array_equal(jax.random.key_data(back["key"]), jax.random.key_data(tree["key"]))
    with pytest.raises(ValueError, match="`trees` must be as many as the seed axis is long, 4, but 3 were given"):
        training.stack(trees[:3], mesh)


def test_replicate_gives_every_device_the_whole():
    placed = training.replicate({"x": jnp.arange(6.0)}, training.make_mesh(2, 4))["x"]
    assert len(placed.addressable_shards) == 8
    assert all(shard.data.shape == (6,) for shard in placed.addressable_shards)
