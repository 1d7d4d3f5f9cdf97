"""Where a run's batches come from: arrays that every device holds whole, or a stream that each host reads."""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training.evaluation import check_classes, check_set
from deform_jax.training.mesh import BATCH, INDEXED, host_part, pmapped
from deform_jax.training.placement import replicate, spread
from deform_jax.training.step import Metrics, Prepare, epoch_order, indexed_train_step, prepared_train_step

AHEAD = 2
"""Steps that a stream's batches may be ahead of the device, so that not all of an epoch is put into its memory."""


class TrainBatches(Protocol):
    """Endless iterator over ``images`` (n, h, w, c) and ``labels`` (n,) that knows its place."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """Return the next batch, this host's part of it."""
        ...

    def state(self) -> Any:
        """Return the place, a value that JSON can hold."""
        ...

    def close(self) -> None:
        """Stop reading ahead; may be called again."""
        ...


class TrainStream(Protocol):
    """A training set that is read while training, such as ``data.ImageStream``.

    Attributes:
      train_count: images an epoch has, before the last incomplete batch is dropped.
      image_shape: (h, w, c) of every image.
      num_classes: labels are 0 … num_classes − 1.
    """

    @property
    def train_count(self) -> int: ...  # noqa: D102
    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102

    def train_batches(
        self, seed: int, batch_size: int, *, shard: tuple[int, int] | None = None, state: Any = None
    ) -> TrainBatches:
        """Return the batches of one seed, from the place that ``state`` says, or from the start.

        ``shard`` is (index, count): which part of every batch of ``batch_size`` images this host reads.
        """
        ...


class Feed(Protocol):
    """What ``fit`` needs of either: how many images, of what shape; the mapped step; and its batches."""

    count: int
    image_shape: tuple[int, ...]

    def step(self, prepare: Prepare) -> Callable[..., Any]:
        """Return the train step mapped over the mesh, for this feed's batches."""
        ...

    def start(self, seeds: Sequence[int], batch_size: int, states: Sequence[Any] | None) -> None:
        """Begin, or go on where each seed's state says."""
        ...

    def batches(self, epoch: int, first: int) -> Iterator[Mapping[str, jax.Array]]:
        """Yield the batches of all seeds for the steps ``first`` … of an epoch."""
        ...

    def states(self) -> list[Any]:
        """Return each seed's place after the last batch taken, for the checkpoint."""
        ...

    def pace(self, metrics: Metrics) -> None:
        """Be told the metrics of a step just begun."""
        ...

    def close(self) -> None:
        """Let go of what reads ahead."""
        ...


def make_feed(train: Any, model: nn.Module, mesh: Mesh) -> Feed:
    """Return the feed of ``train``, a mapping of arrays or a ``TrainStream``, after checking it against the model."""
    if isinstance(train, Mapping):
        return IndexedFeed(check_set("train", train, model), mesh)
    if not hasattr(train, "train_batches"):
        given, remedy = f"{type(train).__name__} was given", "Pass {'images': …, 'labels': …} or a `data.ImageStream`."
        checks.fail("train", "be a mapping of arrays or a stream", given, remedy, error=TypeError)
    check_classes("train", train, model)
    return StreamFeed(train, mesh)


class IndexedFeed:
    """Arrays that every device holds whole; a step is given indices into them, which the seed and epoch determine."""

    def __init__(self, dataset: Mapping[str, jax.Array], mesh: Mesh):
        self.count, *shape = dataset["images"].shape
        self.image_shape = tuple(shape)
        self._dataset, self._mesh = dataset, mesh

    def step(self, prepare: Prepare) -> Callable[..., Any]:
        """See ``Feed``."""
        return _mapped(indexed_train_step, self._mesh, prepare)

    def start(self, seeds: Sequence[int], batch_size: int, states: Sequence[Any] | None) -> None:
        """See ``Feed``; there are no states to go on from."""
        if any(state is not None for state in states or ()):
            _refuse_other_kind("a stream")
        self._seeds, self._batch_size = seeds, batch_size
        self._placed = replicate(self._dataset, self._mesh)

    def batches(self, epoch: int, first: int) -> Iterator[Mapping[str, jax.Array]]:
        """See ``Feed``."""
        orders = [np.asarray(_order(jax.random.key(s), epoch, self.count, self._batch_size)) for s in self._seeds]
        for order in np.stack(orders, axis=1)[first:]:
            yield {**self._placed, "order": spread(order, self._mesh, P("seed", "data"))}

    def states(self) -> list[Any]:
        """See ``Feed``: none, since the step says it all."""
        return [None] * len(self._seeds)

    def pace(self, metrics: Metrics) -> None:
        """See ``Feed``: a batch of indices takes no room."""

    def close(self) -> None:
        """See ``Feed``."""


class StreamFeed:
    """Batches read by each host, its own part of each, and laid out over the mesh."""

    def __init__(self, stream: TrainStream, mesh: Mesh):
        self.count, self.image_shape = stream.train_count, stream.image_shape
        self._stream, self._mesh = stream, mesh
        self._iterators: list[TrainBatches] = []
        self._running: collections.deque[Metrics] = collections.deque()

    def step(self, prepare: Prepare) -> Callable[..., Any]:
        """See ``Feed``."""
        return _mapped(prepared_train_step, self._mesh, prepare)

    def start(self, seeds: Sequence[int], batch_size: int, states: Sequence[Any] | None) -> None:
        """See ``Feed``; nothing is read yet."""
        if states is not None and any(state is None for state in states):
            _refuse_other_kind("arrays")
        self._seeds, self._batch_size = seeds, batch_size
        self._from = [None] * len(seeds) if states is None else list(states)

    def batches(self, epoch: int, first: int) -> Iterator[Mapping[str, jax.Array]]:
        """See ``Feed``."""
        if not self._iterators:
            self._open()
        for _ in range(first, self.count // self._batch_size):
            parts = [next(iterator) for iterator in self._iterators]
            yield {name: self._placed(np.stack([part[name] for part in parts])) for name in BATCH}

    def states(self) -> list[Any]:
        """See ``Feed``; of the seeds that other hosts read, None."""
        opened = dict(zip(self._rows, self._iterators, strict=True)) if self._iterators else {}
        return [opened[row].state() if row in opened else state for row, state in enumerate(self._from)]

    def pace(self, metrics: Metrics) -> None:
        """See ``Feed``: wait for the step before the last few."""
        self._running.append(metrics)
        if len(self._running) > AHEAD:
            jax.block_until_ready(self._running.popleft())

    def close(self) -> None:
        """See ``Feed``."""
        for iterator in self._iterators:
            iterator.close()

    def _open(self) -> None:
        self._rows, shard = host_part(self._mesh)
        for row in self._rows:
            self._iterators.append(
                self._stream.train_batches(self._seeds[row], self._batch_size, shard=shard, state=self._from[row])
            )

    def _placed(self, local: np.ndarray) -> jax.Array:
        shape = len(self._seeds), self._batch_size, *local.shape[2:]
        return jax.make_array_from_process_local_data(NamedSharding(self._mesh, P("seed", "data")), local, shape)


def _refuse_other_kind(before: str) -> None:
    remedy = "Use another folder, or remove that one."
    checks.fail("train", "be what the run in the folder began with", f"that was {before}", remedy)


@functools.lru_cache(maxsize=16)
def _mapped(step: Callable[..., Any], mesh: Mesh, prepare: Prepare) -> Any:
    layout = INDEXED if step is indexed_train_step else BATCH
    return pmapped(functools.partial(step, prepare=prepare), mesh, batch_layout=layout)


_order = jax.jit(epoch_order, static_argnums=(2, 3))
