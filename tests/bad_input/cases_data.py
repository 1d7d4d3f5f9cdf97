"""The campaign's table for ``deform_jax.data``."""

import functools
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
from campaign_runner import Case
from hostile_values import NAMES, PATHS, Argument, array, flag, host, integer, key, name, number, option, path, thing

from deform_jax import data

NAMES["data"] = data


@name
def image_set(count=8, classes=2, dtype="uint8"):
    """Small images of some classes."""
    images = host((count, 6, 6, 1), "float32")
    images = (255 * images).astype(dtype)
    labels = np.arange(count, dtype=np.int32) % classes
    return data.ImageSet("small", images, labels, images[:2], labels[:2], classes)


FOLDER = tempfile.TemporaryDirectory(prefix="photographs")


@name
@functools.cache
def photograph():
    """The path of a small image file, alone in its folder."""
    path = pathlib.Path(FOLDER.name, "photograph.png")
    data.write_photograph(path, host((5, 6, 3)))
    return path


TASK = thing(
    "data.ScaleDetection(shape=(8,), scale=3, gap=1)",
    "data.ScaleDetection('patch', (8,), 4)",
    also=("data.ScaleDetection(shape=(8,), scale=100)", "data.ScaleDetection(shape=(2**20,))", "data.ScaleDetection"),
)
SETTINGS = thing(
    "data.Combinatorial()",
    "data.Combinatorial(features=3, placement='free')",
    also=("data.Combinatorial", "image_set()"),
)
RAW = array((2, 6, 6, 1), "uint8")
FLOAT_IMAGES = array((2, 4, 4, 1))
POSITIONS = array(
    (3, 2, 1),
    "int32",
    also=("np.array([[[2], [8]]])", "np.array([[[2], [-1]]])", "np.array([[[2**32]]])", "[[[1], [2]]]"),
)
FEATURES = Argument(
    ("np.array([[0, 1], [2, 7]])",), array((2, 2), "int32", also=("np.array([[0, 8]])", "np.array([[-1, 0]])")).texts
)
PLACES = array((2, 2, 2))
PIXELS = thing(
    "(8,)",
    also=(
        "(8, 8)",
        "[8]",
        "(1,)",
        "(0,)",
        "(8, 8, 8)",
        "8",
        "(10**9,)",
        "(10**9, 10**9)",
        "(10**400,)",
        "(8.0,)",
        "('8',)",
        "(True,)",
        "(6,)",
    ),
)
IMAGES_OF = thing(
    "image_set()",
    also=(
        "image_set(2)",
        "image_set(8, 10)",
        "image_set(8, 2, 'float32')",
        "image_set(8, 2, 'int16')",
        "data.ImageSet",
    ),
)
COUNT = integer("4", "2", also=("10**8", "5"))
PREPARE = thing(
    "data.Prepare((0.5,), (0.25,))",
    also=(
        "data.Prepare((0.5,), (0.25,), augment=True)",
        "data.Prepare((0.5,) * 3, (0.25,) * 3)",
        "data.Prepare",
        "data.Prepare((0.5,), (0.25,), noise=1.0)",
    ),
)
MOMENTS = (
    "()",
    "(0.5, 0.5)",
    "0.5",
    "(nan,)",
    "('0.5',)",
    "(0,)",
    "(-1,)",
    "(1e-300,)",
    "(1e300,)",
    "(10**400,)",
    "(None,)",
    "(True,)",
    "[0.5]",
    "(1j,)",
    "np.array([0.5])",
    "(jnp.asarray(0.5),)",
)
KEYS = (
    "None",
    "0",
    "jax.random.key(0)",
    "jax.random.split(jax.random.key(0), 3)",
    "jax.random.split(jax.random.PRNGKey(0), 2)",
    "filled((2, 2))",
    "filled((2, 2), 'uint32')",
    "filled((2,))",
    "filled((2, 3), 'uint32')",
    "'keys'",
    "[jax.random.key(0)] * 2",
    "np.zeros((2, 2), 'uint32')",
)
PER_IMAGE = thing("jax.random.split(jax.random.key(0), 2)", "jax.random.split(jax.random.PRNGKey(0), 2)", also=KEYS)
OWN = (
    "'folder:'",
    "'folder:missing'",
    "'folder:.'",
    "'npz:'",
    "'npz:missing'",
    "'npz:.'",
    "'npz:a\\0b'",
    "'folder:\\ud800'",
)
"""Names of a user's own sets, none of them there."""
MISSING = tuple(text for text in PATHS if text not in ("None", "'.'", "'/dev/null'", "'missing/' * 3"))
"""Those that are no folder of this machine."""


def anything(result, given):
    """That it is made, or finite, is what is tested."""


def of_class(kind):
    return lambda result, given: isinstance(result, kind)


def moved_pixels(result, given):
    return result.shape == np.shape(given["positions"]) and result.dtype == jnp.int32 and bool((result >= 0).all())


def like_image(result, given):
    image = np.asarray(given["image"])
    return result.shape == image.shape and (result.dtype == image.dtype or image.dtype.itemsize == 8)


def prepared(result, given):
    return result.shape == np.shape(given["images"]) and result.dtype == jnp.float32


def split_of(result, given):
    return len(result[0]) == given["train"]


CASES = (
    Case(
        "data.pixel_displacements",
        {"law": option("'step'", "'cross'", "'neighbourhood'"), "ndim": integer("1", "2")},
        lambda r, g: r.shape[1] == g["ndim"],
    ),
    Case(
        "data.displace_pixels",
        {
            "key": key(),
            "positions": POSITIONS,
            "shape": PIXELS,
            "law": option("'step'", "'cross'"),
            "boundary": option("'periodic'", "'clamp'"),
            "patch": integer("None", "2"),
        },
        moved_pixels,
        traced=("key", "positions"),
    ),
    Case(
        "data.render_pixels",
        {
            "positions": POSITIONS,
            "shape": PIXELS,
            "value": number("1.0", "2"),
            "collisions": option("'superpose'", "'collapse'"),
            "pad": integer("0", "1"),
        },
        lambda result, given: result.dtype == jnp.float32 and result.shape[-1] == 1,
        traced=("positions", "value"),
    ),
    Case("data.ActivePixels", {"value": number("1.0", "2")}, of_class(data.ActivePixels)),
    Case(
        "data.ActivePixels(call)",
        {"keys": PER_IMAGE, "counts": array((2, 8, 1), "uint8")},
        lambda result, given: result.shape == np.shape(given["counts"]),
        call=lambda keys, counts: data.ActivePixels(2.0)(keys, counts),
        traced=("counts",),
    ),
    Case(
        "data.random_crop_flip",
        {"key": key(), "image": array((6, 5, 1)), "pad": integer("2", "0"), "flip": flag("True")},
        like_image,
        traced=("key", "image"),
    ),
    Case(
        "data.Combinatorial",
        {
            "features": integer("2", "3"),
            "vocabulary": integer("8", "4"),
            "num_classes": integer("2", "4"),
            "size": integer("32", "64"),
            "grid": integer("2"),
            "placement": option("'fixed'", "'free'"),
            "jitter": number("2.0", "0"),
            "blobs": integer("4"),
            "spacing": number("2.5", "1"),
            "width": number("1.0", "0.5"),
            "noise": number("0.0", "0.1"),
            "disjoint": flag(),
            "seed": integer("0"),
        },
        of_class(data.Combinatorial),
    ),
    Case("data.feature_vocabulary", {"settings": SETTINGS}, lambda result, given: result.shape[-1] == 2),
    Case(
        "data.combination_label",
        {"features": FEATURES, "settings": SETTINGS},
        lambda result, given: result.shape == np.shape(given["features"])[:-1],
        traced=("features",),
    ),
    Case(
        "data.combination_held_out",
        {"features": FEATURES, "settings": SETTINGS},
        lambda result, given: result.shape == np.shape(given["features"])[:-1],
        traced=("features",),
    ),
    Case(
        "data.render_features",
        {"features": FEATURES, "positions": PLACES, "settings": SETTINGS},
        lambda result, given: result.shape[-1] == 1,
        traced=("features", "positions"),
    ),
    Case(
        "data.displace_features",
        {"key": key(), "positions": PLACES, "settings": SETTINGS, "max_shift": number("1.0", "0")},
        lambda result, given: result.shape == np.shape(given["positions"]),
        traced=("key", "positions"),
    ),
    Case(
        "data.combinatorial_split",
        {"key": key(), "settings": SETTINGS, "train": COUNT, "test": COUNT},
        lambda result, given: len(result.train_labels) == given["train"],
    ),
    Case(
        "data.combinatorial_images",
        {"key": key(), "settings": SETTINGS, "train": COUNT, "test": COUNT},
        lambda result, given: len(result.train_labels) == given["train"],
    ),
    Case(
        "data.random_labels",
        {"key": key(), "count": COUNT, "num_classes": integer("10", "1")},
        lambda result, given: result.shape == (given["count"],),
        traced=("key",),
    ),
    Case(
        "data.random_images",
        {"key": key(), "images": RAW},
        lambda result, given: result.shape == np.shape(given["images"]) and result.dtype == jnp.int16,
        traced=("key", "images"),
    ),
    Case(
        "data.additive_noise",
        {"key": key(), "images": FLOAT_IMAGES, "magnitude": number("1.0", "0")},
        lambda result, given: result.shape == np.shape(given["images"]),
        traced=("key", "images", "magnitude"),
    ),
    Case(
        "data.Prepare",
        {
            "mean": thing("(0.5,)", also=MOMENTS),
            "std": thing("(0.25,)", also=MOMENTS),
            "augment": flag(),
            "pad": integer("4", "0"),
            "flip": flag("True"),
            "noise": number("0.0", "1"),
        },
        of_class(data.Prepare),
    ),
    Case(
        "data.Prepare(call)",
        {
            "mean": thing("(0.5,)", also=MOMENTS),
            "std": thing("(0.25,)", also=MOMENTS),
            "augment": flag("True"),
            "pad": integer("2", "0"),
            "noise": number("0.0", "1"),
            "keys": PER_IMAGE,
            "images": RAW,
        },
        prepared,
        call=lambda keys, images, **settings: data.Prepare(**settings)(keys, images),
        traced=("keys", "images"),
    ),
    Case(
        "data.Prepare(from_images)",
        {"images": RAW, "augment": flag(), "noise": number("0.0", "1")},
        of_class(data.Prepare),
        call=data.Prepare.from_images,
    ),
    Case(
        "data.IMAGENET_PREPARE",
        {"keys": thing("None", also=KEYS), "images": array((2, 3, 3, 3), "uint8")},
        prepared,
        traced=("images",),
    ),
    Case(
        "data.DeformedTemplates",
        {
            "prepare": PREPARE,
            "strength": number("1.0", "0"),
            "grid": thing("(3, 3)", also=("(1, 3)", "3", "(10**9, 10**9)", "(2.0, 3)", "[2, 2]")),
        },
        of_class(data.DeformedTemplates),
    ),
    Case(
        "data.DeformedTemplates(call)",
        {"keys": PER_IMAGE, "images": RAW},
        prepared,
        call=lambda keys, images: data.DeformedTemplates(data.Prepare((0.5,), (0.25,)), 1.0)(keys, images),
        traced=("keys", "images"),
    ),
    Case(
        "data.DeformedTemplates(deform)",
        {"keys": PER_IMAGE, "images": RAW},
        lambda result, given: result.shape == np.shape(given["images"]) and result.dtype == np.uint8,
        call=lambda keys, images: data.DeformedTemplates(data.Prepare((0.5,), (0.25,)), 1.0).deform(keys, images),
    ),
    Case(
        "data.choose_templates",
        {
            "key": key(),
            "images": array((4, 6, 6, 1), "uint8"),
            "labels": thing("np.arange(4) % 2", also=array((4,), "int32").texts),
            "num_classes": integer("2", "1"),
        },
        lambda result, given: len(result) == given["num_classes"],
    ),
    Case(
        "data.deformed_templates",
        {
            "images": IMAGES_OF,
            "key": key(),
            "strength": number("1.0", "0"),
            "grid": thing("(3, 3)", also=("(1, 3)", "3", "(10**9, 10**9)")),
            "train_images": COUNT,
            "test_images": COUNT,
        },
        lambda result, given: len(result[0].train_images) == given["train_images"],
    ),
    Case(
        "data.load",
        {
            "name": option("'fashion_mnist_subset'", also=("'fashion'", "'tfds:'", "'imagenet'", *OWN)),
            "folder": thing("None", also=MISSING),
            "size": integer("None", "32", also=("28", "27", "33")),
        },
        of_class(data.ImageSet),
    ),
    Case(
        "data.load(archives)",
        # No folder that exists, and not None: it would be downloaded into.
        {"name": option("'mnist'", "'cifar10'"), "folder": Argument(("'missing'",), MISSING)},
        anything,
        call=data.load,
        refused=True,
    ),
    Case(
        "data.stream",
        {
            "name": option("'no_such_set'", also=("'a b'", "'../x'", "'set/config'", "'set:1.2.3'")),
            "folder": path("'missing'"),
            "size": integer("32"),
            "train_split": option("'train'"),
            "worker_count": integer("0"),
        },
        anything,
        dear=True,
        refused=True,
    ),
    Case(
        "data.read_photograph",
        {"path": path("photograph()"), "size": integer("None", "4")},
        lambda result, given: result.shape == (given["size"] or 5, given["size"] or 6, 3),
    ),
    Case(
        "data.read_photographs",
        {
            "folder": path("photograph().parent"),
            "size": integer("4", "None"),
            "unreadable": option("'raise'", "'skip'"),
        },
        lambda result, given: len(result) == 1,
        call=lambda **given: list(data.read_photographs(**given)),
    ),
    Case(
        "data.write_photograph",
        {
            "path": path("photograph().parent / 'more' / 'written.png'", also=("'photograph.none'", "'.png'")),
            "photograph": array((5, 6, 3), also=("host((5, 6, 3), 'uint8')", "host((5, 6, 1))", "-host((5, 6, 3))")),
        },
        lambda result, given: result is None,
    ),
    Case(
        "data.pad_images",
        {
            "images": RAW,
            "size": integer(
                "8", "(8, 7)", also=("(6, 6)", "5", "(8,)", "[8, 8]", "(10**9, 10**9)", "10**5", "(8, 8, 8)")
            ),
        },
        lambda result, given: result.shape[0] == len(given["images"]),
    ),
    Case(
        "data.ScaleDetection",
        {
            "task": option("'distance'", "'patch'"),
            "shape": thing("(32,)", "(8, 8)", also=PIXELS.texts),
            "scale": number("4.0", "2"),
            "gap": number("1.0", "0"),
            "full_gap": flag(),
            "periodic": thing("None", "True", also=("0", "1", "'yes'", "np.bool_(True)")),
            "value": number("None", "2.0"),
            "pad": integer("0", "2"),
        },
        of_class(data.ScaleDetection),
    ),
    Case(
        "data.pixel_pairs",
        {
            "task": option("'patch'", "'distance'"),
            "shape": PIXELS,
            "scale": number("2.0", also=("0.5", "4.0", "1e-30")),
        },
        lambda result, given: len(result.positions) == len(result.labels),
        call=lambda **settings: data.pixel_pairs(data.ScaleDetection(**settings, gap=0.0)),
        earlier=({"scale": "0.5"},),
    ),
    Case(
        "data.pixel_pairs(task)",
        {"task": TASK},
        lambda result, given: len(result.positions) == len(result.labels),
        call=data.pixel_pairs,
    ),
    Case("data.active_value", {"task": TASK}, lambda result, given: np.isfinite(result)),
    Case(
        "data.balanced_split",
        {
            "key": key(),
            "labels": thing("np.arange(12) % 2", also=array((12,), "int32").texts),
            "train": COUNT,
            "test": integer("4", "None"),
        },
        split_of,
        earlier=({"train": "None"},),
    ),
    Case("data.scale_detection", {"key": key(), "task": TASK, "train": COUNT, "test": integer("4", "None")}, split_of),
    Case(
        "data.pair_images",
        {"task": TASK, "positions": POSITIONS},
        lambda result, given: (
            result.dtype == np.uint8
            and len(result) == len(given["positions"])
            and result.sum() == np.size(given["positions"])
        ),
        earlier=({"positions": "np.zeros((1, 300, 1), int)"},),
    ),
    Case(
        "data.validation_split",
        {"key": key(), "image_set": IMAGES_OF, "count": integer("4", "1")},
        lambda result, given: len(result[1]["labels"]) == given["count"],
    ),
)
RESULT = "a container that checks nothing, made by "
EXEMPT = {
    "data.FeatureSplit": RESULT + "combinatorial_split",
    "data.ImageSet": RESULT + "load",
    "data.ImageStream": RESULT + "stream, which checks what is in it",
    "data.PairSplit": RESULT + "scale_detection",
    "data.PixelPairs": RESULT + "pixel_pairs",
}
