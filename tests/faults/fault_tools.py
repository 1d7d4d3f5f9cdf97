"""How the runs that faults befall are started, watched and compared."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import training_toys as toys

from deform_jax import training
from deform_jax.training import checkpoints

CHILD = pathlib.Path(__file__).with_name("fault_child.py")
LIMIT = 600
"""Seconds that a process may take for anything, on a machine that does other things too."""


class Failed(AssertionError):
    """A fault did not end as it must."""


class NotTried(Exception):
    """This machine does not let the fault be made."""


class Outcome(NamedTuple):
    """One line of the campaign's table."""

    tried: int
    outcome: str
    lost: str


def check(condition, message):
    if not condition:
        raise Failed(message)


class Child:
    """A process of ours; all inherit the cores and the flags of this one, on which their bits depend."""

    def __init__(self, *arguments, **environment):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        command = [sys.executable, *map(str, arguments)]
        self.process = subprocess.Popen(command, env=variables, stdout=self._log, stderr=subprocess.STDOUT)

    @property
    def text(self):
        """What it has said by now."""
        return self._said if self._log.closed else os.pread(self._log.fileno(), 2**20, 0).decode(errors="replace")

    def _over(self):
        self._said = self.text
        self._log.close()

    def wait_for(self, condition, *, limit=LIMIT):
        """Return whether the condition came to hold before the process ended."""
        deadline = time.monotonic() + limit
        while not condition():
            if self.process.poll() is not None:
                return False
            check(time.monotonic() < deadline, f"nothing within {limit} s: {self.text}")
            time.sleep(0.002)
        return True

    def send(self, number):
        self.process.send_signal(number)

    def end(self, *, limit=LIMIT):
        """Wait for its end, and return its exit code."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"no end within {limit} s: {self.text}") from None
        finally:
            self._over()

    def succeed(self):
        code = self.end()
        check(code == 0, f"exit code {code}: {self.text}")

    def kill(self):
        """Return whether SIGKILL was what ended it."""
        self.process.kill()
        code = self.process.wait()
        self._over()
        return code == -signal.SIGKILL


def train(folder, *options, steps=None):
    """Start the training command on a run's folder."""
    counter = counter_of(folder) if steps is None else steps
    counter.unlink(missing_ok=True)
    return Child(CHILD, "train", folder, "--steps", counter, *options)


def counter_of(folder):
    return folder.with_name(f"{folder.name}.steps")


def steps_done(folder):
    """Return the run's step as its newest process counted it, or None before its first one."""
    return counted(counter_of(folder))


def counted(counter):
    """Return the step in a file of ``--steps``, or None before the process did one."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(counter.read_text())
    return None


def newest(folder):
    """Return the newest resumable step, 0 for none."""
    return max((int(path.name) for path in checkpoints.steps(folder / "resume")), default=0)


def unfinished(folder):
    """Return the saves that are under way, or were when the process died."""
    places = [folder / "resume", folder / "states", folder / "states" / "best"]
    with contextlib.suppress(FileNotFoundError):  # renamed while we looked
        return [path for place in places for path in checkpoints.interrupted(place)]
    return []


def undisturbed(root):
    """Return the run that nothing befell; made once for all scenarios in ``root``."""
    folder = root / "undisturbed"
    if not (folder / "states" / "final").is_dir():
        train(folder).succeed()
    return folder


def facts(path):
    record = json.loads((path / "manifest" / "metadata").read_text())
    found = {name: record.get(name) for name in ("step", "best", "checksums", "settings")}
    return {**found, "history": toys.timeless(record["history"])}


def states(folder):
    """Return {name: checkpoint} of all that a run keeps, and of its newest resumable step."""
    kept = [path.parent for path in folder.glob("states/**/manifest")]
    return {str(path.relative_to(folder)): path for path in [*kept, folder / "resume" / str(newest(folder))]}


def check_same(folder, expected):
    """The same checkpoints with the same checksums and histories, and arrays that have those checksums."""
    ours, theirs = states(folder), states(expected)
    check(ours.keys() == theirs.keys(), f"{sorted(ours)} instead of {sorted(theirs)} in {folder}")
    for name, path in ours.items():
        check(facts(path) == facts(theirs[name]), f"{path} differs from that of an undisturbed run")
        training.load(path, resume=name.startswith("resume"))
    check(not unfinished(folder), f"unfinished saves were left in {folder}")


def plural(count, word):
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
