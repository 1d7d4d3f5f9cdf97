"""Open question of LS 6: when do smooth filters suffice? Smoothing and roughening the filters of trained networks."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from deform_jax import models, probes, training
from deform_jax.typing import PyTree
from experiments.common import cli, plots, results, runs, statistics, tables
from experiments.learned_stability import measures, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, changed how far, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=lambda: measures.Probe(draws=1))
    amounts: tuple[float, ...] = (-1.0, -0.75, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)
    """How much of what a Gaussian blur removes is added to each 3 × 3 filter, at the same norm: −1 smooths wholly, 0
    leaves the filters, positive roughens."""
    sigma: float = 1.0
    """Standard deviation of the blur, pixels."""
    accuracy_images: int = 2000
    """Test images, the first ones, on which accuracy is measured after every change."""

    def __post_init__(self) -> None:
        if 0 not in self.amounts or len(set(self.amounts)) != len(self.amounts) or len(self.amounts) < 2:
            raise ValueError(f"--amounts must be different numbers, 0 and others; {self.amounts} given.")
        if not 0 < self.sigma <= 1e4:
            raise ValueError(f"--sigma must be above 0 and at most 1e4 pixels; {self.sigma} given.")
        if self.accuracy_images < 1:
            raise ValueError(f"--accuracy-images must be at least 1; {self.accuracy_images} given.")


SCALES = {
    "smoke": Settings(
        dataclasses.replace(recipes.SMOKE, downsamplings=("max",)),
        dataclasses.replace(measures.SMOKE, draws=1),
        (-1.0, 0.0, 1.0),
        accuracy_images=64,
    ),
    "demo": Settings(recipes.DEMO),
    "paper": Settings(recipes.PAPER),
    "imagenet": Settings(recipes.IMAGENET, dataclasses.replace(measures.IMAGENET, draws=1)),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load; return rows by (downsampling, seed, state, amount, draw, layer), and accuracies.

    Untrained filters are changed in the same way (state ``init``). Batch norm gets its statistics anew after every
    change, from the same training images: with the old ones the network would meet activations it was not scaled for.
    """
    wanted = command.settings
    task, trained = recipes.trained_networks(command, wanted.networks)
    drawn = measures.draws(wanted.probe, task)
    seen = task.statistics_examples()
    test = task.test_examples(wanted.accuracy_images)
    rows, accuracies = [], []
    for downsampling, network in measures.each_network(trained):
        model = runs.build(wanted.networks.training, downsampling, task.num_classes)
        for state, variables in (("init", network.init), ("trained", network.trained)):
            for amount in sorted(wanted.amounts):
                head = {"downsampling": downsampling, "seed": network.seed, "state": state, "amount": amount}
                changed = _changed(model, variables, amount, wanted.sigma, seen)
                represent = models.represent(model, changed)
                rows += measures.sensitivity_rows(represent, drawn, head, chunk=wanted.probe.chunk)
                found = measures.variation_rows(changed["params"], head)
                variation = float(np.mean([row["total_variation"] for row in found]))
                accuracy = float("nan")  # an untrained network has none to lose
                if state == "trained":
                    accuracy = training.evaluate(model, changed, test, prepare=task.prepare_clean)["accuracy"]
                accuracies.append({**head, "total_variation": variation, "test_accuracy": accuracy})
    return {"table": rows, "changed": accuracies, "accuracy": recipes.accuracy_rows(wanted.networks, task, trained)}


def _changed(model: models.BlockVGG, variables: PyTree, amount: float, sigma: float, images: jax.Array) -> PyTree:
    params = probes.sharpen_filters(variables["params"], amount, sigma=sigma)
    return models.with_batch_statistics(model, {**variables, "params": params}, images)


def points(rows: Sequence[tables.Row], changed: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return one row per network and amount: total variation, sensitivity averaged over layers, test accuracy."""
    sums: dict[tuple, list[float]] = {}
    for row in rows:
        if row["layer"] != "input":
            key = (row["downsampling"], row["seed"], row["state"], row["amount"])
            sums.setdefault(key, []).append(row["sensitivity"])
    return [
        {**one, "sensitivity": float(np.mean(sums[one["downsampling"], one["seed"], one["state"], one["amount"]]))}
        for one in changed
    ]


def summarise(found: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return what is left of training's effect on sensitivity when only smoothness is put back or taken over.

    ``roughened_share``: trained networks, roughened until their total variation is that of the initial filters
    (interpolated), regain this share of the sensitivity that training took away. ``smoothed_share``: initial networks,
    smoothed to the total variation of the trained ones, lose this share of it. 1 would say that smoothness is all.
    ``accuracy_lost_roughened`` is what the former costs in test accuracy.
    """
    columns = ("total_variation", "sensitivity", "test_accuracy")
    names, amounts = tables.unique(found, "downsampling"), sorted(tables.unique(found, "amount"))
    values = {
        (name, state): np.stack([tables.per_seed(chosen, column, x="amount")[1] for column in columns], axis=-1)
        for name in names
        for state in ("init", "trained")
        for chosen in [tables.select(found, downsampling=name, state=state)]
    }
    zero = amounts.index(0.0)

    def statistic(values: statistics.Values) -> dict[str, float]:
        shares: dict[str, list[float]] = {"roughened_share": [], "smoothed_share": [], "accuracy_lost_roughened": []}
        for name in names:
            before, after = (values[name, state].mean(axis=0) for state in ("init", "trained"))
            taken = before[zero, 1] - after[zero, 1]
            rough = [_at(after, before[zero, 0], column) for column in (1, 2)]
            shares["roughened_share"].append((rough[0] - after[zero, 1]) / taken)
            shares["smoothed_share"].append((before[zero, 1] - _at(before, after[zero, 0], 1)) / taken)
            shares["accuracy_lost_roughened"].append(after[zero, 2] - rough[1])
        return {name: float(np.mean(parts)) for name, parts in shares.items()}

    return statistics.bootstrap(statistic, values)


def _at(curve: np.ndarray, variation: float, column: int) -> float:
    """Return a column at a total variation, interpolated linearly between amounts; nan outside their range."""
    order = np.argsort(curve[:, 0])
    x = curve[order, 0]
    return float(np.interp(variation, x, curve[order, column])) if x[0] <= variation <= x[-1] else float("nan")


def show(summary: Sequence[tables.Row]) -> str:
    """Return the summary as a table."""
    lines = [[row["statistic"], f"{row['value']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"] for row in summary]
    return (
        f"Smoothness alone, at equal total variation\n{tables.render(['statistic', 'value', '95 % interval'], lines)}"
    )


def plot(command: cli.Command[Settings], found: Sequence[tables.Row]) -> None:
    """Draw sensitivity (left) and accuracy (right) against total variation, along the amounts."""
    figure, (left, right) = plots.panels(2)
    for name in tables.unique(found, "downsampling"):
        colour, marker, label = plots.LINES[name]
        for state in ("init", "trained"):
            chosen = tables.select(found, downsampling=name, state=state)
            x = _means(chosen, "total_variation")
            style: dict[str, Any] = {"color": colour, "linestyle": "-" if state == "trained" else ":"}
            left.plot(x, _means(chosen, "sensitivity"), **style)
            if state == "trained":
                right.plot(x, _means(chosen, "test_accuracy"), **style)
            where = sorted(tables.unique(chosen, "amount")).index(0.0)
            left.plot(x[where], _means(chosen, "sensitivity")[where], marker, color=colour, markersize=6)
            if state == "trained":
                right.plot(
                    x[where], _means(chosen, "test_accuracy")[where], marker, color=colour, markersize=6, label=label
                )
    left.plot([], [], color="black", label="trained filters")
    left.plot([], [], color="black", linestyle=":", label="initial filters")
    for panel, text in ((left, "sensitivity, mean over layers"), (right, "test accuracy")):
        panel.set_xlabel("normalised total variation, mean over layers")
        panel.set_ylabel(text)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7)
    scale = recipes.stamp(command.options.scale, command.settings.networks, bands=False)
    what = "markers: filters as they are; along the lines, smoothed (left) or roughened (right) at the same norm"
    stamp = f"{scale} · {what}"
    print("figure:", plots.save(figure, command.results, "smooth_filters", stamp))


def _means(rows: Sequence[tables.Row], value: str) -> np.ndarray:
    return tables.per_seed(rows, value, x="amount")[1].mean(axis=0)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, changed = results.measured(command, lambda: measure(command), "table", "changed")
    found = points(rows, changed)
    print(show(results.summarised(command, found, summarise)))
    plot(command, found)


if __name__ == "__main__":
    main()
