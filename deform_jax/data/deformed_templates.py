"""Synthetic classification tasks whose classes are the deformations of single images (LS section 4.3)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deform_jax import checks, warps
from deform_jax.data.images import ImageSet
from deform_jax.data.prepare import Prepare, image_keys
from deform_jax.typing import RandomKey


@dataclasses.dataclass(frozen=True)
class DeformedTemplates:
    """A task as training takes it: class k is template k under fresh random deformations.

    As ``prepare`` of ``training.fit`` it deforms every image anew by the image's key, on the device, and standardises;
    called with keys ``None``, as for evaluation, it only standardises. Hashable and compared by value.

    Args:
      prepare: standardises images; its own augmentation must be off.
      strength: largest displacement of a control point in each direction, in pixels (LS's C), ≥ 0.
      grid: (gy, gx), control points down and across.

    Raises:
      TypeError, ValueError: settings that :func:`warps.random_tps` refuses, or a ``prepare`` that augments.
    """

    prepare: Prepare
    strength: float
    grid: tuple[int, int] = (3, 3)

    def __post_init__(self) -> None:
        if not isinstance(self.prepare, Prepare) or self.prepare.augment:
            checks.fail("prepare", "be a `Prepare` that does not augment", f"{self.prepare!r} was given")
        object.__setattr__(self, "strength", self._perturb.max_shift)
        object.__setattr__(self, "grid", self._perturb.grid)

    def __call__(self, keys: jax.Array | None, images: Any) -> Float[Array, "n h w c"]:
        """Return the float32 images (n, h, w, c) that the network is fed, from uint8 templates (n, h, w, c)."""
        standard = self.prepare(None, images)
        if keys is None:
            return standard
        # Standardising is affine in each pixel, and the border is clamped: before or after deforming is the same.
        return jax.vmap(self._perturb)(image_keys(keys, len(standard)), standard)

    def deform(self, keys: jax.Array, images: Any) -> np.ndarray:
        """Return deformed copies of uint8 images (n, h, w, c), one key each, as uint8 again (rounded)."""
        pixels = checks.array("images", images, "n h w c", kind="integer").astype(jnp.float32)
        deformed = _deform(self._perturb, image_keys(keys, len(pixels)), pixels)
        return np.asarray(jnp.round(deformed)).astype(np.uint8)

    @property
    def _perturb(self) -> Any:
        return warps.random_tps(grid=self.grid, max_shift=self.strength)


@functools.partial(jax.jit, static_argnums=0)
def _deform(perturb: Any, keys: jax.Array, pixels: jax.Array) -> jax.Array:
    return jax.vmap(perturb)(keys, pixels)


def choose_templates(key: RandomKey, images: Any, labels: Any, num_classes: int) -> np.ndarray:
    """Return one image of each class, chosen at random: (num_classes, h, w, c), in the order of the classes.

    Args:
      key: a random key.
      images: (n, h, w, c) images.
      labels: (n,) integers from 0.
      num_classes: number of classes; static.

    Raises:
      TypeError, ValueError: no key, other images or labels than these, or a class without an image.
    """
    checks.key(key, remedy="One key chooses all templates.")
    images = np.asarray(checks.array("images", images, "n h w c", kind="real", wide=True))
    labels = np.asarray(checks.array("labels", labels, "n", kind="integer", wide=True))
    if len(images) != len(labels):
        checks.fail("labels", f"be one for each of the {len(images)} images", f"there are {len(labels)}")
    chosen = []
    for label in range(checks.integer("num_classes", num_classes, minimum=1, maximum=checks.LONGEST)):
        (indices,) = np.nonzero(labels == label)
        if len(indices) == 0:
            checks.fail("labels", f"have an image of every class, 0 to {num_classes - 1}", f"there is none of {label}")
        chosen.append(indices[int(jax.random.randint(jax.random.fold_in(key, label), (), 0, len(indices)))])
    return images[np.asarray(chosen)]


def deformed_templates(
    images: ImageSet,
    key: RandomKey,
    *,
    strength: float,
    grid: tuple[int, int] = (3, 3),
    train_images: int = 12_800,
    test_images: int = 1_000,
) -> tuple[ImageSet, DeformedTemplates]:
    """Return a synthetic task, and the ``prepare`` that deforms its templates anew in every step.

    Args:
      images: where the templates come from: one training image per class, chosen at random.
      key: of the choice of templates and of the test deformations.
      strength: largest displacement of a control point in each direction, in pixels (LS's C: 1 to 4), ≥ 0.
      grid: (gy, gx), control points down and across.
      train_images: undeformed copies of templates that make an epoch, equally many of each class (± 1).
      test_images: fixed deformations, other than any seen in training, equally many of each class (± 1).

    Returns:
      An :class:`ImageSet` of uint8 images, its training part the templates over and over, and a
      :class:`DeformedTemplates` to train with.

    Raises:
      TypeError, ValueError: impossible numbers, or a class without an image.

    LS section 4.3: "each class consisted of deformed versions of a single image". Ours: one template for each class of
    the set, the CIFAR10 grid of 3 × 3 control points, standardisation by the moments of the set that the templates come
    from, the sizes.
    """
    if not isinstance(images, ImageSet):
        checks.fail("images", "be an `ImageSet`", f"{type(images).__name__} was given", error=TypeError)
    checks.key(key, remedy="One key makes one task.")
    for name, count in (("train_images", train_images), ("test_images", test_images)):
        checks.integer(name, count, minimum=images.num_classes)
        checks.entries(name, count, *images.train_images.shape[1:])
    choice_key, test_key = jax.random.split(key)
    templates = choose_templates(choice_key, images.train_images, images.train_labels, images.num_classes)
    # By the whole set's moments: the same numbers for every choice of templates, and so one compiled step for all.
    prepare = DeformedTemplates(Prepare.from_images(images.train_images), strength, grid)
    cycle = functools.partial(_cycle, classes=images.num_classes)
    test_labels = cycle(test_images)
    return (
        dataclasses.replace(
            images,
            name=f"{images.name}, templates deformed by up to {prepare.strength:g} px",
            train_images=templates[cycle(train_images)],
            train_labels=cycle(train_images),
            test_images=prepare.deform(jax.random.split(test_key, test_images), templates[test_labels]),
            test_labels=test_labels,
        ),
        prepare,
    )


def _cycle(count: int, classes: int) -> np.ndarray:
    return (np.arange(count) % classes).astype(np.int32)
