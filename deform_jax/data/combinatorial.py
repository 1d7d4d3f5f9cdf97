"""A task whose class is in the combination of an image's features: images to train and to test on (SI section 5)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

from deform_jax import checks
from deform_jax.data.features import Combinatorial, check_settings, render_features
from deform_jax.data.images import ImageSet
from deform_jax.typing import RandomKey


class FeatureSplit(NamedTuple):
    """Features, their places and labels, numpy, to train and to test on.

    Attributes:
      train_features: (n, k) int32, the features of each image.
      train_positions: (n, k, 2) float32, their places in pixels, (row, column), pixels' centres at integers from 0.
      train_labels: (n,) int32, the classes.
      test_features: (m, k), likewise.
      test_positions: (m, k, 2), likewise.
      test_labels: (m,), likewise.
    """

    train_features: Int32[np.ndarray, "n k"]
    train_positions: Float32[np.ndarray, "n k 2"]
    train_labels: Int32[np.ndarray, " n"]
    test_features: Int32[np.ndarray, "m k"]
    test_positions: Float32[np.ndarray, "m k 2"]
    test_labels: Int32[np.ndarray, " m"]


def combinatorial_split(key: RandomKey, settings: Combinatorial, *, train: int, test: int) -> FeatureSplit:
    """Return the features and places that :func:`combinatorial_images` draws from the same key.

    To move features and draw them again with :func:`render_features`.

    Args:
      key: the random key given there.
      settings: of the task.
      train, test: numbers of images, as there.

    Raises:
      TypeError, ValueError: as :func:`combinatorial_images`.
    """
    check_settings(settings)
    checks.key(key, remedy="One key draws all images.")
    for name, count in (("train", train), ("test", test)):
        checks.integer(name, count, minimum=settings.num_classes)
        checks.entries(name, count, max(settings.size, settings.grid) ** 2)
    return FeatureSplit(*map(np.asarray, _draw(key, settings, train, test)))


def combinatorial_images(key: RandomKey, settings: Combinatorial, *, train: int, test: int) -> ImageSet:
    """Return training and test images of a combinatorial task.

    Args:
      key: draws the images; the same key and settings give the same ones.
      settings: of the task.
      train, test: numbers of images, at least one of each class, equally many of each (± 1). Within a class each
        combination of features is as likely as any other (with ``disjoint``, any other of its part).

    Returns:
      (n, size, size, 1) uint8 images, black 0; noise drawn once.

    Raises:
      TypeError, ValueError: not a ``Combinatorial``, no key or more than one, or numbers out of range.

    SI section 5 asks for tasks whose classes are combinations of features; these are ours.
    """
    split = combinatorial_split(key, settings, train=train, test=test)
    arrays = []
    for part, noise_key in zip((split[:3], split[3:]), jax.random.split(jax.random.fold_in(key, 2)), strict=True):
        features, positions, labels = part
        arrays += [np.array(_stored(noise_key, features, positions, settings)), np.array(labels)]
    for array in arrays:
        array.flags.writeable = False  # device_put may alias it on the CPU
    order = "" if settings.placement == "fixed" else " anywhere"
    name = f"{settings.features} of {settings.vocabulary} features{order}, jittered by up to {settings.jitter:g} px"
    return ImageSet(name, *arrays, num_classes=settings.num_classes)


@functools.partial(jax.jit, static_argnums=3)
def _stored(key: jax.Array, features: jax.Array, positions: jax.Array, settings: Combinatorial) -> jax.Array:
    images = render_features(features, positions, settings)
    if settings.noise:
        images = images + settings.noise * jax.random.normal(key, images.shape, images.dtype)
    return jnp.round(255 * jnp.clip(images, 0, 1)).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(key: jax.Array, settings: Combinatorial, train: int, test: int) -> list[jax.Array]:
    parts = []
    for count, testing, part_key in zip((train, test), (False, True), jax.random.split(key), strict=True):
        labels = jnp.arange(count, dtype=jnp.int32) % settings.num_classes
        feature_key, place_key = jax.random.split(part_key)
        features = _draw_features(feature_key, labels, settings, testing=testing)
        parts += [features, _draw_places(place_key, count, settings), labels]
    return parts


def _draw_features(key: jax.Array, labels: jax.Array, settings: Combinatorial, *, testing: bool) -> jax.Array:
    """Return combinations (n, k) of the given classes, uniformly: all but the last at random, which the rule gives."""
    classes, groups = settings.num_classes, settings.vocabulary // settings.num_classes
    feature_key, group_key = jax.random.split(key)
    first = jax.random.randint(feature_key, (len(labels), settings.features - 1), 0, settings.vocabulary)
    lowest, highest = (groups - 1, groups) if testing else (0, groups - 1)
    allowed = (lowest, highest) if settings.disjoint else (0, groups)
    group = (jax.random.randint(group_key, (len(labels),), *allowed) - (first // classes).sum(axis=-1)) % groups
    last = classes * group + (labels - first.sum(axis=-1)) % classes
    return jnp.concatenate([first, last[:, None]], axis=-1).astype(jnp.int32)


def _draw_places(key: jax.Array, count: int, settings: Combinatorial) -> jax.Array:
    """Return jittered places (n, k, 2), each in a cell of its own."""
    cell_key, jitter_key = jax.random.split(key)
    cells = jnp.broadcast_to(jnp.arange(settings.grid**2), (count, settings.grid**2))
    if settings.placement == "free":
        cells = jax.random.permutation(cell_key, cells, axis=1, independent=True)
    cells = cells[:, : settings.features]
    corner = jnp.stack([cells // settings.grid, cells % settings.grid], axis=-1).astype(jnp.float32)
    centres = (corner + 0.5) * (settings.size / settings.grid) - 0.5
    return centres + settings.jitter * jax.random.uniform(jitter_key, centres.shape, jnp.float32, -1, 1)
