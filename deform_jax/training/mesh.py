"""Devices as a ("seed", "data") mesh, and steps mapped over it.

"pmapped" here means ``jax.jit(jax.shard_map(step))``: ``jax.pmap`` is in maintenance mode, is itself implemented this
way, and its documentation recommends ``shard_map``. Seeds train beside one another along the ``seed`` axis; the batch
of each is split along the ``data`` axis.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training.given import check_kind, check_mesh
from deform_jax.typing import PyTree

BATCH: Mapping[str, P] = {"images": P("seed", "data"), "labels": P("seed", "data")}
"""Layout of a batch of arrays with leading axes (seeds, batch)."""
INDEXED: Mapping[str, P] = {"images": P(), "labels": P(), "order": P("seed", "data")}
"""Layout of a data set held whole by every device, with indices (seeds, batch) into it."""


def make_mesh(seed: int = 1, data: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with axes ``("seed", "data")`` over ``seed * data`` devices.

    Devices of several processes (``jax.distributed``) take part equally: with more than needed, the first ones of each
    process. Each process has whole rows, or an equal part of one row.

    Args:
      seed: how many seeds train side by side.
      data: over how many devices each seed's batch is split.
      devices: the devices to use, all of this process group's by default; with more than needed, the first ones.

    Raises:
      ValueError: more devices asked for than there are, a number that does not divide theirs, or a layout in which a
        process would have part of a row and part of another (the message lists the layouts that fit).
    """
    seed, data = checks.integer("seed", seed, minimum=1), checks.integer("data", data, minimum=1)
    if devices is not None and not (isinstance(devices, Sequence | np.ndarray) and np.size(devices)):
        checks.fail("devices", "be a list of devices", f"{devices!r} was given"[:200], error=TypeError)
    for device in () if devices is None else np.ravel(np.asarray(devices, dtype=object)):
        check_kind("devices", device, jax.Device, "Take them from `jax.devices()`.")
    blocks = _blocks(devices)
    count, fitting = sum(map(len, blocks)), layouts(devices)
    if (seed, data) not in fitting:
        requirement = f"divide the number of devices, {count}"
        if len(blocks) > 1:
            requirement += f", and give each of the {len(blocks)} processes whole rows, or an equal part of one"
        checks.fail(
            "seed × data",
            requirement,
            f"{seed} × {data} = {seed * data} was given",
            f"Layouts that would: {', '.join(f'{s} × {d}' for s, d in fitting)}.",
        )
    chosen = [device for block in blocks for device in block[: seed * data // len(blocks)]]
    grid = np.asarray(chosen, dtype=object).reshape(seed, data)
    # Newer jax makes axes Explicit by default; these steps are written for Auto.
    return Mesh(grid, ("seed", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def layouts(devices: Sequence[Any] | None = None) -> list[tuple[int, int]]:
    """Return every (seed, data) that ``make_mesh`` takes, in ascending order."""
    blocks = _blocks(devices)
    count = sum(map(len, blocks))
    pairs = [(s, d) for s in range(1, count + 1) for d in range(1, count // s + 1) if count % (s * d) == 0]
    return [(s, d) for s, d in pairs if _is_in_blocks(s * d, d, len(blocks))]


def _is_in_blocks(devices: int, data: int, processes: int) -> bool:
    """Whether equal blocks of the devices, row after row, are whole rows or equal parts of one."""
    width = devices // processes
    return devices % processes == 0 and (data % width == 0 or width % data == 0)


def _blocks(devices: Sequence[Any] | None) -> list[list[Any]]:
    """Return the devices of each process, which must be equally many."""
    blocks: dict[int, list[Any]] = {}
    for device in sorted(jax.devices() if devices is None else devices, key=lambda device: device.process_index):
        blocks.setdefault(device.process_index, []).append(device)
    if len({len(block) for block in blocks.values()}) > 1:
        given = ", ".join(f"{len(block)} of process {process}" for process, block in blocks.items())
        checks.fail("devices", "be equally many of each process", given)
    if len(blocks) > 1 and not jax.distributed.is_initialized():
        remedy = "Call `jax.distributed.initialize()` first, or give `jax.local_devices()`."
        checks.fail("devices", "be of this process, or of several that know of one another", "they do not", remedy)
    return list(blocks.values())


def is_shared(mesh: Mesh) -> bool:
    """Whether the mesh has devices of several processes."""
    return len(mesh_processes(mesh)) > 1


def mesh_processes(mesh: Mesh) -> tuple[int, ...]:
    """Return the processes that have devices in the mesh."""
    return tuple(sorted({device.process_index for device in mesh.devices.flat}))


def row_processes(mesh: Mesh) -> list[tuple[int, ...]]:
    """Return, for each seed, the processes that have devices in its row."""
    return [tuple(sorted({device.process_index for device in row})) for row in mesh.devices]


def rows_held(mesh: Mesh) -> list[int]:
    """Return the seeds in whose rows this process has devices."""
    return [row for row, among in enumerate(row_processes(mesh)) if jax.process_index() in among]


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Refuse a batch that the mesh's ``data`` axis does not divide, and list shorter axes that would."""
    data = mesh.shape["data"]
    if batch_size % data:
        fitting = [d for d in range(1, data) if batch_size % d == 0 and data % d == 0]
        checks.fail(
            "batch_size",
            f"be divisible by the {data} devices of the data axis",
            f"{batch_size} was given",
            f"Use a data axis of {', '.join(map(str, fitting))}, or another batch size.",
        )


def host_part(mesh: Mesh) -> tuple[list[int], tuple[int, int]]:
    """Return what this process feeds: the rows of the ``seed`` axis, and its (index, count) of parts of each batch.

    Raises:
      ValueError: the devices of a process are no block of the mesh, of equal width for all.
    """
    mine = np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices) == jax.process_index()
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    width = len(columns)
    block = width and mine[np.ix_(rows, columns)].all() and columns[-1] - columns[0] == width - 1
    if not block or columns[0] % width or mesh.shape["data"] % width:
        given = f"those of process {jax.process_index()} stand at {np.argwhere(mine).tolist()}"
        checks.fail("mesh", "give each process a block of devices, all equally wide", given, "Reorder the devices.")
    return rows.tolist(), (int(columns[0]) // width, mesh.shape["data"] // width)


def pmapped(
    step: Callable[..., Any], mesh: Mesh, *, batch_layout: Mapping[str, P] = BATCH, donate: bool = True
) -> Callable[[PyTree, Mapping[str, jax.Array]], Any]:
    """Return ``jit(shard_map(step))`` over the mesh.

    Inside, ``step(state, batch, axis_name="data")`` sees one seed's state and that device's part of its batch.
    Replication is checked (``check_vma=True``, the default): then the loss is to be averaged with ``pmean`` inside
    the differentiated function, as ``train_step`` does. Averaging the gradients instead would be wrong by a factor of
    the axis size.

    Args:
      step: pure function of (state, batch, axis_name); every output must be equal along ``data``.
      mesh: from ``make_mesh``.
      batch_layout: partition of each batch entry; entries split along ``seed`` lose that axis inside.
      donate: let the new state reuse the old one's memory; the state passed in must not be used afterwards.

    Returns:
      A function of the stacked state (seeds, …) and the batch; its outputs have a leading (seeds,) axis.

    Raises:
      TypeError: a step that cannot be called, or another kind of mesh or layout.
    """
    check_mesh(mesh)
    if not callable(step):
        checks.fail("step", "be a function of (state, batch, axis_name)", f"{step!r} was given", error=TypeError)
    if not isinstance(batch_layout, Mapping) or not all(isinstance(part, P) for part in batch_layout.values()):
        given = f"{batch_layout!r} was given"
        checks.fail("batch_layout", "be a mapping of names to partitions", given[:200], error=TypeError)
    axes = {axis for part in batch_layout.values() for axis in jax.tree.leaves(tuple(part))}
    if not axes <= set(mesh.axis_names):
        checks.fail("batch_layout", "name axes of the mesh", f"it has {', '.join(sorted(map(str, axes)))}")
    donate = checks.flag("donate", donate)

    def local(state: PyTree, batch: Mapping[str, jax.Array]) -> Any:
        one = jax.tree.map(lambda leaf: leaf[0], state)
        part = {name: leaf[0] if batch_layout[name][:1] == ("seed",) else leaf for name, leaf in batch.items()}
        return jax.tree.map(lambda leaf: leaf[None], step(one, part, axis_name="data"))

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P("seed"), dict(batch_layout)), out_specs=P("seed"))
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())
