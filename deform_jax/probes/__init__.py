"""Measurements of networks: callables and parameter pytrees in, arrays out.

Needs only jax, numpy and jaxtyping. A network is any callable ``represent(images) -> {tap: activations}``.
"""

from deform_jax.probes.distances import cosine_distance, euclidean_distance, squared_distance
from deform_jax.probes.filters import filter_statistics, total_variation
from deform_jax.probes.sensitivity import SensitivityParts, sensitivity, sensitivity_parts
from deform_jax.probes.surgery import sharpen_filters, smooth_filters
from deform_jax.probes.worst_case import WorstCase, worst_case

__all__ = [
    "SensitivityParts",
    "WorstCase",
    "cosine_distance",
    "euclidean_distance",
    "filter_statistics",
    "sensitivity",
    "sensitivity_parts",
    "sharpen_filters",
    "smooth_filters",
    "squared_distance",
    "total_variation",
    "worst_case",
]
