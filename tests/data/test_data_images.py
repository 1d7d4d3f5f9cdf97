"""``load``, ``ImageSet``, the embedded subset and the script that builds it."""

import dataclasses
import gzip
import hashlib
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deform_jax import data
from deform_jax.data import archives, sources
from deform_jax.data.embedded import build_fashion_mnist_subset as script

DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
EMBEDDED = pathlib.Path(data.__file__).parent / "embedded"
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def test_the_embedded_subset_is_balanced_and_matches_its_hashes():
    lines = (EMBEDDED / "fashion_mnist_subset.sha256").read_text().splitlines()
    recorded = dict(reversed(line.split()) for line in lines)
    assert hashlib.sha256((EMBEDDED / "fashion_mnist_subset.npz").read_bytes()).hexdigest() == recorded.pop(
        "fashion_mnist_subset.npz"
    )
    image_set = data.load("fashion_mnist_subset", size=28)
    for name, sha256 in recorded.items():
        stored = np.asarray(getattr(image_set, name)).astype(np.uint8)
        assert hashlib.sha256(stored.tobytes()).hexdigest() == sha256
    assert len(recorded) == 4
    assert image_set.num_classes == 10
    np.testing.assert_array_equal(np.bincount(image_set.train_labels), [1000] * 10)
    np.testing.assert_array_equal(np.bincount(image_set.test_labels), [200] * 10)
    assert image_set.train_labels.dtype == image_set.test_labels.dtype == np.int32
    assert image_set.train_images.shape == (10000, 28, 28, 1)
    assert image_set.test_images.shape == (2000, 28, 28, 1)
    # Real images, all different, none in both splits: a shift or a repeat in the reading would show.
    everything = np.concatenate([image_set.train_images, image_set.test_images]).reshape(12000, -1)
    assert len(np.unique(everything, axis=0)) == 12000


def test_the_embedded_subset_ships_with_its_licence():
    text = (EMBEDDED / "LICENSE.fashion_mnist.txt").read_text()
    assert "MIT" in text
    assert "Copyright (c) 2017 Zalando SE" in text


def test_a_damaged_embedded_file_is_refused(tmp_path):
    for name in ("fashion_mnist_subset.npz", "fashion_mnist_subset.sha256"):
        (tmp_path / name).write_bytes((EMBEDDED / name).read_bytes())
    content = bytearray((tmp_path / "fashion_mnist_subset.npz").read_bytes())
    content[123456] ^= 1
    (tmp_path / "fashion_mnist_subset.npz").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        sources.embedded(tmp_path)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the full Fashion-MNIST of Debian's dataset-fashion-mnist")
def test_rebuilding_from_the_full_set_gives_the_embedded_arrays():
    recorded = sources.read_hashes(EMBEDDED)
    with np.load(EMBEDDED / "fashion_mnist_subset.npz") as shipped:
        rebuilt = script.build(DEBIAN)
        assert list(rebuilt) == shipped.files
        for name, values in rebuilt.items():
            assert values.dtype == shipped[name].dtype == np.uint8
            np.testing.assert_array_equal(values, shipped[name])
            assert hashlib.sha256(values.tobytes()).hexdigest() == recorded[name]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the full Fashion-MNIST of Debian's dataset-fashion-mnist")
def test_the_full_set_reads_as_numpy_reads_it():
    image_set = data.load("fashion_mnist", folder=DEBIAN)
    for split, (images, labels) in {"train": FILES[:2], "test": FILES[2:]}.items():
        raw = gzip.decompress((DEBIAN / f"{images}.gz").read_bytes())
        pixels = np.frombuffer(raw[16:], np.uint8).reshape(-1, 28, 28)  # 4 + 3 × 4 header bytes
        padded = np.zeros((len(pixels), 32, 32, 1), np.uint8)
        padded[:, 2:30, 2:30, 0] = pixels
        np.testing.assert_array_equal(getattr(image_set, f"{split}_images"), padded)
        raw = gzip.decompress((DEBIAN / f"{labels}.gz").read_bytes())
        np.testing.assert_array_equal(getattr(image_set, f"{split}_labels"), list(raw[8:]))


def test_the_script_takes_the_first_images_of_each_class_in_order(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    full = {}
    for split, n in (("train", 60), ("test", 40)):
        full[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28, 1), np.uint8)
        full[f"{split}_labels"] = rng.permutation(np.arange(n) % 10).astype(np.uint8)
    monkeypatch.setattr(sources, "read", lambda *_, **__: full)
    monkeypatch.setattr(script, "PER_CLASS", {"train": 4, "test": 2})
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        script.main(["--source", str(tmp_path), "--target", str(folder)])
        written.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert written[0] == written[1]
    built = np.load(tmp_path / "first" / "fashion_mnist_subset.npz")
    for split, per_class in (("train", 4), ("test", 2)):
        taken, images, labels = dict.fromkeys(range(10), 0), [], []
        for image, label in zip(full[f"{split}_images"], full[f"{split}_labels"], strict=True):
            if taken[int(label)] < per_class:
                taken[int(label)] += 1
                images.append(image[..., 0])
                labels.append(label)
        np.testing.assert_array_equal(built[f"{split}_images"], images)
        np.testing.assert_array_equal(built[f"{split}_labels"], labels)


def test_the_script_refuses_a_folder_without_the_archives(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must hold train-images-idx3-ubyte.gz"):
        script.main(["--source", str(tmp_path), "--target", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "before", "after"), [(None, 2, 2), (28, 0, 0), (32, 2, 2), (33, 2, 3)])
def test_padding_is_black_and_even(size, before, after):
    padded = data.load("fashion_mnist_subset", size=size).test_images
    plain = data.load("fashion_mnist_subset", size=28).test_images
    assert padded.shape == (2000, 28 + before + after, 28 + before + after, 1)
    np.testing.assert_array_equal(padded[:, before : before + 28, before : before + 28], plain)
    assert padded.sum(dtype=np.int64) == plain.sum(dtype=np.int64)


def test_large_images_keep_their_size_by_default(monkeypatch):
    stored = {f"{split}_images": np.ones((2, 40, 28, 3), np.uint8) for split in ("train", "test")}
    stored |= {f"{split}_labels": np.zeros(2, np.uint8) for split in ("train", "test")}
    monkeypatch.setattr(sources, "embedded", lambda: dict(stored))
    assert data.load("fashion_mnist_subset").train_images.shape == (2, 40, 32, 3)


def test_the_arrays_are_read_only():
    image_set = data.load("fashion_mnist_subset")
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(image_set, name)[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        image_set.name = "other"


def test_a_set_goes_to_the_devices_whole_as_uint8():
    image_set = data.load("fashion_mnist_subset")
    mesh = Mesh(np.array(jax.devices()), ("data",))
    placed = jax.device_put(image_set, NamedSharding(mesh, PartitionSpec()))
    assert (placed.name, placed.num_classes) == (image_set.name, image_set.num_classes)
    assert isinstance(placed.train_images, jax.Array)
    assert placed.train_images.dtype == np.uint8
    assert placed.train_images.sharding.device_set == set(jax.devices())
    sums = jax.jit(lambda s: (s.test_images.astype(np.int32).sum(), s.test_labels.sum()))(placed)
    assert tuple(map(int, sums)) == (image_set.test_images.sum(dtype=np.int64), image_set.test_labels.sum())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: data.load("fashion"), ValueError, r"`name` must be one of 'fashion_mnist_subset', .*'tfds:NAME'"),
        (lambda: data.load(3), TypeError, r"`name` must be one of .* 3 was given"),
        (lambda: data.load("mnist", folder="/no/such/folder"), ValueError, r"`folder` must be an existing folder"),
        (lambda: data.load("fashion_mnist_subset", size=27), ValueError, r"`size` must be at least .* 28 × 28"),
        (lambda: data.load("fashion_mnist_subset", size=0), ValueError, r"`size` must be an integer ≥ 1"),
        (lambda: data.load("fashion_mnist_subset", size=32.0), TypeError, r"`size` must be an integer"),
    ],
)
def test_bad_arguments(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_content_hashes_are_known_for_fashion_mnist_only():
    """Debian repackages only that set; the others are known by their archives' own bytes."""
    for name, source in sources.SOURCES.items():
        assert all((archive.content is not None) == (name == "fashion_mnist") for archive in source.archives)
        assert all(isinstance(archive, archives.Archive) for archive in source.archives)
