"""The claims of SI's section 3 and appendix C on scale detection, of the zoo in two dimensions.

Correlations are over architectures, which are what is resampled. Thresholds are ours, as in ``claims_natural``.
"""

from collections.abc import Callable
from typing import Any

from experiments.common.claims import Claim
from experiments.common.statistics import Values
from experiments.spatial_information import claim_statistics as of
from experiments.spatial_information import scale_claim_statistics as on

ZOO, CURVES, MODES = "fig8_scale_detection_zoo", "fig9_scale_detection_layers", "fig4_scale_detection"

Statistic = Callable[[Values], float]


def _zoo(key: str, place: str, sentence: str, measures: str, statistic: Statistic, **bounds: Any) -> Claim:
    return Claim(
        f"scale_detection_{key}",
        place,
        f"Scale detection: {sentence}",
        ZOO,
        measures,
        statistic,
        value="value",
        by=("architecture", "state", "measure"),
        over="groups",
        where={"noise_norm": 0.0, "learned": 1.0},
        **bounds,
    )


def _curves(key: str, column: str, measures: str, statistic: Statistic, **bounds: Any) -> Claim:
    return Claim(
        f"scale_detection_{key}",
        "3, Fig. 9",
        f"Scale detection: {column}_k of AlexNet and the VGGs is essentially unaltered if channels are shuffled",
        CURVES,
        measures,
        statistic,
        value=column,
        by=("architecture", "state", "shuffled"),
        where={"kind": "convolution"},
        **bounds,
    )


def _modes(key: str, sentence: str, measures: str, statistic: Statistic, **bounds: Any) -> Claim:
    return Claim(
        f"scale_detection_{key}",
        "3, Fig. 4 (bottom)",
        f"Scale detection: {sentence}",
        MODES,
        measures,
        statistic,
        value="share",
        by=("architecture", "state"),
        where={"mode": 0.0},
        **bounds,
    )


CLAIMS = (
    _zoo(
        "error_rises_with_D",
        "3, Fig. 8",
        "the test error is positively correlated with D_f",
        "ρ(ε, D_f) over architectures",
        of.correlation("D"),
        correlation=True,
        low=0.0,
    ),
    _zoo(
        "error_falls_with_G",
        "3, Fig. 8",
        "the test error is negatively correlated with G_f",
        "ρ(ε, G_f) over architectures",
        of.correlation("G"),
        correlation=True,
        high=0.0,
    ),
    _zoo(
        "error_rises_with_R",
        "3, Fig. 8",
        "the error correlates well with the relative sensitivity R_f",
        "ρ(ε, R_f) over architectures",
        of.correlation("R"),
        correlation=True,
        low=0.0,
    ),
    _zoo(
        "R_correlates_best",
        "C, Fig. 8",
        "the correlation is the strongest for the relative measure R_f",
        "|ρ(ε, R_f)| less the larger of |ρ(ε, D_f)| and |ρ(ε, G_f)|",
        of.best_of_three,
        low=0.0,
    ),
    Claim(
        "best_on_both",
        "1",
        "The networks that perform best on real data tend to be best on scale detection",
        "rank_correlation",
        "Spearman's ρ over architectures of the errors on either",
        on.rank_correlation,
        value="error",
        by=("architecture", "images"),
        over="groups",
        correlation=True,
        low=0.0,
    ),
    *(
        _curves(
            f"shuffling_{column}",
            column,
            f"shuffled over whole {column}, geometric mean over layers and networks",
            on.raised_by_shuffling,
            low=0.8,
            high=1.25,
        )
        for column in "DGR"
    ),
    _curves(
        "shuffling_layers",
        "R",
        "mean |log ratio| of shuffled to whole R, over layers and networks",
        on.shuffled_apart,
        high=0.2,
    ),
    _modes(
        "constant_mode_dominates",
        "the constant mode grows much larger than all others in layers 1 to 7 of VGG11 and VGG11bn",
        "its share of the power after training, least over layers 1 to 7",
        on.least_constant,
        low=0.5,
    ),
    _modes(
        "constant_mode_grows",
        "the constant mode's share grows over training in each of layers 1 to 7 of VGG11 and VGG11bn",
        "its share after training over that before, least over layers 1 to 7",
        on.least_growth,
        low=1.0,
    ),
)
