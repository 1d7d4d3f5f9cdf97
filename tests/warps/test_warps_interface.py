"""Every public warp under jit and vmap from one case list, and every refusal with its message."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import warps

rng = np.random.default_rng(0)
IMAGES = rng.random((4, 13, 11, 3)).astype(np.float32)
FIELDS = rng.uniform(-3, 3, (4, 13, 11, 2)).astype(np.float32)
SHIFTS = rng.uniform(-3, 3, (4, 3, 4, 2)).astype(np.float32)
COEFFICIENTS = rng.standard_normal((4, 2, 3, 3)).astype(np.float32)
TEMPERATURES = np.float32([0.0, 1e-3, 1e-2, 2e-2])
KEYS = jax.random.split(jax.random.key(1), 4)
KEY, IMAGE, FIELD, SHIFT, COEFFICIENT = KEYS[0], IMAGES[0], FIELDS[0], SHIFTS[0], COEFFICIENTS[0]

# name: (function of one example, batched arguments)
CASES = {
    "tps_field": (lambda s: warps.tps_field(s, (13, 11)), (SHIFTS,)),
    "remap_edge": (warps.remap, (IMAGES, FIELDS)),
    "remap_constant": (lambda i, f: warps.remap(i, f, boundary="constant", fill=0.5), (IMAGES, FIELDS)),
    "remap_bfloat16": (warps.remap, (jnp.asarray(IMAGES, jnp.bfloat16), FIELDS)),
    "deform_tps": (warps.deform_tps, (SHIFTS, IMAGES)),
    "random_shifts": (lambda k: warps.random_shifts(k, (3, 4), 2.0), (KEYS,)),
    "random_tps": (warps.random_tps(grid=(3, 4), max_shift=3.0), (KEYS, IMAGES)),
    "max_entropy_field": (
        lambda c, t: warps.max_entropy_field(c, (13, 11), temperature=t),
        (COEFFICIENTS, TEMPERATURES),
    ),
    "deform_max_entropy": (
        lambda c, i, t: warps.deform_max_entropy(c, i, temperature=t, boundary="constant", fill=t),
        (COEFFICIENTS, IMAGES, TEMPERATURES),
    ),
    "mean_displacement": (warps.mean_displacement, (FIELDS,)),
    "random_coefficients": (lambda k: warps.random_coefficients(k, 4), (KEYS,)),
    "random_max_entropy": (warps.random_max_entropy(displacement=1.5, cutoff=4), (KEYS, IMAGES)),
}


@pytest.mark.parametrize("name", CASES)
def test_jit_and_vmap_agree_with_plain_calls(name):
    function, batch = CASES[name]
    plain = [function(*(argument[i] for argument in batch)) for i in range(4)]
    jitted = [jax.jit(function)(*(argument[i] for argument in batch)) for i in range(4)]
    tolerance = 1e-2 if plain[0].dtype == jnp.bfloat16 else 2e-5
    for other in (jnp.stack(jitted), jax.vmap(function)(*batch), jax.jit(jax.vmap(function))(*batch)):
        assert other.dtype == plain[0].dtype
        np.testing.assert_allclose(np.float32(other), np.float32(jnp.stack(plain)), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["remap_constant", "deform_tps"])
@pytest.mark.parametrize("batched", [0, 1])
def test_only_one_argument_is_batched(name, batched):
    function, batch = CASES[name]
    arguments = [argument if i == batched else argument[0] for i, argument in enumerate(batch)]
    mapped = jax.jit(jax.vmap(function, in_axes=[0 if i == batched else None for i in range(2)]))(*arguments)
    expected = function(*(argument[2] if i == batched else argument[0] for i, argument in enumerate(batch)))
    np.testing.assert_allclose(mapped[2], expected, rtol=0, atol=2e-5)


def test_arrays_closed_over_by_a_jitted_function():
    image = jnp.asarray(IMAGE)
    np.testing.assert_allclose(
        jax.jit(lambda f: warps.remap(image, f))(FIELD), warps.remap(image, FIELD), rtol=0, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"^Argument `image` must be finite"):
        jax.jit(lambda f: warps.remap(with_nan(IMAGE), f))(FIELD)


def with_nan(array):
    bad = np.array(array)
    bad.flat[7] = np.nan
    return bad


# name: (call, error, part of the message)
REFUSALS = {
    "uint8_image": (
        lambda: warps.remap(np.uint8(IMAGE), FIELD),
        TypeError,
        r"`image` must hold floating.*uint8.*/ 255",
    ),
    "image_batch": (lambda: warps.remap(IMAGES, FIELD), ValueError, r"`image` must have shape \(h, w, c\).*jax.vmap"),
    "uint8_batch": (lambda: warps.remap(np.uint8(IMAGES), FIELD), ValueError, r"`image`.*\(4, 13, 11, 3\).*jax.vmap"),
    "image_rank": (lambda: warps.remap(IMAGE[..., 0], FIELD), ValueError, r"`image`.*\(h, w, c\).*channel axis"),
    "image_empty": (lambda: warps.remap(IMAGE[:0], FIELD[:0]), ValueError, "`image` must not be empty"),
    "image_nan": (lambda: warps.remap(with_nan(IMAGE), FIELD), ValueError, "`image` must be finite.*1 NaN"),
    "image_none": (lambda: warps.remap(None, FIELD), TypeError, "`image` must be an array"),
    "field_nan": (lambda: warps.remap(IMAGE, with_nan(FIELD)), ValueError, "`field` must be finite"),
    "field_infinite": (lambda: warps.remap(IMAGE, FIELD / 0.0), ValueError, "`field` must be finite"),
    "field_batch": (lambda: warps.remap(IMAGE, FIELDS), ValueError, r"`field` must have shape \(h, w, 2\).*jax.vmap"),
    "field_3": (lambda: warps.remap(IMAGE, IMAGE), ValueError, r"`field` must have shape \(h, w, 2\).*\(13, 11, 3\)"),
    "field_size": (lambda: warps.remap(IMAGE, FIELD[1:]), ValueError, r"`field` must have the image's.*\(12, 11, 2\)"),
    "field_bool": (lambda: warps.remap(IMAGE, FIELD > 0), TypeError, "`field` must hold real"),
    "boundary": (lambda: warps.remap(IMAGE, FIELD, boundary="wrap"), ValueError, "`boundary` must be one of 'edge'"),
    "boundary_type": (lambda: warps.remap(IMAGE, FIELD, boundary=0), TypeError, "`boundary` must be one of"),
    "fill": (lambda: warps.remap(IMAGE, FIELD, fill=np.nan), ValueError, "`fill` must be a finite number"),
    "fill_traced": (
        lambda: jax.jit(lambda v: warps.remap(IMAGE, FIELD, fill=v))(jnp.ones(3)),
        TypeError,
        r"`fill` must be a finite number, but an array of shape \(3,\)",
    ),
    "boundary_traced": (
        lambda: jax.jit(lambda b: warps.remap(IMAGE, FIELD, boundary=b))(0),
        TypeError,
        "`boundary` must be one of",
    ),
    "shifts_batch": (lambda: warps.tps_field(SHIFTS, (8, 8)), ValueError, r"`shifts`.*\(gy, gx, 2\).*jax.vmap"),
    "shifts_one_row": (lambda: warps.tps_field(SHIFT[:1], (8, 8)), ValueError, "`shifts`.*gy and gx ≥ 2"),
    "shifts_nan": (lambda: warps.tps_field(with_nan(SHIFT), (8, 8)), ValueError, "`shifts` must be finite"),
    "shifts_text": (lambda: warps.tps_field("2px", (8, 8)), TypeError, "`shifts` must be an array"),
    "shape_small": (lambda: warps.tps_field(SHIFT, (1, 8)), ValueError, "`shape` must be a pair.*each ≥ 2"),
    "shape_empty": (lambda: warps.tps_field(SHIFT, (0, 8)), ValueError, "`shape` must be a pair.*each ≥ 2"),
    "shape_float": (lambda: warps.tps_field(SHIFT, (8.0, 8)), TypeError, "`shape` must be a pair of integers"),
    "shape_triple": (lambda: warps.tps_field(SHIFT, (8, 8, 3)), TypeError, "`shape` must be a pair of integers"),
    "shape_traced": (lambda: jax.jit(warps.tps_field)(SHIFT, (8, 8)), TypeError, "`shape`.*traced.*static_argnames"),
    "thin_image": (lambda: warps.deform_tps(SHIFT, IMAGE[:1]), ValueError, "`image` must be at least 2 pixels"),
    "deform_uint8": (lambda: warps.deform_tps(SHIFT, np.uint8(IMAGE)), TypeError, "`image` must hold floating"),
    "grid_point": (lambda: warps.control_points((1, 3), (8, 8)), ValueError, "`grid` must be a pair.*each ≥ 2"),
    "grid_float": (lambda: warps.random_tps(grid=(2.5, 3)), TypeError, "`grid` must be a pair of integers"),
    "grid_number": (lambda: warps.random_tps(grid=3), TypeError, "`grid` must be a pair of integers"),
    "grid_traced": (
        lambda: jax.jit(warps.control_points)((3, 3), (8, 8)),
        TypeError,
        "`grid`.*traced.*static_argnames",
    ),
    "points_shape": (lambda: warps.control_points((3, 3), (1, 8)), ValueError, "`shape` must be a pair.*each ≥ 2"),
    "shift_negative": (lambda: warps.random_tps(max_shift=-1.0), ValueError, "`max_shift` must be a finite number ≥ 0"),
    "shift_infinite": (lambda: warps.random_shifts(KEY, (2, 2), np.inf), ValueError, "`max_shift` must be a finite"),
    "factory_boundary": (lambda: warps.random_tps(boundary="reflect"), ValueError, "`boundary` must be one of"),
    "factory_fill": (lambda: warps.random_tps(fill="0"), TypeError, "`fill` must be a finite number"),
    "key_seed": (
        lambda: warps.random_tps()(0, IMAGE),
        TypeError,
        r"`key` must be one random key.*jax.random.key\(seed",
    ),
    "key_batch": (lambda: warps.random_tps()(KEYS, IMAGE), ValueError, r"`key`.*keys of shape \(4,\).*jax.vmap"),
    "key_floats": (lambda: warps.random_tps()(jnp.ones(2), IMAGE), TypeError, "`key` must be one random key.*float32"),
    "coefficients_batch": (
        lambda: warps.max_entropy_field(COEFFICIENTS, (8, 8), temperature=0.01),
        ValueError,
        r"`coefficients` must have shape \(2, cutoff, cutoff\), but.*jax.vmap",
    ),
    "coefficients_not_square": (
        lambda: warps.max_entropy_field(COEFFICIENT[:, :2], (8, 8), temperature=0.01),
        ValueError,
        r"`coefficients` must have shape \(2, cutoff, cutoff\) with cutoff ≥ 2, but its shape is \(2, 2, 3\)",
    ),
    "coefficients_one": (
        lambda: warps.max_entropy_field(np.ones((2, 1, 1)), (8, 8), temperature=0.01),
        ValueError,
        "`coefficients`.*cutoff ≥ 2",
    ),
    "coefficients_one_component": (
        lambda: warps.max_entropy_field(COEFFICIENT[:1], (8, 8), temperature=0.01),
        ValueError,
        r"`coefficients` must have shape \(2,.*\(1, 3, 3\)",
    ),
    "coefficients_nan": (
        lambda: warps.max_entropy_field(with_nan(COEFFICIENT), (8, 8), temperature=0.01),
        ValueError,
        "`coefficients` must be finite",
    ),
    "coefficients_complex": (
        lambda: warps.deform_max_entropy(COEFFICIENT * 1j, IMAGE, temperature=0.01),
        TypeError,
        "`coefficients` must hold real",
    ),
    "shape_all_border": (
        lambda: warps.max_entropy_field(COEFFICIENT, (2, 8), temperature=0.01),
        ValueError,
        "`shape` must be a pair.*each ≥ 3",
    ),
    "image_all_border": (
        lambda: warps.random_max_entropy()(KEY, IMAGE[:, :2]),
        ValueError,
        "`image` must be at least 3 pixels",
    ),
    "temperature_negative": (
        lambda: warps.deform_max_entropy(COEFFICIENT, IMAGE, temperature=-0.1),
        ValueError,
        "`temperature` must be a finite number ≥ 0, but -0.1",
    ),
    "temperature_array": (
        lambda: warps.max_entropy_field(COEFFICIENT, (8, 8), temperature=TEMPERATURES),
        TypeError,
        r"`temperature` must be a finite number.*shape \(4,\)",
    ),
    "max_entropy_boundary": (
        lambda: warps.deform_max_entropy(COEFFICIENT, IMAGE, temperature=0.01, boundary="wrap"),
        ValueError,
        "`boundary` must be one of",
    ),
    "displacement_negative": (lambda: warps.temperature(-1, cutoff=3, size=32), ValueError, "`displacement`.*≥ 0"),
    "displacement_text": (lambda: warps.random_max_entropy(displacement="1"), TypeError, "`displacement` must be a"),
    "displaced_temperature": (
        lambda: warps.typical_displacement(-1, cutoff=3, size=9),
        ValueError,
        "`temperature`.*≥ 0",
    ),
    "cutoff_one": (lambda: warps.temperature(1, cutoff=1, size=32), ValueError, "`cutoff` must be an integer ≥ 2"),
    "cutoff_float": (lambda: warps.random_max_entropy(cutoff=3.0), TypeError, "`cutoff` must be an integer ≥ 2"),
    "cutoff_traced": (
        lambda: jax.jit(warps.random_coefficients)(KEY, 3),
        TypeError,
        "`cutoff`.*traced.*static_argnames",
    ),
    "coefficients_key": (lambda: warps.random_coefficients(0, 3), TypeError, "`key` must be one random key"),
    "coefficients_keys": (lambda: warps.random_coefficients(KEYS, 3), ValueError, "`key`.*jax.vmap"),
    "size_zero": (
        lambda: warps.temperature_range(cutoff=3, size=0),
        ValueError,
        r"`size` must be a pair of integers \(height, width\), or one for both, each ≥ 1",
    ),
    "size_float": (lambda: warps.temperature_grid(size=(32.0, 32)), TypeError, "`size` must be a pair of integers"),
    "size_traced": (
        lambda: jax.jit(lambda n: warps.temperature(1.0, cutoff=3, size=n))(32),
        TypeError,
        "`size`.*traced.*static_argnames",
    ),
    "cutoffs_number": (lambda: warps.temperature_grid(size=32, cutoffs=3), TypeError, r"`cutoffs` must be.*`\(3,\)`"),
    "cutoffs_twice": (lambda: warps.temperature_grid(size=32, cutoffs=(3, 3)), ValueError, "`cutoffs`.*different"),
    "cutoffs_none": (lambda: warps.temperature_grid(size=32, cutoffs=()), ValueError, "`cutoffs` must be a tuple"),
    "cutoffs_small": (lambda: warps.temperature_grid(size=32, cutoffs=(3, 1)), ValueError, r"`cutoffs\[1\]`.*≥ 2"),
    "count_one": (lambda: warps.temperature_grid(size=32, count=1), ValueError, "`count` must be an integer ≥ 2"),
    "displacement_of_batch": (lambda: warps.mean_displacement(FIELDS), ValueError, "`field`.*jax.vmap"),
    "displacement_of_nan": (lambda: warps.mean_displacement(with_nan(FIELD)), ValueError, "`field` must be finite"),
    "factory_batch": (lambda: warps.random_tps()(KEY, IMAGES), ValueError, "`image` must have shape.*jax.vmap"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_is_refused_with_a_remedy(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=f"^Argument {message}"):
        call()


def test_public_names_have_docstrings_and_keyword_only_options():
    assert warps.__all__ == sorted(warps.__all__)
    for name in warps.__all__:
        function = getattr(warps, name)
        documentation = inspect.getdoc(function) or ""
        assert all(heading in documentation for heading in ("Args:", "Returns:", "Raises:")), name
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.default is parameter.empty or parameter.kind is parameter.KEYWORD_ONLY, (name, parameter)
            assert parameter.name in documentation, (name, parameter)
