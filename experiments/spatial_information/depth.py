"""Relative sensitivity layer by layer, of whole networks and with shuffled channels: what Figs 3 and 11 share."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import cli, plots, results, runs, statistics, tables, tasks, watch
from experiments.spatial_information import measures, recipes


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Which networks, shuffled how often."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    shuffles: int = 5
    """Random permutations of every convolution's input channels; curves are means over them."""

    def __post_init__(self) -> None:
        if self.shuffles < 1:
            raise ValueError(f"--shuffles must be at least 1; {self.shuffles} given.")


@dataclasses.dataclass(frozen=True)
class Settings(Shuffled):
    """Which networks, shuffled how often, measured how."""

    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)


def scales(architectures: Sequence[str], smoke: Sequence[str]) -> dict[str, Settings]:
    """Return the settings of each scale for a figure of those architectures."""
    return {
        "smoke": Settings(recipes.only(recipes.SMOKE, smoke), 2, measures.SMOKE),
        "demo": Settings(recipes.only(recipes.DEMO, architectures), 3),
        "paper": Settings(recipes.only(recipes.PAPER, architectures), probe=measures.PAPER),
    }


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks; return the rows of ``layers``, and accuracies."""
    task = recipes.load_task(command.settings.networks, command.options)
    sample = measures.perturbed(command.settings.probe, task)
    return layers(command.settings, command.settings.probe, task, sample, command.options)


def layers(
    wanted: Shuffled, probe: measures.Sample, task: tasks.Task, sample: measures.Perturbed, options: cli.Options
) -> results.Tables:
    """Train or load the networks; return one row per (architecture, seed, state, shuffle, layer), and accuracies.

    ``shuffled`` is 0 for whole networks and 1 for shuffled ones.
    """
    rows, accuracies = [], []
    for architecture in wanted.networks.architectures:
        trained = recipes.train(wanted.networks, architecture, task, options)
        accuracies += recipes.accuracy_rows(wanted.networks, task, architecture, trained)
        model = runs.build(wanted.networks.training_of(architecture), None, task.num_classes)
        for network in watch.each(trained, f"probing {architecture}"):
            head = {"architecture": architecture, "seed": network.seed}
            initial = measures.represent_init(model, network.init, sample.images)
            rows += measures.rows(initial, sample, {**head, "state": "init"} | WHOLE, chunk=probe.chunk)
            rows += trained_rows(model, network.trained, sample, wanted.shuffles, probe, {**head, "state": "trained"})
    return {"table": rows, "accuracy": accuracies}


WHOLE = {"shuffled": 0, "shuffle": 0}


def trained_rows(
    model: Any, variables: Any, sample: measures.Perturbed, count: int, probe: measures.Sample, head: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of a trained network and of its versions shuffled in ``count`` ways."""
    rows = measures.rows(measures.represent_trained(model, variables), sample, head | WHOLE, chunk=probe.chunk)
    seed = head.get("seed", 0)
    for i, shuffled in enumerate(measures.shuffles(variables, probe.probe_seed + seed, count)):
        represent = measures.represent_trained(model, shuffled)
        rows += measures.rows(represent, sample, {**head, "shuffled": 1, "shuffle": i}, chunk=probe.chunk)
    return rows


def summarise(rows: Sequence[tables.Row], column: str = "R") -> list[dict[str, Any]]:
    """Return, for each architecture, R (or another measure) of the last convolution over the input's, and how much
    shuffling raises it.
    """
    table = []
    for architecture in tables.unique(rows, "architecture"):
        chosen = [row for row in rows if row["architecture"] == architecture and row["kind"] in measures.LAYERED]
        values = statistics.grouped(chosen, column, ("architecture", "state", "shuffled"))
        before = [row[column] for row in rows if row["architecture"] == architecture and row["layer"] == "input"]

        def statistic(values: statistics.Values, before: float = float(np.mean(before))) -> dict[str, float]:
            curves = {key[1:]: np.log(array).mean(axis=0) for key, array in values.items()}
            last = {name: curve[-1] - math.log(before) for name, curve in curves.items()}
            return {
                "last_over_input_init": math.exp(last["init", 0]),
                "last_over_input_trained": math.exp(last["trained", 0]),
                "last_over_input_shuffled": math.exp(last["trained", 1]),
                "shuffled_over_whole": math.exp((curves["trained", 1] - curves["trained", 0]).mean()),
            }

        table += [{"architecture": architecture, **row} for row in statistics.bootstrap(statistic, values)]
    return table


def show(rows: Sequence[tables.Row], summary: Sequence[tables.Row], column: str = "R") -> str:
    """Return the summary as a table."""
    names = tables.unique(summary, "statistic")
    lines = []
    for architecture in tables.unique(rows, "architecture"):
        found = {row["statistic"]: row for row in tables.select(summary, architecture=architecture)}
        cells = [f"{found[n]['value']:.3f} ({found[n]['low']:.3f} to {found[n]['high']:.3f})" for n in names]
        lines.append([recipes.LABELS[architecture], *cells])
    header = [f"{column}_k", *(name.replace("_", " ") for name in names)]
    return f"Over convolutions or blocks; geometric means over seeds\n{tables.render(header, lines)}"


def panel(axes: Any, rows: Sequence[tables.Row], architectures: Sequence[str], value: str = "R") -> None:
    """Draw a measure against relative depth k/K: whole networks in full lines, shuffled ones dashed."""
    colours = plots.hues(len(architectures))
    for colour, name in zip(colours, architectures, strict=True):
        own = [row for row in rows if row["architecture"] == name and math.isfinite(row["depth"])]
        own = [row for row in own if row["state"] == "trained"]
        for shuffled, style in ((0, "-"), (1, "--")):
            x, values = tables.per_seed(tables.select(own, shuffled=shuffled), value, x="depth")
            label = recipes.LABELS[name] if not shuffled else None
            look = {"marker": None if shuffled else "o", "linestyle": style, "label": label}
            plots.band(axes, x, values, color=colour, geometric=True, shaded=not shuffled, **look)
    axes.set_yscale("log")
    plots.plain_log_ticks(axes)
    axes.set_xlabel("relative depth, $k$ / $K$")


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], stem: str, groups: dict[str, list[str]]) -> None:
    """Draw one panel per group of architectures."""
    groups = {title: names for title, names in groups.items() if names}
    figure, axes = plots.panels(len(groups), sharey=True)
    for one, (title, names) in zip(axes, groups.items(), strict=True):
        panel(one, rows, names)
        one.plot([], [], color="0.4", linestyle="--", label="shuffled channels")
        one.set_title(title)
        one.legend(loc="lower left", fontsize=7)
    axes[0].set_ylabel("relative sensitivity, $R_k$")
    stamp = recipes.stamp(command.options.scale, command.settings.networks, tail(command.settings))
    print("figure:", plots.save(figure, command.results, stem, stamp))


def tail(settings: Shuffled) -> str:
    """Return what the stamp says of bands and shuffles."""
    return f", bands (whole networks) ± 2 sd over seeds, {settings.shuffles} shuffle(s) each"
