"""The campaign's table for ``deform_jax.probes``."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
from campaign_runner import Case
from hostile_values import NAMES, array, flag, integer, key, name, number, option, sizes, thing

from deform_jax import probes

NAMES["probes"] = probes
TINY = float(np.finfo(np.float32).tiny)
NAN_TAPS = r"is nan at (tap|layer)"


@name
def network(images):
    """Two layers without parameters, of images of any rank."""
    flat = images.reshape(len(images), -1)
    return OrderedDict(input=images, wide=jnp.concatenate([jnp.tanh(flat), flat], axis=1))


@name
def wrong_rows(images):
    return {"tap": images[:1]}


@name
def no_taps(images):
    return {}


@name
def integers(images):
    return {"tap": jnp.zeros(images.shape, "int32")}


@name
def constant(images):
    return {"tap": jnp.ones((len(images), 3))}


@name
def not_finite(images):
    return {"tap": jnp.full((len(images), 3), jnp.nan)}


@name
def sites(images):
    """Taps as a receptive field wants them, of one convolution by hand."""
    return OrderedDict(input=images, mean=(images + jnp.roll(images, 1, axis=1)) / 2, flat=images.mean((1, 2)))


@name
def shift(parameters, image):
    return image + parameters.mean().astype(image.dtype)


@name
def other_shape(parameters, image):
    return image[:1]


def conv_tree(width=3, dtype="float32"):
    kernel = f"filled(({width}, {width}, 2, 4), '{dtype}')"
    return f"{{'conv1': {{'kernel': {kernel}, 'bias': filled((4,))}}, 'head': {{'kernel': filled((4, 2))}}}}"


TREES = (
    "{'kernel': None}",
    "{'conv': {'kernel': 'text'}}",
    "{'conv': {'kernel': [[1.0]]}}",
    conv_tree(1),
    conv_tree(2),
    conv_tree(5),
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'int32')}}",
    "{'conv': {'kernel': filled((0, 3, 2, 4))}}",
    "{'conv': {'kernel': filled((3, 3, 0, 4))}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'float32', 'nan')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'float32', 'huge')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'float32', '0')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'float32', 'tiny')}}",
    "{'conv': {'kernel': host((3, 3, 2, 4), 'float64')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'bfloat16')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'float16')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'complex64')}}",
    "{'conv': {'kernel': filled((3, 2, 4))}}",
    "[{'kernel': filled((3, 3, 2, 4))}]",
    "filled((3, 3, 2, 4))",
    "{'w': filled((3, 3, 2, 4))}",
    "{0: {'kernel': filled((3, 3, 2, 4))}}",
    "{'a': {'kernel': filled((3, 3, 2, 4))}, 1: {'kernel': filled((3, 3, 2, 4))}}",
    "{'conv': {'kernel': jax.random.key(0)}}",
    "{'conv': {'kernel': host((3, 3, 2, 4), 'float64', '1e300')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4)), 'bias': 3}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4)), 'bias': filled((4,), 'float32', 'nan')}}",
    "{'conv': {'kernel': filled((3, 3, 2, 4), 'float32', 'inf')}}",
    "{'conv': {'kernel': np.full((3, 3, 2, 4), 'x')}}",
)
PARAMS = thing(conv_tree(), also=TREES)
NETWORKS = (
    "wrong_rows",
    "no_taps",
    "integers",
    "jax.tree_util.Partial(constant)",
    "jax.tree_util.Partial(not_finite)",
    "lambda x: x",
    "lambda x: {1: x}",
    "lambda x: {'a': None}",
)
REPRESENT = thing("jax.tree_util.Partial(network)", also=("network", *NETWORKS))
IMAGES = array((3, 4, 4, 1), lean=True)
KERNEL = array((3, 3, 2, 4))
DISTANCE = option("'cosine'", "'squared'", "'euclidean'")
NORMALISER, NUMERATOR = option("'mean'", "'median'"), option("'mean'", "'coordinate_median'")
CHUNK = thing("None", "2", also=("0", "-1", "10**9", "10**400", "2.0", "True", "'2'", "nan", "jnp.asarray(2)"))
LAYERS = thing(
    "None", "['conv1']", also=("'conv1'", "['none']", "lambda name: False", "lambda name: True", "[1]", "[[]]", "[nan]")
)
SIZE = thing(
    "3",
    "None",
    "(3, 3)",
    also=("0", "-1", "(0, 3)", "10**9", "10**400", "'3'", "3.0", "True", "(3, 3, 3)", "(3,)", "5"),
)
FILTER, STRIDE, DEPTH = integer("2", "4"), integer("1", "2"), integer("2", "1")
POSITIVE = array((5,))
PAIRS_OF_PIXELS = "np.array([[[0], [2]], [[1], [7]], [[3], [4]]])"
OF_PIXELS = (
    "np.array([[[0], [8]]])",
    "np.array([[[-1], [2]]])",
    "np.array([[[2], [2]]])",
    "np.zeros((0, 2, 1), int)",
    "np.array([[[0, 1], [2, 3]]])",
    "np.array([[[2**40], [1]]])",
    "np.array([[[0.0], [2.0]]])",
    "[[[0], [2]]]",
    "np.array([[[0], [2]]], 'uint8')",
    "np.array([[0], [2]])",
)


def taps(result, given):
    """A scalar for every tap of the network."""
    return isinstance(result, OrderedDict) and all(value.shape == () for value in result.values()) and len(result) > 0


def scalar(result, given):
    return np.shape(result) == ()


def reduced(result, given):
    return result.shape == np.shape(given["a"])[:-1]


def anything(result, given):
    """Its shape follows from what it was given in too many ways: that it is finite is what is tested."""


def per_layer(result, given):
    return result.shape == (given["layers"],)


def same_shapes(result, given):
    before, after = jax.tree.leaves(given["params"]), jax.tree.leaves(result)
    return [np.shape(leaf) for leaf in before] == [np.shape(leaf) for leaf in after]


def like_images(result, given):
    return result.shape == np.shape(given["images"])


def zero_kernel(given):
    """Total variation and frequency are documented to be nan there; what float32 has below 1e-38 is 0 to XLA."""
    return float(np.abs(np.asarray(given["kernel"], np.float32)).max()) < TINY


def zero_statistics(given):
    leaves = [leaf for leaf in jax.tree.leaves(given["params"]) if np.ndim(leaf) > 2]
    return any(float(np.abs(np.asarray(leaf, np.float32)).max()) < TINY for leaf in leaves)


def exponents(result, given):
    return result.ratio == result.deformation - result.noise


THREE = {
    "images": IMAGES,
    "deformed": array((3, 4, 4, 1), fill="1", lean=True),
    "noisy": array((3, 4, 4, 1), fill="0.5", lean=True),
}
HOMOGENEOUS = {"filter_size": FILTER, "stride": STRIDE, "layers": DEPTH}
BATCHES = "[(filled((2, 4, 1)), filled((2, 4, 1)) + 1, filled((2, 4, 1)) * 2)]"
OTHER_BATCHES = (
    "[(1, 2)]",
    "[(filled((2, 4)),) * 4]",
    "[None]",
    "[(filled((1, 4, 1)),) * 3]",
    "[(filled((2, 4, 1)),) * 3, (filled((2, 5, 1)),) * 3]",
    "[(filled((2, 4, 1), 'int32'),) * 3]",
    "[(filled((2, 4, 1), 'float32', 'nan'),) * 3]",
    "iter([(filled((2, 4, 1)),) * 3])",
    "[(filled((0, 4, 1)),) * 3]",
    "[(filled(()),) * 3]",
    "[(filled((2, 4, 1)), filled((2, 4, 1)), filled((2, 3, 1)))]",
    "[(None,) * 3]",
    "[(host((2, 4, 1), 'float64', '1e300'),) * 3]",
    "[(filled((2, 4, 1), 'float32', 'huge'),) * 3]",
    "[(filled((2, 4, 1), 'bfloat16'),) * 3]",
)

CASES = (
    Case("probes.cosine_distance", {"a": array((3, 4)), "b": array((3, 4), fill="1")}, reduced, traced=("a", "b")),
    Case("probes.squared_distance", {"a": array((3, 4)), "b": array((3, 4), fill="1")}, reduced, traced=("a", "b")),
    Case("probes.euclidean_distance", {"a": array((3, 4)), "b": array((3, 4), fill="1")}, reduced, traced=("a", "b")),
    Case(
        "probes.sensitivity",
        {
            "represent": REPRESENT,
            "images": IMAGES,
            "perturbed": array((3, 4, 4, 1), fill="1", lean=True),
            "distance": DISTANCE,
            "normaliser": NORMALISER,
            "numerator": NUMERATOR,
            "chunk": CHUNK,
        },
        taps,
        warned=NAN_TAPS,
        traced=("images", "perturbed"),
    ),
    Case(
        "probes.sensitivity_parts",
        {
            "represent": REPRESENT,
            "images": IMAGES,
            "perturbed": array((3, 4, 4, 1), fill="1", lean=True),
            "distance": DISTANCE,
            "normaliser": NORMALISER,
            "chunk": CHUNK,
        },
        lambda result, given: all(value.shape == (len(given["images"]),) for value in result.numerators.values()),
        nan=lambda given: getattr(given["represent"], "func", None) is not_finite,
        traced=("images", "perturbed"),
    ),
    Case(
        "probes.relative_sensitivity",
        {"represent": REPRESENT, **THREE, "normaliser": NORMALISER, "numerator": NUMERATOR, "chunk": CHUNK},
        lambda result, given: all(taps(part, given) for part in result),
        warned=NAN_TAPS,
        traced=("images", "deformed", "noisy"),
    ),
    Case(
        "probes.streamed_relative_sensitivity",
        {
            "represent": REPRESENT,
            "batches": thing(BATCHES, also=OTHER_BATCHES),
            "normaliser": NORMALISER,
            "numerator": NUMERATOR,
        },
        lambda result, given: all(taps(part, given) for part in result),
        warned=NAN_TAPS,
    ),
    Case(
        "probes.worst_case",
        {
            "represent": REPRESENT,
            "deform": thing("jax.tree_util.Partial(shift)", also=("other_shape", "lambda parameters, image: None")),
            "images": IMAGES,
            "start": array((3, 2), lean=True),
            "weights": thing(
                "{'wide': 1.0}",
                also=(
                    "{'none': 1.0}",
                    "{'wide': 0.0}",
                    "{'wide': nan}",
                    "{'wide': None}",
                    "{1: 1.0}",
                    "{'wide': 1e300}",
                    "{'wide': 10**400}",
                    "{'wide': -1}",
                    "{'wide': filled((2,))}",
                    "{'wide': True}",
                ),
            ),
            "limit": number("1.0", "2", also=("0.5", "1e-40")),
            "steps": integer("1", "2"),
            "step_size": number("None", "0.1"),
            "distance": DISTANCE,
            "chunk": CHUNK,
        },
        lambda result, given: result.trace.shape == (given["steps"],),
        nan=lambda given: getattr(given["represent"], "func", None) is not_finite,
        traced=("images", "start"),
    ),
    Case(
        "probes.effective_receptive_field",
        {
            "represent": thing("sites", also=NETWORKS),
            "shape": sizes("(3, 2)", also=("(4,)", "(3, 2, 2)", "(0,)", "(10**9,)", "(224, 224)")),
            "value": number("1.0", "2"),
            "stride": integer("1", "2"),
            "channels": integer("1", "2"),
            "chunk": CHUNK,
        },
        taps,
        warned=NAN_TAPS,
        traced=("value",),
    ),
    Case(
        "probes.matched_noise",
        {"key": key(), **{k: v for k, v in THREE.items() if k != "noisy"}},
        like_images,
        traced=("key", "images"),
    ),
    Case(
        "probes.rectified_noise",
        {
            "key": key(),
            "images": IMAGES,
            "deformed": array((3, 4, 4, 1), fill="1", lean=True),
            "rectified": flag("True"),
        },
        like_images,
        traced=("key", "images", "deformed"),
    ),
    Case(
        "probes.total_variation", {"kernel": KERNEL, "per_slice": flag()}, scalar, nan=zero_kernel, traced=("kernel",)
    ),
    Case(
        "probes.laplacian_power",
        {"kernel": KERNEL, "degenerate": option("'separate'", "'mean'", "'sum'")},
        lambda result, given: result.ndim == 1,
        traced=("kernel",),
    ),
    Case("probes.spatial_frequency", {"kernel": KERNEL}, scalar, nan=zero_kernel, traced=("kernel",)),
    Case(
        "probes.mean_filter",
        {"kernel": KERNEL},
        lambda result, given: result.shape == np.shape(given["kernel"])[:-2],
        traced=("kernel",),
    ),
    Case(
        "probes.laplacian_modes",
        {
            "size": integer(
                "3", "(3, 2)", also=("(3,)", "(0, 3)", "(3, 3, 3)", "()", "(10**9, 2)", "[3, 2]", "(2.0, 3)", "10**5")
            ),
            "ndim": integer("2", "1"),
        },
        lambda result, given: len(result[0]) == len(result[1]),
    ),
    Case(
        "probes.filter_statistics",
        {"params": PARAMS, "statistic": thing("probes.total_variation", also=("lambda kernel: 3",)), "size": SIZE},
        lambda result, given: isinstance(result, OrderedDict),
        nan=zero_statistics,
        traced=("params",),
    ),
    Case(
        "probes.smooth_filters",
        {"params": PARAMS, "sigma": number("1.0", "0"), "size": SIZE, "same_norm": flag()},
        same_shapes,
        traced=("params",),
    ),
    Case(
        "probes.sharpen_filters",
        {
            "params": PARAMS,
            "amount": number("0.5", "-1"),
            "sigma": number("1.0", "0"),
            "size": SIZE,
            "same_norm": flag("True"),
        },
        same_shapes,
        traced=("params", "amount"),
        earlier=({"amount": "1e30", "sigma": "0"},),
    ),
    Case(
        "probes.shuffle_channels",
        {"key": key(), "params": PARAMS, "layers": LAYERS, "outputs": flag()},
        same_shapes,
        traced=("key", "params"),
    ),
    Case(
        "probes.mean_channel",
        {"params": PARAMS, "layers": LAYERS, "first": thing("None", "'conv1'", also=("'none'", "['conv1']", "1.5"))},
        same_shapes,
        traced=("params",),
    ),
    Case(
        "probes.average_channels",
        {"represent": REPRESENT, "images": array((2, 3, 3, 2), lean=True)},
        lambda result, given: all(value.shape[-1] == 1 for value in result.values() if value.ndim > 2),
        call=lambda represent, images: probes.average_channels(represent)(images),
        nan=lambda given: getattr(given["represent"], "func", None) is not_finite,
    ),
    Case("probes.asymptotic_exponents", {"strided": flag(), "ndim": integer("1", "2")}, exponents),
    Case("probes.diffusion_constant", {"filter_size": integer("3", "4"), "printed": flag()}, scalar),
    Case("probes.drift", {"filter_size": integer("3", "4"), "printed": flag()}, scalar),
    Case(
        "probes.diffusion_profile",
        {"offsets": array((5,)), "filter_size": integer("3", "4"), "layer": integer("2", "1"), "printed": flag()},
        lambda result, given: result.shape == np.shape(given["offsets"]),
    ),
    Case("probes.log_log_slope", {"x": POSITIVE, "y": array((5,))}, scalar),
    Case(
        "probes.homogeneous_representations",
        {"images": array((2, 8)), **HOMOGENEOUS, "ndim": integer("1")},
        lambda result, given: len(result) == given["layers"],
    ),
    Case("probes.translation_sensitivity", {"length": integer("8", "16"), **HOMOGENEOUS}, per_layer),
    Case("probes.receptive_field_size", HOMOGENEOUS, per_layer),
    Case(
        "probes.balanced_weights",
        {"labels": array((5,), "int32")},
        lambda result, given: result.shape == np.shape(given["labels"]),
    ),
    Case(
        "probes.homogeneous_network",
        {
            "positions": thing(PAIRS_OF_PIXELS, also=OF_PIXELS),
            "weights": thing(
                "None",
                "np.array([1.0, 2.0, 1.0])",
                also=(
                    "np.zeros(3)",
                    "np.array([1, -1, 1])",
                    "np.ones(2)",
                    "np.full(3, nan)",
                    "np.full(3, 1e300)",
                    "np.array([1, 2, 3])",
                    "np.full(3, 1e-320)",
                    "np.full(3, True)",
                ),
            ),
            "shape": sizes("(8,)", also=("(8, 8)", "(1,)", "(10**9,)", "(10**5,)", "8")),
            **HOMOGENEOUS,
            "displacements": thing(
                "np.array([[-1], [1]])",
                also=(
                    "np.array([[0]])",
                    "np.zeros((0, 1), int)",
                    "[[1]]",
                    "np.array([[2**40]])",
                    "np.array([[1.5]])",
                    "np.array([1])",
                    "np.array([[1, 2]])",
                    "np.array([[100]])",
                    "np.array([[-(2**62)]])",
                ),
            ),
            "value": number("1.0", "2"),
            "boundary": option("'periodic'", "'clamp'"),
            "collisions": option("'superpose'", "'collapse'"),
            "rectified": flag("True"),
            "normaliser": option("'independent'", "'distinct'"),
            "noise_variance": number("None", "0.5"),
        },
        lambda result, given: result.ratio.shape == (given["layers"],),
        nan=lambda given: given["noise_variance"] == 0 or not np.any(given["displacements"]),
        warned=NAN_TAPS,
    ),
)
RESULT = "a named tuple of results, which checks nothing: "
EXEMPT = {
    "probes.Exponents": RESULT + "asymptotic_exponents",
    "probes.HomogeneousTheory": RESULT + "homogeneous_network",
    "probes.RelativeSensitivity": RESULT + "relative_sensitivity",
    "probes.SensitivityParts": RESULT + "sensitivity_parts",
    "probes.WorstCase": RESULT + "worst_case",
}
