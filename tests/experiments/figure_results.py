"""Where a figure's ``main`` is, and what it left."""

import csv
import functools
import importlib
import os
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

    Values are computed from the committed tables, and intervals of every sixth claim, since they take a minute for all
    (``DEFORM_JAX_FULL=1``); the others are those in ``claims.csv``, next to the same value.
    """
    folder = pathlib.Path(claims.__file__).parents[1] / paper
    tested = importlib.import_module(f"experiments.{paper}.claims").CLAIMS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "read", functools.cache(tables.read))
        written = {
            (row["claim"], row["figure"], row["scale"]): row for row in tables.read(folder / "results/claims.csv")
        }
        rows = claims.best(claims.verdicts(tested, folder / "results", resamples=1))
        for i, (claim, row) in enumerate(zip(tested, rows, strict=True)):
            assert row["claim"] == claim.key
            if row["verdict"] == "not tested":
                continue
            if i % 6 == 0 or os.environ.get("DEFORM_JAX_FULL") == "1":
                rows[i] = claims.evaluate(claim, folder / "results" / row["figure"] / row["scale"])
            else:
                kept = written[claim.key, row["figure"], row["scale"]]
                assert row["value"] == pytest.approx(kept["value"], rel=1e-9)
                low, high = kept["low"], kept["high"]
                rows[i] = row | {"low": low, "high": high, "verdict": claims.verdict(claim, low, high)}
    return (folder / "README.md").read_text(encoding="utf-8"), rows
