"""SI section 5: error, D, G and R on images of k features whose combination is the class, against k."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from deform_jax import training
from experiments.common import cli, plots, results, tables
from experiments.spatial_information import combinatorial_measures, combinatorial_statistics, errors, measures, recipes
from experiments.spatial_information.combinatorial_measures import PERTURBATIONS, STATES, TRAINING, Settings

SCALES = {
    "smoke": Settings(
        recipes.Networks(
            architectures=("fc_l2",),
            seeds=2,
            training=dataclasses.replace(
                TRAINING,
                width=1 / 4,
                train_images=128,
                test_images=64,
                validation_images=32,
                initial_gain=recipes.HE,
                recipe=training.Recipe(learning_rate=0.02, epochs=1, batch_size=32),
            ),
        ),
        (1, 2),
        measures.SMOKE,
    ),
    "demo": Settings(
        recipes.Networks(
            architectures=("fc_l2", "lenet", "vgg11_bn"),
            seeds=3,
            full_width=("fc_l2", "lenet"),
            training=dataclasses.replace(
                TRAINING,
                width=1 / 16,
                train_images=1_536,
                test_images=2_000,
                validation_images=256,
                initial_gain=recipes.HE,
                recipe=training.Recipe(learning_rate=0.02, epochs=12, batch_size=32, warmup_epochs=1),
            ),
        ),
        (1, 2, 3),
    ),
    "paper": Settings(probe=measures.PAPER),
}


def show(rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> str:
    """Return errors and sensitivities, and how they are correlated."""
    lines = []
    for name, count in dict.fromkeys((row["architecture"], row["features"]) for row in rows):
        own = tables.select(summary, statistic="mean", architecture=name, features=count)
        cells = [_interval(row) for row in tables.select(own, measure="error")]
        for perturbation in PERTURBATIONS:
            for state in STATES:
                (row,) = tables.select(own, measure="R", state=state, perturbation=perturbation)
                cells.append(_interval(row))
        lines.append([recipes.LABELS[name], f"{count:g}", *cells])
    header = ["architecture", "k", "test error"]
    header += [f"R_f, {name}, {state}" for name in PERTURBATIONS for state in STATES]
    text = f"Geometric means over seeds (95 % interval)\n{tables.render(header, lines)}\n"
    for kind in ("correlation", "correlation_within_k"):
        found = tables.select(summary, statistic=kind, state="trained")
        said = ", ".join(f"{row['perturbation']} {row['measure']} {_interval(row)}" for row in found)
        text += f"\n{kind.replace('_', ' ')} of log error and log sensitivity, trained: {said}"
    return text


def _interval(row: tables.Row) -> str:
    return f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw errors and sensitivities against k, a line of panels per perturbation, and error against R_f."""
    figure, axes = plots.panel_grid(len(PERTURBATIONS), 4, width=2.5, height=2.5)
    _error(axes[0][0], command.settings, rows)
    _scatter(axes[1][0], rows, summary)
    for line, (perturbation, said) in zip(axes, PERTURBATIONS.items(), strict=True):
        for panel, column in zip(line[1:], measures.COLUMNS, strict=True):
            for name in tables.unique(rows, "architecture"):
                chosen = tables.select(rows, architecture=name, perturbation=perturbation, measure=column)
                _line(panel, name, tables.select(chosen, state="init"), trained=False)
                _line(panel, name, tables.select(chosen, state="trained"))
            label = errors.MEASURES[column]
            panel.set_ylabel(label if column == "R" else f"sensitivity to {label}" if column == "G" else "$D_f$")
            panel.set_title(said if column == "D" else "")
            _count_axis(panel, rows)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    print("figure:", plots.save(figure, command.results, "combinatorial_features", _stamp(command)))


def _line(panel: Any, architecture: str, rows: Sequence[tables.Row], *, trained: bool = True) -> None:
    colour, marker, _ = errors.family(architecture)
    x, values = tables.per_seed(rows, "value", x="features")
    style = {"marker": marker, "label": recipes.LABELS[architecture]} if trained else {"linestyle": ":"}
    plots.band(panel, x, values, color=colour, geometric=True, shaded=trained, **style)


def _count_axis(panel: Any, rows: Sequence[tables.Row]) -> None:
    panel.set_yscale("log")
    plots.plain_log_ticks(panel)
    panel.set_xticks(sorted(tables.unique(rows, "features")))
    panel.set_xlabel("features per image, $k$")


def _error(panel: Any, settings: Settings, rows: Sequence[tables.Row]) -> None:
    for name in tables.unique(rows, "architecture"):
        _line(panel, name, tables.select(rows, architecture=name, measure="error"))
    panel.set_ylim(bottom=min(row["value"] for row in tables.select(rows, measure="error")) / 2)  # bands go lower
    panel.axhline(1 - 1 / settings.networks.training.features.num_classes, color="0.6", linestyle="--", linewidth=0.8)
    panel.plot([], [], color="0.6", linestyle="--", linewidth=0.8, label="chance")
    panel.plot([], [], color="0.4", linestyle=":", label="at initialisation")
    panel.set_ylabel(r"test error, $\epsilon$")
    _count_axis(panel, rows)


def _scatter(panel: Any, rows: Sequence[tables.Row], summary: Sequence[tables.Row]) -> None:
    """Draw the error of every architecture and k against R_f for moved features, where something was learned."""
    for (name, count), own in combinatorial_statistics.points(rows).items():
        colour, marker, _ = errors.family(name)
        place = tuple(math.exp(own["trained", *key]) for key in (("features", "R"), ("none", "error")))
        edge = {"markeredgecolor": "black", "markeredgewidth": 0.5}
        panel.plot(*place, color=colour, marker=marker, markersize=5, linestyle="none", **edge)
        panel.annotate(f"{count:g}", place, xytext=(4, 2), textcoords="offset points", fontsize=7, color="0.2")
    panel.set_xscale("log")
    panel.set_yscale("log")
    plots.plain_log_ticks(panel)
    (row,) = tables.select(summary, statistic="correlation", state="trained", perturbation="features", measure="R")
    panel.set_title(rf"$\rho$ = {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})")
    panel.set_xlabel("$R_f$, features moved (numbers: $k$)")
    panel.set_ylabel(r"test error, $\epsilon$")


def plot_layers(command: cli.Command[Settings], layers: Sequence[tables.Row]) -> None:
    """Draw R of every layer, one panel per architecture and perturbation, k by colour, initialisation dotted."""
    names, counts = tables.unique(layers, "architecture"), sorted(tables.unique(layers, "features"))
    size = {"width": 2.9, "height": 2.3, "sharex": "col", "sharey": "row"}
    figure, axes = plots.panel_grid(len(PERTURBATIONS), len(names), **size)
    for line, (perturbation, said) in zip(axes, PERTURBATIONS.items(), strict=True):
        for panel, name in zip(line, names, strict=True):
            own = tables.select(layers, architecture=name, perturbation=perturbation)
            for colour, count in zip(plots.shades(len(counts)), counts, strict=True):
                for state in STATES:
                    x, values = tables.per_seed(tables.select(own, features=count, state=state), "R")
                    style = {"marker": "o", "label": f"$k$ = {count:g}"} if state == "trained" else {"linestyle": ":"}
                    plots.band(panel, x, values, color=colour, geometric=True, shaded=state == "trained", **style)
            panel.set_yscale("log")
            plots.plain_log_ticks(panel)
            panel.set_title(f"{recipes.LABELS[name]}, {said}")
        line[0].set_ylabel("relative sensitivity, $R$")
    for panel in axes[-1]:
        panel.set_xlabel("layer, from the input (0) to the output")
        panel.xaxis.set_major_locator(plots.whole_numbers())
    axes[0][0].plot([], [], color="0.4", linestyle=":", label="at initialisation")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(counts) + 1)
    print("figure:", plots.save(figure, command.results, "combinatorial_features_layers", _stamp(command)))


def _stamp(command: cli.Command[Settings]) -> str:
    features = command.settings.networks.training.features
    tail = f" · k of {features.vocabulary} features, {features.num_classes} classes"
    tail += f", δ = {command.settings.probe.displacement:g} px, bands ± 2 sd over seeds, ρ: 95 % over points"
    return recipes.stamp(command.options.scale, command.settings.networks, tail)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, layers = results.measured(command, lambda: combinatorial_measures.measure(command), "table", "layers")
    summary = results.summarised(command, rows, combinatorial_statistics.summarise)
    print(show(rows, summary))
    plot(command, rows, summary)
    plot_layers(command, layers)


if __name__ == "__main__":
    main()
