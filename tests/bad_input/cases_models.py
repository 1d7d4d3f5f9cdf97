"""The campaign's table for ``deform_jax.models``. Networks are traced, not compiled: their checks come before."""

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from campaign_runner import Case
from flax import linen as nn
from hostile_values import NAMES, array, flag, integer, key, name, number, option, path, sizes, thing

from deform_jax import models

NAMES["models"] = models
FLAX = ((flax.errors.FlaxError, r"flax\.readthedocs\.io"),)
"""Flax's own errors, of variables that are another network's; each links to its remedy."""


@name
class Foreign(nn.Module):
    """A module with batch norm of somebody else's."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(2)(images))
        return x, {"x": x}


@name
def tiny(**fields):
    """A block VGG of one block."""
    return models.BlockVGG(**{"blocks": ((1, 2),), "num_classes": 2, **fields})


@name
def variables(model=None, shape=(1, 4, 4, 1)):
    """Its variables, all 0.1, without compiling an initialisation."""
    model = tiny() if model is None else model
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape)))
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), abstract)


@name
def state_dict(network="vgg11", width=0.02, **fields):
    """A PyTorch state dict of a narrow network."""
    model = models.create(network, width=width, **fields)
    return models.to_torch(network, variables(model, (1, 32, 32, 3)), width=width, **fields)


def initialised(architecture, shape=(1, 32, 32, 3)):
    """Initialise and apply, abstractly."""

    def call(images, **fields):
        def both():
            return getattr(models, architecture)(**fields).init_with_output(jax.random.key(0), images, train=False)

        (logits, taps), _ = jax.eval_shape(both)
        return logits, taps

    return call


def layer(architecture):
    """The same of a layer."""

    def call(x, **fields):
        return jax.eval_shape(lambda: getattr(models, architecture)(**fields).init_with_output(jax.random.key(0), x)[0])

    return call


def logits_and_taps(result, given):
    logits, taps = result
    return logits.shape == (len(given["images"]), int(given["num_classes"])) and next(iter(taps)) == "input"


def keywords(fields):
    """What can be passed by keyword."""
    return {str(field): value for field, value in fields.items()} if isinstance(fields, dict) else {}


def anything(result, given):
    """That it is made, or finite, is what is tested."""


def halved(result, given):
    n, height, width, channels = np.shape(given["images"])
    return result.shape == (n, height // 2, width // 2, channels)


def of_shape(result, given):
    return result.shape == tuple(map(int, given["shape"])) and jnp.issubdtype(result.dtype, jnp.floating)


PRECISION = thing("None", "'highest'", "jax.lax.Precision.HIGH", also=("'most'", "'HIGHEST'", "('highest', 'highest')"))
FIELDS = {
    "num_classes": integer("2", "10"),
    "width": number("0.02"),
    "axis_name": thing("None", also=("('a',)",)),
    "momentum": number("0.9", "0"),
    "precision": PRECISION,
    "compute_dtype": option("'float32'", "'bfloat16'"),
}
ZOO = {**FIELDS, "initial_gain": number("1.0", "2")}
SQUARE = array((1, 32, 32, 3), lean=True)
FORM = option("'cifar10'")
DROPOUT = number("0.5", "0")
DTYPE = thing(
    "'float32'", "jnp.float32", "'bfloat16'", also=("'int32'", "int", "'float33'", "'complex64'", "jnp.float16")
)
KERNEL_SHAPE = thing(
    "(3, 3, 2, 4)",
    "[2, 4]",
    also=(
        "()",
        "(4,)",
        "(0, 4)",
        "(3, 0, 4)",
        "(-1, 4)",
        "(10**9, 4)",
        "(10**5, 10**5)",
        "(2.0, 4)",
        "(10**400, 1)",
        "('2', 4)",
        "(True, 4)",
        "4",
        "np.array([2, 4])",
        "(jnp.asarray(2), 4)",
    ),
)
WITH_TREES = thing(
    "variables()",
    also=(
        "{'params': {'head': None}}",
        "variables()['params']",
        "variables(tiny(downsampling='strided'))",
        "{**variables(), 'params': {'a': filled((2,))}}",
        "{'params': 3}",
        "jax.tree.map(lambda x: x * nan, variables())",
        "jax.tree.map(lambda x: x.astype('int32'), variables())",
    ),
)
MODEL = thing(
    "tiny()",
    also=(
        "models.BlockVGG",
        "tiny(width=nan)",
        "tiny(blocks=3)",
        "Foreign()",
        "tiny(downsampling='none')",
        "nn",
        "models.create('lenet')",
    ),
)
NAMES["nn"] = nn
SMALL = array((2, 4, 4, 1), lean=True)
STATE = thing(
    "state_dict()",
    also=(
        "{'a': filled((2,))}",
        "{'a': 'text'}",
        "{**state_dict(), 'more': filled((2,))}",
        "{'a': [[1], [1, 2]]}",
        "{None: None}",
        "{'classifier.bias': filled(())}",
        "{**state_dict(), 'features.0.weight': filled((3, 3))}",
        "{**state_dict(), 'features.0.weight': 'x'}",
        "{'module.': filled((2,))}",
        "{**state_dict(), 'features.0.weight': np.zeros((1, 3, 3, 3), complex)}",
    ),
)
NETWORK_FIELDS = thing(
    "{'width': 0.02}", also=("{'width': 1e9}", "{'none': 3}", "{'num_classes': 'x'}", "{'form': 'imagenet'}")
)


def _network(architecture, images=SQUARE, *, dear=True, also=FIELDS, earlier=(), **fields):
    return Case(
        f"models.{architecture}",
        {**also, **fields, "images": images},
        logits_and_taps,
        call=initialised(architecture),
        earlier=earlier,
        dear=dear,
    )


CASES = (
    _network(
        "BlockVGG",
        dear=False,
        blocks=thing(
            "((1, 2),)",
            "((1, 2), (1, 3))",
            also=(
                "((0, 2),)",
                "((1, 10**9),)",
                "((10, 2),)",
                "((1, 2, 3),)",
                "((1, nan),)",
                "((1, 2),) * 9",
                "((1, 2),) * 40",
                "((1, '2'),)",
                "((True, 2),)",
                "[[1, 2]]",
                "(1, 2)",
                "((1, {}),)",
            ),
        ),
        downsampling=option("'max'", "'average'", "'strided'"),
    ),
    _network("FullyConnected", dear=False, also=ZOO, layers=integer("2", "3"), hidden=integer("8")),
    _network("LeNet", dear=False, also=ZOO, earlier=({"initial_gain": "jnp.asarray(1.0)"},)),
    _network("AlexNet", also=ZOO, form=FORM, dropout=DROPOUT),
    _network("VGG", also=ZOO, depth=integer("11"), batch_norm=flag(), form=FORM, dropout=DROPOUT),
    _network("ResNet", also=ZOO, depth=integer("18"), form=FORM),
    _network("EfficientNetB0", also=ZOO, dropout=DROPOUT),
    _network(
        "SimpleCNN",
        array((2, 8, 1), lean=True),
        dear=False,
        also=ZOO,
        layers=integer("2", "1"),
        filter_size=integer("2"),
        stride=integer("1", "2"),
        channels=integer("4"),
        activation=option("'relu'", "'linear'"),
    ),
    Case(
        "models.NTKDense",
        {
            "features": integer("3"),
            "scale": number("None", "0.5"),
            "use_bias": flag("True"),
            "precision": PRECISION,
            "x": array((2, 5)),
        },
        lambda result, given: result.shape == (*np.shape(given["x"])[:-1], given["features"]),
        call=layer("NTKDense"),
    ),
    Case(
        "models.NTKConv",
        {
            "features": integer("3"),
            "filter_size": integer("2"),
            "stride": integer("1", "2"),
            "precision": PRECISION,
            "x": array((2, 6, 4, 1)),
        },
        lambda result, given: result.shape[-1] == given["features"],
        call=layer("NTKConv"),
    ),
    Case(
        "models.PatchConv",
        {"features": integer("3"), "use_bias": flag("True"), "precision": PRECISION, "images": array((2, 6, 4, 1))},
        lambda result, given: result.shape[-1] == given["features"],
        call=lambda images, **fields: layer("PatchConv")(images, **fields),
    ),
    Case("models.subsample", {"images": array((2, 5, 4, 1))}, halved, traced=("images",)),
    Case("models.average_pool", {"images": array((2, 5, 4, 1))}, halved, traced=("images",)),
    Case(
        "models.max_pool",
        {
            "images": array((2, 6, 5, 1)),
            "window": integer("3", "2"),
            "stride": integer("2", "1"),
            "padding": integer("1", "0"),
        },
        lambda result, given: result.ndim == 4,
        traced=("images",),
    ),
    Case(
        "models.adaptive_average_pool",
        {"images": array((2, 6, 5, 1)), "shape": sizes("(2, 3)", "(6, 5)")},
        lambda result, given: result.shape[1:3] == tuple(map(int, given["shape"])),
        traced=("images",),
    ),
    Case(
        "models.truncated_normal_fan_in",
        {"key": key(), "shape": KERNEL_SHAPE, "dtype": DTYPE},
        of_shape,
        traced=("key",),
    ),
    Case("models.uniform_fan_in", {"key": key(), "shape": KERNEL_SHAPE, "dtype": DTYPE}, of_shape, traced=("key",)),
    Case("models.normal_fan_out", {"key": key(), "shape": KERNEL_SHAPE, "dtype": DTYPE}, of_shape, traced=("key",)),
    Case(
        "models.uniform_bias",
        {"fan_in": integer("9", "1"), "key": key(), "shape": KERNEL_SHAPE, "dtype": DTYPE},
        of_shape,
        call=lambda fan_in, key, shape, dtype: models.uniform_bias(fan_in)(key, shape, dtype),
        traced=("key",),
    ),
    Case(
        "models.create",
        {"name": option("'lenet'", "'vgg11'", "'block_vgg_cifar10'"), "fields": NETWORK_FIELDS},
        anything,
        call=lambda name, fields: models.create(name, **keywords(fields)),
    ),
    Case(
        "models.represent",
        {"model": MODEL, "variables": WITH_TREES, "output": flag(), "precision": PRECISION, "images": SMALL},
        lambda result, given: next(iter(result)) == "input",
        call=lambda images, **given: models.represent(**given)(images),
        also=FLAX,
        traced=("variables", "images"),
        earlier=({"model": "Foreign()", "images": "filled((), 'float32')"},),
    ),
    Case(
        "models.with_batch_statistics",
        {"model": MODEL, "variables": WITH_TREES, "images": SMALL},
        lambda result, given: "params" in result,
        also=FLAX,
        traced=("variables", "images"),
        earlier=({"images": "host((2, 4, 4, 1), 'float32', 'huge')"},),
    ),
    Case(
        "models.capture",
        {
            "model": MODEL,
            "variables": WITH_TREES,
            "names": thing(
                "None", "'.*'", "('head',)", also=("'('", "'none'", "('none',)", "lambda name: False", "[1]")
            ),
            "output": flag("True"),
            "images": SMALL,
        },
        lambda result, given: next(iter(result)) == "input",
        call=lambda images, **given: models.capture(**given)(images),
        also=FLAX,
        traced=("variables", "images"),
    ),
    Case(
        "models.from_torch",
        {"name": option("'vgg11'", also=("'lenet'", "'resnet18'")), "state": STATE, "fields": NETWORK_FIELDS},
        lambda result, given: "params" in result,
        call=lambda name, state, fields: models.from_torch(name, state, **keywords(fields)),
        dear=True,
    ),
    Case(
        "models.to_torch",
        {
            "name": option("'vgg11'", also=("'lenet'", "'resnet18'")),
            "fields": NETWORK_FIELDS,
            "variables": thing(
                "variables(models.create('vgg11', width=0.02), (1, 32, 32, 3))",
                also=(*WITH_TREES.texts, "{1: filled((2,))}", "{'params': {1: {2: 'x'}}}"),
            ),
        },
        lambda result, given: len(result) > 0,
        call=lambda name, variables, fields: models.to_torch(name, variables, **keywords(fields)),
        earlier=({"variables": "{1: 2, 'a': 3}"},),
        dear=True,
    ),
    # No names of published networks, nor the hub's: they would be downloaded.
    Case(
        "models.load_pretrained",
        {
            "source": path("'missing.pth'"),
            "name": thing("None", "'vgg11_imagenet'", also=("'vgg11_imagenet '", "'none'")),
        },
        anything,
        refused=True,
    ),
    Case("models.read_weights", {"source": path("'missing.pth'")}, anything, refused=True),
)
EXEMPT: dict[str, str] = {}
