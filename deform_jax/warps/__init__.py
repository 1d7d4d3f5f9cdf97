"""Random key → displacement field → warped image, each step a pure function of one image.

Many functions make displacement fields; only ``remap`` moves pixels. The sampling functions take a key and return
parameters, the geometry is deterministic, and everything is differentiable and meant to be vmapped::

    perturb = warps.random_tps(grid=(5, 5), max_shift=10.0)
    warp_batch = jax.jit(jax.vmap(perturb))
    deformed = warp_batch(jax.random.split(key, len(images)), images)  # each image gets its own warp

Thin-plate splines (``random_tps``) are Ruderman et al.'s deformations. Maximum-entropy diffeomorphisms
(``random_max_entropy``, and the temperatures they are measured in) are those of Petrini et al. and Tomasini et al.
Translations, rotations and scalings of the whole picture complete them.
"""

from deform_jax.warps.affine import affine_field, rotation_field, scaling_field, translation_field
from deform_jax.warps.max_entropy import deform_max_entropy, max_entropy_field, mean_displacement
from deform_jax.warps.random import (
    random_coefficients,
    random_max_entropy,
    random_rotation,
    random_scaling,
    random_shifts,
    random_tps,
    random_translation,
)
from deform_jax.warps.remap import remap
from deform_jax.warps.temperatures import temperature, temperature_grid, temperature_range, typical_displacement
from deform_jax.warps.tps import control_points, deform_tps, tps_field

__all__ = [
    "affine_field",
    "control_points",
    "deform_max_entropy",
    "deform_tps",
    "max_entropy_field",
    "mean_displacement",
    "random_coefficients",
    "random_max_entropy",
    "random_rotation",
    "random_scaling",
    "random_shifts",
    "random_tps",
    "random_translation",
    "remap",
    "rotation_field",
    "scaling_field",
    "temperature",
    "temperature_grid",
    "temperature_range",
    "tps_field",
    "translation_field",
    "typical_displacement",
]
