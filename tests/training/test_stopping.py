"""Runs that end when their training set is fitted, and states kept at chosen steps."""

import dataclasses

import numpy as np
import pytest
import training_toys as toys

from deform_jax import training

SEEDS = (4, 9)
EPOCHS = 6
LONG = dataclasses.replace(toys.RECIPE, epochs=EPOCHS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Both seeds for all epochs, and what each looked like after every epoch and two chosen steps."""
    folder = tmp_path_factory.mktemp("whole")
    folders = [folder / str(seed) for seed in SEEDS]
    options = {"save_epochs": range(1, EPOCHS + 1), "save_steps": (1, 6)}
    runs = toys.fit(LONG, seeds=SEEDS, folders=folders, mesh=training.make_mesh(2, 1), **options)
    return folders, runs


@pytest.fixture(scope="module")
def stop(whole):
    """An accuracy that the two seeds first reach in different epochs, neither in the last."""
    first = {}
    for target in np.linspace(0.3, 0.99, 70):
        reached = [next((r["epoch"] for r in run.history if r["accuracy"] >= target), None) for run in whole[1]]
        if None not in reached and reached[0] != reached[1] and max(reached) < EPOCHS:
            first[float(target)] = reached
    assert first, "no target tells the two seeds apart: change the seeds"
    return next(iter(first.items()))


def fit(stop, folder, **options):
    folders = [folder / str(seed) for seed in SEEDS]
    recipe = dataclasses.replace(LONG, stop_accuracy=stop[0])
    return toys.fit(recipe, seeds=SEEDS, folders=folders, mesh=training.make_mesh(2, 1), **options)


@pytest.fixture(scope="module")
def stopped(stop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    return folder, fit(stop, folder)


def test_each_seed_ends_when_it_is_fitted_whatever_the_others_do(whole, stop, stopped):
    place, runs = stopped
    for run, folder, seed, epoch in zip(runs, whole[0], SEEDS, stop[1], strict=True):
        expected = training.load(folder / "states" / f"epoch_{epoch:04d}")
        toys.assert_identical(run.variables, expected.variables)
        final = training.load(place / str(seed) / "states" / "final")
        toys.assert_identical(final.variables, expected.variables)
        assert toys.timeless(run.history) == toys.timeless(expected.manifest["history"])
        assert final.manifest["step"] == epoch * toys.STEPS
    assert len(runs[0].history) != len(runs[1].history)


@pytest.mark.parametrize("damaged", [False, True])
def test_going_on_with_one_seed_at_its_end(stop, stopped, tmp_path, damaged, monkeypatch):
    """Killed two steps after the first seed ended; with its final state damaged, too."""
    kill_at = min(stop[1]) * toys.STEPS + 2
    saved = training.loop._save

    def save_and_die(members, state, *others):
        saved(members, state, *others)
        if int(state.step[0]) == kill_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.loop, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        fit(stop, tmp_path / "killed", checkpoint_steps=2)
    monkeypatch.undo()
    if damaged:
        early = SEEDS[int(np.argmin(stop[1]))]
        toys.tamper(tmp_path / "killed" / str(early) / "states" / "final")
    for run, other in zip(fit(stop, tmp_path / "killed"), stopped[1], strict=True):
        toys.assert_identical(run.variables, other.variables)
        assert toys.timeless(run.history) == toys.timeless(other.history)
        toys.assert_identical(
            training.load(tmp_path / "killed" / str(run.seed) / "states" / "final").variables, other.variables
        )


def test_chosen_steps_are_kept(whole):
    for folder in whole[0]:
        names = {path.name for path in (folder / "states").iterdir()}
        assert {"step_00000001", "step_00000006", "epoch_0001", "init", "final"} <= names
        one = training.load(folder / "states" / "step_00000001")
        assert one.manifest["step"] == 1
        before, after = (training.load(folder / "states" / name).variables for name in ("init", "epoch_0001"))
        kernel = [v["params"]["head"]["kernel"] for v in (before, one.variables, after)]
        assert 0 < np.abs(kernel[1] - kernel[0]).max() < np.abs(kernel[2] - kernel[0]).max()


@pytest.mark.parametrize("steps", [(0,), (EPOCHS * toys.STEPS + 1,), (1.5,)])
def test_steps_outside_the_run_are_refused(steps):
    with pytest.raises((TypeError, ValueError), match="`save_steps` must be an integer ≥ 1 and ≤ 24"):
        toys.fit(LONG, save_steps=steps)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_impossible_accuracies_are_refused(value):
    with pytest.raises(ValueError, match="`stop_accuracy` must be a finite number ≥ 0 and ≤ 1"):
        training.Recipe(stop_accuracy=value)
