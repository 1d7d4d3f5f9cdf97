"""Image sets as uint8 arrays or streams, augmentation, standardisation and tasks made from them, all seeded."""

from deform_jax.data.active_pixels import ActivePixels, displace_pixels, pixel_displacements, render_pixels
from deform_jax.data.augment import random_crop_flip
from deform_jax.data.combinatorial import FeatureSplit, combinatorial_images, combinatorial_split
from deform_jax.data.corruptions import additive_noise, random_images, random_labels
from deform_jax.data.deformed_templates import DeformedTemplates, choose_templates, deformed_templates
from deform_jax.data.features import (
    Combinatorial,
    combination_held_out,
    combination_label,
    displace_features,
    feature_vocabulary,
    render_features,
)
from deform_jax.data.imagenet import IMAGENET_PREPARE, ImageStream, stream
from deform_jax.data.images import ImageSet, load, pad_images
from deform_jax.data.photographs import read_photograph, read_photographs, write_photograph
from deform_jax.data.prepare import Prepare
from deform_jax.data.scale_detection import (
    PairSplit,
    PixelPairs,
    ScaleDetection,
    active_value,
    balanced_split,
    pair_images,
    pixel_pairs,
    scale_detection,
)
from deform_jax.data.splits import validation_split

__all__ = [
    "IMAGENET_PREPARE",
    "ActivePixels",
    "Combinatorial",
    "DeformedTemplates",
    "FeatureSplit",
    "ImageSet",
    "ImageStream",
    "PairSplit",
    "PixelPairs",
    "Prepare",
    "ScaleDetection",
    "active_value",
    "additive_noise",
    "balanced_split",
    "choose_templates",
    "combination_held_out",
    "combination_label",
    "combinatorial_images",
    "combinatorial_split",
    "deformed_templates",
    "displace_features",
    "displace_pixels",
    "feature_vocabulary",
    "load",
    "pad_images",
    "pair_images",
    "pixel_displacements",
    "pixel_pairs",
    "random_crop_flip",
    "random_images",
    "random_labels",
    "read_photograph",
    "read_photographs",
    "render_features",
    "render_pixels",
    "scale_detection",
    "stream",
    "validation_split",
    "write_photograph",
]
