"""The log of a run: ``log.jsonl`` in its folder, one JSON object a line, for a person to follow while it trains."""

import datetime
import json
import math
import os
import pathlib
from typing import Any

NAME = "log.jsonl"
TAIL = 65_536
"""Bytes at the end of a log in which its newest lines are looked for."""


def append(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Add a line, with the time before all else; to be called by the process that holds the folder's lock only.

    A line that does not go in whole, as on a full disk, is taken back. One that a kill cut off is taken back by the
    next ``mend``.

    Raises:
      OSError: it could not be written.
    """
    line = (json.dumps({"time": now(), **_finite(record)}, ensure_ascii=False) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before = os.fstat(file).st_size
        try:
            written = os.write(file, line)
        except OSError:
            written = 0
        if written < len(line):
            os.ftruncate(file, before)
            raise OSError(f"{path} takes no further line")
    finally:
        os.close(file)


def mend(path: pathlib.Path) -> None:
    """Take back what a kill left of a line in the midst of its writing."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - TAIL))
        end = file.read()
        if b"\n" not in end:  # more than any line of ours, such as the zeros of a file system that lost power
            start = file.seek(0)
            end = file.read()
        if not end.endswith(b"\n"):
            file.truncate(start + end.rfind(b"\n") + 1)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a log, the oldest first, without those that are not whole; none where there is no log."""
    try:
        return _lines(path.read_bytes())
    except FileNotFoundError:
        return []


def tail(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the newest lines, like ``read``, in no more time for a long log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return _lines(file.read())
    except FileNotFoundError:
        return []


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601 has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _lines(content: bytes) -> list[dict[str, Any]]:
    found = []
    for line in content.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:  # cut off, or not text at all
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with six digits of each number, and null for what JSON has no number for."""
    return {
        name: (float(f"{value:.6g}") if math.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in record.items()
    }
