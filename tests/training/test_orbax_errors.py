"""What is waited for, and removed, after a failed save."""

import threading
import time

import pytest

from deform_jax.training import orbax_errors


class Late(threading.Thread):
    """A thread that takes its time to start: meanwhile it is listed, but cannot be joined."""

    def _bootstrap(self):
        time.sleep(0.4)
        super()._bootstrap()


@pytest.fixture
def unfinished(tmp_path):
    folder = tmp_path / "7.orbax-checkpoint-tmp"
    folder.mkdir()
    return folder


def test_waits_for_a_writer_that_is_only_starting(unfinished):
    """A save once ended in "cannot join thread before it is started" on a full disk."""
    ended = []
    writer = Late(target=lambda: (time.sleep(0.1), ended.append(unfinished.is_dir())))
    starter = threading.Thread(target=writer.start)
    before = set(threading.enumerate())
    starter.start()
    while writer not in threading.enumerate():
        time.sleep(0.001)
    writers = set(threading.enumerate()) - before
    assert writer in writers
    with pytest.raises(RuntimeError, match="before it is started"):
        writer.join()
    orbax_errors.clear([unfinished], "7", writers)
    assert ended == [True]
    assert not writers
    assert not unfinished.exists()


def test_does_not_wait_for_ever_and_leaves_other_checkpoints(unfinished, monkeypatch):
    monkeypatch.setattr(orbax_errors, "SETTLING", 0.2)
    release = threading.Event()
    writer = threading.Thread(target=release.wait)
    writer.start()
    began = time.monotonic()
    orbax_errors.clear([unfinished], "70", {writer})
    assert time.monotonic() - began < 5
    assert unfinished.is_dir()
    release.set()
    writer.join()
