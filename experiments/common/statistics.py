"""Intervals over seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Statistic = Callable[[dict[str, Sequence[int]] | None], Mapping[str, float]]


def bootstrap(
    statistic: Statistic, members: Mapping[str, int], *, resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """Return value and 95 % percentile interval of each entry of ``statistic``, resampling seeds in every group.

    Args:
      statistic: called with {group: indices of its members}, or None for all of them.
      members: number of members (seeds) of each group.
      resamples: number of bootstrap samples.
      seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    samples = [
        statistic({name: generator.integers(count, size=count).tolist() for name, count in members.items()})
        for _ in range(resamples)
    ]
    rows = []
    for name, value in statistic(None).items():
        low, high = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
        rows.append({"statistic": name, "value": value, "low": float(low), "high": float(high)})
    return rows
