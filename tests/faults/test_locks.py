"""One process at a time in a run's folder, and what is said where that cannot be had."""

import errno
import fcntl
import io
import json
import os
import socket
import sys
import threading
import time

import pytest

from deform_jax.training import locks


def in_background(folders, **options):
    """Enter and leave ``locks.held`` in a thread, whose open file is another to the kernel; return it and a mark."""
    entered = threading.Event()

    def enter():
        with locks.held(folders, **options):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    return thread, entered


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def stderr(monkeypatch):
    """What goes there from now on; capfd can lose what is written while it reads."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    return text


def test_the_second_waits_says_for_whom_and_goes_on(tmp_path, monkeypatch):
    asked, said = threading.Event(), stderr(monkeypatch)
    folder = tmp_path / "run"
    with locks.held([folder]):
        record = json.loads((folder / "lock").read_text())
        assert record["pid"] == os.getpid()
        assert record["host"] == socket.gethostname()
        thread, entered = in_background([folder], before_waiting=asked.set)
        wait_for(lambda: said.getvalue().endswith("\n"))
        assert asked.is_set()
        assert not entered.is_set()
    thread.join(60)
    assert entered.is_set()
    expected = f"Process {os.getpid()} on {socket.gethostname()}, since {record['since']}, trains in {folder}. Waiting"
    assert said.getvalue() == f"{expected} for its end; Ctrl-C ends the waiting.\n"


def test_who_holds_a_lock_can_be_asked(tmp_path, monkeypatch):
    assert locks.holder(tmp_path / "none") is None
    with locks.held([tmp_path]):
        assert locks.holder(tmp_path).startswith(f"Process {os.getpid()} on {socket.gethostname()}, since ")
        (tmp_path / "lock").write_text("{")
        assert locks.holder(tmp_path) == "Another process, unknown which"
    assert locks.holder(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_who_would_be_refused_anyway_does_not_wait(tmp_path):
    def refuse():
        raise ValueError("other settings")

    with (
        locks.held([tmp_path]),
        pytest.raises(ValueError, match="other settings"),
        locks.held([tmp_path], before_waiting=refuse),
    ):
        pass
    with locks.held([tmp_path]):
        pass


def test_groups_in_any_order_do_not_wait_for_one_another(tmp_path, monkeypatch):
    """Two that each hold what the other wants would stand still; so all begin with the same folder."""
    order = []
    acquire = locks._acquire
    monkeypatch.setattr(
        locks, "_acquire", lambda file, folder, act: order.append(folder.name) or acquire(file, folder, act)
    )
    for names in (("b", "a"), ("a", "b")):
        with locks.held([tmp_path / name for name in names]):
            pass
    assert order == ["a", "b", "a", "b"]


def test_a_run_set_aside_meanwhile_is_locked_in_its_new_place(tmp_path, monkeypatch):
    folder, said = tmp_path / "run", stderr(monkeypatch)
    with locks.held([folder]):
        thread, entered = in_background([folder])
        wait_for(lambda: said.getvalue().endswith("\n"))
        folder.rename(tmp_path / "aside")
    thread.join(60)
    assert entered.is_set()
    assert (folder / "lock").is_file()
    assert os.stat(folder / "lock").st_ino != os.stat(tmp_path / "aside" / "lock").st_ino


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_without_locks_get_a_line(tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.held([tmp_path]):
        pass
    line = f"There are no locks in {tmp_path}: see to it that no two processes train there.\n"
    assert capsys.readouterr().err == line


def test_another_trouble_is_not_taken_for_that(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"), locks.held([tmp_path]):
        pass


def test_a_folder_that_cannot_be_made_is_refused_and_a_finished_run_in_one_is_not(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    message = (
        r"`folders` must be folders to write to, but .*file/run is none \(Not a directory\)\. Make it writable, or"
    )
    with pytest.raises(ValueError, match=message), locks.held([tmp_path / "file" / "run"]):
        pass

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(ValueError, match="is none \\(Read-only file system"), locks.held([tmp_path / "run"]):
        pass
    (tmp_path / "run" / "states" / "final").mkdir(parents=True)
    with locks.held([tmp_path / "run"]):
        pass
