"""The report's contents as a page of HTML that needs no other file, and as Markdown beside the pictures it names."""

import os
import pathlib
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from experiments.common import claims
from experiments.common.report import contents, files

HERE = pathlib.Path(__file__).parent
SPECIAL = re.compile(r"([\\`*\[\]|~#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""What Markdown would take for its own; an underscore between letters it takes as it is."""


def html(chapters: Sequence[contents.Chapter], **facts: str) -> str:
    """Return the page; ``facts`` say when it was made, from which commit."""
    return _environment().get_template("page.html.jinja").render(chapters=chapters, facts=facts)


def markdown(chapters: Sequence[contents.Chapter], folder: pathlib.Path) -> str:
    """Return the Markdown for a file in ``folder``, from which its links to pictures and tables start."""

    def address(path: pathlib.Path) -> str:
        start = folder.resolve()
        relative = os.path.relpath(path.resolve(), start) if path.anchor == start.anchor else str(path.resolve())
        return urllib.parse.quote(pathlib.Path(relative).as_posix())

    environment = _environment(finalize=_escaped)
    environment.filters |= {"address": address, "code": _code}
    return environment.get_template("page.md.jinja").render(chapters=chapters)


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters["value_text"] = claims.value_text
    environment.globals |= {"shown_rows": files.SHOWN_ROWS}
    return environment


def _escaped(value: Any) -> Any:
    """Return text that Markdown shows as it is; that HTML does so, too, is the environment's part."""
    if hasattr(value, "__html__"):
        return value
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _code(value: str) -> markupsafe.Markup:
    """Return text in the letters of code, within a table as well."""
    text = " ".join(value.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return markupsafe.Markup(f"{fence}{space}{text}{space}{fence}")  # Markdown takes nothing in code for HTML
