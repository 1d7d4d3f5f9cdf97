"""Checkpoints: one orbax folder per saved state, renamed into place whole, with a checksum per array inside.

Orbax makes the write atomic; the checksums make a damaged file an error instead of wrong numbers. Several processes
that hold the same arrays write one checkpoint together, on a disk that all see; it is read anywhere.
"""

import gc
import json
import os
import pathlib
import shutil
import threading
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deform_jax import checks
from deform_jax.training import joint_saves, orbax_errors, processes
from deform_jax.training.checksums import checksums
from deform_jax.training.given import is_storable
from deform_jax.typing import PyTree


class CorruptCheckpointError(ValueError):
    """A checkpoint that cannot be read, or whose arrays are not those that were saved."""


class SaveError(OSError):
    """A checkpoint that could not be written; what was there before is as it was."""


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
    path: str | os.PathLike,
    variables: PyTree,
    *,
    resume: PyTree | None = None,
    manifest: dict[str, Any] | None = None,
    among: Sequence[int] | None = None,
) -> pathlib.Path:
    """Write a checkpoint folder; it appears under ``path`` only when it is complete.

    Args:
      path: the folder to make; its parent is made too.
      variables: nested dicts of arrays, ``{"params": …, "batch_stats": …}``; at least one array.
      resume: further nested dicts of arrays, or None.
      manifest: JSON-serialisable facts to keep with it; of several processes, those of the first.
      among: the processes, in ascending order, that call this together and write it together; all hold the arrays
        whole. None: this one alone.

    Returns:
      The absolute path.

    Raises:
      TypeError, ValueError: something other than nested dicts of arrays, which would not come back as it was.
      FileExistsError: there is a checkpoint under that name already.
      SaveError: it could not be written, such as on a full disk; the message says where and why.
    """
    import orbax.checkpoint as ocp  # it takes longer to import than the whole of this package

    for name, tree in (("variables", variables), ("resume", {} if resume is None else resume)):
        _check_tree(name, tree)
    if manifest is not None and not isinstance(manifest, dict):
        checks.fail("manifest", "be a dict of facts", f"{type(manifest).__name__} was given", error=TypeError)
    if not jax.tree.leaves(variables):
        checks.fail("variables", "hold at least one array", "it holds none")
    path = checks.path("path", path).absolute()
    if path.exists():
        raise FileExistsError(f"There is a checkpoint at {path} already. Remove it, or choose another name.")
    items: dict[str, PyTree] = {"variables": variables} | ({} if resume is None else {"resume": resume})
    sums = {name: checksums(tree) for name, tree in items.items()}
    record = _as_json({**({} if manifest is None else manifest), "checksums": sums})
    record["seal"] = _seal(record)
    arguments = {name: ocp.args.PyTreeSave(joint_saves.placed(tree, among)) for name, tree in items.items()}
    problem, before = None, set(threading.enumerate())
    with orbax_errors.quietly():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with joint_saves.writer(among) as checkpointer:
                checkpointer.save(path, args=ocp.args.Composite(**arguments, manifest=ocp.args.JsonSave(record)))
        except Exception as error:  # orbax and tensorstore raise many kinds
            full = "No space left" in str(error) or "quota" in str(error).lower()
            problem = "the disk is full" if full else orbax_errors.first_line(error).removesuffix(".")
        if problem is not None:  # out of reach of the error, which holds what is to be collected
            orbax_errors.clear(interrupted(path.parent), path.name, set(threading.enumerate()) - before)
    if problem is not None:
        raise SaveError(
            f"The checkpoint at {path} could not be written: {problem}. What was saved before is kept. "
            f"{'Make room' if 'full' in problem else 'Mend that'}; the same call then goes on from there."
        )
    return path


def load(path: str | os.PathLike, *, resume: bool = False, arrays: bool = True) -> Checkpoint:
    """Read a checkpoint and compare every array, and the manifest, with its checksum.

    Each process that calls this reads by itself.

    Args:
      path: the folder that ``save`` made.
      resume: also read the part that only a continued run needs.
      arrays: False reads the manifest only, and leaves ``variables`` empty.

    Returns:
      A ``Checkpoint`` with numpy leaves, wherever it was saved from.

    Raises:
      FileNotFoundError: nothing is there.
      CorruptCheckpointError: unreadable, without its manifest, or different from what was saved.
    """
    path, resume = checks.path("path", path).absolute(), checks.flag("resume", resume)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {path}. Train first, or correct the path.")
    trees, record, problem = {}, {}, None
    with orbax_errors.quietly():
        try:
            trees, record = _read(path, (("variables", "resume") if resume else ("variables",)) if arrays else ())
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
            problem = orbax_errors.first_line(error)
        if problem is not None:
            gc.collect(1)
    if problem is not None:
        raise CorruptCheckpointError(f"The checkpoint at {path} cannot be read: {problem}")
    for name, tree in trees.items():
        _verify(path, name, tree, record["checksums"][name])
    return Checkpoint(trees.get("variables", {}), trees.get("resume"), record)


def steps(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Return the complete checkpoints in a folder whose names are step numbers, oldest first."""
    folder = checks.path("folder", folder)
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def load_newest(folder: str | os.PathLike) -> Checkpoint | None:
    """Return the newest good step in a folder, or None if it holds none; each damaged one is named in a warning.

    Args:
      folder: one that holds checkpoints, each under the number of its step.
    """
    found = steps(folder)
    for i in reversed(range(len(found))):
        try:
            return load(found[i], resume=True)
        except CorruptCheckpointError as error:
            onward = f"Going back to step {found[i - 1].name}." if i else "There is no step before it."
            warnings.warn(f"{error} {onward}", stacklevel=2)
    return None


def prune(folder: str | os.PathLike, *, keep: int) -> None:
    """Remove all but the newest ``keep`` steps, oldest first, and what interrupted saves left behind."""
    for path in [*interrupted(folder), *steps(folder)[:-keep]]:
        shutil.rmtree(path)


def interrupted(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Return the unfinished folders of saves that were killed."""
    folder = pathlib.Path(folder)
    return [path for path in folder.iterdir() if ".orbax-checkpoint-tmp" in path.name] if folder.is_dir() else []


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(facts))
    except (TypeError, ValueError) as error:
        remedy = "Convert them to numbers, strings, lists and dicts."
        checks.fail("manifest", "hold facts that JSON can hold", f"it does not ({error})", remedy, error=TypeError)


def _check_tree(name: str, tree: PyTree) -> None:
    checks.pytree(name, tree)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        at = f"it has {jax.tree_util.keystr(path) or 'no keys at all'}"
        if not path or not all(isinstance(getattr(part, "key", None), str) for part in path):
            remedy = "Turn it into dicts, for instance with `flax.serialization.to_state_dict`."
            checks.fail(name, "be nested dicts with strings as keys", at, remedy, error=TypeError)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            given = f"{at} of type {type(leaf).__name__}"
            checks.fail(name, "hold arrays", given, "Convert it with `numpy.asarray`.", error=TypeError)
        if not is_storable(leaf.dtype):
            checks.fail(name, "hold arrays of numbers", f"{at} of dtype {leaf.dtype}", error=TypeError)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            remedy = "Save `jax.random.key_data(key)`."
            checks.fail(name, "hold arrays of numbers", f"{at}, a random key", remedy, error=TypeError)


def _seal(record: dict[str, Any]) -> int:
    """Checksum of the manifest itself, so that a damaged history or checksum is told from the one written."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


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
    import orbax.checkpoint as ocp

    handler = ocp.CompositeCheckpointHandler(
        variables=ocp.PyTreeCheckpointHandler(),
        resume=ocp.PyTreeCheckpointHandler(),
        manifest=ocp.JsonCheckpointHandler(),
    )
    alone = ocp.options.MultiprocessingOptions(primary_host=processes.index(), active_processes={processes.index()})
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        record = checkpointer.restore(path, args=ocp.args.Composite(manifest=ocp.args.JsonRestore())).manifest
        sums = record.get("checksums") if isinstance(record, dict) else None
        if not isinstance(sums, dict) or "variables" not in sums or not all(isinstance(s, dict) for s in sums.values()):
            raise ValueError("its manifest holds no checksums")
        if "seal" in record and record["seal"] != _seal({k: v for k, v in record.items() if k != "seal"}):
            raise ValueError("its manifest is damaged")
        if not names:
            return {}, record
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
