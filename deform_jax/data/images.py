"""Image-classification sets as uint8 arrays: embedded, downloaded, placed by hand, prepared by TFDS, or one's own."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int32, UInt8

from deform_jax import checks
from deform_jax.data import own_sets, sources

_TFDS, _FOLDER, _NPZ = "tfds:", "folder:", "npz:"
_SUBSET = "fashion_mnist_subset"


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("train_images", "train_labels", "test_images", "test_labels"),
    meta_fields=("name", "num_classes"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Training and test images with their labels.

    :func:`load` returns numpy arrays in host memory. The set is a pytree: ``jax.device_put(image_set)``, with a
    sharding if wished, puts all four arrays on the devices as they are, uint8, a quarter of what floats would take;
    :class:`Prepare` crops, flips and standardises there.

    Attributes:
      name: what it was loaded by.
      train_images: (n, h, w, c) uint8, 0 to 255.
      train_labels: (n,) int32, 0 to ``num_classes`` − 1.
      test_images: (m, h, w, c), likewise.
      test_labels: (m,), likewise.
      num_classes: number of classes.
    """

    name: str
    train_images: UInt8[Array | np.ndarray, "n h w c"]
    train_labels: Int32[Array | np.ndarray, " n"]
    test_images: UInt8[Array | np.ndarray, "m h w c"]
    test_labels: Int32[Array | np.ndarray, " m"]
    num_classes: int


def load(name: str, *, folder: str | os.PathLike | None = None, size: int | None = None) -> ImageSet:
    """Return an image set as read-only uint8 arrays.

    Args:
      name: one of

        - ``"fashion_mnist_subset"``: 10,000 training and 2,000 test images, balanced, shipped with the library;
        - ``"fashion_mnist"``, ``"mnist"``, ``"cifar10"``, ``"cifar100"`` (fine labels): the full sets, from archives
          placed in ``folder`` by hand or downloaded into it, with progress, and checked by their sha256;
        - ``"tfds:NAME"``: any TFDS image-classification set that has been prepared as array_record, read without
          TensorFlow: its splits ``train`` and ``test`` (``validation`` where there is no ``test``);
        - ``"folder:PATH"``: your image files, ``PATH/train/CLASS/…`` and ``PATH/test/CLASS/…``, or ``PATH/CLASS/…``, of
          which every fifth of each class is then a test image. Classes are numbered in the order of their names, and
          files read as by :func:`read_photograph`: the largest central square, RGB, resized to ``size``;
        - ``"npz:PATH"``: your arrays, ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or
          ``images`` and ``labels``, split likewise: (n, h, w, c) or (n, h, w) uint8, and integers from 0.

      folder: where the archives are: an archive is looked for in ``folder/NAME`` and then in ``folder``, and downloaded
        into ``folder/NAME``. Default: ``$DEFORM_JAX_DATA`` if set, else the user's cache folder. For ``"tfds:…"``, the
        TFDS ``data_dir``, by default TFDS's own. For your own sets, what PATH is relative to, by default the working
        folder. The embedded subset does not use it.
      size: pixels per side; smaller images are zero-padded evenly on all sides. Default: 32 for images below that
        (28 × 28 becomes 32 × 32, as both papers' networks expect), else as stored. Image files are resized, to 32 by
        default.

    Raises:
      TypeError, ValueError: an unknown name, a missing folder, a file that is not the official archive, a TFDS set that
        is unknown, not prepared or not of equal-sized uint8 images, image files that cannot be read (all are named),
        or ``size`` below the images' own.
      ConnectionError: the download failed; the message says which file to place where.
      ImportError: pooch, tqdm or tensorflow_datasets is needed and missing; the message has the line to run.
    """
    if size is not None:
        checks.integer("size", size, minimum=1, maximum=checks.LONGEST)
    arrays, num_classes = _read(name, folder, size)
    finished = {}
    for key, value in arrays.items():
        if key.endswith("images"):
            value = pad_images(value, [max(length, 32) for length in value.shape[1:3]] if size is None else size)
        else:
            value = value.astype(np.int32)
        value.flags.writeable = False  # device_put may alias it on the CPU
        finished[key] = value
    return ImageSet(name=name, num_classes=num_classes, **finished)


def pad_images(images: Any, size: int | Sequence[int]) -> np.ndarray:
    """Return stored images in the middle of black ones: 28 × 28 pixels become 32 × 32 with 2 black ones on each side.

    Args:
      images: (n, h, w, c) uint8 or int16, as stored; black is 0 there, and no longer after standardisation.
      size: pixels per side, or (height, width); an odd one more goes to the bottom and the right.

    Raises:
      TypeError, ValueError: ``images`` are not (n, h, w, c) uint8 or int16, or larger than ``size``.

    Both papers' CIFAR10 networks halve images five times at most, and so need 32 pixels a side.
    """
    images = np.asarray(checks.array("images", images, "n h w c", kind="real", nonempty=False, wide=True))
    if images.dtype not in (np.uint8, np.int16):
        remedy = "Pad the stored images; `Prepare` standardises them afterwards."
        checks.fail("images", "be uint8 or int16", f"the dtype is {images.dtype}", remedy, error=TypeError)
    wanted = checks.size_pair("size", (size, size) if isinstance(size, int | np.integer) else size)
    if wanted[0] < images.shape[1] or wanted[1] < images.shape[2]:
        shape = " × ".join(str(s) for s in images.shape[1:3])
        checks.fail("size", "be at least the images' own", f"{size} was given for {shape} images")
    checks.entries("size", len(images), *wanted, images.shape[-1])
    margins = [((w - own) // 2, (w - own + 1) // 2) for w, own in zip(wanted, images.shape[1:3], strict=True)]
    return np.pad(images, ((0, 0), *margins, (0, 0)))


def _read(name: str, folder: str | os.PathLike | None, size: int | None) -> tuple[sources.Arrays, int]:
    if isinstance(name, str) and name == _SUBSET:
        return sources.embedded(), 10
    if isinstance(name, str) and name in sources.SOURCES:
        return sources.read(name, folder=folder), sources.SOURCES[name].num_classes
    if isinstance(name, str) and name.startswith(_TFDS):
        from deform_jax.data import tfds_sets

        return tfds_sets.read(name.removeprefix(_TFDS), folder=folder)
    if isinstance(name, str) and name.startswith(_FOLDER):
        return own_sets.read_folder(name.removeprefix(_FOLDER), folder=folder, size=size)
    if isinstance(name, str) and name.startswith(_NPZ):
        return own_sets.read_npz(name.removeprefix(_NPZ), folder=folder)
    known = ", ".join(repr(n) for n in (_SUBSET, *sources.SOURCES))
    error = ValueError if isinstance(name, str) else TypeError
    remedy = "TFDS's other image-classification sets are read as 'tfds:NAME', once prepared, your own as 'folder:PATH'."
    checks.fail(
        "name",
        f"be one of {known}, 'tfds:NAME', 'folder:PATH' or 'npz:PATH'",
        f"{name!r} was given",
        remedy,
        error=error,
    )
