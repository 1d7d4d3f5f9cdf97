"""The statistics that test LS's claims: from {(downsampling, …): (seeds, layers)} to a number, the input left out.

Means are over seeds; where a statistic needs more than there is to compare, it is nan.
"""

import itertools
from collections.abc import Callable

import numpy as np

from experiments.common import statistics
from experiments.common.statistics import Values
from experiments.learned_stability import fig3_layer_sensitivity
from experiments.learned_stability.recipes import POOLED

EARLY = 3
"""Layers 1 to 3: the first block."""
FIRST_DOWN = 2
"""Index, after the input, of the first downsampling of both networks."""


def mean(values: Values, *, state: str, pooled: bool | None = None) -> np.ndarray:
    """Return the mean over downsamplings and seeds, by layer."""
    chosen = [
        array.mean(axis=0)
        for key, array in values.items()
        if key[1] == state and (pooled is None or (key[0] in POOLED) == pooled)
    ]
    return np.mean(chosen, axis=0) if chosen else np.full(1, np.nan)


def ratio(state: str) -> Callable[[Values], float]:
    """Return the geometric mean over layers, from the first downsampling on, of unpooled over pooled."""
    return lambda values: fig3_layer_sensitivity.gap(values, state, FIRST_DOWN)["ratio"]


def pooled_change(values: Values) -> float:
    before, after = (mean(values, state=state, pooled=True) for state in ("init", "trained"))
    return float((np.abs(after - before) / before).mean())


def log_change(values: Values, layers: slice) -> float:
    before, after = (mean(values, state=state) for state in ("init", "trained"))
    return float(np.log(after / before)[layers].mean())


def share_raised(values: Values) -> float:
    names = [key[0] for key in values if key[1] == "init"]
    raised = [values[n, "trained"].mean(axis=0) > values[n, "init"].mean(axis=0) for n in names]
    return float(np.mean(raised))


def spread(values: Values, state: str) -> float:
    return statistics.relative_spread([array for key, array in values.items() if key[1] == state])


def spread_left(values: Values) -> float:
    return spread(values, "trained") / spread(values, "init")


def least_fall(values: Values) -> float:
    """Return the largest ratio of successive means, in order of the second part of the keys: below 1 is falling."""
    ratios = [after / before for before, after in itertools.pairwise(by_step(values))]
    return float(max(ratios, default=float("nan")))


def by_step(values: Values) -> list[float]:
    steps = sorted({key[1] for key in values})
    return [float(np.mean([a.mean() for key, a in values.items() if key[1] == step])) for step in steps]


def last_over_first(values: Values) -> float:
    means = by_step(values)
    return means[-1] / means[0] if len(means) > 1 else float("nan")


def trained_over_initial(values: Values) -> float:
    """Return the largest ratio over downsamplings of the mean over layers, trained over initial."""
    names = {key[0] for key in values}
    ratios = []
    for name in names:
        before, after = (
            np.mean([array.mean() for key, array in values.items() if key[0] == name and key[-1] == state])
            for state in ("init", "trained")
        )
        ratios.append(after / before)
    return float(max(ratios))


def rank_with_layer(values: Values) -> float:
    trained = mean(values, state="trained")
    return rank_correlation(np.arange(len(trained)), trained)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(v)).astype(float) for v in (x, y)]
    return float(np.corrcoef(ranks)[0, 1])


def task_spread_ratio(values: Values) -> float:
    """Return the spread over downsamplings for random labels, over that for true labels (keys: downsampling, task)."""
    return spread(values, "random_labels") / spread(values, "original")


def between_over_within(values: Values) -> float:
    """Return the sd over downsamplings (of means) over that over seeds (of one downsampling), mean over layers."""
    chosen = [array for key, array in values.items() if key[1] == "random_labels"]
    if len(chosen) < 2 or len(chosen[0]) < 2:
        return float("nan")
    between = np.std([array.mean(axis=0) for array in chosen], axis=0, ddof=1)
    within = np.sqrt(np.mean([array.var(axis=0, ddof=1) for array in chosen], axis=0))
    with np.errstate(divide="ignore"):  # a resample of one seed only has no spread
        return float((between / within).mean())


def least(values: Values) -> float:
    return float(min(array.min() for array in values.values()))


def overall(values: Values) -> float:
    return float(np.mean([array.mean() for array in values.values()]))


def worst_ratio(values: Values) -> float:
    """Return unpooled over pooled at the last layer after training."""
    return float(mean(values, state="trained", pooled=False)[-1] / mean(values, state="trained", pooled=True)[-1])


def detour(values: Values) -> float:
    """Return the share of the way over steps that is undone again, over downsamplings (keys: downsampling, step)."""
    steps, names = sorted({key[1] for key in values}), sorted({key[0] for key in values})
    paths = [np.stack([values[name, step].mean(axis=0) for step in steps]) for name in names]
    return float(np.mean([statistics.detour(path) for path in paths]))
