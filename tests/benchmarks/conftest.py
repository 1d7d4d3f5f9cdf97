"""The benchmarks' modules are beside the tests, not in a package."""

import pathlib
import sys

import pytest

HERE = str(pathlib.Path(__file__).resolve().parent)


@pytest.fixture(scope="module", autouse=True)
def _beside():
    sys.path.insert(0, HERE)
    yield
    sys.path.remove(HERE)
