"""SI 4 in two dimensions: exact D, G and R of homogeneous networks against the width A_k, for d = 1 and d = 2."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deform_jax import data, probes
from experiments.common import cli, plots, results, tables, watch
from experiments.spatial_information import measures

FILTER_SIZES = {1: 3, 2: 2}
"""Stride → filter size F along every axis: SI's of task 1 and task 2."""
LABELS = {"D": "diffeomorphisms, $D_k$", "G": "noise, $G_k$", "R": "relative, $R_k$"}
COLOURS = {1: "#0072B2", 2: "#D55E00"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which images and networks; nothing is trained or drawn at random. Memory grows as the 4th power of 2-D sides."""

    sides_1d: tuple[int, ...] = (32, 512)
    """Stride 1, one dimension: sides L of the images, pixels; task 1 with SI's gap of 4 and its ξ = 11 of 32 in
    proportion."""
    layers_1d: tuple[int, ...] = (12, 64)
    """Layers of each of these networks."""
    sides_2d: tuple[int, ...] = (28, 48)
    """Stride 1, two dimensions: sides n of the images, pixels; task 1 with SI's gap of 2 and ξ = n/2."""
    layers_2d: tuple[int, ...] = (12, 24)
    """Layers of each of these networks."""
    patches_1d: tuple[int, ...] = (128, 1024)
    """Stride F = 2, one dimension: sides, powers of 2; task 2 with ξ = L/4, and layers up to A_k = ξ."""
    patches_2d: tuple[int, ...] = (16, 32)
    """Stride F = 2, two dimensions: sides, powers of 2; task 2 with ξ = n/2, and layers up to A_k = ξ."""

    def __post_init__(self) -> None:
        for name in ("1d", "2d"):
            sides, layers = (getattr(self, f"{what}_{name}") for what in ("sides", "layers"))
            if len(sides) != len(layers):
                flags = f"--sides-{name} and --layers-{name}"
                raise ValueError(f"{flags} must be of one length; {sides} and {layers} given.")
            if not sides or not getattr(self, f"patches_{name}"):
                raise ValueError(f"--sides-{name} and --patches-{name} must name at least one side each; none given.")

    def cases(self) -> list[tuple[data.ScaleDetection, int, int]]:
        """Return (task, stride, layers) of every network."""
        found = []
        for side, layers in zip(self.sides_1d, self.layers_1d, strict=True):
            found.append((data.ScaleDetection("distance", (side,), round(side * 11 / 32), 4), 1, layers))
        for side, layers in zip(self.sides_2d, self.layers_2d, strict=True):
            found.append((data.ScaleDetection("distance", (side, side), side / 2, 2), 1, layers))
        for dimensions, sides in ((1, self.patches_1d), (2, self.patches_2d)):
            for side in sides:
                scale = side // (4 // dimensions)
                layers = round(math.log(scale, FILTER_SIZES[2]))
                found.append((data.ScaleDetection("patch", (side,) * dimensions, scale, 0), 2, layers))
        return found


SCALES = {
    "smoke": Settings((32,), (12,), (8,), (4,), (32,), (8,)),
    "demo": Settings(),
    "paper": Settings(patches_2d=(32, 64)),
}
"""The paper's scale takes 3 GB."""


def theory(task: data.ScaleDetection, stride: int, layers: int) -> probes.HomogeneousTheory:
    """Return what is exact: every active pixel by itself moves by one pixel along one axis, around the borders."""
    pairs = data.pixel_pairs(task)
    return probes.homogeneous_network(
        pairs.positions,
        probes.balanced_weights(pairs.labels),
        task.shape,
        filter_size=FILTER_SIZES[stride],
        stride=stride,
        layers=layers,
        displacements=data.pixel_displacements("step", len(task.shape)),
        value=data.active_value(task),
    )


def measure(wanted: Settings) -> list[dict[str, Any]]:
    """Return one row per network and layer: A, D, G, R, and the laws through the last layer."""
    rows = []
    for task, stride, layers in watch.each(wanted.cases(), "computing"):
        dimensions = len(task.shape)
        found, laws = theory(task, stride, layers), exponents(dimensions, stride)
        head = {"dimensions": dimensions, "stride": stride, "filter_size": FILTER_SIZES[stride]}
        head |= {"side": task.shape[0], "scale": task.scale, "gap": task.gap}
        for k, width in enumerate(found.receptive_field):
            row = {**head, "layer_index": k + 1, "A": float(width)}
            for column, part in measures.COLUMNS.items():
                values = getattr(found, part)
                law = values[-1] * (width / found.receptive_field[-1]) ** laws[column]
                row |= {column: float(values[k]), f"{column}_law": float(law)}
            rows.append(row)
    return rows


def exponents(dimensions: int, stride: int) -> dict[str, float]:
    """Return the exponents that D, G and R approach, against the width."""
    laws = probes.asymptotic_exponents(strided=stride > 1, ndim=dimensions)
    return {column: getattr(laws, part) for column, part in measures.COLUMNS.items()}


def upper_slope(widths: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> float:
    """Return the log–log slope over the upper half of the layers, where asymptotic laws are approached."""
    half = len(widths) // 2 if len(widths) > 2 else 0
    return probes.log_log_slope(np.asarray(widths)[half:], np.asarray(values)[half:])


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return one row per network and measure: its exponent over the upper half of the layers, over all, and the law."""
    table = []
    for own in networks(rows):
        head = {name: own[0][name] for name in ("dimensions", "stride", "side")}
        laws = exponents(int(head["dimensions"]), int(head["stride"]))
        widths = np.asarray([row["A"] for row in own])
        for column in LABELS:
            values = np.asarray([row[column] for row in own])
            slopes = {"upper_half": upper_slope(widths, values), "all": probes.log_log_slope(widths, values)}
            table.append({**head, "layers": len(own), "measure": column, **slopes, "law": laws[column]})
    return table


def networks(rows: Sequence[tables.Row]) -> list[list[tables.Row]]:
    """Return the rows of each network."""
    keys = dict.fromkeys((row["dimensions"], row["stride"], row["side"]) for row in rows)
    return [tables.select(rows, dimensions=d, stride=stride, side=side) for d, stride, side in keys]


def show(summary: Sequence[tables.Row]) -> str:
    """Return the exponents as a table."""
    lines = [
        [
            f"{row['dimensions']:g}-D, stride {row['stride']:g}, side {row['side']:g}, {row['layers']:g} layers",
            row["measure"],
            *(f"{row[name]:.2f}" for name in ("all", "upper_half", "law")),
        ]
        for row in summary
    ]
    header = ["network", "", "all layers", "upper half", "law"]
    return f"Exponents against the width A_k of homogeneous networks\n{tables.render(header, lines)}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw a row of panels per stride, a column per measure: exact curves, and the laws dashed."""
    figure, axes = plots.panel_grid(len(FILTER_SIZES), len(LABELS), width=2.9, height=2.6)
    for line, (stride, size) in zip(axes, FILTER_SIZES.items(), strict=True):
        for panel, (column, label) in zip(line, LABELS.items(), strict=True):
            drawn = networks(tables.select(rows, stride=stride))
            largest = {own[0]["dimensions"]: own[0]["side"] for own in sorted(drawn, key=lambda own: own[0]["side"])}
            for own in drawn:
                dimensions, side = int(own[0]["dimensions"]), own[0]["side"]
                law = exponents(dimensions, stride)[column]
                curve(panel, own, column, law, large=side == largest[dimensions])
            panel.set_title(f"stride {stride}, $F$ = {size}: {label}", fontsize=8.5)
            panel.set_xlabel("width $A_k$, pixels")
            panel.legend(fontsize=6)
            plots.plain_log_ticks(panel)
        line[0].set_ylabel("sensitivity")
    tail = "task 1 (stride 1), task 2 (stride 2), moves by a pixel, rectified noise, exact"
    stamp = f"scale {command.options.scale} · homogeneous filters · {tail} · dashed: asymptotic laws through the end"
    print("figure:", plots.save(figure, command.results, "two_dimensions", stamp))


def curve(axes: Any, rows: Sequence[tables.Row], column: str, law: float, *, large: bool) -> None:
    """Draw one network, the largest of its dimension filled and with the law."""
    dimensions, widths = int(rows[0]["dimensions"]), [row["A"] for row in rows]
    sides = " × ".join([f"{rows[0]['side']:g}"] * dimensions)
    look = {"color": COLOURS[dimensions], "marker": "o" if large else "s", "markersize": 3}
    look |= {} if large else {"fillstyle": "none", "linewidth": 0.8}
    axes.plot(widths, [row[column] for row in rows], **look, label=f"{sides} pixels")
    if large:
        label = f"$A_k^{{{law:+.0f}}}$"
        axes.plot(widths, [row[f"{column}_law"] for row in rows], color="0.2", linestyle="--", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: {"table": measure(command.settings)}, "table")
    summary = results.summarised(command, rows, summarise)
    print(show(summary))
    plot(command, rows)


if __name__ == "__main__":
    main()
