"""Devices as a ("seed", "data") mesh, and steps mapped over it.

"pmapped" here means ``jax.jit(jax.shard_map(step))``: ``jax.pmap`` is in maintenance mode, is itself implemented this
way, and its documentation recommends ``shard_map``. Seeds train beside one another along the ``seed`` axis; the batch
of each is split along the ``data`` axis.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.typing import PyTree

BATCH: Mapping[str, P] = {"images": P("seed", "data"), "labels": P("seed", "data")}
"""Layout of a batch of arrays with leading axes (seeds, batch)."""
INDEXED: Mapping[str, P] = {"images": P(), "labels": P(), "order": P("seed", "data")}
"""Layout of a data set held whole by every device, with indices (seeds, batch) into it."""


def make_mesh(seed: int = 1, data: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with axes ``("seed", "data")`` over ``seed * data`` devices.

    Args:
      seed: how many seeds train side by side.
      data: over how many devices each seed's batch is split.
      devices: the devices to use, all of this process group's by default; with more than needed, the first ones.

    Raises:
      ValueError: more devices asked for than there are, or a number that does not divide theirs (the message lists
        the layouts that fit).
    """
    devices = list(jax.devices() if devices is None else devices)
    checks.integer("seed", seed, minimum=1)
    checks.integer("data", data, minimum=1)
    count = len(devices)
    if count % (seed * data):
        layouts = [f"{s} × {d}" for s in range(1, count + 1) for d in range(1, count // s + 1) if count % (s * d) == 0]
        checks.fail(
            "seed × data",
            f"divide the number of devices, {count}",
            f"{seed} × {data} = {seed * data} was given",
            f"Layouts that would: {', '.join(layouts)}.",
        )
    grid = np.asarray(devices[: seed * data], dtype=object).reshape(seed, data)
    # Newer jax makes axes Explicit by default; these steps are written for Auto.
    return Mesh(grid, ("seed", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


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


def stack(trees: Sequence[PyTree], mesh: Mesh) -> PyTree:
    """Stack one pytree per seed along a new leading axis and lay it out over the mesh's ``seed`` axis.

    Raises:
      ValueError: the number of trees is not the length of the ``seed`` axis.
    """
    if len(trees) != mesh.shape["seed"]:
        checks.fail("trees", f"be as many as the seed axis is long, {mesh.shape['seed']}", f"{len(trees)} were given")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return jax.device_put(stacked, NamedSharding(mesh, P("seed")))


def unstack(tree: PyTree) -> list[PyTree]:
    """Return the pytree of each seed, the inverse of ``stack``, on the host: numpy arrays, and keys as they were.

    Copied shard by shard. Indexing arrays that are spread over devices would start one program with a collective per
    leaf and seed: 20 times as slow, and on simulated devices it can lock up.
    """
    host = jax.tree.map(_on_host, tree)
    count = jax.tree.leaves(host)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i, ...], host) for i in range(count)]


def _on_host(leaf: Any) -> Any:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        bits = jnp.asarray(np.array(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    return np.array(leaf)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Place a whole copy of every array on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


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
    """

    def local(state: PyTree, batch: Mapping[str, jax.Array]) -> Any:
        one = jax.tree.map(lambda leaf: leaf[0], state)
        part = {name: leaf[0] if batch_layout[name][:1] == ("seed",) else leaf for name, leaf in batch.items()}
        return jax.tree.map(lambda leaf: leaf[None], step(one, part, axis_name="data"))

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P("seed"), dict(batch_layout)), out_specs=P("seed"))
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())
