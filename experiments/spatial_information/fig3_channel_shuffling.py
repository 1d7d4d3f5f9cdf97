"""SI Fig. 3: relative sensitivity of every layer of the VGGs, whole and with shuffled channels."""

from experiments.common import cli, results
from experiments.spatial_information import depth, recipes

SCALES = depth.scales(recipes.VGGS, smoke=("vgg11",))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: depth.measure(command), "table")
    summary = results.summarised(command, rows, depth.summarise)
    print(depth.show(rows, summary))
    names = command.settings.networks.architectures
    groups = {
        "without batch norm": [name for name in names if not name.endswith("_bn")],
        "with batch norm": [name for name in names if name.endswith("_bn")],
    }
    depth.plot(command, rows, "fig3_channel_shuffling", groups)


if __name__ == "__main__":
    main()
