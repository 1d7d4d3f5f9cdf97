"""The settings of LS at each scale, and what its layer-by-layer figures share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from deform_jax import models, training
from experiments.common import cli, runs, tasks
from experiments.common.tasks import Training

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
        network="block_vgg_tiny",
        width=1 / 4,
        train_images=256,
        test_images=256,
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
DEMO_PAIR = dataclasses.replace(DEMO, downsamplings=("max", "strided_relu"))
"""With and without pooling, for figures that train networks for several tasks."""
PAPER = Networks()
IMAGENET = Networks(
    downsamplings=("max", "strided_relu"),
    training=Training(
        dataset="stream:imagenet2012",
        network="block_vgg_imagenet",
        compute_dtype="bfloat16",
        recipe=training.Recipe(batch_size=256, epochs=90, weight_decay=1e-4, warmup_epochs=1),
    ),
)
"""LS's ImageNet networks; LS gives no recipe, this one is the customary one of residual networks."""


def fitted(networks: Networks, *, images: int | None, epochs: int, learning_rate: float, batch_size: int) -> Networks:
    """Return the same networks, trained as LS 5 needs it: until the training set is fitted, with nothing against that.

    No augmentation and no weight decay, until 95 % of the training images are classified as labelled (protocols 7).
    """
    recipe = training.Recipe(
        learning_rate=learning_rate, weight_decay=0.0, batch_size=batch_size, epochs=epochs, stop_accuracy=0.95
    )
    changed = dataclasses.replace(networks.training, augment=False, train_images=images, recipe=recipe)
    return dataclasses.replace(networks, training=changed)


def with_training(networks: Networks, changes: Mapping[str, Any]) -> Networks:
    """Return the networks with some of their training settings changed."""
    return dataclasses.replace(networks, training=dataclasses.replace(networks.training, **changes))


def train_all(networks: Networks, task: tasks.Task, options: cli.Options) -> dict[str, list[runs.Trained]]:
    """Return {downsampling: trained networks, one per seed}, trained or loaded."""
    return {
        downsampling: runs.train_or_load(networks.training, task, downsampling, range(networks.seeds), options)
        for downsampling in networks.downsamplings
    }


def accuracy_rows(
    networks: Networks,
    task: tasks.Task,
    trained: Mapping[str, Sequence[runs.Trained]],
    head: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one row per network with its accuracies at the end.

    ``train_accuracy`` is the average over the last epoch, as trained on; ``fitted_accuracy`` that of the final network
    on all training images, without augmentation (only where it is to be fitted).
    """
    to_fit = networks.training.recipe.stop_accuracy is not None
    return [
        {
            **(head or {}),
            "downsampling": downsampling,
            "seed": network.seed,
            "train_images": task.train_count,
            "epochs": int(network.history[-1]["epoch"]),
            "train_accuracy": network.history[-1]["accuracy"],
            **({"fitted_accuracy": runs.fitted(networks.training, task, downsampling, network)} if to_fit else {}),
            "test_accuracy": runs.accuracy(networks.training, task, downsampling, network),
            "images_per_second": network.history[-1]["images_per_second"],
        }
        for downsampling, members in trained.items()
        for network in members
    ]


def stamp(scale: str, networks: Networks, *, trained: bool = True, bands: bool = True) -> str:
    """Return the line that says on a figure at what scale it was made."""
    t = networks.training
    size = f", {t.train_images} images" if t.train_images else ""
    stop = f" at most, to {100 * t.recipe.stop_accuracy:g} % training accuracy" if t.recipe.stop_accuracy else ""
    length = f"{t.recipe.epochs} epoch(s){stop}" if trained else "not trained"
    return (
        f"scale {scale} · {t.dataset}{size if trained else ''} · {t.network}, width × {t.width:g} · {length} · "
        f"{networks.seeds} seed(s), {'band ± 2 sd' if bands else 'means'} over seeds"
    )


def trained_networks(command: cli.Command, networks: Networks) -> tuple[tasks.Task, dict[str, list[runs.Trained]]]:
    """Return the task and its networks, trained or loaded."""
    task = tasks.load_task(networks.training, command.options)
    return task, train_all(networks, task, command.options)
