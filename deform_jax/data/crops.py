"""From an encoded photograph to a square array on the host: a random crop and flip to train on, the centre to test on.

EXIF orientation is ignored, as is customary for ImageNet. Grey, palette and CMYK images become RGB, and transparency
is dropped.
"""

import io
import math

import numpy as np
from jaxtyping import UInt8

from deform_jax.data.archives import needed

AREA = (0.08, 1.0)
"""Bounds of a random crop's area, as a fraction of the photograph's."""
ASPECT = (3 / 4, 4 / 3)
"""Bounds of a random crop's width / height."""
ATTEMPTS = 10


def sample_box(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """Return a random crop (left, top, right, bottom) in whole pixels of an image of that size.

    Its area is uniform in ``AREA`` and its aspect log-uniform in ``ASPECT``; a draw that does not fit into the image is
    repeated, up to ``ATTEMPTS`` times, and then the largest central crop of a permitted aspect is taken (the whole
    image, where its own aspect is permitted). The customary training crop for ImageNet (Szegedy et al. 2015, arXiv
    1409.4842, section 6).
    """
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def random_resized_crop(encoded: bytes, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "size size 3"]:
    """Decode a random crop, resize it and mirror it left to right with probability ½.

    A crop at least twice as large as asked for is decoded at ½, ¼ or ⅛ of the resolution, at least ``size`` pixels a
    side: JPEG's own averages of 2 × 2, 4 × 4 or 8 × 8 pixels, and up to twice as fast.

    Args:
      encoded: a JPEG, PNG or other image file's bytes.
      size: pixels per side of the result; bilinear, with antialiasing.
      rng: draws the crop and the flip.

    Raises:
      OSError, SyntaxError, ValueError: as Pillow, for bytes that are no image or a truncated one.
    """
    pil = needed("PIL.Image")
    with pil.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        left, top, right, bottom = sample_box(rng, height, width)
        wanted = math.ceil(width * size / (right - left)), math.ceil(height * size / (bottom - top))
        drafted = image.draft(None, wanted)
        scale = 1 if drafted is None else width / drafted[1][2]
        box = tuple(edge / scale for edge in (left, top, right, bottom))
        crop = image.convert("RGB").resize((size, size), pil.Resampling.BILINEAR, box=box)
    pixels = np.array(crop)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def central_crop(encoded: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode in full, resize the shorter side to ``size`` · 256 / 224 (bilinear, antialiased), cut out the centre.

    Args:
      encoded: a JPEG, PNG or other image file's bytes.
      size: pixels per side of the result.

    Raises:
      OSError, SyntaxError, ValueError: as Pillow, for bytes that are no image or a truncated one.
    """
    pil = needed("PIL.Image")
    with pil.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        shorter = round(size * 256 / 224)
        target = tuple(shorter * length // min(width, height) for length in (width, height))
        resized = image.convert("RGB").resize(target, pil.Resampling.BILINEAR)
    left, top = ((length - size) // 2 for length in target)
    return np.array(resized.crop((left, top, left + size, top + size)))
