"""The simple CNNs of SI section 4 on scale detection in one dimension, and how they are trained."""

import dataclasses
from collections.abc import Sequence

from deform_jax import data, training
from experiments.common import cli, runs
from experiments.common.tasks import PAIRS, Task, Training, load_task

CHECKPOINT_PAIRS = 48_000
"""Training pairs between two checkpoints: about a minute at 100 channels on a core."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One of the two tasks with the network that learns it (SI B.2)."""

    label: str
    network: str
    layers: int
    filter_size: int
    stride: int
    pairs: data.ScaleDetection
    first_part: int
    """Layers of "the first part of the network", k = 1 …: whose mean filters are positive in SI's Table 1, and up to
    A_k = ξ on task 2."""

    @property
    def probed(self) -> int:
        """Layers that are drawn: a layer of a single site is the same for all images of a homogeneous network."""
        return self.layers if self.stride == 1 else self.layers - 1


CASES = {
    "task1": Case(
        "task 1, $s$ = 1, $F$ = 3", "simple_cnn_stride1", 12, 3, 1, data.ScaleDetection("distance", (32,), 11, 4), 9
    ),
    "task2": Case(
        "task 2, $s$ = $F$ = 2", "simple_cnn_stride2", 7, 2, 2, data.ScaleDetection("patch", (128,), 32, 0), 5
    ),
}


@dataclasses.dataclass(frozen=True)
class Networks:
    """Which simple CNNs are trained, and for how long."""

    channels: int = 1000
    """Channels H of every layer."""
    tasks: tuple[str, ...] = tuple(CASES)
    """task1 (distances; L = 32, ξ = 11, g = 4 pixels; 12 layers, F = 3, stride 1) and task2 (patches; L = 128, ξ = 32
    pixels; 7 layers, F = stride = 2)."""
    seeds_1: int = 4
    """Networks on task 1."""
    seeds_2: int = 10
    """Networks on task 2."""
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
    epochs_1: int = 1_000_000
    """Epochs of task 1 after which training ends all the same."""
    epochs_2: int = 1_000_000
    """Epochs of task 2, likewise."""
    task_seed: int = 0
    """Seed of the choice of training pairs, the same for all networks."""

    def __post_init__(self) -> None:
        if not self.tasks or not set(CASES).issuperset(self.tasks) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"--tasks must name some of {', '.join(CASES)}, each once; {self.tasks} given.")
        for name in ("channels", "seeds_1", "seeds_2", "epochs_1", "epochs_2", "train_1", "train_2"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; {getattr(self, name)} given.")

    def of(self, name: str, task: str) -> int:
        """Return ``seeds``, ``train`` or ``epochs`` of a task."""
        return getattr(self, f"{name}_{task[-1]}")

    def training_of(self, task: str) -> Training:
        """Return how a task is learned."""
        case = CASES[task]
        recipe = training.Recipe(
            learning_rate=self.learning_rate * self.channels,
            momentum=0.0,
            # Of ½‖w‖², so twice the coefficient of ‖w‖².
            weight_decay=2 * self.penalty / (self.channels * case.layers),
            schedule="constant",
            batch_size=self.batch_size,
            epochs=self.of("epochs", task),
            loss="hinge",
            stop_interpolation=self.interpolations,
        )
        return Training(
            dataset=PAIRS,
            pairs=case.pairs,
            network=case.network,
            width=self.channels / 1000,
            train_images=self.of("train", task),
            augment=False,
            task_seed=self.task_seed,
            recipe=recipe,
        )


@dataclasses.dataclass(frozen=True)
class Probe:
    """How the sensitivities of simple CNNs are measured (SI 4 and B.2)."""

    share: float = 0.1
    """Part of all pairs, trained on or not, whose images are probed, half of them of each class."""
    draws: int = 1
    """Displacements and noises of every image; D and G are means over them."""
    rectified: bool = True
    """Whether ReLU is applied to the noise before it is added, as in SI."""
    shuffles: int = 5
    """Random permutations of every convolution's input channels; 0 for none."""
    probe_seed: int = 0
    """Seed of pairs, displacements, noise and permutations."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"--share must be above 0 and at most 1; {self.share} given.")
        if self.draws < 1 or self.shuffles < 0:
            raise ValueError("--draws must be at least 1, and --shuffles at least 0.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, measured how."""

    networks: Networks = dataclasses.field(default_factory=Networks)
    probe: Probe = dataclasses.field(default_factory=Probe)


SIMPLE_SCALES = {
    "smoke": Settings(
        Networks(channels=16, seeds_1=2, seeds_2=2, train_2=32, interpolations=1, epochs_1=4, epochs_2=2),
        Probe(share=0.03, shuffles=1),
    ),
    "demo": Settings(Networks(channels=100, seeds_1=3, seeds_2=1), Probe(share=1.0, draws=4, shuffles=3)),
    "paper": Settings(),
}


def train(
    networks: Networks, task: str, options: cli.Options, seeds: Sequence[int] | None = None
) -> tuple[Task, list[runs.Trained]]:
    """Return a task, and the networks that learned it, trained now or loaded."""
    settings = networks.training_of(task)
    loaded = load_task(settings, options)
    seeds = range(networks.of("seeds", task)) if seeds is None else seeds
    epochs = max(1, CHECKPOINT_PAIRS // loaded.train_count)
    trained = runs.train_or_load(settings, loaded, None, seeds, options, keep_steps=False, checkpoint_epochs=epochs)
    return loaded, trained
