"""Gathers and products: the same values and derivatives, each on the platform that it is for."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from deform_jax import warps
from deform_jax.warps import _sampling

BOUNDARIES = ("edge", "constant")
SHAPES = [(1, 1, 4), (1, 9, 2), (8, 1, 1), (7, 12, 3), (12, 7, 1), (6, 6, 20)]
# Up to how many pixels away, and whether by fractions of pixels: at whole ones the derivative has a side.
REACHES = {"none": (0, False), "whole": (3, False), "near": (0.9, True), "far": (6.0, True), "outside": (1e3, True)}


def random_case(shape, reach, fractions, seed=0):
    rng = np.random.default_rng(seed)
    field = rng.uniform(-reach, reach, (*shape[:2], 2)).astype(np.float32)
    return rng.random(shape, np.float32), field if fractions else np.round(field)


@functools.partial(jax.jit, static_argnames=("boundary", "blend"))
def outcome(image, field, fill, cotangent, *, boundary, blend):
    """The warped image, and the gradients of its product with ``cotangent`` in image, field and fill."""
    output, pull = jax.vjp(functools.partial(_sampling.sample, boundary=boundary, blend=blend), image, field, fill)
    return output, *pull(cotangent)


def both(image, field, boundary):
    cotangent = np.random.default_rng(1).standard_normal(image.shape, np.float32)
    arguments = (image, jnp.asarray(field), jnp.float32(0.25), jnp.asarray(cotangent, image.dtype))
    run = functools.partial(outcome, *arguments, boundary=boundary)
    by_gathers, by_products = run(blend=_sampling.by_gathers), run(blend=_sampling.by_products)
    assert [a.dtype for a in by_products] == [a.dtype for a in by_gathers]
    return [[np.asarray(a, np.float32) for a in found] for found in (by_gathers, by_products)], np.abs(cotangent).sum()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_equal(shape, boundary):
    epsilon = np.finfo(np.float32).eps
    for reach, fractions in REACHES.values():
        image, field = random_case(shape, reach, fractions)
        (by_gathers, by_products), total = both(jnp.asarray(image), field, boundary)
        # Four terms of at most 1, so that no rounding exceeds half an epsilon: two of products and two of sums in each.
        np.testing.assert_allclose(by_products[0], by_gathers[0], rtol=0, atol=4 * epsilon)
        # A gradient is a sum of cotangents times weights or differences of pixels, none above 1, in some order. From
        # outside, all may land on one border pixel; ``total`` is their sum without signs.
        for gradient, expected in zip(by_products[1:], by_gathers[1:], strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=4 * epsilon * total)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_half_precision_values_and_gradients_are_equal(boundary):
    image, field = random_case((7, 12, 3), 0.9, True)
    (by_gathers, by_products), _ = both(jnp.asarray(image, jnp.bfloat16), field, boundary)
    epsilon = float(jnp.finfo(jnp.bfloat16).eps)
    np.testing.assert_allclose(by_products[0], by_gathers[0], rtol=epsilon, atol=0)  # the last bit, in a tie of float32
    # Gathers sum an image's gradient in bfloat16, products in float32: some ten terms of at most 3.
    np.testing.assert_allclose(by_products[1], by_gathers[1], rtol=0, atol=10 * epsilon)
    for gradient, expected in zip(by_products[2:], by_gathers[2:], strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=epsilon, atol=1e-5)


def test_derivatives_on_pixels_are_those_towards_larger_coordinates():
    """In both, as ``remap`` says: an image of squares that is not moved, at 3² the slope 4² − 3², none on the last."""
    image = np.broadcast_to(np.arange(5.0, dtype=np.float32)[:, None, None] ** 2, (5, 3, 1))
    for blend in (_sampling.by_gathers, _sampling.by_products):
        _, _, field, _ = outcome(image, np.zeros((5, 3, 2)), 0.0, np.ones((5, 3, 1)), boundary="edge", blend=blend)
        np.testing.assert_array_equal(field[..., 0], np.broadcast_to([[1.0], [3], [5], [7], [0]], (5, 3)))
        np.testing.assert_array_equal(field[..., 1], 0)


def test_second_and_forward_derivatives_are_equal():
    image, field = random_case((4, 5, 2), 3.0, True)

    def bent(blend):
        def loss(image, field):
            return (_sampling.sample(image, field, 0.5, boundary="constant", blend=blend) ** 3).sum()

        gradient = jax.grad(loss, argnums=(0, 1))
        return jax.jit(functools.partial(jax.jvp, gradient))((image, field), (field[..., :1] * image, np.cos(field)))

    for a, b in zip(*map(jax.tree.leaves, map(bent, (_sampling.by_gathers, _sampling.by_products))), strict=True):
        assert np.abs(a).max() > 0.1
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_what_is_not_finite_in_a_traced_image_stays_in_its_channel():
    image, field = random_case((6, 5, 3), 0.9, True)
    bad = image.copy()
    bad[2, 3, 1] = np.inf
    run = functools.partial(_sampling.sample, field=field, fill=0.0, boundary="edge", blend=_sampling.by_products)
    output, expected = jax.vmap(run)(np.stack([bad, image])), run(image)
    assert np.isnan(output[0, ..., 1]).any()
    np.testing.assert_allclose(output[0, ..., ::2], expected[..., ::2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(output[1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_traced_nan_displacement_reaches_two_rows_or_columns_of_the_gradient(axis):
    image, field = random_case((6, 5, 3), 0.9, True)
    bad = field.copy()
    bad[2, 3, axis] = np.nan
    cotangent = np.ones_like(image)
    cotangent[2, 3] = 0
    run = functools.partial(outcome, boundary="edge", blend=_sampling.by_products)
    expected, found = (np.moveaxis(run(image, f, 0.0, cotangent)[1], axis, 0) for f in (field, bad))
    finite = np.isfinite(found).all((1, 2))
    assert finite.sum() >= len(finite) - 2
    np.testing.assert_allclose(found[finite], expected[finite], rtol=0, atol=1e-6)


def warped(image, field, fill):
    return warps.remap(image, field, boundary="constant", fill=fill)


def batch(image, field, fill):
    return jax.vmap(warped, in_axes=(0, 0, None))(image, field, fill)


def loss(image, field, fill):
    return (batch(image, field, fill) ** 2).sum()


def sharded(image, field, fill):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    return jax.shard_map(batch, mesh=mesh, in_specs=(spec, spec, PartitionSpec()), out_specs=spec)(image, field, fill)


def sharded_loss(image, field, fill):
    return (sharded(image, field, fill) ** 2).sum()


# name: function of two images, two fields and a fill
CALLS = {
    "plain": lambda i, f, v: jnp.stack([warped(*one, v) for one in zip(i, f, strict=True)]),
    "vmap": batch,
    "vmap_of_one_image": lambda i, f, v: jax.vmap(warped, in_axes=(None, 0, None))(i[0], f, v),
    "grad": jax.grad(loss, argnums=(0, 1, 2)),
    "vmap_of_grad": lambda i, f, v: jax.vmap(jax.grad(lambda *a: warped(*a).sum(), (0, 1)), (0, 0, None))(i, f, v),
    "jvp": lambda i, f, v: jax.jvp(batch, (i, f, v), (i, f, v)),
    "shard_map": sharded,
    "grad_of_shard_map": jax.grad(sharded_loss, argnums=(0, 1, 2)),
}


def batch_of(shape):
    rng = np.random.default_rng(2)
    return (
        rng.random((2, *shape), np.float32),
        rng.uniform(-2, 2, (2, *shape[:2], 2)).astype(np.float32),
        np.float32(0.5),
    )


def lowered(function, arguments, platform):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def operations(program):
    """Which of these a program has, in StableHLO or as XLA has compiled it."""
    found = re.findall(r"(?:stablehlo\.| )(gather|scatter|dot)(?:_general)?\b", program)
    return {"products" if name == "dot" else name for name in found}


@pytest.mark.parametrize("name", CALLS)
def test_platforms_get_their_formulation(name):
    arguments = batch_of((9, 8, 3))
    for platform in ("cpu", "cuda", "rocm"):
        found = operations(lowered(CALLS[name], arguments, platform))
        assert found == ({"gather", "scatter"} if "grad" in name else {"gather"}), platform
    program = lowered(CALLS[name], arguments, "tpu")
    assert operations(program) == {"products"}
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.parametrize("name", CALLS)
def test_compiled_programs_for_cpus_have_one_formulation_and_no_choice(name):
    program = jax.jit(CALLS[name]).lower(*batch_of((9, 8, 3))).compile().as_text()
    assert "gather" in operations(program)
    assert "products" not in operations(program)
    assert "conditional" not in program


@pytest.mark.parametrize(("side", "operation"), [(32, "products"), (59, "products"), (60, "gather"), (224, "gather")])
def test_on_tpus_only_small_images_are_multiplied(side, operation):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, side, side, 3), (2, side, side, 2), ())]
    assert operations(lowered(batch, shapes, "tpu")) == {operation}


@pytest.mark.parametrize("name", CALLS)
def test_calls_agree_with_plain_ones_of_the_gathers(name, monkeypatch):
    arguments = batch_of((9, 8, 3))

    def run():
        call = CALLS[name] if "shard" not in name else jax.jit(lambda *a: CALLS[name](*a))  # plain ones take seconds
        return call(*arguments)

    found = run()
    monkeypatch.setattr(_sampling, "sample", functools.partial(_sampling.sample, blend=_sampling.by_gathers))
    expected = run()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_differentiation_keeps_nothing_of_the_other_formulation():
    """A call outside jit holds what its backward pass needs: without the checkpoint, ten times as much, in zeros."""
    image, field = random_case((32, 32, 3), 2.0, True)
    _, pull = jax.vjp(warps.remap, image, field)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if hasattr(leaf, "nbytes"))
    assert kept < 20 * (image.nbytes + field.nbytes)
