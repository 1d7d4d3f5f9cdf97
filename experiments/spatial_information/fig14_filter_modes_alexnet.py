"""SI Fig. 14: power of every layer's kernels in the Laplacian modes, AlexNet."""

from experiments.common import cli, results
from experiments.spatial_information import modes

SCALES = modes.scales(("alexnet",), smoke="lenet", smoke_size=5)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    modes.plot(command, rows, "fig14_filter_modes_alexnet")


if __name__ == "__main__":
    main()
