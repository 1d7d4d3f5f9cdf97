"""Loss and accuracy over a whole set of images."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training.mesh import INDEXED, make_mesh, pmapped, replicate, stack
from deform_jax.training.step import Prepare, indexed_evaluate_step
from deform_jax.typing import PyTree

BATCH = 500


def evaluate(
    model: nn.Module, variables: PyTree, evaluation: Mapping[str, Any], *, prepare: Prepare
) -> dict[str, float]:
    """Return mean ``loss`` (nats) and ``accuracy`` of one network over a whole set, exactly (no image dropped).

    Args:
      model: module of this package.
      variables: its variables, ``{"params": …, "batch_stats": …}``.
      evaluation: ``images`` (n, h, w, c) uint8, ``labels`` (n,) integers from 0.
      prepare: (None, raw images) → images as the network takes them; called without random keys.

    Raises:
      TypeError, ValueError: an entry missing, of another shape or kind, or labels that are not the model's classes.
    """
    mesh = make_mesh(devices=jax.devices()[:1])
    return evaluator(model, evaluation, prepare, mesh)(stack([variables], mesh))[0]


def evaluator(
    model: nn.Module, evaluation: Mapping[str, Any], prepare: Prepare, mesh: Mesh
) -> Callable[[PyTree], list[dict[str, float]]]:
    """Return a function from the stacked variables (seeds, …) to each seed's ``evaluate`` over the mesh."""
    placed = replicate(check_set("evaluation", evaluation, model), mesh)
    try:  # now, rather than after an epoch of training
        jax.eval_shape(prepare, None, placed["images"][:1])
    except Exception as error:
        error.add_note("Raised by `prepare_evaluation` (by default `prepare`), which is called with keys None.")
        raise
    step = _mapped(mesh, model, prepare)
    count, data = placed["images"].shape[0], mesh.shape["data"]
    size = -(-min(BATCH, count) // data) * data
    order = np.full(-(-count // size) * size, -1, np.int32)
    order[:count] = np.arange(count)

    def evaluate_all(variables: PyTree) -> list[dict[str, float]]:
        # One at a time: independent programs with collectives, in flight together, can lock up simulated devices.
        sums = [jax.device_get(step(variables, {**placed, "order": part})) for part in order.reshape(-1, size)]
        means = {
            name: np.stack([part[key] for part in sums]).sum(axis=0, dtype=np.float64) / count
            for name, key in (("loss", "loss"), ("accuracy", "correct"))
        }
        return [{name: float(mean[seed]) for name, mean in means.items()} for seed in range(mesh.shape["seed"])]

    return evaluate_all


def check_set(name: str, dataset: Mapping[str, Any], model: nn.Module) -> dict[str, jax.Array]:
    """Return the images and labels of a set as jax arrays after checking them."""
    arrays = {}
    for entry, dims, kind in (("images", "n h w c", "real"), ("labels", "n", "integer")):
        if entry not in dataset:
            checks.fail(name, "hold 'images' and 'labels'", f"it holds {', '.join(dataset) or 'nothing'}")
        arrays[entry] = checks.array(f"{name}[{entry!r}]", dataset[entry], dims, kind=kind, finite=True)
    images, labels = len(arrays["images"]), len(arrays["labels"])
    if images != labels:
        checks.fail(name, "have one label per image", f"there are {images} images and {labels} labels")
    low, high = int(arrays["labels"].min()), int(arrays["labels"].max())
    classes = getattr(model, "num_classes", high + 1)
    if low < 0 or high >= classes:
        given = f"they run from {low} to {high}"
        checks.fail(f"{name}['labels']", f"be classes of the model, 0 to {classes - 1}", given)
    return arrays


@functools.lru_cache(maxsize=16)
def _mapped(mesh: Mesh, model: nn.Module, prepare: Prepare) -> Any:
    def step(variables: PyTree, batch: Mapping[str, jax.Array], *, axis_name: str) -> dict[str, jax.Array]:
        return indexed_evaluate_step((model, variables), batch, prepare=prepare, axis_name=axis_name)

    return pmapped(step, mesh, batch_layout={**INDEXED, "order": P("data")}, donate=False)
