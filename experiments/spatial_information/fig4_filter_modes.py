"""SI Fig. 4: power of every layer's kernels in the Laplacian modes, VGG11 with and without batch norm."""

from experiments.common import cli, results
from experiments.spatial_information import modes

SCALES = modes.scales(("vgg11", "vgg11_bn"), smoke="vgg11")


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    modes.plot(command, rows, "fig4_filter_modes")


if __name__ == "__main__":
    main()
