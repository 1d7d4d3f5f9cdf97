"""A part of the training set, held out to choose among networks."""

import dataclasses

import jax
import numpy as np

from deform_jax import checks
from deform_jax.data.images import ImageSet
from deform_jax.typing import RandomKey


def validation_split(key: RandomKey, image_set: ImageSet, count: int) -> tuple[ImageSet, dict[str, np.ndarray]]:
    """Return the set without ``count`` of its training images, and those as ``{"images": …, "labels": …}``.

    ``training.fit(…, train, evaluation=validation)`` takes the second as it is, and keeps the state that does best on
    it; the test images stay in the first, unseen.

    Args:
      key: a random key; the same key gives the same split.
      image_set: from :func:`load`.
      count: number of images held out, at least 1 and fewer than there are. Each class gives its share, to the next
        whole image: a balanced set is split into two balanced ones. Both parts keep the set's order.

    Raises:
      TypeError, ValueError: not an ``ImageSet``, or ``count`` out of its range.

    SI appendix B.1 selects networks by the "best validation error" without saying of which images; held-out training
    images, chosen at random by class, are our reading.
    """
    if not isinstance(image_set, ImageSet):
        checks.fail("image_set", "be an `ImageSet`", f"{type(image_set).__name__} was given", error=TypeError)
    checks.key(key, remedy="One key makes one split.")
    labels = np.asarray(image_set.train_labels)
    count = checks.integer("count", count, minimum=1, maximum=len(labels) - 1)
    held = np.zeros(len(labels), bool)
    order = np.asarray(jax.random.permutation(key, len(labels)))
    for label, share in zip(*_shares(labels, count), strict=True):
        held[order[labels[order] == label][:share]] = True
    images = np.asarray(image_set.train_images)
    parts = [{"images": images[chosen], "labels": labels[chosen]} for chosen in (~held, held)]
    for array in (array for part in parts for array in part.values()):
        array.flags.writeable = False  # device_put may alias it on the CPU
    rest, validation = parts
    return dataclasses.replace(image_set, train_images=rest["images"], train_labels=rest["labels"]), validation


def _shares(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes and how many images each gives: its proportion, the largest remainders rounded up."""
    classes, sizes = np.unique(labels, return_counts=True)
    shares, remainders = np.divmod(sizes.astype(np.int64) * count, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1
    return classes, shares
