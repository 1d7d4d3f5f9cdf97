"""What is measured of networks on images of k features: errors, D, G and R as features move and as images deform."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any

import jax

from deform_jax import data, probes, training
from experiments.common import cli, results, runs, tables, tasks, watch
from experiments.spatial_information import measures, recipes

PERTURBATIONS = {"features": "every feature moved", "diffeomorphism": "whole image deformed"}
STATES = ("init", "trained")
TRAINING = tasks.Training(
    dataset=tasks.FEATURES,
    features=data.Combinatorial(jitter=1.25),
    train_images=8_192,
    test_images=10_000,
    validation_images=2_048,
    selection="best",
    augment=False,
    recipe=training.Recipe(epochs=100, learning_rate=0.05, warmup_epochs=1),
)
"""All ours: SI asks for such data and has none. Jitter leaves features the room to move by a pixel, δ = 1."""
PAPER = recipes.Networks(
    architectures=("fc_l2", "fc_l4", "lenet", "alexnet", "vgg11", "vgg11_bn", "vgg16_bn", "resnet18"),
    training=TRAINING,
)
_KEY = 3
"""What tells the random numbers of moved features from those of deformations."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks on images of how many features, measured how."""

    networks: recipes.Networks = dataclasses.field(default_factory=lambda: PAPER)
    feature_counts: tuple[int, ...] = (1, 2, 3, 4)
    """Numbers of features k per image that are compared; of one, the feature itself is the class (modulo classes)."""
    probe: measures.Probe = dataclasses.field(default_factory=measures.Probe)
    """Features are moved by as much as deformations typically move a pixel, --displacement."""

    def __post_init__(self) -> None:
        counts, training = self.feature_counts, self.networks.training
        if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
            raise ValueError(f"--feature-counts must hold positive numbers, each once; {counts} given.")
        if training.dataset != tasks.FEATURES:
            raise ValueError(f"--dataset {training.dataset} is for other figures; here it is {tasks.FEATURES}.")
        if training.features.features != data.Combinatorial().features:
            raise ValueError("--features.features is for other figures; here --feature-counts says how many there are.")
        for count in counts:
            self.networks_on(count)  # its own checks, before anything is trained
        features = training.features
        room = features.size / features.grid / 2 - features.reach - features.jitter
        if self.max_shift > room + 1e-9:
            most = room / math.sqrt(1.5)
            raise ValueError(
                f"--displacement must keep features in their cells: at most {most:.3g}; {self.probe.displacement:g} "
                "given. Or lower --features.jitter, --features.spacing or --features.width."
            )

    @property
    def max_shift(self) -> float:
        """Largest shift s of a feature in each direction: uniform ones have the root mean square √(2/3) s."""
        return math.sqrt(1.5) * self.probe.displacement

    def networks_on(self, count: int) -> recipes.Networks:
        """Return the networks that are trained on images of so many features."""
        features = dataclasses.replace(self.networks.training.features, features=count)
        return dataclasses.replace(
            self.networks, training=dataclasses.replace(self.networks.training, features=features)
        )


def perturbed(settings: Settings, task: tasks.Task, count: int) -> dict[str, measures.Perturbed]:
    """Return the same test images of ``count`` features with either perturbation, and noise of each one's norm."""
    probe = settings.probe
    found = task.test_examples(probe.probe_images, seed=probe.probe_seed)
    clean = task.prepare_clean(None, found["images"])
    key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(probe.probe_seed), _KEY))
    moved = clean + _change(key, settings, task, count)
    noisy = probes.matched_noise(noise_key, clean, moved)
    return {"features": measures.Perturbed(clean, moved, noisy), "diffeomorphism": measures.perturb(probe, clean)}


def _change(key: jax.Array, settings: Settings, task: tasks.Task, count: int) -> jax.Array:
    """Return what moving the features changes, standardised: noise on the images stays where it is."""
    if task.features is None:
        sys.exit("error: features are moved on --dataset combinatorial, not on other images.")
    wanted = settings.networks_on(count).training.features
    chosen = tasks.choice(len(task.features.test_labels), settings.probe.probe_images, settings.probe.probe_seed)
    features, places = task.features.test_features[chosen], task.features.test_positions[chosen]
    moved = data.displace_features(key, places, wanted, max_shift=settings.max_shift)
    before, after = (_render(features, where, wanted) for where in (places, moved))
    return (after - before) / task.prepare_clean.std[0]


_render = jax.jit(data.render_features, static_argnums=2)


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load every network; return its error and sensitivities, those of each layer, and accuracies.

    ``learned`` is 0 for networks that have not even learned their training images (``recipes.learned``): they count in
    no correlation. An error is at least that of half a test image, since its logarithm is wanted.
    """
    settings, found = command.settings, {"table": [], "layers": [], "accuracy": []}
    for count in settings.feature_counts:
        networks = settings.networks_on(count)
        task = recipes.load_task(networks, command.options)
        samples = perturbed(settings, task, count)
        for architecture in networks.architectures:
            trained = recipes.train(networks, architecture, task, command.options)
            model = runs.build(networks.training_of(architecture), None, task.num_classes)
            accuracies = recipes.accuracy_rows(networks, task, architecture, trained)
            found["accuracy"] += [{"features": count, **row} for row in accuracies]
            for network, accuracy in watch.each(zip(trained, accuracies, strict=True), f"probing {architecture}"):
                head = {"architecture": architecture, "features": count, "seed": network.seed}
                head["learned"] = int(recipes.learned(accuracy))
                layers = _layers(model, network, samples, head, settings.probe.chunk)
                found["layers"] += layers
                found["table"] += [
                    _row(head, "trained", "none", "error", _error(accuracy, task)),
                    *(_row(head, "none", name, "norm", sample.norm) for name, sample in samples.items()),
                    *(
                        _row(head, row["state"], row["perturbation"], column, row[column])
                        for row in tables.select(layers, layer="output")
                        for column in measures.COLUMNS
                    ),
                ]
    return found


def _error(accuracy: Mapping[str, Any], task: tasks.Task) -> float:
    return max(0.5 / len(task.evaluation["labels"]), 1 - accuracy["test_accuracy"])


def _row(head: Mapping[str, Any], state: str, perturbation: str, measure: str, value: float) -> dict[str, Any]:
    return {**head, "state": state, "perturbation": perturbation, "measure": measure, "value": value}


def _layers(
    model: Any,
    network: runs.Trained,
    samples: Mapping[str, measures.Perturbed],
    head: Mapping[str, Any],
    chunk: int | None,
) -> list[dict[str, Any]]:
    """Return one row per state, perturbation and layer, the output last."""
    clean = samples["features"].images
    states = {
        "init": measures.represent_init(model, network.init, clean),
        "trained": measures.represent_trained(model, network.trained),
    }
    return [
        row
        for state, represent in states.items()
        for name, sample in samples.items()
        for row in measures.rows(represent, sample, {**head, "state": state, "perturbation": name}, chunk=chunk)
    ]
