"""Pose: sensitivity of every layer to translations, rotations and scalings, before and after training."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from deform_jax import warps
from deform_jax.typing import Perturb
from experiments.common import cli, plots, results, tables
from experiments.learned_stability import measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, and how far the pose changes (LS's later version measures pose; the ranges are ours)."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)
    max_angle: float = 10.0
    """Rotation about the image's centre: uniform between minus and plus this many degrees."""
    max_factor: float = 1.1
    """Scaling about the centre: log-uniform between 1/factor and factor. Translations use --max-shift, pixels."""

    def __post_init__(self) -> None:
        self.perturbations()  # their own checks, before anything is trained

    def perturbations(self) -> Mapping[str, Perturb]:
        """Return {name: perturbation}."""
        return {
            "deformation": self.probe.perturb,
            "translation": warps.random_translation(max_shift=self.probe.max_shift),
            "rotation": warps.random_rotation(max_angle=math.radians(self.max_angle)),
            "scaling": warps.random_scaling(max_factor=self.max_factor),
        }


SCALES = {
    "smoke": Settings(recipes.SMOKE, measures.SMOKE),
    "demo": Settings(recipes.DEMO),
    "paper": Settings(recipes.PAPER),
    "imagenet": Settings(recipes.IMAGENET, measures.IMAGENET),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load; return one row per (perturbation, downsampling, seed, state, draw, layer)."""
    wanted = command.settings
    task, trained = recipes.trained_networks(command, wanted.networks)
    rows = [
        {"perturbation": name, **row}
        for name, perturb in wanted.perturbations().items()
        for row in measures.both_states(wanted.probe, wanted.networks.training, task, trained, perturb=perturb)
    ]
    return {"table": rows, "accuracy": recipes.accuracy_rows(wanted.networks, task, trained)}


def show(rows: Sequence[tables.Row]) -> str:
    """Return the mean sensitivity over layers and seeds, by perturbation, state and downsampling."""
    names, lines = tables.unique(rows, "downsampling"), []
    for kind in tables.unique(rows, "perturbation"):
        for state in ("init", "trained"):
            cells = []
            for name in names:
                chosen = tables.select(rows, perturbation=kind, state=state, downsampling=name)
                means = tables.per_seed(chosen, "sensitivity")[1][:, 1:].mean(axis=1)
                cells.append(f"{means.mean():.3f} ± {tables.spread(means):.3f}")
            lines.append([f"{kind}, {state}", *cells])
    table = tables.render(["perturbation", *names], lines)
    return f"Sensitivity averaged over layers, mean ± sd over seeds\n{table}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw a column for each perturbation, initialisation above, trained below."""
    kinds = tables.unique(rows, "perturbation")
    figure, axes = plots.panel_grid(2, len(kinds), width=2.7, height=2.3, sharex=True, sharey=True)
    for line, (state, title) in zip(axes, (("init", "at initialisation"), ("trained", "after training")), strict=True):
        for panel, kind in zip(line, kinds, strict=True):
            plots.layer_axis(panel, tables.unique(rows, "layer"), label=line is axes[1])
            for name in tables.unique(rows, "downsampling"):
                chosen = tables.select(rows, perturbation=kind, state=state, downsampling=name)
                plots.line(panel, chosen, "sensitivity", name)
            panel.set_title(f"{kind}, {title}")
        line[0].set_ylabel(measures.LABELS["sensitivity"])
    axes[0][0].set_ylim(bottom=0)
    axes[1][-1].legend(fontsize=7)
    wanted = command.settings
    ranges = f"shifts ≤ {wanted.probe.max_shift:g} px, angles ≤ {wanted.max_angle:g}°, factors ≤ {wanted.max_factor:g}"
    stamp = f"{recipes.stamp(command.options.scale, wanted.networks)} · {ranges}"
    print("figure:", plots.save(figure, command.results, "pose_sensitivity", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    print(show(rows))
    plot(command, rows)


if __name__ == "__main__":
    main()
