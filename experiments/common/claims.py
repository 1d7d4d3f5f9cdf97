"""Claims of a paper as tests on committed tables: statistic, rule and verdict; nothing is decided by hand.

A claim names the table it is tested on, the statistic, and the region in which the claim holds. The statistic gets a
bootstrap interval over seeds, or over architectures where it compares them; *holds* if the whole 95 % interval lies in
the region, *does not hold* if it lies wholly outside, else *undecided*. What is known exactly is its own interval.
"""

import argparse
import dataclasses
import importlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from experiments.common import claim_scale, cli, statistics, tables


@dataclasses.dataclass(frozen=True)
class Claim:
    """One empirical sentence of a paper, and what tests it."""

    key: str
    """Short name."""
    place: str
    """Where the paper says it."""
    sentence: str
    """What it says."""
    figure: str
    """Script whose results test it."""
    measures: str
    """What the statistic is, in words."""
    statistic: Callable[[statistics.Values], float]
    low: float = -math.inf
    high: float = math.inf
    """The claim holds for values between ``low`` and ``high``."""
    table: str = "table"
    value: str | tuple[str, ...] = "sensitivity"
    """Column, or several columns; the names of several stand last in the groups' keys."""
    by: tuple[str, ...] = ("downsampling", "state")
    """Columns that make the groups; the first one's members are resampled."""
    over: Literal["seeds", "groups"] = "seeds"
    """What is resampled: the seeds of every group, or whole groups, such as architectures in a correlation."""
    exact: bool = False
    """Whether nothing is resampled, and the value alone decides: exact theory, or what is said of every network."""
    correlation: bool = False
    """Whether the statistic is a correlation, so that its interval stays within ±1."""
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Only rows with these values."""
    network: str | None = None
    """Only results of this architecture."""
    question: bool = False
    """A question that the paper leaves open, not a claim of it."""

    @property
    def region(self) -> str:
        """The region in words."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{self.low:g} to {self.high:g}"
        return f"> {self.low:g}" if math.isfinite(self.low) else f"< {self.high:g}"


def evaluate(claim: Claim, folder: pathlib.Path, *, resamples: int = 2000) -> dict[str, Any] | None:
    """Return the claim's row for one results folder, or None where the folder does not hold what it is tested on."""
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    training = record["settings"].get("networks", {}).get("training", {})
    if claim.network not in (None, training.get("network", claim.network)):
        return None
    if training.get("task", "original") not in ("original", "deformed_templates"):
        return None  # a figure that was made for another task than its own
    path = folder / f"{claim.table}.csv"
    rows = [row for row in tables.read(path) if all(row.get(k) == v for k, v in claim.where.items())]
    if not rows or not {*_columns(claim), *claim.by}.issubset(rows[0]):
        return None
    values = _grouped(claim, rows)
    value, low, high = _interval(claim, values, resamples)
    if math.isnan(value):
        return None
    return {
        **_head(claim),
        "value": value,
        "low": low,
        "high": high,
        "verdict": verdict(claim, low, high),
        "figure": claim.figure,
        **claim_scale.describe(folder, record, where=claim.where, exact=claim.exact),
        "networks_per_group": min(len(array) for array in values.values()),
    }


def _columns(claim: Claim) -> tuple[str, ...]:
    return (claim.value,) if isinstance(claim.value, str) else claim.value


def _grouped(claim: Claim, rows: Sequence[tables.Row]) -> statistics.Values:
    """Return the groups' values, with the column's name at the end of the key where there are several columns."""
    if isinstance(claim.value, str):
        return statistics.grouped(rows, claim.value, claim.by)
    found = {name: statistics.grouped(rows, name, claim.by) for name in claim.value}
    return {(*key, name): array for name, groups in found.items() for key, array in groups.items()}


def _interval(claim: Claim, values: statistics.Values, resamples: int) -> tuple[float, float, float]:
    """Return the statistic and its interval, which is the value itself where nothing is resampled."""
    if claim.exact:
        value = float(claim.statistic(values))
        return value, value, value
    (row,) = statistics.bootstrap(
        lambda chosen: {claim.key: claim.statistic(chosen)},
        values,
        over=claim.over,
        correlations=claim.correlation,
        resamples=resamples,
    )
    return row["value"], row["low"], row["high"]


def verdict(claim: Claim, low: float, high: float) -> str:
    """Return *holds*, *does not hold* or *undecided* from the interval; a single seed has none and decides nothing."""
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if claim.low < low and high < claim.high:
        return "holds"
    return "does not hold" if high < claim.low or low > claim.high else "undecided"


def verdicts(claims: Sequence[Claim], results: pathlib.Path, *, resamples: int = 2000) -> list[dict[str, Any]]:
    """Return a row per claim and results folder; a claim without results has one row that says what to run."""
    rows = []
    for claim in claims:
        folders = sorted(path.parent for path in (results / claim.figure).glob(f"*/{claim.table}.csv"))
        found = [row for folder in folders if (row := evaluate(claim, folder, resamples=resamples)) is not None]
        rows += found or [_untested(claim)]
    return rows


def best(rows: Sequence[tables.Row]) -> list[tables.Row]:
    """Return for each claim the row of the largest scale: most networks per group, most training, then by its name."""
    chosen: dict[str, tables.Row] = {}
    for row in rows:
        other = chosen.get(row["claim"])
        if other is None or _size(row) > _size(other):
            chosen[row["claim"]] = row
    return list(chosen.values())


def _size(row: tables.Row) -> tuple[int, int, int]:
    """Untrained networks differ by the scale's name alone."""
    scales, name = get_args(cli.Scale), row["scale"].split("-")[0]
    return row["networks_per_group"], row["images_trained_on"], scales.index(name) if name in scales else -1


def markdown(rows: Sequence[tables.Row]) -> str:
    """Return a Markdown table of verdicts."""
    lines = [
        "| where | claim | statistic | holds if | value (95 % interval) | verdict | tested on |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tested = f"{row['data']}; `{row['figure']}`, {row['scale']}" if row["data"] else f"run `{row['figure']}`"
        cells = [
            row["place"],
            row["sentence"],
            row["statistic"],
            row["holds_if"],
            value_text(row),
            f"**{row['verdict']}**",
            tested,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def value_text(row: tables.Row) -> str:
    """Return a verdict's value and interval in words."""
    return "–" if row["verdict"] == "not tested" else f"{row['value']:.4g} ({_interval_text(row)})"


def _interval_text(row: tables.Row) -> str:
    return "exact" if row["interval"] == "exact" else f"{row['low']:.4g} to {row['high']:.4g}"


def _head(claim: Claim) -> dict[str, Any]:
    return {
        "claim": claim.key,
        "kind": "question" if claim.question else "claim",
        "place": claim.place,
        "sentence": claim.sentence,
        "statistic": claim.measures,
        "holds_if": claim.region,
        "interval": "exact" if claim.exact else f"over {claim.over}",
    }


def _untested(claim: Claim) -> dict[str, Any]:
    return {
        **_head(claim),
        "value": math.nan,
        "low": math.nan,
        "high": math.nan,
        "verdict": "not tested",
        "figure": claim.figure,
        "scale": "",
        "data": "",
        "images_trained_on": 0,
        "networks_per_group": 0,
    }


BEGIN, END = "<!-- claims: written by `python -m experiments claims` -->", "<!-- end of claims -->"


def main(arguments: Sequence[str]) -> int:
    """Test every claim of a paper on its results; write ``claims.csv`` and the table in the folder's README."""
    root = pathlib.Path(__file__).parents[1]
    papers = sorted(path.parent.name for path in root.glob("*/claims.py") if path.parent.name != "common")
    parser = argparse.ArgumentParser(prog="python -m experiments claims", description=main.__doc__)
    parser.add_argument("paper", choices=papers, help="whose claims")
    parser.add_argument("--results", type=pathlib.Path, help="folder of results; default: the paper's, in experiments/")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap samples of seeds (default: 2000)")
    wanted = parser.parse_args(arguments)
    if wanted.resamples < 1:
        parser.error(f"--resamples must be at least 1; {wanted.resamples} given.")
    claims = importlib.import_module(f"experiments.{wanted.paper}.claims").CLAIMS
    results = wanted.results or root / wanted.paper / "results"
    rows = verdicts(claims, results, resamples=wanted.resamples)
    tables.write(results / "claims.csv", rows)
    chosen = best(rows)
    header = ["claim", "verdict", "value", "95 % interval", "holds if", "tested on"]
    lines = [
        [
            *(row["claim"], row["verdict"], f"{row['value']:.4g}", _interval_text(row)),
            *(row["holds_if"], f"{row['figure']}, {row['scale']}"),
        ]
        for row in chosen
    ]
    print(tables.render(header, lines))
    readme = root / wanted.paper / "README.md"
    if wanted.results is None and readme.is_file():
        text = readme.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        with tables.atomic(readme) as file:
            file.write(f"{before}{BEGIN}\n{markdown(chosen)}\n{END}{after}")
    print(f"\nall scales: {results / 'claims.csv'}")
    return 0
