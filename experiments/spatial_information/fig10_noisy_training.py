"""SI Fig. 10: test error against D, G and R over the zoo, one row of panels per magnitude of training noise."""

from collections.abc import Sequence

from experiments.common import cli, plots, results, tables
from experiments.spatial_information import errors, recipes
from experiments.spatial_information.fig1_error_and_sensitivity import stamp_tail

SCALES = errors.ZOO_SCALES


def plot(command: cli.Command[errors.Settings], rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw one row of panels per noise, one column per sensitivity."""
    noises = tables.unique(rows, "noise_norm")
    figure, axes = plots.panel_grid(len(noises), len(errors.MEASURES), width=2.9, height=2.3, sharey="row")
    for line, noise in zip(axes, noises, strict=True):
        errors.line_of_panels(line, rows, summary, noise, labels=line is axes[-1])
        line[0].set_ylabel(f"noise of norm {noise:g}\n" + r"test error, $\epsilon$")
    errors.legend(axes[0][0], rows)
    stamp = recipes.stamp(command.options.scale, command.settings.networks, stamp_tail(command.settings))
    print("figure:", plots.save(figure, command.results, "fig10_noisy_training", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: errors.measure(command), "table")
    summary = results.summarised(command, rows, errors.summarise)
    for noise in tables.unique(rows, "noise_norm"):
        print(f"noise of norm {noise:g}: {errors.describe(summary, noise)}")
    if found := errors.stuck(rows):
        print(found)
    plot(command, rows, summary)


if __name__ == "__main__":
    main()
