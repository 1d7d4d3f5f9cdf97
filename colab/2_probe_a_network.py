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
# [colab]: https://colab.research.google.com/github/_OWNER_/deform_jax/blob/main/colab/2_probe_a_network.ipynb
#
# # Probe a network
#
# How far does a small deformation of the image move each layer of a network, and what in the network decides that? The
# measures of Ruderman et al. 2018 ([LS](https://arxiv.org/abs/1804.04438)) and Tomasini et al. 2022
# ([SI](https://arxiv.org/abs/2210.01506)), on two small networks that are trained here, with and without pooling, and
# on networks of your own.

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
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np

from deform_jax import data, models, probes, training, warps
from experiments.common import photographs, plots

fashion = data.load("fashion_mnist_subset")  # 10,000 training images that come with the package
prepare = data.Prepare.from_images(fashion.train_images)  # standardises
images = prepare(None, fashion.test_images[: 16 if SMOKE else 128])

# %% [markdown]
# **In five lines**: the sensitivity of every layer of a network of your own. Any Flax Linen module will do.

# %%
from flax import linen as nn

network = nn.Sequential([nn.Conv(16, (3, 3)), nn.relu, nn.Conv(32, (3, 3), strides=2), nn.relu, nn.Conv(32, (3, 3))])
represent = models.capture(network, network.init(jax.random.key(0), images[:1]))
deform = jax.jit(jax.vmap(warps.random_tps(grid=(3, 3), max_shift=2.0)))
deformed = deform(jax.random.split(jax.random.key(1), len(images)), images)
axes = plots.by_layer({"my network": probes.sensitivity(represent, images, deformed)})

# %% [markdown]
# ## Two networks
#
# LS's architecture for CIFAR10 (2.2) at a quarter of its width: four blocks of convolution–batch norm–ReLU, each block
# followed by a halving, which is max-pooling in one network and a strided convolution in the other. Change `epochs`,
# `seeds` or `width`, or choose among `models.DOWNSAMPLINGS`; or skip the training and put your own network here.

# %%
name, epochs, seeds = ("block_vgg_tiny", 1, (0,)) if SMOKE else ("block_vgg_cifar10", 2, (0, 1))
count = 256 if SMOKE else len(fashion.train_images)
train = {"images": fashion.train_images[:count], "labels": fashion.train_labels[:count]}
evaluation = {"images": fashion.test_images[:count], "labels": fashion.test_labels[:count]}
recipe = training.Recipe(epochs=epochs, batch_size=64 if SMOKE else 128)
mesh = training.make_mesh(1, 1 if SMOKE else jax.device_count())  # every batch is split over all devices

kinds = ("max",) if SMOKE else ("max", "strided_relu")
architectures = {kind: models.create(name, downsampling=kind, width=0.25, axis_name="data") for kind in kinds}
trained, initial = {}, {}
for kind, model in architectures.items():
    trained[kind], initial[kind] = [], []
    for seed in seeds:
        fresh = model.init(jax.random.key(seed), images[:1])
        initial[kind].append(models.with_batch_statistics(model, fresh, images))  # an untrained batch norm has none
        (run,) = training.fit(
            model, recipe, train, prepare=prepare, evaluation=evaluation, seeds=(seed,), mesh=mesh, progress=False
        )
        trained[kind].append(run.variables)
        print(f"{kind}, seed {seed}: test accuracy {run.history[-1]['evaluation_accuracy']:.3f}")

# %% [markdown]
# ## Sensitivity to deformation (LS Fig. 3)
#
# With $f_k(x)$ the activations of layer $k$, $\tau$ a random thin-plate spline and $d$ the cosine distance,
#
# $$S_k = \frac{\langle d(f_k(x), f_k(\tau x)) \rangle_x}{\operatorname{median}_{x \neq y}\, d(f_k(x), f_k(y))}$$
#
# (LS 2.1): 0 where a deformation changes nothing, 1 where it changes as much as another image would. Dotted: at
# initialisation; shaded: the halvings. LS finds that pooling decides the curves before training, and hardly after it.


# %%
def sensitivities(kind, networks):
    """One {layer: sensitivity} per seed, to the same deformations of the same images."""
    model = architectures[kind]
    return [probes.sensitivity(models.represent(model, one), images, deformed) for one in networks]


curves = {}
for kind in architectures:
    curves[f"{kind} init"] = sensitivities(kind, initial[kind])
    curves[f"{kind} trained"] = sensitivities(kind, trained[kind])
axes = plots.by_layer(curves, "sensitivity to deformation")

# %% [markdown]
# ## Relative sensitivity (SI Eq. 1)
#
# A layer may move little because it is insensitive to everything. SI therefore compares with white noise $\eta$ of the
# same norm as the deformation's change, $\lVert \eta \rVert = \lVert \tau x - x \rVert$, in squared distances:
#
# $$D_k = \frac{\langle \lVert f_k(\tau x) - f_k(x) \rVert^2 \rangle}{\langle \lVert f_k(x) - f_k(y) \rVert^2 \rangle},
# \qquad
# G_k = \frac{\langle \lVert f_k(x + \eta) - f_k(x) \rVert^2 \rangle}{\langle \lVert f_k(x) - f_k(y) \rVert^2 \rangle},
# \qquad R_k = \frac{D_k}{G_k}.$$
#
# Deformations are now maximum-entropy diffeomorphisms that move pixels by about one ($\delta = 1$, $c = 3$). SI finds
# that $R_k$ falls with depth in trained networks: they lose where things are, and keep what they are. The last tap is
# the output; at the input, $R = 1$ by construction. Look at $D_k$ and $G_k$ too: the ratio of an untrained network
# falls because it amplifies noise.

# %%
diffeomorphism = jax.jit(jax.vmap(warps.random_max_entropy(displacement=1.0, cutoff=3)))
moved = diffeomorphism(jax.random.split(jax.random.key(2), len(images)), images)
noisy = probes.matched_noise(jax.random.key(3), images, moved)


def relative(kind, networks):
    """One (D, G, R) per seed, each {layer: value}."""
    taps = [models.represent(architectures[kind], one, output=True) for one in networks]
    return [probes.relative_sensitivity(one, images, moved, noisy) for one in taps]


before, after = relative("max", initial["max"]), relative("max", trained["max"])
_, panels = plots.panels(3, width=3.2, height=3.3)
for panel, part, symbol in zip(panels, ("deformation", "noise", "ratio"), ("D", "G", "R"), strict=True):
    curves = {"max init": [getattr(one, part) for one in before], "max trained": [getattr(one, part) for one in after]}
    plots.by_layer(curves, f"${symbol}_k$", axes=panel, log=True)

# %% [markdown]
# ## Shuffled channels (SI 2, Fig. 3)
#
# Is that done within filters, by smoothing in space, or across channels? Permute the input channels of every
# convolution: each filter stays what it is, and looks at another channel. What is left of the fall of $R_k$ is the work
# of single filters (and of the pooling layers); what is lost was the channels'. SI sees both in VGGs that were trained
# to the end on CIFAR10; do not expect as much of a small network after two epochs on grey images.

# %%
keys = jax.random.split(jax.random.key(4), 1 if SMOKE else 5)
shuffled = [
    {**one, "params": probes.shuffle_channels(key, one["params"])} for one in trained["max"][:1] for key in keys
]
found = relative("max", shuffled)
curves = {"max": [one.ratio for one in after], "max shuffled": [one.ratio for one in found]}
axes = plots.by_layer(curves, "relative sensitivity, $R_k$", log=True)

# %% [markdown]
# ## What filters look for (SI Eq. 3, Fig. 4)
#
# On 3 × 3 pixels the Laplacian has nine modes $\Psi_l$, from the constant one, which averages, to the roughest. The
# power of a layer's kernels in a mode is $\gamma_{k,l} = \langle (\Psi_l \cdot w^k)^2 \rangle$, over all its filters.
# Random filters have equal power in all; SI finds that training moves it to the constant mode, in deep layers above
# all.

# %%
eigenvalues, modes = probes.laplacian_modes(3)
_, (shapes,) = plots.grid(1, 9, size=0.75)
for panel, mode, eigenvalue in zip(shapes, modes, eigenvalues, strict=True):
    panel.imshow(mode, cmap="RdBu", vmin=-0.7, vmax=0.7)
    panel.set_title(f"λ = {eigenvalue:.0f}", fontsize=8)

_, panels = plots.panels(2, sharey=True)
for panel, title, variables in zip(
    panels, ("at initialisation", "trained"), (initial["max"], trained["max"]), strict=True
):
    power = probes.filter_statistics(variables[0]["params"], probes.laplacian_power, size=3)
    for colour, (layer, gamma) in zip(plots.shades(len(power)), power.items(), strict=True):
        panel.plot(np.arange(1, 10), gamma / gamma.mean(), color=colour, marker="o", label=layer)
    panel.set_yscale("log")
    plots.plain_log_ticks(panel)
    panel.set_xlabel("mode $l$, low to high")
    panel.set_title(title)
panels[0].set_ylabel(r"$\gamma_{k,l}$ / its mean over $l$")
legend = panels[0].legend(fontsize=7, ncols=2)

# %% [markdown]
# The same in one number, LS's normalised total variation (LS 4.1; lower is smoother):

# %%
for state, variables in (("init", initial["max"][0]), ("trained", trained["max"][0])):
    variation = probes.filter_statistics(variables["params"], probes.total_variation, size=3)
    print(f"{state:<8}", "  ".join(f"{layer} {value:.2f}" for layer, value in variation.items()))

# %% [markdown]
# ## Bring your own
#
# A probe takes any function from images to an ordered mapping of activations. Of Linen modules, `models.capture` makes
# one. NNX and Equinox modules that return their activations are probed as they are; being pytrees, they are compiled
# once for all their weights.

# %%
from flax import nnx


class MyNNX(nnx.Module):
    """Two convolutions and a max-pooling."""

    def __init__(self, rngs):
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), rngs=rngs)

    def __call__(self, x):
        """Return the activations by name."""
        taps = OrderedDict(input=x)
        x = taps["conv1"] = nnx.relu(self.first(x))
        x = taps["pool1"] = nnx.max_pool(x, (2, 2), strides=(2, 2))
        taps["conv2"] = nnx.relu(self.second(x))
        return taps


own = {"NNX": MyNNX(nnx.Rngs(0))}
try:
    import equinox as eqx
except ImportError:
    print("For the Equinox example, run: %pip install equinox")
else:

    class MyEquinox(eqx.Module):
        """The same; Equinox has channels first, and layers of one image."""

        first: eqx.nn.Conv2d
        second: eqx.nn.Conv2d
        pool: eqx.nn.MaxPool2d

        def __init__(self, key):
            first, second = jax.random.split(key)
            self.first = eqx.nn.Conv2d(1, 16, 3, padding=1, key=first)
            self.second = eqx.nn.Conv2d(16, 32, 3, padding=1, key=second)
            self.pool = eqx.nn.MaxPool2d(2, 2)

        def __call__(self, images):
            """Return the activations by name."""
            taps = OrderedDict(input=images)
            x = jnp.moveaxis(images, -1, 1)
            x = taps["conv1"] = jax.nn.relu(jax.vmap(self.first)(x))
            x = taps["pool1"] = jax.vmap(self.pool)(x)
            taps["conv2"] = jax.nn.relu(jax.vmap(self.second)(x))
            return taps

    own["Equinox"] = MyEquinox(jax.random.key(0))

axes = plots.by_layer({label: probes.sensitivity(one, images, deformed) for label, one in own.items()})

# %% [markdown]
# **A pretrained network by name.** Set `PRETRAINED` to one of `models.PRETRAINED`, such as `"vgg11_bn"`, to a
# repository of the Hugging Face hub, such as `"hf:timm/resnet18.tv_in1k"`, or to the path of a `.safetensors` or `.pth`
# file. It is downloaded, and loaded without running any code that the file may hold; the images are crops of three
# photographs.

# %%
PRETRAINED = ""

if PRETRAINED:
    model, variables = models.load_pretrained(PRETRAINED)
    wholes = [photographs.load(photograph, 448) for photograph in photographs.SHIPPED]
    crops = [whole[i : i + 224, j : j + 224] for whole in wholes for i in (0, 112, 224) for j in (0, 112, 224)]
    photos = data.IMAGENET_PREPARE(None, np.asarray(255 * np.stack(crops), np.uint8))
    moved_photos = diffeomorphism(jax.random.split(jax.random.key(5), len(photos)), photos)
    noisy_photos = probes.matched_noise(jax.random.key(6), photos, moved_photos)
    curves = {}
    shuffled = {**variables, "params": probes.shuffle_channels(jax.random.key(7), variables["params"])}
    for label, one in ((PRETRAINED, variables), (f"{PRETRAINED} shuffled", shuffled)):
        represent = models.represent(model, one, output=True)
        curves[label] = probes.relative_sensitivity(represent, photos, moved_photos, noisy_photos, chunk=9).ratio
    plots.by_layer(curves, "relative sensitivity, $R_k$", log=True)

# %% [markdown]
# - Which of the two networks is less sensitive in its last layers before training, and which after it?
# - Train one more epoch, or on `data.random_labels`: do filters still become smooth (LS 5)?
# - `probes.smooth_filters(params, sigma=1.0)` smooths the filters of an untrained network. What becomes of $S_k$
#   (LS 4.2)?
#
# Next: [a figure of the papers, and what is claimed of it](3_reproduce_a_figure.ipynb).
