"""Random shifts, the factory, and what a jitted batch of warps costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import warps


def test_shifts_are_uniform_in_the_box_and_independent(key):
    bound, draws = 10.0, 4000
    sample = functools.partial(warps.random_shifts, grid=(3, 2), max_shift=bound)
    shifts = np.asarray(jax.vmap(sample)(jax.random.split(key, draws)), dtype=np.float64).reshape(draws, -1)
    count = shifts.size  # 48,000 values
    # Five standard errors each. For a uniform law on [−m, m], mean m/√(3N), variance m² √(4/45N), correlation
    # 1/√draws. A Gaussian, a disc or a box of half the width is out by tens of them.
    assert abs(shifts.mean()) < 5 * bound / np.sqrt(3 * count)
    assert abs(shifts.var() - bound**2 / 3) < 5 * bound**2 * np.sqrt(4 / 45 / count)
    assert np.abs(shifts).max() <= bound
    assert np.abs(shifts).max() > 0.999 * bound  # all N values fall short with probability 0.999^N < 1e-20
    correlation = np.corrcoef(shifts, rowvar=False) - np.eye(shifts.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(draws)


def test_factory_is_the_sampler_then_the_geometry(key):
    image = jax.random.uniform(key, (20, 14, 3))
    perturb = warps.random_tps(grid=(4, 3), max_shift=3.0, boundary="constant", fill=0.5)
    shifts = warps.random_shifts(key, (4, 3), 3.0)
    assert shifts.shape == (4, 3, 2)
    assert shifts.dtype == jnp.float32
    expected = warps.deform_tps(shifts, image, boundary="constant", fill=0.5)
    np.testing.assert_array_equal(perturb(key, image), expected)
    assert float(jnp.abs(expected - image).max()) > 0.1
    np.testing.assert_array_equal(warps.random_tps(max_shift=0.0)(key, image), image)


def test_default_settings_are_the_papers_for_cifar10():
    assert warps.random_tps() == warps.random_tps(grid=(3, 3), max_shift=2.0, boundary="edge", fill=0.0)


def test_each_image_of_a_batch_has_its_own_warp(key):
    keys, images = jax.random.split(key, 5), jnp.tile(jax.random.uniform(key, (1, 16, 16, 1)), (5, 1, 1, 1))
    warped = np.asarray(jax.vmap(warps.random_tps())(keys, images)).reshape(5, -1)
    distances = np.linalg.norm(warped[:, None] - warped[None], axis=-1)
    assert distances[~np.eye(5, dtype=bool)].min() > 0.1


def test_legacy_keys_serve_too(key):
    shifts = warps.random_shifts(jax.random.PRNGKey(0), (4, 3), 2.0)
    np.testing.assert_array_equal(shifts, warps.random_shifts(key, (4, 3), 2.0))


def test_equal_settings_are_traced_once(key):
    traces = []

    @functools.partial(jax.jit, static_argnames="perturb")
    def apply(perturb, key, image):
        traces.append(perturb)
        return perturb(key, image)

    image = jnp.ones((9, 8, 1))
    for settings in (
        {"max_shift": 2},
        {"max_shift": 2.0},
        {"max_shift": np.float32(2)},
        {"max_shift": jnp.asarray(2.0)},
    ):
        apply(warps.random_tps(grid=(3, 3), **settings), key, image)
    assert len(traces) == 1
    apply(warps.random_tps(grid=(3, 3), max_shift=3.0), key, image)
    assert len(traces) == 2


def test_strength_may_be_traced(key):
    image = jax.random.uniform(key, (10, 10, 1))
    strengths = jnp.asarray([0.0, 1.0, 2.0])
    warped = jax.vmap(lambda m: warps.random_tps(max_shift=m, fill=m)(key, image))(strengths)
    np.testing.assert_allclose(warped[0], image, rtol=0, atol=1e-6)
    np.testing.assert_allclose(warped[2], warps.random_tps(max_shift=2.0)(key, image), rtol=0, atol=1e-5)


def test_a_batch_of_128_imagenet_warps_needs_less_memory_than_two_batches(key):
    perturb = warps.random_tps(grid=(5, 5), max_shift=10.0)
    keys = jax.eval_shape(lambda: jax.random.split(key, 128))
    images = jax.ShapeDtypeStruct((128, 224, 224, 3), jnp.float32)
    memory = jax.jit(jax.vmap(perturb)).lower(keys, images).compile().memory_analysis()
    batch = images.size * 4
    assert memory.output_size_in_bytes == pytest.approx(batch, rel=1e-3)
    # The field alone is 2/3 of a batch of three channels, and is all that is kept when the four samples are fused.
    assert 0.5 * batch < memory.temp_size_in_bytes < 1.0 * batch
