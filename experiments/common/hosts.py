"""The same command on several processes: one JAX runtime over all their devices, one of them writing.

All processes train together (``training.fit``), each with its part of the devices, and then measure the same, each by
itself: the others would have to wait meanwhile. Process 0 alone shows progress, writes tables, provenance and figures,
and prints; when it has what it needs, the others wait for it at the end.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator

import jax

from deform_jax import checks
from deform_jax.training import processes

CONNECTING = 300
"""Seconds until all processes must have started."""
PARTING = 5
"""Seconds that a process which failed waits for the others to fail alike, each with its own message."""
VARIABLES = {"coordinator": "JAX_COORDINATOR_ADDRESS", "processes": "JAX_NUM_PROCESSES", "process": "JAX_PROCESS_ID"}


class Finished(BaseException):
    """This process has done its part; it waits for process 0 at the end."""


def start(coordinator: str | None, count: int | None, index: int | None, peer_timeout: int) -> None:
    """Join the other processes, if the flags, $JAX_… variables or the environment say that there are any.

    Args:
      coordinator: HOST:PORT of process 0; None, like the two next: as the variable or the environment says.
      count: number of processes.
      index: this one's number, from 0.
      peer_timeout: seconds after which a process that no longer answers is taken for dead, and the others end.

    Raises:
      ValueError: an impossible combination, or processes that do not come.
    """
    if jax.distributed.is_initialized():
        return
    checks.integer("peer-timeout", peer_timeout, minimum=1)
    address, total, number = _given({"coordinator": coordinator, "processes": count, "process": index})
    if (_announced() if total is None else total) == 1:
        return
    try:
        jax.distributed.initialize(
            address, total, number, initialization_timeout=CONNECTING, heartbeat_timeout_seconds=peer_timeout
        )
    except RuntimeError as error:
        if "must be called before" in str(error):
            raise  # our own mistake, or the caller's
        where = f" at {address}" if address else ""
        said = str(error).splitlines()[0]
        remedy = f"Start all of them with the same command, within {CONNECTING} s."
        checks.fail("processes", f"all come together{where}", f"they did not: {said}", remedy)
    if not processes.is_writer():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def leave_rest_to_writer() -> None:
    """End the part of the command that all processes do; process 0 goes on.

    Raises:
      Finished: in the others; ``together`` expects it.
    """
    if not processes.is_writer():
        raise Finished


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Context manager in which several processes work: they end together, and if one fails, all do.

    Python would wait for the others before it ends, so a process that fails says why and is gone; the others find out
    at their next meeting, or ``--peer-timeout`` later.
    """
    try:
        with contextlib.suppress(Finished):
            yield
    except BaseException as error:
        if processes.count() == 1:
            raise
        code = _said(error)
        with contextlib.suppress(processes.LostProcessError):
            processes.barrier("failed", PARTING)
        sys.stderr.flush()
        os._exit(code)
    processes.barrier("end", processes.LONGEST)


def _said(error: BaseException) -> int:
    """Print what a process ends with, and return its exit code."""
    who = f"process {processes.index()} of {processes.count()}"
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(f"{who}: {error.code}", file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, processes.LostProcessError):
        print(f"error: {error}", file=sys.stderr)
        return 1
    traceback.print_exception(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        print(
            f"error: {who} ended by the error above. If it is one of communication, another process ended before: see "
            "what that has written. Start all of them again with the same command: training goes on from its newest "
            "checkpoint.",
            file=sys.stderr,
        )
    return 1


def _given(flags: dict[str, str | int | None]) -> tuple[str | None, int | None, int | None]:
    """Return coordinator, count and index from flags and variables, each None where there are none."""
    values = {name: os.environ.get(VARIABLES[name]) if flag is None else flag for name, flag in flags.items()}
    # An address alone is what jax takes in the place of the environment's.
    if all(flag is None for flag in flags.values()) and values["processes"] is None and values["process"] is None:
        return None, None, None
    missing = [f"--{name} (or ${VARIABLES[name]})" for name, value in values.items() if value is None]
    if missing:
        given = f"there is no {' and no '.join(missing)}"
        checks.fail("coordinator, processes and process", "be given together, or none of them", given)
    count, index = (_integer(name, values[name]) for name in ("processes", "process"))
    checks.integer("processes", count, minimum=1)
    checks.integer("process", index, minimum=0, maximum=count - 1)
    if not re.fullmatch(r".+:\d+", str(values["coordinator"])):
        checks.fail("coordinator", "be HOST:PORT of process 0", f"{values['coordinator']!r} was given")
    return str(values["coordinator"]), count, index


def _integer(name: str, value: str | int | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        checks.fail(name, "be an integer", f"${VARIABLES[name]} is {value!r}")


def _announced() -> int:
    """Return the number of processes that the environment says there are, as jax itself would find it."""
    if "COLAB_RELEASE_TAG" in os.environ:
        return 1
    from jax._src import clusters  # what jax.distributed.initialize asks; jax has no public name for it

    for cluster in (clusters.OmpiCluster, clusters.SlurmCluster, clusters.GkeTpuCluster, clusters.GceTpuCluster):
        if cluster.is_env_present():
            return cluster.get_process_count()
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        remedy = (
            "Start it as: mpirun … sh -c 'python -m experiments … --coordinator HOST:PORT --processes "
            "$OMPI_COMM_WORLD_SIZE --process $OMPI_COMM_WORLD_RANK'."
        )
        checks.fail("coordinator", "be given under Open MPI 5", "jax does not find it in the environment", remedy)
    return 1
