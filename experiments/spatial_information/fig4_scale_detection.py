"""SI Fig. 4, third row: power of the kernels of VGG11 and VGG11bn in the Laplacian modes, on scale detection."""

from experiments.common import cli, results
from experiments.spatial_information import modes, recipes

SCALES = modes.scales(("vgg11", "vgg11_bn"), smoke="vgg11", zoo=recipes.SCALE_DETECTION)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: modes.measure(command), "table")
    print(modes.show(rows))
    modes.plot(command, rows, "fig4_scale_detection")


if __name__ == "__main__":
    main()
