"""SI Fig. 9: D, G and R of every layer of AlexNet and the VGGs on scale detection, whole and with shuffled channels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.common import cli, plots, results, tables
from experiments.spatial_information import depth, measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings(depth.Shuffled):
    """Which networks, shuffled how often, measured how."""

    probe: measures.PixelProbe = dataclasses.field(default_factory=measures.PixelProbe)


def _settings(scale: str, architectures: Sequence[str], shuffles: int) -> Settings:
    networks = recipes.only(recipes.SCALE_DETECTION[scale], architectures)
    return Settings(networks, shuffles, measures.PIXELS[scale])


TITLES = {"D": "sensitivity to diffeomorphisms", "G": "to noise", "R": "relative, $R_k$ = $D_k$ / $G_k$"}
SOME = ("alexnet", *recipes.VGGS)
SCALES = {
    "smoke": _settings("smoke", ("vgg11",), 2),
    "demo": _settings("demo", SOME, 3),
    "paper": _settings("paper", SOME, 5),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks; return one row per (architecture, seed, state, shuffle, layer), and accuracies."""
    wanted = command.settings
    task = recipes.load_task(wanted.networks, command.options)
    sample = measures.displaced(wanted.probe, task, wanted.networks.training.pairs)
    return depth.layers(wanted, wanted.probe, task, sample, command.options)


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return Fig. 3's summary of D, G and R: the last convolution over the input, and shuffled over whole."""
    return [{"measure": column, **row} for column in measures.COLUMNS for row in depth.summarise(rows, column)]


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw one line of panels per family of networks, one column per sensitivity."""
    names = tables.unique(rows, "architecture")
    vggs = [name for name in names if name.startswith("vgg")]
    plain = [name for name in vggs if not name.endswith("_bn")]
    families = [[n for n in names if n not in vggs], plain, [n for n in vggs if n not in plain]]
    families = [family for family in families if family]
    size = {"width": 2.9, "height": 2.3, "sharex": True}
    figure, axes = plots.panel_grid(len(families), len(measures.COLUMNS), **size, sharey="col")
    for line, family in zip(axes, families, strict=True):
        for one, column in zip(line, measures.COLUMNS, strict=True):
            depth.panel(one, rows, family, column)
            one.set_ylabel(f"${column}_k$")
            if line is axes[0]:
                one.set_title(TITLES[column])
            if line is not axes[-1]:
                one.set_xlabel("")
        line[0].plot([], [], color="0.4", linestyle="--", label="shuffled channels")
        line[0].legend(loc="lower left", fontsize=6.5)
    tail = depth.tail(command.settings)
    stamp = recipes.stamp(command.options.scale, command.settings.networks, tail)
    print("figure:", plots.save(figure, command.results, "fig9_scale_detection_layers", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    summary = results.summarised(command, rows, summarise)
    for column in measures.COLUMNS:
        print(depth.show(rows, tables.select(summary, measure=column), column), end="\n\n")
    plot(command, rows)


if __name__ == "__main__":
    main()
