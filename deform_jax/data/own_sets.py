"""A user's own labelled images as the arrays of an image set: folders of image files by class, or an ``.npz`` file."""

import io
import os
import pathlib
import zipfile

import numpy as np

from deform_jax import checks
from deform_jax.data.archives import existing
from deform_jax.data.photographs import decode, image_files
from deform_jax.data.sources import Arrays

HELD_OUT = 5
"""Where there are no test images, every fifth of each class becomes one."""
NAMES = ("train_images", "train_labels", "test_images", "test_labels")
_LISTED = 5


def read_folder(text: str, *, folder: str | os.PathLike | None = None, size: int | None = None) -> tuple[Arrays, int]:
    """Return the arrays of ``TEXT/CLASS/file`` or of ``TEXT/train/CLASS/file`` with ``TEXT/test/CLASS/file``.

    Args:
      text: path of the folder, relative to ``folder`` if that is given.
      folder: see there.
      size: pixels per side, 32 by default: the largest central square of every image, resized.

    Raises:
      ValueError: no such folder, no classes in it, others in ``test`` than in ``train``, or files that cannot be read
        (all are named).
    """
    place, size = existing(_within(text, folder)), 32 if size is None else size
    if (place / "train").is_dir() and (place / "test").is_dir():
        parts = {part: _classes(place / part) for part in ("train", "test")}
        if list(parts["train"]) != list(parts["test"]):
            differ = ", ".join(sorted(set(parts["train"]) ^ set(parts["test"])))
            given = f"{differ} are in one of {place / 'train'} and {place / 'test'} only"
            checks.fail("name", "be of a folder with the same classes to train and to test", given)
        arrays: Arrays = {}
        for part, classes in parts.items():
            arrays |= dict(zip((f"{part}_images", f"{part}_labels"), _images(classes, size), strict=True))
        return arrays, len(parts["train"])
    classes = _classes(place)
    return _split(*_images(classes, size)), len(classes)


def read_npz(text: str, *, folder: str | os.PathLike | None = None) -> tuple[Arrays, int]:
    """Return the arrays of an ``.npz`` file: ``NAMES``, or ``images`` and ``labels`` alone. Nothing in it is run.

    Args:
      text: path of the file, relative to ``folder`` if that is given.
      folder: see there.

    Raises:
      ValueError: no such file, no ``.npz`` file, or one without these arrays of uint8 images and whole-number labels.
    """
    path = _within(text, folder)
    if not path.is_file():
        checks.fail("name", "be 'npz:' and the path of a file", f"there is no file {str(path)!r}")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            found = {name: stored[name] for name in (*NAMES, "images", "labels") if name in stored.files}
            listed = ", ".join(stored.files)
    except (AttributeError, EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        # An array alone (.npy), or a damaged file, or objects, which only pickle could read.
        remedy = "Write it with `np.savez(path, train_images=…, …)`."
        checks.fail("name", "be of an .npz file of arrays", f"{str(path)!r} is none ({error})", remedy)
    wanted = ("images", "labels") if not set(NAMES) <= set(found) else NAMES
    if not set(wanted) <= set(found):
        remedy = f"It must have {', '.join(NAMES)}; or images and labels, of which a fifth become test images."
        checks.fail("name", "be of an .npz file of labelled images", f"{str(path)!r} has {listed or 'none'}", remedy)
    arrays = {
        name: (_checked_images if name.endswith("images") else _checked_labels)(f"{path}: {name}", found[name])
        for name in wanted
    }
    for part in ("train_", "test_") if wanted == NAMES else ("",):
        images, labels = len(arrays[f"{part}images"]), len(arrays[f"{part}labels"])
        if images != labels:
            checks.fail("name", "be of a file with one label per image", f"{path} has {images} and {labels} ({part})")
    if wanted != NAMES:
        arrays = _split(arrays["images"], arrays["labels"])
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        given = " and ".join(str(arrays[f"{part}_images"].shape[1:]) for part in ("train", "test"))
        checks.fail("name", "be of a file with images of one size", f"{path} has {given}")
    return arrays, 1 + int(max(arrays[f"{part}_labels"].max() for part in ("train", "test")))


def _within(text: str, folder: str | os.PathLike | None) -> pathlib.Path:
    path = checks.path("name", text)
    return path if folder is None else existing(folder) / path


def _classes(place: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Return {class: its image files}, in the order of names, by which classes are numbered."""
    subfolders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes = {path.name: image_files(path) for path in subfolders}
    empty = [name for name, files in classes.items() if not files]
    if len(classes) < 2 or empty:
        given = f"{', '.join(empty)} hold none" if empty else f"{place} has {len(classes)} subfolders"
        checks.fail("name", "be of a folder with one subfolder of image files per class, two or more", given)
    return classes


def _images(classes: dict[str, list[pathlib.Path]], size: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in classes.values()])
    checks.entries("size", len(labels), size, size, 3)
    images = np.empty((len(labels), size, size, 3), np.uint8)
    refused: list[str] = []
    for index, path in enumerate(path for files in classes.values() for path in files):
        try:
            images[index] = decode(path, size)
        except ValueError:
            refused.append(str(path))
    if refused:
        more = f" and {len(refused) - _LISTED} more" if len(refused) > _LISTED else ""
        given = f"{', '.join(refused[:_LISTED])}{more} cannot be read"
        checks.fail("name", "be of a folder of image files", given, "Repair, convert or remove them.")
    return images, labels


def _split(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Let every fifth image of each class, in order, be a test image."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
    if not held.any():
        given = f"no class has as many as {HELD_OUT}, of which one could be held out to test on"
        checks.fail("name", "hold more images", given, "Add images, or give training and test images apart.")
    return dict(zip(NAMES, (images[~held], labels[~held], images[held], labels[held]), strict=True))


def _checked_images(name: str, images: np.ndarray) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    remedy = "Images of floats in [0, 1] become it by `(255 * images).round().astype('uint8')`."
    if images.ndim != 4 or 0 in images.shape or images.dtype != np.uint8:
        given = f"their shape is {images.shape}, and {images.dtype} their dtype"
        checks.fail(name, "be (n, h, w, c) or (n, h, w) uint8", given, remedy)
    return images


def _checked_labels(name: str, labels: np.ndarray) -> np.ndarray:
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        given = f"their shape is {labels.shape}, and {labels.dtype} their dtype"
        checks.fail(name, "be (n,) integers, 0 or more", given, "Number the classes from 0.")
    if labels.max() > checks.LONGEST:
        checks.fail(name, "be numbers of classes", f"{labels.max()} is one of them", "Number the classes from 0.")
    return labels.astype(np.int32)
