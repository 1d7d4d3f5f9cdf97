"""The simple CNNs of SI section 4 on scale detection in one dimension: how they are trained, and what is measured."""

import dataclasses
from collections.abc import Sequence

from deform_jax import data, training
from experiments.common import cli, runs
from experiments.common.tasks import PAIRS, Task, Training, load_task


@dataclasses.dataclass(frozen=True)
class Case:
    """One of the two tasks with the network that learns it (SI B.2)."""

    name: str
    label: str
    network: str
    layers: int
    filter_size: int
    stride: int
    pairs: data.ScaleDetection

    @property
    def probed(self) -> int:
        """Number of layers that are drawn: a layer of one site has no distances between images on task 2."""
        return self.layers if self.stride == 1 else self.layers - 1


CASES = {
    "task1": Case(
        "task1",
        "task 1, stride 1, $F$ = 3",
        "simple_cnn_stride1",
        12,
        3,
        1,
        data.ScaleDetection("distance", (32,), scale=11, gap=4),
    ),
    "task2": Case(
        "task2",
        "task 2, stride 2, $F$ = 2",
        "simple_cnn_stride2",
        7,
        2,
        2,
        data.ScaleDetection("patch", (128,), scale=32, gap=0),
    ),
}


@dataclasses.dataclass(frozen=True)
class Networks:
    """Which simple CNNs are trained, and for how long."""

    channels: tuple[int, ...] = (1000,)
    """Channels H of every layer; several to see how results depend on it."""
    tasks: tuple[str, ...] = ("task1", "task2")
    """task1 (distances; L = 32, ξ = 11, g = 4; 12 layers, F = 3, stride 1) and task2 (patches; L = 128, ξ = 32; 7
    layers, F = stride = 2)."""
    seeds_1: tuple[int, ...] = (4,)
    """Networks on task 1, for each number of channels, or the same for all."""
    seeds_2: tuple[int, ...] = (10,)
    """Networks on task 2, likewise."""
    train_1: int = 48
    """Training pairs P of task 1, half of them close."""
    train_2: int = 1024
    """Training pairs P of task 2, half of them in one patch."""
    learning_rate: float = 0.01
    """Learning rate of SGD without momentum, over the number of channels."""
    penalty: float = 0.01
    """Ridge λ of the convolutions' weights w: λ Σ w² / (H · layers) is added to the loss."""
    batch_size: int = 8
    """Pairs per step."""
    interpolations: int = 500
    """Training ends after so many times the epochs after which the loss on the training pairs first was exactly 0."""
    epochs_1: tuple[int, ...] = (1_000_000,)
    """Epochs of task 1 after which training ends all the same, for each number of channels, or the same for all."""
    epochs_2: tuple[int, ...] = (1_000_000,)
    """Epochs of task 2, likewise."""
    task_seed: int = 0
    """Seed of the choice of training pairs, the same for all networks."""

    def __post_init__(self) -> None:
        if not self.channels or len(set(self.channels)) < len(self.channels) or min(self.channels) < 1:
            raise ValueError(f"--channels must hold positive numbers, each once; {self.channels} given.")
        if not self.tasks or not set(CASES).issuperset(self.tasks):
            raise ValueError(f"--tasks must name some of {', '.join(CASES)}; {self.tasks} given.")
        for name in ("seeds_1", "seeds_2", "epochs_1", "epochs_2"):
            values = getattr(self, name)
            if len(values) not in (1, len(self.channels)) or min(values) < 1:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} must hold 1 or {len(self.channels)} positive numbers; {values} given.")

    def seeds_of(self, task: str, channels: int) -> range:
        """Return the seeds of the networks of one task and width."""
        return range(self._each("seeds", task, channels))

    def training_of(self, task: str, channels: int) -> Training:
        """Return how the network of that many channels learns a task."""
        case = CASES[task]
        recipe = training.Recipe(
            learning_rate=self.learning_rate * channels,
            momentum=0.0,
            # Of ½‖w‖², so twice the coefficient of ‖w‖².
            weight_decay=2 * self.penalty / (channels * case.layers),
            schedule="constant",
            batch_size=self.batch_size,
            epochs=self._each("epochs", task, channels),
            loss="hinge",
            stop_interpolation=self.interpolations,
        )
        return Training(
            dataset=PAIRS,
            pairs=case.pairs,
            network=case.network,
            width=channels / 1000,
            train_images=self.train_1 if task == "task1" else self.train_2,
            augment=False,
            task_seed=self.task_seed,
            recipe=recipe,
        )

    def _each(self, name: str, task: str, channels: int) -> int:
        values = getattr(self, f"{name}_{task[-1]}")
        return values[self.channels.index(channels) if len(values) > 1 else 0]


def train(
    networks: Networks, task: str, channels: int, options: cli.Options, seeds: Sequence[int] | None = None
) -> tuple[Task, list[runs.Trained]]:
    """Return a task, and the networks of that width that learned it, trained now or loaded."""
    settings = networks.training_of(task, channels)
    loaded = load_task(settings, options)
    seeds = networks.seeds_of(task, channels) if seeds is None else seeds
    epochs = max(1, CHECKPOINT_PAIRS // loaded.train_count)
    trained = runs.train_or_load(settings, loaded, None, seeds, options, keep_steps=False, checkpoint_epochs=epochs)
    return loaded, trained


CHECKPOINT_PAIRS = 48_000
"""Training pairs seen between two checkpoints: about a minute at 100 channels on a core."""
