"""Ends that are announced: SIGTERM, by which clouds and schedulers take a machine back, and Ctrl-C."""

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

HANDLED = (signal.SIGTERM, signal.SIGINT)
_asked = itertools.count()
"""How often the processes of this program asked one another whether to end: a count that all of them share."""


class Interrupted(KeyboardInterrupt):
    """Training ended because it was asked to, after saving; the same call goes on from there.

    Like every ``KeyboardInterrupt``, it is no ``Exception``: what catches those to try again does not catch this.

    Attributes:
      signal: the number of the signal, ``signal.SIGTERM`` or ``signal.SIGINT``.
    """

    signal: int = signal.SIGTERM


class Interruption:
    """Context manager in which SIGTERM and Ctrl-C are remembered, for a loop to end where it can go on later.

    A second Ctrl-C ends at once, as does any where there is nothing to save to (``active=False``). Handlers are
    Python's to set in the main thread only, and are put back at the end. Of several processes, those of
    ``jax.distributed``, one that receives SIGTERM ends all after the same step, through jax's own preemption service.
    """

    def __init__(self, *, active: bool = True):
        self._distributed = active and jax.distributed.is_initialized()
        self._active = active and not self._distributed and threading.current_thread() is threading.main_thread()
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in HANDLED if self._active else ():
            before = signal.getsignal(number)
            if before not in (None, signal.SIG_IGN):  # one that is not Python's could not be put back
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back(*self._before)

    @property
    def received(self) -> bool:
        """Whether to save and end, as far as is known by now."""
        return self._signal is not None

    def asked(self) -> bool:
        """Whether to save and end; to be called once after every step, by all processes alike."""
        if self._distributed and multihost_utils.reached_preemption_sync_point(next(_asked)):
            self._signal = signal.SIGTERM
        return self.received

    def error(self, step: int, steps: int) -> Interrupted:
        """Return what to raise after saving at ``step`` of ``steps``."""
        name = signal.Signals(self._signal or signal.SIGTERM).name
        error = Interrupted(f"Interrupted by {name} at step {step} of {steps}, and saved. The same call goes on.")
        error.signal = self._signal or signal.SIGTERM
        return error

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        again = ""
        if number == signal.SIGINT:
            self._put_back(signal.SIGINT)
            again = " Ctrl-C again ends at once."
        # Not by print, which may have been interrupted in the midst of its own writing.
        os.write(2, f"\n{signal.Signals(number).name}: ending after this step and its checkpoint.{again}\n".encode())

    def _put_back(self, *numbers: int) -> None:
        for number in numbers:
            signal.signal(number, self._before.pop(number))
