"""Image sets as uint8 arrays, batches, augmentation and standardisation, all seeded."""

from deform_jax.data.augment import random_crop_flip
from deform_jax.data.batches import epoch_order
from deform_jax.data.images import ImageSet, load
from deform_jax.data.prepare import Prepare

__all__ = ["ImageSet", "Prepare", "epoch_order", "load", "random_crop_flip"]
