"""Several real processes on this machine, each with two simulated devices, that never outlive their test."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "training"))  # their toy task
LIMIT = 400
"""Seconds that processes may take; on an idle machine they need a tenth of it."""


def environment(devices):
    """This process's environment, with another number of simulated devices."""
    flags = re.sub(r"(?<=--xla_force_host_platform_device_count=)\d+", str(devices), os.environ["XLA_FLAGS"])
    paths = [str(ROOT), str(ROOT / "tests" / "training")]
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(paths)}


class Processes:
    """The same command on several processes, with the flags that tell each its number."""

    def __init__(self, folder, command, count=2, devices=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.logs = [folder / f"process_{index}.log" for index in range(count)]
        self._started = []
        for index, log in enumerate(self.logs):
            flags = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(count), "--process", str(index)]
            with log.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, *map(str, command(index)), *flags],
                    cwd=ROOT,
                    env=environment(devices),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            self._started.append(process)

    def wait(self, limit=LIMIT):
        """Wait for all, and return their exit codes and what they printed."""
        deadline = time.monotonic() + limit
        codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in self._started]
        return codes, [log.read_text() for log in self.logs]

    def running(self):
        """Whether none has ended."""
        return all(process.poll() is None for process in self._started)

    def kill(self, *indices):
        """Kill some processes by SIGKILL, or all."""
        for index in indices or range(len(self._started)):
            if self._started[index].poll() is None:
                self._started[index].send_signal(signal.SIGKILL)


@pytest.fixture
def together(tmp_path):
    """Return a function that starts ``command(index)`` on several processes, which end with the test."""
    groups = []

    def start(command, **options):
        folder = tmp_path / f"logs_{len(groups)}"
        folder.mkdir()
        groups.append(Processes(folder, command, **options))
        return groups[-1]

    yield start
    for group in groups:
        group.kill()
        group.wait()
