"""Every figure script, run at smoke scale as its user would, and redrawn from its table."""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from deform_jax import models, training
from experiments.__main__ import figures
from experiments.__main__ import main as run
from experiments.common import cli
from experiments.common import runs as common
from experiments.learned_stability import (
    fig1_deformed_images,
    fig2_warp_pipeline,
    fig3_layer_sensitivity,
    fig6_filter_smoothness,
    measures,
)

ROOT = pathlib.Path(__file__).parents[2]
MAINS = {
    "fig1_deformed_images": fig1_deformed_images.main,
    "fig2_warp_pipeline": fig2_warp_pipeline.main,
    "fig3_layer_sensitivity": fig3_layer_sensitivity.main,
    "fig6_filter_smoothness": fig6_filter_smoothness.main,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def smoke(runs, tmp_path_factory):
    """Return a function that runs a figure at smoke scale once and gives its results folder."""
    done = {}

    def results(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            arguments = ["--scale", "smoke", "--results", str(folder), "--runs", str(runs)]
            # One device per seed: eight simulated ones only take longer to compile for.
            MAINS[name](arguments + (["--data-axis", "1"] if name.startswith(("fig3", "fig6")) else []))
            done[name] = folder
        return done[name]

    return results


def rows(folder, name="table"):
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_of_the_listing_is_run_here():
    assert set(figures()) == set(MAINS)


@pytest.mark.parametrize("name", MAINS)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, smoke, capsys):
    folder = smoke(name)
    record = json.loads((folder / "provenance.json").read_text())
    assert record["scale"] == "smoke"
    assert record["versions"]["jax"]
    assert record["command"].startswith(f"python -m experiments {name} --scale smoke")
    assert str(folder) not in json.dumps(record)
    picture = matplotlib.image.imread(folder / f"{name}.png")
    assert picture.std() > 0.05
    table = (folder / "table.csv").read_bytes()
    (folder / f"{name}.png").unlink()
    MAINS[name](["--scale", "smoke", "--results", str(folder), "--plot-only"])
    np.testing.assert_array_equal(matplotlib.image.imread(folder / f"{name}.png"), picture)
    assert (folder / "table.csv").read_bytes() == table
    assert "figure:" in capsys.readouterr().out


def test_fig3_table_holds_every_single_measurement(smoke):
    table = rows(smoke("fig3_layer_sensitivity"))
    layers = 13
    assert len(table) == 2 * 2 * 2 * 2 * layers  # downsamplings, seeds, states, draws
    inputs = {row["draw"]: set() for row in table}
    for row in table:
        if row["layer"] == "input":
            inputs[row["draw"]].add(row["sensitivity"])
    # All networks and seeds see the same images and deformations: the input's sensitivity is one number per draw.
    assert [len(values) for values in inputs.values()] == [1, 1]
    assert inputs["0"] != inputs["1"]
    assert {row["statistic"] for row in rows(smoke("fig3_layer_sensitivity"), "summary")} == {
        "ratio_init",
        "ratio_trained",
        "difference_init",
        "difference_trained",
        "difference_removed",
    }


def test_fig3_agrees_with_a_numpy_recomputation(smoke, runs):
    """From the saved parameters: the paper's formula by explicit loops, for one network, state, draw and layer."""
    settings = fig3_layer_sensitivity.SCALES["smoke"]
    task = common.load_task(settings.networks.training, cli.Options())
    images, deformed = measures.draws(settings.probe, task)[1]
    (folder,) = runs.glob("block_vgg_cifar10-max-*/seed_001/states/final")
    model = common.build(settings.networks.training, "max", 10)
    represent = models.represent(model, training.load(folder).variables)
    clean, moved = (
        np.asarray(represent(batch)["block3_conv2"], np.float64).reshape(16, -1) for batch in (images, deformed)
    )

    def distance(a, b):
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))

    pairs = [distance(clean[i], clean[j]) for i in range(16) for j in range(i)]
    expected = np.mean([distance(a, b) for a, b in zip(clean, moved, strict=True)]) / np.median(pairs)
    wanted = {"downsampling": "max", "seed": "1", "state": "trained", "draw": "1", "layer": "block3_conv2"}
    (row,) = [r for r in rows(smoke("fig3_layer_sensitivity")) if wanted.items() <= r.items()]
    assert float(row["sensitivity"]) == pytest.approx(expected, rel=1e-4)


def test_damaged_runs_are_set_aside_and_trained_again(smoke, runs, tmp_path, capsys):
    """A pair of networks of Fig. 3, whose training is compiled already."""
    smoke("fig3_layer_sensitivity")
    settings = fig3_layer_sensitivity.SCALES["smoke"].networks.training
    (pair,) = runs.glob("block_vgg_cifar10-max-*")
    shutil.copytree(pair, tmp_path / pair.name)
    first = [training.load(pair / seed / "states" / "final").variables for seed in ("seed_000", "seed_001")]
    for final in tmp_path.glob("*/*/states/final"):
        largest = max((p for p in (final / "variables").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        damaged = bytearray(largest.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        largest.write_bytes(damaged)
    options = cli.Options(runs=tmp_path, data_axis=1)
    again = common.train_or_load(settings, common.load_task(settings, options), "max", [0, 1], options)
    assert capsys.readouterr().err.count("trained again") == 2
    assert len(list(tmp_path.glob("*/seed_00?.damaged-*"))) == 2
    for network, variables in zip(again, first, strict=True):
        head, expected = (tree["params"]["head"]["kernel"] for tree in (network.trained, variables))
        np.testing.assert_array_equal(head, expected)


def test_fig6_reuses_the_networks_of_fig3(smoke, runs):
    smoke("fig3_layer_sensitivity")
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/states/final/_CHECKPOINT_METADATA")}
    smoke("fig6_filter_smoothness")
    after = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/states/final/_CHECKPOINT_METADATA")}
    assert len(before) == 4
    assert after == before


def test_fig6_starts_at_the_closed_form_and_skips_other_kernel_sizes(smoke):
    table = rows(smoke("fig6_filter_smoothness"))
    assert {row["layer_index"] for row in table} == {str(i) for i in range(1, 9)}
    largest = [float(r["total_variation"]) for r in table if r["state"] == "init" and r["layer"] == "block4_conv2"]
    # 9·16·16 weights: the sd over resampling is about 0.015, by 0.0356·√(9·3·32 / 9·16·16).
    np.testing.assert_allclose(largest, 1.85684, atol=5 * 0.015)


def test_fig6_panel_a_runs_the_imagenet_form(runs, tmp_path):
    arguments = ["--scale", "smoke", "--network", "block_vgg_imagenet", "--downsamplings", "max", "--seeds", "1"]
    fig6_filter_smoothness.main(
        [*arguments, "--width", "0.03", "--data-axis", "1", "--results", str(tmp_path), "--runs", str(runs)]
    )
    assert len({row["layer"] for row in rows(tmp_path)}) == 13


def test_the_listing_and_help_name_figures_settings_units_and_defaults(capsys):
    assert run([]) == 0
    listing = capsys.readouterr().out
    for name in MAINS:
        assert name in listing
    for name, main in MAINS.items():
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert f"python -m experiments {name}" in text
        assert "--plot-only" in text
        assert "pixels" in text or name.startswith("fig6")
    with pytest.raises(SystemExit):
        fig3_layer_sensitivity.main(["--scale", "smoke", "--help"])
    assert "default: 16" in capsys.readouterr().out  # the scale's defaults, not the class's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "smoke.*demo.*paper"),
        (["--downsamplings", "mean"], "--downsamplings must name some of"),
        (["--downsamplings", "max", "max"], "name each one once"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--learning-rate", "-1"], "`learning_rate` must be a finite number > 0"),
        (["--train-images", "0"], "--train-images must be 1 to 10000"),
        (["--probe-images", "3000"], "exceed the 2000 test images"),
        (["--dataset", "imagenot"], "`name` must be one of"),
        (["--width", "0"], "`width` must be a finite number > 0"),
    ],
)
def test_impossible_settings_say_what_to_do(arguments, message, tmp_path, capsys, smoke, runs):
    if "--probe-images" in arguments:
        smoke("fig3_layer_sensitivity")  # its networks
    given = ["--results", str(tmp_path), "--runs", str(runs), "--data-axis", "1", "--scale", "smoke", *arguments]
    with pytest.raises(SystemExit) as stop:
        fig3_layer_sensitivity.main(given)
    assert stop.value.code not in (0, None)
    said = re.sub(r"[\s│|]+", " ", f"{stop.value.code} {capsys.readouterr().err}")  # tyro wraps and frames messages
    assert re.search(message, said)
    assert not list(tmp_path.iterdir())


def test_plot_only_without_a_table_says_what_to_run(tmp_path):
    with pytest.raises(SystemExit, match="without --plot-only first"):
        fig3_layer_sensitivity.main(["--plot-only", "--results", str(tmp_path / "none")])


def test_an_unknown_figure_lists_the_known_ones():
    command = [sys.executable, "-m", "experiments", "fig99"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "fig3_layer_sensitivity" in ended.stderr
