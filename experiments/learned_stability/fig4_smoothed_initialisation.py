"""LS Fig. 4: deformation sensitivity at initialisation, for filters smoothed by Gaussians of growing width."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from deform_jax import models, probes
from experiments.common import cli, plots, results, runs, statistics, tables, tasks, watch
from experiments.learned_stability import measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which untrained networks, smoothed how, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)
    sigmas: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
    """Standard deviations of the Gaussian, pixels; LS does not give its own."""

    def __post_init__(self) -> None:
        if len(set(self.sigmas)) < 2 or min(self.sigmas) < 0:
            raise ValueError(f"--sigmas must be two or more different numbers ≥ 0; {self.sigmas} given.")


SCALES = {
    "smoke": Settings(recipes.SMOKE, measures.SMOKE, (0.0, 1.0, 4.0)),
    "demo": Settings(dataclasses.replace(recipes.DEMO, downsamplings=recipes.DOWNSAMPLINGS, seeds=5)),
    "paper": Settings(recipes.PAPER),
    "imagenet": Settings(recipes.IMAGENET, measures.IMAGENET),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Return one row per (downsampling, seed, σ, draw, layer); the weights are those that training would start from."""
    settings = command.settings
    task = tasks.load_task(settings.networks.training, command.options)
    drawn = measures.draws(settings.probe, task)
    variations, rows = [], []
    wanted = itertools.product(settings.networks.downsamplings, range(settings.networks.seeds))
    for downsampling, seed in watch.each(wanted, "probing"):
        model = runs.build(settings.networks.training, downsampling, task.num_classes)
        fresh = runs.initial(model, seed, drawn[0][0].shape[1:])
        for sigma in sorted(settings.sigmas):
            head = {"downsampling": downsampling, "seed": seed, "sigma": sigma}
            variables = {**fresh, "params": probes.smooth_filters(fresh["params"], sigma)}
            variations += measures.variation_rows(variables["params"], head)
            for index, pair in enumerate(drawn):
                represent = models.represent(model, models.with_batch_statistics(model, variables, pair[0]))
                found = measures.sensitivity_rows(represent, [pair], head, chunk=settings.probe.chunk)
                rows += [{**row, "draw": index} for row in found]
    return {"table": rows, "variation": variations}


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the sensitivity at every σ, averaged over layers and downsamplings, with intervals over seeds."""
    values = statistics.grouped(rows, "sensitivity", ("downsampling", "sigma"))

    def statistic(values: statistics.Values) -> dict[str, float]:
        return {
            f"sigma_{sigma:g}": float(np.mean([array.mean() for key, array in values.items() if key[1] == sigma]))
            for sigma in tables.unique(rows, "sigma")
        }

    return statistics.bootstrap(statistic, values)


def show(summary: Sequence[tables.Row]) -> str:
    """Return the table of mean sensitivities."""
    lines = [
        [row["statistic"].removeprefix("sigma_"), f"{row['value']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}"]
        for row in summary
    ]
    table = tables.render(["σ (px)", "sensitivity", "95 % interval"], lines)
    return f"Sensitivity at initialisation, averaged over layers and downsamplings\n{table}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw a panel for each downsampling, a line for each σ, darker for smoother filters."""
    names, sigmas = tables.unique(rows, "downsampling"), tables.unique(rows, "sigma")
    figure, axes = plots.panels(len(names), width=2.7 if len(names) > 2 else 3.6, sharey=True)
    shades = plots.shades(len(sigmas))
    for panel, name in zip(axes, names, strict=True):
        plots.layer_axis(panel, tables.unique(rows, "layer"))
        for sigma, shade in zip(sigmas, shades, strict=True):
            chosen = tables.select(rows, downsampling=name, sigma=sigma)
            x, values = tables.per_seed(chosen, "sensitivity")
            plots.band(panel, x, values, color=shade, marker=".", label=f"σ = {sigma:g} px")
        panel.set_title(plots.LINES[name][2])
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel(measures.LABELS["sensitivity"])
    axes[-1].legend(fontsize=7)
    stamp = recipes.stamp(command.options.scale, command.settings.networks, trained=False)
    print("figure:", plots.save(figure, command.results, "fig4_smoothed_initialisation", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    print(show(results.summarised(command, rows, summarise)))
    plot(command, rows)


if __name__ == "__main__":
    main()
