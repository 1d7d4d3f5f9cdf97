"""What stands between a figure's work and the disk: refused before it, replaced whole after it, ended in one line."""

import errno
import os
import pathlib
import signal
import tempfile

import pytest

from deform_jax import training
from experiments.common import cli, results, tables


def test_a_results_folder_that_takes_no_file_is_refused_before_measuring(tmp_path):
    (tmp_path / "file").touch()
    options = cli.Options(results=tmp_path / "file" / "figure")
    command = cli.Command(settings=None, options=options, results=options.results, line="")
    message = r"`results` must be a folder to write to, but .*figure is none \(Not a directory\)\. .* with --results\."
    with pytest.raises(ValueError, match=message):
        results.measured(command, lambda: pytest.fail("it measured"), "table")


def test_a_full_disk_is_refused_before_measuring(tmp_path, monkeypatch):
    """It takes files, but nothing into them; /dev/full is such a disk."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(ValueError, match=r"`runs` must be .* is none \(No space left on device\)\. .* with --runs\."):
        tables.check_writable("runs", tmp_path)


def test_a_table_that_did_not_reach_the_disk_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    tables.write(path, [{"a": 1}])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        tables.write(path, [{"a": 2}])
    assert tables.read(path) == [{"a": 1}]
    assert list(tmp_path.iterdir()) == [path]


def interrupted(number):
    error = training.Interrupted("at step 3")
    error.signal = number
    return error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (interrupted(signal.SIGTERM), 143, "at step 3\n"),
        (interrupted(signal.SIGINT), 130, "at step 3\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (training.SaveError("the disk is full"), "error: the disk is full", ""),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error: [Errno 13] Permission denied: 'x'", ""),
        (training.CorruptCheckpointError("damaged"), "error: damaged", ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ends_of_a_command(error, code, text, capsys):
    @cli.script
    def main(_):
        raise error

    with pytest.raises(SystemExit) as end:
        main(None)
    assert end.value.code == code
    assert capsys.readouterr().err == text


def test_a_damaged_run_is_set_aside_beside_others_of_the_same_second(tmp_path, monkeypatch, capsys):
    """A clock that goes back can show a time again."""
    from experiments.common import runs

    monkeypatch.setattr("time.strftime", lambda _: "20200101-000000")
    for number in range(3):
        folder = tmp_path / "seed_000" / "states" / "final"
        folder.mkdir(parents=True)
        (folder / "number").write_text(str(number))
        assert runs._load(0, tmp_path / "seed_000", "final") is None
    aside = sorted(tmp_path.glob("seed_000.damaged-20200101-000000*"))
    assert [pathlib.Path(path / "states" / "final" / "number").read_text() for path in aside] == ["0", "1", "2"]
    assert not (tmp_path / "seed_000").exists()
    assert capsys.readouterr().err.count("Seed 0 is trained again.") == 3
