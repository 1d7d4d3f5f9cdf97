"""RS (Petrini et al. 2021): D, G and R of trained networks over temperatures and cutoffs of the deformations."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from deform_jax import warps
from experiments.common import cli, plots, results, runs, tables, watch
from experiments.spatial_information import errors, measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, deformed how."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    cutoffs: tuple[int, ...] = (3, 5, 15)
    """Cutoffs c of the deformations."""
    temperatures: int = 30
    """Temperatures at each cutoff: logarithms evenly spaced, from 1/15 of the lowest valid one to twice the highest."""
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)

    def __post_init__(self) -> None:
        # Its own checks, without a device: other processes may have to be joined first.
        jax.eval_shape(lambda: warps.temperature_grid(size=32, cutoffs=self.cutoffs, count=self.temperatures))


SOME = ("fc_l4", "lenet", "vgg11", "vgg11_bn", "resnet18")
SCALES = {
    "smoke": Settings(recipes.only(recipes.SMOKE, ("lenet",)), (3,), 3, measures.SMOKE),
    "demo": Settings(recipes.only(recipes.DEMO, SOME), temperatures=8),
    "paper": Settings(recipes.PAPER, probe=measures.PAPER),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks; return one row per (architecture, seed, cutoff, temperature), and accuracies."""
    wanted = command.settings
    task = recipes.load_task(wanted.networks, command.options)
    samples = _samples(wanted, measures.perturbed(wanted.probe, task).images)
    rows, accuracies = [], []
    for architecture in wanted.networks.architectures:
        trained = recipes.train(wanted.networks, architecture, task, command.options)
        accuracies += recipes.accuracy_rows(wanted.networks, task, architecture, trained)
        model = runs.build(wanted.networks.training_of(architecture), None, task.num_classes)
        both = itertools.product(trained, samples)
        for network, (facts, sample) in watch.each(both, f"probing {architecture}", unit="temperature"):
            represent = measures.represent_trained(model, network.trained)
            values = measures.at_output(represent, sample, chunk=wanted.probe.chunk)
            rows.append({"architecture": architecture, "seed": network.seed, **facts, **values})
    return {"table": rows, "accuracy": accuracies}


def _samples(wanted: Settings, images: Any) -> list[tuple[dict[str, Any], measures.Perturbed]]:
    """Return the images perturbed at every cutoff and temperature, with what each was."""
    size = images.shape[1:3]
    samples = []
    for cutoff, grid in warps.temperature_grid(size=size, cutoffs=wanted.cutoffs, count=wanted.temperatures).items():
        low, high = warps.temperature_range(cutoff=cutoff, size=size)
        for temperature in map(float, grid):
            displacement = float(warps.typical_displacement(temperature, cutoff=cutoff, size=size))
            probe = dataclasses.replace(wanted.probe, cutoff=cutoff, displacement=displacement)
            sample = measures.perturb(probe, images)
            facts = {"cutoff": cutoff, "temperature": temperature, "displacement": displacement}
            valid = int(low <= temperature <= high)
            samples.append(({**facts, "valid": valid, "perturbation_norm": sample.norm}, sample))
    return samples


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw D, G and R by RS's medians against the typical displacement; one line style per cutoff."""
    names, cutoffs = tables.unique(rows, "architecture"), tables.unique(rows, "cutoff")
    figure, axes = plots.panels(3, width=3.0, sharex=True)
    for panel, (column, label) in zip(axes, errors.MEASURES.items(), strict=True):
        for colour, name in zip(plots.hues(len(names)), names, strict=True):
            for style, cutoff in zip(("-", "--", ":", "-."), cutoffs, strict=False):
                own = tables.select(rows, architecture=name, cutoff=cutoff)
                x, values = tables.per_seed(own, f"{column}_median", x="displacement")
                panel.plot(x, np.exp(np.log(values).mean(axis=0)), color=colour, linestyle=style)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("typical displacement δ, pixels")
        panel.set_ylabel(f"sensitivity to {label}" if column != "R" else label)
    for colour, name in zip(plots.hues(len(names)), names, strict=True):
        axes[0].plot([], [], color=colour, label=recipes.LABELS[name])
    for style, cutoff in zip(("-", "--", ":", "-."), cutoffs, strict=False):
        axes[0].plot([], [], color="0.3", linestyle=style, label=f"cutoff {cutoff:g}")
    axes[0].legend(fontsize=6.5)
    stamp = recipes.stamp(command.options.scale, command.settings.networks, ", geometric means; medians as in RS")
    print("figure:", plots.save(figure, command.results, "temperatures", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    lines = []
    for name in tables.unique(rows, "architecture"):
        for cutoff in tables.unique(rows, "cutoff"):
            own = tables.select(rows, architecture=name, cutoff=cutoff, valid=1.0)
            found = [
                f"{np.exp(np.mean(np.log([row[c] for row in own]))):.3g}" if own else "–" for c in ("R", "R_median")
            ]
            lines.append([recipes.LABELS[name], f"{cutoff:g}", *found])
    print("Geometric means over the valid temperatures and seeds")
    print(tables.render(["architecture", "cutoff", "R (means)", "R (medians)"], lines))
    plot(command, rows)


if __name__ == "__main__":
    main()
