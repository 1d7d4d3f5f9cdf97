"""SI Fig. 7: D, G and R of simple CNNs' layers against their receptive fields, with exact and asymptotic theory."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import cli, plots, results, statistics, tables
from experiments.spatial_information import simple, simple_measures

SCALES = simple.SIMPLE_SCALES
LABELS = {"D": "diffeomorphisms, $D_k$", "G": "noise, $G_k$", "R": "relative, $R_k$"}
STATES = {
    "init": {"color": "0.55", "linestyle": "-", "marker": "s", "label": "at initialisation"},
    "trained": {"color": "#0072B2", "linestyle": "-", "marker": "o", "label": "trained"},
    "mean_channel": {"color": "#56B4E9", "linestyle": ":", "marker": "^", "label": "trained, mean channel"},
}


def summarise(rows: Sequence[tables.Row], theory: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the log–log slopes over the first part of each network, with intervals, beside both predictions."""
    table = []
    for task in tables.unique(rows, "task"):
        last = simple.CASES[task].first_part
        chosen = [row for row in tables.select(rows, task=task) if row["layer_index"] <= last]
        exact = [row for row in tables.select(theory, task=task) if row["layer_index"] <= last]
        for column in LABELS:
            values = {
                (state, name): statistics.grouped(chosen, name, ("state",))[(state,)]
                for state in STATES
                for name in ("A", column)
            }
            widths = np.asarray([row["A"] for row in exact])
            laws = {
                "exact": slope(widths, [row[column] for row in exact]),
                "asymptotic": slope(widths, [row[f"{column}_asymptotic"] for row in exact]),
            }
            found = statistics.bootstrap(lambda one, c=column, w=widths: slopes(one, c, w), values)
            table += [{"task": task, "measure": column, "layers": last, **row, **laws} for row in found]
    return table


def slopes(values: statistics.Values, column: str, widths: np.ndarray) -> dict[str, float]:
    """Return the slopes of log ``column`` against log A_k, of means over seeds.

    Trained networks have A_k as measured; those at initialisation, where single pixels spread otherwise, and the mean
    channel, have that of the homogeneous network and of the trained one.
    """
    trained = values["trained", "A"].mean(axis=0)
    axes = {"init": widths, "trained": trained, "mean_channel": trained}
    means = {state: np.exp(np.log(values[state, column]).mean(axis=0)) for state in STATES}
    return {state: slope(axes[state][: len(mean)], mean) for state, mean in means.items()}


def slope(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return the slope over the first part of the network; nan where some layer of it is dead."""
    widths, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    alive = np.isfinite(widths) & np.isfinite(values) & (values > 0)
    # Not probes.log_log_slope, whose checks would take most of the thousands of resamples' time.
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0]) if alive.all() else math.nan


def panel(axes: Any, rows: Sequence[tables.Row], theory: Sequence[tables.Row], column: str) -> None:
    """Draw one measure of one task: networks against A_k as measured, initial ones and theory against the exact."""
    exact = np.asarray([row["A"] for row in theory])
    _, trained = tables.per_seed(tables.select(rows, state="trained"), "A")
    for state, look in STATES.items():
        _, values = tables.per_seed(tables.select(rows, state=state), column)
        x = exact[: values.shape[1]] if state == "init" else trained.mean(axis=0)
        plots.band(axes, x, values, geometric=True, shaded=state != "mean_channel", **look)
    axes.plot(exact, [row[column] for row in theory], color="#D55E00", label="homogeneous, exact")
    law = [row[f"{column}_asymptotic"] for row in theory]
    exponent = slope(exact, law)
    axes.plot(exact, law, color="black", linestyle="--", label=rf"asymptotic, $A_k^{{{exponent:+.0f}}}$")
    axes.set_xscale("log")
    axes.set_yscale("log")
    plots.plain_log_ticks(axes)


def plot(command: cli.Command[simple.Settings], found: Sequence[Sequence[tables.Row]]) -> None:
    """Draw a row of panels per task, a column per measure."""
    rows, theory, accuracy = found
    wanted = command.settings.networks.tasks
    figure, axes = plots.panel_grid(len(wanted), len(LABELS), width=3.1, height=2.7)
    for line, task in zip(axes, wanted, strict=True):
        for one, (column, label) in zip(line, LABELS.items(), strict=True):
            panel(one, tables.select(rows, task=task), tables.select(theory, task=task), column)
            one.set_title(f"{simple.CASES[task].label}: {label}", fontsize=8)
            one.set_xlabel("effective receptive field $A_k$, pixels")
        line[0].set_ylabel("sensitivity")
    handles, labels = axes[0][0].get_legend_handles_labels()
    labels[-1] = "asymptotic law through the first layer"
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=7.5)
    tail = ", bands ± 2 sd over seeds"
    stamp = simple_measures.stamp(command, accuracy) + tail
    print("figure:", plots.save(figure, command.results, "fig7_simple_cnns", stamp))


def show(summary: Sequence[tables.Row], accuracy: Sequence[tables.Row]) -> str:
    """Return the slopes beside the predictions, and how the networks were fitted."""
    lines = [
        [
            f"{row['task']} {row['measure']} {row['statistic'].replace('_', ' ')}",
            f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['exact']:.2f}",
            f"{row['asymptotic']:.0f}",
        ]
        for row in summary
    ]
    ended = [
        [
            f"{row['task']} seed {row['seed']:g}",
            *(f"{row[n]:g}" for n in ("interpolation_epoch", "epochs", "to_the_end", "train_loss")),
            f"{row['test_error']:.4g} of {row['test_pairs']:g}",
        ]
        for row in accuracy
    ]
    slopes_table = tables.render(["log-log slope", "network (95 %)", "exact", "asymptotic"], lines)
    header = ["network", "interpolated at", "epochs", "to the end", "training loss", "test error"]
    return f"{slopes_table}\n\n{tables.render(header, ended)}"


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, theory, accuracy = results.measured(
        command, lambda: simple_measures.measure(command), "table", "theory", "accuracy"
    )
    summary = results.summarised(command, rows, lambda one: summarise(one, theory))
    print(show(summary, accuracy))
    plot(command, (rows, theory, accuracy))


if __name__ == "__main__":
    main()
