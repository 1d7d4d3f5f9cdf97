"""SI Fig. 6: a pair of active pixels in homogeneous layers of stride 1 and of stride F, computed."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deform_jax import probes
from experiments.common import cli, plots, results, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RED = "#D00000"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, and which pixels are active in their inputs."""

    lengths: tuple[int, int] = (48, 32)
    """Image sides L in pixels: with stride 1 (left), with stride F (right)."""
    filter_sizes: tuple[int, int] = (5, 2)
    """Filter sizes F, pixels."""
    layers: tuple[int, int] = (6, 4)
    """Numbers of layers drawn; for stride F, F to that power must divide the side."""
    pixels_1: tuple[int, int] = (14, 34)
    """Active pixels on the left, counted from 0."""
    pixels_2: tuple[int, int] = (5, 11)
    """Active pixels on the right."""

    def __post_init__(self) -> None:
        for name, length in zip(("pixels_1", "pixels_2"), self.lengths, strict=True):
            pixels = getattr(self, name)
            if not 0 <= min(pixels) <= max(pixels) < length:
                raise ValueError(f"--{name.replace('_', '-')} must be from 0 to {length - 1}; {pixels} given.")

    def networks(self) -> dict[str, dict[str, int]]:
        """Return {side of the figure: filter size, stride, layers}."""
        strides = (1, self.filter_sizes[1])
        return {
            name: {"filter_size": size, "stride": stride, "layers": layers}
            for name, size, stride, layers in zip(
                ("left", "right"), self.filter_sizes, strides, self.layers, strict=True
            )
        }


SCALES = {"smoke": Settings(), "demo": Settings(), "paper": Settings()}


def width(length: int, network: dict[str, int]) -> np.ndarray:
    """Return the width of each layer's effective receptive field at this length, in pixels, from its profile.

    Seen from the input, the profile of a site is its response to an active pixel at every place. Stride 1: its standard
    deviation s. Stride F: √(12 s² + 1), the number of pixels if the profile is uniform.
    """
    found = []
    for responses in probes.homogeneous_representations(np.eye(length), **network):
        # Of the site that begins in the middle of the image, so that the border does not cut it.
        profile = responses[:, responses.shape[1] // 2]
        weights = profile / profile.sum()
        places = np.arange(length)
        variance = weights @ (places - weights @ places) ** 2
        found.append(np.sqrt(variance if network["stride"] == 1 else 12 * variance + 1))
    return np.array(found)


def measure(wanted: Settings) -> results.Tables:
    """Return the receptive fields of layers (``table``), and their ``representations`` of the image."""
    table, representations = [], []
    drawn = zip(wanted.networks().items(), wanted.lengths, (wanted.pixels_1, wanted.pixels_2), strict=True)
    for (panel, network), length, pixels in drawn:
        image = np.bincount(pixels, minlength=length).astype(float)
        head = {"panel": panel, "filter_size": network["filter_size"], "stride": network["stride"], "length": length}
        layers = [image, *probes.homogeneous_representations(image, **network)]
        for layer, values in enumerate(layers):
            for site, value in enumerate(values):
                representations.append({**head, "layer": layer, "site": site, "value": float(value)})
        fields = probes.receptive_field_size(network["filter_size"], stride=network["stride"], layers=network["layers"])
        for layer, (field, exact) in enumerate(zip(fields, width(length, network), strict=True), start=1):
            table.append({**head, "layer": layer, "receptive_field": float(field), "exact": float(exact)})
    return {"table": table, "representations": representations}


def show(rows: Sequence[tables.Row]) -> str:
    """Return the table of receptive fields."""
    header = ["network", "layer", "A_k, pixels", "from the profile"]
    lines = [
        [f"F = {row['filter_size']:g}, stride {row['stride']:g}", f"{row['layer']:g}"]
        + [f"{row[name]:.4f}" for name in ("receptive_field", "exact")]
        for row in rows
    ]
    return f"Effective receptive fields of homogeneous layers\n{tables.render(header, lines)}"


def strips(axes: "Axes", rows: Sequence[tables.Row], title: str) -> None:
    """Draw every layer's representation as a row of sites, each as wide as the pixels it stands for, input on top."""
    length, stride = int(rows[0]["length"]), int(rows[0]["stride"])
    layers = tables.unique(rows, "layer")
    for layer in layers:
        values = np.asarray([row["value"] for row in tables.select(rows, layer=layer)])
        # A layer of stride 1 is as faint as its peak is low: it is drawn on a scale of its own.
        top = values.max() if stride == 1 else 2.0
        extent = (-0.5, length - 0.5, layer + 0.36, layer - 0.36)
        axes.imshow(values[None], cmap="Blues", vmin=0, vmax=top, extent=extent, aspect="auto", interpolation="nearest")
        edges = np.linspace(-0.5, length - 0.5, len(values) + 1)
        axes.vlines(edges, layer - 0.36, layer + 0.36, color="0.75", linewidth=0.4)
        axes.hlines([layer - 0.36, layer + 0.36], -0.5, length - 0.5, color="0.5", linewidth=0.5)
        if stride > 1:
            for site in np.flatnonzero(values):
                colour = "white" if values[site] > 1 else "black"
                place = ((edges[site] + edges[site + 1]) / 2, layer)
                axes.annotate(f"{values[site]:g}", place, ha="center", va="center_baseline", fontsize=7, color=colour)
    axes.set_xlim(-1, length)
    axes.set_ylim(layers[-1] + 1.3, -0.6)
    axes.set_yticks(layers, ["input", *(f"{layer:g}" for layer in layers[1:])])
    axes.set_ylabel("layer $k$")
    axes.set_xlabel("place in the image, pixels")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title)


def mark(axes: "Axes", left: float, right: float, height: float, label: str, *, beside: bool = False) -> None:
    """Draw a length in red with its name below, or on its right."""
    style = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "color": RED, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.4}
    axes.annotate("", (right, height), (left, height), arrowprops=style, annotation_clip=False)
    if beside:
        axes.annotate(label, (right, height), (5, 0), textcoords="offset points", va="center", color=RED, fontsize=8)
    else:
        below = ((left + right) / 2, height)
        axes.annotate(label, below, (0, -4), textcoords="offset points", ha="center", va="top", color=RED, fontsize=8)


def profiles(axes: "Axes", rows: Sequence[tables.Row], pixels: Sequence[int], field: float) -> None:
    """Draw the representations of stride 1 as curves, the Gaussians that the last one approaches, and A_k."""
    layers = tables.unique(rows, "layer")[1:]
    size, length = int(rows[0]["filter_size"]), int(rows[0]["length"])
    for colour, layer in zip(plots.shades(len(layers)), layers, strict=True):
        values = [row["value"] for row in tables.select(rows, layer=layer)]
        axes.plot(values, color=colour, label=f"$k$ = {layer:g}")
    places, last = np.linspace(0, length - 1, 8 * length), int(layers[-1])
    gaussians = [probes.diffusion_profile(places - i, filter_size=size, layer=last) for i in pixels]
    axes.plot(places, np.sum(gaussians, axis=0), color="black", linestyle=":", label=f"Gaussian, $k$ = {last}")
    height = max(row["value"] for row in tables.select(rows, layer=last)) * np.exp(-0.5)
    mark(axes, max(pixels), max(pixels) + field, height, f"$A_{last}$", beside=True)
    axes.set_xlabel("place in the image, pixels")
    axes.set_ylabel("representation")
    axes.set_xlim(-1, length)
    axes.set_ylim(0, 1.75 / size)
    axes.legend(ncols=3, loc="upper center", fontsize=7)


def plot(command: cli.Command[Settings], table: Sequence[tables.Row], shown: Sequence[tables.Row]) -> None:
    """Draw the layers of stride 1 (left) and of stride F (right), and below profiles and receptive fields."""
    wanted = command.settings
    layout = [["left", "right"], ["profiles", "width"]]
    figure, axes = plots.mosaic(layout, size=(7.6, 5.4), height_ratios=[1.25, 1])
    for panel, letter, colour, marker in (("left", "a", "max", "o"), ("right", "b", "average", "s")):
        rows, fields = tables.select(shown, panel=panel), tables.select(table, panel=panel)
        size, stride = int(fields[0]["filter_size"]), int(fields[0]["stride"])
        network = f"$F$ = {size}, stride {stride}"
        strips(axes[panel], rows, f"({letter}) {network}")
        field, last = fields[-1]["receptive_field"], int(fields[-1]["layer"])
        values = np.asarray([row["value"] for row in tables.select(rows, layer=last)])
        if stride == 1:
            centre = min(wanted.pixels_1)
            label = f"$\\pm A_{last}$,  $A_{last}$ = {field:.2f} pixels"
            mark(axes[panel], centre - field, centre + field, last + 0.6, label)
        else:
            start = values.argmax() * field - 0.5
            mark(axes[panel], start, start + field, last + 0.6, f"$A_{last}$ = {field:g} pixels")
        x = np.asarray([row["layer"] for row in fields])
        law = r"$\sqrt{k(F^2-1)/12}$" if stride == 1 else "$F^k$"
        shade = plots.LINES[colour][0]
        axes["width"].plot(x, [row["receptive_field"] for row in fields], color=shade, label=f"{network}: {law}")
        exact = [row["exact"] for row in fields]
        axes["width"].plot(x, exact, marker, color=shade, markersize=5, fillstyle="none", label="from the profile")
    left = tables.select(shown, panel="left")
    profiles(axes["profiles"], left, wanted.pixels_1, tables.select(table, panel="left")[-1]["receptive_field"])
    axes["profiles"].set_title("(c) the layers of (a) as curves")
    axes["width"].set_yscale("log")
    axes["width"].set_ylim(1, 60)
    plots.plain_log_ticks(axes["width"])
    axes["width"].set_xticks(range(1, max(wanted.layers) + 1))
    axes["width"].set_xlabel("layer $k$")
    axes["width"].set_ylabel("receptive field $A_k$, pixels")
    axes["width"].set_title("(d) effective receptive fields")
    axes["width"].legend(ncols=2, loc="upper center", fontsize=7)
    stamp = (
        f"scale {command.options.scale} · homogeneous filters: means in (a), with a colour scale for every layer, "
        f"sums in (b) · {wanted.lengths[0]} and {wanted.lengths[1]} pixels, periodic"
    )
    print("figure:", plots.save(figure, command.results, "fig6_pixel_diffusion", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, shown = results.measured(command, lambda: measure(command.settings), "table", "representations")
    print(show(rows))
    plot(command, rows, shown)


if __name__ == "__main__":
    main()
