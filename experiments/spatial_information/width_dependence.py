"""How SI Fig. 7 depends on the number of channels H and on the length of training: slopes of D, G and R."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import cli, plots, results, runs, tables, watch
from experiments.spatial_information import simple, simple_measures
from experiments.spatial_information.fig7_simple_cnns import LABELS, slope


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which widths and lengths are compared, one network group per entry of each list."""

    channels_1: tuple[int, ...] = (100, 300, 1000)
    """Channels H of the networks on task 1 (distances between two of 32 pixels; 12 layers)."""
    interpolations_1: tuple[int, ...] = (500, 500, 500)
    """Length of their training, times the epochs to interpolation, for each entry of --channels-1."""
    seeds_1: tuple[int, ...] = (4, 4, 4)
    """Number of them, likewise."""
    channels_2: tuple[int, ...] = (100, 300, 1000)
    """The same for task 2 (patches of 32 of 128 pixels; 7 layers); no entries leave it out."""
    interpolations_2: tuple[int, ...] = (500, 500, 500)
    """Likewise."""
    seeds_2: tuple[int, ...] = (10, 10, 10)
    """Likewise."""
    probe: simple.Probe = dataclasses.field(default_factory=lambda: simple.Probe(shuffles=0))

    def __post_init__(self) -> None:
        for n in (1, 2):
            lists = {f"--{name}-{n}": getattr(self, f"{name}_{n}") for name in ("channels", "interpolations", "seeds")}
            if len({len(values) for values in lists.values()}) > 1:
                raise ValueError(f"{', '.join(lists)} must be of one length; {tuple(lists.values())} given.")
        if not self.groups():
            raise ValueError("--channels-1 or --channels-2 must name some widths; none given.")

    def groups(self) -> list[tuple[str, simple.Networks]]:
        """Return the task and the settings of every group of networks."""
        found = []
        for n in (1, 2):
            lists = (getattr(self, f"{name}_{n}") for name in ("channels", "interpolations", "seeds"))
            for channels, length, seeds in zip(*lists, strict=True):
                wanted = {"channels": channels, "interpolations": length, f"seeds_{n}": seeds}
                found.append((f"task{n}", simple.Networks(**wanted)))
        return found


SCALES = {
    "smoke": Settings((16,), (1,), (1,), (), (), (), simple.Probe(shuffles=0)),
    "demo": Settings(
        (30, 100, 200, 30, 100, 200, 30, 100, 300, 1000),
        (500, 500, 500, 20, 20, 20, 2, 2, 2, 2),
        (1, 3, 1, 1, 1, 1, 1, 3, 1, 1),
        (100, 100),
        (50, 500),
        (3, 1),
        simple.Probe(share=1.0, shuffles=0),
    ),
    "paper": Settings(),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load every group; return one row per layer of each network, and accuracies, with H and the length."""
    found: results.Tables = {"table": [], "accuracy": []}
    wanted = command.settings
    for task, networks in wanted.groups():
        settings = networks.training_of(task)
        loaded, trained = simple.train(networks, task, command.options)
        model = runs.build(settings, None, loaded.num_classes)
        images = simple_measures.sample(wanted.probe, task)
        group = {"channels": networks.channels, "interpolations": networks.interpolations}
        for network in watch.each(trained, f"probing {task}"):
            rows = simple_measures.rows(model, network, images, wanted.probe, task, states=("init", "trained"))
            found["table"] += [{**group, **row} for row in rows]
            found["accuracy"].append({**group, **simple_measures.accuracy_row(settings, loaded, network, task)})
    return found


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the slopes over the first part of every single network, beside the exact ones."""
    table = []
    for task in tables.unique(rows, "task"):
        last = simple.CASES[task].first_part
        theory = simple_measures.theory_rows(task)[:last]
        for key in dict.fromkeys(
            (r["channels"], r["interpolations"], r["seed"]) for r in tables.select(rows, task=task)
        ):
            group = dict(zip(("channels", "interpolations", "seed"), key, strict=True))
            own = [
                row for row in tables.select(rows, task=task, state="trained", **group) if row["layer_index"] <= last
            ]
            for column in LABELS:
                value = slope([row["A"] for row in own], [row[column] for row in own])
                exact = slope([row["A"] for row in theory], [row[column] for row in theory])
                table.append({"task": task, **group, "measure": column, "slope": value, "exact": exact})
    return table


def plot(command: cli.Command[Settings], summary: Sequence[tables.Row]) -> None:
    """Draw the slopes against H, by length of training."""
    tasks = tables.unique(summary, "task")
    figure, axes = plots.panel_grid(len(tasks), len(LABELS), width=3.0, height=2.5, sharex=True)
    lengths = sorted(tables.unique(summary, "interpolations"))
    for line, task in zip(axes, tasks, strict=True):
        for panel, (column, label) in zip(line, LABELS.items(), strict=True):
            own = tables.select(summary, task=task, measure=column)
            for length, colour, marker in zip(lengths, plots.shades(len(lengths)), "osD^v", strict=False):
                chosen = [r for r in tables.select(own, interpolations=length) if math.isfinite(r["slope"])]
                name = f"to {length:g} × interpolation"
                x, y = ([row[key] for row in chosen] for key in ("channels", "slope"))
                panel.plot(x, y, color=colour, marker=marker, ls="none", label=name)
            panel.axhline(own[0]["exact"], color="#D55E00", label="homogeneous, exact")
            panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
            panel.set_xscale("log")
            widths = sorted(tables.unique(summary, "channels"))
            panel.set_xticks(widths, [f"{w:g}" for w in widths], fontsize=7)
            panel.minorticks_off()
            panel.set_title(f"{task.replace('task', 'task ')}: {label}", fontsize=8)
            if line is axes[-1]:
                panel.set_xlabel("channels $H$")
        line[0].set_ylabel("slope against $A_k$")
    handles = {text: handle for handle, text in zip(*axes[0][0].get_legend_handles_labels(), strict=True)}
    for line in axes[1:]:
        handles |= {text: handle for handle, text in zip(*line[0].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, fontsize=7.5)
    parts = ", ".join(f"{task.replace('task', 'task ')}: layers 1 to {simple.CASES[task].first_part}" for task in tasks)
    stamp = f"scale {command.options.scale} · log–log slopes over {parts} · one mark per network"
    print("figure:", plots.save(figure, command.results, "width_dependence", stamp))


def show(summary: Sequence[tables.Row], accuracy: Sequence[tables.Row]) -> str:
    """Return the slopes of every group, means over seeds, and its test errors."""
    lines = []
    for task, channels, length in dict.fromkeys((r["task"], r["channels"], r["interpolations"]) for r in summary):
        group = {"task": task, "channels": channels, "interpolations": length}
        cells = []
        for column in LABELS:
            own = tables.select(summary, measure=column, **group)
            cells.append(f"{np.mean([row['slope'] for row in own]):.2f} (exact {own[0]['exact']:.2f})")
        ended = tables.select(accuracy, **group)
        error = max(row["test_error"] for row in ended)
        epochs = max(row["epochs"] for row in ended)
        lines.append([f"{task} H = {channels:g}, {length:g} ×", f"{len(ended)}", f"{epochs:g}", *cells, f"{error:.4g}"])
    header = ["networks", "seeds", "epochs", *(f"slope of {name}" for name in LABELS), "largest test error"]
    return tables.render(header, lines)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, accuracy = results.measured(command, lambda: measure(command), "table", "accuracy")
    summary = results.summarised(command, rows, summarise)
    print(show(summary, accuracy))
    plot(command, summary)


if __name__ == "__main__":
    main()
