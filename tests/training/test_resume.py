"""Every moment at which a run can be killed, as the disk sees it; groups of seeds; damage; other settings."""

import contextlib
import dataclasses
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
import training_toys as toys

from deform_jax import training
from deform_jax.training import checkpoints, resume
from deform_jax.training.checksums import checksums

SEEDS = (4, 9)
OPTIONS = {"evaluation": toys.TEST, "checkpoint_steps": 3, "save_epochs": (1,)}


def fit_pair(folder, **options):
    folders = [folder / str(seed) for seed in SEEDS]
    mesh = training.make_mesh(len(SEEDS), 1)
    return toys.fit(seeds=SEEDS, folders=folders, mesh=mesh, **OPTIONS, **options)


@contextlib.contextmanager
def watched(folder, moments):
    """Keep the disk as it was in the midst of every change to it: what SIGKILL can leave behind.

    A save is caught with an unfinished folder, a removal with half its files gone.
    """
    save, rmtree = checkpoints.save, shutil.rmtree

    def snapshot(path, halfway):
        copy = moments / f"{len(list(moments.iterdir())):02d}"
        shutil.copytree(folder, copy)
        halfway(copy / path.relative_to(folder))

    def begun(path):
        (path.with_name(f"{path.name}.orbax-checkpoint-tmp") / "variables").mkdir(parents=True)

    def half_gone(path):
        for file in sorted(file for file in path.rglob("*") if file.is_file())[::2]:
            file.unlink()

    def watched_save(path, *arguments, **options):
        snapshot(path, begun)
        return save(path, *arguments, **options)

    def watched_removal(path, *arguments, **options):
        if folder in path.parents and ".orbax" not in path.name:
            snapshot(path, half_gone)
        rmtree(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", watched_save)
        patch.setattr(shutil, "rmtree", watched_removal)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Two seeds side by side, two epochs of four steps, and the moments at which they could have been killed."""
    folder, moments = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("moments")
    with watched(folder, moments):
        runs = fit_pair(folder)
    return folder, sorted(moments.iterdir()), runs


@pytest.fixture
def pickled(monkeypatch):
    """Checkpoints as plain pickles, renamed into place like orbax's, for many runs in little time."""

    def save(path, variables, *, resume=None, manifest=None, among=None):
        record = {**manifest, "checksums": {"variables": checksums(variables)}}
        record["checksums"]["resume"] = checksums(resume)
        unfinished = path.with_name(path.name + ".orbax-checkpoint-tmp")
        (unfinished / "manifest").mkdir(parents=True, exist_ok=True)
        (unfinished / "arrays").write_bytes(pickle.dumps(jax.device_get((variables, resume))))
        (unfinished / "manifest" / "metadata").write_text(json.dumps(record))
        unfinished.rename(path)
        return path

    def load(path, *, resume=False, arrays=True):
        try:
            record = json.loads((path / "manifest" / "metadata").read_text())
            variables, rest = pickle.loads((path / "arrays").read_bytes())
        except FileNotFoundError as error:
            raise training.CorruptCheckpointError(str(error)) from error
        return training.Checkpoint(variables, rest if resume else None, record)

    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(checkpoints, "load", load)


def contents(folder):
    """Checksums of every checkpoint under a folder, and what it says of the run, speeds apart."""
    found = {}
    for path in sorted(folder.rglob("manifest/metadata")):
        record = json.loads(path.read_text())
        facts = {name: record.get(name) for name in ("step", "best", "checksums", "settings")}
        facts["history"] = toys.timeless(record["history"])
        found[str(path.parents[1].relative_to(folder))] = facts
    return found


def assert_same_runs(runs, expected):
    for run, other in zip(runs, expected, strict=True):
        toys.assert_identical(run.variables, other.variables)
        assert toys.timeless(run.history) == toys.timeless(other.history)


def end_the_same(folder, moments, runs, place):
    expected = contents(folder)
    for moment in moments:
        copy = shutil.copytree(moment, place / moment.name)
        assert_same_runs(fit_pair(copy), runs)
        assert contents(copy) == expected, moment.name
        assert not [path for path in copy.rglob("*") if "orbax-checkpoint-tmp" in path.name]


def test_a_run_killed_at_any_change_to_the_disk_ends_the_same(pickled, tmp_path):
    """Bit-identical parameters, and the same files with the same contents: no more, no fewer."""
    for name in ("run", "moments", "again"):
        (tmp_path / name).mkdir()
    with watched(tmp_path / "run", tmp_path / "moments"):
        runs = fit_pair(tmp_path / "run")
    kept = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").glob("*/*/*")}
    for seed in SEEDS:
        assert {f"{seed}/states/{name}" for name in ("init", "best", "epoch_0001", "final")} <= kept
        assert {f"{seed}/resume/{step}" for step in (6, 8)} <= kept
    moments = sorted((tmp_path / "moments").iterdir())
    # Two seeds, each: init, one epoch's state, final, at least one best; resume at 3, 4, 6, 8, of which 3 and 4 go.
    assert len(moments) >= 2 * (4 + 4 + 2)
    end_the_same(tmp_path / "run", moments, runs, tmp_path / "again")


@pytest.mark.usefixtures("abandoned_reads")
def test_so_it_does_with_orbax(uninterrupted, tmp_path):
    """The same at a few of the moments: early, between two seeds' saves, and in the last removals."""
    folder, moments, runs = uninterrupted
    end_the_same(folder, [moments[i] for i in (1, len(moments) // 2, -3)], runs, tmp_path)


@pytest.fixture
def halfway(uninterrupted, tmp_path):
    """The last moment at which the newest common step was 4."""
    _, moments, _ = uninterrupted

    def newest(moment):
        common = set.intersection(*({p.name for p in checkpoints.steps(moment / str(s) / "resume")} for s in SEEDS))
        return max(map(int, common), default=0)

    return shutil.copytree([moment for moment in moments if newest(moment) == 4][-1], tmp_path / "run")


def test_seeds_at_different_steps_go_on_from_the_newest_common_one(uninterrupted, halfway, capsys):
    steps = [[path.name for path in checkpoints.steps(halfway / str(seed) / "resume")] for seed in SEEDS]
    assert steps == [["4", "6"], ["3", "4"]]
    assert_same_runs(fit_pair(halfway), uninterrupted[2])
    message = "Going back to step 4, the newest that every seed has in good order, from step 6 of seed 4.\n"
    assert capsys.readouterr().err == message


@pytest.mark.usefixtures("abandoned_reads")
def test_a_damaged_step_is_named_and_the_one_before_it_used(uninterrupted, halfway, capsys):
    shutil.rmtree(halfway / "4" / "resume" / "6")
    shutil.rmtree(halfway / "4" / "resume" / "4" / "variables")
    assert_same_runs(fit_pair(halfway), uninterrupted[2])
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"The checkpoint at {halfway / '4' / 'resume' / '4'} cannot be read: ")
    assert second == "Going back to the start, from step 4 of seed 4, 4 of seed 9."
    assert contents(halfway) == contents(uninterrupted[0])  # the damaged one was written anew


@pytest.mark.usefixtures("abandoned_reads")
def test_a_finished_run_repairs_itself(uninterrupted, tmp_path, capsys):
    """From its newest step but one, and its final state from its newest step."""
    folder, _, runs = uninterrupted
    copy = shutil.copytree(folder, tmp_path / "run")
    toys.tamper(copy / "4" / "resume" / "8")
    shutil.rmtree(copy / "9" / "states" / "final" / "variables")
    assert_same_runs(fit_pair(copy), runs)
    assert contents(copy) == contents(folder)
    lines = capsys.readouterr().err.splitlines()
    assert f"{copy / '4' / 'resume' / '8'}" in lines[0]
    assert lines[1].startswith("Going back to step 6, the newest that every seed has in good order")
    assert lines[2].endswith("It is saved again.")
    assert len(lines) == 3


def test_what_is_saved_does_not_matter(uninterrupted, halfway):
    """Going on with resumable checkpoints at other steps, other states and no evaluation; old leftovers are cleared."""
    for unfinished in ("4/states/epoch_0001", "9/states/best/3", "9/resume/8"):
        (halfway / f"{unfinished}.orbax-checkpoint-tmp" / "variables").mkdir(parents=True)
    runs = toys.fit(seeds=SEEDS, folders=[halfway / str(seed) for seed in SEEDS], mesh=training.make_mesh(2, 1))
    for run, expected in zip(runs, uninterrupted[2], strict=True):
        toys.assert_identical(run.variables, expected.variables)
    assert not list(halfway.rglob("*.orbax-checkpoint-tmp"))


def test_going_on_alone_and_on_other_devices(uninterrupted, halfway, capsys):
    """One seed of a pair, its batches split over two devices: announced, and the same up to float32 rounding."""
    (run,) = toys.fit(seeds=SEEDS[:1], folders=[halfway / "4"], mesh=training.make_mesh(1, 2), **OPTIONS)
    line = "Going on under other conditions, so not to the same bits: mesh {'seed': 2, 'data': 1} → {'seed': 1, "
    assert capsys.readouterr().err == line + "'data': 2}.\n"
    # The tolerance of test_mesh.py, for fewer steps.
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5)  # noqa: E731
    jax.tree.map(close, run.variables, uninterrupted[2][0].variables)


def test_other_conditions_are_named():
    now = resume.environment(training.make_mesh(2, 4))
    assert now["mesh"] == {"seed": 2, "data": 4}
    assert set(now) == {"jax", "jaxlib", "device", "mesh", "processes", "cores", "xla_flags"}
    assert json.loads(json.dumps(now)) == now  # as the manifest gives it back


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "/4 has one with recipe.epochs 2 instead of 4. Use another folder, or remove that one."),
        ({"learning_rate": 0.2, "momentum": 0}, "recipe.learning_rate 0.1 instead of 0.2, recipe.momentum 0.9 instead"),
        ({"downsampling": "strided"}, "/4 has one with model.downsampling strided_relu instead of strided"),
        ({"seeds": (4, 10)}, "/9 has one with seed 9 instead of 10"),
        ({"count": 66}, r"/4 has one with images \[67, 8, 8, 1\] instead of \[66, 8, 8, 1\]"),
    ],
    ids=str,
)
def test_a_folder_of_another_run_is_refused_and_left_alone(halfway, monkeypatch, change, message):
    fresh = training.create_state(toys.MODEL, toys.RECIPE, jax.random.key(4), (8, 8, 1), toys.STEPS)
    monkeypatch.setattr("deform_jax.training.loop.create_state", lambda *_: fresh)  # which takes seconds to compile
    left_alone = lambda: {p: p.stat().st_mtime_ns for p in halfway.rglob("*") if p.name != "lock"}  # noqa: E731
    before = left_alone()
    change = {"downsampling": "strided_relu", "seeds": SEEDS, "count": 67, **change}
    model = dataclasses.replace(toys.MODEL, downsampling=change.pop("downsampling"))
    seeds, count = change.pop("seeds"), change.pop("count")
    train = {name: value[:count] for name, value in toys.TRAIN.items()}
    options = {"prepare": toys.CLEAN, "progress": False, "folders": [halfway / str(seed) for seed in SEEDS]}
    with pytest.raises(ValueError, match=f"`folders` must hold runs of the same settings, but .*{message}"):
        training.fit(model, dataclasses.replace(toys.RECIPE, **change), train, seeds=seeds, **options)
    assert left_alone() == before


def test_a_run_from_before_settings_were_kept_goes_on(uninterrupted, halfway):
    for path in halfway.rglob("manifest/metadata"):
        record = json.loads(path.read_text())
        record.pop("settings", None)
        record.pop("seal")
        path.write_text(json.dumps(record))
    assert_same_runs(fit_pair(halfway), uninterrupted[2])


@pytest.mark.parametrize("name", ["method", "label_smoothing", "loss"])
def test_a_run_from_before_the_recipe_had_a_field_had_its_default(tmp_path, name):
    known = {f"recipe.{field}": value for field, value in dataclasses.asdict(training.Recipe()).items()}
    value = known.pop(f"recipe.{name}")
    record = {"settings": {"seed": 4, "model.gone": 1, **known}}
    training.save(tmp_path / "states" / "init", {"params": {"w": np.zeros(1)}}, manifest=record)
    resume.Member(4, tmp_path, {**known, f"recipe.{name}": value, "model.new": 1}).check_settings()
    with pytest.raises(ValueError, match=f"has one with recipe.{name} {value} instead of other"):
        resume.Member(4, tmp_path, {**known, f"recipe.{name}": "other"}).check_settings()


def test_states_of_a_lost_trajectory_are_replaced(uninterrupted, tmp_path):
    """The resumable steps are gone, and the states kept are those of a run under other conditions."""
    folder, _, runs = uninterrupted
    copy = shutil.copytree(folder, tmp_path / "run")
    for seed in SEEDS:
        shutil.rmtree(copy / str(seed) / "resume")
        states = copy / str(seed) / "states"
        best = next((states / "best").iterdir())
        for path in (states / "epoch_0001", states / "final", best):
            other = training.load(states / "init")
            shutil.rmtree(path)
            target = states / "best" / "7" if path == best else path  # an epoch that never comes
            training.save(target, other.variables, manifest=other.manifest)
    assert_same_runs(fit_pair(copy), runs)
    assert contents(copy) == contents(folder)
