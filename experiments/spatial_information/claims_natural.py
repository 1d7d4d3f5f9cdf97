"""The claims of SI's sections 1 and 2 about networks trained on natural images, and of RS where SI relies on it.

Correlations are over architectures, which are what is resampled; curves are means over seeds, which are resampled.
Thresholds are ours, since SI gives scatter plots and curves.
"""

from collections.abc import Callable
from typing import Any

from experiments.common.claims import Claim
from experiments.common.statistics import Values
from experiments.spatial_information import claim_statistics as of

ZOO, CURVES, OTHERS = "fig1_error_and_sensitivity", "fig3_channel_shuffling", "fig11_channel_shuffling_others"
MODES = "fig4_filter_modes"

Statistic = Callable[[Values], float]


def _zoo(key: str, place: str, sentence: str, measures: str, statistic: Statistic, **bounds: Any) -> Claim:
    return Claim(
        key,
        place,
        sentence,
        ZOO,
        measures,
        statistic,
        value="value",
        by=("architecture", "state", "measure"),
        over="groups",
        where={"noise_norm": 0.0, "learned": 1.0},
        **bounds,
    )


def _noisy(key: str, sentence: str, measures: str, statistic: Statistic, **bounds: Any) -> Claim:
    return Claim(
        key,
        "1, Figs 1 (right), 10",
        sentence,
        ZOO,
        measures,
        statistic,
        value="value",
        by=("architecture", "noise_norm", "state", "measure"),
        over="groups",
        where={"learned": 1.0},
        **bounds,
    )


def _curve(key: str, sentence: str, measures: str, statistic: Statistic, figure: str = CURVES, **bounds: Any) -> Claim:
    return Claim(
        key,
        "2, Fig. 3" if figure == CURVES else "2, Fig. 11",
        sentence,
        figure,
        measures,
        statistic,
        value="R",
        by=("architecture", "state", "shuffled"),
        where={"kind": "convolution"},
        **bounds,
    )


def _modes(key: str, sentence: str, measures: str, statistic: Statistic, **bounds: Any) -> Claim:
    return Claim(
        key,
        "2, Figs 4, 12",
        sentence,
        MODES,
        measures,
        statistic,
        value="frequency",
        by=("architecture", "state"),
        where={"mode": 0.0},
        **bounds,
    )


CLAIMS = (
    _zoo(
        "error_rises_with_D",
        "1, Fig. 10",
        "The test error of trained networks is correlated with D_f",
        "ρ(ε, D_f) over architectures",
        of.correlation("D"),
        correlation=True,
        low=0.0,
    ),
    _zoo(
        "error_falls_with_G",
        "1, Fig. 10",
        "The test error is anti-correlated with the sensitivity to white noise G_f",
        "ρ(ε, G_f) over architectures",
        of.correlation("G"),
        correlation=True,
        high=0.0,
    ),
    _zoo(
        "error_rises_with_R",
        "1, Fig. 1 (centre)",
        "The relative sensitivity R_f correlates with the error",
        "ρ(ε, R_f) over architectures",
        of.correlation("R"),
        correlation=True,
        low=0.0,
    ),
    _zoo(
        "R_correlates_best",
        "1",
        "It is the relative sensitivity R_f which correlates best with the error",
        "|ρ(ε, R_f)| less the larger of |ρ(ε, D_f)| and |ρ(ε, G_f)|",
        of.best_of_three,
        low=0.0,
    ),
    _zoo(
        "learned_over_training",
        "1",
        "This correlation is learned over training, as it is not seen at initialisation",
        "ρ(ε, R_f) after training, less that with R_f at initialisation",
        of.learned_correlation,
        low=0.0,
    ),
    _zoo(
        "rs_error_rises_with_R",
        "RS",
        "The error is correlated with R_f, by RS's medians",
        "ρ(ε, R_f), R_f by medians",
        of.correlation("R_median"),
        correlation=True,
        low=0.0,
    ),
    _zoo(
        "rs_exponent",
        "RS",
        "ε ≈ 0.2 √R_f on CIFAR10: the exponent",
        "b of ε = a R_f^b, R_f by medians",
        lambda values: of.power_law(values)[1],
        low=0.4,
        high=0.6,
    ),
    _zoo(
        "rs_prefactor",
        "RS",
        "ε ≈ 0.2 √R_f on CIFAR10: the prefactor",
        "a of ε = a R_f^b, R_f by medians",
        lambda values: of.power_law(values)[0],
        low=0.15,
        high=0.25,
    ),
    _noisy(
        "persists_under_noise",
        "The correlation with R_f persists when white noise is added to the training set",
        "least ρ(ε, R_f) over the magnitudes of noise",
        of.least_under_noise("R"),
        correlation=True,
        low=0.0,
    ),
    _noisy(
        "D_under_noise",
        "With training noise too, D_f is positively correlated with the error",
        "least ρ(ε, D_f) over the magnitudes of noise",
        of.least_under_noise("D"),
        correlation=True,
        low=0.0,
    ),
    _noisy(
        "G_under_noise",
        "With training noise too, G_f is negatively correlated with the error",
        "least −ρ(ε, G_f) over the magnitudes of noise",
        of.least_under_noise("G", -1),
        correlation=True,
        low=0.0,
    ),
    _curve(
        "R_falls_after_each_layer",
        "The relative sensitivity R_k decreases after each layer",
        "share of successive convolutions of the VGGs at which R falls",
        of.share_falling,
        low=0.9,
    ),
    _curve(
        "R_falls_with_depth",
        "Insensitivity is built layer by layer",
        "largest ratio over the VGGs of R at the last convolution to R at the first",
        of.last_over_first(0),
        high=1.0,
    ),
    _curve(
        "channel_pooling",
        "Shuffling channels raises R_k: channel pooling is performed",
        "shuffled over whole R, geometric mean over layers and VGGs",
        of.raised_by_shuffling,
        low=1.0,
    ),
    _curve(
        "spatial_pooling",
        "The shuffled curves are not constant: spatial pooling is performed",
        "largest ratio over the VGGs of shuffled R at the last convolution to that at the first",
        of.last_over_first(1),
        high=1.0,
    ),
    _curve(
        "gaps_at_layers_7_8",
        "Larger gaps between shuffled and whole curves of VGG11 and VGG11bn open at layers 7 and 8",
        "increase per layer of log shuffled over whole R at layers 7 and 8, less that at layers 2 to 6",
        of.gap_opens(of.UPPER),
        low=0.0,
    ),
    _curve(
        "gap_at_layer_1",
        "Larger gaps between shuffled and whole curves of VGG11 and VGG11bn open at layer 1 (colour images only)",
        "log shuffled over whole R at layer 1, less its increase per layer at layers 2 to 6",
        of.gap_opens(slice(0, 1)),
        low=0.0,
    ),
    _curve(
        "shuffled_curves_coincide",
        "The shuffled curves of VGG11 and VGG11bn overlap",
        "mean over layers of |log ratio| of the two shuffled curves",
        of.shuffled_apart,
        high=0.2,
    ),
    _curve(
        "channel_pooling_others",
        "Shuffling channels raises R_k in LeNet and AlexNet too",
        "shuffled over whole R, geometric mean over layers and both networks",
        of.raised_by_shuffling,
        OTHERS,
        low=1.0,
    ),
    _curve(
        "spatial_pooling_others",
        "The shuffled curves of LeNet and AlexNet are not constant",
        "largest ratio over both networks of shuffled R at the last convolution to that at the first",
        of.last_over_first(1),
        OTHERS,
        high=1.0,
    ),
    _modes(
        "layers_2_to_6_low_frequency",
        "On CIFAR10 filters of layers 2 to 6 of VGG11 and VGG11bn become low-frequency with training",
        "largest trained over initial spatial frequency, over layers 2 to 6",
        of.frequency_change(of.MIDDLE, max, of.VGG11),
        high=1.0,
    ),
    _modes(
        "layers_1_7_8_not",
        "… while layers 1, 7 and 8 do not",
        "smallest trained over initial spatial frequency, over layers 1, 7 and 8",
        of.frequency_change(of.OUTER, min, of.VGG11),
        low=0.9,
    ),
)
