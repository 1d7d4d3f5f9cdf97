"""SI Fig. 12: spatial frequency of every layer's kernels in one number, before and after training."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from experiments.common import cli, plots, results, tables
from experiments.spatial_information import modes, recipes

SCALES = modes.scales(("alexnet", *recipes.VGGS), smoke="vgg11")


def plot(command: cli.Command[modes.Settings], rows: Sequence[tables.Row]) -> None:
    """Draw the aggregate against relative depth, initialisation dotted; networks without batch norm left."""
    names = tables.unique(rows, "architecture")
    groups = [[n for n in names if not n.endswith("_bn")], [n for n in names if n.endswith("_bn")]]
    groups = [group for group in groups if group]
    figure, axes = plots.panels(len(groups), sharey=True)
    for panel, group in zip(axes, groups, strict=True):
        for colour, name in zip(mpl.colormaps["viridis"](np.linspace(0, 0.9, len(group))), group, strict=True):
            modes.frequency_line(panel, tables.select(rows, architecture=name), colour)
        modes.frequency_axes(panel)
    for panel in axes[1:]:
        panel.set_ylabel("")
    stamp = recipes.stamp(command.options.scale, command.settings.networks, ", bands (trained) ± 2 sd over seeds")
    print("figure:", plots.save(figure, command.results, "fig12_spatial_frequency", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    plot(command, rows)


if __name__ == "__main__":
    main()
