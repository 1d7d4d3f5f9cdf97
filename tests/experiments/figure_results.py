"""Where a figure's ``main`` is, and what it left."""

import csv
import functools
import importlib
import pathlib

import pytest

from experiments.__main__ import figures
from experiments.common import claims, tables


def main_of(name):
    """The ``main`` of a figure's script."""
    return importlib.import_module(f"experiments.{figures()[name][0]}.{name}").main


def read(folder, name="table"):
    """The rows of a results folder's table, as strings."""
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def readme_rows(paper):
    """The text of a paper's README, and of each of its claims the row that belongs there: that of the largest scale.

    Which one is the largest does not depend on intervals, and those of the others are in no table.
    """
    folder = pathlib.Path(claims.__file__).parents[1] / paper
    tested = importlib.import_module(f"experiments.{paper}.claims").CLAIMS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "read", functools.cache(tables.read))
        rows = claims.best(claims.verdicts(tested, folder / "results", resamples=1))
        for i, (claim, row) in enumerate(zip(tested, rows, strict=True)):
            assert row["claim"] == claim.key
            if row["verdict"] != "not tested":
                rows[i] = claims.evaluate(claim, folder / "results" / row["figure"] / row["scale"])
    return (folder / "README.md").read_text(encoding="utf-8"), rows
