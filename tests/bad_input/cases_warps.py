"""The campaign's table for ``deform_jax.warps``."""

import jax.numpy as jnp
import numpy as np
from campaign_runner import Case
from hostile_values import NAMES, array, integer, key, number, option, sizes

from deform_jax import warps

NAMES["warps"] = warps

IMAGE, FIELD, SHIFTS, MODES = array((5, 4, 2)), array((5, 4, 2)), array((3, 2, 2)), array((2, 3, 3))
SHAPE = sizes("(5, 4)", "(4, 4)", "[4, 5]")
BOUNDARY, FILL = option("'edge'", "'constant'"), number("0.0", "1.5")
TEMPERATURE = number("1e-3", "0", "jnp.asarray(1e-3)")
SIZE = integer("32", "(32, 24)", also=("(0, 4)", "(4,)", "(10**9, 4)", "[8, 8]", "(2.0, 3)"))
CUTOFF = integer("3", "5")


def field(result, given):
    """Float32 or better of the given shape, with two components."""
    return result.shape == (*(int(side) for side in given["shape"]), 2) and result.dtype == jnp.float32


def like_image(result, given):
    """Of the image's shape and dtype, float64 counting as float32."""
    image = np.asarray(given["image"])
    dtype = jnp.float32 if image.dtype == np.float64 else image.dtype
    return result.shape == image.shape and result.dtype == dtype


def perturbed(factory):
    """The factory and what it makes, in one call."""
    return lambda key, image, **settings: factory(**settings)(key, image)


def scalar(result, given):
    return np.shape(result) == ()


def folds(given):
    """Displacements beyond float32 are so in truth: what a field multiplies can leave float32."""
    return False


def _perturb(name, **settings):
    arguments = {"key": key(), "image": IMAGE, **settings, "boundary": BOUNDARY, "fill": FILL}
    return Case(f"warps.{name}", arguments, like_image, call=perturbed(getattr(warps, name)), traced=("key", "image"))


CASES = (
    Case(
        "warps.affine_field",
        {"matrix": array((2, 2)), "translation": array((2,)), "shape": SHAPE},
        field,
        traced=("matrix", "translation"),
    ),
    Case("warps.translation_field", {"translation": array((2,)), "shape": SHAPE}, field, traced=("translation",)),
    Case("warps.rotation_field", {"angle": number("0.1", "-2"), "shape": SHAPE}, field, traced=("angle",)),
    Case("warps.scaling_field", {"factor": number("1.1", "2"), "shape": SHAPE}, field, traced=("factor",)),
    Case(
        "warps.control_points",
        {"grid": sizes("(3, 2)"), "shape": SHAPE},
        lambda result, given: result.shape == (*map(int, given["grid"]), 2),
    ),
    Case("warps.tps_field", {"shifts": SHIFTS, "shape": SHAPE}, field, traced=("shifts",)),
    Case(
        "warps.deform_tps",
        {"shifts": SHIFTS, "image": IMAGE, "boundary": BOUNDARY, "fill": FILL},
        like_image,
        traced=("shifts", "image", "fill"),
    ),
    Case(
        "warps.max_entropy_field",
        {"coefficients": MODES, "shape": SHAPE, "temperature": TEMPERATURE},
        field,
        traced=("coefficients", "temperature"),
    ),
    Case(
        "warps.deform_max_entropy",
        {"coefficients": MODES, "image": IMAGE, "temperature": TEMPERATURE, "boundary": BOUNDARY, "fill": FILL},
        like_image,
        traced=("coefficients", "image", "temperature", "fill"),
    ),
    Case("warps.mean_displacement", {"field": FIELD}, scalar, traced=("field",)),
    Case(
        "warps.remap",
        {"image": IMAGE, "field": FIELD, "boundary": BOUNDARY, "fill": FILL},
        like_image,
        traced=("image", "field", "fill"),
    ),
    Case(
        "warps.random_shifts",
        {"key": key(), "grid": sizes("(3, 2)"), "max_shift": number("2.0", "0")},
        lambda result, given: result.shape == (*map(int, given["grid"]), 2) and result.dtype == jnp.float32,
        traced=("key", "max_shift"),
    ),
    Case(
        "warps.random_coefficients",
        {"key": key(), "cutoff": CUTOFF},
        lambda result, given: result.shape == (2, given["cutoff"], given["cutoff"]),
        traced=("key",),
    ),
    _perturb("random_tps", grid=sizes("(3, 2)"), max_shift=number("2.0", "0")),
    _perturb("random_max_entropy", displacement=number("1.0", "0"), cutoff=CUTOFF),
    _perturb("random_translation", max_shift=number("2.0", "0")),
    _perturb("random_rotation", max_angle=number("0.2", "0")),
    _perturb("random_scaling", max_factor=number("1.1", "1")),
    Case(
        "warps.temperature",
        {"displacement": number("1.0", "0"), "cutoff": CUTOFF, "size": SIZE},
        scalar,
        traced=("displacement",),
    ),
    Case(
        "warps.typical_displacement",
        {"temperature": TEMPERATURE, "cutoff": CUTOFF, "size": SIZE},
        scalar,
        traced=("temperature",),
    ),
    Case("warps.temperature_range", {"cutoff": CUTOFF, "size": SIZE}, lambda result, given: len(result) == 2),
    Case(
        "warps.temperature_grid",
        {
            "size": SIZE,
            "cutoffs": integer("(3, 5)", "[3]", also=("(3, 3)", "()", "(1,)", "(3.0,)", "('3',)", "(10**9,)", "3")),
            "count": integer("5", "2"),
        },
        lambda result, given: [len(row) for row in result.values()] == [given["count"]] * len(given["cutoffs"]),
    ),
)
EXEMPT: dict[str, str] = {}
