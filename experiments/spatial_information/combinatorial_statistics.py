"""Errors and sensitivities of networks on images of k features: means over seeds, and how they are correlated."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import statistics, tables
from experiments.spatial_information import measures
from experiments.spatial_information.combinatorial_measures import PERTURBATIONS, STATES

NAMES = ("state", "perturbation", "measure")


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return geometric means with intervals over seeds, and correlations with the error with intervals over points.

    A point is an architecture on images of k features.
    """
    return [*_means(rows), *_correlations(rows)]


def _means(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    table = []
    for architecture, count in dict.fromkeys((row["architecture"], row["features"]) for row in rows):
        chosen = tables.select(rows, architecture=architecture, features=count)
        logs = {key: np.log(values[:, 0]) for key, values in statistics.grouped(chosen, "value", NAMES).items()}
        drawn = statistics.bootstrap(
            lambda one, names=tuple(logs): dict(zip(names, one["all",].mean(axis=0).tolist(), strict=True)),
            {("all",): np.stack(list(logs.values()), axis=1)},
        )
        for row in drawn:
            numbers = {name: math.exp(row[name]) for name in ("value", "low", "high")}
            table.append(_summary("mean", architecture, count, row["statistic"], len(logs[row["statistic"]])) | numbers)
    return table


def _summary(statistic: str, architecture: str, count: Any, names: tuple[str, ...], points: int) -> dict[str, Any]:
    head = {"statistic": statistic, "architecture": architecture, "features": count}
    return head | dict(zip(NAMES, names, strict=True)) | {"points": points}


def points(rows: Sequence[tables.Row]) -> dict[tuple[str, Any], dict[tuple[str, str, str], float]]:
    """Return {(architecture, k): {(state, perturbation, measure): mean logarithm over seeds that learned}}."""
    found = {}
    for row in tables.select(rows, learned=1):
        key = row["state"], row["perturbation"], row["measure"]
        found.setdefault((row["architecture"], row["features"]), {}).setdefault(key, []).append(row["value"])
    return {point: {key: float(np.log(values).mean()) for key, values in own.items()} for point, own in found.items()}


def _correlations(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return ρ(ε, X) over all points, and within k: of what is left of both less their means over points of that k."""
    found = points(rows)
    names = list(itertools.product(STATES, PERTURBATIONS, measures.COLUMNS))
    values = {
        (f"{architecture}, {count:g}",): np.asarray([[count, own["trained", "none", "error"], *map(own.get, names)]])
        for (architecture, count), own in found.items()
    }

    def statistic(values: statistics.Values) -> dict[Any, float]:
        counts, error, *columns = np.concatenate(list(values.values())).T
        pooled = correlations(error, np.stack(columns))
        within = correlations(*(_less_means(one, counts) for one in (error, np.stack(columns))))
        return {
            (kind, *name): float(value)
            for kind, some in (("correlation", pooled), ("correlation_within_k", within))
            for name, value in zip(names, some, strict=True)
        }

    if len(found) < 3:
        kinds = ("correlation", "correlation_within_k")
        none = dict.fromkeys(("value", "low", "high"), math.nan)
        drawn = [{"statistic": (kind, *name), **none} for kind in kinds for name in names]
    else:
        drawn = statistics.bootstrap(statistic, values, over="groups", correlations=True)
    return [
        _summary(row["statistic"][0], "all", "all", row["statistic"][1:], len(found))
        | {name: row[name] for name in ("value", "low", "high")}
        for row in drawn
    ]


def _less_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    same = (groups[:, None] == groups[None, :]).astype(float)
    return values - values @ same / same.sum(axis=0)


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's correlations (m,) of ``x`` (n,) with each line of ``y`` (m, n); nan where either is constant."""
    x, y = x - x.mean(), y - y.mean(axis=-1, keepdims=True)
    sizes = np.sqrt(np.square(x).mean()), np.sqrt(np.square(y).mean(axis=-1))
    defined = (sizes[0] > 1e-9) & (sizes[1] > 1e-9) & (len(x) > 2)
    return np.where(defined, (x * y).mean(axis=-1) / np.where(defined, sizes[0] * sizes[1], 1), math.nan)
