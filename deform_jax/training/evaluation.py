"""Loss and accuracy over a whole set of images."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training.given import check_model, check_prepare
from deform_jax.training.mesh import INDEXED, host_part, make_mesh, pmapped
from deform_jax.training.placement import everywhere, replicate, spread, stack
from deform_jax.training.step import Prepare, indexed_evaluate_step, prepared_evaluate_step
from deform_jax.typing import PyTree

BATCH = 500
STREAM_BATCH = 128
"""Images of a stream that are evaluated at once: at 224 × 224 pixels, 1.6 GB for the block VGG's first layer."""
SPLIT = {"images": P("data"), "labels": P("data")}


class EvaluationStream(Protocol):
    """A test set that is read anew for every evaluation, such as ``data.ImageStream``.

    Attributes:
      test_count: number of images.
      image_shape: (h, w, c) of every image.
      num_classes: labels are 0 … num_classes − 1.
    """

    @property
    def test_count(self) -> int: ...  # noqa: D102
    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102

    def test_batches(
        self, batch_size: int, *, shard: tuple[int, int] | None = None
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """Return an iterator over the whole set in batches of one size, its last filled up with labels of −1.

        ``shard`` is (index, count): which part of every batch of ``batch_size`` images this host reads.
        """
        ...


def evaluate(
    model: nn.Module,
    variables: PyTree,
    evaluation: Mapping[str, Any] | EvaluationStream,
    *,
    prepare: Prepare,
    loss: str = "cross_entropy",
) -> dict[str, float]:
    """Return mean ``loss`` (cross-entropy in nats) and ``accuracy`` of one network over a whole set: every image once.

    Each process does it by itself, on its first device.

    Args:
      model: module of this package.
      variables: its variables, ``{"params": …, "batch_stats": …}``.
      evaluation: ``images`` (n, h, w, c) or (n, length, c) uint8, ``labels`` (n,) integers from 0; or an
        ``EvaluationStream``.
      prepare: (None, raw images) → images as the network takes them; called without random keys.
      loss: as ``Recipe.loss``: ``"cross_entropy"``, or ``"hinge"`` for networks of one output.

    Raises:
      TypeError, ValueError: an entry missing, of another shape or kind, or labels that are not the model's classes.
    """
    check_model(model)
    check_prepare(prepare)
    mesh = make_mesh(devices=jax.local_devices()[:1])
    evaluate_all = evaluator(model, evaluation, prepare, mesh, loss)
    check_model(model, variables)
    return evaluate_all(stack([variables], mesh))[0]


def evaluator(
    model: nn.Module,
    evaluation: Mapping[str, Any] | EvaluationStream,
    prepare: Prepare,
    mesh: Mesh,
    loss: str = "cross_entropy",
) -> Callable[[PyTree], list[dict[str, float]]]:
    """Return a function from the stacked variables (seeds, …) to each seed's ``evaluate`` over the mesh."""
    check_loss(loss, model)
    if isinstance(evaluation, Mapping):
        count, image, batches = _indexed(check_set("evaluation", evaluation, model), mesh)
        step = _mapped(mesh, model, prepare, indexed_evaluate_step, loss)
    else:
        count, image, batches = _streamed(evaluation, model, mesh)
        step = _mapped(mesh, model, prepare, prepared_evaluate_step, loss)
    try:  # now, rather than after an epoch of training
        jax.eval_shape(prepare, None, image)
    except Exception as error:
        error.add_note("Raised by `prepare_evaluation` (by default `prepare`), which is called with keys None.")
        raise

    def evaluate_all(variables: PyTree) -> list[dict[str, float]]:
        # One at a time: independent programs with collectives, in flight together, can lock up simulated devices.
        sums = [everywhere(step(variables, batch)) for batch in batches()]
        means = {
            name: np.stack([part[key] for part in sums]).sum(axis=0, dtype=np.float64) / count
            for name, key in (("loss", "loss"), ("accuracy", "correct"))
        }
        return [{name: float(mean[seed]) for name, mean in means.items()} for seed in range(mesh.shape["seed"])]

    return evaluate_all


Batches = Callable[[], Iterator[Mapping[str, Any]]]


def _indexed(dataset: Mapping[str, jax.Array], mesh: Mesh) -> tuple[int, Any, Batches]:
    placed = replicate(dataset, mesh)
    count, size = _sizes(dataset["images"].shape[0], BATCH, mesh)
    order = np.full(-(-count // size) * size, -1, np.int32)
    order[:count] = np.arange(count)
    parts = [spread(part, mesh, P("data")) for part in order.reshape(-1, size)]
    return count, dataset["images"][:1], lambda: ({**placed, "order": part} for part in parts)


def _streamed(stream: Any, model: nn.Module, mesh: Mesh) -> tuple[int, Any, Batches]:
    if not hasattr(stream, "test_batches"):
        given, remedy = f"{type(stream).__name__} was given", "Pass {'images': …, 'labels': …} or a `data.ImageStream`."
        checks.fail("evaluation", "be a mapping of arrays or a stream", given, remedy, error=TypeError)
    check_classes("evaluation", stream, model)
    count, size = _sizes(stream.test_count, STREAM_BATCH, mesh)
    sharding = NamedSharding(mesh, P("data"))

    def batches() -> Iterator[Mapping[str, Any]]:
        _, shard = host_part(mesh)
        for batch in stream.test_batches(size, shard=shard):
            yield {
                name: jax.make_array_from_process_local_data(sharding, batch[name], (size, *batch[name].shape[1:]))
                for name in SPLIT
            }

    return count, jax.ShapeDtypeStruct((1, *stream.image_shape), np.uint8), batches


def _sizes(count: int, limit: int, mesh: Mesh) -> tuple[int, int]:
    """Return the number of images, and that of a batch, which the ``data`` axis must divide."""
    data = mesh.shape["data"]
    return count, -(-min(limit, count) // data) * data


def check_set(name: str, dataset: Mapping[str, Any], model: nn.Module) -> dict[str, jax.Array]:
    """Return the images and labels of a set as jax arrays after checking them."""
    arrays = {}
    for entry, dims, kind in (("images", "...", "real"), ("labels", "n", "integer")):
        if entry not in dataset:
            checks.fail(name, "hold 'images' and 'labels'", f"it holds {', '.join(map(str, dataset)) or 'nothing'}")
        arrays[entry] = checks.array(f"{name}[{entry!r}]", dataset[entry], dims, kind=kind, finite=True)
    shape = tuple(arrays["images"].shape)
    if len(shape) not in (3, 4):
        checks.fail(f"{name}['images']", "have shape (n, h, w, c), or (n, length, c)", f"its shape is {shape}")
    images, labels = shape[0], len(arrays["labels"])
    if images != labels:
        checks.fail(name, "have one label per image", f"there are {images} images and {labels} labels")
    low, high = int(arrays["labels"].min()), int(arrays["labels"].max())
    classes = _classes(model, high + 1)
    if low < 0 or high >= classes:
        given = f"they run from {low} to {high}"
        checks.fail(f"{name}['labels']", f"be classes of the model, 0 to {classes - 1}", given)
    arrays["labels"] = arrays["labels"].astype(np.int32)  # of unsigned ones, −1 could not mark what fills a batch up
    return arrays


def check_classes(name: str, stream: Any, model: nn.Module) -> None:
    """Refuse a stream of more classes than the model has."""
    classes = _classes(model, stream.num_classes)
    if stream.num_classes > classes:
        checks.fail(name, f"have no more classes than the model, {classes}", f"it has {stream.num_classes}")


def check_loss(loss: str, model: nn.Module) -> None:
    """Refuse a loss that does not suit the number of the model's outputs."""
    checks.option("loss", loss, ("cross_entropy", "hinge"))
    outputs = getattr(model, "num_classes", None)
    if outputs is not None and (outputs == 1) != (loss == "hinge"):
        requirement = '"hinge" for networks of one output, and "cross_entropy" for others'
        checks.fail("loss", f"be {requirement}", f"it is {loss!r}, for {outputs} output(s)")


def _classes(model: nn.Module, default: int) -> int:
    """Return the number of classes, which are two for a model of one output."""
    return max(2, getattr(model, "num_classes", default))


@functools.lru_cache(maxsize=16)
def _mapped(mesh: Mesh, model: nn.Module, prepare: Prepare, evaluate_step: Callable[..., Any], loss: str) -> Any:
    def step(variables: PyTree, batch: Mapping[str, jax.Array], *, axis_name: str) -> dict[str, jax.Array]:
        return evaluate_step((model, variables), batch, prepare=prepare, loss=loss, axis_name=axis_name)

    layout = {**INDEXED, "order": P("data")} if evaluate_step is indexed_evaluate_step else SPLIT
    return pmapped(step, mesh, batch_layout=layout, donate=False)
