"""SI Fig. 14, third row: power of AlexNet's kernels in the Laplacian modes, on scale detection."""

from experiments.common import cli, results
from experiments.spatial_information import modes, recipes

SCALES = modes.scales(("alexnet",), smoke="lenet", smoke_size=5, zoo=recipes.SCALE_DETECTION)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    modes.plot(command, rows, "fig14_scale_detection")


if __name__ == "__main__":
    main()
