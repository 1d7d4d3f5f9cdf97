"""A run's log, and its scalars for TensorBoard: what they say, and that they stay whole whatever befalls the run."""

import dataclasses
import datetime
import errno
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
import training_toys as toys

from deform_jax import training
from deform_jax.training import progress, reports, run_log


class PulledPlugError(Exception):
    """What ends these runs before their time."""


def lines(folder):
    return run_log.read(folder / run_log.NAME)


def said(folder, *names):
    return [tuple(line.get(name) for name in ("event", *names)) for line in lines(folder)]


@pytest.fixture
def ends_at(monkeypatch):
    """A function after which the next run fails at a step."""
    advance = progress.Progress.advance

    def plan(step):
        def failing(self, *arguments):
            advance(self, *arguments)
            if self._done == step:
                raise PulledPlugError("the plug was pulled\nby someone")

        monkeypatch.setattr(progress.Progress, "advance", failing)

    yield plan
    monkeypatch.undo()


def test_says_what_the_history_says_and_who_writes_when(tmp_path):
    begun = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    folders = [tmp_path / "4", tmp_path / "9"]
    runs = toys.fit(seeds=(4, 9), folders=folders, mesh=training.make_mesh(2, 1))
    for folder, run in zip(folders, runs, strict=True):
        start, *epochs, end = lines(folder)
        assert [line["seed"] for line in lines(folder)] == [run.seed] * 4
        assert [start[name] for name in ("event", "epoch", "step", "steps", "pid")] == ["start", 0, 0, 8, os.getpid()]
        for line, row in zip(epochs, run.history, strict=True):
            assert line["event"] == "epoch"
            assert {name: line[name] for name in row} == pytest.approx(row, rel=1e-5)  # six digits
            assert list(line)[:5] == ["time", "event", "seed", "epoch", "step"]
        assert epochs[0]["seconds_left"] > 0
        assert epochs[1]["seconds_left"] == 0
        assert (end["event"], end["loss"]) == ("finished", epochs[1]["loss"])
        for line in lines(folder):
            time = datetime.datetime.fromisoformat(line["time"])
            assert begun <= time <= datetime.datetime.now(datetime.UTC)


def test_within_an_epoch_the_averages_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "STEPS_EVERY", 0)
    (run,) = toys.fit(folders=[tmp_path], checkpoint_steps=3)
    steps = [line for line in lines(tmp_path) if line["event"] == "step"]
    assert [(line["epoch"], line["step"]) for line in steps] == [(1 + (s - 1) // 4, s) for s in range(1, 9)]
    averages = [line["loss"] for line in steps if line["step"] % 4 == 0]
    assert averages == pytest.approx([row["loss"] for row in run.history], rel=1e-5)
    assert steps[0]["seconds_left"] is None  # the first step compiled
    assert all(line["images_per_second"] > 0 for line in steps[1:])


def test_nothing_waits_for_the_device(tmp_path, monkeypatch):
    """Without a bar the loop goes on at once, unless a line is due; a bar's own looks serve the log."""
    monkeypatch.setattr(progress, "held", lambda _: pytest.fail("it waited"))
    toys.fit(folders=[tmp_path])
    assert said(tmp_path) == [("start",), ("epoch",), ("epoch",), ("finished",)]


def test_many_short_epochs_share_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "EVERY_EPOCH", 3)
    toys.fit(dataclasses.replace(toys.RECIPE, epochs=4), folders=[tmp_path])
    assert said(tmp_path, "epoch") == [("start", 0), ("epoch", 4), ("finished", 4)]


def test_a_run_that_goes_on_says_from_where(tmp_path, ends_at, monkeypatch):
    """The log of a run that failed, whose last line a kill has cut off: no line of it is lost, nor said twice."""
    ends_at(6)
    with pytest.raises(PulledPlugError):
        toys.fit(folders=[tmp_path], checkpoint_steps=1)
    monkeypatch.undo()
    assert said(tmp_path, "step") == [("start", 0), ("epoch", 4), ("failed", None)]
    assert lines(tmp_path)[-1]["reason"] == "the plug was pulled"
    before = lines(tmp_path)
    with (tmp_path / run_log.NAME).open("a") as file:
        file.write('{"time": "2026-01-01T00:00:00+00:00", "event": "st')
    assert lines(tmp_path) == before
    assert run_log.tail(tmp_path / run_log.NAME) == before
    (run,) = toys.fit(folders=[tmp_path])
    assert lines(tmp_path)[:3] == before
    assert said(tmp_path, "epoch", "step")[3:] == [("resumed", 1, 5), ("epoch", 2, 8), ("finished", 2, 8)]
    text = (tmp_path / run_log.NAME).read_text()
    assert [json.loads(line)["event"] for line in text.splitlines()][-1] == "finished"
    toys.fit(folders=[tmp_path])
    assert (tmp_path / run_log.NAME).read_text() == text
    (tmp_path / run_log.NAME).unlink()  # a run from before there were logs
    toys.fit(folders=[tmp_path])
    assert not (tmp_path / run_log.NAME).exists()
    assert run.history[-1]["step"] == 8


CHILD = """
import importlib.util, os, pathlib, signal, sys
spec = importlib.util.spec_from_file_location("run_log", sys.argv[1])
run_log = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_log)
write = os.write
def cut(file, line):
    write(file, line[:20])
    os.kill(os.getpid(), signal.SIGKILL)
for step in range(3):
    os.write = cut if step == 2 else write
    run_log.append(pathlib.Path(sys.argv[2]), {"step": step})
"""


def test_killed_in_the_midst_of_a_line(tmp_path):
    path = tmp_path / run_log.NAME
    ended = subprocess.run([sys.executable, "-c", CHILD, run_log.__file__, path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(path.read_bytes().splitlines()) == 3
    assert [line["step"] for line in run_log.read(path)] == [0, 1]
    run_log.mend(path)
    run_log.append(path, {"step": 3, "loss": float("nan"), "accuracy": np.float64(1 / 3)})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 3]
    assert [run_log.tail(path)[-1][name] for name in ("loss", "accuracy")] == [None, 0.333333]


def test_a_log_of_any_bytes_is_read_and_mended(tmp_path):
    path = tmp_path / run_log.NAME
    path.write_bytes(b'\xff\x00{]\n[1]\n{"step": 1}\n' + b"\0" * 100_000)
    assert run_log.read(path) == [{"step": 1}]
    run_log.mend(path)
    run_log.append(path, {"step": 2})
    assert run_log.tail(path)[-1]["step"] == 2
    assert [line["step"] for line in run_log.read(path)] == [1, 2]
    for other in (b"", b"no line yet"):
        path.write_bytes(other)
        assert run_log.read(path) == run_log.tail(path) == []
        run_log.mend(path)
        assert path.read_bytes() == b""


def test_a_full_disk_costs_lines_and_no_training(tmp_path, monkeypatch, capsys):
    write, full = os.write, []

    def to_disk(file, content):
        if b'"event"' not in content or b'"start"' in content:
            return write(file, content)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        full.append(True)
        return write(file, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", to_disk)
    toys.fit(folders=[tmp_path])
    assert capsys.readouterr().err.count("Training goes on, but its log cannot be written: ") == 1
    assert [json.loads(line)["event"] for line in (tmp_path / run_log.NAME).read_text().splitlines()] == ["start"]


def events(folder):
    """The steps and values of each tag in the event files of a run, the oldest first; and where they begin anew."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            length, crc = struct.unpack("<QI", content[:12])
            assert crc == masked_crc32c(content[:8])
            record, content = content[12 : 12 + length], content[16 + length :]
            event = Event.FromString(record)
            if event.HasField("session_log"):
                found.append(("begins", event.step, None))
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


@pytest.fixture
def _without_torch(monkeypatch):
    """The package looks for it, which takes seconds."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("_without_torch")
def test_tensorboard_gets_the_same(tmp_path, ends_at, monkeypatch):
    pytest.importorskip("tensorboardX")
    ends_at(6)
    with pytest.raises(PulledPlugError):
        toys.fit(folders=[tmp_path], tensorboard=True, evaluation=toys.TEST)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch", None)
    (run,) = toys.fit(folders=[tmp_path], tensorboard=True, evaluation=toys.TEST)
    expected = []
    for row in run.history:
        expected += [("begins", 4, None)] if row["epoch"] == 2 else []
        expected += [(tag, row["step"], np.float32(f"{row[name]:.9g}")) for name, tag in reports.scalars.TAGS.items()]
    assert events(tmp_path) == expected
    logged = [line["evaluation_accuracy"] for line in lines(tmp_path) if line["event"] == "epoch"]
    assert logged == pytest.approx([row["evaluation_accuracy"] for row in run.history], rel=1e-5)
    toys.fit(folders=[tmp_path], tensorboard=True, evaluation=toys.TEST)  # finished
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_tensorboard_is_refused_where_it_would_come_to_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`tensorboard` must be False without folders, but True was given"):
        toys.fit(tensorboard=True)
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(ImportError, match=r"Run: pip install 'deform_jax\[tensorboard\]'"):
        toys.fit(tensorboard=True, folders=[tmp_path / "run"])
    assert not pathlib.Path(tmp_path / "run").exists()
