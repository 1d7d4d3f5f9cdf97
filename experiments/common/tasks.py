"""Which images are learned, with which labels: data sets, streams, and the tasks made from them."""

import contextlib
import dataclasses
import math
import sys
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from deform_jax import data, training
from experiments.common import cli, clock

STREAM = "stream:"
PAIRS = "scale_detection"
FEATURES = "combinatorial"
TASK_STREAM = 2**31 - 2
"""What tells the random numbers of a task from those of a network of the same seed."""
BATCH_STATISTICS = 2**20
"""Pixels of training images from which batch norm's statistics are taken anew, where they are: they pass at once."""
TEMPLATE_IMAGES = 12_800
"""Images an epoch of deformed templates has: 100 steps of 128."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What determines a trained network, its seed and downsampling apart."""

    dataset: str = "cifar10"
    """Images: fashion_mnist_subset (shipped), fashion_mnist, mnist, cifar10, cifar100, folder:PATH or npz:PATH (your
    own: a subfolder of image files per class, resized to 32 × 32; or arrays), tfds:NAME (a prepared TFDS set, held in
    memory), stream:NAME (a prepared TFDS set of photographs of any size, read from disk while training),
    scale_detection (images of two active pixels, SI 3), or combinatorial (images of features whose combination makes
    the class, SI 5)."""
    pairs: Annotated[data.ScaleDetection, cli.prefixed("pairs", data.ScaleDetection)] = dataclasses.field(
        default_factory=data.ScaleDetection
    )
    """scale_detection: which pairs of pixels are told apart; networks of one output learn it by the hinge loss."""
    features: Annotated[data.Combinatorial, cli.prefixed("features", data.Combinatorial)] = dataclasses.field(
        default_factory=data.Combinatorial
    )
    """combinatorial: how many features of which vocabulary make an image."""
    image_size: int = 224
    """stream:NAME: pixels per side of the crops."""
    network: str = "block_vgg_cifar10"
    """Architecture: block_vgg_cifar10, block_vgg_imagenet or, to try things out, block_vgg_tiny."""
    width: float = 1.0
    """Factor on all channel counts."""
    initial_gain: float = 1.0
    """Factor on the initial kernels of SI's networks with PyTorch's default initialisation; 2.449 (√6) makes them He's,
    with which deep networks without batch norm begin to learn at once."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of convolutions and activations while training; parameters, batch norm and probes stay in float32."""
    train_images: int | None = None
    """Use only the first so many training images (None: all). deformed_templates: images per epoch (None: 12,800).
    scale_detection and combinatorial: so many, equally many of each class, besides those held out."""
    test_images: int | None = None
    """Use only the first so many test images (None: all). scale_detection: test pairs, half of them close (None: all
    that are neither trained on nor held out). combinatorial: so many."""
    augment: bool = True
    """Random crop (4 px zero padding) and horizontal flip while training; not for deformed_templates. Streams always
    train on random resized crops and flips."""
    noise: float = 0.0
    """Expected Euclidean norm of white Gaussian noise that is added to every standardised image, fresh at each epoch;
    to validation and test images too."""
    validation_images: int = 0
    """Training images held out, balanced over classes, on which networks are evaluated after each epoch; 0: none, and
    that is done on the test images."""
    selection: Literal["final", "best"] = "final"
    """Network that is measured: that of the last epoch, or of the best accuracy on the held-out images."""
    task: Literal["original", "random_labels", "random_images", "deformed_templates"] = "original"
    """What is learned: the data set as it is; uniform random labels; white noise with the data's mean and deviation in
    the place of the images; or telling apart the deformations of one image per class (LS 4.3)."""
    task_seed: int = 0
    """Seed of random labels, random images or templates."""
    strength: float = 3.0
    """deformed_templates: largest shift of a control point in each direction, pixels."""
    recipe: training.Recipe = dataclasses.field(default_factory=training.Recipe)


class Task(NamedTuple):
    """A data set as training and probes take it."""

    images: data.ImageSet | data.ImageStream
    prepare: Any
    prepare_clean: Any
    """For validation, test and probe images: never augmented."""
    validation: dict[str, np.ndarray] | None = None
    """Images and labels held out of the training set."""
    pairs: data.PairSplit | None = None
    """scale_detection: the active pixels of the training and held-out, and of the test images."""
    features: data.FeatureSplit | None = None
    """combinatorial: the features of those images, and their places."""

    @property
    def num_classes(self) -> int:
        """Number of outputs: one per class, or a single one whose sign tells two apart."""
        return self.images.num_classes if self.pairs is None else 1

    @property
    def noise(self) -> float:
        """Expected norm of the noise on every image."""
        return getattr(self.prepare_clean, "noise", 0.0)

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
        """The test images, as ``training.evaluate`` takes them."""
        if isinstance(self.images, data.ImageStream):
            return self.images
        return {"images": self.images.test_images, "labels": self.images.test_labels}

    def test_examples(self, count: int, *, seed: int | None = None) -> dict[str, np.ndarray]:
        """Return ``images`` and ``labels`` of test images: chosen at random, none twice, or the first ones."""
        stream = self.images if isinstance(self.images, data.ImageStream) else None
        available = stream.test_count if stream is not None else len(self.evaluation["labels"])
        if count > available:
            sys.exit(f"error: {count} test images are wanted in all, which exceed the {available} test images.")
        if stream is not None:
            images, labels = stream.test_examples(count, seed=seed)
            return {"images": images, "labels": labels}
        chosen = choice(available, count, seed)
        return {name: np.asarray(array)[chosen] for name, array in self.evaluation.items()}

    def train_examples(self, count: int) -> np.ndarray:
        """Return the images of some training examples: the first ones, or the first crops of a stream's seed 0."""
        count = min(count, self.train_count)
        if isinstance(self.images, data.ImageSet):
            return np.asarray(self.images.train_images[:count])
        with contextlib.closing(self.images.train_batches(0, count)) as batches:
            return np.asarray(next(batches)["images"])

    def statistics_examples(self) -> jax.Array:
        """Return prepared training images for batch norm's statistics: 1024 of 32 × 32 pixels, fewer of larger ones."""
        pixels = math.prod(self.train_examples(1).shape[1:-1])
        return self.prepare_clean(None, self.train_examples(max(32, BATCH_STATISTICS // pixels)))


def choice(available: int, count: int, seed: int | None) -> np.ndarray:
    """Return the indices of examples: chosen at random, none twice, or the first ones."""
    if seed is None:
        return np.arange(count)
    return np.asarray(jax.random.permutation(jax.random.split(jax.random.key(seed))[0], available)[:count])


@clock.COMMAND.part("data")
def load_task(settings: Training, options: cli.Options) -> Task:
    """Return the image set (cut to ``train_images``), changed as the task says, and how training and probes take it."""
    _check(settings)
    if settings.dataset == PAIRS:
        return _pixel_pairs(settings)
    if settings.dataset == FEATURES:
        return _combinations(settings)
    if settings.dataset.startswith(STREAM):
        return _streamed(settings, options)
    images = data.load(settings.dataset, folder=options.data_folder)
    key = jax.random.fold_in(jax.random.key(settings.task_seed), TASK_STREAM)
    if settings.task == "deformed_templates":
        count = settings.train_images or TEMPLATE_IMAGES
        images, prepare = data.deformed_templates(images, key, strength=settings.strength, train_images=count)
        return Task(images, prepare, prepare.prepare)
    images = _cut(_cut(images, "train", settings.train_images), "test", settings.test_images)
    validation = None
    clean = dataclasses.replace(data.Prepare.from_images(images.train_images), noise=settings.noise)
    if settings.validation_images:
        images, validation = data.validation_split(key, images, settings.validation_images)
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
    images, prepare = dataclasses.replace(images, **changed), dataclasses.replace(clean, augment=settings.augment)
    return Task(images, prepare, clean, validation)


def _check(settings: Training) -> None:
    if settings.selection == "best" and not settings.validation_images:
        sys.exit("error: --selection best takes held-out images: give --validation-images too, or --selection final.")
    if (settings.dataset == PAIRS) != (settings.recipe.loss == "hinge"):
        sys.exit("error: --loss hinge is for --dataset scale_detection, which takes no other loss.")
    plain = settings.task == "original" and not settings.dataset.startswith(STREAM)
    if settings.dataset in (PAIRS, FEATURES):
        noise = settings.dataset == PAIRS and settings.noise
        for name, given in (("augment", settings.augment), ("noise", noise), ("task", not plain)):
            if given:
                sys.exit(f"error: --{name} does not go with --dataset {settings.dataset}.")
        if settings.train_images is None or settings.train_images < 1:
            what = "pairs" if settings.dataset == PAIRS else "images"
            sys.exit(f"error: --dataset {settings.dataset} needs --train-images, the number of training {what}.")
        if settings.dataset == FEATURES and settings.test_images is None:
            sys.exit("error: --dataset combinatorial needs --test-images, the number of test images.")
    elif settings.test_images is not None and settings.task == "deformed_templates":
        sys.exit("error: --test-images does not go with --task deformed_templates, which takes all.")
    for name in ("noise", "validation_images"):
        value, flag = getattr(settings, name), f"--{name.replace('_', '-')}"
        if value < 0:
            sys.exit(f"error: {flag} must not be negative; {value:g} given.")
        if value and not plain:
            sys.exit(f"error: {flag} is for --task original with images in memory, not for streams or other tasks.")


def _streamed(settings: Training, options: cli.Options) -> Task:
    if settings.task != "original":
        sys.exit(f"error: --task {settings.task} needs images in memory, but --dataset {settings.dataset} is streamed.")
    for part in ("train", "test"):
        if getattr(settings, f"{part}_images") is not None:
            remedy = "a part of a streamed set is a TFDS set of its own"
            sys.exit(f"error: --{part}-images is for images in memory; {remedy}.")
    images = data.stream(
        settings.dataset.removeprefix(STREAM),
        folder=options.data_folder,
        size=settings.image_size,
        worker_count=options.workers,
    )
    return Task(images, data.IMAGENET_PREPARE, data.IMAGENET_PREPARE)


def _pixel_pairs(settings: Training) -> Task:
    """Return a scale-detection task: counts of active pixels, which ``ActivePixels`` scales."""
    wanted = settings.pairs
    key = jax.random.fold_in(jax.random.key(settings.task_seed), TASK_STREAM)
    train = (settings.train_images or 0) + settings.validation_images
    split = data.scale_detection(key, wanted, train=train, test=settings.test_images)
    counts = [data.pair_images(wanted, split[i]) for i in (0, 2)]
    images = data.ImageSet(PAIRS, counts[0], split.train_labels, counts[1], split.test_labels, 2)
    validation = None
    if settings.validation_images:
        images, validation = data.validation_split(key, images, settings.validation_images)
    prepare = data.ActivePixels(data.active_value(wanted))
    return Task(images, prepare, prepare, validation, split)


def _combinations(settings: Training) -> Task:
    """Return a task of features in combination, with the features and places that its images are drawn from."""
    key = jax.random.fold_in(jax.random.key(settings.task_seed), TASK_STREAM)
    train, test = (settings.train_images or 0) + settings.validation_images, settings.test_images or 0
    images = data.combinatorial_images(key, settings.features, train=train, test=test)
    split = data.combinatorial_split(key, settings.features, train=train, test=test)
    prepare, validation = data.Prepare.from_images(images.train_images, noise=settings.noise), None
    if settings.validation_images:
        images, validation = data.validation_split(key, images, settings.validation_images)
    return Task(images, prepare, prepare, validation, features=split)


def _cut(images: data.ImageSet, part: Literal["train", "test"], count: int | None) -> data.ImageSet:
    """Return the set with the first ``count`` of its training or test images."""
    if count is None:
        return images
    known = {name: getattr(images, name) for name in (f"{part}_images", f"{part}_labels")}
    available = len(known[f"{part}_images"])
    if not 1 <= count <= available:
        sys.exit(f"error: --{part}-images must be 1 to {available}, but {count} was given.")
    return dataclasses.replace(images, **{name: array[:count] for name, array in known.items()})
