"""SI Fig. 13: power of every layer's kernels in the Laplacian modes, deep VGGs."""

from experiments.common import cli, results
from experiments.spatial_information import modes

SCALES = modes.scales(("vgg16", "vgg19", "vgg16_bn", "vgg19_bn"), smoke="vgg11")


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    modes.plot(command, rows, "fig13_filter_modes_deep")


if __name__ == "__main__":
    main()
