"""The data sets read here without TensorFlow: the embedded subset, and the tables and formats of official archives.

Addresses and sha256 are those that tensorflow_datasets 4.9.10 records under ``url_checksums``. The CIFAR archives are
the binary versions: reading them runs no code from the file, as unpickling the Python versions would.
"""

import dataclasses
import functools
import gzip
import io
import math
import os
import pathlib
import tarfile
from collections.abc import Callable

import numpy as np

from deform_jax.data.archives import Archive, digest, fetch

EMBEDDED = "fashion_mnist_subset.npz"
EMBEDDED_HASHES = "fashion_mnist_subset.sha256"

Arrays = dict[str, np.ndarray]
"""``train_images``, ``train_labels``, ``test_images``, ``test_labels``: uint8 (n, h, w, c) and uint8 (n,)."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: its archives and the function that parses their bytes."""

    archives: tuple[Archive, ...]
    parse: Callable[[list[bytes]], Arrays]
    num_classes: int


def read(name: str, *, folder: str | os.PathLike | None = None, download: bool = True) -> Arrays:
    """Return the arrays of one of ``SOURCES``; arguments and errors as for :func:`archives.fetch`."""
    source = SOURCES[name]
    return source.parse([fetch(archive, name, folder=folder, download=download) for archive in source.archives])


def embedded(folder: pathlib.Path = pathlib.Path(__file__).parent / "embedded") -> Arrays:
    """Return the arrays of the embedded Fashion-MNIST subset, after checking its file's sha256.

    Raises:
      ValueError: the file is damaged.
    """
    content = (folder / EMBEDDED).read_bytes()
    if digest(content) != read_hashes(folder)[EMBEDDED]:
        raise ValueError(f"{folder / EMBEDDED} is damaged: its sha256 is not the recorded one. Reinstall deform_jax.")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name][..., None] if name.endswith("images") else stored[name] for name in stored.files}


def read_hashes(folder: pathlib.Path) -> dict[str, str]:
    """Return the sha256 recorded beside the embedded subset: of the file and of each array's bytes, by name."""
    pairs = [line.split() for line in (folder / EMBEDDED_HASHES).read_text("ascii").splitlines()]
    return {name: sha256 for sha256, name in pairs}


def read_idx(content: bytes) -> np.ndarray:
    """Return the array of a gzipped idx file of unsigned bytes.

    The format: two zero bytes, the type (8: unsigned byte), the rank, each axis's length as a big-endian 32-bit
    integer, then the values in C order.
    """
    raw = gzip.decompress(content)
    start = 4 + 4 * raw[3] if len(raw) >= 4 else 4
    shape = tuple(np.frombuffer(raw[4:start], ">u4").tolist()) if len(raw) >= start else ()
    if raw[:3] != b"\0\0\x08" or len(raw) < start or len(raw) != start + math.prod(shape):
        raise ValueError(f"Not an idx file of unsigned bytes: header {raw[:start].hex()}, {len(raw)} bytes.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _parse_idx(contents: list[bytes]) -> Arrays:
    train_images, train_labels, test_images, test_labels = map(read_idx, contents)
    return _arrays(train_images[..., None], train_labels, test_images[..., None], test_labels)


def _parse_cifar(contents: list[bytes], train: list[str], test: list[str], label_bytes: int) -> Arrays:
    with tarfile.open(fileobj=io.BytesIO(contents[0]), mode="r:gz") as tar:
        return _arrays(*_read_cifar(tar, train, label_bytes), *_read_cifar(tar, test, label_bytes))


def _arrays(*values: np.ndarray) -> Arrays:
    return dict(zip(("train_images", "train_labels", "test_images", "test_labels"), values, strict=True))


def _read_cifar(tar: tarfile.TarFile, members: list[str], label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read records of ``label_bytes`` labels (the class comes last), then 3 × 32 × 32 pixels, channel by channel."""
    records = []
    for member in members:
        stream = tar.extractfile(member)  # read in memory: nothing from the archive is written to disk
        assert stream is not None
        records.append(np.frombuffer(stream.read(), np.uint8).reshape(-1, label_bytes + 3072))
    stacked = np.concatenate(records)
    images = stacked[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), stacked[:, label_bytes - 1].copy()


def _idx_archives(base: str, hashes: dict[str, tuple[str, str | None]]) -> tuple[Archive, ...]:
    return tuple(Archive(f"{base}{file}-ubyte.gz", *sha256) for file, sha256 in hashes.items())


SOURCES = {
    "fashion_mnist": Source(
        _idx_archives(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            {
                "train-images-idx3": (
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                "train-labels-idx1": (
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                "t10k-images-idx3": (
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                "t10k-labels-idx1": (
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            },
        ),
        _parse_idx,
        10,
    ),
    "mnist": Source(
        _idx_archives(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            {
                "train-images-idx3": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", None),
                "train-labels-idx1": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", None),
                "t10k-images-idx3": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", None),
                "t10k-labels-idx1": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", None),
            },
        ),
        _parse_idx,
        10,
    ),
    "cifar10": Source(
        (
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        functools.partial(
            _parse_cifar,
            train=[f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)],
            test=["cifar-10-batches-bin/test_batch.bin"],
            label_bytes=1,
        ),
        10,
    ),
    "cifar100": Source(
        (
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        functools.partial(
            _parse_cifar,
            train=["cifar-100-binary/train.bin"],
            test=["cifar-100-binary/test.bin"],
            label_bytes=2,  # coarse, then fine
        ),
        100,
    ),
}
