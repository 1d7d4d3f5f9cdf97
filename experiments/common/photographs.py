"""Photographs for pictures of deformations: those that scikit-image ships, or the user's own files."""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from deform_jax import data
from experiments.common import clock, tables

SHIPPED = ("astronaut", "chelsea", "coffee")


@clock.COMMAND.part("data")
def load(name: str, size: int) -> np.ndarray:
    """Return the central square of a photograph as (size, size, 3) float32 in [0, 1].

    Args:
      name: one of ``SHIPPED``, or the path of an image file.
      size: pixels per side.
    """
    if name not in SHIPPED:
        if not pathlib.Path(name).is_file():
            sys.exit(f"error: an image must be one of {', '.join(SHIPPED)} or an image file, but {name!r} was given.")
        return data.read_photograph(name, size=size)
    import skimage  # slow to import

    image = skimage.img_as_float32(getattr(skimage.data, name)())
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    return np.asarray(skimage.transform.resize(square, (size, size), anti_aliasing=True), np.float32)


def shift_rows(name: str, shifts: np.ndarray) -> list[dict[str, object]]:
    """Return one table row per control point of (gy, gx, 2) shifts in pixels."""
    return [
        {"image": name, "row": i, "column": j, "dy": float(shifts[i, j, 0]), "dx": float(shifts[i, j, 1])}
        for i, j in np.ndindex(*shifts.shape[:2])
    ]


def shifts_of(rows: Sequence[tables.Row]) -> np.ndarray:
    """Return the (gy, gx, 2) shifts that rows of one image hold, the inverse of ``shift_rows``."""
    shape = tuple(1 + int(max(row[axis] for row in rows)) for axis in ("row", "column"))
    shifts = np.zeros((*shape, 2), np.float32)
    for row in rows:
        shifts[int(row["row"]), int(row["column"])] = row["dy"], row["dx"]
    return shifts
