"""Peers that warp one numpy image at a time: OpenCV, scikit-image, scipy, given the spline's basis."""

import numpy as np
import shared_inputs as inputs
from jobs import Job


def opencv(**sizes):
    import cv2

    cv2.setNumThreads(-1)

    def warp(image, rows, columns):
        return cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return _one_by_one(warp, **sizes)


def scikit_image(**sizes):
    from skimage import transform

    def warp(image, rows, columns):
        bands = np.stack([rows, columns])
        return np.stack([transform.warp(band, bands, order=1, mode="edge") for band in np.moveaxis(image, -1, 0)], -1)

    return _one_by_one(warp, **sizes)


def scipy(**sizes):
    from scipy import ndimage

    def warp(image, rows, columns):
        bands = np.stack([rows, columns])
        moved = [ndimage.map_coordinates(band, bands, order=1, mode="nearest") for band in np.moveaxis(image, -1, 0)]
        return np.stack(moved, -1)

    return _one_by_one(warp, **sizes)


def _one_by_one(warp, *, count, size, grid, bound, part=1):
    """Warp every ``part``-th image only: slow peers are timed on fewer."""
    from deform_jax.warps.tps import _basis

    images, basis = inputs.images(count, size)[::part], _basis((grid, grid), (size, size))
    rows, columns = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2, indexing="ij")
    rng = np.random.default_rng(0)

    def warped(shifts):
        result = np.empty_like(images)
        for index, image in enumerate(images):
            field = (shifts[index].reshape(-1, 2).T @ basis).reshape(2, size, size)
            result[index] = warp(image, field[0] + rows, field[1] + columns)
        return result

    def run():
        warped(rng.uniform(-bound, bound, (len(images), grid, grid, 2)).astype(np.float32))

    return Job(run=run, answer=lambda: warped(inputs.shifts(count, grid, bound)[::part]), count=len(images))
