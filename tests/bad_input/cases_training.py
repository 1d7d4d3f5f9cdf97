"""The campaign's table for ``deform_jax.training``, on one device and a network of a few weights."""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from campaign_runner import Case
from cases_models import FLAX, tiny, variables
from hostile_values import NAMES, array, flag, host, integer, key, name, number, option, path, thing
from jax.sharding import PartitionSpec

from deform_jax import data, training

NAMES |= {"training": training, "data": data, "P": PartitionSpec, "pathlib": pathlib}
PREPARED = data.Prepare((0.5,), (0.25,))


@name
def prepare(keys, images):
    return PREPARED(None, images)


@name
@functools.cache
def state():
    """The state before the first step, without a compilation."""
    recipe = training.Recipe(batch_size=2, epochs=1)
    abstract = jax.eval_shape(lambda: training.create_state(tiny(), recipe, jax.random.key(0), (4, 4, 1), 2))
    made = jax.tree.map(
        lambda leaf: leaf if hasattr(leaf.dtype, "_rules") else jnp.zeros(leaf.shape, leaf.dtype), abstract
    )
    return made.replace(key=jax.random.key(0), **variables())


@name
def batch(count=2, dtype="float32", **changes):
    """Images and labels."""
    images = host((count, 4, 4, 1), "float32")
    return {
        "images": (images * (255 if dtype == "uint8" else 1)).astype(dtype),
        "labels": np.arange(count, dtype=np.int32) % 2,
        **changes,
    }


@name
def mesh():
    return training.make_mesh(devices=jax.devices()[:1])


def saved(path, **given):
    """Save under a new folder, where the path is relative."""
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/{path}" if isinstance(path, str) and path and not path.startswith(("/", "~")) else path
        return training.save(place, **given)


def anything(result, given):
    """That it is made, or finite, is what is tested."""


def per_example(result, given):
    return result.shape == np.shape(given["logits"])[:1]


def stepped(result, given):
    after, metrics = result
    return isinstance(after, training.State) and set(metrics) == {"loss", "accuracy"}


BATCHES = (
    "batch(labels=None)",
    "batch(labels=np.zeros(3, int))",
    "batch(labels=np.zeros((2, 2), int))",
    "batch(labels=np.zeros(2))",
    "batch(labels=np.full(2, 7))",
    "batch(labels=np.full(2, -3))",
    "batch(images=None)",
    "batch(images=np.zeros((2, 4, 4)))",
    "batch(images=np.zeros((2, 4, 4, 3), 'float32'))",
    "batch(0)",
    "batch(dtype='int32')",
    "{'images': filled((2, 4, 4, 1))}",
    "batch(images='text')",
    "batch(labels=jax.random.key(0))",
    "batch(images=np.full((2, 4, 4, 1), nan, 'float32'))",
)
MESHES = thing("mesh()", also=("training.make_mesh", "jax.devices()", "jax.sharding.Mesh(jax.devices()[:1], ('x',))"))
STATES = thing("state()", also=("training.State", "variables()"))
TREES = thing(
    "variables()",
    also=(
        "{'params': [filled((2,))]}",
        "{'params': {1: filled((2,))}}",
        "{'params': {'a': 'x'}}",
        "{'a': jax.random.key(0)}",
        "filled((2,))",
        "{'a': np.array(['x'])}",
        "{'a': {}}",
        "{'a/b': filled((2,))}",
        "{'': filled((2,))}",
        "{'a': np.zeros((0, 3))}",
        "{'a': 1.0}",
        "{'a': np.zeros(2, 'datetime64[s]')}",
        "{'a': np.array([None])}",
    ),
)
SETS = thing("batch(dtype='uint8')", also=(*BATCHES, "batch(dtype='uint8', labels=np.full(2, 2**31 + 1))"))
PREPARES = thing(
    "prepare",
    also=(
        "lambda keys, images: None",
        "lambda keys, images: images[:1]",
        "data.Prepare",
        "data.Prepare((0.5,) * 3, (0.25,) * 3)",
    ),
)
NETWORKS = thing("tiny()", also=("Foreign()", "tiny(num_classes=1)", "tiny(num_classes=0)", "training"))

CASES = (
    Case(
        "training.Recipe",
        {
            "learning_rate": number("0.1"),
            "momentum": number("0.9", "0"),
            "weight_decay": number("0.0"),
            "schedule": option("'cosine'", "'constant'"),
            "warmup_epochs": number("0.0", "1"),
            "batch_size": integer("2"),
            "epochs": integer("2"),
            "stop_accuracy": number("None", "0.5"),
            "label_smoothing": number("0.0", "0.1"),
            "method": option("'sgd'", "'adam'"),
            "loss": option("'cross_entropy'", "'hinge'"),
            "stop_interpolation": integer("None"),
        },
        lambda result, given: isinstance(result, training.Recipe),
    ),
    Case(
        "training.Recipe(optimizer)",
        {
            "learning_rate": number("0.1"),
            "weight_decay": number("0.0"),
            "warmup_epochs": number("0.0"),
            "epochs": integer("2"),
            "steps_per_epoch": integer("3"),
        },
        anything,
        call=lambda steps_per_epoch, **fields: training.Recipe(**fields).optimizer(steps_per_epoch),
    ),
    Case(
        "training.cross_entropy",
        {"logits": array((3, 4)), "labels": array((3,), "int32"), "smoothing": number("0.0", "0.1")},
        per_example,
        traced=("logits", "labels", "smoothing"),
    ),
    Case(
        "training.hinge",
        {"logits": array((3, 1)), "labels": array((3,), "int32", fill="1")},
        per_example,
        traced=("logits", "labels"),
    ),
    Case(
        "training.create_state",
        {
            "model": NETWORKS,
            "recipe": thing("training.Recipe(batch_size=2, epochs=1)", also=("training.Recipe",)),
            "key": key(),
            "image_shape": thing(
                "(4, 4, 1)",
                also=(
                    "(4, 4)",
                    "4",
                    "(0, 4, 1)",
                    "(4.0, 4, 1)",
                    "[4, 4, 1]",
                    "(10**9, 10**9, 1)",
                    "(-1, 4, 1)",
                    "('4', 4, 1)",
                ),
            ),
            "steps_per_epoch": integer("3"),
        },
        lambda result, given: isinstance(result, training.State),
        call=lambda **given: jax.eval_shape(lambda: training.create_state(**given)),
    ),
    Case(
        "training.epoch_order",
        {"key": key(), "epoch": integer("0", "3"), "n": integer("7"), "batch_size": integer("2")},
        lambda result, given: result.shape == (given["n"] // given["batch_size"], given["batch_size"]),
        traced=("key",),
    ),
    Case(
        "training.train_step",
        {"state": STATES, "batch": thing("batch()", also=BATCHES)},
        stepped,
        dear=True,
        also=FLAX,
        call=lambda **given: jax.eval_shape(lambda: training.train_step(**given)),
    ),
    Case(
        "training.prepared_train_step",
        {"state": STATES, "batch": thing("batch(dtype='uint8')", also=BATCHES), "prepare": PREPARES},
        stepped,
        dear=True,
        also=FLAX,
        call=lambda **given: jax.eval_shape(lambda: training.prepared_train_step(**given)),
    ),
    Case(
        "training.indexed_train_step",
        {
            "state": STATES,
            "batch": thing(
                "batch(dtype='uint8', order=np.array([1, 0]))",
                also=(
                    *BATCHES,
                    "batch(dtype='uint8', order=np.zeros(2))",
                    "batch(dtype='uint8', order=np.zeros((2, 2), int))",
                ),
            ),
            "prepare": PREPARES,
        },
        stepped,
        dear=True,
        also=FLAX,
        call=lambda **given: jax.eval_shape(lambda: training.indexed_train_step(**given)),
    ),
    Case(
        "training.make_mesh",
        {
            "seed": integer("1", "2"),
            "data": integer("1", "2"),
            "devices": thing("None", also=("jax.devices()", "jax.devices()[:1]", "jax.devices()[0]")),
        },
        lambda result, given: result.shape == {"seed": given["seed"], "data": given["data"]},
        earlier=({"seed": "10**9", "data": "np.uint8(2)"},),
    ),
    Case(
        "training.stack",
        {
            "trees": thing(
                "[{'a': filled((2,))}]",
                also=("[{'a': filled((2,))}] * 2", "[{'a': 'x'}]", "[{'a': filled(())}]", "[{'a': jax.random.key(0)}]"),
            ),
            "mesh": MESHES,
        },
        anything,
    ),
    Case(
        "training.unstack",
        {
            "tree": thing(
                "{'a': filled((2, 3))}",
                also=(
                    "{'a': filled(())}",
                    "{'a': filled((2,)), 'b': filled((3,))}",
                    "{'a': 'x'}",
                    "{'a': jax.random.split(jax.random.key(0), 2)}",
                ),
            )
        },
        lambda result, given: isinstance(result, list),
    ),
    Case(
        "training.replicate",
        {
            "tree": thing("{'a': filled((2, 3))}", also=("{'a': 'x'}", "filled(())", "{'a': jax.random.key(0)}")),
            "mesh": MESHES,
        },
        anything,
    ),
    Case(
        "training.pmapped",
        {
            "step": thing("training.train_step"),
            "mesh": MESHES,
            "batch_layout": thing(
                "{'images': P('seed', 'data')}", also=("{'images': 'seed'}", "{'images': P('none')}")
            ),
            "donate": flag("True"),
        },
        lambda result, given: callable(result),
    ),
    Case(
        "training.evaluate",
        {
            "model": NETWORKS,
            "variables": thing("variables()"),
            "evaluation": SETS,
            "prepare": PREPARES,
            "loss": option("'cross_entropy'", "'hinge'"),
        },
        lambda result, given: set(result) == {"loss", "accuracy"},
        also=FLAX,
        dear=True,
    ),
    Case(
        "training.fit",
        {
            "model": NETWORKS,
            "recipe": thing(
                "training.Recipe(batch_size=2, epochs=1)",
                also=("training.Recipe(batch_size=9)", "training.Recipe(batch_size=2, epochs=1, loss='hinge')"),
            ),
            "train": SETS,
            "prepare": PREPARES,
            "seeds": thing("(0,)", also=("(0, 0)", "(-1,)", "(2**31,)", "3", "('0',)", "(0.0,)", "(None,)", "(0, 1)")),
            "evaluation": thing("None", also=BATCHES),
            "folders": thing("None", also=("['a', 'a']", "[None]", "['a\\0b']", "'folder'", "[3]")),
            "mesh": thing("None", "mesh()", also=MESHES.texts),
            "save_epochs": thing("()", also=("(0,)", "(2,)", "1", "('1',)")),
            "save_steps": thing("()", also=("(0,)", "(99,)", "1", "('1',)")),
            "checkpoint_steps": integer("None", "1"),
            "checkpoint_epochs": integer("1"),
            "progress": thing("False", also=("3",)),
            "tensorboard": flag("False"),
        },
        lambda result, given: len(result) == len(given["seeds"]),
        earlier=({"model": "Foreign()"}, {"progress": "np.ones(3)"}, {"folders": "['a', 'a']"}),
        dear=True,
    ),
    Case(
        "training.save",
        {
            "path": path("'checkpoint'"),
            "variables": TREES,
            "resume": thing("None", also=TREES.texts),
            "manifest": thing("None", "{'a': 1}", also=("{'a': object()}", "{'a': nan}", "{(1,): 2}")),
        },
        anything,
        call=saved,
        also=((FileExistsError, "Remove it|another name"), (training.SaveError, "Mend that|Make room")),
        dear=True,
    ),
    Case(
        "training.load",
        {"path": path("'missing'"), "resume": flag()},
        anything,
        refused=True,
        also=((FileNotFoundError, "correct the path"), (training.CorruptCheckpointError, "cannot be read")),
    ),
    Case("training.load_newest", {"folder": path("'missing'")}, lambda result, given: result is None),
)
PROTOCOL = "a protocol: what a stream must have"
EXEMPT = {
    "training.Checkpoint": "a result of load, which checks nothing",
    "training.CorruptCheckpointError": "an exception",
    "training.EvaluationStream": PROTOCOL,
    "training.Interrupted": "an exception",
    "training.Run": "a result of fit, which checks nothing",
    "training.SaveError": "an exception",
    "training.State": "a result of create_state, which checks nothing",
    "training.TrainStream": PROTOCOL,
}
