"""Image sets as uint8 arrays or streams, augmentation, standardisation and tasks made from them, all seeded."""

from deform_jax.data.augment import random_crop_flip
from deform_jax.data.corruptions import random_images, random_labels
from deform_jax.data.deformed_templates import DeformedTemplates, choose_templates, deformed_templates
from deform_jax.data.imagenet import IMAGENET_PREPARE, ImageStream, stream
from deform_jax.data.images import ImageSet, load
from deform_jax.data.prepare import Prepare

__all__ = [
    "IMAGENET_PREPARE",
    "DeformedTemplates",
    "ImageSet",
    "ImageStream",
    "Prepare",
    "choose_templates",
    "deformed_templates",
    "load",
    "random_crop_flip",
    "random_images",
    "random_labels",
    "stream",
]
