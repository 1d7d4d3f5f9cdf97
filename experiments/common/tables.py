"""Tidy tables: CSV on disk, one row per single measurement, written whole or not at all."""

import contextlib
import csv
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from deform_jax import checks
from deform_jax.training import processes

Row = Mapping[str, Any]


def write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV; the file appears complete, or stays as it was. Of several processes, only the first writes."""
    if not processes.is_writer():
        return
    with atomic(path) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON, like ``write``."""
    if not processes.is_writer():
        return
    with atomic(path) as file:
        json.dump(record, file, indent=2)
        file.write("\n")


def read(path: pathlib.Path, *, words: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a CSV table, numbers as floats except in the columns ``words``.

    Raises:
      FileNotFoundError: there is none yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table at {path}. Run the same command without --plot-only first.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value if name in words else _number(value) for name, value in row.items()} for row in rows]


@contextlib.contextmanager
def atomic(path: pathlib.Path, mode: Literal["w", "wb"] = "w") -> Iterator[Any]:
    """Open a file that replaces ``path`` only when the block ended without an error, and reached the disk.

    Killed at any moment, or written by several at once, ``path`` holds the whole of one content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary, newline, encoding = pathlib.Path(name), *((None, None) if mode == "wb" else ("", "utf-8"))
    try:
        with os.fdopen(handle, mode, newline=newline, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(option: str, folder: pathlib.Path) -> None:
    """Refuse a folder that cannot be written to, before the work whose outcome is to go there.

    Of several processes, only the first looks.

    Raises:
      ValueError: it cannot be made, or takes no file; the message names the command line's ``option``.
    """
    if not processes.is_writer():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))  # a full disk takes files, but nothing into them
    except OSError as error:
        remedy = f"Make it writable, or choose another with --{option}."
        checks.fail(option, "be a folder to write to", f"{folder} is none ({error.strerror})", remedy)


def unique(rows: Iterable[Row], name: str) -> list[Any]:
    """Return the different values of a column in order of appearance."""
    return list(dict.fromkeys(row[name] for row in rows))


def select(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Return the rows that have all the given values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def per_seed(rows: Sequence[Row], value: str, *, x: str = "layer_index") -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted ``x`` values and the (seeds, x) array of ``value``, averaged over everything else."""
    xs, seeds = sorted(unique(rows, x)), sorted(unique(rows, "seed"))
    grid = [[np.mean([row[value] for row in rows if row[x] == i and row["seed"] == s]) for i in xs] for s in seeds]
    return np.asarray(xs), np.asarray(grid)


def spread(values: np.ndarray) -> np.ndarray:
    """Return the sample standard deviation over the first axis (nan for a single value)."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)


def render(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a plain-text table with aligned columns."""
    cells = [list(header), *(list(line) for line in lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]

    def aligned(line: Sequence[str], pad: Callable[[str, int], str]) -> str:
        return "  ".join([line[0].ljust(widths[0]), *(pad(c, w) for c, w in zip(line[1:], widths[1:], strict=True))])

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([aligned(cells[0], str.rjust), rule, *(aligned(line, str.rjust) for line in cells[1:])])


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
