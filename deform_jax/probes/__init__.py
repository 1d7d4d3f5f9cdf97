"""Measurements of networks: callables and parameter pytrees in, arrays out.

Needs only jax, numpy and jaxtyping. A network is any callable ``represent(images) -> {tap: activations}``.
"""

from deform_jax.probes.channels import average_channels, mean_channel, shuffle_channels
from deform_jax.probes.diffusion import (
    Exponents,
    asymptotic_exponents,
    diffusion_constant,
    diffusion_profile,
    drift,
    log_log_slope,
)
from deform_jax.probes.distances import cosine_distance, euclidean_distance, squared_distance
from deform_jax.probes.filters import filter_statistics, total_variation
from deform_jax.probes.homogeneous import (
    homogeneous_representations,
    receptive_field_size,
    translation_sensitivity,
)
from deform_jax.probes.modes import laplacian_modes, laplacian_power, mean_filter, spatial_frequency
from deform_jax.probes.noise import matched_noise, rectified_noise
from deform_jax.probes.receptive_field import effective_receptive_field
from deform_jax.probes.relative import RelativeSensitivity, relative_sensitivity, streamed_relative_sensitivity
from deform_jax.probes.sensitivity import SensitivityParts, sensitivity, sensitivity_parts
from deform_jax.probes.surgery import sharpen_filters, smooth_filters
from deform_jax.probes.theory import HomogeneousTheory, balanced_weights, homogeneous_network
from deform_jax.probes.worst_case import WorstCase, worst_case

__all__ = [
    "Exponents",
    "HomogeneousTheory",
    "RelativeSensitivity",
    "SensitivityParts",
    "WorstCase",
    "asymptotic_exponents",
    "average_channels",
    "balanced_weights",
    "cosine_distance",
    "diffusion_constant",
    "diffusion_profile",
    "drift",
    "effective_receptive_field",
    "euclidean_distance",
    "filter_statistics",
    "homogeneous_network",
    "homogeneous_representations",
    "laplacian_modes",
    "laplacian_power",
    "log_log_slope",
    "matched_noise",
    "mean_channel",
    "mean_filter",
    "receptive_field_size",
    "rectified_noise",
    "relative_sensitivity",
    "sensitivity",
    "sensitivity_parts",
    "sharpen_filters",
    "shuffle_channels",
    "smooth_filters",
    "spatial_frequency",
    "squared_distance",
    "streamed_relative_sensitivity",
    "total_variation",
    "translation_sensitivity",
    "worst_case",
]
