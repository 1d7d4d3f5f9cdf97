"""SI Fig. 12: spatial frequency of every layer's kernels in one number, before and after training."""

from experiments.common import cli, results
from experiments.spatial_information import modes, recipes

SCALES = modes.scales(("alexnet", *recipes.VGGS), smoke="vgg11")


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    modes.plot_frequencies(command, rows, "fig12_spatial_frequency")


if __name__ == "__main__":
    main()
