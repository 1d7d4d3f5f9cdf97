"""Checkpoints: one orbax folder per saved state, renamed into place whole, with a checksum per array inside.

Orbax makes the write atomic; the checksums make a damaged file an error instead of wrong numbers.
"""

import os
import pathlib
import shutil
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from deform_jax.typing import PyTree


class CorruptCheckpointError(ValueError):
    """A checkpoint that cannot be read, or whose arrays are not those that were saved."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      variables: ``{"params": …, "batch_stats": …}``, numpy leaves.
      resume: what a run needs to go on, or None.
      manifest: ``checksums`` and whatever the saver added.
    """

    variables: PyTree
    resume: PyTree | None
    manifest: dict[str, Any]


def save(
    path: str | os.PathLike, variables: PyTree, *, resume: PyTree | None = None, manifest: dict[str, Any] | None = None
) -> pathlib.Path:
    """Write a checkpoint folder; it appears under ``path`` only when it is complete.

    Args:
      path: the folder to make; its parent is made too.
      variables: pytree of arrays (nested dicts), ``{"params": …, "batch_stats": …}``.
      resume: further pytree of arrays (nested dicts), or None.
      manifest: JSON-serialisable facts to keep with it.

    Returns:
      The absolute path.

    Raises:
      FileExistsError: there is a checkpoint under that name already.
    """
    path = pathlib.Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"There is a checkpoint at {path} already. Remove it, or choose another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    items: dict[str, PyTree] = {"variables": variables} | ({} if resume is None else {"resume": resume})
    record = {**(manifest or {}), "checksums": {name: checksums(tree) for name, tree in items.items()}}
    arguments = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**arguments, manifest=ocp.args.JsonSave(record)))
    return path


def load(path: str | os.PathLike, *, resume: bool = False) -> Checkpoint:
    """Read a checkpoint and compare every array with its checksum.

    Args:
      path: the folder that ``save`` made.
      resume: also read the part that only a continued run needs.

    Returns:
      A ``Checkpoint`` with numpy leaves, wherever it was saved from.

    Raises:
      FileNotFoundError: nothing is there.
      CorruptCheckpointError: unreadable, without its manifest, or different from what was saved.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {path}. Train first, or correct the path.")
    names = ("variables", "resume") if resume else ("variables",)
    try:
        trees, record = _read(path, names)
    except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
        raise CorruptCheckpointError(f"The checkpoint at {path} cannot be read: {_first_line(error)}") from error
    for name, tree in trees.items():
        _verify(path, name, tree, record["checksums"][name])
    return Checkpoint(trees["variables"], trees.get("resume"), record)


def steps(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Return the complete checkpoints in a folder whose names are step numbers, oldest first."""
    folder = pathlib.Path(folder)
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def load_newest(folder: str | os.PathLike) -> Checkpoint | None:
    """Return the newest good step in a folder, or None if it holds none; a damaged one is named in a warning."""
    for path in reversed(steps(folder)):
        try:
            return load(path, resume=True)
        except CorruptCheckpointError as error:
            warnings.warn(f"{error} Going back to the step before it.", stacklevel=2)
    return None


def prune(folder: str | os.PathLike, *, keep: int) -> None:
    """Remove all but the newest ``keep`` steps, and what an interrupted save left behind."""
    folder = pathlib.Path(folder)
    stale = [path for path in folder.iterdir() if ".orbax-checkpoint-tmp" in path.name] if folder.is_dir() else []
    for path in [*steps(folder)[:-keep], *stale]:
        shutil.rmtree(path)


def checksums(tree: PyTree) -> dict[str, list]:
    """Return ``{leaf path: [Σ w mod 2³², Σ w·h(i) mod 2³², dtype, shape]}`` over the leaves' 32-bit words w.

    The weights h(i) are odd, so that any single changed word changes the second sum. Integer sums do not depend on
    their order: every sharding gives the same.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    sums = jax.device_get(_sums([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): [int(plain), int(weighted), str(leaf.dtype), list(leaf.shape)]
        for (path, leaf), (plain, weighted) in zip(leaves, sums, strict=True)
    }


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [_sum(leaf) for leaf in leaves]


def _sum(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    bits = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(leaf, unsigned)
    words = bits.ravel().astype(jnp.uint32)
    weights = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(2654435762) + jnp.uint32(1)
    return words.sum(dtype=jnp.uint32), (words * weights).sum(dtype=jnp.uint32)


def _verify(path: pathlib.Path, name: str, tree: PyTree, expected: dict[str, list]) -> None:
    found = checksums(tree)
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        raise CorruptCheckpointError(f"The checkpoint at {path} has other arrays than were saved: {', '.join(odd)}.")
    damaged = [leaf for leaf in expected if found[leaf] != expected[leaf]]
    if damaged:
        raise CorruptCheckpointError(
            f"The checkpoint at {path} is damaged: {', '.join(damaged)} of {name!r} differ from what was saved. "
            "Remove it and use another step, or train again."
        )


def _read(path: pathlib.Path, names: tuple[str, ...]) -> tuple[dict[str, PyTree], dict[str, Any]]:
    handler = ocp.CompositeCheckpointHandler(
        variables=ocp.PyTreeCheckpointHandler(),
        resume=ocp.PyTreeCheckpointHandler(),
        manifest=ocp.JsonCheckpointHandler(),
    )
    with ocp.Checkpointer(handler) as checkpointer:
        record = checkpointer.restore(path, args=ocp.args.Composite(manifest=ocp.args.JsonRestore())).manifest
        if not isinstance(record, dict) or "variables" not in record.get("checksums", {}):
            raise ValueError("its manifest holds no checksums")
        structure = checkpointer.metadata(path).item_metadata
        # As numpy, so that a run saved on eight devices loads on one.
        arguments = {
            name: ocp.args.PyTreeRestore(
                restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure[name].tree)
            )
            for name in names
            if name in record["checksums"]
        }
        found = checkpointer.restore(path, args=ocp.args.Composite(**arguments))
    return {name: found[name] for name in arguments}, record


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"[:300] + "."
