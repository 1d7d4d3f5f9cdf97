"""The statistics on which SI's claims of sections 3 and 4 are tested: from grouped tables to one number."""

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np

from experiments.common import statistics
from experiments.common.statistics import Values
from experiments.spatial_information import claim_statistics as of
from experiments.spatial_information import measures, simple, simple_measures
from experiments.spatial_information.fig7_simple_cnns import slope
from experiments.spatial_information.two_dimensions import upper_slope

Statistic = Callable[[Values], float]

FIRST_SEVEN = slice(0, 7)
"""Layers 1 to 7 of VGG11's eight convolutions."""


@functools.cache
def exact(task: str) -> Mapping[str, np.ndarray]:
    """Return A, D, G and R of the homogeneous network of a task, layer by layer."""
    found = simple_measures.theory(task)
    parts = {name: getattr(found, part) for name, part in measures.COLUMNS.items()}
    return {"A": found.receptive_field, **parts}


def first_part(task: str) -> slice:
    """Return which layers are the first part of a simple CNN."""
    return slice(simple.CASES[task].first_part)


def trained_slope(task: str, column: str) -> Statistic:
    """Return the slope of log X_k against log A_k after training, both as measured, over the first part.

    Keys are (task, state, column), as in all statistics of simple CNNs here. nan where some layer of it is dead.
    """
    part = first_part(task)

    def statistic(values: Values) -> float:
        widths = values[task, "trained", "A"].mean(axis=0)
        return slope(widths[part], np.exp(_log(values[task, "trained", column]).mean(axis=0))[part])

    return statistic


def beyond_exact(task: str, column: str) -> Statistic:
    """Return ``trained_slope`` less that of the homogeneous network, of the same size and depth."""
    measured, part = trained_slope(task, column), first_part(task)
    return lambda values: measured(values) - slope(exact(task)["A"][part], exact(task)[column][part])


def initial_slope(task: str) -> Statistic:
    """Return the larger |slope| of log D_k and log G_k at initialisation, against A_k of homogeneous filters."""
    part = first_part(task)

    def statistic(values: Values) -> float:
        curves = [np.exp(_log(values[task, "init", column]).mean(axis=0))[part] for column in "DG"]
        return max(abs(slope(exact(task)["A"][part], curve)) for curve in curves)

    return statistic


def apart(task: str, state: str, columns: str) -> Statistic:
    """Return the mean |log ratio| of networks in another state to the trained ones, over the first part's layers.

    Of every network by itself, averaged over ``columns`` and networks. A layer that is dead, so that it has no
    sensitivity, counts as one that is ten times off.
    """
    part = first_part(task)

    def statistic(values: Values) -> float:
        logs = [_log(values[task, state, name]) - _log(values[task, "trained", name]) for name in columns]
        return float(np.mean(np.nan_to_num(np.abs(logs), nan=math.log(10))[..., part]))

    return statistic


def misclassified(task: str) -> Statistic:
    """Return the largest number of test pairs that a network misclassifies; keys are (task, column)."""
    return lambda values: float(np.max(values[task, "test_error"] * values[task, "test_pairs"]))


def unevenness(task: str) -> Statistic:
    """Return the sd over places of the mean filter, over its |mean|: largest over the first part, mean over seeds.

    Keys are (task, place).
    """

    def statistic(values: Values) -> float:
        filters = np.stack(list(values.values()))[..., first_part(task)]
        return float((filters.std(axis=0) / np.abs(filters.mean(axis=0))).mean(axis=0).max())

    return statistic


def positive_layers(values: Values) -> float:
    """Return up to which layer mean filters are positive everywhere, mean over seeds; keys are (task, place)."""
    positive = np.all(np.stack(list(values.values())) > 0, axis=0)
    return float(np.cumprod(positive, axis=1).sum(axis=1).mean())


def uneven_left(task: str) -> Statistic:
    """Return what training leaves of the power of mean filters outside the constant mode, as a share, over the layers.

    Keys are (task, state, place); shares are means over seeds and the first part.
    """

    def share(values: Values, state: str) -> float:
        filters = np.stack([array for key, array in values.items() if key[1] == state])[..., first_part(task)]
        return float((filters.var(axis=0) / np.square(filters).mean(axis=0)).mean())

    return lambda values: share(values, "trained") / share(values, "init")


def alive(values: Values) -> Values:
    """Return the values without the networks that have a dead layer; keys are (architecture, state, shuffled)."""
    found: dict[tuple, np.ndarray] = {}
    for name in of.architectures(values):
        own = {key: array for key, array in values.items() if key[0] == name}
        good = np.all([np.isfinite(_log(array)).all(axis=1) for array in own.values()], axis=0)
        found |= {key: array[good] for key, array in own.items() if good.any()}
    return found


def raised_by_shuffling(values: Values) -> float:
    """Return shuffled over whole, geometric mean over layers and architectures, of networks that are alive."""
    found = alive(values)
    return of.raised_by_shuffling(found) if found else math.nan


def shuffled_apart(values: Values) -> float:
    """Return the mean |log ratio| of shuffled to whole, over layers, architectures and seeds that are alive."""
    found = alive(values)
    gaps = [_log(found[name, "trained", 1]) - _log(found[name, "trained", 0]) for name in of.architectures(found)]
    return float(np.mean([np.abs(gap).mean() for gap in gaps])) if gaps else math.nan


def least_constant(values: Values) -> float:
    """Return the constant mode's share after training: its least over layers 1 to 7 of VGG11 and VGG11bn.

    Keys are (architecture, state); shares are means over seeds. nan without these networks.
    """
    return min((float(_share(values, name, "trained").min()) for name in _vgg11(values)), default=math.nan)


def least_growth(values: Values) -> float:
    """Return the constant mode's share after training over that before, its least over the same layers."""
    ratios = [_share(values, name, "trained") / _share(values, name, "init") for name in _vgg11(values)]
    return min((float(ratio.min()) for ratio in ratios), default=math.nan)


def _share(values: Values, name: str, state: str) -> np.ndarray:
    return values[name, state].mean(axis=0)[FIRST_SEVEN]


def _vgg11(values: Values) -> list[str]:
    return [name for name in of.architectures(values) if name in of.VGG11]


def exponent(column: str, *, area: bool = False) -> Statistic:
    """Return the exponent of the largest image in two dimensions: X_k against the width A_k, or against A_k².

    Keys are (dimensions, side, column); over the upper half of the layers.
    """

    def statistic(values: Values) -> float:
        dimensions, side, _ = max(values)
        widths, found = (values[dimensions, side, name][0] for name in ("A", column))
        return upper_slope(widths**2 if area else widths, found)

    return statistic


def rank_correlation(values: Values) -> float:
    """Return Spearman's ρ over architectures of the errors on real images and on scale detection.

    Keys are (architecture, images); errors are geometric means over seeds. nan for fewer than three architectures, or
    where all errors are the same.
    """
    from scipy import stats  # takes longer to import than all else

    names = of.architectures(values)
    x, y = (np.asarray([_log(values[name, images]).mean() for name in names]) for images in ("real", "scale_detection"))
    different = {statistics.name_of(name) for name in names}
    if len(different) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _log(values: np.ndarray) -> np.ndarray:
    """Return the logarithm, nan of what is not positive: a sensitivity of a layer that is dead."""
    return np.log(np.where(values > 0, values, np.nan))
