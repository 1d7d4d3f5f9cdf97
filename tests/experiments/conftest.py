"""Every figure at smoke scale, run once per process and shared by all tests that look at its results."""

import functools
import json

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_results import main_of
from matplotlib import layout_engine

from experiments.common import plots, statistics
from experiments.spatial_information import errors, modes

REDRAWN = ("fig2_warp_pipeline", "fig2_pooling", "fig6_filter_smoothness", "fig6_pixel_diffusion")
"""Figures whose pictures are drawn again, and compared."""


@pytest.fixture(scope="session", autouse=True)
def _pictures_drawn_fast():
    """Most of what drawing costs is text, again and again to arrange panels; one test asks for both formats."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "FORMATS", plots.FORMATS[:1])
        patch.setitem(plots.STYLE, "savefig.dpi", 50)
        patch.setattr(layout_engine.ConstrainedLayoutEngine, "execute", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _measured_once():
    """Figures of the same settings are drawn from one measurement; the second runs all the rest of its script."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (errors, modes):
            patch.setattr(module, "measure", _remembered(module.measure))
        yield


def _pretended(figure, folder, stem, stamp):
    assert stamp
    assert figure.axes
    plt.close(figure)
    path = folder / f"{stem}.{plots.FORMATS[0]}"
    path.touch()
    return path


def _remembered(measure):
    found = {}

    def remembered(command):
        key = command.settings, command.options.runs
        if key not in found:
            found[key] = measure(command)
        return dict(found[key])

    return remembered


@pytest.fixture(scope="session")
def run_figure():
    """Return a function that runs a figure's script with intervals from few resamples: others are tested elsewhere."""

    def main(name, arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statistics, "bootstrap", functools.partial(statistics.bootstrap, resamples=100))
            main_of(name)(arguments)

    return main


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def smoke(run_figure, runs, tmp_path_factory):
    """Return a function that runs a figure at smoke scale once and gives its results folder."""
    done = {}

    def results(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            # One device per seed: eight simulated ones only take longer to compile for.
            shared = ["--scale", "smoke", "--results", str(folder), "--runs", str(runs), "--data-axis", "1"]
            run_figure(name, shared)
            done[name] = folder
        return done[name]

    return results


@pytest.fixture
def complete(run_figure, smoke, capsys, monkeypatch):
    """Return a function that checks what every figure must leave behind."""

    def check(name):
        folder = smoke(name)
        record = json.loads((folder / "provenance.json").read_text())
        assert record["scale"] == "smoke"
        assert record["versions"]["jax"]
        assert record["command"].startswith(f"python -m experiments {name} --scale smoke")
        assert str(folder) not in json.dumps(record)
        tables = {path: path.read_bytes() for path in folder.glob("*.csv")}
        assert folder / "table.csv" in tables
        pictures = {path: matplotlib.image.imread(path) for path in folder.glob("*.png")}
        assert folder / f"{name}.png" in pictures
        assert all(picture.std() > 0.05 for picture in pictures.values())
        for path in pictures:
            path.unlink()
        if name not in REDRAWN:
            # Tables are read back for the first picture, too, so the second one is the same; drawing takes longest.
            monkeypatch.setattr(plots, "save", _pretended)
        run_figure(name, ["--scale", "smoke", "--results", str(folder), "--plot-only"])
        assert all(path.exists() for path in pictures)
        for path, picture in pictures.items() if name in REDRAWN else ():
            np.testing.assert_array_equal(matplotlib.image.imread(path), picture)
        assert {path: path.read_bytes() for path in folder.glob("*.csv")} == tables
        assert "figure:" in capsys.readouterr().out

    return check
