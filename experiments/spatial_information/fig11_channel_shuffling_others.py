"""SI Fig. 11: relative sensitivity of every layer of LeNet and AlexNet, whole and with shuffled channels."""

from experiments.common import cli, results
from experiments.spatial_information import depth

SCALES = depth.scales(("lenet", "alexnet"), smoke=("lenet",))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: depth.measure(command), "table")
    summary = results.summarised(command, rows, depth.summarise)
    print(depth.show(rows, summary))
    depth.plot(command, rows, "fig11_channel_shuffling_others", {"": list(command.settings.networks.architectures)})


if __name__ == "__main__":
    main()
