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
# [colab]: https://colab.research.google.com/github/_OWNER_/deform_jax/blob/main/colab/1_warp_an_image.ipynb
#
# # Warp an image
#
# The deformations of two papers, step by step, on a photograph:
#
# - **thin-plate splines** of Ruderman et al. 2018 ([LS](https://arxiv.org/abs/1804.04438), section 2.1 and Fig. 2);
# - **maximum-entropy diffeomorphisms** of Petrini et al. 2021 ([RS](https://arxiv.org/abs/2105.02468), section 2), used
#   by Tomasini et al. 2022 ([SI](https://arxiv.org/abs/2210.01506)) too.
#
# Both are a *field* of displacements, $(h, w, 2)$ in pixels, and one function that moves pixels:
# `warps.remap(image, field)` shows at pixel $p$ what the image has at $p + \text{field}[p]$.

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
import jax
import jax.numpy as jnp
import numpy as np

from deform_jax import warps
from experiments.common import photographs, plots

size = 48 if SMOKE else 224
image = jnp.asarray(photographs.load("chelsea", size))  # or "astronaut", "coffee", or the path of an image of yours
print(image.shape, image.dtype)

# %% [markdown]
# **In three lines**: a batch of images, each deformed by its own random spline.

# %%
batch = jnp.stack([image] * 5)
deform = jax.jit(jax.vmap(warps.random_tps(grid=(5, 5), max_shift=0.05 * size)))  # LS, ImageNet: 10 of 224 pixels
deformed = deform(jax.random.split(jax.random.key(0), len(batch)), batch)

_, axes = plots.grid(1, 5, size=1.6)
for panel, one in zip(axes[0], deformed, strict=True):
    plots.picture(panel, np.asarray(one))

# %% [markdown]
# ## A thin-plate spline, step by step (LS Fig. 2)
#
# 1. Evenly spaced **control points**, corners included. Each draws a source: its own place plus a shift, uniform in
#    $[-s, s]$ in each direction.
# 2. The **spline** through these shifts is the smoothest field that takes them on (least bending energy, kernel
#    $r^2 \log r$ plus an affine part). It is linear in the shifts, so here it is one matrix product.
# 3. Every pixel looks along its arrow, from tip to tail, and takes the value there by **bilinear interpolation**.

# %%
grid, max_shift = (4, 4), 0.09 * size
points = warps.control_points(grid, (size, size))  # (4, 4, 2): y and x in pixels
shifts = warps.random_shifts(jax.random.key(0), grid, max_shift)  # (4, 4, 2)
field = warps.tps_field(shifts, (size, size))  # (size, size, 2)
result = warps.remap(image, field)

where = np.linspace(0, size - 1, 15).round().astype(int)
pixels = np.stack(np.meshgrid(where, where, indexing="ij"), axis=-1)
some = np.asarray(field)[np.ix_(where, where)]

_, ((sources, spline, over, last),) = plots.grid(1, 4, size=2.2)
plots.arrows(sources, np.asarray(points), np.asarray(shifts), color="#D55E00", width=0.008)
sources.plot(points[..., 1].ravel(), points[..., 0].ravel(), ".", color="black", clip_on=False)
plots.arrows(spline, pixels, some, color="#0072B2")
over.imshow(image)
plots.arrows(over, pixels, some, color="white")
last.imshow(result)
titles = {sources: "(a) sources", spline: "(b) spline", over: "(c) over the image", last: "(d) result"}
for panel, title in titles.items():
    panel.set_title(title)
    panel.set_aspect("equal")
    panel.set_xlim(-max_shift, size - 1 + max_shift)
    panel.set_ylim(size - 1 + max_shift, -max_shift)

# %% [markdown]
# At a control point the spline has the shift that was drawn, exactly; and shifts that are affine (here: all alike, a
# translation) give an affine field, exactly.

# %%
rows, columns = (np.asarray(points[..., axis]).round().astype(int) for axis in (0, 1))
corners = np.abs(np.asarray(field)[rows, columns] - shifts)[[0, 0, -1, -1], [0, -1, 0, -1]].max()
translated = warps.tps_field(jnp.full((4, 4, 2), 3.0), (size, size))
print(f"error at the corners: {corners:.1e} px; of a translation: {np.abs(translated - 3).max():.1e} px")

# %% [markdown]
# ## Maximum-entropy diffeomorphisms (RS, SI)
#
# Each component of the displacement is a sum of sine modes that vanish at the border,
#
# $$\tau(x, y) = \sqrt{T}\, n \sum_{i^2 + j^2 < (c + 1/2)^2} \frac{C_{ij}}{\sqrt{i^2 + j^2}}
# \sin(i \pi x) \sin(j \pi y), \qquad C_{ij} \sim \mathcal{N}(0, 1),$$
#
# in pixels of an image of $n \times n$. The **cutoff** $c$ is the highest frequency, and the **temperature** $T$ the
# strength. What one wants to set is the typical displacement $\delta$ of a pixel: $T = 4 \delta^2 / (\pi n^2 \ln c)$.
#
# Below, rows are cutoffs and columns displacements, with the same random numbers $C_{ij}$ in each row. A field *folds*
# where neighbours change places: then it is a diffeomorphism no more. Typical fields begin to at the upper end of
# `temperature_range`, which is at $\delta = n / (\pi c)$.


# %%
def folds(field):
    """Whether the map p → p + field[p] turns some place inside out: its Jacobian is not positive everywhere."""
    (yy, yx), (xy, xx) = (jnp.gradient(field[..., axis]) for axis in (0, 1))
    return bool(((1 + yy) * (1 + xx) - yx * xy).min() <= 0)


displacements = np.array([0.01, 0.02, 0.04, 0.08]) * size
cutoffs = (3, 6, 15)

_, axes = plots.grid(len(cutoffs), len(displacements), size=1.8)
for line, cutoff in zip(axes, cutoffs, strict=True):
    coefficients = warps.random_coefficients(jax.random.key(1), cutoff)
    for panel, displacement in zip(line, displacements, strict=True):
        temperature = warps.temperature(displacement, cutoff=cutoff, size=size)
        one = warps.max_entropy_field(coefficients, (size, size), temperature=temperature)
        plots.picture(panel, np.asarray(warps.remap(image, one)))
        panel.set_title(f"c = {cutoff}, δ = {displacement:.1f} px{' (folds)' if folds(one) else ''}", fontsize=8)

# %% [markdown]
# $\delta$ is nominal, to leading order in $\ln c$. What fields really move, as the root of the mean square over all
# pixels, is proportional to it and somewhat less:

# %%
keys = jax.random.split(jax.random.key(2), 8 if SMOKE else 50)
for cutoff in cutoffs:
    temperature = warps.temperature(1.0, cutoff=cutoff, size=size)
    coefficients = jax.vmap(lambda key, c=cutoff: warps.random_coefficients(key, c))(keys)
    fields = jax.vmap(lambda c, t=temperature: warps.max_entropy_field(c, (size, size), temperature=t))(coefficients)
    moved = jnp.sqrt((jax.vmap(warps.mean_displacement)(fields) ** 2).mean())
    print(f"c = {cutoff:>2}, δ = 1 px: {moved:.2f} px")

# %% [markdown]
# ## Try it
#
# One picture each, and below it sliders for others, where there is [ipywidgets](https://ipywidgets.readthedocs.io) (in
# Colab there is).

# %%
from matplotlib import pyplot as plt


def show(field):
    """The field over the image, and the result."""
    _, ((left, right),) = plots.grid(1, 2, size=2.6)
    plots.picture(left, np.asarray(image))
    plots.arrows(left, pixels, np.asarray(field)[np.ix_(where, where)], color="white")
    left.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    plots.picture(right, np.asarray(warps.remap(image, field)))
    plt.show()


def sliders(function, **ranges):
    """Call it once, and offer to call it with other arguments."""
    function()
    try:
        from ipywidgets import interact_manual
    except ImportError:
        print("For sliders, run: %pip install ipywidgets")
    else:
        interact_manual(function, **ranges)


def thin_plate_spline(seed=0, points=4, shift=0.05 * size):
    """A spline through points × points shifts."""
    shifts = warps.random_shifts(jax.random.key(seed), (points, points), shift)
    show(warps.tps_field(shifts, (size, size)))


sliders(thin_plate_spline, seed=(0, 20), points=(2, 8), shift=(0.0, 0.15 * size))


# %%
def max_entropy(seed=0, cutoff=3, displacement=0.02 * size):
    """A diffeomorphism of these modes, displacing by so many pixels."""
    coefficients = warps.random_coefficients(jax.random.key(seed), cutoff)
    temperature = warps.temperature(displacement, cutoff=cutoff, size=size)
    show(warps.max_entropy_field(coefficients, (size, size), temperature=temperature))


sliders(max_entropy, seed=(0, 20), cutoff=(2, 20), displacement=(0.0, 0.1 * size))

# %% [markdown]
# - How far can control points be shifted before the picture folds? Does it take more of them, or fewer?
# - Raise the cutoff at a constant displacement: how do pixels move that little, and the picture is destroyed?
# - Everything is differentiable: `jax.grad` of anything measured on `deform_tps(shifts, image)` finds worse shifts than
#   random ones, as `probes.worst_case` does.
#
# Next: [what a network makes of it](2_probe_a_network.ipynb).
