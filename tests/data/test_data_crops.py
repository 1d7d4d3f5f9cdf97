"""Crops of encoded photographs: their distribution, and their pixels against jax's own antialiased resampling."""

import io

import jax
import numpy as np
import pytest
import scipy.stats
import skimage
from PIL import Image, JpegImagePlugin
from tfds_toys import encoded

from deform_jax.data import crops

CAT = skimage.data.chelsea()  # (300, 451, 3)


def resampled(pixels, shape, *, top=0.0, left=0.0, height=None, width=None):
    """The window of an image resized to ``shape`` with a triangle filter, by jax."""
    height, width = height or pixels.shape[0], width or pixels.shape[1]
    scale = np.array([shape[0] / height, shape[1] / width], np.float32)
    shift = -np.array([top, left], np.float32) * scale
    image = np.asarray(pixels, np.float32)
    return np.asarray(jax.image.scale_and_translate(image, (*shape, 3), (0, 1), scale, shift, "linear", antialias=True))


def boxes(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([crops.sample_box(rng, height, width) for _ in range(count)])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (400, 400), (700, 200)])
def test_crops_lie_within_the_image_and_the_bounds(height, width):
    left, top, right, bottom = boxes(height, width, 2000).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    w, h = right - left, bottom - top
    rounding = 0.5 / h + 0.5 / w  # both sides are whole pixels
    fallback = (w == width) | (h == height)  # clamped to a side, where the aspect may be rounded further
    assert (w * h / (height * width) >= 0.08 * (1 - 2 * rounding)).all()
    aspect = w / h
    assert ((aspect >= 0.75 * (1 - 2 * rounding)) & (aspect <= 4 / 3 * (1 + 2 * rounding)) | fallback).all()


def test_areas_aspects_and_places_have_the_stated_distributions():
    """On a square every draw of an area below ¾ fits, so that below it nothing is conditioned on fitting.

    4000 draws: a wrong range by 3 % would show, at a level of 1 %.
    """
    side = 4000  # rounding to whole pixels is negligible
    left, top, right, bottom = boxes(side, side, 4000).T.astype(float)
    w, h = right - left, bottom - top
    area, aspect = w * h / side**2, np.log(w / h)
    small = area < 0.75
    assert small.sum() > 2500
    assert scipy.stats.kstest(area[small], scipy.stats.uniform(0.08, 0.67).cdf).pvalue > 0.01
    low, high = np.log(3 / 4), np.log(4 / 3)
    assert scipy.stats.kstest(aspect[small], scipy.stats.uniform(low, high - low).cdf).pvalue > 0.01
    for place in (left[small] / (side - w)[small], top[small] / (side - h)[small]):
        assert scipy.stats.kstest(place, scipy.stats.uniform(0, 1).cdf).pvalue > 0.01


def test_what_never_fits_gives_the_largest_permitted_central_crop():
    class Stubborn:
        """Asks for the whole area at the largest aspect, which a square cannot give."""

        def uniform(self, low, high):
            return high

    assert crops.sample_box(Stubborn(), 400, 400) == (0, 0, 400, 400)
    assert crops.sample_box(Stubborn(), 300, 360) == (0, 0, 360, 300)
    assert crops.sample_box(Stubborn(), 100, 1000) == (433, 0, 566, 100)
    assert crops.sample_box(Stubborn(), 1000, 90) == (0, 440, 90, 560)


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("jpeg", {"quality": 90})])
def test_the_central_crop_is_pillow_s_decoding_resized(kind, options):
    file = encoded(CAT, kind, **options)
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image.convert("RGB"))
    # The shorter side, 300, becomes 112 · 256 / 224 = 128, the longer 192; the centre of that is cut out.
    expected = resampled(pixels, (128, 192))[8:120, 40:152]
    found = crops.central_crop(file, 112)
    assert found.shape == (112, 112, 3)
    # Pillow rounds twice, to whole numbers: after the rows and after the columns.
    assert np.abs(found - expected).max() <= 1.01


@pytest.mark.parametrize("size", [64, 160])
def test_the_random_crop_is_its_box_resized(size):
    file = encoded(CAT)  # PNG, which is always decoded in full
    for seed in range(4):
        found = crops.random_resized_crop(file, size, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        left, top, right, bottom = crops.sample_box(rng, *CAT.shape[:2])
        expected = resampled(CAT, (size, size), top=top, left=left, height=bottom - top, width=right - left)
        expected = expected[:, ::-1] if rng.random() < 0.5 else expected
        assert np.abs(found - expected).max() <= 1.01


def test_a_large_crop_is_decoded_at_a_part_of_the_resolution(monkeypatch):
    """Nearly the same image: JPEG's averages of 2 × 2 or more pixels, then the same resizing."""
    file, drafts = encoded(CAT, "jpeg", quality=95), []
    original = JpegImagePlugin.JpegImageFile.draft

    def watched(self, mode, size):
        drafts.append(original(self, mode, size))
        return drafts[-1]

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", watched)
    drafted = [crops.random_resized_crop(file, 48, np.random.default_rng(seed)) for seed in range(8)]
    assert {CAT.shape[1] / box[2] for _, box in drafts} >= {2, 4}
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda *_: None)
    whole = [crops.random_resized_crop(file, 48, np.random.default_rng(seed)) for seed in range(8)]
    differences = np.abs(np.array(drafted, float) - np.array(whole, float))
    assert differences.mean() < 1.5  # of 255; a crop displaced by one pixel differs by 4
    shifted = np.abs(np.array(whole, float)[:, 1:] - np.array(whole, float)[:, :-1]).mean()
    assert shifted > 2 * differences.mean()


def test_half_of_the_crops_are_mirrored():
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None, :, None] * 2, (96, 1, 3))
    found = [crops.random_resized_crop(encoded(ramp), 8, np.random.default_rng((7, seed))) for seed in range(400)]
    mirrored = sum(int(pixels[:, 0].mean() > pixels[:, -1].mean()) for pixels in found)
    assert abs(mirrored - 200) < 40  # four standard deviations


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [("L", "jpeg", 8), ("CMYK", "jpeg", 12), ("RGBA", "png", 1), ("P", "png", 30), ("LA", "png", 1)],
)
def test_every_kind_of_image_becomes_rgb(mode, kind, tolerance):
    image = Image.fromarray(CAT).convert(mode)
    expected = crops.central_crop(encoded(Image.fromarray(CAT).convert("L" if "L" in mode else "RGB")), 56)
    for found in (crops.central_crop(encoded(image, kind), 56), expected):
        assert found.shape == (56, 56, 3)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(float) - expected).mean() < tolerance


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 40, 3), (5, 7, 3)])
def test_images_smaller_than_the_crop_are_enlarged(shape):
    file = encoded(np.full(shape, 9, np.uint8))
    assert (crops.central_crop(file, 16) == 9).all()
    assert (crops.random_resized_crop(file, 16, np.random.default_rng(0)) == 9).all()
