"""Functions with known faults: what the campaign must find, and say of which call. Without jax, so that it is quick."""

import ctypes
import time

from campaign_runner import Case
from hostile_values import Argument

VALUES = Argument(("1",), ("0", "2", "-3", "7"))


def refuses(value):
    if value < 0:
        raise ValueError(f"Argument `value` must be ≥ 0, but {value} was given.")
    return value


def foreign(value):
    return {1: 1, 0: 1, 2: 1, 7: 1}[value]


def silent(value):
    return float("nan") if value == 2 else 1.0


def crashes(value):
    return ctypes.string_at(0) if value == 7 else value


def hangs(value):
    time.sleep(30 if value == -3 else 0)
    return value


def hungry(value):
    return len(bytearray(10**10)) if value == 2 else value


FUNCTIONS = (refuses, foreign, silent, crashes, hangs, hungry)
CASES = tuple(Case(f"planted.{f.__name__}", {"value": VALUES}, lambda result, given: True, call=f) for f in FUNCTIONS)
