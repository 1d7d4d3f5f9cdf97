"""LS Fig. 6 a, b: normalised total variation of the 3 × 3 filters, before and after training, layer by layer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import cli, plots, results, statistics, tables
from experiments.learned_stability import measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks. Panel a: --scale imagenet; b: the other scales."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)


SCALES = {
    "smoke": Settings(recipes.SMOKE),
    "demo": Settings(recipes.DEMO),
    "paper": Settings(recipes.PAPER),
    "imagenet": Settings(recipes.IMAGENET),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks; return one row per (downsampling, seed, state, layer), and their accuracies."""
    task, trained = recipes.trained_networks(command, command.settings.networks)
    return {
        "table": measures.both_variations(trained),
        "accuracy": recipes.accuracy_rows(command.settings.networks, task, trained),
    }


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the mean total variation over layers and networks in both states, and its relative change."""
    values = statistics.grouped(rows, "total_variation", ("downsampling", "state"))

    def statistic(values: statistics.Values) -> dict[str, float]:
        before, after = (
            float(np.mean([array.mean() for key, array in values.items() if key[1] == state]))
            for state in ("init", "trained")
        )
        return {"mean_init": before, "mean_trained": after, "relative_change": after / before - 1}

    return statistics.bootstrap(statistic, values)


def show(rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> str:
    """Return the smoothness table and one sentence that says what it means."""
    names, layers = tables.unique(rows, "downsampling"), tables.unique(rows, "layer")
    columns, header = [], ["layer"]
    for state, wanted in (("init", names[:1]), ("trained", names)):
        for name in wanted:
            chosen = rows if state == "init" else tables.select(rows, downsampling=name)
            _, values = tables.per_seed(tables.select(chosen, state=state), "total_variation")
            columns.append([f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), tables.spread(values), strict=True)])
            header.append("init (all)" if state == "init" else f"{name} trained")
    table = tables.render(header, [[layer, *cells] for layer, *cells in zip(layers, *columns, strict=True)])
    found = {row["statistic"]: row for row in summary}
    change = found["relative_change"]
    before, after = found["mean_init"]["value"], found["mean_trained"]["value"]
    return (
        f"Normalised total variation of 3 × 3 filters, mean ± sd over seeds\n{table}\n\n"
        f"Averaged over layers and networks, the total variation is {before:.3f} at initialisation and {after:.3f} "
        f"after training, a change of {100 * change['value']:.1f} % (95 % interval {100 * change['low']:.1f} to "
        f"{100 * change['high']:.1f} %); lower is smoother."
    )


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw total variation against the number of the convolution, the initial value dotted."""
    figure, axes = plots.panels(1, width=4.0)
    plots.variation(axes[0], rows)
    axes[0].legend(fontsize=7, loc="best")
    stamp = recipes.stamp(command.options.scale, command.settings.networks)
    print("figure:", plots.save(figure, command.results, "fig6_filter_smoothness", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    summary = results.summarised(command, rows, summarise)
    print(show(rows, summary))
    plot(command, rows)


if __name__ == "__main__":
    main()
