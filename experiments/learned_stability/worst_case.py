"""Open question of LS 6: the worst deformation within the same box, beside the average one, layer by layer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from deform_jax import models, probes, warps
from deform_jax.typing import Represent
from experiments.common import cli, plots, results, runs, statistics, tables
from experiments.learned_stability import measures, recipes


@dataclasses.dataclass(frozen=True)
class Ascent:
    """How the worst case is sought."""

    ascent_images: int = 32
    """Test images for which it is sought, the first of the draw."""
    restarts: int = 3
    """Random starts, of which each image keeps its best."""
    steps: int = 20
    """Steps of projected sign-gradient ascent from each start."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """What is measured and maximised: LS's cosine distance, or the Euclidean one."""
    every_layer: bool = False
    """Seek it anew for each layer's own distance (many times the work), instead of once for the last layer's."""

    def __post_init__(self) -> None:
        for name in ("ascent_images", "restarts", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; {getattr(self, name)} given.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, which box (--grid and --max-shift, as LS samples it), how sought."""

    networks: recipes.Networks = dataclasses.field(default_factory=recipes.Networks)
    probe: measures.Probe = dataclasses.field(default_factory=lambda: measures.Probe(draws=1))
    ascent: Ascent = dataclasses.field(default_factory=Ascent)

    def __post_init__(self) -> None:
        images, available = self.ascent.ascent_images, self.probe.probe_images
        if images > available:
            raise ValueError(f"--ascent-images must be at most --probe-images, {available}; {images} given.")
        if self.probe.draws != 1:
            raise ValueError(f"--draws must be 1 here: one draw's images are used; {self.probe.draws} given.")


SCALES = {
    "smoke": Settings(
        dataclasses.replace(recipes.SMOKE, downsamplings=("max",)),
        dataclasses.replace(measures.SMOKE, draws=1),
        Ascent(ascent_images=4, restarts=2, steps=2),
    ),
    "demo": Settings(recipes.DEMO),
    "paper": Settings(recipes.PAPER, ascent=Ascent(ascent_images=128, restarts=10, steps=50, every_layer=True)),
    "imagenet": Settings(
        recipes.IMAGENET,
        dataclasses.replace(measures.IMAGENET, draws=1),
        Ascent(ascent_images=128, restarts=10, steps=50),
    ),
}


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load; return rows by (downsampling, seed, state, target, layer): sampled and worst normalised distance.

    ``target`` is the layer whose distance was maximised; ``sensitivity`` is that of the random starts, averaged over
    them (LS's measure on the same images), ``worst`` that of the deformations found, both over the median distance
    between the clean probe images.
    """
    wanted = command.settings
    task, trained = recipes.trained_networks(command, wanted.networks)
    images = measures.clean_images(wanted.probe, task)[0]
    rows = []
    for downsampling, network in measures.each_network(trained):
        model = runs.build(wanted.networks.training, downsampling, task.num_classes)
        initial = models.with_batch_statistics(model, network.init, images)
        for state, variables in (("init", initial), ("trained", network.trained)):
            head = {"downsampling": downsampling, "seed": network.seed, "state": state}
            rows += _rows(wanted, models.represent(model, variables), images, head)
    return {"table": rows, "accuracy": recipes.accuracy_rows(wanted.networks, task, trained)}


def _rows(wanted: Settings, represent: Represent, images: jax.Array, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    ascent, probe = wanted.ascent, wanted.probe
    chosen = images[: ascent.ascent_images]
    starts = [_starts(probe, len(chosen), restart) for restart in range(ascent.restarts)]
    sampled, normaliser = [], {}
    for start in starts:
        deformed = _padded(_deform(start, chosen), images)
        parts = probes.sensitivity_parts(represent, images, deformed, distance=ascent.distance, chunk=probe.chunk)
        sampled.append({layer: np.asarray(n)[: len(chosen)].mean() for layer, n in parts.numerators.items()})
        normaliser = {layer: float(value) for layer, value in parts.normaliser.items()}
    layers = list(normaliser)
    rows = []
    for target in layers[1:] if ascent.every_layer else layers[-1:]:
        found = [
            probes.worst_case(
                represent,
                warps.deform_tps,
                chosen,
                start,
                weights={target: 1.0},
                limit=probe.max_shift,
                steps=ascent.steps,
                distance=ascent.distance,
                chunk=probe.chunk,
            )
            for start in starts
        ]
        best = np.argmax([one.distances[target] for one in found], axis=0)
        for i, layer in enumerate(layers):
            distances = np.stack([one.distances[layer] for one in found])
            worst = float(np.take_along_axis(distances, best[None], axis=0).mean())
            average = float(np.mean([one[layer] for one in sampled]))
            row = {"sensitivity": average / normaliser[layer], "worst": worst / normaliser[layer]}
            rows.append({**head, "target": target, "layer_index": i, "layer": layer, **row})
    return rows


def _starts(probe: measures.Probe, count: int, restart: int) -> jax.Array:
    """Return (n, gy, gx, 2) random shifts within the box: at the identity itself the gradient vanishes."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(probe.probe_seed), restart), count)
    return jax.vmap(lambda key: warps.random_shifts(key, probe.grid, probe.max_shift))(keys)


_deform = jax.jit(jax.vmap(warps.deform_tps))


def _padded(deformed: jax.Array, images: jax.Array) -> jax.Array:
    """Fill up with clean images: the normaliser is over all of the probe's, the ascent over the first ones."""
    return jax.numpy.concatenate([deformed, images[len(deformed) :]])


def by_layer(rows: Sequence[tables.Row], value: str, downsampling: str, state: str) -> np.ndarray:
    """Return (seeds, layers): at the layer that was maximised, or, with a single target, at every layer."""
    chosen = tables.select(rows, downsampling=downsampling, state=state)
    if len(tables.unique(chosen, "target")) > 1:
        chosen = [row for row in chosen if row["layer"] == row["target"]]
    return tables.per_seed(chosen, value)[1]


def summarise(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return how many times worse the worst case is at the last layer, and how much pooling matters in both cases."""
    names = tables.unique(rows, "downsampling")
    keys = [
        (name, state, value) for name in names for state in ("init", "trained") for value in ("sensitivity", "worst")
    ]
    values = {(n, s, v): by_layer(rows, v, n, s)[:, -1] for n, s, v in keys}

    def statistic(values: statistics.Values) -> dict[str, float]:
        mean = {key: float(array.mean()) for key, array in values.items()}
        found = {}
        for state in ("init", "trained"):
            found |= {
                f"times_worse_{state}_{n}": mean[n, state, "worst"] / mean[n, state, "sensitivity"] for n in names
            }
            for value in ("sensitivity", "worst"):
                without, pooled = (
                    [mean[n, state, value] for n in names if (n in recipes.POOLED) == group] for group in (False, True)
                )
                if without and pooled:
                    found[f"unpooled_over_pooled_{value}_{state}"] = float(np.mean(without) / np.mean(pooled))
        return found

    return statistics.bootstrap(statistic, values)


def show(summary: Sequence[tables.Row]) -> str:
    """Return the summary as a table."""
    lines = [[row["statistic"], f"{row['value']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"] for row in summary]
    table = tables.render(["at the last layer", "value", "95 % interval"], lines)
    return f"Worst case within the box, over the average of random deformations\n{table}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw sampled (dotted) and worst-case (solid) sensitivity by layer, initialisation left, trained right."""
    figure, axes = plots.panels(2, sharey=True)
    layers = tables.unique(rows, "layer")
    several = len(tables.unique(rows, "target")) > 1
    for panel, state, title in zip(axes, ("init", "trained"), ("at initialisation", "after training"), strict=True):
        plots.layer_axis(panel, layers)
        x = np.arange(1 if several else 0, len(layers))
        for name in tables.unique(rows, "downsampling"):
            colour, marker, label = plots.LINES[name]
            plots.band(panel, x, by_layer(rows, "worst", name, state), color=colour, marker=marker, label=label)
            sampled = by_layer(rows, "sensitivity", name, state).mean(axis=0)
            panel.plot(x, sampled, color=colour, linestyle=":")
        panel.set_title(title)
    axes[0].set_ylim(bottom=0)
    ascent = command.settings.ascent
    axes[0].set_ylabel(f"normalised {ascent.distance} distance")
    axes[1].plot([], [], color="black", linestyle=":", label="random deformations")
    axes[1].legend(fontsize=7)
    what = "each layer's own distance" if several else "the last layer's distance"
    sought = f"{what} maximised for {ascent.ascent_images} images, {ascent.steps} steps, {ascent.restarts} starts"
    stamp = f"{recipes.stamp(command.options.scale, command.settings.networks)} · {sought}"
    print("figure:", plots.save(figure, command.results, "worst_case", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command), "table")
    print(show(results.summarised(command, rows, summarise)))
    plot(command, rows)


if __name__ == "__main__":
    main()
