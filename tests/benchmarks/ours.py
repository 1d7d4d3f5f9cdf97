"""deform_jax at its best setting: what a user of the library calls, jitted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import shared_inputs as inputs
from jobs import Job

from deform_jax import models, probes, training, warps


def tps(*, count, size, grid, bound):
    """Sampling, fitting, dense field and bilinear warp of every image by its own spline."""
    images, shifts = jnp.asarray(inputs.images(count, size)), jnp.asarray(inputs.shifts(count, grid, bound))
    keys = jax.random.split(jax.random.key(0), count)
    drawn = jax.jit(jax.vmap(warps.random_tps(grid=(grid, grid), max_shift=bound)))
    given = jax.jit(jax.vmap(warps.deform_tps))
    return Job(
        run=lambda: jax.block_until_ready(drawn(keys, images)),
        answer=lambda: np.asarray(given(shifts, images)),
        count=count,
    )


def max_entropy(*, count, size, displacement, cutoff):
    images, coefficients = jnp.asarray(inputs.images(count, size)), jnp.asarray(inputs.coefficients(count, cutoff))
    keys = jax.random.split(jax.random.key(0), count)
    strength = warps.temperature(displacement, cutoff=cutoff, size=(size, size))
    drawn = jax.jit(jax.vmap(warps.random_max_entropy(displacement=displacement, cutoff=cutoff)))
    given = jax.jit(jax.vmap(lambda c, image: warps.deform_max_entropy(c, image, temperature=strength)))
    return Job(
        run=lambda: jax.block_until_ready(drawn(keys, images)),
        answer=lambda: np.asarray(given(coefficients, images)),
        count=count,
    )


def tps_sampling(*, count, size, grid, bound):
    """Of the same warp, the bilinear sampling alone, by fields that are there."""
    shifts = jnp.asarray(inputs.shifts(count, grid, bound))
    return _sampling(count, size, lambda: jax.vmap(lambda one: warps.tps_field(one, (size, size)))(shifts))


def max_entropy_sampling(*, count, size, displacement, cutoff):
    """As ``tps_sampling``."""
    coefficients = jnp.asarray(inputs.coefficients(count, cutoff))
    strength = warps.temperature(displacement, cutoff=cutoff, size=(size, size))
    field = functools.partial(warps.max_entropy_field, shape=(size, size), temperature=strength)
    return _sampling(count, size, lambda: jax.vmap(field)(coefficients))


def _sampling(count, size, fields):
    images, fields = jnp.asarray(inputs.images(count, size)), jax.jit(fields)()
    sample = jax.jit(jax.vmap(warps.remap))
    return Job(
        run=lambda: jax.block_until_ready(sample(images, fields)),
        answer=lambda: np.asarray(sample(images, fields)),
        count=count,
    )


def _vgg(blocks, channels, downsampling, classes=10):
    model = models.BlockVGG(blocks=blocks, downsampling=downsampling, num_classes=classes)
    weights = inputs.vgg_kernels(blocks, channels, classes, downsampling)
    sample = jnp.zeros((1, *[2 ** len(blocks)] * 2, channels))
    empty = jax.eval_shape(model.init, jax.random.key(0), sample)

    def fill(path, leaf):
        layer, kind = path[-2].key, path[-1].key
        if kind == "kernel":
            return jnp.asarray(weights[layer])
        return jnp.ones(leaf.shape) if kind in ("scale", "var") else jnp.zeros(leaf.shape)

    return model, jax.tree_util.tree_map_with_path(fill, empty)


def sensitivity(*, count, size, blocks, chunk=None):
    """Cosine sensitivities of every layer, the normaliser's median over pairs included (LS 2.1)."""
    model, variables = _vgg(blocks, 3, "max")
    represent = models.represent(model, variables)
    clean = inputs.images(count, size)
    moved = jnp.asarray(inputs.perturbed(clean))
    clean = jnp.asarray(clean)

    def run():
        return jax.block_until_ready(probes.sensitivity(represent, clean, moved, chunk=chunk))

    return Job(run=run, answer=lambda: np.asarray([float(value) for value in run().values()]), count=2 * count)


def forward(*, count, size, blocks):
    """Of the same, both batches through the network alone; each layer's largest value stands for its use."""
    model, variables = _vgg(blocks, 3, "max")
    represent = models.represent(model, variables)
    clean = inputs.images(count, size)
    batches = jnp.asarray(clean), jnp.asarray(inputs.perturbed(clean))
    largest = jax.jit(lambda images: jax.tree.map(jnp.max, represent(images)))
    return Job(run=lambda: jax.block_until_ready([largest(one) for one in batches]), answer=None, count=2 * count)


def train_step(*, count, size, blocks, downsampling, compute_dtype="float32", devices=1):
    """SGD with momentum and weight decay on kernels, on images and labels that lie on the device."""
    model, variables = _vgg(blocks, 3, downsampling)
    model = model.clone(compute_dtype=compute_dtype)
    recipe = training.Recipe(learning_rate=0.01, schedule="constant", batch_size=count)
    batch = {"images": inputs.images(count, size), "labels": inputs.labels(count, 10)}
    return _steps(model, variables, recipe, batch, count, devices)


def simple_cnn(*, count, length, layers, width, filter_size):
    """SI's 1-D simple CNN, one step of SGD with a hinge loss."""
    model = models.SimpleCNN(layers=layers, channels=width, filter_size=filter_size)
    variables = {"params": jax.tree.map(jnp.asarray, inputs.simple_cnn(layers, width, filter_size))}
    recipe = training.Recipe(learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", loss="hinge")
    images, labels = inputs.pixels(count, length)
    return _steps(model, variables, recipe, {"images": images, "labels": labels}, 1)


def simple_cnn_products(*, count, length, layers, width, filter_size):
    """Of the same step, the products of matrices alone: outputs and both gradients, of all layers but the first."""
    rng = np.random.default_rng(0)
    rows, entries = count * length, filter_size * width
    x, back = (jnp.asarray(rng.normal(size=(rows, n)), jnp.float32) for n in (entries, width))
    kernels = [jnp.asarray(rng.normal(size=(entries, width)), jnp.float32) for _ in range(layers - 1)]
    products = jax.jit(lambda x, kernel, back: (x @ kernel, back @ kernel.T, x.T @ back))
    return Job(
        run=lambda: jax.block_until_ready([products(x, kernel, back) for kernel in kernels]), answer=None, count=1
    )


def _steps(model, variables, recipe, batch, count, devices=1):
    step = training.pmapped(training.train_step, training.make_mesh(1, devices))
    shape = batch["images"].shape[1:]
    blank = training.create_state(model, recipe, jax.random.key(0), shape, 1000)
    batch = {name: jnp.asarray(value)[None] for name, value in batch.items()}
    held = {}

    def reset():
        # Copies, since a step donates its state.
        state = blank.replace(params=variables["params"], batch_stats=variables.get("batch_stats", {}))
        held["state"] = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True)[None], state)

    def run():
        held["state"], metrics = step(held["state"], batch)
        return float(metrics["loss"][0])

    def answer():
        reset()
        losses = np.asarray([run() for _ in range(3)])
        reset()
        return losses

    reset()
    return Job(run=run, answer=answer, count=count)


def convolutions(*, count, size, blocks, what):
    """One kind of the training step's convolutions, alone: all layers of a block VGG, one program each."""
    given = inputs.convolutions(count, size, blocks)

    def forward(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    kinds = {
        "forward": lambda x, kernel, back: forward(x, kernel),
        "input gradient": lambda x, kernel, back: jax.vjp(lambda x: forward(x, kernel), x)[1](back)[0],
        "weight gradient": lambda x, kernel, back: jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](back)[0],
    }
    function = jax.jit(kinds[what])
    layers = [tuple(map(jnp.asarray, layer)) for layer in given]
    return Job(
        run=lambda: [function(*layer).block_until_ready() for layer in layers],
        answer=lambda: np.concatenate([np.ravel(function(*layer)) for layer in layers]),
        count=count,
    )
