"""Open question of LS 6: how sensitivity and smoothness of every layer move during training; is the way monotone?"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deform_jax import models, training
from experiments.common import cli, plots, results, runs, statistics, tables
from experiments.learned_stability import measures, recipes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, measured how; their states are kept after steps 1, 2, 4, 8, … and the last one."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=lambda: measures.Probe(draws=1))


SCALES = {
    "smoke": Settings(recipes.SMOKE, dataclasses.replace(measures.SMOKE, draws=1)),
    "demo": Settings(recipes.DEMO),
    "paper": Settings(recipes.PAPER),
    "imagenet": Settings(recipes.IMAGENET, dataclasses.replace(measures.IMAGENET, draws=1)),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load; return sensitivities and total variations by (downsampling, seed, step, layer).

    Batch norm has the statistics of the probe's clean images at every step, not only at initialisation: early in
    training the running averages are still those of the first steps.
    """
    wanted = command.settings
    if wanted.networks.training.recipe.stop_accuracy is not None:
        sys.exit("error: --stop-accuracy must be None here: all networks are compared at the same steps.")
    task, trained = recipes.trained_networks(command, wanted.networks)
    kept = runs.log_spaced(wanted.networks.training.recipe, task.train_count)
    for network in (one for members in trained.values() for one in members):
        if not set(kept).issubset(network.steps()):
            sys.exit(f"error: {network.folder} lacks states of some steps. Move it away, to have it trained again.")
    drawn = measures.draws(wanted.probe, task)
    rows, variations = [], []
    for downsampling, network in measures.each_network(trained):
        model = runs.build(wanted.networks.training, downsampling, task.num_classes)
        for step, path in network.steps().items():
            head = {"downsampling": downsampling, "seed": network.seed, "step": step}
            variables = training.load(path).variables
            variations += measures.variation_rows(variables["params"], head)
            for index, pair in enumerate(drawn):
                represent = models.represent(model, models.with_batch_statistics(model, variables, pair[0]))
                found = measures.sensitivity_rows(represent, [pair], head, chunk=wanted.probe.chunk)
                rows += [{**row, "draw": index} for row in found]
    accuracies = recipes.accuracy_rows(wanted.networks, task, trained)
    return {"table": rows, "variation": variations, "accuracy": accuracies}


def curves(rows: Sequence[tables.Row], value: str, downsampling: str) -> np.ndarray:
    """Return (seeds, steps, layers) of a measure, averaged over draws; the input is left out."""
    chosen = [row for row in tables.select(rows, downsampling=downsampling) if row["layer"] != "input"]
    steps = sorted(tables.unique(chosen, "step"))
    by_step = [tables.per_seed(tables.select(chosen, step=step), value)[1] for step in steps]
    return np.stack(by_step, axis=1)


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the detour of every downsampling's mean path, with intervals over seeds."""
    value = "sensitivity" if "sensitivity" in rows[0] else "total_variation"
    values = {(name,): curves(rows, value, name) for name in tables.unique(rows, "downsampling")}

    def statistic(values: statistics.Values) -> dict[str, float]:
        return {f"{value}_detour_{name}": statistics.detour(array.mean(axis=0)) for (name,), array in values.items()}

    return statistics.bootstrap(statistic, values)


def show(summary: Sequence[tables.Row]) -> str:
    """Return the table of detours."""
    lines = [
        [row["statistic"], f"{100 * row['value']:.0f}", f"{100 * row['low']:.0f} to {100 * row['high']:.0f}"]
        for row in summary
    ]
    table = tables.render(["measure and downsampling", "undone, %", "95 % interval"], lines)
    return f"Share of the way during training that is undone again: 0 % is monotone\n{table}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], variations: Sequence[tables.Row]) -> None:
    """Draw for each downsampling curves over steps (a line per layer) and layer × step heat maps."""
    names = tables.unique(rows, "downsampling")
    figure, axes = plots.panel_grid(4, len(names), width=2.7, height=2.1)
    measured = ((rows, "sensitivity", "sensitivity"), (variations, "total_variation", "total variation"))
    for half, (table, value, label) in enumerate(measured):
        values = {name: curves(table, value, name).mean(axis=0) for name in names}
        limits = min(v.min() for v in values.values()), max(v.max() for v in values.values())
        steps = sorted(tables.unique(table, "step"))
        layers = [layer for layer in tables.unique(table, "layer") if layer != "input"]
        image = None
        for column, name in enumerate(names):
            _curves(axes[2 * half][column], steps, values[name], limits)
            image = _map(axes[2 * half + 1][column], steps, values[name], layers, limits)
            axes[2 * half][column].set_title(plots.LINES[name][2] if half == 0 else "")
        axes[2 * half][0].set_ylabel(label)
        axes[2 * half + 1][0].set_ylabel("layer" if half == 0 else "convolution")
        figure.colorbar(cast(Any, image), ax=axes[2 * half + 1], label=label)
        shades = plots.shades(len(layers))
        for index in (0, len(layers) // 2, len(layers) - 1):
            axes[2 * half][-1].plot([], [], color=shades[index], label=f"layer {index + 1}")
        axes[2 * half][-1].legend(fontsize=6)
    stamp = recipes.stamp(command.options.scale, command.settings.networks, bands=False)
    print("figure:", plots.save(figure, command.results, "trajectories", stamp))


def _curves(axes: "Axes", steps: Sequence[float], values: np.ndarray, limits: tuple[float, float]) -> None:
    for layer, shade in enumerate(plots.shades(values.shape[1])):
        axes.plot(steps, values[:, layer], color=shade, linewidth=0.9)
    axes.set_xscale("symlog", linthresh=1, base=2)
    axes.set_xticks(steps[::3], [f"{step:g}" for step in steps[::3]])
    axes.minorticks_off()
    axes.set_xlabel("step")
    margin = 0.05 * (limits[1] - limits[0])
    axes.set_ylim(limits[0] - margin, limits[1] + margin)


def _map(
    axes: "Axes", steps: Sequence[float], values: np.ndarray, layers: Sequence[str], limits: tuple[float, float]
) -> Any:
    image = axes.imshow(values.T, origin="lower", aspect="auto", cmap="cividis", vmin=limits[0], vmax=limits[1])
    where = range(0, len(steps), 3)
    axes.set_xticks(list(where), [f"{steps[i]:g}" for i in where])
    ticks = range(0, len(layers), 2)
    axes.set_yticks(list(ticks), [str(i + 1) for i in ticks])
    axes.set_xlabel("step")
    return image


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, variations = results.measured(command, lambda: measure(command), "table", "variation")
    print(show(results.summarised(command, rows, lambda _: summarise(rows) + summarise(variations))))
    plot(command, rows, variations)


if __name__ == "__main__":
    main()
