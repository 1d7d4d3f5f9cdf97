"""Tables, pictures and records of results as a page shows them; what cannot be read raises ``Unreadable``."""

import base64
import csv
import dataclasses
import io
import json
import math
import pathlib
from typing import Any

from PIL import Image

QUALITY = 85
"""Of WebP: pictures a third as large as the PNGs, without a difference that one sees."""
SHOWN_ROWS, LISTED_ROWS, OPEN_ROWS = 40, 200, 12
"""Rows that are shown of a table; tables longer than the second are named only, up to the third they stand open."""


class Unreadable(Exception):
    """A file of a results folder is missing or not what it should be; the message says so to the page's reader."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The beginning of a CSV table, its cells as text."""

    name: str
    path: pathlib.Path
    columns: list[str]
    rows: list[list[str]]
    count: int

    @property
    def main(self) -> bool:
        """Whether this is what the figure's table comes down to."""
        return self.name == "summary.csv"

    @property
    def shown(self) -> bool:
        """Whether its rows are shown, or only named."""
        return self.main or self.count <= LISTED_ROWS

    @property
    def opened(self) -> bool:
        """Whether it is short and important enough to stand open."""
        return self.main and self.count <= OPEN_ROWS


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as a ``data:`` address, with the size at which it was drawn, in hundredths of an inch."""

    path: pathlib.Path
    address: str
    width: int
    height: int


def cells(path: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    """Return a CSV table's header and rows, as text."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise Unreadable(f"{path.name} cannot be read as a table: {_reason(error)}.") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise Unreadable(f"{path.name} is damaged: line {number} has {len(row)} cells, its header {len(header)}.")
    return header, rows


def table(path: pathlib.Path) -> Table:
    """Return a CSV table, its numbers with four digits."""
    header, rows = cells(path)
    shown = [[number_text(cell) for cell in row] for row in rows[:SHOWN_ROWS]]
    return Table(path.name, path, header, shown, len(rows))


def number_text(cell: str) -> str:
    """Return a cell's number with four digits, a whole one with all of its digits, any other text as it is."""
    try:
        value = float(cell)
    except ValueError:
        return cell
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def picture(path: pathlib.Path) -> Picture:
    """Return a picture, encoded anew to take less room."""
    try:
        with Image.open(path) as image:
            encoded = io.BytesIO()
            image.convert("RGB").save(encoded, format="WEBP", quality=QUALITY, use_sharp_yuv=True)
            dots = image.info.get("dpi", (200, 200))[0] or 200
            width, height = (max(1, round(100 * side / dots)) for side in image.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(f"{path.name} cannot be read as a picture: {_reason(error)}.") from error
    address = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
    return Picture(path, address, width, height)


def record(folder: pathlib.Path) -> dict[str, Any]:
    """Return the provenance of a results folder."""
    path = folder / "provenance.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path.name} cannot be read: {_reason(error)}.") from error
    said = found if isinstance(found, dict) else {}
    kinds = {"command": str, "settings": dict, "scale": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(said.get(name), kind)]
    if wrong:
        raise Unreadable(f"{path.name} is damaged: it does not say {', '.join(wrong)}.")
    return said


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is none"
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).rstrip(".")
