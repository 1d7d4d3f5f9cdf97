"""Powers of the kernels' Laplacian modes, before and after training: what Figs 4, 12, 13 and 14 share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.common import cli, plots, results, tables
from experiments.spatial_information import measures, recipes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks' kernels are looked at."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    size: int = 3
    """Kernels of that size are looked at, pixels per side."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"--size must be at least 2; {self.size} given.")


def scales(
    architectures: Sequence[str],
    smoke: str,
    smoke_size: int = 3,
    zoo: Mapping[str, recipes.Networks] = recipes.NATURAL_IMAGES,
) -> dict[str, Settings]:
    """Return the settings of each scale for a figure of those architectures; ``smoke`` is the one of the tests."""
    return {
        "smoke": Settings(recipes.only(zoo["smoke"], (smoke,)), smoke_size),
        **{scale: Settings(recipes.only(zoo[scale], architectures)) for scale in ("demo", "paper")},
    }


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks; return one row per (architecture, seed, state, layer, mode), and accuracies."""
    wanted = command.settings
    task = recipes.load_task(wanted.networks, command.options)
    rows, accuracies = [], []
    for architecture in wanted.networks.architectures:
        trained = recipes.train(wanted.networks, architecture, task, command.options)
        accuracies += recipes.accuracy_rows(wanted.networks, task, architecture, trained)
        for network in trained:
            for state, variables in (("init", network.init), ("trained", network.trained)):
                head = {"architecture": architecture, "seed": network.seed, "state": state}
                rows += measures.mode_rows(variables["params"], head, size=wanted.size)
    return {"table": rows, "accuracy": accuracies}


def row_of_panels(axes: Sequence[Any], rows: Sequence[tables.Row], *, columns: int) -> None:
    """Draw γ over its mean over modes, one panel per layer: initialisation dotted, trained in full."""
    names = tables.unique(rows, "architecture")
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    modes = np.asarray(sorted(tables.unique(rows, "mode"))) + 1
    for k, panel in enumerate(axes, 1):
        for colour, name in zip(colours, names, strict=False):
            own = [row for row in rows if row["architecture"] == name and row["layer_index"] == k]
            if not own:
                continue  # a shallower network
            for state, style in (("init", ":"), ("trained", "-")):
                _, values = tables.per_seed(tables.select(own, state=state), "share", x="mode")
                look = {"linestyle": style, "marker": "o" if state == "trained" else None}
                look["label"] = f"{recipes.LABELS[name]}, {'initial' if state == 'init' else 'trained'}"
                shaded = state == "trained"
                plots.band(panel, modes, values * len(modes), color=colour, geometric=True, shaded=shaded, **look)
        panel.set_title(f"$k$ = {k}")
        panel.set_xticks(modes, [f"{mode:g}" if mode % 2 else "" for mode in modes])
        panel.set_yscale("log")
        plots.plain_log_ticks(panel)
    for panel in axes[len(axes) - columns :]:
        panel.set_xlabel("mode $l$, low to high")
        panel.tick_params(labelbottom=True)


def draw(rows: Sequence[tables.Row]) -> "Figure":
    """Return a figure with every layer's panel, four to a line."""
    layers = int(max(row["layer_index"] for row in rows))
    columns = min(4, layers)
    figure, axes = plots.panel_grid(-(-layers // columns), columns, width=2.1, height=1.9, sharex=True, sharey=True)
    flat = [panel for line in axes for panel in line]
    for panel in flat[layers:]:
        panel.set_axis_off()
    row_of_panels(flat[:layers], rows, columns=columns)
    for line in axes:
        line[0].set_ylabel(r"$\gamma_{k,l}$ / its mean over $l$")
    handles, labels = flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], stem: str) -> None:
    """Draw every layer's modes, with the stamp."""
    stamp = recipes.stamp(command.options.scale, command.settings.networks, ", bands (trained) ± 2 sd over seeds")
    print("figure:", plots.save(draw(rows), command.results, stem, stamp))


def plot_frequencies(command: cli.Command[Settings], rows: Sequence[tables.Row], stem: str) -> None:
    """Draw the aggregate against relative depth, initialisation dotted; networks without batch norm left."""
    names = tables.unique(rows, "architecture")
    groups = [[n for n in names if not n.endswith("_bn")], [n for n in names if n.endswith("_bn")]]
    groups = [group for group in groups if group]
    figure, axes = plots.panels(len(groups), sharey=True)
    for panel, group in zip(axes, groups, strict=True):
        for colour, name in zip(plots.hues(len(group)), group, strict=True):
            frequency_line(panel, tables.select(rows, architecture=name), colour)
        frequency_axes(panel)
    for panel in axes[1:]:
        panel.set_ylabel("")
    stamp = recipes.stamp(command.options.scale, command.settings.networks, ", bands (trained) ± 2 sd over seeds")
    print("figure:", plots.save(figure, command.results, stem, stamp))


def frequency_line(panel: Any, rows: Sequence[tables.Row], colour: Any) -> None:
    """Draw one architecture's aggregate frequency against relative depth, initialisation dotted (SI Fig. 12)."""
    first = tables.select(rows, mode=0.0)
    for state, style in (("init", ":"), ("trained", "-")):
        x, values = tables.per_seed(tables.select(first, state=state), "frequency")
        trained = state == "trained"
        look = {"linestyle": style, "marker": "o" if trained else None}
        look["label"] = recipes.LABELS[first[0]["architecture"]] if trained else None
        plots.band(panel, x / x.max(), values, color=colour, shaded=trained, **look)


def frequency_axes(panel: Any) -> None:
    """Label what ``frequency_line`` draws."""
    panel.plot([], [], color="0.4", linestyle=":", label="at initialisation")
    panel.set_xlabel("relative depth, $k$ / $K$")
    panel.set_ylabel("spatial frequency\n(white: 1, constant: 0)")
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=7, columnspacing=1.0)


def show(rows: Sequence[tables.Row]) -> str:
    """Return the share of the constant mode and the aggregate frequency of every layer, before and after training."""
    lines = []
    for name in tables.unique(rows, "architecture"):
        own = tables.select(rows, architecture=name, mode=0.0)
        for layer in tables.unique(own, "layer"):
            cells = []
            for value in ("share", "frequency"):
                for state in ("init", "trained"):
                    found = [row[value] for row in tables.select(own, layer=layer, state=state)]
                    cells.append(f"{np.mean(found):.3f}")
            lines.append([recipes.LABELS[name], layer, *cells])
    header = ["architecture", "layer", "constant mode's share, init", "trained", "frequency, init", "trained"]
    return f"Means over seeds\n{tables.render(header, lines)}"
