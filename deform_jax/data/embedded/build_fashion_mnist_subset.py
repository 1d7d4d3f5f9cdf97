"""Build the embedded subset of Fashion-MNIST from the full set's four idx archives.

The rule: of each split, the first images of each class in the official order (1,000 per class of the training split,
200 of the test split), kept in that order. No random numbers, so that no library version can change the choice.

Run from the repository root, with the folder that holds the archives (Debian's package ``dataset-fashion-mnist``
puts them under ``/usr/share/datasets/fashion-mnist``)::

    python -m deform_jax.data.embedded.build_fashion_mnist_subset --source FOLDER
"""

import argparse
import pathlib

import numpy as np

from deform_jax.data import sources
from deform_jax.data.archives import digest

PER_CLASS = {"train": 1000, "test": 200}


def select(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the ascending indices of the first ``per_class`` labels of each class."""
    chosen = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def build(source: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the subset's four uint8 arrays: images ``(n, 28, 28)`` and labels ``(n,)`` of both splits.

    Raises:
      ValueError: an archive in ``source`` is missing or is not the official one.
    """
    full = sources.read("fashion_mnist", folder=source, download=False)
    subset = {}
    for split, per_class in PER_CLASS.items():
        images, labels = full[f"{split}_images"], full[f"{split}_labels"]
        index = select(labels, per_class)
        subset[f"{split}_images"] = np.ascontiguousarray(images[index, :, :, 0])
        subset[f"{split}_labels"] = labels[index].astype(np.uint8)
    return subset


def write(subset: dict[str, np.ndarray], target: pathlib.Path) -> None:
    """Write ``fashion_mnist_subset.npz`` and, beside it, the sha256 of the file and of every array's bytes.

    The arrays' hashes are what a rebuild must reproduce; the file's also depends on the version of zlib.
    """
    np.savez_compressed(target / sources.EMBEDDED, **subset)  # pyright: ignore[reportArgumentType]
    contents = {sources.EMBEDDED: (target / sources.EMBEDDED).read_bytes()}
    contents |= {name: value.tobytes() for name, value in subset.items()}
    lines = [f"{digest(content)}  {name}\n" for name, content in contents.items()]
    (target / sources.EMBEDDED_HASHES).write_text("".join(lines), encoding="ascii")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, then build and write the subset."""
    parser = argparse.ArgumentParser(description="Build the embedded Fashion-MNIST subset.")
    parser.add_argument("--source", type=pathlib.Path, required=True, help="folder with the four idx .gz archives")
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="folder to write to")
    options = parser.parse_args(arguments)
    subset = build(options.source)
    write(subset, options.target)
    for name, value in subset.items():
        print(f"{name}: {value.shape} {value.dtype}")


if __name__ == "__main__":
    main()
