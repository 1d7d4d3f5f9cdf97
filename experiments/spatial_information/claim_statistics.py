"""The statistics on which SI's claims of sections 1 and 2 are tested: from grouped tables to one number."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.common import statistics
from experiments.common.statistics import Values
from experiments.spatial_information import errors

VGG11 = ("vgg11", "vgg11_bn")
MIDDLE, OUTER, UPPER = slice(1, 6), (0, 6, 7), slice(6, 8)
"""Layers 2 to 6; 1, 7 and 8; 7 and 8 of VGG11's eight convolutions."""


def correlation(measure: str, state: str = "trained") -> Callable[[Values], float]:
    """Return ρ(ε, X) of keys (architecture, state, measure)."""
    return lambda values: errors.correlation(values, measure, state)


def best_of_three(values: Values) -> float:
    """Return |ρ(ε, R)| less the larger of |ρ(ε, D)| and |ρ(ε, G)|."""
    size = {name: abs(errors.correlation(values, name)) for name in errors.MEASURES}
    return size["R"] - max(size["D"], size["G"])


def learned_correlation(values: Values) -> float:
    """Return ρ(ε, R) of trained networks, less that of the same errors with R at initialisation."""
    return errors.correlation(values, "R") - errors.correlation(values, "R", "init")


def least_under_noise(measure: str, sign: int = 1) -> Callable[[Values], float]:
    """Return the least of sign · ρ(ε, X) over the magnitudes of training noise; keys have the noise second."""

    def statistic(values: Values) -> float:
        noises = sorted({key[1] for key in values if key[1]})
        found = [sign * errors.correlation(at_noise(values, noise), measure) for noise in noises]
        return min(found, default=math.nan)

    return statistic


def at_noise(values: Values, noise: float) -> Values:
    """Return the groups of one magnitude of noise, which is the second part of the keys."""
    return {(key[0], *key[2:]): array for key, array in values.items() if key[1] == noise}


def power_law(values: Values) -> tuple[float, float]:
    """Return a and b of ε = a R^b by least squares in the logarithms, R by RS's medians, one point per architecture."""
    names = list(dict.fromkeys(key[0] for key in values))
    if len(names) < 3:
        return math.nan, math.nan
    x, y = (
        np.asarray([np.log(values[name, "trained", measure]).mean() for name in names])
        for measure in ("R_median", "error")
    )
    if x.std() == 0:
        return math.nan, math.nan
    slope, intercept = np.polyfit(x, y, 1)
    return float(np.exp(intercept)), float(slope)


def curve(values: Values, architecture: Any, state: str = "trained", shuffled: float = 0) -> np.ndarray:
    """Return log R_k, its mean over seeds, of keys (architecture, state, shuffled)."""
    return np.log(values[architecture, state, shuffled]).mean(axis=0)


def architectures(values: Values) -> list[Any]:
    """Return the architectures in order of appearance; of resampled ones, all that were drawn."""
    return list(dict.fromkeys(key[0] for key in values))


def share_falling(values: Values) -> float:
    """Return the share of successive layers at which R falls, over architectures."""
    steps = [np.diff(curve(values, name)) for name in architectures(values)]
    return float(np.mean(np.concatenate(steps) < 0))


def last_over_first(shuffled: float) -> Callable[[Values], float]:
    """Return the largest ratio over architectures of R at the last convolution to R at the first."""

    def statistic(values: Values) -> float:
        curves = [curve(values, name, shuffled=shuffled) for name in architectures(values)]
        return float(np.exp(max(one[-1] - one[0] for one in curves)))

    return statistic


def gap(values: Values, architecture: Any) -> np.ndarray:
    """Return log of shuffled over whole R_k."""
    return curve(values, architecture, shuffled=1) - curve(values, architecture)


def raised_by_shuffling(values: Values) -> float:
    """Return shuffled over whole R, geometric mean over layers and architectures."""
    return float(np.exp(np.mean([gap(values, name).mean() for name in architectures(values)])))


def gap_opens(layers: slice) -> Callable[[Values], float]:
    """Return how much more the gap opens at some layers of VGG11 and VGG11bn than at layers 2 to 6, per layer.

    nan where shuffling changes nothing at these layers, as at the first one of grey images, or without these networks.
    """

    def statistic(values: Values) -> float:
        chosen = [name for name in VGG11 if name in architectures(values)]
        opened = [np.diff(gap(values, name), prepend=0.0) for name in chosen]
        if not opened or all(np.all(one[layers] == 0) for one in opened):
            return math.nan
        return float(np.mean([one[layers].mean() - one[MIDDLE].mean() for one in opened]))

    return statistic


def shuffled_apart(values: Values) -> float:
    """Return by how much the shuffled curves of VGG11 and VGG11bn differ: mean over layers of |log ratio|."""
    if not set(VGG11).issubset(architectures(values)):
        return math.nan
    plain, normed = (curve(values, name, shuffled=1) for name in VGG11)
    return float(np.abs(plain - normed).mean())


def frequency_change(
    layers: slice | Sequence[int], extreme: Callable[..., float], names: Sequence[str] | None = None
) -> Callable[[Values], float]:
    """Return the extreme, over layers and architectures, of trained over initial spatial frequency.

    Args:
      layers: which convolutions, from 0.
      extreme: ``min`` or ``max``.
      names: architectures; None: all there are.
    """

    def statistic(values: Values) -> float:
        chosen = [group for group in architectures(values) if names is None or statistics.name_of(group) in names]
        ratios = [
            (values[name, "trained"].mean(axis=0) / values[name, "init"].mean(axis=0))[np.r_[layers]] for name in chosen
        ]
        return float(extreme(np.concatenate(ratios))) if ratios else math.nan

    return statistic
