"""TFDS sets prepared here as array_record, without TensorFlow, from PNG bytes, and read back through ``load``."""

import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tfds_toys import examples, prepare

from deform_jax import data


def as_set(images, labels):
    return sorted((np.asarray(image).tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("test_split", ["test", "validation"])
@pytest.mark.parametrize("supervised_keys", [None, ("image", "label")])
def test_a_prepared_set_is_read_without_tensorflow(tmp_path, test_split, supervised_keys):
    splits = {"train": examples(0, 7), test_split: examples(1, 4)}
    prepare(tmp_path, "tiny_set", splits, supervised_keys=supervised_keys)
    image_set = data.load("tfds:tiny_set", folder=tmp_path)
    assert "tensorflow" not in sys.modules
    assert (image_set.name, image_set.num_classes) == ("tfds:tiny_set", 3)
    for part, split in (("train", "train"), ("test", test_split)):
        images, labels = (getattr(image_set, f"{part}_{kind}") for kind in ("images", "labels"))
        assert images.shape == (len(splits[split]), 32, 32, 3)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        # TFDS shuffles examples when it prepares a set, so they are compared regardless of their order.
        inner = images[:, 12:20, 11:21]
        assert as_set(inner, labels) == as_set(*zip(*splits[split], strict=True))
        assert inner.sum(dtype=np.int64) == images.sum(dtype=np.int64)


def test_a_test_split_wins_over_a_validation_split(tmp_path):
    prepare(tmp_path, "tiny_three", {"train": examples(0, 3), "validation": examples(1, 5), "test": examples(2, 4)})
    assert len(data.load("tfds:tiny_three", folder=tmp_path).test_images) == 4


def test_grey_images_and_versions(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (3, 32, 32), np.uint8)
    splits = {split: [(image, index) for index, image in enumerate(pixels)] for split in ("train", "test")}
    prepare(tmp_path, "tiny_grey", splits, image=tfds.features.Image(shape=(32, 32, 1)))
    image_set = data.load("tfds:tiny_grey:1.0.0", folder=tmp_path)
    np.testing.assert_array_equal(image_set.train_images[np.argsort(image_set.train_labels)][..., 0], pixels)


def test_images_of_different_sizes_are_refused(tmp_path):
    prepare(tmp_path, "tiny_mixed", {"train": examples(0, 3) + examples(0, 1, (9, 10, 3)), "test": examples(1, 2)})
    with pytest.raises(ValueError, match=r"`name` must be a set of images of one size.*both occur in split 'train'"):
        data.load("tfds:tiny_mixed", folder=tmp_path)
    prepare(tmp_path, "tiny_two", {"train": examples(0, 3), "test": examples(1, 2, (9, 10, 3))})
    with pytest.raises(ValueError, match=r"one size, but .* has \(8, 10, 3\) to train, \(9, 10, 3\) to test"):
        data.load("tfds:tiny_two", folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "splits", "features", "match"),
    [
        ("tiny_no_test", {"train": [0]}, {}, r"images in 'train' and in 'test' or 'validation'.* has train"),
        ("tiny_no_train", {"test": [0]}, {}, r"images in 'train' and in 'test' or 'validation'.* has test"),
        ("tiny_hidden", {"train": [0], "test": [-1]}, {}, r"a labelled set.*split 'test'"),
        ("tiny_scalar", {"train": [0], "test": [1]}, {"label": tfds.features.Scalar(np.int64)}, r"one class label"),
        (
            "tiny_deep",
            {"train": [0], "test": [1]},
            {"image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint16)},
            r"uint8 images.*uint16",
        ),
    ],
)
def test_unusable_sets_are_refused(tmp_path, name, splits, features, match):
    image = np.zeros((8, 8, 3), np.uint8)
    prepare(
        tmp_path, name, {split: [(image, label) for label in labels] for split, labels in splits.items()}, **features
    )
    with pytest.raises(ValueError, match=rf"`name` must.*{match}"):
        data.load(f"tfds:{name}", folder=tmp_path)


def test_a_set_in_another_format_must_be_prepared_again(tmp_path):
    prepare(tmp_path, "tiny_records", {"train": examples(0, 2), "test": examples(1, 2)})
    path = tmp_path / "tiny_records" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"prepared as array_record.*in another format.*pip install"):
        data.load("tfds:tiny_records", folder=tmp_path)


def test_a_set_that_is_not_prepared_gives_the_line_to_run(tmp_path):
    with pytest.raises(ValueError, match=r"prepared as array_record") as caught:
        data.load("tfds:cifar10_corrupted/fog_1", folder=tmp_path)
    call = f"tfds.builder('cifar10_corrupted/fog_1', data_dir='{tmp_path}', file_format='array_record')"
    assert "pip install 'deform_jax[prepare]'" in str(caught.value)
    assert f'python -c "import tensorflow_datasets as tfds; {call}.download_and_prepare()"' in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # nothing was downloaded
    # The line is Python, and builds the very set asked for.
    builder = eval(call, {"tfds": tfds})
    assert (builder.name, builder.builder_config.name) == ("cifar10_corrupted", "fog_1")


@pytest.mark.parametrize("name", ["no_such_set", "cifar10:9.9.9", "cifar10_corrupted/none", "", "not a name"])
def test_unknown_names_are_refused(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"`name` must be 'tfds:' and the name of a TFDS set, but TFDS refuses"
    ) as caught:
        data.load(f"tfds:{name}", folder=tmp_path)
    assert len(str(caught.value)) < 500  # not TFDS's own list of every set


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must be an existing folder"):
        data.load("tfds:cifar10", folder=tmp_path / "nowhere")


def test_a_missing_tfds_gives_the_line_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"needs tensorflow_datasets.*pip install 'deform_jax\[data\]'"):
        data.load("tfds:cifar10")
