"""SI Fig. 1: a deformed image; test error against relative sensitivity over the zoo; correlations against noise."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from deform_jax import data
from experiments.common import cli, plots, results, tables
from experiments.spatial_information import errors, measures, recipes

SCALES = errors.ZOO_SCALES


def examples(command: cli.Command[errors.Settings]) -> list[dict[str, Any]]:
    """Return the pixels of the pictures: an image, its deformation, and it with each noise."""
    task = errors.clean_task(command)
    sample = measures.perturbed(command.settings.probe, task)
    image = sample.images[0]
    noises = [norm for norm in command.settings.noise_norms if norm]
    noisy = [data.additive_noise(jax.random.key(0), image[None], norm)[0] for norm in noises]
    pictures = {"original": image, "deformed": sample.deformed[0]}
    pictures |= {f"noise {norm:g}": picture for norm, picture in zip(noises, noisy, strict=True)}
    return [
        {"picture": name, "row": int(i), "column": int(j), "channel": int(c), "value": float(value)}
        for name, picture in pictures.items()
        for (i, j, c), value in np.ndenumerate(np.asarray(picture))
    ]


def measure(command: cli.Command[errors.Settings]) -> results.Tables:
    """Return the rows of Fig. 10's table, the accuracies, and the pictures."""
    return {**errors.measure(command), "examples": examples(command)}


def show(rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> str:
    """Return the zoo's errors and sensitivities, and how they are correlated."""
    before = errors.describe(summary, state="init")
    return f"{errors.listing(rows)}\n\n{errors.describe(summary)}\nat initialisation: {before}"


def plot(command: cli.Command[errors.Settings], rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw the three parts side by side."""
    pictures = tables.read(command.results / "examples.csv")
    figure, axes = plots.mosaic(
        [["original", "scatter", "noisy"], ["deformed", "scatter", "correlation"]],
        size=(8.6, 3.7),
        width_ratios=[1.1, 2.9, 2.5],
        height_ratios=[1, 1.6],
    )
    for name in ("original", "deformed"):
        plots.picture(axes[name], _picture(pictures, name), name)
    errors.scatter(axes["scatter"], rows, 0.0, "R")
    errors.legend(axes["scatter"], rows, loc="upper right")
    axes["scatter"].set_xlabel(r"relative sensitivity to diffeomorphisms, $R_f$")
    axes["scatter"].set_ylabel(r"test error, $\epsilon$")
    rho = next(row["value"] for row in summary if _is(row, 0.0, "R"))
    axes["scatter"].set_title(rf"after training, $\rho(\epsilon, R_f)$ = {rho:.2f}")
    noises = [name for name in tables.unique(pictures, "picture") if name.startswith("noise")]
    axes["noisy"].set_axis_off()
    for i, name in enumerate(noises):
        inset = axes["noisy"].inset_axes((i / len(noises), 0.0, 0.95 / len(noises), 0.75))
        plots.picture(inset, _picture(pictures, name), name.removeprefix("noise "))
    axes["noisy"].set_title("with training noise of norm")
    correlations(axes["correlation"], rows, summary)
    stamp = recipes.stamp(command.options.scale, command.settings.networks, stamp_tail(command.settings))
    print("figure:", plots.save(figure, command.results, "fig1_error_and_sensitivity", stamp))


def correlations(axes: Any, rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw ρ(ε, X) against the norm of the training noise, η* marked."""
    noises = tables.unique(summary, "noise_norm")
    positive = [noise for noise in noises if noise]
    ratio = positive[1] / positive[0] if len(positive) > 1 else 10.0
    places = [noise or (positive[0] / ratio if positive else 1.0) for noise in noises]
    for i, (name, colour) in enumerate(errors.COLOURS.items()):
        chosen = [next(row for row in summary if _is(row, noise, name)) for noise in noises]
        value, low, high = (np.asarray([row[column] for row in chosen]) for column in ("value", "low", "high"))
        bars = np.nan_to_num(np.abs(np.stack([value - low, high - value])))
        x = np.asarray(places) * 1.06 ** (i - 1)
        axes.errorbar(x, value, bars, color=colour, marker="o", capsize=2, elinewidth=0.8, label=f"${name}_f$")
    norm = np.mean([row["value"] for row in tables.select(rows, measure="perturbation_norm", noise_norm=0.0)])
    axes.axvline(norm, color="0.6", linestyle="--", linewidth=0.8)
    axes.annotate(r"$\eta^*$", (norm, -1.0), xytext=(2, 0), textcoords="offset points", color="0.4")
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{noise:g}" for noise in noises], minor=False)
    axes.minorticks_off()
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel("norm of the training noise")
    axes.set_ylabel(r"correlation with the error, $\rho(\epsilon, X)$")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=3, columnspacing=1.2, handlelength=1.2)


def stamp_tail(settings: errors.Settings) -> str:
    """Return what the stamp says of the noisy networks and the intervals."""
    if settings.noisy_architectures is None and settings.noisy_seeds is None:
        return ", bars: ± 1 sd over seeds, 95 % over architectures"
    count = len(settings.noisy_architectures or settings.networks.architectures)
    seeds = settings.noisy_seeds or settings.networks.seeds
    return f", with noise {count} architectures and {seeds} seed(s), bars: ± 1 sd over seeds, 95 % over architectures"


def _is(row: tables.Row, noise: float, name: str) -> bool:
    return row["noise_norm"] == noise and row["statistic"] == name and row["state"] == "trained"


def _picture(rows: Sequence[tables.Row], name: str) -> np.ndarray:
    chosen = tables.select(rows, picture=name)
    shape = tuple(1 + int(max(row[axis] for row in chosen)) for axis in ("row", "column", "channel"))
    return np.asarray([row["value"] for row in chosen]).reshape(shape)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    summary = results.summarised(command, rows, errors.summarise)
    print(show(rows, summary))
    if found := errors.stuck(rows):
        print(found)
    plot(command, rows, summary)


if __name__ == "__main__":
    main()
