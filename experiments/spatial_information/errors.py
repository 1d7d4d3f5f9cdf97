"""Test error against the output's sensitivities over a zoo, at several magnitudes of training noise: Figs 1 and 10."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deform_jax import data
from experiments.common import cli, plots, results, runs, statistics, tables, tasks, watch
from experiments.spatial_information import measures, recipes

MEASURES = {"D": "diffeomorphisms, $D_f$", "G": "noise, $G_f$", "R": "relative, $R_f$ = $D_f$ / $G_f$"}
COLOURS = {"D": "#D55E00", "G": "#0072B2", "R": "#000000"}
FAMILIES = {
    "fc_l": ("#999999", "s", "fully connected"),
    "lenet": ("#CC79A7", "v", "LeNet"),
    "alexnet": ("#F0E442", "^", "AlexNet"),
    "vgg": ("#56B4E9", "o", "VGG"),
    "vgg_bn": ("#0072B2", "o", "VGG, batch norm"),
    "resnet": ("#D55E00", "D", "ResNet"),
    "efficientnet": ("#009E73", "P", "EfficientNet-B0"),
}
"""Beginning of an architecture's name → colour, marker and label."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, trained under which noise, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    noise_norms: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0, 30.0, 100.0)
    """Expected norms of the white noise on every image (standardised, so that one of 32 × 32 × 3 has norm 55): in
    training fresh at each epoch, and on validation, test and probe images."""
    noisy_architectures: tuple[str, ...] | None = None
    """Architectures that are trained with noise; None: all."""
    noisy_seeds: int | None = None
    """Seeds of each that are trained with noise; None: as many as without."""
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)

    def __post_init__(self) -> None:
        if 0 not in self.noise_norms or min(self.noise_norms) < 0 or len(set(self.noise_norms)) < len(self.noise_norms):
            raise ValueError(f"--noise-norms must hold 0 and positive norms, each once; {self.noise_norms} given.")
        if not set(self.noisy_architectures or ()).issubset(self.networks.architectures):
            raise ValueError(f"--noisy-architectures must be among --architectures; {self.noisy_architectures} given.")
        if self.noisy_seeds is not None and not 1 <= self.noisy_seeds <= self.networks.seeds:
            raise ValueError(f"--noisy-seeds must be 1 to {self.networks.seeds}; {self.noisy_seeds} given.")
        if self.networks.training.noise:
            raise ValueError("--noise is for other figures; here --noise-norms says which are compared.")

    def networks_at(self, noise: float) -> recipes.Networks:
        """Return the networks that are trained with noise of that norm."""
        if noise == 0:
            return self.networks
        architectures = self.noisy_architectures or self.networks.architectures
        seeds = self.noisy_seeds or self.networks.seeds
        return dataclasses.replace(self.networks, architectures=architectures, seeds=seeds)


ZOO_SCALES = {
    "smoke": Settings(recipes.SMOKE, (0.0, 10.0), probe=measures.SMOKE),
    "demo": Settings(
        recipes.DEMO,
        (0.0, 10.0, 30.0),
        ("fc_l2", "fc_l4", "lenet", "alexnet", "vgg11", "vgg11_bn", "resnet18"),
        1,
    ),
    "paper": Settings(recipes.PAPER, probe=measures.PAPER),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load every network; return one row per (noise, architecture, seed, state, measure), and accuracies."""
    found: results.Tables = {"table": [], "accuracy": []}
    for noise in command.settings.noise_norms:
        networks = command.settings.networks_at(noise)
        task = recipes.load_task(networks, command.options, noise)
        sample = measures.perturbed(command.settings.probe, task)
        for name, rows in zoo(networks, task, sample, command.options, chunk=command.settings.probe.chunk).items():
            found[name] += rows
    return found


def zoo(
    networks: recipes.Networks,
    task: tasks.Task,
    sample: measures.Perturbed,
    options: cli.Options,
    *,
    chunk: int | None,
) -> results.Tables:
    """Train or load every network; return one row per (architecture, seed, state, measure), and accuracies.

    ``learned`` is 0 for networks that have hardly learned: they are in the table, but in no figure or correlation. An
    error is at least that of half a test image, since its logarithm is wanted (ours).
    """
    rows, accuracies, least = [], [], 0.5 / _test_count(task)
    for architecture in networks.architectures:
        trained = recipes.train(networks, architecture, task, options)
        model = runs.build(networks.training_of(architecture), None, task.num_classes)
        found = recipes.accuracy_rows(networks, task, architecture, trained)
        accuracies += found
        for network, accuracy in watch.each(zip(trained, found, strict=True), f"probing {architecture}"):
            head = {"noise_norm": task.noise, "architecture": architecture, "seed": network.seed}
            head["learned"] = int(recipes.learned(accuracy))
            rows += _rows(model, network, sample, max(least, 1 - accuracy["test_accuracy"]), head, chunk)
    return {"table": rows, "accuracy": accuracies}


def _test_count(task: tasks.Task) -> int:
    images = task.images
    return images.test_count if isinstance(images, data.ImageStream) else len(images.test_labels)


def _rows(
    model: Any,
    network: runs.Trained,
    sample: measures.Perturbed,
    error: float,
    head: Mapping[str, Any],
    chunk: int | None,
) -> list[dict[str, Any]]:
    states = {
        "init": measures.represent_init(model, network.init, sample.images),
        "trained": measures.represent_trained(model, network.trained),
    }
    rows = [{**head, "state": "trained", "measure": "error", "value": error}]
    rows += [{**head, "state": "trained", "measure": "perturbation_norm", "value": sample.norm}]
    for state, represent in states.items():
        values = measures.at_output(represent, sample, chunk=chunk)
        rows += [{**head, "state": state, "measure": name, "value": value} for name, value in values.items()]
    return rows


def points(rows: Sequence[tables.Row], noise: float, measure: str, state: str = "trained") -> dict[str, float]:
    """Return {architecture: geometric mean over seeds} of a measure."""
    chosen = tables.select(rows, noise_norm=noise, measure=measure, state=state, learned=1)
    return {
        name: float(np.exp(np.mean([math.log(row["value"]) for row in tables.select(chosen, architecture=name)])))
        for name in tables.unique(chosen, "architecture")
    }


def correlation(values: statistics.Values, measure: str, state: str = "trained") -> float:
    """Return ρ(ε, X), the correlation of log error and log X over architectures (SI Fig. 1).

    One point per architecture, its geometric mean over seeds. nan for fewer than three architectures.

    Args:
      values: {(architecture, state, measure): (seeds, 1)}.
      measure: X.
      state: of the network on which X is measured; errors are those after training.
    """
    names = list(dict.fromkeys(key[0] for key in values))
    if len(names) < 3:
        return math.nan
    x, y = (
        _log_means([values[name, when, what] for name in names])
        for when, what in (("trained", "error"), (state, measure))
    )
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(x @ x) * math.sqrt(y @ y)
    return min(1.0, max(-1.0, float(x @ y) / scale)) if scale else math.nan


def _log_means(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean logarithm of each array, in one pass: a bootstrap does this thousands of times."""
    counts = [array.size for array in arrays]
    sums = np.add.reduceat(np.log(np.concatenate(arrays, axis=None)), [0, *itertools.accumulate(counts[:-1])])
    return sums / counts


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return ρ(ε, X) at each noise, before and after training, with intervals over architectures."""
    table = []
    names = [column + suffix for suffix in measures.CONVENTIONS for column in MEASURES]
    for noise in tables.unique(rows, "noise_norm"):
        chosen = tables.select(rows, noise_norm=noise, learned=1)
        values = statistics.grouped(chosen, "value", ("architecture", "state", "measure"))
        for state in ("trained", "init"):
            found = [dict.fromkeys(("value", "low", "high"), math.nan) | {"statistic": name} for name in names]
            if chosen:
                found = statistics.bootstrap(
                    lambda one, state=state: {name: correlation(one, name, state) for name in names},
                    values,
                    over="groups",
                    correlations=True,
                )
            head = {"noise_norm": noise, "state": state, "architectures": len(tables.unique(chosen, "architecture"))}
            table += [{**head, **row} for row in found]
    return table


def family(architecture: str) -> tuple[str, str, str]:
    """Return an architecture's colour, marker and family."""
    if architecture.startswith("vgg"):
        return FAMILIES["vgg_bn" if architecture.endswith("_bn") else "vgg"]
    return next(style for start, style in FAMILIES.items() if architecture.startswith(start))


def scatter(axes: Any, rows: Sequence[tables.Row], noise: float, measure: str) -> None:
    """Draw one point per architecture, its measure against its error, with the spread over seeds and its depth."""
    chosen = tables.select(rows, noise_norm=noise, state="trained", learned=1)
    for name, x in points(rows, noise, measure).items():
        colour, marker, _ = family(name)
        own = tables.select(chosen, architecture=name)
        spans = [_span([row["value"] for row in tables.select(own, measure=column)]) for column in (measure, "error")]
        y = points(rows, noise, "error")[name]
        bars = {"xerr": [[x - spans[0][0]], [spans[0][1] - x]], "yerr": [[y - spans[1][0]], [spans[1][1] - y]]}
        style = {"color": colour, "marker": marker, "markeredgecolor": "black", "markeredgewidth": 0.5}
        axes.errorbar(x, y, **bars, **style, elinewidth=0.6, ecolor="0.75", markersize=5, linestyle="none")
        depth = "".join(character for character in name.removesuffix("_b0") if character.isdigit())
        axes.annotate(depth, (x, y), xytext=(4, 2), textcoords="offset points", fontsize=6.5, color="0.2", zorder=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plots.plain_log_ticks(axes)


def line_of_panels(
    axes: Sequence[Any], rows: Sequence[tables.Row], summary: Sequence[tables.Row], noise: float, *, labels: bool = True
) -> None:
    """Draw ``scatter`` for D, G and R side by side, the correlations above."""
    for panel, (name, label) in zip(axes, MEASURES.items(), strict=True):
        scatter(panel, rows, noise, name)
        (row,) = tables.select(summary, noise_norm=noise, statistic=name, state="trained")
        panel.set_title(rf"$\rho$ = {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})")
        if labels:
            panel.set_xlabel(f"sensitivity to {label}" if name != "R" else f"{label}")


def legend(axes: Any, rows: Sequence[tables.Row], **keywords: Any) -> None:
    """Explain the markers of ``scatter``; numbers beside them are depths."""
    for colour, marker, label in dict.fromkeys(family(name) for name in tables.unique(rows, "architecture")):
        edge = {"markeredgecolor": "black", "markeredgewidth": 0.5}
        axes.plot([], [], color=colour, marker=marker, markersize=5, linestyle="none", label=label, **edge)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6.5, **keywords)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the geometric mean less and plus one geometric standard deviation."""
    logs = np.log(values)
    spread = logs.std(ddof=1) if len(logs) > 1 else 0.0
    return float(np.exp(logs.mean() - spread)), float(np.exp(logs.mean() + spread))


def listing(rows: Sequence[tables.Row]) -> str:
    """Return errors and sensitivities of the networks that were trained without noise, as a table."""
    columns = ("error", "D", "G", "R", "R_median")
    values = {name: points(rows, 0.0, name) for name in columns}
    lines = [[recipes.LABELS[name], *(f"{values[c][name]:.4g}" for c in columns)] for name in values["error"]]
    table = tables.render(["architecture", "test error", *columns[1:]], lines)
    return f"Geometric means over seeds\n{table}"


def describe(summary: Sequence[tables.Row], noise: float = 0.0, state: str = "trained") -> str:
    """Return the three correlations in words."""
    chosen = {row["statistic"]: row for row in tables.select(summary, noise_norm=noise, state=state)}
    return ", ".join(
        f"ρ(ε, {name}) = {chosen[name]['value']:.2f} ({chosen[name]['low']:.2f} to {chosen[name]['high']:.2f})"
        for name in MEASURES
    )


def stuck(rows: Sequence[tables.Row]) -> str:
    """Return which networks have hardly learned, in words; empty if none."""
    found = [row for row in rows if row["measure"] == "error" and not row["learned"]]
    names = [
        f"{recipes.LABELS[row['architecture']]} seed {row['seed']:g} at noise {row['noise_norm']:g}" for row in found
    ]
    return f"Left out, since they have hardly learned: {', '.join(names)}." if names else ""


def clean_task(command: cli.Command[Settings]) -> tasks.Task:
    """Return the images without noise, for pictures."""
    return recipes.load_task(command.settings.networks, command.options, 0.0)
