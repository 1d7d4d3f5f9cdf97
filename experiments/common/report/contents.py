"""What the report says: of each paper its figures, of each figure its results and the verdicts on its claims."""

import collections
import dataclasses
import functools
import importlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from experiments import __main__ as listing
from experiments.common import claims, cli, tables
from experiments.common import settings as common
from experiments.common.report import files, origins

LINKS = {
    "learned_stability": "https://arxiv.org/abs/1804.04438",
    "spatial_information": "https://arxiv.org/abs/2210.01506",
}
VERDICTS = ("holds", "does not hold", "undecided", "not tested")
WORDS = {"claim", "kind", "place", "sentence", "statistic", "holds_if", "interval", "verdict", "figure", "scale"}
NUMBERS = {"value", "low", "high", "networks_per_group", "images_trained_on"}
"""Columns of ``claims.csv`` that are used."""
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be on the page."""

    figures: tuple[str, ...]
    scales: tuple[str, ...]
    results: pathlib.Path | None
    """A folder of figures' folders; None for each paper's own."""

    def folder(self, paper: str) -> pathlib.Path:
        """Return the folder in which the paper's figures have theirs."""
        return self.results or listing.ROOT / paper / "results"

    def takes(self, name: str) -> bool:
        """Whether a results folder of this name is wanted; one of no scale's name is, where all scales are."""
        return not name or name.split("-")[0] in self.scales or set(self.scales) == set(get_args(cli.Scale))


@dataclasses.dataclass(frozen=True)
class Result:
    """One results folder."""

    name: str
    place: str
    """The folder, from the repository's root or from the folder of all results."""
    identity: str
    """What the page calls it in its own links."""
    facts: list[tuple[str, str]]
    """How it was made: what, and that."""
    changed: list[tuple[str, str, str]]
    """Settings that differ from the scale's: name, value, and the scale's value."""
    command: str | None
    pictures: list[files.Picture]
    tables: list[files.Table]
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure's section."""

    name: str
    title: str
    command: str
    """What makes results of it."""
    claims: list[list[tables.Row]]
    """Of every claim that is tested on it, a verdict for each scale."""
    results: list[Result]


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One paper."""

    paper: str
    title: str
    link: str
    figures: list[Figure]
    verdicts: list[tables.Row]
    """Of every claim that is tested on these figures, the one at the largest scale."""
    problems: list[str]

    def counts(self) -> dict[str, int]:
        """Return {verdict: how many claims}."""
        found = collections.Counter(row["verdict"] for row in self.verdicts)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def gather(wanted: Wanted, *, progress: Callable[[Sequence[str]], Iterable[str]] = list) -> list[Chapter]:
    """Return the chapters with the wanted figures; what cannot be read is said in them."""
    found = {name: figure_of(name, wanted) for name in progress(wanted.figures)}
    return [chapter for paper in listing.PAPERS if (chapter := _chapter(paper, found, wanted)).figures]


def problems(chapters: Sequence[Chapter]) -> Iterator[tuple[str, str]]:
    """Yield what could not be read: where, and why."""
    for chapter in chapters:
        yield from ((chapter.paper, problem) for problem in chapter.problems)
        for figure in chapter.figures:
            yield from ((result.place, problem) for result in figure.results for problem in result.problems)


def figure_of(name: str, wanted: Wanted) -> Figure:
    """Return a figure's section, without its claims."""
    paper, title = listing.figures()[name]
    scales = importlib.import_module(f"experiments.{paper}.{name}").SCALES
    folder = wanted.folder(paper) / name
    names = sorted((one.name for one in folder.glob("*") if _is_result(one, wanted)), key=_by_scale)
    identities = _identities(name, names)
    results = [_result(folder / one, identity, scales) for one, identity in zip(names, identities, strict=True)]
    scale = next((one for one in ("demo", *get_args(cli.Scale)) if one in wanted.scales and one in scales), "demo")
    return Figure(name, title.rstrip("."), f"python -m experiments {name} --scale {scale}", [], results)


def _is_result(folder: pathlib.Path, wanted: Wanted) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and wanted.takes(folder.name)


def _by_scale(name: str) -> tuple[int, str]:
    scale = name.split("-")[0]
    known = get_args(cli.Scale)
    return known.index(scale) if scale in known else len(known), name


def _identities(figure: str, names: Sequence[str]) -> Iterator[str]:
    """Yield an identity for each folder: letters that an address takes as they are, each one once."""
    taken: set[str] = set()
    for name in names:
        plain = f"{figure}.{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}"
        chosen = next(one for n in itertools.count() if (one := f"{plain}.{n}" if n else plain) not in taken)
        taken.add(chosen)
        yield chosen


def _chapter(paper: str, found: Mapping[str, Figure], wanted: Wanted) -> Chapter:
    problems: list[str] = []
    read = _readable(functools.partial(_claims, paper), [wanted.folder(paper) / "claims.csv"], problems)
    rows = [row for rows in read for row in rows]
    figures = []
    for name, figure in found.items():
        if listing.figures()[name][0] == paper:
            tested = [row for row in rows if row["figure"] == name and wanted.takes(row["scale"])]
            grouped = [tables.select(tested, claim=claim) for claim in tables.unique(tested, "claim")]
            figures.append(dataclasses.replace(figure, claims=grouped))
    verdicts = claims.best([row for figure in figures for group in figure.claims for row in group])
    return Chapter(paper, listing.PAPERS[paper], LINKS[paper], figures, verdicts, problems)


def _claims(paper: str, path: pathlib.Path) -> list[tables.Row]:
    """Return the verdicts that ``python -m experiments claims`` has written."""
    again = f"Run `python -m experiments claims {paper}`, which writes it."
    if not path.is_file():
        raise files.Unreadable(f"There is no {path.name}, so no claim has a verdict. {again}")
    header, lines = files.cells(path)
    rows: list[dict[str, Any]] = [dict(zip(header, line, strict=True)) for line in lines]
    try:
        if not (WORDS | NUMBERS).issubset(header) or not {row["verdict"] for row in rows}.issubset(VERDICTS):
            raise ValueError
        return [row | {name: float(row[name]) for name in NUMBERS} for row in rows]
    except ValueError:
        raise files.Unreadable(f"{path.name} is damaged, or of another version. {again}") from None


def _readable(read: Callable[[pathlib.Path], R], paths: Sequence[pathlib.Path], problems: list[str]) -> list[R]:
    """Return what could be read; why the rest could not goes to the problems."""
    found = []
    for path in paths:
        try:
            found.append(read(path))
        except files.Unreadable as error:
            problems.append(str(error))
    return found


def _result(folder: pathlib.Path, identity: str, scales: Mapping[str, Any]) -> Result:
    problems: list[str] = []
    record = next(iter(_readable(files.record, [folder], problems)), None)
    pictures = sorted(folder.glob("*.png"), key=lambda path: (path.stem != folder.parent.name, path.stem))
    sheets = sorted(folder.glob("*.csv"), key=lambda path: (path.stem != "summary", path.stem))
    if not pictures:
        problems.append("There is no picture. The figure's command with --plot-only draws it from its table.")
    if not sheets:
        problems.append("There is no table.")
    return Result(
        name=folder.name,
        place=_place(folder),
        identity=identity,
        facts=origins.facts(folder, record) if record else [],
        changed=origins.changed(record, scales) if record else [],
        command=record["command"] if record else None,
        pictures=_readable(files.picture, pictures, problems),
        tables=_readable(files.table, sheets, problems),
        problems=problems,
    )


def _place(folder: pathlib.Path) -> str:
    """Return where the folder is, without what is this machine's own."""
    inside = folder.resolve().is_relative_to(common.ROOT)
    return (folder.resolve().relative_to(common.ROOT) if inside else pathlib.Path(*folder.parts[-2:])).as_posix()
