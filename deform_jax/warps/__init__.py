"""Random key → displacement field → warped image, each step a pure function of one image.

Many functions make displacement fields; only ``remap`` moves pixels. The sampling functions take a key and return
parameters, the geometry is deterministic, and everything is differentiable and meant to be vmapped::

    perturb = warps.random_tps(grid=(5, 5), max_shift=10.0)
    warp_batch = jax.jit(jax.vmap(perturb))
    deformed = warp_batch(jax.random.split(key, len(images)), images)  # each image gets its own warp
"""

from deform_jax.warps.affine import affine_field, rotation_field, scaling_field, translation_field
from deform_jax.warps.random import random_rotation, random_scaling, random_shifts, random_tps, random_translation
from deform_jax.warps.remap import remap
from deform_jax.warps.tps import control_points, deform_tps, tps_field

__all__ = [
    "affine_field",
    "control_points",
    "deform_tps",
    "random_rotation",
    "random_scaling",
    "random_shifts",
    "random_tps",
    "random_translation",
    "remap",
    "rotation_field",
    "scaling_field",
    "tps_field",
    "translation_field",
]
