"""Photographs in files of any size, and back: a user's own, one by one."""

import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from deform_jax import checks
from deform_jax.data.archives import existing, needed

SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
"""Of the files that count as photographs, also where Pillow alone cannot read them; others are passed over."""
QUALITY = 95
"""Of the JPEGs that are written."""


def read_photograph(path: str | os.PathLike, *, size: int | None = None) -> Float[np.ndarray, "h w 3"]:
    """Return an image file as RGB (h, w, 3) float32 in [0, 1], turned upright as its EXIF orientation says.

    Grey images get three equal channels, transparent parts become white, and of an animation the first picture is
    taken. Pillow reads the file.

    Args:
      path: of a JPEG, PNG, TIFF, WebP, … file.
      size: pixels per side of the result: the largest central square, resized with antialiasing. ``None`` keeps all
        pixels.

    Raises:
      ValueError: there is no such file, or it is no image, or a damaged one; the message names it.
      ImportError: Pillow is missing; the message has the line to run.
    """
    return decode(checks.path("path", path), size).astype(np.float32) / np.float32(255)


def read_photographs(
    folder: str | os.PathLike, *, size: int | None = None, unreadable: str = "raise"
) -> Iterator[tuple[pathlib.Path, Float[np.ndarray, "h w 3"]]]:
    """Yield (path, photograph) of the image files of a folder, in the order of their names, each read when it is due.

    Files are known by their ending (``.jpg``, ``.png``, …); hidden and other files and subfolders are passed over.

    Args:
      folder: where the files are.
      size: as for :func:`read_photograph`; with it, all have one shape, and can be stacked to a batch.
      unreadable: what to do with a file that cannot be read: ``"raise"`` an error, or ``"skip"`` it with a warning.

    Raises:
      TypeError, ValueError: no such folder, no image file in it, or other options; while iterating, a file that is no
        image or a damaged one, named in the message.
    """
    paths = image_files(existing(folder))
    checks.option("unreadable", unreadable, ("raise", "skip"))
    _check_size(size)
    if not paths:
        wanted = f"hold image files ({', '.join(SUFFIXES)})"
        checks.fail("folder", wanted, f"there are none directly in {str(folder)!r}")
    return _each(paths, size, unreadable)


def write_photograph(path: str | os.PathLike, photograph: Any) -> None:
    """Write an image into a file of the kind that its name ends with, such as ``.png`` (exact) or ``.jpg``.

    Missing folders are made, and a file of that name is replaced, once the new one is whole.

    Args:
      path: of the file.
      photograph: (h, w, 3), or (h, w, 1) for grey: floats in [0, 1], or uint8.

    Raises:
      TypeError, ValueError: another shape, numbers outside [0, 1], or an ending that Pillow writes no image for.
      OSError: the file cannot be written there.
    """
    path, pil = checks.path("path", path), needed("PIL.Image")
    kind = pil.registered_extensions().get(path.suffix.lower())
    if kind not in pil.SAVE:
        checks.fail("path", "end like an image file, such as .png or .jpg", f"{path.name!r} was given")
    pixels = _pixels(photograph)
    image = pil.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as passing:
        part = pathlib.Path(passing) / path.name
        image.save(part, format=kind, **({"quality": QUALITY} if kind in ("JPEG", "WEBP", "AVIF") else {}))
        part.replace(path)


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the image files directly in a folder, in the order of their names."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def decode(path: pathlib.Path, size: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """Return what :func:`read_photograph` scales."""
    side, pil = _check_size(size), needed("PIL.Image")
    if not path.is_file():
        checks.fail("path", "be of an image file", f"there is no file {str(path)!r}", "Correct the name.")
    try:
        with warnings.catch_warnings(), pil.open(path) as opened:
            warnings.simplefilter("ignore")  # of large photographs, and of flaws in what EXIF tells besides
            image = _rgb(needed("PIL.ImageOps").exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        remedy = f"Pillow says: {error}. Repair it, convert it to PNG, or take it out of the way."
        checks.fail("path", "be of an image file", f"{str(path)!r} is none that can be read", remedy)
    if side is not None:
        image = needed("PIL.ImageOps").fit(image, (side, side), pil.Resampling.BILINEAR)
    return np.asarray(image)


def _rgb(image: Any) -> Any:
    """Convert to RGB from any of Pillow's modes: transparency over white, 16 bits to the upper 8."""
    pil = needed("PIL.Image")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
        image = pil.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _each(
    paths: list[pathlib.Path], size: int | None, unreadable: str
) -> Iterator[tuple[pathlib.Path, Float[np.ndarray, "h w 3"]]]:
    for path in paths:
        try:
            photograph = read_photograph(path, size=size)
        except ValueError as error:
            if unreadable == "raise":
                raise
            warnings.warn(f"Left out: {error}", stacklevel=2)
        else:
            yield path, photograph


def _pixels(photograph: Any) -> UInt8[np.ndarray, "h w c"]:
    pixels = np.asarray(checks.array("photograph", photograph, "h w c", kind="real", finite=True, wide=True))
    if pixels.shape[-1] not in (1, 3):
        checks.fail("photograph", "have shape (h, w, 3) or (h, w, 1)", f"its shape is {pixels.shape}")
    if pixels.dtype == np.uint8:
        return pixels
    slack, scale = 1e-3, "Rescale or `clip` it; images of 0 to 255 are uint8."
    if not np.issubdtype(pixels.dtype, np.floating) or pixels.min() < -slack or pixels.max() > 1 + slack:
        given = f"it holds {pixels.dtype} numbers from {pixels.min():.3g} to {pixels.max():.3g}"
        checks.fail("photograph", "be uint8, or floats in [0, 1]", given, scale)
    return np.round(255 * pixels.clip(0, 1)).astype(np.uint8)


def _check_size(size: Any) -> int | None:
    if size is None:
        return None
    side = checks.integer("size", size, minimum=1, maximum=checks.LONGEST)
    checks.entries("size", side, side, 3)
    return side
