"""The figures that train networks for other tasks, at smoke scale, and footnote 1."""

import dataclasses
import importlib
import pathlib

import numpy as np
import pytest
from figure_results import read

from deform_jax import data
from experiments.__main__ import figures
from experiments.common import cli, tasks
from experiments.common import runs as common
from experiments.learned_stability import (
    fig5_synthetic_tasks,
    fig7_random_labels,
    footnote1_initial_variation,
    pose_sensitivity,
    smooth_filters,
    trajectories,
    worst_case,
)

HERE = ("fig5_synthetic_tasks", "fig7_random_labels", "footnote1_initial_variation")


def test_every_figure_of_the_listing_is_run_in_the_tests():
    modules = [importlib.import_module(path.stem) for path in pathlib.Path(__file__).parent.glob("test_*.py")]
    run = {name for module in modules for name in getattr(module, "HERE", ())}
    # These take photographs, or other figures' tables, and have tests of their own.
    assert set(figures()) == run | {"pretrained_imagenet", "rank_correlation"}


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_fig5_has_each_strength_and_a_template_draw_for_each_seed(smoke):
    table = read(smoke("fig5_synthetic_tasks"))
    assert len(table) == 2 * 2 * 2 * 2  # strengths, seeds, states, convolutions
    settings = fig5_synthetic_tasks.SCALES["smoke"]
    drawn = [
        tasks.load_task(fig5_synthetic_tasks.settings_of(settings, 1.0, seed), cli.Options()) for seed in (0, 0, 1)
    ]
    first, again, other = (task.train_examples(10) for task in drawn)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    kept = {row["total_variation"] for row in table if row["state"] == "init" and row["layer"] == "block2_conv1"}
    assert len(kept) == 2  # initial weights depend on the seed alone


def test_fig7_s_tasks_share_images_labels_and_initial_weights_where_they_should(smoke):
    table = read(smoke("fig7_random_labels"))
    keys = {(row["task"], row["probe"]) for row in table}
    assert keys == {
        ("original", "images"),
        ("random_labels", "images"),
        ("random_images", "images"),
        ("random_images", "noise"),
    }
    initial = {
        (row["task"], row["seed"], row["draw"], row["layer"]): row["sensitivity"]
        for row in table
        if row["state"] == "init" and row["probe"] == "images"
    }
    for (task, *rest), value in initial.items():
        assert value == initial["original", *rest], task
    trained = {row["sensitivity"] for row in table if row["state"] == "trained" and row["layer"] == "block2_conv1"}
    assert len(trained) == 4 * 2 * 2  # tasks and probes, seeds, draws
    accuracies = read(smoke("fig7_random_labels"), "accuracy")
    assert {row["task"] for row in accuracies} == {"original", "random_labels", "random_images"}
    assert all(0 <= float(row["fitted_accuracy"]) <= 1 for row in accuracies)


def test_tasks_change_only_what_they_say():
    settings = fig7_random_labels.SCALES["smoke"].networks.training
    images = {
        name: tasks.load_task(dataclasses.replace(settings, task=name), cli.Options()).images
        for name in ("original", "random_labels", "random_images")
    }
    real, labels, noise = (images[name] for name in ("original", "random_labels", "random_images"))
    np.testing.assert_array_equal(labels.train_images, real.train_images)
    np.testing.assert_array_equal(noise.train_labels, real.train_labels)
    np.testing.assert_array_equal(labels.test_labels, real.test_labels)
    assert np.mean(labels.train_labels == real.train_labels) < 0.3
    assert not np.array_equal(noise.train_images, real.train_images)


def test_a_stream_has_no_accuracy_on_its_training_images():
    """Rather than that on its test images under the same name."""
    stream = data.ImageStream("x", None, "train", "test", 32, 0, 10, 100, 100)
    task = tasks.Task(stream, data.IMAGENET_PREPARE, data.IMAGENET_PREPARE)
    assert np.isnan(common.fitted(tasks.Training(), task, "max", None))


def test_states_of_every_step_are_needed_for_a_trajectory(monkeypatch, tmp_path):
    """Two ends alone would pass for a monotone way."""
    network = common.Trained(0, None, None, [{"step": 4}], tmp_path)
    (tmp_path / "states" / "step_00000001").mkdir(parents=True)
    task = type("Task", (), {"train_count": 256})
    monkeypatch.setattr(trajectories.recipes, "trained_networks", lambda *_: (task, {"max": [network]}))
    with pytest.raises(SystemExit, match="lacks states of some steps"):
        trajectories.main(["--scale", "smoke", "--results", str(tmp_path)])


def test_footnote1_s_closed_forms_and_shapes():
    """1.85664 is also the limit of a plain simulation with numpy, and 4√2/3 the untruncated one's."""
    forms = footnote1_initial_variation.closed_forms()
    assert forms["normal"] == pytest.approx(4 * np.sqrt(2) / 3)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=2_000_000)
    kernel = draws[np.abs(draws) < 2][: 9 * 200_000].reshape(3, 3, -1)
    ratio = sum(np.abs(np.diff(kernel, axis=axis)).sum() for axis in (0, 1)) / np.abs(kernel).sum()
    # The sd over resampling is 0.0356·√(96 / 200,000) = 0.0008.
    assert forms["truncated"] == pytest.approx(ratio, abs=0.003)
    shapes = footnote1_initial_variation.shapes(512)
    assert shapes[3, 32] == "CIFAR10"
    assert shapes[64, 64] == "CIFAR10, ImageNet"
    assert shapes[512, 512] == "ImageNet"
    assert max(out for _, out in footnote1_initial_variation.shapes(64)) == 64


def test_footnote1_counts_every_draw(smoke):
    table = read(smoke("footnote1_initial_variation"))
    settings = footnote1_initial_variation.SCALES["smoke"]
    first = [row for row in table if row["shape"] == "3 → 32"]
    assert sum(int(row["resamples"]) for row in first) == settings.resamples
    assert len({row["pooled_mean"] for row in first}) == 10
    assert np.mean([float(row["pooled_sd"]) for row in first]) == pytest.approx(0.0356, rel=0.5)


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (fig5_synthetic_tasks.main, ["--strengths", "1", "1"], "--strengths must be different"),
        (fig5_synthetic_tasks.main, ["--strengths", "-1"], "--strengths must be different numbers ≥ 0"),
        (fig7_random_labels.main, ["--tasks", "random_walk"], "--tasks must name some of"),
        (fig7_random_labels.main, ["--scale", "imagenet"], "has the scales smoke, demo, paper"),
        (footnote1_initial_variation.main, ["--resamples", "5"], "--resamples must be at least 20"),
        (footnote1_initial_variation.main, ["--largest", "8"], "--largest must be at least 32"),
        (fig5_synthetic_tasks.main, ["--task", "original"], "--task is deformed_templates here"),
        (fig7_random_labels.main, ["--stop-accuracy", "None"], "--stop-accuracy must be a number"),
        (fig7_random_labels.main, ["--draws", "0"], "--draws must be at least 1"),
        (fig7_random_labels.main, ["--probe-images", "1"], "--probe-images must be at least 2"),
        (fig7_random_labels.main, ["--grid", "1", "3"], "`grid`"),
        (pose_sensitivity.main, ["--max-factor", "-2"], "`max_factor`"),
        (smooth_filters.main, ["--amounts", "-1", "1"], "--amounts must be different numbers, 0 and others"),
        (trajectories.main, ["--stop-accuracy", "0.9"], "--stop-accuracy must be None here"),
        (worst_case.main, ["--restarts", "0"], "--restarts must be at least 1"),
        (worst_case.main, ["--ascent-images", "99"], "--ascent-images must be at most --probe-images, 16"),
        (worst_case.main, ["--draws", "3"], "--draws must be 1 here"),
    ],
)
def test_impossible_settings_say_what_to_do(main, arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--scale", "smoke", "--results", str(tmp_path), "--runs", str(tmp_path), *arguments])
    assert message in " ".join(f"{stop.value.code} {capsys.readouterr().err}".split()).replace("│ ", "")
    assert not list(tmp_path.iterdir())
