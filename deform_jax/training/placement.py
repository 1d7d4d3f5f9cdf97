"""Arrays on a mesh and back: one seed's state per row, data whole on every device, and what a process can read of it.

A mesh may span several processes (``processes``). Each then places and reads only what its own devices hold; nothing
else crosses from host to host but what ``everywhere`` gathers.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training.given import check_leaves, check_mesh
from deform_jax.training.mesh import is_shared, rows_held
from deform_jax.typing import PyTree


def stack(trees: Sequence[PyTree | None], mesh: Mesh) -> PyTree:
    """Stack one pytree per seed along a new leading axis and lay it out over the mesh's ``seed`` axis.

    On a mesh of several processes, each gives the trees of the rows it has devices in; others may be None.

    Args:
      trees: one per seed, alike in structure and shapes.
      mesh: from ``make_mesh``, its ``seed`` axis as long as there are trees.

    Returns:
      The same structure, arrays (seeds, …).

    Raises:
      TypeError, ValueError: not a mesh, the number of trees is not the length of its ``seed`` axis, or they hold
        something other than arrays.
    """
    check_mesh(mesh)
    if not isinstance(trees, Sequence) or isinstance(trees, str | bytes):
        checks.fail("trees", "be a list of one pytree per seed", f"{type(trees).__name__} was given", error=TypeError)
    if len(trees) != mesh.shape["seed"]:
        checks.fail("trees", f"be as many as the seed axis is long, {mesh.shape['seed']}", f"{len(trees)} were given")
    if is_shared(mesh):
        held = {row: trees[row] for row in rows_held(mesh)}
        return jax.tree.map(lambda *leaves: _rows(dict(zip(held, leaves, strict=True)), mesh), *held.values())
    for tree in trees:
        check_leaves("trees", tree)
    if len({jax.tree.structure(tree) for tree in trees}) > 1:
        checks.fail("trees", "have one structure", "they differ", "Stack runs of one architecture and recipe.")
    sharding = NamedSharding(mesh, P("seed"))
    return jax.tree.map(lambda *leaves: _stacked(leaves, sharding), *trees)


def unstack(tree: PyTree) -> list[PyTree]:
    """Return the pytree of each seed, the inverse of ``stack``, on the host: numpy arrays, and keys as they were.

    Copied shard by shard. Indexing arrays that are spread over devices would start one program with a collective per
    leaf and seed: 20 times as slow, and on simulated devices it can lock up. Of a mesh of several processes: None for
    seeds of other processes' rows, and arrays whole on each device of a row, which those of the row save together.

    Args:
      tree: arrays (seeds, …).

    Raises:
      TypeError, ValueError: not a pytree of arrays that all have as many rows.
    """
    leaves = check_leaves("tree", tree)
    if len({np.shape(leaf)[:1] for leaf in leaves} | {()}) != 2:
        checks.fail("tree", "have one row for each seed in every array", "its arrays have other leading axes")
    mesh = getattr(getattr(leaves[0], "sharding", None), "mesh", None)
    if isinstance(mesh, Mesh) and is_shared(mesh):
        held, rows = rows_held(mesh), range(mesh.shape["seed"])
        return [jax.tree.map(functools.partial(_row, row=i, mesh=mesh), tree) if i in held else None for i in rows]
    host = jax.tree.map(_on_host, tree)
    count = jax.tree.leaves(host)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i, ...], host) for i in range(count)]


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Place a whole copy of every array on every device of the mesh; all processes must give equal arrays.

    Args:
      tree: a pytree of arrays.
      mesh: from ``make_mesh``.

    Returns:
      The same structure, arrays of the same shapes.

    Raises:
      TypeError, ValueError: not a mesh, or not a pytree of arrays.
    """
    check_mesh(mesh)
    check_leaves("tree", tree)
    sharding = NamedSharding(mesh, P())
    if not is_shared(mesh):
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _joined(leaf, leaf.shape, sharding, lambda leaf, _: leaf), tree)


def spread(array: np.ndarray, mesh: Mesh, spec: P) -> Any:
    """Return a host array, equal in all processes, as a step over the mesh takes it, split as ``spec`` says."""
    if not is_shared(mesh):
        return array  # the step itself splits it
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])


def everywhere(tree: PyTree) -> PyTree:
    """Return arrays over a mesh as numpy arrays, whole in every process; all processes must call this."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    mesh = jax.tree.leaves(tree)[0].sharding.mesh
    return jax.tree.map(lambda leaf: np.array(leaf.addressable_data(0)), _gathered(mesh)(tree))


def held(tree: PyTree) -> PyTree:
    """Return arrays with a leading seed axis as numpy arrays, cut to the seeds that this process holds."""
    return jax.tree.map(_held, tree)


def _held(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_addressable:
        return jax.device_get(leaf)
    rows = {shard.index[0].start: shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])


def _row(leaf: jax.Array, row: int, mesh: Mesh) -> jax.Array:
    """Return one seed's part of a stacked array, whole on each device of its row; a new array, without a program."""
    if _is_key(leaf):
        bits = _row(jax.random.key_data(leaf), row, mesh)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    devices = set(mesh.devices[row])
    parts = [shard.data[0] for shard in leaf.addressable_shards if shard.device in devices]
    sharding = NamedSharding(Mesh(mesh.devices[row], ("data",)), P())
    return jax.make_array_from_single_device_arrays(leaf.shape[1:], sharding, parts)


def _rows(leaves: dict[int, Any], mesh: Mesh) -> jax.Array:
    """Return the stacked array of which this process has these rows, the inverse of ``_row``."""
    one = next(iter(leaves.values()))
    if _is_key(one):
        bits = _rows({row: jax.random.key_data(leaf) for row, leaf in leaves.items()}, mesh)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(one))
    place = {device: row for row in leaves for device in mesh.devices[row]}
    sharding = NamedSharding(mesh, P("seed"))
    # A new array for each row: what is donated to a step must not be what was passed in.
    news = {row: jnp.array(_whole(leaf))[None] for row, leaf in leaves.items()}
    return _joined(news, (mesh.shape["seed"], *one.shape), sharding, lambda rows, device: rows[place[device]])


def _joined(source: Any, shape: tuple[int, ...], sharding: NamedSharding, part: Any) -> jax.Array:
    """Return a global array from ``part(source, device)``, what each device of this process is to hold."""
    devices = sorted(sharding.addressable_devices, key=lambda device: device.id)
    parts = [jax.device_put(part(source, device), device) for device in devices]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def _stacked(leaves: Sequence[Any], sharding: NamedSharding) -> jax.Array:
    """Return a new array, stacked on the host: on devices, every shape would be one more program to compile."""
    if _is_key(leaves[0]):
        bits = _stacked([jax.random.key_data(leaf) for leaf in leaves], sharding)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaves[0]))
    return jax.device_put(np.stack([np.asarray(leaf) for leaf in leaves]), sharding)


def _whole(leaf: Any) -> Any:
    return leaf if getattr(leaf, "is_fully_addressable", True) else leaf.addressable_data(0)


def _on_host(leaf: Any) -> Any:
    if _is_key(leaf):
        bits = jnp.asarray(np.array(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    return np.array(leaf)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@functools.lru_cache(maxsize=16)
def _gathered(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))
