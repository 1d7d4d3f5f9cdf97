"""Write a small set in ImageNet's form, from photographs that scikit-image ships: JPEGs of many sizes, array_record.

    python -m experiments.common.photograph_set FOLDER --images 1000

`data.stream("photographs", folder=FOLDER)` reads it. The class is the photograph that a crop is from; training crops
come from its left two thirds and validation crops from the right third, so that they share no pixel.
"""

import io
import pathlib
from collections.abc import Iterator

import numpy as np
import skimage
import tensorflow_datasets as tfds
import tyro
from PIL import Image

from deform_jax import checks
from experiments.common import cli

NAME = "photographs"
CLASSES = ("astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "motorcycle", "rocket")
"""In colour or, where the photograph is, in grey."""
REGIONS = {"train": (0, 2 / 3), "validation": (2 / 3, 1)}
"""The part of a photograph's width that each split's crops are from."""
SMALLEST = 0.5
"""Bounds of a crop's height and width, as a fraction of the region's: this to 1."""
QUALITY = 90


def photograph(name: str) -> np.ndarray:
    """Return one of ``CLASSES`` as (h, w, 3) or, if grey, (h, w) uint8."""
    return skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()


def crops(split: str, images: int, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield that many crops with their classes, which take turns."""
    rng = np.random.default_rng((seed, list(REGIONS).index(split)))
    photographs = [photograph(name) for name in CLASSES]
    for index in range(images):
        label = index % len(CLASSES)
        start, end = (round(edge * photographs[label].shape[1]) for edge in REGIONS[split])
        region = photographs[label][:, start:end]
        height, width = (round(length * rng.uniform(SMALLEST, 1)) for length in region.shape[:2])
        top, left = rng.integers(0, region.shape[0] - height + 1), rng.integers(0, region.shape[1] - width + 1)
        yield region[top : top + height, left : left + width], label


def jpeg(pixels: np.ndarray) -> io.BytesIO:
    """Return an image as a JPEG file; TFDS would encode an array with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=QUALITY)
    file.seek(0)
    return file


def write(folder: tyro.conf.Positional[pathlib.Path], /, images: int = 1000, *, seed: int = 0, files: int = 1) -> None:
    """Write the set, without TensorFlow.

    Args:
      folder: TFDS's data_dir; the set appears in its subfolder photographs.
      images: number of training images; a fifth as many, at least one per class, are for validation.
      seed: of the crops' places and sizes.
      files: over how many files each split is spread.
    """
    checks.integer("images", images, minimum=len(CLASSES))
    if (folder / NAME).exists():
        checks.fail("folder", f"hold no set named {NAME}", f"{folder} has one", "Remove it, or choose another folder.")
    counts = {"train": images, "validation": max(len(CLASSES), images // 5)}

    class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=CLASSES),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, count) for split, count in counts.items()}

        def _generate_examples(self, split, count):
            for index, (pixels, label) in enumerate(crops(split, count, seed)):
                yield index, {"image": jpeg(pixels), "label": label}

    # A module with dots would be looked up by importlib_resources, which TFDS does not require.
    Photographs.name = Photographs.__module__ = NAME
    config = tfds.download.DownloadConfig(try_download_gcs=False, num_shards=files)
    Photographs(data_dir=folder, file_format="array_record").download_and_prepare(download_config=config)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    tyro.cli(write, args=arguments, description=__doc__, prog="python -m experiments.common.photograph_set")


if __name__ == "__main__":
    main()
