"""Where a figure's ``main`` is, and what it left."""

import csv
import importlib

from experiments.__main__ import figures


def main_of(name):
    """The ``main`` of a figure's script."""
    return importlib.import_module(f"experiments.{figures()[name][0]}.{name}").main


def read(folder, name="table"):
    """The rows of a results folder's table, as strings."""
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))
