"""Several processes that train together on JAX's distributed runtime: who writes, where they meet, what they agree on.

``jax.distributed.initialize`` must have been called; without it there is one process, and nothing here waits. These
functions go through the runtime's coordination service (process 0), not through the devices: they have time limits,
and may be called while programs run. Every process concerned must call them, in the same order.
"""

import collections
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import distributed  # the coordination service's client has no public name; orbax takes it from here too

from deform_jax import checks

TIMEOUT = 600.0
"""Seconds to wait for the others; a process that died is noticed sooner, by the runtime's heartbeats."""
LONGEST = 1e6
"""Seconds that the service can wait at most, 11 days."""
VISIBLE = 90.0
"""Seconds until what one process wrote is seen by the others: NFS clients look again after 60 s at most."""

_calls: collections.Counter[tuple[str, tuple[int, ...] | None]] = collections.Counter()


class LostProcessError(RuntimeError):
    """Another process did not come to where all were to meet: it died, hangs, or is doing something else."""


def count() -> int:
    """Return the number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Return this process's number, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_writer() -> bool:
    """Whether this process writes what all of them share: tables, figures, records."""
    return index() == 0


def barrier(name: str, timeout: float = TIMEOUT, *, among: Sequence[int] | None = None) -> None:
    """Wait until all processes have come here.

    Args:
      name: says in the error where the others did not come.
      timeout: seconds.
      among: the processes that meet, in ascending order and this one among them; None: all.

    Raises:
      LostProcessError: they did not come in time.
    """
    if _alone(among):
        return
    key, ids = _key("barrier", name, among), None if among is None else list(among)
    _waiting(name, timeout, lambda client, ms: client.wait_at_barrier(key, ms, process_ids=ids))


def agreed(value: Any, *, among: Sequence[int] | None = None, timeout: float = TIMEOUT) -> Any:
    """Return process 0's ``value``, which JSON can hold, in all processes; or that of the first of ``among``.

    Raises:
      LostProcessError: the process did not give its value in time.
    """
    if _alone(among):
        return value
    return _exchanged("agreed", value, among, timeout, [0 if among is None else among[0]])[0]


def gathered(value: Any, *, among: Sequence[int] | None = None, timeout: float = TIMEOUT) -> list[Any]:
    """Return the ``value`` of every process, or of each ``among`` them, in their order; JSON can hold it.

    Raises:
      LostProcessError: a process did not give its value in time.
    """
    if _alone(among):
        return [value]
    return _exchanged("gathered", value, among, timeout, range(count()) if among is None else among)


def jointly(call: Callable[[], Any], *, among: Sequence[int] | None = None, timeout: float = TIMEOUT) -> Any:
    """Return ``call()``; a ValueError in any process is raised in all of them, so that none waits in vain.

    Raises:
      LostProcessError: a process did not come.
    """
    result, problem = None, None
    try:
        result = call()
    except ValueError as error:
        problem = error
    found = gathered(None if problem is None else str(problem), among=among, timeout=timeout)
    if problem is not None:
        raise problem
    others = [text for text in found if text is not None]
    if others:
        raise ValueError(others[0])
    return result


def check_shared(folder: str | os.PathLike, *, among: Sequence[int] | None = None) -> None:
    """Refuse a folder in which the processes do not see one another's files.

    Raises:
      ValueError: what the first process wrote there has not appeared to another one.
    """
    if _alone(among):
        return
    members = list(range(count()) if among is None else among)
    path = pathlib.Path(folder) / agreed(f".seen-by-all-{uuid.uuid4().hex}", among=among)
    if index() == members[0]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    agreed(None, among=among)  # it is written
    seen = gathered(appeared(path), among=among)
    if index() == members[0]:
        path.unlink()
    if not all(seen):
        blind = ", ".join(str(process) for process, one in zip(members, seen, strict=True) if not one)
        given = f"process {blind} does not see in {folder} what process {members[0]} writes there"
        remedy = "Use a folder on a disk that all hosts share (NFS, Lustre, Filestore, or a mounted bucket)."
        checks.fail("folders", "be seen by all processes", given, remedy)


def appeared(path: pathlib.Path, timeout: float = VISIBLE) -> bool:
    """Whether a path that another process made exists, or comes to within the time that a shared disk may take."""
    deadline = time.monotonic() + (timeout if count() > 1 else 0)
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        if path.parent.is_dir():
            os.listdir(path.parent)  # makes NFS look again
        time.sleep(0.1)
    return True


def _exchanged(name: str, value: Any, among: Sequence[int] | None, timeout: float, givers: Sequence[int]) -> list[Any]:
    key = _key("value", name, among)
    if index() in givers:
        text = json.dumps(value)
        _waiting(name, timeout, lambda client, _: client.key_value_set(f"{key}/{index()}", text))
    texts = [
        _waiting(name, timeout, lambda client, ms, i=i: client.blocking_key_value_get(f"{key}/{i}", ms)) for i in givers
    ]
    return [json.loads(text) for text in texts]


def _alone(among: Sequence[int] | None) -> bool:
    return count() == 1 or (among is not None and list(among) == [index()])


def _key(kind: str, name: str, among: Sequence[int] | None) -> str:
    """Names of the service are used once: each meeting has a number."""
    group = None if among is None else tuple(among)
    _calls[f"{kind} {name}", group] += 1
    members = "all" if group is None else "-".join(map(str, group))
    return f"deform_jax/{kind}/{name}/{members}/{_calls[f'{kind} {name}', group]}"


def _waiting(name: str, timeout: float, call: Callable[[Any, int], Any]) -> Any:
    try:
        return call(distributed.global_state.client, int(1000 * min(max(timeout, 0.001), LONGEST)))
    except Exception as error:  # jaxlib's own type, of which there are several versions
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LostProcessError(
            f"Process {index()} of {count()} waited for the others ({name}, at most {timeout:g} s) in vain: {said} "
            "One was killed, hangs or failed: see what each has written. Start all of them again with the same "
            "command: training goes on from its newest checkpoint."
        ) from error
