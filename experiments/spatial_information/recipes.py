"""The networks of SI at each scale: a zoo of architectures, trained as its appendix B.1 says."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from deform_jax import data, models, training
from experiments.common import cli, runs, tasks
from experiments.common.tasks import Training

VGGS = tuple(name for name in models.ZOO if name.startswith("vgg"))
SLOW = ("resnet34", "resnet50", "efficientnet_b0")
FULLY_CONNECTED = tuple(name for name in models.ZOO if name.startswith("fc_"))
HE = 2.449
"""√6, the ratio of He's uniform initialisation to PyTorch's default."""
CIFAR10 = Training(validation_images=5_000, selection="best", recipe=training.Recipe(epochs=250))


@dataclasses.dataclass(frozen=True)
class Networks:
    """Which networks are compared."""

    architectures: tuple[str, ...] = models.ZOO
    """Architectures, in their forms for 32-pixel images; all of the zoo by default."""
    seeds: int = 5
    """Number of networks per architecture; seed 0, 1, … sets weights, batch order and augmentation."""
    slow_seeds: int | None = None
    """Networks of each of ResNet34, ResNet50 and EfficientNet-B0, which take longest; None: as many as of others."""
    full_width: tuple[str, ...] = ()
    """Architectures that keep their width, whatever --width says."""
    default_initial: tuple[str, ...] = ()
    """Architectures that start from PyTorch's default initial weights, whatever --initial-gain says."""
    adam_rate: float = 0.1
    """Learning rate of the fully connected networks, which Adam trains, without weight decay (SI B.1)."""
    training: Training = dataclasses.field(default_factory=lambda: CIFAR10)

    def __post_init__(self) -> None:
        known = ", ".join(models.ZOO)
        if not self.architectures or not set(models.ZOO).issuperset(self.architectures):
            raise ValueError(f"--architectures must name some of {known}; {self.architectures} given.")
        if len(set(self.architectures)) != len(self.architectures):
            raise ValueError(f"--architectures must name each one once; {self.architectures} given.")
        for flag, names in (("full-width", self.full_width), ("default-initial", self.default_initial)):
            if not set(names).issubset(models.ZOO):
                raise ValueError(f"--{flag} must name some of {known}; {names} given.")
        for flag, count in (("seeds", self.seeds), ("slow-seeds", self.slow_seeds)):
            if count is not None and count < 1:
                raise ValueError(f"--{flag} must be at least 1; {count} given.")
        if self.training.network != Training().network:
            raise ValueError("--network is for other figures; here --architectures says which networks are trained.")

    def seeds_of(self, architecture: str) -> range:
        """Return the seeds of one architecture's networks."""
        slow = self.slow_seeds if architecture in SLOW else None
        return range(self.seeds if slow is None else slow)

    def training_of(self, architecture: str, noise: float | None = None) -> Training:
        """Return how an architecture is trained, on images with that much noise."""
        wanted = dataclasses.replace(self.training, network=architecture)
        wanted = wanted if noise is None else dataclasses.replace(wanted, noise=noise)
        wanted = dataclasses.replace(wanted, width=1.0) if architecture in self.full_width else wanted
        wanted = dataclasses.replace(wanted, initial_gain=1.0) if architecture in self.default_initial else wanted
        if architecture not in FULLY_CONNECTED:
            return wanted
        recipe = dataclasses.replace(wanted.recipe, method="adam", learning_rate=self.adam_rate, weight_decay=0.0)
        return dataclasses.replace(wanted, recipe=recipe)


def only(networks: Networks, architectures: Sequence[str]) -> Networks:
    """Return the same scale for some of the architectures."""
    lists = {name: getattr(networks, name) for name in ("full_width", "default_initial")}
    kept = {name: tuple(one for one in chosen if one in architectures) for name, chosen in lists.items()}
    return dataclasses.replace(networks, architectures=tuple(architectures), **kept)


SMOKE = Networks(
    architectures=("fc_l2", "lenet"),
    seeds=2,
    adam_rate=0.01,
    training=Training(
        dataset="fashion_mnist_subset",
        width=1 / 16,
        train_images=256,
        test_images=256,
        augment=False,
        validation_images=64,
        selection="best",
        initial_gain=HE,
        recipe=training.Recipe(epochs=1, batch_size=64),
    ),
)
DEMO = Networks(
    slow_seeds=2,
    full_width=(*FULLY_CONNECTED, "lenet"),
    training=Training(
        dataset="fashion_mnist_subset",
        width=1 / 8,
        augment=False,
        validation_images=1_000,
        selection="best",
        initial_gain=HE,
        recipe=training.Recipe(epochs=3, batch_size=64, learning_rate=0.02, warmup_epochs=0.5),
    ),
)
"""Not SI's in size, length, learning rate and initial weights: with SI's, VGGs without batch norm do not begin to learn
within these few hundred steps."""
PAPER = Networks()
NATURAL_IMAGES: Mapping[str, Networks] = {"smoke": SMOKE, "demo": DEMO, "paper": PAPER}

PIXEL_PAIRS = Training(
    dataset=tasks.PAIRS,
    pairs=data.ScaleDetection(shape=(28, 28), scale=14, gap=2, pad=2),
    train_images=1_024,
    test_images=50_000,
    validation_images=1_024,
    selection="best",
    augment=False,
    recipe=training.Recipe(learning_rate=0.05, epochs=250, loss="hinge"),
)
"""Task 1 in two dimensions (SI 3, B.1, Fig. 8); the numbers of test and of held-out pairs are ours."""
SCALE_DETECTION: Mapping[str, Networks] = {
    "smoke": Networks(
        architectures=("fc_l2", "vgg11"),
        seeds=2,
        full_width=FULLY_CONNECTED,
        training=dataclasses.replace(
            PIXEL_PAIRS,
            width=1 / 16,
            train_images=256,
            test_images=256,
            validation_images=64,
            initial_gain=HE,
            recipe=training.Recipe(learning_rate=0.005, epochs=2, batch_size=16, loss="hinge"),
        ),
    ),
    "demo": Networks(
        seeds=2,
        slow_seeds=1,
        full_width=(*FULLY_CONNECTED, "lenet"),
        default_initial=("lenet", "alexnet"),
        training=dataclasses.replace(
            PIXEL_PAIRS,
            width=1 / 8,
            test_images=2_000,
            validation_images=512,
            initial_gain=HE,
            recipe=training.Recipe(learning_rate=0.005, epochs=12, batch_size=32, warmup_epochs=1, loss="hinge"),
        ),
    ),
    "paper": Networks(seeds=10, training=PIXEL_PAIRS),
}
"""The zoo on scale detection. The demo is short, and so not SI's in its initial weights and learning rate; LeNet and
AlexNet have SI's initial weights, from which they learn better (from larger ones AlexNet does not begin to)."""


def train(networks: Networks, architecture: str, task: tasks.Task, options: cli.Options) -> list[runs.Trained]:
    """Return the networks of one architecture, one per seed, trained on the task or loaded."""
    settings = networks.training_of(architecture, task.noise)
    return runs.train_or_load(settings, task, None, networks.seeds_of(architecture), options, keep_steps=False)


def load_task(networks: Networks, options: cli.Options, noise: float | None = None) -> tasks.Task:
    """Return what all architectures learn, with that much noise on the images."""
    return tasks.load_task(networks.training_of(networks.architectures[0], noise), options)


def accuracy_rows(
    networks: Networks, task: tasks.Task, architecture: str, trained: Sequence[runs.Trained]
) -> list[dict[str, Any]]:
    """Return one row per network with its accuracies, and when it was selected."""
    settings = networks.training_of(architecture, task.noise)
    return [
        {
            "architecture": architecture,
            "seed": network.seed,
            "noise_norm": settings.noise,
            "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(network.trained["params"])),
            "train_images": task.train_count,
            "classes": task.images.num_classes,
            "epochs": int(network.history[-1]["epoch"]),
            "selected_epoch": selected_epoch(network, settings),
            "train_accuracy": network.history[-1]["accuracy"],
            "validation_accuracy": network.history[selected_epoch(network, settings) - 1]["evaluation_accuracy"],
            "test_accuracy": runs.accuracy(settings, task, None, network),
            "images_per_second": network.history[-1]["images_per_second"],
        }
        for network in trained
    ]


def learned(accuracy: Mapping[str, Any]) -> bool:
    """Whether a network has learned at all (ours): half as good again as chance, on the test images.

    Of two classes, on the training images: fully connected networks fit the pairs of scale detection and tell hardly
    any others apart, which is a result, not a training that failed to begin.
    """
    measured = "train_accuracy" if accuracy["classes"] == 2 else "test_accuracy"
    return accuracy[measured] > 1.5 / accuracy["classes"]


def selected_epoch(network: runs.Trained, settings: Training) -> int:
    """Return the epoch whose network is measured: the first of the best accuracy, or the last."""
    if settings.selection == "final":
        return int(network.history[-1]["epoch"])
    best = max(network.history, key=lambda row: row["evaluation_accuracy"])
    return int(best["epoch"])


def stamp(scale: str, networks: Networks, tail: str = "") -> str:
    """Return the line that says on a figure at what scale it was made."""
    t = networks.training
    images = f"{t.train_images} images, " if t.train_images else ""
    selected = f"best of {t.validation_images} held-out images" if t.selection == "best" else "last epoch"
    initial = f", initial kernels × {t.initial_gain:g}" if t.initial_gain != 1 else ""
    if networks.default_initial and t.initial_gain != 1:
        initial += f" ({', '.join(LABELS[name] for name in networks.default_initial)}: 1)"
    width = f"width × {t.width:g}"
    if networks.full_width and t.width != 1:
        width += f" ({', '.join(LABELS[name] for name in networks.full_width)}: 1)"
    trained = f"{t.recipe.epochs} epoch(s){initial}, {selected}"
    seeds = f"{networks.seeds} seed(s)"
    slow = [LABELS[name] for name in networks.architectures if name in SLOW]
    if slow and networks.slow_seeds is not None:
        seeds += f" ({', '.join(slow)}: {networks.slow_seeds})"
    return f"scale {scale} · {t.dataset} · {images}{width} · {trained} · {seeds}{tail}"


LABELS: Mapping[str, str] = {
    "lenet": "LeNet",
    "alexnet": "AlexNet",
    "efficientnet_b0": "EfficientNet-B0",
    **{name: name.replace("fc_l", "FC L") for name in FULLY_CONNECTED},
    **{name: name.replace("vgg", "VGG").replace("_bn", "bn") for name in VGGS},
    **{name: name.replace("resnet", "ResNet") for name in models.ZOO if name.startswith("resnet")},
}
