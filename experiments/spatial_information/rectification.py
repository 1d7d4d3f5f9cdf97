"""SI 4.2, "the rectifying action of ReLU is crucial": G of the same networks with and without ReLU, and the theory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from experiments.common import cli, plots, results, runs, statistics, tables, watch
from experiments.spatial_information import simple, simple_measures
from experiments.spatial_information.fig7_simple_cnns import slope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOISES = {True: "rectified", False: "plain"}
LOOKS: Mapping[tuple[str, str], dict[str, Any]] = {
    ("relu", "rectified"): {"color": "#0072B2", "linestyle": "-", "marker": "o", "label": "ReLU, rectified noise"},
    ("relu", "plain"): {"color": "#56B4E9", "linestyle": "--", "marker": "s", "label": "ReLU, plain noise"},
    ("linear", "rectified"): {"color": "#E69F00", "linestyle": "--", "marker": "v", "label": "linear, rectified noise"},
    ("linear", "plain"): {"color": "#D55E00", "linestyle": "-", "marker": "^", "label": "linear, plain noise"},
}
"""Units and noise, in that order."""
STATES = {"trained": "trained", "mean_channel": "trained, mean channel"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, measured how."""

    networks: simple.Networks = dataclasses.field(default_factory=simple.Networks)
    share: float = 0.1
    """Part of all pairs of pixels whose images are probed, half of them of each class."""
    draws: int = 1
    """Displacements and noises of every image; G is the mean over them."""
    probe_seed: int = 0
    """Seed of pairs, displacements and noise."""

    def probe(self, *, rectified: bool) -> simple.Probe:
        """Return how networks are probed with noise of one kind."""
        return simple.Probe(self.share, self.draws, rectified, 0, self.probe_seed)


SCALES = {
    scale: Settings(chosen.networks, chosen.probe.share, chosen.probe.draws)
    for scale, chosen in simple.SIMPLE_SCALES.items()
}
SCALES["smoke"] = dataclasses.replace(
    SCALES["smoke"], networks=dataclasses.replace(SCALES["smoke"].networks, tasks=("task2",))
)


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Return sensitivities of networks with either units and noise (``table``), the ``theory`` and ``accuracy``."""
    found: results.Tables = {"table": [], "theory": [], "accuracy": []}
    wanted = command.settings
    for task in wanted.networks.tasks:
        settings = wanted.networks.training_of(task)
        loaded, trained = simple.train(wanted.networks, task, command.options)
        model: Any = runs.build(settings, None, loaded.num_classes)
        found["accuracy"] += [simple_measures.accuracy_row(settings, loaded, one, task) for one in trained]
        for rectified, noise in NOISES.items():
            probe = wanted.probe(rectified=rectified)
            images = simple_measures.sample(probe, task)
            for units in ("relu", "linear"):
                # The parameters are the same: only what follows the convolutions is another function.
                changed = model.clone(activation=units)
                head = {"units": units, "noise": noise}
                for network in watch.each(trained, f"probing {task}, {units}, {noise} noise"):
                    rows = simple_measures.rows(changed, network, images, probe, task)
                    found["table"] += [head | row for row in rows]
            theory = simple_measures.theory_rows(task, rectified=rectified)
            found["theory"] += [{"noise": noise} | row for row in theory]
    return found


def summarise(rows: Sequence[tables.Row], theory: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return the log–log slope of G over the first part of each network, by state, units and noise; and the theory's.

    All are against A_k of the trained networks with ReLU, whose receptive fields the question is about; the theory is
    against its own.
    """
    table = []
    for task in tables.unique(rows, "task"):
        last = simple.CASES[task].first_part
        chosen = [row for row in tables.select(rows, task=task) if row["layer_index"] <= last]
        keys = ("state", "units", "noise")
        values = statistics.grouped(chosen, "G", keys)
        widths = statistics.grouped(tables.select(chosen, state="trained", units="relu"), "A", ("noise",))["rectified",]
        together = {("networks", *key): one for key, one in values.items()} | {("networks", "A"): widths}
        found = {row["statistic"]: row for row in statistics.bootstrap(slopes, together)}
        for state, units, noise in values:
            own = [row for row in tables.select(theory, task=task, noise=noise) if row["layer_index"] <= last]
            exact = slope([row["A"] for row in own], [row["G"] for row in own])
            head = {"task": task, "layers": last, "state": state, "units": units, "noise": noise}
            row = found[f"{state} {units} {noise}"]
            table.append({**head, **{name: row[name] for name in ("value", "low", "high")}, "exact": exact})
    return table


def slopes(values: statistics.Values) -> dict[str, float]:
    """Return {state, units and noise: slope of log G}, of means over seeds."""
    widths = values["networks", "A"].mean(axis=0)
    return {
        " ".join(key[1:]): slope(widths, np.exp(np.log(one).mean(axis=0)))
        for key, one in values.items()
        if key != ("networks", "A")
    }


def panel(axes: "Axes", rows: Sequence[tables.Row], state: str) -> None:
    """Draw G of one task's networks in one state, against A_k of the trained networks with ReLU.

    Trained networks as means and bands; mean channels one by one, as ReLU leaves hardly anything of some.
    """
    _, widths = tables.per_seed(tables.select(rows, state="trained", units="relu", noise="rectified"), "A")
    for (units, noise), look in LOOKS.items():
        _, values = tables.per_seed(tables.select(rows, state=state, units=units, noise=noise), "G")
        if state == "trained":
            plots.band(axes, widths.mean(axis=0), values, geometric=True, shaded=units == "relu", **look)
        else:
            axes.plot(widths.mean(axis=0), values.T, **look | {"label": None, "alpha": 0.8, "markersize": 2.5})


def limit(axes: "Axes", rows: Sequence[tables.Row], theory: Sequence[tables.Row]) -> None:
    """Show what theory and trained networks span, and say how far beyond it mean channels go."""
    inside = [row["G"] for row in (*tables.select(rows, state="trained"), *theory) if row["G"] > 0]
    axes.set_ylim(min(inside) / 2, max(inside) * 1.5)
    means = tables.select(rows, state="mean_channel")
    beyond = [row for row in means if row["G"] > max(inside) * 1.5]
    if beyond:
        count = f"{len(tables.unique(beyond, 'seed'))} of {len(tables.unique(means, 'seed'))} networks"
        text = f"{count} beyond, up to {max(row['G'] for row in beyond):.0f}"
        axes.annotate(text, (0.97, 0.05), xycoords="axes fraction", ha="right", fontsize=7)


def homogeneous(axes: "Axes", theory: Sequence[tables.Row]) -> None:
    """Draw G of the exact homogeneous network, and SI's laws through its first layer: A_k, and a constant."""
    for noise, units in (("rectified", "relu"), ("plain", "linear")):
        own = tables.select(theory, noise=noise)
        x, y = (np.asarray([row[name] for row in own]) for name in ("A", "G"))
        look = LOOKS[units, noise]
        axes.plot(x, y, color=look["color"], marker=look["marker"])
        law = y[0] * (x / x[0] if noise == "rectified" else np.ones(len(x)))
        axes.plot(x, law, color="black", linestyle=":", label="SI's law through the first layer")


def plot(command: cli.Command[Settings], found: Sequence[Sequence[tables.Row]]) -> None:
    """Draw a row of panels per task: the theory, trained networks, and these with each layer its mean channel."""
    rows, theory, accuracy = found
    tasks = command.settings.networks.tasks
    figure, axes = plots.panel_grid(len(tasks), 1 + len(STATES), width=2.7, height=2.5, sharey="row")
    for i, task in enumerate(tasks):
        homogeneous(axes[i][0], tables.select(theory, task=task))
        for one, state in zip(axes[i][1:], STATES, strict=True):
            panel(one, tables.select(rows, task=task), state)
        titles = ("homogeneous, exact", *STATES.values())
        for one, title in zip(axes[i], titles, strict=True):
            one.set_title(f"{simple.CASES[task].label if one is axes[i][0] else ''}\n{title}", fontsize=8)
            one.set_xlabel("effective receptive field $A_k$, pixels")
            one.set_xscale("log")
            one.set_yscale("log")
        limit(axes[i][-1], tables.select(rows, task=task), tables.select(theory, task=task))
        for one in axes[i]:
            plots.plain_log_ticks(one)
        axes[i][0].set_ylabel("sensitivity to noise, $G_k$")
    handles = axes[0][1].get_legend_handles_labels()[0] + axes[0][0].get_legend_handles_labels()[0][:1]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    stamp = simple_measures.stamp(cast(Any, command), accuracy) + "; bands ± 2 sd over seeds; mean channels one by one"
    print("figure:", plots.save(figure, command.results, "rectification", stamp))


def show(summary: Sequence[tables.Row]) -> str:
    """Return the slopes."""
    lines = [
        [
            f"{row['task']} {row['state'].replace('_', ' ')}, {LOOKS[row['units'], row['noise']]['label']}",
            f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['exact']:.2f}",
        ]
        for row in summary
        if row["state"] in STATES
    ]
    return tables.render(["log-log slope of G against A", "network (95 %)", "homogeneous, this noise"], lines)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, theory, accuracy = results.measured(command, lambda: measure(command), "table", "theory", "accuracy")
    summary = results.summarised(command, rows, lambda one: summarise(one, theory))
    print(show(summary))
    plot(command, (rows, theory, accuracy))


if __name__ == "__main__":
    main()
