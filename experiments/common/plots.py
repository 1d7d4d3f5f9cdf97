"""Figures readable at column width: colour-blind-safe lines, ±2 sd bands over seeds, the scale stamped on."""

import itertools
import pathlib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deform_jax import checks
from experiments.common import clock, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, with a marker each, so that lines differ in print too.
LINES: Mapping[str, tuple[str, str, str]] = {
    "max": ("#0072B2", "o", "max-pool"),
    "average": ("#56B4E9", "s", "average-pool"),
    "subsample": ("#D55E00", "^", "subsample"),
    "strided": ("#CC79A7", "v", "strided"),
    "strided_relu": ("#E69F00", "D", "strided-ReLU"),
}
OTHERS: Sequence[tuple[str, str]] = (
    ("#0072B2", "o"),
    ("#D55E00", "^"),
    ("#009E73", "P"),
    ("#CC79A7", "v"),
    ("#E69F00", "D"),
    ("#56B4E9", "s"),
)
"""Colour and marker of networks that are not among ``LINES``, in order."""
STATES: Mapping[str, str] = {"init": ":", "shuffled": "--", "trained": "-"}
"""Last word of a label of ``by_layer`` → its line; labels that are else alike share a colour."""
FORMATS = ("png", "pdf")
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
}


def panels(count: int, *, width: float = 3.6, height: float = 2.9, **keywords: Any) -> tuple["Figure", list["Axes"]]:
    """Return a figure with a row of panels, each of that size in inches."""
    figure, axes = panel_grid(1, count, width=width, height=height, **keywords)
    return figure, axes[0]


def panel_grid(
    rows: int, columns: int, *, width: float = 3.6, height: float = 2.7, **keywords: Any
) -> tuple["Figure", list[list["Axes"]]]:
    """Return a figure with rows of panels, each of that size in inches."""
    plt = _begin()
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **keywords)
    return figure, [list(line) for line in axes]


def grid(rows: int, columns: int, *, size: float = 1.8) -> tuple["Figure", list[list["Axes"]]]:
    """Return a figure of pictures without axes, each of that size in inches."""
    plt = _begin()
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, size * rows + 0.5), squeeze=False, layout="constrained"
    )
    for panel in axes.flat:
        panel.set_axis_off()
    return figure, [list(line) for line in axes]


def mosaic(
    layout: Sequence[Sequence[str]], *, size: tuple[float, float], **keywords: Any
) -> tuple["Figure", dict[str, "Axes"]]:
    """Return a figure of that size in inches, its panels named by their places in ``layout``."""
    plt = _begin()
    figure, axes = plt.subplot_mosaic([list(line) for line in layout], figsize=size, layout="constrained", **keywords)
    cast(Any, figure.get_layout_engine()).set(h_pad=0.08)
    return figure, axes


def _begin() -> Any:
    """Return pyplot with our style, and take the time: what follows until ``save`` is drawing."""
    clock.COMMAND.turn("plot")
    from matplotlib import pyplot as plt  # half a second, which only drawing needs

    plt.rcParams.update(cast(Any, STYLE))
    return plt


def picture(axes: "Axes", image: np.ndarray, title: str = "") -> None:
    """Show an image (h, w, c) of any numbers, its smallest black and its largest white."""
    low, high = image.min(), image.max()
    shown = (image - low) / (high - low if high > low else 1)
    axes.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    bare(axes)


def bare(axes: "Axes") -> None:
    """Take ticks and frame away; unlike ``set_axis_off``, the layout leaves room for the title."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def plain_log_ticks(axes: "Axes") -> None:
    """Label logarithmic axes by plain numbers: at 1, 2 and 5 of a decade, or more or fewer as they span one or many."""
    from matplotlib import ticker

    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() != "log":
            continue
        ratio = limits[1] / limits[0]
        marked = (1, 1.5, 2, 3, 4, 5, 6, 8) if ratio < 8 else (1, 2, 5) if ratio < 200 else (1,)
        axis.set_major_locator(ticker.LogLocator(subs=marked))
        axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.set_minor_formatter(ticker.NullFormatter())


def whole_numbers() -> Any:
    """Return a locator of ticks at whole numbers only."""
    from matplotlib import ticker

    return ticker.MaxNLocator(integer=True)


def shades(count: int) -> np.ndarray:
    """Return colours for an ordered quantity, darker for more."""
    return _colours("viridis_r", 0.15, 1, count)


def hues(count: int) -> np.ndarray:
    """Return colours for networks in a row."""
    return _colours("viridis", 0, 0.9, count)


def _colours(name: str, low: float, high: float, count: int) -> np.ndarray:
    import matplotlib as mpl

    return mpl.colormaps[name](np.linspace(low, high, count))


def arrows(axes: "Axes", tips: np.ndarray, field: np.ndarray, **style: Any) -> None:
    """Draw arrows whose tip is an output pixel and whose tail is where its value comes from: p + field[p]."""
    tips, field = tips.reshape(-1, 2), field.reshape(-1, 2)
    tails = tips + field
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, **style}
    axes.quiver(tails[:, 1], tails[:, 0], -field[:, 1], -field[:, 0], **style)


def by_layer(
    values: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]],
    quantity: str = "sensitivity",
    *,
    axes: "Axes | None" = None,
    log: bool = False,
) -> "Axes":
    """Draw what probes return, {layer: value}, for one or several networks, and return the panel.

    Args:
      values: {label: {layer: value}}, or lists of such mappings, one per seed, of which the mean is drawn, with a band
        of ± 2 standard deviations. Labels may end in a word of ``STATES``: ``{"max init": …, "max trained": …}``.
      quantity: what the values are.
      axes: the panel to draw in; by default, one of a new figure.
      log: logarithmic y, with the geometric mean and band, as SI has R.

    Raises:
      ValueError: nothing to draw, values that are not single numbers, or different layers.
    """
    seeds = {label: [found] if isinstance(found, Mapping) else list(found) for label, found in values.items()}
    given = list(dict.fromkeys(tuple(one) for members in seeds.values() for one in members))
    if len(given) != 1 or not given[0] or not all(seeds.values()):
        said = f"{' and '.join(map(str, given)) or 'nothing'} was given"
        checks.fail("values", "have the same layers for every label", said, "Give each its own panel.")
    names = given[0]
    if axes is None:
        axes = panels(1, width=min(max(3.6, 0.26 * len(names)), 7.2), height=3.3)[1][0]
    looks = _looks(_network_and_state(label)[0] for label in seeds)
    for label, members in seeds.items():
        array = np.asarray([[one[name] for name in names] for one in members], np.float64)
        if array.ndim != 2:
            checks.fail("values", "hold one number per layer", f"those of {label!r} have shape {array.shape[2:]}")
        network, state = _network_and_state(label)
        colour, marker = looks[network]
        style = {"linestyle": STATES[state], "marker": marker if state == "trained" else None, "label": label}
        band(axes, np.arange(len(names)), array, color=colour, geometric=log, **style)
    layer_axis(axes, names, label=False)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_ylabel(quantity)
    if log:
        axes.set_yscale("log")
        plain_log_ticks(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)  # above, where there is no curve
    return axes


def _network_and_state(label: str) -> tuple[str, str]:
    network, _, state = label.rpartition(" ")
    return (network, state) if state in STATES else (label, "trained")


def _looks(networks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return each network's colour and marker: those that it always has, or the next ones that are left."""
    networks = list(dict.fromkeys(networks))
    found = {name: LINES[name][:2] for name in networks if name in LINES}
    free = itertools.cycle([look for look in OTHERS if look not in found.values()])
    return found | {name: next(free) for name in networks if name not in LINES}


def layer_axis(axes: "Axes", names: Sequence[str], *, label: bool = True) -> None:
    """Label x by layer number, the input being 0, and shade the downsampling layers."""
    if label:
        axes.set_xlabel("layer (shaded: downsampling)")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(0, len(names), 2 if len(names) > 8 else 1))
    for index, name in enumerate(names):
        if name.endswith("_down") or "pool" in name.lower():
            axes.axvspan(index - 0.5, index + 0.5, color="0.93", zorder=0, linewidth=0)


def line(axes: "Axes", rows: Sequence[tables.Row], value: str, downsampling: str) -> None:
    """Draw the mean over seeds of a layer-by-layer quantity, with a band of ± 2 standard deviations over seeds."""
    colour, marker, label = LINES[downsampling]
    band(axes, *tables.per_seed(rows, value), color=colour, marker=marker, label=label)


def band(
    axes: "Axes",
    x: np.ndarray,
    values: np.ndarray,
    *,
    color: Any,
    geometric: bool = False,
    shaded: bool = True,
    **style: Any,
) -> None:
    """Draw the mean of ``values`` (seeds, x) and a band of ± 2 standard deviations over seeds.

    ``geometric``: both are those of the logarithms, as a logarithmic axis needs; ``shaded=False`` leaves out the band.
    """
    values, back = (np.log(values), np.exp) if geometric else (values, np.asarray)
    mean, spread = values.mean(axis=0), np.nan_to_num(tables.spread(values))
    axes.plot(x, back(mean), color=color, **style)
    if shaded:
        low, high = back(mean - 2 * spread), back(mean + 2 * spread)
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def variation(axes: "Axes", rows: Sequence[tables.Row]) -> None:
    """Draw total variation after training by number of the convolution, the mean initial value dotted."""
    for name in tables.unique(rows, "downsampling"):
        line(axes, tables.select(rows, downsampling=name, state="trained"), "total_variation", name)
    x, values = tables.per_seed(tables.select(rows, state="init"), "total_variation")
    axes.plot(x, np.full(len(x), values.mean()), color="black", linestyle=":", label="at initialisation")
    axes.set_xticks(x)
    axes.set_xlabel("convolution (3 × 3)")
    axes.set_ylabel("normalised total variation")


def save(figure: "Figure", folder: pathlib.Path, stem: str, stamp: str) -> pathlib.Path:
    """Write ``stem`` in each of ``FORMATS`` with the stamp below, and return the first one's path."""
    from matplotlib import pyplot

    lines = textwrap.wrap(stamp, width=int(19 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=6.5, color="0.35")
    for suffix in FORMATS:
        metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
        with tables.atomic(folder / f"{stem}.{suffix}", "wb") as file:
            figure.savefig(file, format=suffix, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once, for all formats alike
    pyplot.close(figure)
    clock.COMMAND.turn("other")
    return folder / f"{stem}.{FORMATS[0]}"
