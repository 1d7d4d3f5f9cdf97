"""What orbax leaves behind when a save or a load fails: logs, unfinished reads and writes, files."""

import contextlib
import gc
import logging
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence

SETTLING = 10
"""Seconds at most that a failed save waits for orbax's other threads."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what fails to one error.

    Orbax logs it too, and closes the event loop on which it then abandons other reads and writes: their ends are
    printed as errors that cannot be raised, whenever they come or are collected.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before, hook = [logger.disabled for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.disabled = True
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def clear(unfinished: Sequence[pathlib.Path], name: str, writers: set[threading.Thread]) -> None:
    """Remove the folders of a failed save, which take room where there may be none, once nobody writes into them.

    Args:
      unfinished: folders of unfinished saves.
      name: of the checkpoint that was to be.
      writers: the threads that the save began; the set is emptied.
    """
    deadline = time.monotonic() + SETTLING
    # Not by joining them: orbax's own would raise, and so would one that is about to start.
    while writers.intersection(threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    writers.clear()
    time.sleep(0.5)  # tensorstore's are no threads of Python's
    gc.collect()
    for path in unfinished:
        if path.name.startswith(f"{name}."):
            shutil.rmtree(path, ignore_errors=True)


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"[:300].rstrip(".") + "."
