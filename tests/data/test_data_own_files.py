"""A user's own files: photographs of all kinds, read and written; folders by class and ``.npz`` files as image sets."""

import numpy as np
import pytest
from PIL import Image

from deform_jax import data

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)


def save(folder, name, image, **options):
    folder.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / name, **options)
    return folder / name


def test_photographs_of_all_kinds_become_upright_rgb(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90° clockwise
    alpha = np.concatenate([COLOUR, np.full((6, 9, 1), 255, np.uint8)], axis=-1)
    alpha[0, :, 3], alpha[1, :, 3] = 0, 51
    over_white = COLOUR.astype(float)
    over_white[0], over_white[1] = 255, 204 + COLOUR[1] / 5
    three = np.repeat(GREY[..., None], 3, axis=-1)
    palette = Image.fromarray(GREY)
    palette.putpalette([255 - value // 3 for value in range(768)])
    for name, image, options, wanted in [
        ("colour.png", COLOUR, {}, COLOUR),
        ("grey.png", GREY, {}, three),
        ("deep.png", GREY.astype(np.uint16) * 256 + 99, {}, three),
        ("alpha.png", alpha, {}, over_white),
        ("both.png", Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (7, 5), 255)]), {}, three),
        ("turned.png", COLOUR, {"exif": turned}, np.rot90(COLOUR, -1)),
        ("palette.gif", palette, {}, np.asarray(palette.convert("RGB"))),
    ]:
        found = data.read_photograph(save(tmp_path, name, image, **options))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted / 255, atol=0.51 / 255, err_msg=name)


def test_a_size_takes_the_central_square(tmp_path):
    path = save(tmp_path, "wide.png", COLOUR[:, :8])
    np.testing.assert_array_equal(data.read_photograph(path, size=6), COLOUR[:, 1:7].astype(np.float32) / 255)
    halved = COLOUR[:, 1:7].reshape(3, 2, 3, 2, 3).mean((1, 3)) / 255
    assert data.read_photograph(path, size=3).shape == (3, 3, 3)
    assert abs(data.read_photograph(path, size=3).mean() - halved.mean()) < 0.03  # antialiased
    for bad in (0, 1.5, "3"):
        with pytest.raises((TypeError, ValueError), match="`size` must be an integer ≥ 1"):
            data.read_photograph(path, size=bad)


def test_a_folder_is_read_in_order_and_its_damaged_files_are_named(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.png"):
        save((tmp_path / name).parent, (tmp_path / name).name, COLOUR)
    for name, content in {
        "notes.txt": b"text",
        ".hidden.png": b"",
        "cut.png": (tmp_path / "b.PNG").read_bytes()[:90],
    }.items():
        (tmp_path / name).write_bytes(content)
    with pytest.warns(UserWarning, match=r"Left out: .*cut\.png' is none that can be read\. Pillow says: ") as caught:
        found = list(data.read_photographs(tmp_path, unreadable="skip"))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [path.name for path, _ in found] == ["a.jpg", "b.PNG"]
    np.testing.assert_array_equal(found[1][1], COLOUR.astype(np.float32) / 255)
    with pytest.raises(ValueError, match=r"cut\.png' is none .* Repair it, convert it to PNG, or take it out"):
        list(data.read_photographs(tmp_path))
    for call, message in [
        (lambda: data.read_photographs(tmp_path / "none"), "`folder` must be an existing folder"),
        (lambda: data.read_photographs(tmp_path, unreadable="ignore"), "`unreadable` must be one of 'raise', 'skip'"),
        (lambda: data.read_photographs(tmp_path, size=0), "`size` must be an integer ≥ 1"),
        (lambda: data.read_photograph(tmp_path / "none.png"), "there is no file .*none.png"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold image files \(\.avif, .*\), but there are none directly in"):
        data.read_photographs(tmp_path / "empty")


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "new" / "colour.png"
    for given in (COLOUR, COLOUR / np.float32(255), COLOUR / 255):
        data.write_photograph(path, given)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), COLOUR)
    data.write_photograph(tmp_path / "grey.png", GREY[..., None])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grey.png")), GREY)
    smooth = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 12, 1) * np.ones(3, np.float32)
    data.write_photograph(tmp_path / "smooth.jpg", smooth)
    np.testing.assert_allclose(data.read_photograph(tmp_path / "smooth.jpg"), smooth, atol=0.03)
    before = path.read_bytes()
    for bad, error, message in [
        (COLOUR / 100, ValueError, r"must be uint8, or floats in \[0, 1\], but it holds float64 .* to 2\.\d"),
        (COLOUR.astype(int), ValueError, "but it holds int64 numbers"),
        (GREY, ValueError, r"must have shape \(h, w, c\)"),
        (np.zeros((2, 2, 4), np.uint8), ValueError, r"must have shape \(h, w, 3\) or \(h, w, 1\)"),
        ("image", TypeError, "must be an array"),
    ]:
        with pytest.raises(error, match=message):
            data.write_photograph(path, bad)
    with pytest.raises(ValueError, match=r"`path` must end like an image file, .* but 'colour\.xyz' was given"):
        data.write_photograph(tmp_path / "colour.xyz", COLOUR)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["colour.png", "grey.png", "new", "smooth.jpg"]


def classes(folder, counts, value=0):
    """Images that tell their class and number."""
    for label, (name, count) in enumerate(counts.items()):
        for index in range(count):
            pixels = np.full((4, 5 + label, 3), 50 * label + index + value, np.uint8)
            save(folder / name, f"{index:02d}.png", pixels)


def test_a_folder_of_classes_is_an_image_set(tmp_path):
    classes(tmp_path, {"cats": 11, "dogs": 4})
    (tmp_path / ".git").mkdir()
    mine = data.load(f"folder:{tmp_path}", size=3)
    first = {part: getattr(mine, f"{part}_images")[:, 0, 0, 0].tolist() for part in ("train", "test")}
    assert first == {"train": [0, 1, 2, 3, 5, 6, 7, 8, 10, 50, 51, 52, 53], "test": [4, 9]}
    assert mine.train_labels.tolist() == [0] * 9 + [1] * 4
    assert mine.num_classes == 2
    assert mine.train_images.shape == (13, 3, 3, 3)
    assert data.load("folder:" + tmp_path.name, folder=tmp_path.parent).train_images.shape == (13, 32, 32, 3)


def test_train_and_test_may_be_folders_apart(tmp_path):
    classes(tmp_path / "train", {"a": 2, "b": 1})
    classes(tmp_path / "test", {"a": 1, "b": 1}, value=9)
    mine = data.load(f"folder:{tmp_path}", size=2)
    assert mine.train_images[:, 0, 0, 0].tolist() == [0, 1, 50]
    assert mine.test_images[:, 0, 0, 0].tolist() == [9, 59]
    assert mine.test_labels.tolist() == [0, 1]
    classes(tmp_path / "test", {"c": 1})
    with pytest.raises(ValueError, match=r"same classes to train and to test, but c are in one of"):
        data.load(f"folder:{tmp_path}")


def test_folders_that_are_no_set_are_refused(tmp_path):
    for name, message in [("folder:", "path of a file or folder"), ("folder:missing", "existing folder")]:
        with pytest.raises(ValueError, match=message):
            data.load(name)
    classes(tmp_path, {"cats": 4})
    with pytest.raises(ValueError, match=r"subfolder of image files per class, two or more, but .* has 1 subfolders"):
        data.load(f"folder:{tmp_path}")
    classes(tmp_path, {"cats": 4, "dogs": 4})
    with pytest.raises(ValueError, match="hold more images, but no class has as many as 5"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "dogs" / "bad.jpg").write_bytes(b"none")
    (tmp_path / "cats" / "bad.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"cats.bad\.png, .*dogs.bad\.jpg cannot be read\. Repair, convert or remove"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="but empty hold none"):
        data.load(f"folder:{tmp_path}")


ARRAYS = {
    "train_images": RNG.integers(0, 256, (6, 40, 40, 3), np.uint8),
    "train_labels": np.arange(6) % 3,
    "test_images": RNG.integers(0, 256, (3, 40, 40, 3), np.uint8),
    "test_labels": np.arange(3, dtype=np.uint8)[:, None],
}


def test_an_npz_file_is_an_image_set(tmp_path):
    np.savez(tmp_path / "whole.npz", **ARRAYS, more=np.zeros(1))
    mine = data.load(f"npz:{tmp_path / 'whole.npz'}")
    np.testing.assert_array_equal(mine.train_images, ARRAYS["train_images"])
    np.testing.assert_array_equal(mine.test_labels, [0, 1, 2])
    assert (mine.num_classes, mine.test_labels.dtype) == (3, np.int32)
    grey = RNG.integers(0, 256, (20, 28, 28), np.uint8)
    np.savez(tmp_path / "parts.npz", images=grey, labels=np.arange(20) // 10)
    mine = data.load("npz:parts.npz", folder=tmp_path)
    assert mine.train_images.shape == (16, 32, 32, 1)
    np.testing.assert_array_equal(mine.test_images[:, 2:-2, 2:-2, 0], grey[[4, 9, 14, 19]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": ARRAYS["train_images"] / 255}, r"train_images` must be .*uint8, .*float64.* `\(255"),
        ({"test_images": ARRAYS["test_images"][:, 0, 0]}, r"test_images` must be \(n, h, w, c\) or \(n, h, w\) uint8"),
        ({"test_images": ARRAYS["test_images"][:, 1:]}, "images of one size"),
        ({"train_labels": np.arange(5)}, "one label per image"),
        ({"train_labels": np.arange(6) - 1}, r"train_labels` must be \(n,\) integers, 0 or more"),
        ({"train_labels": np.full(6, 10**9)}, "must be numbers of classes"),
        ({"train_labels": np.array(["cat"] * 6)}, "train_labels` must be"),
        ({"train_labels": np.array([{}] * 6)}, "must be of an .npz file of arrays"),
        ({"train_labels": None}, "has train_images, test_images, test_labels. It must have train_images,"),
    ],
)
def test_npz_files_that_are_no_set_are_refused(tmp_path, changes, message):
    arrays = {name: array for name, array in {**ARRAYS, **changes}.items() if array is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.load(f"npz:{tmp_path / 'bad.npz'}")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"\x93NUMPY"])
def test_files_that_are_no_npz_are_refused(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"must be of an \.npz file of arrays, but .*bad\.npz' is none"):
        data.load(f"npz:{tmp_path / 'bad.npz'}")
    with pytest.raises(ValueError, match=r"'npz:' and the path of a file, but there is no file 'missing\.npz'"):
        data.load("npz:missing.npz")
