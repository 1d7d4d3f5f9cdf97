"""From measuring to tables on disk and back: what every figure's script does between its settings and its plot."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.common import cli, clock, tables

Tables = dict[str, list[dict[str, Any]]]
"""Name → rows; ``table`` is the one a figure is drawn from, and the claims are tested on."""


def measured(command: cli.Command, measure: Callable[[], Tables], *names: str) -> list[list[dict[str, Any]]]:
    """Return the named tables, made by ``measure`` and written with their provenance, or with ``--plot-only`` read."""
    if not command.options.plot_only:
        tables.check_writable("results", command.results)
        began = time.perf_counter()
        with clock.COMMAND.part("probe"):
            found = measure()
        for name, rows in found.items():
            tables.write(command.results / f"{name}.csv", rows)
        cli.write_provenance(command, wall_seconds=round(time.perf_counter() - began, 1))
    return [tables.read(command.results / f"{name}.csv") for name in names]


def summarised(
    command: cli.Command, rows: Sequence[tables.Row], summarise: Callable[[Sequence[tables.Row]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the summary of a table, and write it beside the table."""
    summary = summarise(rows)
    tables.write(command.results / "summary.csv", summary)
    return summary
