"""LS Fig. 5: tasks whose classes are deformations of single images, and how smooth filters become in learning them."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from deform_jax import data
from experiments.common import cli, plots, results, runs, statistics, tables, tasks
from experiments.learned_stability import measures, recipes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which tasks and networks. Network i learns template draw i: seeds vary both."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    strengths: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)
    """Largest shift of a control point in each direction (LS's C), pixels; replaces --strength."""

    def __post_init__(self) -> None:
        if len(set(self.strengths)) != len(self.strengths) or not self.strengths or min(self.strengths) < 0:
            raise ValueError(f"--strengths must be different numbers ≥ 0; {self.strengths} given.")


def _templates(networks: recipes.Networks, epochs: int, **changes: Any) -> recipes.Networks:
    recipe = dataclasses.replace(networks.training.recipe, epochs=epochs)
    return recipes.with_training(
        networks,
        {"task": "deformed_templates", "test_images": None, "augment": False, "recipe": recipe, **changes},
    )


SCALES = {
    "smoke": Settings(dataclasses.replace(_templates(recipes.SMOKE, 1), downsamplings=("max",)), (1.0, 4.0)),
    "demo": Settings(_templates(recipes.DEMO_PAIR, 1)),
    "paper": Settings(_templates(recipes.PAPER, 20, dataset="mnist")),
}


def settings_of(settings: Settings, strength: float, seed: int) -> tasks.Training:
    """Return the training settings of one network."""
    return dataclasses.replace(settings.networks.training, strength=float(strength), task_seed=seed)


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load; return one row per (downsampling, seed, strength, state, layer), accuracies and the templates."""
    settings, options = command.settings, command.options
    if settings.networks.training.task != "deformed_templates":
        sys.exit(f"error: --task is deformed_templates here; {settings.networks.training.task} was given.")
    rows, accuracies = [], []
    for strength in sorted(settings.strengths):
        for seed in range(settings.networks.seeds):
            wanted = settings_of(settings, strength, seed)
            task = tasks.load_task(wanted, options)
            trained = {
                name: runs.train_or_load(wanted, task, name, [seed], options)
                for name in settings.networks.downsamplings
            }
            rows += [{"strength": strength, **row} for row in measures.both_variations(trained)]
            accuracies += recipes.accuracy_rows(settings.networks, task, trained, {"strength": strength})
    return {"table": rows, "accuracy": accuracies}


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the total variation at every strength, averaged over layers and downsamplings, and at initialisation."""
    strengths = tables.unique(rows, "strength")
    values = statistics.grouped(rows, "total_variation", ("downsampling", "strength", "state"))

    def statistic(values: statistics.Values) -> dict[str, float]:
        def mean(strength: float, state: str) -> float:
            return float(np.mean([array.mean() for key, array in values.items() if key[1:] == (strength, state)]))

        return {"initial": mean(strengths[0], "init")} | {f"strength_{c:g}": mean(c, "trained") for c in strengths}

    return statistics.bootstrap(statistic, values)


def show(summary: Sequence[tables.Row], accuracies: Sequence[tables.Row]) -> str:
    """Return the table of mean total variations and test accuracies."""
    lines = []
    for row in summary:
        strength = row["statistic"].removeprefix("strength_")
        reached = [a["test_accuracy"] for a in accuracies if f"{a['strength']:g}" == strength]
        accuracy = f"{np.mean(reached):.3f}" if reached else "–"
        lines.append([strength, f"{row['value']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}", accuracy])
    table = tables.render(["strength (px)", "total variation", "95 % interval", "test accuracy"], lines)
    return f"Total variation after training, averaged over layers and downsamplings\n{table}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw total variation by layer, a panel for each downsampling, a line for each strength, darker for stronger."""
    names, strengths = tables.unique(rows, "downsampling"), tables.unique(rows, "strength")
    figure, axes = plots.panels(len(names), width=2.7 if len(names) > 2 else 3.6, sharey=True)
    shades = plots.shades(len(strengths))
    for panel, name in zip(axes, names, strict=True):
        initial = tables.select(rows, downsampling=name, state="init")
        x, values = tables.per_seed(initial, "total_variation")
        for strength, shade in zip(strengths, shades, strict=True):
            chosen = tables.select(rows, downsampling=name, strength=strength, state="trained")
            label = f"strength {strength:g} px"
            plots.band(panel, *tables.per_seed(chosen, "total_variation"), color=shade, marker=".", label=label)
        panel.plot(x, np.full(len(x), values.mean()), color="black", linestyle=":", label="at initialisation")
        panel.set_xticks(x)
        panel.set_xlabel("convolution (3 × 3)")
        panel.set_title(plots.LINES[name][2])
    axes[0].set_ylabel("normalised total variation")
    axes[-1].legend(fontsize=7)
    stamp = recipes.stamp(command.options.scale, command.settings.networks)
    print("figure:", plots.save(figure, command.results, "fig5_synthetic_tasks", stamp))


def plot_templates(command: cli.Command[Settings]) -> None:
    """Draw LS's panel a: left, deformations of four templates at strength 3; right, one column for each strength."""
    strengths = sorted(command.settings.strengths)
    task = tasks.load_task(settings_of(command.settings, strengths[0], 0), command.options)
    templates = task.train_examples(4)
    figure, axes = plots.grid(4, 4 + 1 + len(strengths), size=0.9)
    for i, template in enumerate(templates):
        for j, strength in enumerate([3.0] * 4 + [None] + strengths):
            panel = axes[i][j]
            if strength is None:
                continue
            key = jax.random.fold_in(jax.random.key(command.settings.networks.training.task_seed), 100 * i + j)
            deform = data.DeformedTemplates(task.prepare_clean, strength).deform
            panel.imshow(deform(jax.random.split(key, 1), template[None])[0].squeeze(), cmap="gray_r")
            if i == 0:
                panel.set_title(f"{strength:g} px")
    _save_templates(command, figure)


def _save_templates(command: cli.Command[Settings], figure: "Figure") -> None:
    t = command.settings.networks.training
    stamp = f"scale {command.options.scale} · templates from {t.dataset} · left: one strength, right: growing strength"
    print("figure:", plots.save(figure, command.results, "fig5_templates", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, accuracies = results.measured(command, lambda: measure(command), "table", "accuracy")
    print(show(results.summarised(command, rows, summarise), accuracies))
    plot(command, rows)
    plot_templates(command)


if __name__ == "__main__":
    main()
