"""`python -m experiments runs`: what it says of runs in any state, and that removing takes all of one, or nothing."""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import training_toys as toys

from deform_jax.training import locks, progress, run_log
from experiments.common import run_list, run_removal

DONE, FAILED = "tiny-max-00000000aa", "tiny-strided-00000000bb"
SETTINGS = {"training": {"network": "tiny", "width": 0.5, "dataset": "toys", "recipe": {"epochs": 2}}}
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds that are finished, one of them a copy of the other; and a run that failed after its first epoch."""
    folder = tmp_path_factory.mktemp("trained")
    toys.fit(folders=[folder / DONE / "seed_000"], evaluation=toys.TEST)
    shutil.copytree(folder / DONE / "seed_000", folder / DONE / "seed_001")
    advance = progress.Progress.advance

    def failing(self, *arguments):
        advance(self, *arguments)
        if self._done == 6:
            raise RuntimeError("the plug was pulled")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.Progress, "advance", failing)
        with pytest.raises(RuntimeError):
            toys.fit(folders=[folder / FAILED / "seed_003"], evaluation=toys.TEST)
    for name, downsampling, width in ((DONE, "max", 0.5), (FAILED, "strided", 0.25)):
        settings = {"training": {**SETTINGS["training"], "width": width}, "downsampling": downsampling}
        (folder / name / "settings.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def command(capsys):
    """A function that gives the command's exit code, and what it says on stdout and stderr."""

    def call(*arguments):
        code = run_list.main([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def history(folder):
    return json.loads((folder / "states" / "final" / "manifest" / "metadata").read_text())["history"]


def test_lists_state_accuracy_and_differences(runs, command):
    code, out, err = command("--runs", runs)
    assert (code, err) == (0, "")
    accuracy = history(runs / DONE / "seed_000")[-1]["evaluation_accuracy"]
    first, usual, _, header, _, done, failed, settings, *seed = out.splitlines()
    assert first.startswith(f"2 runs in {runs}, ")
    assert max(map(len, out.splitlines()[1:])) <= 100
    assert usual == "Unless said otherwise: width 0.5."
    assert header.split() == ["run", "seeds", "state", "last", "sign", "accuracy", "size"]
    assert done.split()[:3] == [DONE, "0,", "1"]
    assert f"{accuracy:.3f}" in done
    assert done.split()[3] == "finished"
    assert failed.split()[:3] == [FAILED, "3", "failed"]
    assert settings == "  width 0.25"
    assert seed[0].startswith("  seed 3: failed, epoch 1 of 2, step 4, loss ")
    assert " ".join(" ".join(seed).split()).endswith("(the plug was pulled)")


def test_table_and_single_run(runs, command, tmp_path):
    assert command("--runs", runs, "--csv", tmp_path / "table.csv")[0] == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["seed"], row["state"]) for row in rows] == [
        (DONE, "0", "finished"),
        (DONE, "1", "finished"),
        (FAILED, "3", "failed"),
    ]
    last = history(runs / DONE / "seed_000")[-1]
    assert float(rows[0]["evaluation_accuracy"]) == last["evaluation_accuracy"]
    assert rows[2]["settings.width"] == "0.25"
    used = subprocess.run(["du", "-sk", runs / DONE / "seed_000"], capture_output=True, text=True, check=True)
    assert abs(int(rows[0]["bytes"]) / 1024 - int(used.stdout.split()[0])) <= 200  # du counts folders, too
    _, out, _ = command("show", "tiny-m", "--runs", runs)
    assert f"{DONE}, " in out
    assert str(runs / DONE) in out
    assert "  epochs               2" in out
    assert out.count(f"{last['evaluation_loss']:.4g}") == 2  # in the history of each seed
    for name in ("states/init", "states/final", "resume/8"):
        assert out.count(f"{name} (") == 2


def test_a_run_that_is_trained_now_is_shown_and_not_removed(runs, command):
    seed = runs / FAILED / "seed_003"
    with locks.held([seed]):  # the last line with a step is that of the epoch it could go on from
        assert re.search(r"epoch 1 of 2, step 4, .* left \(Process ", " ".join(command("--runs", runs)[1].split()))
    line = {"event": "step", "seed": 3, "epoch": 2, "step": 5, "loss": 1.5, "accuracy": 0.25, "seconds_left": 700.0}
    run_log.append(seed / run_log.NAME, line)
    with locks.held([seed]):
        _, out, _ = command("--runs", runs)
        wanted = "being trained now, epoch 2 of 2, step 5, loss 1.5, accuracy 0.25, 12 min left (Process "
        assert wanted in " ".join(out.split())
        code, out, err = command("remove", DONE, FAILED, "--yes", "--runs", runs)
        assert (code, out) == (1, "")
        assert f"error: {FAILED} is being trained now: Process " in err
        with pytest.raises(ValueError, match="is being trained now: it was taken up"):  # after it was looked at
            run_removal.remove(run_removal.named(run_list.run_folders.listed(runs), [FAILED])[0])
        assert {path.name for path in runs.iterdir()} == {DONE, FAILED}
    assert command("remove", DONE, FAILED, "--yes", "--runs", runs)[0] == 0
    assert not list(runs.iterdir())


def test_what_is_wrong_with_a_folder_is_said(runs, command, tmp_path):
    (runs / DONE / "settings.json").write_text('{"training": {"width"')
    metadata = runs / DONE / "seed_001" / "states" / "final" / "manifest" / "metadata"
    metadata.write_bytes(metadata.read_bytes()[:-9])
    for path in (runs / FAILED / "seed_003" / "resume").glob("*/manifest/metadata"):
        path.write_bytes(b"\xff")
    (runs / FAILED / "seed_003").rename(runs / FAILED / "seed_003.damaged-20260101-000000")
    (runs / "empty-00000000cc").mkdir()
    (runs / "list-00000000dd").mkdir()
    (runs / "list-00000000dd" / "settings.json").write_text("[]")
    (runs / "elsewhere-00000000ee").symlink_to(tmp_path)
    (runs / "a file").touch()
    code, out, err = command("--runs", runs, "--csv", tmp_path / "table.csv")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    for wanted in (
        "settings.json cannot be read: Expecting",
        "seed 1: damaged (states/final: ",
        "seed seed_003.damaged-20260101-000000: set aside (found damaged, and trained again)",
        "empty-00000000cc damaged",
        "no settings.json",
        "list-00000000dd damaged",
        f"a link to {tmp_path}",
    ):
        assert wanted in text
    assert "a file" not in text
    assert command("show", "tiny-m", "--runs", runs)[0] == 0


@pytest.mark.parametrize(("answer", "left"), [("n", 2), ("", 2), ("y", 1), (" Yes ", 1)])
def test_removing_asks(runs, command, monkeypatch, answer, left):
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    code, out, _ = command("remove", "tiny-max", "--runs", runs)
    assert DONE in out
    assert asked[0].startswith("Remove 1 run, ")
    assert code == left - 1
    assert len(list(runs.iterdir())) == left


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tiny"], f"tiny is the beginning of several: {DONE}, {FAILED}. Give more of the name."),
        (["../runs"], f"there is no run ../runs. There are: my-photographs, other-00000000ff, {DONE}, {FAILED}."),
        ([DONE, "none"], "there is no run none. "),
        ([DONE, "my"], "my-photographs is not removed: its name is not that of a run"),
        ([DONE, "other"], "other-00000000ff is not removed: it holds what no run does: thesis.tex"),
        ([DONE], "nobody can be asked here, so nothing was removed. Give --yes"),
    ],
)
def test_what_is_not_removed(runs, command, names, message, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    (runs / "my-photographs").mkdir()
    (runs / "other-00000000ff").mkdir()
    (runs / "other-00000000ff" / "thesis.tex").touch()
    yes = ["--yes"] if "nobody" not in message else []
    code, _, err = command("remove", *names, *yes, "--runs", runs)
    assert code == 1
    assert message in err
    assert len(list(runs.iterdir())) == 4


def test_links_are_not_followed(runs, command, tmp_path):
    (tmp_path / "precious").mkdir()
    (runs / "elsewhere-00000000ee").symlink_to(tmp_path / "precious")
    assert "it is a link to" in command("remove", "elsewhere", "--yes", "--runs", runs)[2]
    (runs / DONE / "seed_002").symlink_to(tmp_path / "precious")
    assert command("remove", DONE, "--yes", "--runs", runs)[0] == 0
    assert (tmp_path / "precious").is_dir()


def test_a_removal_that_is_cut_off_leaves_no_half_run(runs, command, monkeypatch):
    def cut_off(path):
        (path / "settings.json").unlink()
        raise OSError("the plug was pulled")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut_off)
        assert "error: the plug was pulled" in command("remove", DONE, "--yes", "--runs", runs)[2]
    assert not (runs / DONE).exists()
    assert "its removal was cut off; removing it again ends that" in command("--runs", runs)[1]
    assert command("remove", f".removing-{DONE}", "--yes", "--runs", runs)[0] == 0
    assert [path.name for path in runs.iterdir()] == [FAILED]


def test_no_folder(command, tmp_path):
    assert command("--runs", tmp_path / "none")[2] == (
        f"error: there is no folder {tmp_path / 'none'}. Name that of the runs with --runs.\n"
    )
    assert command("--runs", tmp_path)[1].startswith(f"0 runs in {tmp_path}, ")


def test_nothing_heavy_is_loaded_for_finished_runs(runs):
    shutil.rmtree(runs / FAILED)
    script = (
        "import sys; from experiments.common import run_list; run_list.main(sys.argv[1:]); print('jax' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "--runs", runs], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ended.stdout.splitlines()[-1] == "False"
