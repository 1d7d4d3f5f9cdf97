"""Image sets as uint8 arrays, augmentation and standardisation, all seeded."""

from deform_jax.data.augment import random_crop_flip
from deform_jax.data.images import ImageSet, load
from deform_jax.data.prepare import Prepare

__all__ = ["ImageSet", "Prepare", "load", "random_crop_flip"]
