"""SI Fig. 5: inputs of both scale-detection tasks, in two dimensions and in one, and how many pairs they have."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Rectangle

from deform_jax import data
from experiments.common import cli, plots, results, tables, watch
from experiments.spatial_information.simple import CASES

PUBLISHED: Mapping[str, data.ScaleDetection] = {
    "1-D task 1": CASES["task1"].pairs,
    "1-D task 1, full gap": dataclasses.replace(CASES["task1"].pairs, full_gap=True),
    "1-D task 2": CASES["task2"].pairs,
    "2-D task 1": data.ScaleDetection("distance", (28, 28), scale=14, gap=2),
    "2-D task 1, 32 pixels": data.ScaleDetection("distance", (32, 32), scale=14, gap=2),
    "2-D task 2": data.ScaleDetection("patch", (28, 28), scale=14, gap=0),
}
"""SI's settings: of section 4; of the released 1-D code; of section 3 with 28 pixels (released code) and 32 (the text).

SI gives no size for 2-D task 2 (Fig. 5 b); it is drawn with those of task 1.
"""
DRAWN = {"a": "2-D task 1", "b": "2-D task 2", "c": "1-D task 1", "d": "1-D task 2"}
CLASSES = {"distance": {0.0: "far", 1.0: "close"}, "patch": {0.0: "different patches", 1.0: "same patch"}}
CLOSE, GAP, MOVED = "#BFE0F5", "0.82", plots.LINES["subsample"][0]
PATCHES = ("#BFE0F5", "#FBE5B6", "#F0D3E3", "#C5E8DC")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is drawn."""

    seeds: tuple[int, int, int, int] = (5, 12, 4, 23)
    """Seeds of the pairs of each task (a, b, c, d) and of their displacements, each by at most a pixel."""


SCALES = {"smoke": Settings(), "demo": Settings(), "paper": Settings()}


@functools.cache
def pairs_of(task: data.ScaleDetection) -> data.PixelPairs:
    """Return all pairs of a task, enumerated once."""
    return data.pixel_pairs(task)


def measure(wanted: Settings) -> results.Tables:
    """Return the pair counts of every setting (``table``), and the pixels of the images drawn (``examples``)."""
    counts, examples = [], []
    for name, task in watch.each(PUBLISHED.items(), "counting", unit="setting"):
        pairs = pairs_of(task)
        close = int(pairs.labels.sum())
        chosen = {"setting": name, **dataclasses.asdict(task), "shape": " × ".join(map(str, task.shape))}
        head = {key: chosen[key] for key in ("setting", "task", "shape", "scale", "gap", "full_gap")}
        counts.append({**head, "close": close, "far": len(pairs.labels) - close, "dropped": pairs.dropped})
    for seed, (panel, name) in zip(wanted.seeds, DRAWN.items(), strict=True):
        task = PUBLISHED[name]
        choose, move = jax.random.split(jax.random.key(seed))
        pairs = pairs_of(task)
        chosen, _ = data.balanced_split(choose, pairs.labels, train=2)
        positions, labels = pairs.positions[chosen], pairs.labels[chosen]
        flat = len(task.shape) == 1
        law, boundary = ("step", "periodic") if flat else ("neighbourhood", "clamp")
        moved = data.displace_pixels(move, positions, task.shape, law=law, boundary=boundary)
        for version, places in (("image", positions), ("displaced", np.asarray(moved))):
            for (example, pixel), label in np.ndenumerate(np.repeat(labels[:, None], 2, axis=1)):
                row, column = (0, *places[example, pixel])[-2:]
                place = {"version": version, "pixel": pixel, "row": int(row), "column": int(column)}
                examples.append({"panel": panel, "setting": name, "label": int(label), **place})
    return {"table": counts, "examples": examples}


def show(rows: Sequence[tables.Row]) -> str:
    """Return the table of pair counts."""
    header = ["setting", "shape", "ξ", "g", "close (+1)", "far (−1)", "dropped"]
    lines = [
        [row["setting"], str(row["shape"]).removesuffix(".0"), f"{row['scale']:g}"]
        + ["–" if row["task"] == "patch" else f"{row['gap']:g}"]
        + [f"{row[name]:,.0f}" for name in ("close", "far", "dropped")]
        for row in rows
    ]
    return f"Unordered pairs of different pixels\n{tables.render(header, lines)}"


def background(task: data.ScaleDetection, first: np.ndarray) -> np.ndarray:
    """Return colours (h, w, 3): of the patches, or of where a second pixel is close to the first one or in the gap."""
    if task.task == "patch":
        index = [side // int(task.scale) for side in np.indices(task.shape)]
        patches = index[0] if len(index) == 1 else 2 * index[0] + index[1]
        return colors.to_rgba_array(PATCHES)[patches % len(PATCHES), :3].reshape(-1, task.shape[-1], 3)
    pairs = pairs_of(task)
    found = np.full((*task.shape, 3), colors.to_rgb(GAP))
    holds = (pairs.positions == first).all(axis=-1)
    for pixel in (0, 1):
        chosen = holds[:, pixel]
        others = tuple(pairs.positions[chosen, 1 - pixel].T)
        found[others] = np.asarray([(1.0, 1.0, 1.0), colors.to_rgb(CLOSE)])[pairs.labels[chosen]]
    return found.reshape(-1, task.shape[-1], 3)


def draw(axes: Axes, task: data.ScaleDetection, rows: Sequence[tables.Row], title: str) -> None:
    """Draw one image, and a displaced version: over it in two dimensions, below it in one."""
    flat = len(task.shape) == 1
    image, moved = (tables.select(rows, version=version) for version in ("image", "displaced"))
    positions = np.asarray([[int(row[name]) for name in ("row", "column")] for row in image])
    shown = background(task, positions[0, -len(task.shape) :])
    shown[tuple(positions.T)] = 0
    height, width = shown.shape[:2]
    axes.imshow(shown, aspect="auto" if flat else "equal", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    for row in moved:
        corner = (row["column"] - 0.5, 0.7 if flat else row["row"] - 0.5)
        face, edge = (MOVED, 0) if flat else ("none", 1.2)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor=MOVED, linewidth=edge, zorder=3))
    for top in (-0.5, 0.7) if flat else (-0.5,):
        corner = (-0.5, top)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="0.4", linewidth=0.6, clip_on=False))
    if flat:
        axes.set_ylim(1.75, -1.7)
    mark_scale(axes, task, positions[0])
    plots.bare(axes)
    if flat:
        axes.set_ylabel(title.replace(", ", "\n"), fontsize=8, rotation=0, ha="right", va="center")
    else:
        axes.set_title(title, fontsize=8)


def mark_scale(axes: Axes, task: data.ScaleDetection, first: np.ndarray) -> None:
    """Draw ξ: from the first pixel on, with a circle in two dimensions, or along the last patch's side."""
    flat, width = len(task.shape) == 1, task.shape[-1]
    row, start = first
    end = start + (task.scale if start + task.scale < width else -task.scale)
    if task.task == "patch":
        start, end, row = width - 0.5 - task.scale, width - 0.5, width - 2.0
    elif not flat:
        axes.add_patch(Circle((start, row), task.scale, fill=False, linestyle="--", linewidth=0.8))
    height = -1.2 if flat else row
    arrow = "->" if task.task == "distance" and not flat else "<->"
    style = {"arrowstyle": arrow, "shrinkA": 0, "shrinkB": 0, "linewidth": 0.8}
    axes.annotate("", (end, height), (start, height), arrowprops=style)
    colour = "white" if flat else CLOSE if task.task == "distance" else PATCHES[3]
    box = {"facecolor": colour, "edgecolor": "none", "pad": 0.8}
    axes.annotate("ξ", ((start + end) / 2, height), ha="center", va="center", fontsize=8, bbox=box)


def plot(command: cli.Command[Settings], counts: Sequence[tables.Row], examples: Sequence[tables.Row]) -> None:
    """Draw an image of either class of both tasks, in two dimensions (a, b) and in one (c, d)."""
    layout = [["a0", "a1", "b0", "b1"], *([f"{panel}{label}"] * 4 for panel in "cd" for label in (0, 1))]
    figure, axes = plots.mosaic(layout, size=(7.2, 4.6), height_ratios=[3.4, 1, 1, 1, 1])
    for panel, name in DRAWN.items():
        task = PUBLISHED[name]
        for label, class_name in CLASSES[task.task].items():
            rows = tables.select(examples, panel=panel, label=label)
            head = f"({panel}) " if label == 0 else ""
            draw(axes[f"{panel}{int(label)}"], task, rows, f"{head}{class_name}, y = {'+1' if label else '−1'}")
    handles = [
        Patch(color="black", label="active pixel"),
        Line2D([], [], color="none", marker="s", markersize=6, markeredgecolor=MOVED, label="after a displacement"),
        Patch(color=CLOSE, label="close to the first pixel (a, c)"),
        Patch(color=GAP, label="in the gap: no such pairs (a, c)"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=7.5)
    first, second = (tables.select(counts, setting=DRAWN[panel])[0] for panel in "ac")
    stamp = (
        f"scale {command.options.scale} · (a, b) {first['shape']} pixels, ξ = {first['scale']:g}, gap {first['gap']:g} "
        f"in (a) · (c) {second['shape']:g} pixels, ξ = {second['scale']:g}, gap {second['gap']:g} · (d) 128 pixels, "
        "ξ = 32 · displaced images in orange; below the image in (c, d), which are periodic"
    )
    print("figure:", plots.save(figure, command.results, "fig5_scale_detection_inputs", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    counts, examples = results.measured(command, lambda: measure(command.settings), "table", "examples")
    print(show(counts))
    plot(command, counts, examples)


if __name__ == "__main__":
    main()
