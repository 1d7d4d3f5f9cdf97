"""TFDS image-classification sets read without TensorFlow, once they have been prepared as array_record."""

import os
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import numpy as np

from deform_jax import checks
from deform_jax.data.archives import existing, needed
from deform_jax.data.sources import Arrays


def read(name: str, *, folder: str | os.PathLike | None = None) -> tuple[Arrays, int]:
    """Return the arrays of a prepared TFDS set and its number of classes.

    Args:
      name: TFDS's name, ``"set"``, ``"set/config"`` or ``"set:version"``.
      folder: TFDS's ``data_dir``; default: TFDS's own (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).

    Raises:
      ValueError: the folder does not exist, or the set is unknown, not prepared, not one of labelled images, without a
        training or test split, or its images differ in size.
      ImportError: tensorflow_datasets is missing.
    """
    tfds = needed("tensorflow_datasets")
    folder = None if folder is None else existing(folder)
    builder = find(tfds, name, folder)
    image_key, label_key, num_classes = features(tfds, builder, name)
    splits = _splits(builder, name)
    try:
        # What tfds.data_source calls, with the builder at hand, which never downloads.
        sources = builder.as_data_source(list(splits.values()))
    except NotImplementedError:  # TFDS's own, for a file format without random access
        not_prepared(name, folder, f"it is stored under {builder.data_path} in another format")
    arrays = {}
    for (part, split), source in zip(splits.items(), sources, strict=True):
        images, labels = _stack(name, split, source, image_key, label_key)
        if labels.min() < 0 or labels.max() >= num_classes:
            checks.fail("name", "be a labelled set", f"split {split!r} of {name!r} has labels outside its classes")
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    shapes = [arrays[f"{part}_images"].shape[1:] for part in splits]
    if shapes[0] != shapes[1]:
        checks.fail("name", "be a set of images of one size", f"{name!r} has {shapes[0]} to train, {shapes[1]} to test")
    return arrays, num_classes


def find(tfds: Any, name: str, folder: str | os.PathLike | None, *, wanted: str = "'tfds:' and the name") -> Any:
    """Return the builder of a prepared set, or say how to prepare it."""
    try:
        builder = tfds.builder(name, data_dir=folder)
    except (ValueError, AssertionError) as error:  # unknown name or configuration; unknown version
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(" .:")
        remedy = "The sets are listed at https://www.tensorflow.org/datasets/catalog ."
        checks.fail("name", f"be {wanted} of a TFDS set", f"TFDS refuses {name!r}: {reason}", remedy)
    if not builder.is_prepared():
        not_prepared(name, folder, f"nothing is prepared under {builder.data_path}")
    return builder


def not_prepared(name: str, folder: str | os.PathLike | None, given: str) -> NoReturn:
    """Raise the error that gives the line to run."""
    place = "" if folder is None else f"data_dir={str(folder)!r}, "
    call = f"tfds.builder({name!r}, {place}file_format='array_record').download_and_prepare()"
    checks.fail(
        "name",
        f"be a TFDS set prepared as array_record, for {name!r} to be read without TensorFlow",
        given,
        "Prepare it once (this needs TensorFlow): pip install 'deform_jax[prepare]' && "
        f'python -c "import tensorflow_datasets as tfds; {call}"',
    )


def features(tfds: Any, builder: Any, name: str) -> tuple[str, str, int]:
    """Return the keys of the image and of its label, and the number of classes."""
    info = builder.info
    known: dict[Any, Any] = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    keys = info.supervised_keys
    image_key, label_key = keys if keys is not None and len(keys) == 2 else ("image", "label")
    image, label = (cast(Any, known.get(key)) for key in (image_key, label_key))
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        checks.fail("name", "be a set of images with one class label each", f"{name!r} holds {known}")
    if image.np_dtype != np.uint8 or not label.num_classes:
        given = f"{name!r} holds {np.dtype(image.np_dtype)} images of {label.num_classes or 'unnamed'} classes"
        checks.fail("name", "be a set of uint8 images with a known number of classes", given)
    return image_key, label_key, label.num_classes


def _splits(builder: Any, name: str) -> dict[str, str]:
    available = builder.info.splits
    test = "test" if "test" in available else "validation"
    for split in ("train", test):
        if split not in available or not available[split].num_examples:
            listed = ", ".join(available) or "none"
            checks.fail(
                "name", "be a set with images in 'train' and in 'test' or 'validation'", f"{name!r} has {listed}"
            )
    return {"train": "train", "test": test}


def _stack(name: str, split: str, source: Sequence, image_key: str, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    first = source[0][image_key]
    images = np.empty((len(source), *first.shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for index, example in enumerate(source):
        image = example[image_key]
        if image.shape != first.shape:
            sizes = f"{tuple(first.shape)} and {tuple(image.shape)} both occur in split {split!r} of {name!r}"
            checks.fail("name", "be a set of images of one size", sizes, "Such sets cannot be one array.")
        images[index], labels[index] = image, example[label_key]
    return images, labels
