"""Intervals over seeds, and the statistics that figures and claims share."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from experiments.common import tables

Values = Mapping[tuple[Any, ...], np.ndarray]
"""{(group, …): (seeds, …)}; arrays whose keys begin with the same group hold the same networks, in the same order."""


def bootstrap(
    statistic: Callable[[Values], Mapping[Any, float]],
    values: Values,
    *,
    over: Literal["seeds", "groups"] = "seeds",
    correlations: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return value and 95 % interval of each entry of ``statistic``, from resampled seeds or groups.

    The 2.5th and 97.5th percentiles of the bootstrap, their distances from the value widened for few seeds: percentiles
    are too close by √((n − 1)/n) at n seeds, and take the normal's quantile where Student's is due (Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789; of three seeds' means they cover about seven in ten). The degrees of
    freedom are Σ (n − 1) over groups (ours).

    Args:
      statistic: from arrays like ``values`` to named numbers.
      values: arrays whose first axis is over seeds.
      over: resample ``"seeds"`` within every group, or whole ``"groups"`` (with all their seeds), for statistics such
        as a correlation over architectures. A group that is drawn twice stands under two keys.
      correlations: the statistics are correlations: bounds are widened on Fisher's scale, and so stay within ±1.
      resamples: number of bootstrap samples.
      seed: of the resampling.

    Returns:
      One row per entry: statistic, value, low, high; the bounds are nan where a group has a single seed, or where there
      is a single group to resample. Resamples on which the statistic is nan count for nothing.
    """
    generator = np.random.default_rng(seed)
    counts = {key[0]: len(array) for key, array in values.items()}
    resample = _seeds_resampled if over == "seeds" else _groups_resampled
    known: dict[tuple[int, ...], Mapping[Any, float]] = {}
    samples = []
    for _ in range(resamples):
        drawn, chosen = resample(generator, values, counts)
        if drawn not in known:  # of three seeds there are 27 samples
            known[drawn] = statistic(chosen())
        samples.append(known[drawn])
    widening = _widening(list(counts.values()) if over == "seeds" else [len(counts)])
    rows = []
    for name, value in statistic(values).items():
        drawn = np.asarray([sample[name] for sample in samples])
        drawn = drawn[~np.isnan(drawn)] if not math.isnan(value) else drawn
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (math.nan, math.nan)
        to, back = (_fisher, np.tanh) if correlations else (float, float)
        low, high = (back(to(value) + widening * (to(bound) - to(value))) for bound in (low, high))
        rows.append({"statistic": name, "value": value, "low": float(low), "high": float(high)})
    return rows


def _fisher(correlation: float) -> float:
    """Return artanh; a correlation of ±1, as of two points, is taken for one that is close to it."""
    return float(np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12)))


Resample = tuple[tuple[int, ...], Callable[[], Values]]
"""What was drawn, and the values of it."""


def _seeds_resampled(generator: np.random.Generator, values: Values, counts: Mapping[Any, int]) -> Resample:
    chosen = {group: generator.integers(count, size=count) for group, count in counts.items()}
    drawn = tuple(np.concatenate(list(chosen.values())).tolist())
    return drawn, lambda: {key: array.take(chosen[key[0]], axis=0) for key, array in values.items()}


def _groups_resampled(generator: np.random.Generator, values: Values, counts: Mapping[Any, int]) -> Resample:
    names, of = list(counts), {group: [] for group in counts}
    for key, array in values.items():
        of[key[0]].append((key[1:], array))
    drawn = generator.integers(len(names), size=len(names)).tolist()
    return tuple(drawn), lambda: {
        ((i, names[n]), *rest): array for i, n in enumerate(drawn) for rest, array in of[names[n]]
    }


def name_of(group: Any) -> Any:
    """Return what a group was called before it was drawn: one that is drawn twice stands under two keys."""
    return group[1] if isinstance(group, tuple) else group


def _widening(counts: list[int]) -> float:
    """Return the factor on the bounds' distances, nan where a group has a single seed."""
    smallest = min(counts)
    if smallest < 2:
        return math.nan
    from scipy import special  # only the commands that come so far wait for it

    freedom = sum(count - 1 for count in counts)
    return math.sqrt(smallest / (smallest - 1)) * float(special.stdtrit(freedom, 0.975) / special.ndtri(0.975))


def grouped(rows: Sequence[tables.Row], value: str, by: Sequence[str]) -> dict[tuple[Any, ...], np.ndarray]:
    """Return {values of the columns ``by``: (seeds, layers)}, averaged over anything else; the input is left out."""
    cells: dict[tuple, dict[tuple, list[float]]] = {}
    for row in rows:
        if row.get("layer") != "input":
            cell = (row.get("seed", 0.0), row.get("layer_index", 0.0))
            cells.setdefault(tuple(row[name] for name in by), {}).setdefault(cell, []).append(row[value])
    found = {}
    for key, members in cells.items():
        seeds, layers = (sorted({cell[i] for cell in members}) for i in (0, 1))
        found[key] = np.asarray([[np.mean(members[seed, layer]) for layer in layers] for seed in seeds])
    return found


def relative_spread(arrays: list[np.ndarray]) -> float:
    """Return the sd between groups of (seeds, layers) means over seeds, over their mean, averaged over layers.

    nan for fewer than two groups.
    """
    if len(arrays) < 2:
        return math.nan
    means = [array.mean(axis=0) for array in arrays]
    return float((np.std(means, axis=0, ddof=1) / np.mean(means, axis=0)).mean())


def detour(path: np.ndarray) -> float:
    """Return how far a path goes back and forth: the share of the way that is undone, 0 (monotone) to 1 (a circle).

    Of v_0 … v_T: 1 − |v_T − v_0| / Σ |v_{t+1} − v_t|, both summed over layers (ours). nan for fewer than three steps.

    Args:
      path: (steps, layers).
    """
    if len(path) < 3:
        return math.nan
    way = np.abs(np.diff(path, axis=0)).sum()
    return float(1 - np.abs(path[-1] - path[0]).sum() / way) if way > 0 else 0.0
