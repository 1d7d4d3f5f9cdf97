"""One process at a time in a run's folder: a lock that the kernel lets go of with the process, however that ends."""

import contextlib
import errno
import json
import os
import pathlib
import socket
import sys
from collections.abc import Callable, Iterable, Iterator

from deform_jax import checks
from deform_jax.training import run_log

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

NAME = "lock"
NOT_THERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks answer, such as mounted buckets."""


@contextlib.contextmanager
def held(folders: Iterable[pathlib.Path], *, before_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the locks of run folders, made where they are missing, while the block runs.

    Where another process holds one, say which and wait until it ends. On file systems without locks, go on after one
    line on stderr. A finished run in a folder that cannot be written to is not locked: nobody can change it.

    Args:
      folders: of the runs; locked in one order by all, so that two groups of runs do not wait for one another.
      before_waiting: called when a lock is taken, to refuse what would be refused after the waiting too.

    Raises:
      ValueError: a folder cannot be written to, and holds no finished run.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted(set(folders)):
            stack.enter_context(_held(folder, before_waiting))
        yield


def holder(folder: pathlib.Path) -> str | None:
    """Return who trains in a run's folder, or None; only looks, and says None where there are no locks.

    A process that comes for the lock at that very moment says that it waits, and goes on at once.
    """
    try:
        file = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _signed(file)
    except OSError:
        return None
    finally:
        os.close(file)
    return None


@contextlib.contextmanager
def _held(folder: pathlib.Path, before_waiting: Callable[[], None]) -> Iterator[None]:
    file = _locked(folder, before_waiting)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def _locked(folder: pathlib.Path, before_waiting: Callable[[], None]) -> int | None:
    """Return the lock's open file, or None where none can be written."""
    while (file := _open(folder)) is not None:
        try:
            locked = _acquire(file, folder, before_waiting)
            if locked and _still_there(file, folder):
                _sign(file, {"host": socket.gethostname(), "pid": os.getpid(), "since": run_log.now()})
                return file
        except BaseException:
            os.close(file)
            raise
        if not locked:
            return file
        os.close(file)  # a damaged run was set aside meanwhile, and its lock with it
    return None


def _open(folder: pathlib.Path) -> int | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        if (folder / "states" / "final").is_dir():
            return None
        remedy = "Make it writable, or choose another place."
        checks.fail("folders", "be folders to write to", f"{folder} is none ({error.strerror})", remedy)


def _acquire(file: int, folder: pathlib.Path, before_waiting: Callable[[], None]) -> bool:
    """Lock the file, or return False where there are no locks."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no locks")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            before_waiting()
            print(
                f"{_signed(file)}, trains in {folder}. Waiting for its end; Ctrl-C ends the waiting.", file=sys.stderr
            )
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        print(f"There are no locks in {folder}: see to it that no two processes train there.", file=sys.stderr)
        return False
    return True


def _still_there(file: int, folder: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), (folder / NAME).stat())
    except FileNotFoundError:
        return False


def _sign(file: int, record: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # a full disk: only those who wait would miss it
        os.ftruncate(file, 0)
        os.write(file, json.dumps(record).encode() + b"\n")


def _signed(file: int) -> str:
    try:
        record = json.loads(os.pread(file, 4096, 0))
        return f"Process {record['pid']} on {record['host']}, since {record['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "Another process, unknown which"
