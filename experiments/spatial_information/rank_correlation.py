"""SI 1: do networks that are best on real images tend to be best on images of two active pixels? Rank correlation."""

import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import claim_scale, cli, plots, statistics, tables
from experiments.spatial_information import errors, recipes, scale_claim_statistics

RESULTS = pathlib.Path(__file__).parent / "results"
FIGURES = {"real": "fig1_error_and_sensitivity", "scale_detection": "fig8_scale_detection_zoo"}
"""Images → the figure whose table has the errors on them."""
LABELS = {"real": "test error on real images", "scale_detection": "test error on scale detection"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which results are compared; no network is trained here."""

    real: str = "demo"
    """Folder of results below results/fig1_error_and_sensitivity, by name."""
    scale_detection: str = "demo"
    """Folder of results below results/fig8_scale_detection_zoo, by name."""


SCALES = {name: Settings(name, name) for name in ("smoke", "demo", "paper")}


def folder(wanted: Settings, images: str) -> pathlib.Path:
    """Return a folder of results; where it has no table, end with the command that makes one."""
    name, figure = getattr(wanted, images), FIGURES[images]
    found = RESULTS / figure / name
    if not (found / "table.csv").is_file():
        there = sorted(path.parent.name for path in (RESULTS / figure).glob("*/table.csv"))
        flag = f"--{images.replace('_', '-')}"
        other = f", or name one of {', '.join(there)} with {flag}" if there else ""
        scale = name if name in SCALES else "demo"
        command = f"python -m experiments {figure} --scale {scale}"
        sys.exit(f"error: there are no results of {figure} named {name}. Run `{command}` first{other}.")
    return found


def measure(wanted: Settings) -> list[dict[str, Any]]:
    """Return one row per architecture, images and seed: the test error of networks that learned, on either images."""
    rows = []
    for images in FIGURES:
        found = tables.read(folder(wanted, images) / "table.csv")
        for row in tables.select(found, noise_norm=0.0, measure="error", state="trained", learned=1.0):
            head = {"architecture": row["architecture"], "images": images}
            rows.append({**head, "seed": int(row["seed"]), "error": row["value"]})
    both = set.intersection(*({row["architecture"] for row in tables.select(rows, images=name)} for name in FIGURES))
    rows = [row for row in rows if row["architecture"] in both]
    if not rows:
        sys.exit("error: no architecture has learned both tasks in these results. Choose others with --real.")
    return rows


def tested_on(wanted: Settings) -> dict[str, Any]:
    """Return on which data and with how much training the errors were made, as claims say it."""
    said = []
    for images in FIGURES:
        record = json.loads((folder(wanted, images) / "provenance.json").read_text(encoding="utf-8"))
        said.append(claim_scale.describe(folder(wanted, images), record, where={}))
    return {
        "data": "; ".join(one["data"] for one in said),
        "images_trained_on": min(one["images_trained_on"] for one in said),
    }


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return Spearman's ρ with its interval over architectures."""
    values = statistics.grouped(rows, "error", ("architecture", "images"))
    found = statistics.bootstrap(
        lambda one: {"spearman": scale_claim_statistics.rank_correlation(one)}, values, over="groups", correlations=True
    )
    return [{**row, "architectures": len(tables.unique(rows, "architecture"))} for row in found]


def points(rows: Sequence[tables.Row]) -> dict[str, dict[str, float]]:
    """Return {architecture: {images: geometric mean over seeds of the error}}."""
    logs = {
        (name, images): [math.log(row["error"]) for row in tables.select(rows, architecture=name, images=images)]
        for name in tables.unique(rows, "architecture")
        for images in FIGURES
    }
    return {
        name: {images: float(np.exp(np.mean(logs[name, images]))) for images in FIGURES}
        for name in tables.unique(rows, "architecture")
    }


def show(rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> str:
    """Return both errors of every architecture, best on real images first, and the correlation of their ranks."""
    found = sorted(points(rows).items(), key=lambda item: item[1]["real"])
    lines = [[recipes.LABELS[name], *(f"{values[images]:.4g}" for images in FIGURES)] for name, values in found]
    return f"{tables.render(['architecture', *LABELS.values()], lines)}\n{describe(summary)}"


def describe(summary: Sequence[tables.Row]) -> str:
    """Return the correlation in words."""
    (row,) = summary
    interval = f"{row['low']:.2f} to {row['high']:.2f}"
    return f"Spearman's ρ = {row['value']:.2f} ({interval}) over {row['architectures']} architectures"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw one labelled point per architecture."""
    figure, (axes,) = plots.panels(1, width=4.6, height=3.8)
    for name, values in points(rows).items():
        colour, marker, _ = errors.family(name)
        edge = {"markeredgecolor": "black", "markeredgewidth": 0.5}
        place = (values["real"], values["scale_detection"])
        axes.plot(*place, color=colour, marker=marker, markersize=5, linestyle="none", **edge)
        axes.annotate(recipes.LABELS[name], place, xytext=(4, 2), textcoords="offset points", fontsize=6.5)
    for setter, label in zip((axes.set_xlabel, axes.set_ylabel), LABELS.values(), strict=True):
        setter(f"{label}, $\\epsilon$")
    axes.set_xscale("log")
    axes.set_yscale("log")
    plots.plain_log_ticks(axes)
    axes.set_title(describe(summary))
    wanted = command.settings
    named = ", ".join(f"{FIGURES[images]} {getattr(wanted, images)}" for images in FIGURES)
    stamp = f"scale {command.options.scale} · {named} · geometric means over seeds, 95 % over architectures"
    print("figure:", plots.save(figure, command.results, "rank_correlation", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    if not command.options.plot_only:
        tables.write(command.results / "table.csv", measure(command.settings))
        cli.write_provenance(command, tested_on=tested_on(command.settings))
    rows = tables.read(command.results / "table.csv")
    summary = summarise(rows)
    tables.write(command.results / "summary.csv", summary)
    print(show(rows, summary))
    plot(command, rows, summary)


if __name__ == "__main__":
    main()
