"""LS Figs 6c and 7, and section 5's random images: smoothness and sensitivity of networks that fitted random tasks."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from experiments.common import cli, plots, results, runs, statistics, tables, tasks
from experiments.learned_stability import measures, recipes

TITLES = {"original": "true labels", "random_labels": "random labels", "random_images": "random images"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which tasks, learned by which networks, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)
    tasks: tuple[str, ...] = ("original", "random_labels", "random_images")
    """Tasks, each fitted in the same way: original (the control: same images, true labels), random_labels,
    random_images. Replaces --task."""

    def __post_init__(self) -> None:
        if not self.tasks or not set(TITLES).issuperset(self.tasks) or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"--tasks must name some of {', '.join(TITLES)}, each once; {self.tasks} given.")


SCALES = {
    "smoke": Settings(
        recipes.fitted(
            dataclasses.replace(recipes.SMOKE, downsamplings=("max",)),
            images=64,
            epochs=2,
            learning_rate=0.03,
            batch_size=32,
        ),
        measures.SMOKE,
        ("original", "random_labels", "random_images"),
    ),
    "demo": Settings(recipes.fitted(recipes.DEMO_PAIR, images=1000, epochs=80, learning_rate=0.03, batch_size=32)),
    "paper": Settings(recipes.fitted(recipes.PAPER, images=None, epochs=200, learning_rate=0.1, batch_size=128)),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load; return sensitivities (``table``), total variations (``variation``) and accuracies.

    Sensitivity is measured on test images as they are for every task (probe ``images``), and for random images also on
    random test images, which is what those networks know (probe ``noise``). Batch norm has the statistics of training
    images (ours): these networks stop at a high learning rate, where running averages lag behind.
    """
    settings = command.settings
    rows: results.Tables = {"table": [], "variation": [], "accuracy": []}
    if settings.networks.training.recipe.stop_accuracy is None:
        sys.exit("error: --stop-accuracy must be a number: every task is trained until it is fitted alike.")
    original = recipes.with_training(settings.networks, {"task": "original"})
    real = tasks.load_task(original.training, command.options)
    for name in settings.tasks:
        networks = recipes.with_training(settings.networks, {"task": name})
        task, ended = recipes.trained_networks(command, networks)
        trained = {
            downsampling: [runs.with_training_statistics(networks.training, task, downsampling, n) for n in members]
            for downsampling, members in ended.items()
        }
        probed = {"images": real} | ({"noise": task} if name == "random_images" else {})
        for kind, source in probed.items():
            found = measures.both_states(settings.probe, networks.training, source, trained)
            rows["table"] += [{"task": name, "probe": kind, **row} for row in found]
        rows["variation"] += [{"task": name, **row} for row in measures.both_variations(trained)]
        rows["accuracy"] += recipes.accuracy_rows(networks, task, trained, {"task": name})
    return rows


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return for each task and measure how far downsamplings lie apart after training, relative to their mean.

    The statistic is the standard deviation over downsamplings of the mean over seeds, divided by the mean over all and
    averaged over layers (ours: LS shows curves).
    """
    value = rows_value(rows)
    values = statistics.grouped(tables.select(rows, state="trained"), value, ("downsampling", "task"))

    def statistic(values: statistics.Values) -> dict[str, float]:
        tasks = tables.unique(rows, "task")
        arrays = {task: [array for key, array in values.items() if key[1] == task] for task in tasks}
        return {f"{value}_spread_{task}": statistics.relative_spread(arrays[task]) for task in tasks}

    return statistics.bootstrap(statistic, values)


def rows_value(rows: Sequence[tables.Row]) -> str:
    """Return which measure a table holds."""
    return "sensitivity" if "sensitivity" in rows[0] else "total_variation"


def show(summary: Sequence[tables.Row], accuracies: Sequence[tables.Row]) -> str:
    """Return whether the tasks were fitted, and how far apart downsamplings lie."""
    lines = []
    for task in tables.unique(accuracies, "task"):
        chosen = tables.select(accuracies, task=task)
        fitted = [row["fitted_accuracy"] for row in chosen]
        epochs = [row["epochs"] for row in chosen]
        spread = {
            measure: next(row for row in summary if row["statistic"] == f"{measure}_spread_{task}")
            for measure in ("sensitivity", "total_variation")
        }
        cells = [f"{100 * s['value']:.1f} ({100 * s['low']:.1f} to {100 * s['high']:.1f})" for s in spread.values()]
        lines.append([TITLES[task], f"{min(fitted):.3f}", f"{min(epochs):.0f} to {max(epochs):.0f}", *cells])
    header = ["task", "least training accuracy", "epochs", "spread of sensitivity, %", "of total variation, %"]
    return f"After training; spread: sd over downsamplings, relative (95 % interval)\n{tables.render(header, lines)}"


def plot(
    command: cli.Command[Settings],
    rows: Sequence[tables.Row],
    variations: Sequence[tables.Row],
    accuracies: Sequence[tables.Row],
) -> None:
    """Draw a column for each task: above total variation (Fig. 6c), below sensitivity (Fig. 7), after training."""
    columns = [(task, kind) for task in tables.unique(rows, "task") for kind in _kinds(rows, task)]
    figure, axes = plots.panel_grid(2, len(columns), width=3.0, sharey="row")
    for column, (task, kind) in enumerate(columns):
        upper, lower = axes[0][column], axes[1][column]
        if kind == "images":
            plots.variation(upper, tables.select(variations, task=task))
            reached = min(row["fitted_accuracy"] for row in tables.select(accuracies, task=task))
            upper.set_title(f"{TITLES[task]}\ntraining accuracy ≥ {reached:.3f}")
        else:
            upper.set_axis_off()
            upper.legend(*axes[0][0].get_legend_handles_labels(), loc="center")
        chosen = tables.select(rows, task=task, probe=kind, state="trained")
        plots.layer_axis(lower, tables.unique(rows, "layer"))
        for name in tables.unique(rows, "downsampling"):
            plots.line(lower, tables.select(chosen, downsampling=name), "sensitivity", name)
        lower.set_title("probed with images" if kind == "images" else "random images,\nprobed with random images")
        if column:
            upper.set_ylabel("")
    axes[1][0].set_ylim(bottom=0)
    axes[1][0].set_ylabel(measures.LABELS["sensitivity"])
    if columns[-1][1] == "images":
        axes[0][-1].legend(fontsize=7)
    stamp = recipes.stamp(command.options.scale, command.settings.networks)
    print("figure:", plots.save(figure, command.results, "fig7_random_labels", stamp))


def _kinds(rows: Sequence[tables.Row], task: str) -> list[str]:
    return tables.unique(tables.select(rows, task=task), "probe")


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, variations, accuracies = results.measured(command, lambda: measure(command), "table", "variation", "accuracy")
    on_images = tables.select(rows, probe="images")
    summary = results.summarised(command, on_images, lambda _: summarise(on_images) + summarise(variations))
    print(show(summary, accuracies))
    plot(command, rows, variations, accuracies)


if __name__ == "__main__":
    main()
