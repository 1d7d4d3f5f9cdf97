"""SIGTERM and Ctrl-C, sent for real to this process in the midst of training."""

import os
import signal
import threading

import pytest
import training_toys as toys

from deform_jax import training
from deform_jax.training import checkpoints
from deform_jax.training.progress import Progress


@pytest.fixture(autouse=True)
def _interruptible():
    """As in a terminal; what a shell starts in the background ignores Ctrl-C, and so then does ``fit``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signals(monkeypatch):
    """A dict {step: signals}, which this process sends itself after that many steps of the next ``fit``."""
    planned, count, advance = {}, [0], Progress.advance

    def counted(self, *arguments):
        advance(self, *arguments)
        count[0] += 1
        for number in planned.pop(count[0], ()):
            os.kill(os.getpid(), number)

    def fresh(self, steps, done, *arguments, **options):
        count[0] = done
        begin(self, steps, done, *arguments, **options)

    begin = Progress.__init__
    monkeypatch.setattr(Progress, "__init__", fresh)
    monkeypatch.setattr(Progress, "advance", counted)
    return planned


@pytest.fixture(scope="module")
def undisturbed():
    (run,) = toys.fit()
    return run


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def resumable(folder):
    return [int(path.name) for path in checkpoints.steps(folder / "resume")]


def test_an_announced_end_saves_the_step_and_the_same_call_goes_on(undisturbed, signals, tmp_path, capfd):
    before = handlers()
    signals[1] = (signal.SIGTERM, signal.SIGTERM)  # some send it twice
    with pytest.raises(
        training.Interrupted, match=r"^Interrupted by SIGTERM at step 1 of 8, and saved\. The same "
    ) as e:
        toys.fit(folders=[tmp_path])
    assert e.value.signal == signal.SIGTERM
    assert not isinstance(e.value, Exception)
    assert handlers() == before
    assert resumable(tmp_path) == [1]
    assert "SIGTERM: ending after this step and its checkpoint.\n" in capfd.readouterr().err

    signals[4] = (signal.SIGINT,)  # the end of an epoch that would have had no checkpoint
    with pytest.raises(KeyboardInterrupt, match="Interrupted by SIGINT at step 4 of 8"):
        toys.fit(folders=[tmp_path], checkpoint_epochs=2)
    assert resumable(tmp_path) == [1, 4]

    signals[8] = (signal.SIGTERM,)  # those that are trained next would not know
    with pytest.raises(training.Interrupted, match="SIGTERM at step 8 of 8"):
        toys.fit(folders=[tmp_path])
    (run,) = toys.fit(folders=[tmp_path])
    toys.assert_identical(run.variables, undisturbed.variables)
    assert toys.timeless(run.history) == toys.timeless(undisturbed.history)


def test_a_second_ctrl_c_ends_at_once(signals, tmp_path):
    before = handlers()
    signals[3] = (signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as error:
        toys.fit(folders=[tmp_path])
    assert not isinstance(error.value, training.Interrupted)
    assert handlers() == before
    assert resumable(tmp_path) == []


def test_without_folders_ctrl_c_ends_at_once(signals):
    signals[1] = (signal.SIGINT,)
    with pytest.raises(KeyboardInterrupt) as error:
        toys.fit()
    assert not isinstance(error.value, training.Interrupted)


def test_other_threads_train_too(undisturbed, tmp_path):
    """Where Python does not let handlers be set."""
    runs = []
    thread = threading.Thread(target=lambda: runs.extend(toys.fit(folders=[tmp_path])))
    thread.start()
    thread.join()
    toys.assert_identical(runs[0].variables, undisturbed.variables)
