"""The figures that share networks, run at smoke scale as their user would; the listing, help and errors."""

import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from figure_results import main_of, read
from scipy import ndimage

from deform_jax import models, training, warps
from experiments.__main__ import figures
from experiments.__main__ import main as run
from experiments.common import cli, tasks
from experiments.common import runs as common
from experiments.learned_stability import (
    fig3_layer_sensitivity,
    fig4_smoothed_initialisation,
    measures,
    pose_sensitivity,
    worst_case,
)

ROOT = pathlib.Path(__file__).parents[2]
HERE = (
    "fig1_deformed_images",
    "fig2_warp_pipeline",
    "fig3_layer_sensitivity",
    "fig4_smoothed_initialisation",
    "fig6_filter_smoothness",
    "pose_sensitivity",
    "smooth_filters",
    "trajectories",
    "worst_case",
)


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_fig3_table_holds_every_single_measurement(smoke):
    table = read(smoke("fig3_layer_sensitivity"))
    layers = 5
    assert len(table) == 2 * 2 * 2 * 2 * layers  # downsamplings, seeds, states, draws
    inputs = {row["draw"]: set() for row in table}
    for row in table:
        if row["layer"] == "input":
            inputs[row["draw"]].add(row["sensitivity"])
    # All networks and seeds see the same images and deformations: the input's sensitivity is one number per draw.
    assert [len(values) for values in inputs.values()] == [1, 1]
    assert inputs["0"] != inputs["1"]
    assert {row["statistic"] for row in read(smoke("fig3_layer_sensitivity"), "summary")} == {
        "ratio_init",
        "ratio_trained",
        "difference_init",
        "difference_trained",
        "difference_removed",
    }


def test_fig3_agrees_with_a_numpy_recomputation(smoke, runs):
    """From the saved parameters: the paper's formula by explicit loops, for one network, state, draw and layer."""
    settings = fig3_layer_sensitivity.SCALES["smoke"]
    task = tasks.load_task(settings.networks.training, cli.Options())
    images, deformed = measures.draws(settings.probe, task)[1]
    (folder,) = runs.glob("block_vgg_tiny-max-*/seed_001/states/final")
    model = common.build(settings.networks.training, "max", 10)
    represent = models.represent(model, training.load(folder).variables)
    clean, moved = (
        np.asarray(represent(batch)["block2_conv1"], np.float64).reshape(16, -1) for batch in (images, deformed)
    )

    def cosine(a, b):
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))

    def euclidean(a, b):
        return np.linalg.norm(a - b)

    wanted = {"downsampling": "max", "seed": "1", "state": "trained", "draw": "1", "layer": "block2_conv1"}
    (row,) = [r for r in read(smoke("fig3_layer_sensitivity")) if wanted.items() <= r.items()]
    for column, distance in (("sensitivity", cosine), ("euclidean", euclidean)):
        pairs = [distance(clean[i], clean[j]) for i in range(16) for j in range(i)]
        expected = np.mean([distance(a, b) for a, b in zip(clean, moved, strict=True)]) / np.median(pairs)
        assert float(row[column]) == pytest.approx(expected, rel=1e-4)


def test_damaged_runs_are_set_aside_and_trained_again(smoke, runs, tmp_path, capsys):
    """A pair of networks of Fig. 3, whose training is compiled already."""
    smoke("fig3_layer_sensitivity")
    settings = fig3_layer_sensitivity.SCALES["smoke"].networks.training
    (pair,) = runs.glob("block_vgg_tiny-max-*")
    shutil.copytree(pair, tmp_path / pair.name)
    first = [training.load(pair / seed / "states" / "final").variables for seed in ("seed_000", "seed_001")]
    for final in tmp_path.glob("*/*/states/final"):
        largest = max((p for p in (final / "variables").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        damaged = bytearray(largest.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        largest.write_bytes(damaged)
    options = cli.Options(runs=tmp_path, data_axis=1)
    again = common.train_or_load(settings, tasks.load_task(settings, options), "max", [0, 1], options)
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
    table = read(smoke("fig6_filter_smoothness"))
    assert {row["layer_index"] for row in table} == {str(i) for i in range(1, 3)}
    largest = [float(r["total_variation"]) for r in table if r["state"] == "init" and r["layer"] == "block2_conv1"]
    # 9·8·16 weights: the sd over resampling is about 0.031, by 0.0356·√(9·3·32 / 9·8·16).
    np.testing.assert_allclose(largest, 1.85684, atol=4 * 0.031)


def test_fig4_s_smoothing_is_scipy_s_and_steadies_representations(smoke):
    """The smoothest filters of the first layer, from the seed's initial weights, and their effect."""
    folder = smoke("fig4_smoothed_initialisation")
    settings = fig4_smoothed_initialisation.SCALES["smoke"]
    model = common.build(settings.networks.training, "max", 10)
    kernel = np.asarray(common.initial(model, 1, (32, 32, 1))["params"]["block1_conv1"]["kernel"], np.float64)
    blurred = ndimage.gaussian_filter(kernel, (1.0, 1.0, 0, 0), mode="constant", radius=(4, 4, 0, 0))
    variation = sum(np.abs(np.diff(blurred, axis=axis)).sum() for axis in (0, 1)) / np.abs(blurred).sum()
    wanted = {"downsampling": "max", "seed": "1", "sigma": "1.0", "layer": "block1_conv1"}
    (row,) = [r for r in read(folder, "variation") if wanted.items() <= r.items()]
    assert float(row["total_variation"]) == pytest.approx(variation, rel=1e-5)
    values = {row["statistic"]: float(row["value"]) for row in read(folder, "summary")}
    assert values["sigma_4"] < values["sigma_0"]


def test_fig4_starts_from_the_weights_that_training_starts_from(smoke):
    unsmoothed = {
        (row["downsampling"], row["seed"], row["draw"], row["layer"]): row["sensitivity"]
        for row in read(smoke("fig4_smoothed_initialisation"))
        if row["sigma"] == "0.0"
    }
    for row in read(smoke("fig3_layer_sensitivity")):
        if row["state"] == "init":
            expected = float(unsmoothed[row["downsampling"], row["seed"], row["draw"], row["layer"]])
            assert float(row["sensitivity"]) == pytest.approx(expected, rel=1e-5)


def test_trajectories_begin_and_end_at_the_networks_of_fig3(smoke):
    table = read(smoke("trajectories"))
    assert sorted({int(row["step"]) for row in table}) == [0, 1, 2, 4]
    assert len(table) == 2 * 2 * 4 * 5  # downsamplings, seeds, steps, layers
    columns = ("downsampling", "seed", "layer", "total_variation")
    ends = {
        state: {
            tuple(row[c] for c in columns) for row in read(smoke("fig6_filter_smoothness")) if row["state"] == state
        }
        for state in ("init", "trained")
    }
    variation = read(smoke("trajectories"), "variation")
    for step, state in (("0", "init"), ("4", "trained")):
        assert {tuple(row[c] for c in columns) for row in variation if row["step"] == step} == ends[state]


def test_pose_s_deformation_is_fig3_s_and_each_pose_differs(smoke):
    table = read(smoke("pose_sensitivity"))
    expected = {
        tuple(row[name] for name in ("downsampling", "seed", "state", "draw", "layer")): row["sensitivity"]
        for row in read(smoke("fig3_layer_sensitivity"))
    }
    found = [row for row in table if row["perturbation"] == "deformation"]
    assert len(found) == len(expected)
    for row in found:
        key = tuple(row[name] for name in ("downsampling", "seed", "state", "draw", "layer"))
        assert row["sensitivity"] == expected[key]
    inputs = {row["perturbation"]: row["sensitivity"] for row in table if row["layer"] == "input"}
    assert len(set(inputs.values())) == 4


def test_the_worst_case_is_no_better_than_the_starts_and_reaches_further_than_their_average(smoke):
    """At the layer that was maximised, per network; ascending from a start never ends below it."""
    table = read(smoke("worst_case"))
    assert {row["target"] for row in table} == {"block2_down"}
    last = [row for row in table if row["layer"] == row["target"]]
    assert len(last) == 2 * 2  # seeds, states
    for row in last:
        assert float(row["worst"]) > float(row["sensitivity"])


def test_each_layer_can_be_maximised_for_itself(smoke, runs, tmp_path):
    """No layer's own worst case is below what the last layer's worst case does to it, but for the search's luck."""
    arguments = ["--scale", "smoke", "--seeds", "1", "--every-layer", "--runs", str(runs), "--data-axis", "1"]
    worst_case.main([*arguments, "--results", str(tmp_path)])
    own = {(r["state"], r["layer"]): float(r["worst"]) for r in read(tmp_path) if r["layer"] == r["target"]}
    assert len(own) == 2 * 4
    shared = [r for r in read(smoke("worst_case")) if r["seed"] == "0" and r["layer"] != "input"]
    better = [own[row["state"], row["layer"]] >= float(row["worst"]) - 1e-6 for row in shared]
    assert np.mean(better) > 0.8


def test_filters_change_as_far_as_they_are_told(smoke):
    """Amount 0 leaves the network as Fig. 6 has it, −1 is smoother, 1 rougher; accuracy only of trained ones."""
    table = read(smoke("smooth_filters"), "changed")
    trained = [r for r in read(smoke("fig6_filter_smoothness")) if r["state"] == "trained" and r["seed"] == "1"]
    expected = np.mean([float(r["total_variation"]) for r in trained if r["downsampling"] == "max"])
    by_amount = {
        float(r["amount"]): float(r["total_variation"]) for r in table if r["state"] == "trained" and r["seed"] == "1"
    }
    assert by_amount[0.0] == pytest.approx(expected, rel=1e-6)
    assert by_amount[-1.0] < by_amount[0.0] < by_amount[1.0]
    for row in table:
        assert (row["test_accuracy"] == "nan") == (row["state"] == "init")


def test_rotations_are_in_degrees():
    perturb = pose_sensitivity.Settings(max_angle=90.0).perturbations()["rotation"]
    assert perturb == warps.random_rotation(max_angle=float(np.radians(90)))
    assert perturb != warps.random_rotation(max_angle=90.0)


def test_the_listing_and_help_name_figures_settings_units_and_defaults(capsys):
    assert run([]) == 0
    listing = capsys.readouterr().out
    for name in figures():
        assert name in listing
        with pytest.raises(SystemExit) as stop:
            main_of(name)(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert f"python -m experiments {name}" in text
        assert "--plot-only" in text
        assert "pixel" in text.lower() or name.startswith(("fig6_filter", "footnote1"))
    with pytest.raises(SystemExit):
        fig3_layer_sensitivity.main(["--scale", "smoke", "--help"])
    assert "default: 16" in capsys.readouterr().out  # the scale's defaults, not the class's


def test_help_from_the_command_line_describes_a_script_s_own_settings(capsys, monkeypatch):
    """They are those of `__main__` there, from whose source their descriptions are read."""
    monkeypatch.delitem(sys.modules, "experiments.learned_stability.fig4_smoothed_initialisation", raising=False)
    with pytest.raises(SystemExit):
        run(["fig4_smoothed_initialisation", "--help"])
    assert "Standard deviations of the Gaussian, pixels" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "smoke.*demo.*paper"),
        (["--downsamplings", "mean"], "--downsamplings must name some of"),
        (["--downsamplings", "max", "max"], "name each one once"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--learning-rate", "-1"], "`learning_rate` must be a finite number > 0"),
        (["--train-images", "0"], "--train-images must be 1 to 10000"),
        (["--test-images", "3000"], "--test-images must be 1 to 2000"),
        (["--probe-images", "3000"], "exceed the 256 test images"),
        (["--dataset", "stream:photographs", "--task", "random_labels"], "needs images in memory"),
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
