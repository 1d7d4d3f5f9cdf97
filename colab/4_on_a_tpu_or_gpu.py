# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab][badge]][colab]
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/_OWNER_/deform_jax/blob/main/colab/4_on_a_tpu_or_gpu.ipynb
#
# # On a TPU or GPU
#
# In Colab choose *Runtime → Change runtime type*, and run the same cells: nothing in the code changes. What does change
# is the speed, the rounding of products, and over how many devices seeds and batches are spread. On a CPU the devices
# below are simulated, one per core, so that what is shown works there too.

# %%
# In Colab, fetch the repository and what it needs. The jax, flax and numpy that are there are pinned, and so stay.
import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys

if importlib.util.find_spec("experiments") is None:
    subprocess.run(["git", "clone", "-q", "--depth=1", "https://github.com/_OWNER_/deform_jax"], check=True)
    os.chdir("deform_jax")
    present = [d for d in importlib.metadata.distributions() if d.name in ("jax", "jaxlib", "flax", "numpy")]
    pathlib.Path("present.txt").write_text("\n".join(f"{d.name}=={d.version}" for d in present))
    install = ["install", "-q", "-c", "present.txt", "-e", ".[experiments]"]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)

importlib.import_module("experiments")  # before jax: keeps compiled programs, and on a CPU simulates a device per core
SMOKE = bool(os.environ.get("DEFORM_JAX_SMOKE"))  # set by the tests, for sizes at which there is nothing to be seen

# %%
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from deform_jax import data, models, training, warps

print(f"jax {jax.__version__}")
for device in jax.devices():
    print(device.id, device.platform, device.device_kind)

# %% [markdown]
# ## Timing a warp properly
#
# Two things make timings wrong. The first call of a jitted function **compiles** it, for these shapes; and calls return
# **before the device is done**, so that a clock must wait with `block_until_ready`. (Printing a result waits, too.)

# %%
batch = 16 if SMOKE else 1024
images = jax.random.uniform(jax.random.key(0), (batch, 32, 32, 3))
keys = jax.random.split(jax.random.key(1), batch)
deform = jax.jit(jax.vmap(warps.random_tps(grid=(3, 3), max_shift=2.0)))


def seconds(function, *arguments, repeats=3 if SMOKE else 20):
    """Median time of a call that is done, once compiled."""
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


begun = time.perf_counter()
jax.block_until_ready(deform(keys, images))
print(f"first call, with compilation: {time.perf_counter() - begun:.2g} s")
print(f"calls after it:               {seconds(deform, keys, images):.2g} s")

begun = time.perf_counter()
result = deform(keys, images)
print(f"only until it is under way:   {time.perf_counter() - begun:.2g} s, which is not the time of the warp")
_ = jax.block_until_ready(result)

# %% [markdown]
# A warp reads an image and writes one, so what it costs on an accelerator is best said beside a plain copy of the
# images, which the memory alone limits.

# %%
warp, copy = seconds(deform, keys, images), seconds(jax.jit(lambda x: x + 1), images)
speed = 2 * images.nbytes / copy / 1e9
print(f"{batch / warp:,.0f} images/s, {copy / warp:.0%} of the speed of a copy, which runs at {speed:.3g} GB/s")

# %% [markdown]
# ## Rounding
#
# By default TPUs multiply matrices in bfloat16 and recent GPUs in TF32. In the warps' and probes' own products that
# would move pixels and blur small distances, so there, and in the networks that `models.represent` gives to a probe,
# the highest precision is set; training keeps the platform's default. What the default would do to a field of shifts
# of up to 10 pixels (on a CPU: nothing):

# %%
basis = jax.random.normal(jax.random.key(2), (25, 224 * 224)) / 5
shifts = jax.random.uniform(jax.random.key(3), (2, 25), minval=-10, maxval=10)
default, highest = (jnp.matmul(shifts, basis, precision=precision) for precision in ("default", "highest"))
print(f"largest difference: {jnp.abs(default - highest).max():.2g} pixels")

# %% [markdown]
# ## Seeds on the mesh
#
# Training runs on a mesh of devices with axes `("seed", "data")`: whole networks stand side by side along the first,
# the batch of each is split along the second. As many seeds as divide the devices need no communication at all.

# %%
seeds = (0, 1)
side = math.gcd(len(seeds), jax.device_count())  # this many at once
mesh = training.make_mesh(side, jax.device_count() // side)
print(dict(mesh.shape))

fashion = data.load("fashion_mnist_subset")
count = 256 if SMOKE else 2048
train = {"images": fashion.train_images[:count], "labels": fashion.train_labels[:count]}
prepare = data.Prepare.from_images(fashion.train_images)
model = models.create("block_vgg_tiny", width=0.25 if SMOKE else 1.0, axis_name="data")
recipe = training.Recipe(epochs=1, batch_size=64)


def fit(mesh):
    """All seeds, as many at once as the mesh has rows."""
    side = mesh.shape["seed"]
    groups = [seeds[i : i + side] for i in range(0, len(seeds), side)]
    runs = [
        training.fit(model, recipe, train, prepare=prepare, seeds=group, mesh=mesh, progress=False) for group in groups
    ]
    return [run for group in runs for run in group]


begun = time.perf_counter()
on_all = fit(mesh)
print(f"on {mesh.size} device(s): {time.perf_counter() - begun:.1f} s, compilation included")
for run in on_all:
    print(f"seed {run.seed}: loss {run.history[-1]['loss']:.4f}, accuracy {run.history[-1]['accuracy']:.3f}")

# %% [markdown]
# Random numbers depend on seed, epoch and step only, so the layout changes nothing but the order of sums:

# %%
on_one = fit(training.make_mesh(1, 1))
for one, other in zip(on_all, on_one, strict=True):
    apart = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), one.variables, other.variables)
    print(f"seed {one.seed}: parameters apart by at most {max(jax.tree.leaves(apart)):.1e}")

# %% [markdown]
# ## A whole figure
#
# `python -m experiments fig3_layer_sensitivity --scale paper` uses all devices of the machine by itself, and all hosts
# of a pod if it is started on each (the README's "On many devices and hosts"). Checkpoints make it safe to stop: give
# `--runs` a folder that outlives the machine, in Colab one of a mounted Drive. `python -m experiments costs` says what
# each figure costs, as an estimate.
#
# - One step of your own on the mesh: `training.pmapped(training.train_step, mesh)` is `jit(shard_map(step))`.
# - More pixels: time `warps.random_tps(grid=(5, 5), max_shift=10.0)` on `(128, 224, 224, 3)`.
