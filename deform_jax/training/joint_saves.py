"""Checkpoints that several processes write together, by orbax's own protocol."""

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training import processes
from deform_jax.typing import PyTree

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_saves: collections.Counter[tuple[int, ...]] = collections.Counter()
"""Checkpoints that each group of processes has saved, which tell orbax's barriers apart."""


def writer(among: Sequence[int] | None) -> "ocp.Checkpointer":
    """Return orbax's writer for a checkpoint that these processes make together, the first one leading.

    None: this process alone.
    """
    import orbax.checkpoint as ocp

    if processes.count() == 1:
        return ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    group = _group(among)
    _saves[group] += 1
    together = ocp.options.MultiprocessingOptions(
        primary_host=group[0],
        active_processes=set(group),
        barrier_sync_key_prefix=f"deform_jax-{'-'.join(map(str, group))}-{_saves[group]}",
    )
    handler = ocp.type_handlers.ArrayHandler(primary_host=group[0], use_replica_parallel=len(group) > 1)
    arrays = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    trees = [
        ocp.PyTreeCheckpointHandler(multiprocessing_options=together, type_handler_registry=arrays) for _ in range(2)
    ]
    composite = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(
            multiprocessing_options=together,
            # Made in the background, folders are announced under a number that groups of processes do not share: one
            # would take another's folders for its own, and write into those that are not there yet.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        ),
        variables=trees[0],
        resume=trees[1],
        manifest=ocp.JsonCheckpointHandler(multiprocessing_options=together),
    )
    return ocp.Checkpointer(composite, multiprocessing_options=together)


def placed(tree: PyTree, among: Sequence[int] | None) -> PyTree:
    """Return the arrays as orbax writes them where there are several processes: as arrays over several of these.

    It writes numpy's only from process 0, and refuses arrays of one process's devices. So what a process saves alone
    becomes an array of which some other process's device is said to have a copy too; nobody makes or reads that.
    """
    if processes.count() == 1:
        return tree
    group, first = _group(among), {}
    for device in jax.devices():
        first.setdefault(device.process_index, device)
    others = [process for process in first if process not in group][: 1 if len(group) == 1 else 0]
    copies = NamedSharding(Mesh([first[process] for process in (*group, *others)], ("copy",)), P())
    return jax.tree.map(lambda leaf: _copied(leaf, copies, alone=len(group) == 1), tree)


def _copied(leaf: Any, copies: NamedSharding, *, alone: bool) -> jax.Array:
    if not getattr(leaf, "is_fully_addressable", True):
        if not alone:
            return leaf
        leaf = leaf.addressable_data(0)
    own = jax.device_put(leaf, jax.local_devices()[0])
    if own.dtype != leaf.dtype:
        given, remedy = f"one is {leaf.dtype}", "Convert it."
        checks.fail("variables", "be arrays of at most 32 bits, with several processes", given, remedy, error=TypeError)
    return jax.make_array_from_single_device_arrays(own.shape, copies, [own])


def _group(among: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(among or (processes.index(),))
