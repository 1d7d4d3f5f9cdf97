"""LS Fig. 3: deformation sensitivity of every layer, before and after training, for each downsampling."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import cli, plots, results, statistics, tables
from experiments.learned_stability import measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)


SCALES = {
    "smoke": Settings(recipes.SMOKE, measures.SMOKE),
    "demo": Settings(recipes.DEMO),
    "paper": Settings(recipes.PAPER),
    "imagenet": Settings(recipes.IMAGENET, measures.IMAGENET),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks; return one row per (downsampling, seed, state, draw, layer), and their accuracies."""
    wanted = command.settings
    task, trained = recipes.trained_networks(command, wanted.networks)
    return {
        "table": measures.both_states(wanted.probe, wanted.networks.training, task, trained),
        "accuracy": recipes.accuracy_rows(wanted.networks, task, trained),
    }


def gap(values: statistics.Values, state: str, first: int) -> dict[str, float]:
    """Return how much more sensitive networks without pooling are than those with it, from layer ``first`` on.

    ``ratio`` is the geometric mean over layers of the ratio of mean sensitivities, ``difference`` the mean over layers
    of their difference. Ours: LS shows curves.
    """
    means: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for (downsampling, when), array in values.items():
        if when == state:
            means[downsampling in recipes.POOLED].append(array.mean(axis=0)[first:])
    if not means[True] or not means[False]:
        return {"ratio": math.nan, "difference": math.nan}
    without, pooled = np.mean(means[False], axis=0), np.mean(means[True], axis=0)
    return {"ratio": float(np.exp(np.log(without / pooled).mean())), "difference": float((without - pooled).mean())}


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the gap before and after training and the share of it that training removes, with intervals."""
    values = statistics.grouped(rows, "sensitivity", ("downsampling", "state"))
    layers = [name for name in tables.unique(rows, "layer") if name != "input"]
    first = next(i for i, name in enumerate(layers) if name.endswith("_down"))

    def statistic(values: statistics.Values) -> dict[str, float]:
        before, after = (gap(values, state, first) for state in ("init", "trained"))
        found = {f"{name}_{state}": g[name] for name in before for state, g in (("init", before), ("trained", after))}
        return found | {"difference_removed": 1 - after["difference"] / before["difference"]}

    return statistics.bootstrap(statistic, values)


def show(rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> str:
    """Return the sensitivity table and one sentence that says what it means."""
    names, layers = _names(rows), tables.unique(rows, "layer")
    columns, header = [], ["layer"]
    for name in names:
        for state in ("init", "trained"):
            _, values = tables.per_seed(tables.select(rows, downsampling=name, state=state), "sensitivity")
            columns.append([f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), tables.spread(values), strict=True)])
            header.append(f"{name} {state}")
    table = tables.render(header, [[layer, *cells] for layer, *cells in zip(layers, *columns, strict=True)])
    return f"Sensitivity to deformation, mean ± sd over seeds\n{table}\n\n{sentence(rows, summary)}"


def sentence(rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> str:
    """Return what the table means, from its numbers."""
    values = {row["statistic"]: row for row in summary}
    if not math.isfinite(values["ratio_init"]["value"]):
        return "No comparison: it takes networks with pooling (max, average) and without."

    def text(name: str, scale: float = 1, digits: int = 2) -> str:
        row = values[name]
        low, high = row["low"] * scale, row["high"] * scale
        return f"{row['value'] * scale:z.{digits}f} (95 % interval {low:z.{digits}f} to {high:z.{digits}f})"

    spread = probe_spread(rows)
    ending = f" The probe's own spread over draws of images and deformations is {100 * spread:.1f} % of a value."
    return (
        "From the first downsampling on, networks without pooling are more sensitive than networks with pooling by "
        f"{text('difference_init')} at initialisation and by {text('difference_trained')} after training, which "
        f"removes {text('difference_removed', 100, 0)} % of the difference; as a ratio, {text('ratio_init')} before "
        f"and {text('ratio_trained')} after.{ending if math.isfinite(spread) else ''}"
    )


def probe_spread(rows: Sequence[tables.Row]) -> float:
    """Return the relative sd over draws (other images, other warps) of one network's sensitivity, averaged."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        groups.setdefault((row["downsampling"], row["seed"], row["state"], row["layer"]), []).append(row["sensitivity"])
    relative = [np.std(values, ddof=1) / np.mean(values) for values in groups.values() if len(values) > 1]
    return float(np.mean(relative)) if relative else math.nan


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw sensitivity against layer, initialisation left, trained right; below in the Euclidean distance."""
    figure, axes = plots.panel_grid(2, 2, sharey="row", sharex=True)
    titles = {"init": "at initialisation", "trained": "after training"}
    for line, (column, label) in zip(axes, measures.LABELS.items(), strict=True):
        for panel, (state, title) in zip(line, titles.items(), strict=True):
            plots.layer_axis(panel, tables.unique(rows, "layer"), label=line is axes[-1])
            for name in _names(rows):
                plots.line(panel, tables.select(rows, downsampling=name, state=state), column, name)
            if line is axes[0]:
                panel.set_title(title)
        line[0].set_ylim(bottom=0)
        line[0].set_ylabel(label)
    axes[0][1].legend()
    stamp = recipes.stamp(command.options.scale, command.settings.networks)
    print("figure:", plots.save(figure, command.results, "fig3_layer_sensitivity", stamp))


def _names(rows: Sequence[tables.Row]) -> list[str]:
    return tables.unique(rows, "downsampling")


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    summary = results.summarised(command, rows, summarise)
    print(show(rows, summary))
    plot(command, rows)


if __name__ == "__main__":
    main()
