"""The empirical claims of SI, and of RS where SI relies on it, each with the statistic and rule that test it."""

from experiments.spatial_information import claims_natural, claims_pretrained, claims_scale_detection, claims_simple

CLAIMS = (
    *claims_natural.CLAIMS,
    *claims_pretrained.CLAIMS,
    *claims_scale_detection.CLAIMS,
    *claims_simple.CLAIMS,
)
