"""Train a network, or load it if the same settings trained it before."""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from deform_jax import data, models, training
from experiments.common import cli, tables
from experiments.common import settings as common

STREAM = "stream:"
TASK_STREAM = 2**31 - 2
"""What tells the random numbers of a task from those of a network of the same seed."""
BATCH_STATISTICS = 1024
"""Training images from which batch norm's statistics are taken anew, where they are."""
TEMPLATE_IMAGES = 12_800
"""Images an epoch of deformed templates has: 100 steps of 128."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What determines a trained network, its seed and downsampling apart."""

    dataset: str = "cifar10"
    """Images: fashion_mnist_subset (shipped), fashion_mnist, mnist, cifar10, cifar100, tfds:NAME (a prepared TFDS set,
    held in memory), or stream:NAME (a prepared TFDS set of photographs of any size, read from disk while training)."""
    image_size: int = 224
    """stream:NAME: pixels per side of the crops."""
    network: str = "block_vgg_cifar10"
    """Architecture: block_vgg_cifar10 or block_vgg_imagenet."""
    width: float = 1.0
    """Factor on all channel counts."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of convolutions and activations while training; parameters, batch norm and probes stay in float32."""
    train_images: int | None = None
    """Use only the first so many training images (None: all). deformed_templates: images per epoch (None: 12,800)."""
    augment: bool = True
    """Random crop (4 px zero padding) and horizontal flip while training; not for deformed_templates. Streams always
    train on random resized crops and flips."""
    task: Literal["original", "random_labels", "random_images", "deformed_templates"] = "original"
    """What is learned: the data set as it is; uniform random labels; white noise with the data's mean and deviation in
    the place of the images; or telling apart the deformations of one image per class (LS 4.3)."""
    task_seed: int = 0
    """Seed of random labels, random images or templates."""
    strength: float = 3.0
    """deformed_templates: largest shift of a control point in each direction, pixels."""
    recipe: training.Recipe = dataclasses.field(default_factory=training.Recipe)


class Trained(NamedTuple):
    """A network before and after training: variables of both states and the training history."""

    seed: int
    init: Any
    trained: Any
    history: list[dict[str, float]]
    folder: pathlib.Path

    def steps(self) -> dict[int, pathlib.Path]:
        """Return {step: checkpoint} of the states kept during training, from 0 on, the last one included."""
        states = self.folder / "states"
        kept = {int(path.name.removeprefix("step_")): path for path in states.glob("step_*")}
        return dict(sorted({0: states / "init", **kept, int(self.history[-1]["step"]): states / "final"}.items()))


class Task(NamedTuple):
    """A data set as training and probes take it."""

    images: data.ImageSet | data.ImageStream
    prepare: Any
    prepare_clean: data.Prepare

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.images.num_classes

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return len(self.images.train_labels) if isinstance(self.images, data.ImageSet) else self.images.train_count

    @property
    def train(self) -> Any:
        """What ``training.fit`` trains on."""
        if isinstance(self.images, data.ImageStream):
            return self.images
        return {"images": self.images.train_images, "labels": self.images.train_labels}

    @property
    def evaluation(self) -> Any:
        """What ``training.fit`` evaluates on."""
        if isinstance(self.images, data.ImageStream):
            return self.images
        return {"images": self.images.test_images, "labels": self.images.test_labels}

    def test_examples(self, count: int, *, seed: int | None = None) -> dict[str, np.ndarray]:
        """Return ``images`` and ``labels`` of test images: chosen at random, none twice, or the first ones."""
        if isinstance(self.images, data.ImageStream):
            available = self.images.test_count
        else:
            available = len(self.images.test_labels)
        if count > available:
            sys.exit(f"error: {count} test images are wanted in all, which exceed the {available} test images.")
        if isinstance(self.images, data.ImageStream):
            images, labels = self.images.test_examples(count, seed=seed)
            return {"images": images, "labels": labels}
        chosen: Any = np.arange(count)
        if seed is not None:
            chosen = jax.random.permutation(jax.random.split(jax.random.key(seed))[0], available)[:count]
        return {
            "images": np.asarray(self.images.test_images)[chosen],
            "labels": np.asarray(self.images.test_labels)[chosen],
        }

    def train_examples(self, count: int) -> np.ndarray:
        """Return the images of some training examples: the first ones, or the first crops of a stream's seed 0."""
        count = min(count, self.train_count)
        if isinstance(self.images, data.ImageSet):
            return np.asarray(self.images.train_images[:count])
        with contextlib.closing(self.images.train_batches(0, count)) as batches:
            return np.asarray(next(batches)["images"])


def load_task(settings: Training, options: cli.Options) -> Task:
    """Return the image set (cut to ``train_images``), changed as the task says, and how training and probes take it."""
    if settings.dataset.startswith(STREAM):
        return _streamed(settings, options)
    images = data.load(settings.dataset, folder=options.data_folder)
    key = jax.random.fold_in(jax.random.key(settings.task_seed), TASK_STREAM)
    if settings.task == "deformed_templates":
        count = settings.train_images or TEMPLATE_IMAGES
        images, prepare = data.deformed_templates(images, key, strength=settings.strength, train_images=count)
        return Task(images, prepare, prepare.prepare)
    images = _cut(images, settings.train_images)
    clean = data.Prepare.from_images(images.train_images)
    changed: dict[str, Any] = {}
    if settings.task == "random_labels":
        labels = data.random_labels(key, len(images.train_labels), images.num_classes)
        changed = {"train_labels": np.asarray(labels)}
    elif settings.task == "random_images":
        keys = jax.random.split(key)
        changed = {
            name: np.asarray(data.random_images(one, getattr(images, name)))
            for name, one in zip(("train_images", "test_images"), keys, strict=True)
        }
    return Task(dataclasses.replace(images, **changed), dataclasses.replace(clean, augment=settings.augment), clean)


def _streamed(settings: Training, options: cli.Options) -> Task:
    if settings.task != "original":
        sys.exit(f"error: --task {settings.task} needs images in memory, but --dataset {settings.dataset} is streamed.")
    if settings.train_images is not None:
        sys.exit("error: --train-images is for images in memory; a part of a streamed set is a TFDS set of its own.")
    images = data.stream(
        settings.dataset.removeprefix(STREAM),
        folder=options.data_folder,
        size=settings.image_size,
        worker_count=options.workers,
    )
    return Task(images, data.IMAGENET_PREPARE, data.IMAGENET_PREPARE)


def _cut(images: data.ImageSet, count: int | None) -> data.ImageSet:
    if count is None:
        return images
    if not 1 <= count <= len(images.train_images):
        sys.exit(f"error: --train-images must be 1 to {len(images.train_images)}, but {count} was given.")
    return dataclasses.replace(
        images, train_images=images.train_images[:count], train_labels=images.train_labels[:count]
    )


def build(settings: Training, downsampling: str, num_classes: int) -> models.BlockVGG:
    """Return the untrained module."""
    return models.create(
        settings.network,
        downsampling=downsampling,
        num_classes=num_classes,
        width=settings.width,
        compute_dtype=settings.compute_dtype,
    )


def initial(model: models.BlockVGG, seed: int, shape: Sequence[int]) -> Any:
    """Return the variables that training with this seed starts from, for images of that shape (h, w, c)."""
    height, width, channels = shape
    recipe = training.Recipe()
    return training.create_state(model, recipe, jax.random.key(seed), (height, width, channels), 1).variables


def train_or_load(
    settings: Training,
    task: Task,
    downsampling: str,
    seeds: Sequence[int],
    options: cli.Options,
) -> list[Trained]:
    """Return the trained networks of all seeds, training those that the folder does not hold yet.

    A run's folder is named by the hash of its settings; ``settings.json`` in it says what they were. Seeds train side
    by side where there are several devices, else one after another, and a killed run goes on where it was.
    """
    base = options.runs / f"{settings.network}-{downsampling}-{common.digest(_Identity(settings, downsampling))}"
    tables.write_json(base / "settings.json", common.as_dict(_Identity(settings, downsampling)))
    paths = {seed: base / f"seed_{seed:03d}" for seed in seeds}
    found = {seed: loaded for seed in seeds if (loaded := _load(seed, paths[seed])) is not None}
    model = build(settings, downsampling, task.num_classes)
    missing = [seed for seed in seeds if seed not in found]
    # Where a training set is to be fitted, the test set waits for the end: it would take longer than the epochs.
    evaluation = task.evaluation if settings.recipe.stop_accuracy is None else None
    while missing:
        mesh = _layout(len(missing), settings.recipe.batch_size, options.data_axis)
        group, missing = missing[: mesh.shape["seed"]], missing[mesh.shape["seed"] :]
        training.fit(
            model,
            settings.recipe,
            task.train,
            evaluation=evaluation,
            prepare=task.prepare,
            prepare_evaluation=task.prepare_clean,
            seeds=group,
            folders=[paths[seed] for seed in group],
            mesh=mesh,
            save_steps=log_spaced(settings.recipe, task.train_count),
            checkpoint_steps=options.checkpoint_steps,
            progress=f"{downsampling}, seed {', '.join(map(str, group))}",
        )
        for seed in group:
            loaded = _load(seed, paths[seed])
            if loaded is None:
                raise RuntimeError(f"Seed {seed} was trained, but {paths[seed]} holds no result. Is the disk full?")
            found[seed] = loaded
            tables.write(paths[seed] / "history.csv", loaded.history)
    return [found[seed] for seed in seeds]


def log_spaced(recipe: training.Recipe, count: int) -> list[int]:
    """Return the steps 1, 2, 4, … below the last one, after which a network's state is kept."""
    total = recipe.epochs * (count // recipe.batch_size)
    return [2**k for k in range(total.bit_length()) if 2**k < total]


@dataclasses.dataclass(frozen=True)
class _Identity:
    training: Training = dataclasses.field(default_factory=Training)
    downsampling: str = "max"


def _load(seed: int, path: pathlib.Path) -> Trained | None:
    if not (path / "states" / "final").is_dir():
        return None
    try:
        init, final = (training.load(path / "states" / name) for name in ("init", "final"))
    except (training.CorruptCheckpointError, FileNotFoundError) as error:
        # Set the damaged run aside, never over it, and train that seed again.
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        path.rename(aside)
        print(f"{error}\nThe run was moved to {aside}; seed {seed} is trained again.", file=sys.stderr)
        return None
    return Trained(seed, init.variables, final.variables, final.manifest["history"], path)


def _layout(seeds: int, batch_size: int, data_axis: int | None) -> Mesh:
    """Return a mesh for the next seeds: as many side by side as divide the devices, the batch over the rest."""
    devices = jax.device_count()
    split = data_axis if data_axis is not None else 1
    if split < 1 or devices % split:
        return training.make_mesh(1, split)  # says which layouts would do
    side = max(s for s in range(1, seeds + 1) if devices // split % s == 0)
    if data_axis is None:
        split = max(d for d in range(1, devices // side + 1) if devices // side % d == 0 and batch_size % d == 0)
    return training.make_mesh(side, split)


def with_training_statistics(settings: Training, task: Task, downsampling: str, trained: Trained) -> Trained:
    """Return the network with batch norm's statistics taken anew, from training images (the first 1024 at most).

    Where training ends while the learning rate is high, and batches are small, the running averages lag behind.
    """
    model = build(settings, downsampling, task.num_classes)
    images = task.prepare_clean(None, task.train_examples(BATCH_STATISTICS))
    return trained._replace(trained=models.with_batch_statistics(model, trained.trained, images))


def accuracy(settings: Training, task: Task, downsampling: str, trained: Trained) -> float:
    """Return the accuracy on the test images after the last epoch."""
    known = trained.history[-1].get("evaluation_accuracy")
    return float(_evaluate(settings, task, downsampling, trained, task.evaluation) if known is None else known)


def fitted(settings: Training, task: Task, downsampling: str, trained: Trained) -> float:
    """Return the final accuracy on the training images, as probed: not augmented; NaN for a stream."""
    if isinstance(task.images, data.ImageStream):
        return float("nan")
    return _evaluate(settings, task, downsampling, trained, task.train)


def _evaluate(settings: Training, task: Task, downsampling: str, trained: Trained, images: Any) -> float:
    model = build(settings, downsampling, task.num_classes)
    return training.evaluate(model, trained.trained, images, prepare=task.prepare_clean)["accuracy"]
