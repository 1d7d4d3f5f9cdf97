"""SI Fig. 8: test error against D, G and R over the zoo on scale detection, with the pixels of a pair displaced."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.common import cli, plots, results, tables
from experiments.spatial_information import errors, measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=lambda: recipes.SCALE_DETECTION["paper"])
    probe: measures.PixelProbe = dataclasses.field(default_factory=measures.PixelProbe)


SCALES = {name: Settings(networks, measures.PIXELS[name]) for name, networks in recipes.SCALE_DETECTION.items()}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load every network; return one row per (architecture, seed, state, measure), and accuracies."""
    wanted = command.settings
    task = recipes.load_task(wanted.networks, command.options)
    sample = measures.displaced(wanted.probe, task, wanted.networks.training.pairs)
    return errors.zoo(wanted.networks, task, sample, command.options, chunk=wanted.probe.chunk)


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the correlations over the whole zoo, and over its convolutional networks, which are close together."""
    convolutional = [row for row in rows if row["architecture"] not in recipes.FULLY_CONNECTED]
    chosen = {"all": rows, "convolutional": convolutional}
    return [{"networks": name, **row} for name, some in chosen.items() for row in errors.summarise(some)]


def show(rows: Sequence[tables.Row], summary: Sequence[dict[str, Any]]) -> str:
    """Return the zoo's errors and sensitivities, and how they are correlated."""
    lines = [errors.listing(rows)]
    for networks in ("all", "convolutional"):
        found = tables.select(summary, networks=networks)
        before = errors.describe(found, state="init")
        lines.append(f"{networks} networks: {errors.describe(found)}\n  at initialisation: {before}")
    return "\n\n".join(lines)


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw one panel per sensitivity."""
    figure, axes = plots.panels(len(errors.MEASURES), width=2.9, height=2.6, sharey=True)
    errors.line_of_panels(axes, rows, tables.select(summary, networks="all"), 0.0)
    axes[0].set_ylabel(r"test error, $\epsilon$")
    errors.legend(axes[0], tables.select(rows, learned=1))
    tail = ", bars: ± 1 sd over seeds, 95 % over architectures"
    stamp = recipes.stamp(command.options.scale, command.settings.networks, tail)
    print("figure:", plots.save(figure, command.results, "fig8_scale_detection_zoo", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    summary = results.summarised(command, rows, summarise)
    print(show(rows, summary))
    if found := errors.stuck(rows):
        print(found)
    plot(command, rows, summary)


if __name__ == "__main__":
    main()
