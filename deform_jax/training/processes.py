"""Several processes that train together on JAX's distributed runtime: who writes, where they meet, what they agree on.

``jax.distributed.initialize`` must have been called; without it there is one process, and nothing here waits. These
functions go through the runtime's coordination service (process 0), not through the devices: they have time limits,
and may be called while programs run. Every process concerned must call them, in the same order.
"""

import collections
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import distributed  # the coordination service's client has no public name; orbax takes it from here too

TIMEOUT = 600.0
"""Seconds to wait for the others; a process that died is noticed sooner, by the runtime's heartbeats."""

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


def gathered(value: Any, *, timeout: float = TIMEOUT) -> list[Any]:
    """Return every process's ``value``, which JSON can hold, in their order.

    Raises:
      LostProcessError: a process did not give its value in time.
    """
    return [value] if _alone(None) else _exchanged("gathered", value, None, timeout, range(count()))


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
        return call(distributed.global_state.client, max(1, int(1000 * timeout)))
    except Exception as error:  # jaxlib's own type, of which there are several versions
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LostProcessError(
            f"Process {index()} of {count()} waited for the others ({name}, at most {timeout:g} s) in vain: {said} "
            "One was killed, hangs or failed: see what each has written. Start all of them again with the same "
            "command: training goes on from its newest checkpoint."
        ) from error
