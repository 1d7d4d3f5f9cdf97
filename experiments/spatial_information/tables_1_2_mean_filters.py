"""SI Tables 1, 2: mean filters of simple CNNs before and after training, beside the published numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import cli, plots, results, tables
from experiments.spatial_information import simple, simple_measures

SCALES = simple.SIMPLE_SCALES
PUBLISHED_CHANNELS = 1000
PUBLISHED: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] = {
    "task1": {
        "init": [
            [0.0132, 0.0023, -0.0068],
            [0.0014, -0.0007, -0.0009],
            [-0.0006, -0.0001, 0.0010],
            [3.4610e-05, 6.5687e-04, -9.1634e-04],
            [-0.0006, 0.0002, -0.0009],
            [0.0012, -0.0011, -0.0003],
            [-0.0006, 0.0004, 0.0003],
            [0.0005, -0.0012, 0.0010],
            [0.0005, -0.0012, 0.0010],
            [-0.0025, 0.0015, -0.0006],
            [-0.0006, 0.0005, 0.0009],
            [3.3418e-04, 3.3521e-05, 1.3936e-03],
        ],
        "trained": [
            [0.2928, 0.2605, 0.2928],
            [0.0039, 0.0035, 0.0039],
            [0.0043, 0.0038, 0.0043],
            [0.0039, 0.0033, 0.0038],
            [0.0038, 0.0032, 0.0038],
            [0.0038, 0.0031, 0.0038],
            [0.0041, 0.0032, 0.0040],
            [0.0036, 0.0024, 0.0035],
            [0.0021, 0.0016, 0.0017],
            [-0.0013, -0.0008, -0.0010],
            [0.0002, 0.0002, 0.0002],
            [0.0009, 0.0008, 0.0009],
        ],
    },
    "task2": {
        "init": [
            [-0.0559, -0.0291],
            [-0.0022, 0.0010],
            [0.0006, -0.0010],
            [-0.0020, 0.0009],
            [0.0002, 0.0008],
            [-0.0003, -0.0010],
            [-7.4610e-04, 8.4595e-05],
        ],
        "trained": [
            [0.3828, 0.3737],
            [0.0060, 0.0059],
            [0.0064, 0.0065],
            [0.0059, 0.0060],
            [9.9935e-05, 2.1380e-04],
            [-0.0028, -0.0029],
            [-0.0009, -0.0009],
        ],
    },
}
"""Task → state → layer → mean raw weights, as SI prints them (one network of each task, H = 1000)."""


def compare(rows: Sequence[tables.Row], channels: int) -> list[dict[str, Any]]:
    """Return one row per task, state, layer and place: our mean and sd over seeds, and the published number.

    ``scaled`` is our mean as it would be at SI's 1000 channels if what a layer's mean channel passes on were the same:
    √H times the mean weight from the second layer on, the mean weight itself in the first.
    """
    table = []
    for task in tables.unique(rows, "task"):
        for state in ("init", "trained"):
            own = tables.select(rows, task=task, state=state)
            for k, layer in enumerate(tables.unique(own, "layer"), 1):
                for place in tables.unique(own, "place"):
                    weights = np.asarray([row["weight"] for row in tables.select(own, layer=layer, place=place)])
                    factor = 1.0 if k == 1 else (channels / PUBLISHED_CHANNELS) ** 0.5
                    table.append(
                        {
                            "task": task,
                            "state": state,
                            "layer_index": k,
                            "place": int(place),
                            "mean": weights.mean(),
                            "sd": weights.std(ddof=1) if len(weights) > 1 else float("nan"),
                            "scaled": weights.mean() * factor,
                            "published": PUBLISHED[task][state][k - 1][int(place)],
                        }
                    )
    return table


def show(compared: Sequence[tables.Row], channels: int) -> str:
    """Return both tables side by side with the published ones, with the spread of each mean filter over its mean."""
    texts = []
    for number, task in enumerate(tables.unique(compared, "task"), 1):
        lines = []
        for k in tables.unique(compared, "layer_index"):
            own = tables.select(compared, task=task, layer_index=k)
            if own:
                cells = []
                for state in ("init", "trained"):
                    for column in ("mean", "scaled", "published"):
                        filters = [row[column] for row in tables.select(own, state=state)]
                        cells.append("[" + ", ".join(f"{w:.4f}" for w in filters) + "]")
                lines.append([f"k = {k:g}", *cells])
        header = [task, f"init, H = {channels}", "scaled", "SI", f"trained, H = {channels}", "scaled", "SI"]
        texts.append(f"SI Table {number if len(PUBLISHED) == 2 else task}\n{tables.render(header, lines)}")
    note = "scaled: times √(H/1000) from the second layer on, for the same √H × mean; SI: one network, H = 1000"
    return "\n\n".join([*texts, note])


def plot(command: cli.Command[simple.Settings], compared: Sequence[tables.Row], accuracy: Sequence[tables.Row]) -> None:
    """Draw every weight of the mean filters, layer by layer, ours and the published ones."""
    wanted = command.settings.networks.tasks
    figure, axes = plots.panels(len(wanted), width=4.2)
    for panel, task in zip(axes, wanted, strict=True):
        own = [row for row in tables.select(compared, task=task, state="trained") if row["layer_index"] > 1]
        places = tables.unique(own, "place")
        for place, colour in zip(places, plots.shades(len(places)), strict=True):
            found = tables.select(own, place=place)
            x = np.asarray([row["layer_index"] for row in found]) + (place - (len(places) - 1) / 2) * 0.2
            name = f"place {place + 1:g} of the filter"
            bars = np.nan_to_num([row["scaled"] / row["mean"] * row["sd"] for row in found])
            panel.errorbar(
                x, [row["scaled"] for row in found], 2 * bars, color=colour, marker="o", ls="none", label=name
            )
            panel.plot(x, [row["published"] for row in found], color=colour, marker="x", ms=5, ls="none")
        panel.plot([], [], color="0.3", marker="x", ms=5, ls="none", label="SI, $H$ = 1000")
        panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        panel.set_title(simple.CASES[task].label)
        panel.set_xlabel("layer $k$")
        panel.set_xticks(tables.unique(own, "layer_index"))
    longest = max(axes, key=lambda panel: len(panel.get_legend_handles_labels()[1]))
    figure.legend(*longest.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    axes[0].set_ylabel(r"mean weight × $\sqrt{H/1000}$")
    stamp = simple_measures.stamp(command, accuracy) + ", bars ± 2 sd over seeds; layer 1 is in the table"
    print("figure:", plots.save(figure, command.results, "tables_1_2_mean_filters", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    channels = command.settings.networks.channels
    rows, accuracy = results.measured(command, lambda: simple_measures.measure_filters(command), "table", "accuracy")
    compared = compare(rows, channels)
    tables.write(command.results / "compared.csv", compared)
    print(show(compared, channels))
    plot(command, compared, accuracy)


if __name__ == "__main__":
    main()
