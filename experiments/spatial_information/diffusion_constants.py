"""SI Prop. A.1: the diffusion of a pixel with the constants that hold, beside those printed in Eqs 11 and 12."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deform_jax import probes
from experiments.common import cli, plots, results, tables, watch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {"correct": ("max", "-"), "printed": ("subsample", "--")}
"""Constants → colour and line."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which filters, and how far a pixel diffuses."""

    filter_sizes: tuple[int, ...] = (2, 3, 4, 5, 7)
    """Filter sizes F, pixels."""
    layers: int = 128
    """Layers K of stride 1."""
    length: int = 512
    """Side L of the image in pixels: at least K + 16 times the width after K layers, so that nothing wraps around."""
    shown: int = 16
    """Layer whose profiles are drawn."""

    def __post_init__(self) -> None:
        if min(self.filter_sizes) < 2 or len(set(self.filter_sizes)) < len(self.filter_sizes):
            raise ValueError(f"--filter-sizes must be at least 2, each once; {self.filter_sizes} given.")
        if not 1 <= self.shown <= self.layers:
            raise ValueError(f"--shown must be from 1 to --layers, {self.layers}; {self.shown} given.")
        width = probes.receptive_field_size(max(self.filter_sizes), layers=self.layers)[-1]
        least = int(np.ceil(2 * (self.layers / 2 + 8 * width)))
        if self.length < least:
            raise ValueError(f"--length must be at least {least} for {self.layers} layers; {self.length} given.")


SCALES = {
    "smoke": Settings(layers=16, length=160, shown=8),
    "demo": Settings(),
    "paper": Settings(layers=512, length=1280),
}


def measure(wanted: Settings) -> results.Tables:
    """Return constants and errors of every layer (``table``), and the ``profiles`` of one layer."""
    table, profiles = [], []
    offsets = np.arange(wanted.length) - wanted.length // 2
    image = (offsets == 0).astype(float)
    for size in watch.each(wanted.filter_sizes, "computing", unit="filter size"):
        layers = probes.homogeneous_representations(image, filter_size=size, stride=1, layers=wanted.layers)
        for layer, exact in enumerate(layers, start=1):
            gaussians = {
                kind: probes.diffusion_profile(offsets, filter_size=size, layer=layer, printed=kind == "printed")
                for kind in KINDS
            }
            mean = exact @ offsets
            row: dict[str, Any] = {"filter_size": size, "layer": layer, "peak": exact.max()}
            row |= {"drift": mean / layer, "diffusion": exact @ (offsets - mean) ** 2 / (2 * layer)}
            for kind, gaussian in gaussians.items():
                printed = kind == "printed"
                row[f"drift_{kind}"] = probes.drift(size, printed=printed)
                row[f"diffusion_{kind}"] = probes.diffusion_constant(size, printed=printed)
                row[f"error_{kind}"] = np.abs(gaussian - exact).max()
            table.append({name: value if isinstance(value, int) else float(value) for name, value in row.items()})
            if layer == wanted.shown:
                for offset, *values in zip(offsets, exact, *gaussians.values(), strict=True):
                    if values[0] > 0:
                        head = {"filter_size": size, "layer": layer, "offset": int(offset)}
                        profiles.append(head | dict(zip(("exact", *gaussians), map(float, values), strict=True)))
    return {"table": table, "profiles": profiles}


def decay(rows: Sequence[tables.Row], size: float, kind: str) -> float:
    """Return the exponent a of error ~ k^a over the second half of the layers' logarithm."""
    chosen = tables.select(rows, filter_size=size)
    chosen = [row for row in chosen if row["layer"] >= max(row["layer"] for row in chosen) ** 0.5]
    x, y = (np.asarray([row[name] for row in chosen]) for name in ("layer", f"error_{kind}"))
    return probes.log_log_slope(x, y)


def show(rows: Sequence[tables.Row]) -> str:
    """Return the table of constants: what layers do to a pixel, what holds, and what SI prints."""
    header = ["F", "variance/(2k)", "(F²−1)/24", "SI's D", "mean/k", "drift", "SI's drift"]
    header += ["error ~ k^a, a", "with SI's"]
    lines = []
    for size in tables.unique(rows, "filter_size"):
        last = tables.select(rows, filter_size=size)[-1]
        names = ("diffusion", "diffusion_correct", "diffusion_printed", "drift", "drift_correct", "drift_printed")
        cells = [f"{round(last[name], 4) + 0.0:.4f}" for name in names]
        lines.append([f"{size:g}", *cells, *(f"{decay(rows, size, kind):.2f}" for kind in KINDS)])
    return f"Diffusion of a pixel in homogeneous layers of stride 1\n{tables.render(header, lines)}"


def profile(axes: "Axes", rows: Sequence[tables.Row]) -> None:
    """Draw one filter size's profile at one layer: exact as points, both Gaussians as lines."""
    size, layer = int(rows[0]["filter_size"]), int(rows[0]["layer"])
    width = probes.receptive_field_size(size, layers=layer)[-1]
    offsets = np.asarray([row["offset"] for row in rows])
    centre = probes.drift(size) * layer
    near = np.abs(offsets - centre) <= 4.2 * width
    axes.plot(offsets[near], np.asarray([row["exact"] for row in rows])[near], "o", color="black", markersize=2.6)
    fine = np.linspace(centre - 4.2 * width, centre + 4.2 * width, 300)
    for kind, (colour, line) in KINDS.items():
        values = probes.diffusion_profile(fine, filter_size=size, layer=layer, printed=kind == "printed")
        axes.plot(fine, values, line, color=plots.LINES[colour][0], zorder=1 if kind == "correct" else 3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("offset, pixels")
    axes.set_title(f"$F$ = {size}")


def constants(axes: "Axes", rows: Sequence[tables.Row]) -> None:
    """Draw D against F."""
    last = [tables.select(rows, filter_size=size)[-1] for size in tables.unique(rows, "filter_size")]
    sizes = np.asarray([row["filter_size"] for row in last])
    axes.plot(sizes, [row["diffusion"] for row in last], "o", color="black", markersize=4.5)
    for kind, (colour, line) in KINDS.items():
        axes.plot(sizes, [row[f"diffusion_{kind}"] for row in last], line, color=plots.LINES[colour][0], zorder=1)
    axes.set_xticks(sizes)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("filter size $F$, pixels")
    axes.set_ylabel("diffusion constant $D$, pixels²")


def errors(axes: "Axes", rows: Sequence[tables.Row]) -> None:
    """Draw the errors against k, with a shade for each filter size."""
    sizes = tables.unique(rows, "filter_size")
    for colour, size in zip(plots.shades(len(sizes)), sizes, strict=True):
        chosen = tables.select(rows, filter_size=size)
        for kind, (_, line) in KINDS.items():
            label = f"$F$ = {size:g}" if kind == "correct" else None
            values = [row[f"error_{kind}"] for row in chosen]
            axes.plot([row["layer"] for row in chosen], values, line, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("layer $k$")
    axes.set_ylabel("largest difference")
    last = rows[-1]["layer"]
    k = np.asarray([last**0.5, last])
    for law, exponent, start in (("-1/2", -0.5, 0.25), ("-3/2", -1.5, 0.0004)):
        axes.plot(k, start * (k / k[0]) ** exponent, color="black", linestyle=":")
        axes.annotate(f"$k^{{{law}}}$", (last, start * (k[1] / k[0]) ** exponent), (4, 0), textcoords="offset points")
    axes.set_ylim(bottom=min(row["error_correct"] for row in rows) / 4, top=1)
    axes.set_xlim(right=5.5 * last)
    axes.legend(fontsize=7, loc="center right")


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], profiles: Sequence[tables.Row]) -> None:
    """Draw profiles of one layer (a), the constants (b) and the error of the Gaussian with either (c)."""
    sizes = tables.unique(profiles, "filter_size")
    count = len(sizes)
    layout = [[f"{size:g}" for size in sizes for _ in range(2)], ["constants"] * (count - 1) + ["errors"] * (count + 1)]
    figure, axes = plots.mosaic(layout, size=(max(1.75 * count, 6.5), 5.0), height_ratios=[1, 1.5])
    for size in sizes:
        profile(axes[f"{size:g}"], tables.select(profiles, filter_size=size))
    axes[f"{sizes[0]:g}"].set_ylabel(f"profile after {profiles[0]['layer']:g} layers")
    axes[f"{sizes[0]:g}"].set_title(f"(a) $F$ = {sizes[0]:g}")
    constants(axes["constants"], rows)
    axes["constants"].set_title("(b) diffusion constant")
    errors(axes["errors"], rows)
    axes["errors"].set_title("(c) error of the Gaussian")
    labels = {"correct": "correct: $D$ = ($F^2$ − 1)/24", "printed": "as printed (SI Eqs 11, 12)"}
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", marker="o", color="black", markersize=3.5, label="exact")]
    for kind, (colour, line) in KINDS.items():
        look: dict[str, Any] = {"color": plots.LINES[colour][0], "linestyle": line}
        handles.append(Line2D([], [], **look, label=labels[kind]))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    stamp = (
        f"scale {command.options.scale} · one active pixel in {command.settings.length} pixels, {rows[-1]['layer']:g} "
        "homogeneous layers of stride 1, computed · (c) solid: with the correct constants, dashed: with the printed "
        "ones; the largest difference from the exact profile"
    )
    print("figure:", plots.save(figure, command.results, "diffusion_constants", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, profiles = results.measured(command, lambda: measure(command.settings), "table", "profiles")
    print(show(rows))
    plot(command, rows, profiles)


if __name__ == "__main__":
    main()
