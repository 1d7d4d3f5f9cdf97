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
# [colab]: https://colab.research.google.com/github/_OWNER_/deform_jax/blob/main/colab/3_reproduce_a_figure.ipynb
#
# # Reproduce a figure, and read the claims
#
# Every figure of Ruderman et al. 2018 ([LS](https://arxiv.org/abs/1804.04438)) and Tomasini et al. 2022
# ([SI](https://arxiv.org/abs/2210.01506)) is one command, and every claim is a test on its results. Here: the headline
# finding, LS Fig. 3, with two kinds of networks instead of four and one epoch instead of two.

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
def run(arguments=""):
    """Run `python -m experiments ARGUMENTS`, and show what it says when it says it."""
    command = [sys.executable, "-m", "experiments", *arguments.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="")
    assert process.returncode == 0


run()

# %% [markdown]
# ## One figure
#
# A scale (`smoke`, `demo`, `paper`) is a set of defaults, and every setting can be changed; `--help` lists them. The
# figure says below it at what scale it was made. Stop the cell at any time: it goes on from there. For the figure as
# the README has it, leave `changes` empty; for the paper's own size, use `--scale paper` and an accelerator.

# %%
from IPython.display import Image, Markdown, display

from experiments.common import claims, tables

scale = "smoke" if SMOKE else "demo"
changes = (
    "--downsamplings max --seeds 1 --data-axis 1" if SMOKE else "--downsamplings max strided_relu --seeds 4 --epochs 1"
)
reproduced = pathlib.Path("reproduced")
results = reproduced / "results"
folder = results / "fig3_layer_sensitivity" / scale
options = f"--scale {scale} {changes} --results {folder} --runs {reproduced / 'runs'}"

run(f"fig3_layer_sensitivity {options}")

# %%
Image(folder / "fig3_layer_sensitivity.png", width=720)

# %% [markdown]
# Curves are means over seeds, bands ± 2 standard deviations; shaded layers halve the image. Left, before training, the
# network with pooling is the more stable one, from the first halving on. Right, after training, most of that difference
# is gone: the network without pooling has learned it. Above the figure the same is said in numbers, with intervals.
#
# The table behind it has one row per single measurement, so that you can draw another picture:

# %%
rows = tables.read(folder / "table.csv")
print(len(rows), "rows of", ", ".join(rows[0]))

# %% [markdown]
# ## What is claimed, and whether it holds
#
# A claim is a sentence of the paper with a statistic and a region; it *holds* if the whole 95 % interval over seeds
# lies in the region, *does not hold* if it lies outside, and is *undecided* otherwise. First on what was just measured:

# %%
claims_command = [sys.executable, "-m", "experiments", "claims", "learned_stability", "--results", str(results)]
subprocess.run(claims_command, check=True, stdout=subprocess.DEVNULL)  # which prints the table below, as text
verdicts = tables.read(results / "claims.csv", words=("place",))
display(Markdown(claims.markdown([row for row in verdicts if row["verdict"] != "not tested"])))

# %% [markdown]
# Then on the results that come with the repository, which are larger (all of Fashion-MNIST, five seeds, five kinds of
# networks):

# %%
learned_stability = pathlib.Path(claims.__file__).parents[1] / "learned_stability" / "results"
larger = learned_stability / "fig3_layer_sensitivity" / "demo-full_fashion_mnist"
display(Image(larger / "fig3_layer_sensitivity.png", width=720))
verdicts = tables.read(learned_stability / "claims.csv", words=("place",))
display(Markdown(claims.markdown(claims.best(verdicts))))

# %% [markdown]
# - Try another one: `fig4_smoothed_initialisation` trains nothing, and `fig6_filter_smoothness` uses the networks that
#   were just trained, if it is given the same changes.
# - The claims of SI: `learned_stability` → `spatial_information`.
# - `python -m experiments report` puts all results and claims on one page.
#
# Next: [on a TPU or GPU](4_on_a_tpu_or_gpu.ipynb).
