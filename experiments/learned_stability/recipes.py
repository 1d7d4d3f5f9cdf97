"""The settings of LS at each scale, and what its layer-by-layer figures share."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from deform_jax import models, training
from experiments.common import cli, runs, tables
from experiments.common.runs import Training

DOWNSAMPLINGS = models.DOWNSAMPLINGS
POOLED = ("max", "average")


@dataclasses.dataclass(frozen=True)
class Networks:
    """Which networks are compared."""

    downsamplings: tuple[str, ...] = DOWNSAMPLINGS
    """Downsamplings: subsample, max, average, strided, strided_relu."""
    seeds: int = 5
    """Number of networks per downsampling; seed 0, 1, … sets weights, batch order and augmentation."""
    training: Training = dataclasses.field(default_factory=Training)

    def __post_init__(self) -> None:
        known = set(DOWNSAMPLINGS)
        if not self.downsamplings or not known.issuperset(self.downsamplings):
            raise ValueError(
                f"--downsamplings must name some of {', '.join(DOWNSAMPLINGS)}; {self.downsamplings} given."
            )
        if len(set(self.downsamplings)) != len(self.downsamplings):
            raise ValueError(f"--downsamplings must name each one once; {self.downsamplings} given.")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1; {self.seeds} given.")


SMOKE = Networks(
    downsamplings=("max", "strided_relu"),
    seeds=2,
    training=Training(
        dataset="fashion_mnist_subset",
        width=1 / 16,
        train_images=256,
        recipe=training.Recipe(epochs=1, batch_size=64),
    ),
)
DEMO = Networks(
    downsamplings=("max", "average", "strided_relu", "subsample"),
    seeds=3,
    training=Training(
        dataset="fashion_mnist_subset", width=0.25, augment=False, recipe=training.Recipe(epochs=2, batch_size=128)
    ),
)
PAPER = Networks()


def train_all(networks: Networks, task: runs.Task, options: cli.Options) -> dict[str, list[runs.Trained]]:
    """Return {downsampling: trained networks, one per seed}, trained or loaded."""
    return {
        downsampling: runs.train_or_load(
            networks.training, task, downsampling, range(networks.seeds), options.runs, data_axis=options.data_axis
        )
        for downsampling in networks.downsamplings
    }


def accuracy_rows(trained: dict[str, list[runs.Trained]]) -> list[dict[str, Any]]:
    """Return one row per network with its accuracies after the last epoch."""
    return [
        {
            "downsampling": downsampling,
            "seed": network.seed,
            "epochs": int(network.history[-1]["epoch"]),
            "train_accuracy": network.history[-1]["accuracy"],
            "test_accuracy": runs.accuracy(network),
            "images_per_second": network.history[-1]["images_per_second"],
        }
        for downsampling, networks in trained.items()
        for network in networks
    ]


def stamp(scale: str, networks: Networks) -> str:
    """Return the line that says on a figure at what scale it was made."""
    t = networks.training
    size = f", {t.train_images} images" if t.train_images else ""
    return (
        f"scale {scale} · {t.dataset}{size} · {t.network}, width × {t.width:g} · {t.recipe.epochs} epoch(s) · "
        f"{networks.seeds} seed(s), band ± 2 sd over seeds"
    )


def run(
    command: cli.Command,
    networks: Networks,
    measure: Callable[[runs.Task, dict[str, list[runs.Trained]]], list[dict[str, Any]]],
    summarise: Callable[[Sequence[tables.Row]], list[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train or load, measure and write everything but the figure; return table and summary.

    With ``--plot-only``, both come from the table that is there.
    """
    if not command.options.plot_only:
        began = time.perf_counter()
        task = runs.load_task(networks.training)
        trained = train_all(networks, task, command.options)
        tables.write(command.results / "table.csv", measure(task, trained))
        tables.write(command.results / "accuracy.csv", accuracy_rows(trained))
        cli.write_provenance(command, wall_seconds=round(time.perf_counter() - began, 1))
    rows = tables.read(command.results / "table.csv")
    summary = summarise(rows)
    tables.write(command.results / "summary.csv", summary)
    return rows, summary
