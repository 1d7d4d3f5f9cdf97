"""Where a command's wall time goes: seconds of every part, compilations taken out of the part they happen in."""

import contextlib
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import jax

Part = Literal["imports and start", "data", "compile", "train", "probe", "plot", "other"]
PARTS: tuple[Part, ...] = get_args(Part)
"""``data`` loads or makes images, ``train`` trains networks or reads them, ``probe`` is all else that is measured,
``plot`` goes from the making of a figure to its files, ``other`` are tables, intervals and provenance."""
COMPILING = "/jax/core/compile/"
"""What jax calls the durations of tracing, lowering and compiling; those of the cache lie within the last of them."""
STEP = "local"
"""What every program of ``training.pmapped`` is called; of those compiled while training, the first is its step."""


class Clock:
    """Gives every moment to the part of a command that it belongs to: the one that was begun last.

    Attributes:
      first: seconds from the start to the first end of each part, and to the first ``step``: once it is compiled.
      record: the provenance that the command has written, or None.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self.start()

    def start(self, age: float = 0.0) -> None:
        """Begin anew, as for a command that began ``age`` seconds ago."""
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._part: Part = "imports and start"
        self._began = self._since = self._now() - age
        self._compiled: list[tuple[float, float]] = []
        self._thread = threading.get_ident()
        self.first: dict[str, float] = {}
        self.record: pathlib.Path | None = None

    def turn(self, part: Part) -> Part:
        """Go over to another part, and return the one before."""
        now, before = self._now(), self._part
        compiling = sum(end - begin for begin, end in self._compiled)
        self._spent["compile"] += compiling
        self._spent[before] += now - self._since - compiling
        self._part, self._since, self._compiled = part, now, []
        return before

    @contextlib.contextmanager
    def part(self, part: Part) -> Iterator[None]:
        """Context manager, or decorator, for a part; the one around it waits."""
        before = self.turn(part)
        try:
            yield
        finally:
            self.turn(before)
            self._note(part)

    def heard(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """Take note of a duration that jax reports when it has passed.

        Tracing can compile, and trace, in its turn: what lies within a later report is not counted twice.
        """
        if not event.startswith(COMPILING) or threading.get_ident() != self._thread:
            return
        end = self._now()
        begin = max(end - max(duration_secs, 0), self._since)
        apart = [one for one in self._compiled if sum(one) / 2 < begin]
        self._compiled = [*apart, (begin, end)]
        ready = event == f"{COMPILING}backend_compile_duration" and self._part == "train"
        if ready and STEP in str(kwargs.get("fun_name")):
            self._note("step")

    def split(self) -> dict[Part, float]:
        """Return the seconds of every part up to now."""
        self.turn(self._part)
        return dict(self._spent)

    def _note(self, what: str) -> None:
        self.first.setdefault(what, self._now() - self._began)


def process_age() -> float:
    """Return the seconds since this process was started, 0 where the system does not tell."""
    try:
        fields = pathlib.Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def line(split: dict[Part, float]) -> str:
    """Return the split in words: seconds, and per cent of all."""
    total = sum(split.values())
    parts = ", ".join(f"{name} {seconds:.1f} s ({seconds / total:.0%})" for name, seconds in split.items())
    return f"wall time {total:.1f} s: {parts}"


COMMAND = Clock()
"""The clock of the command that this process runs; a figure's ``main`` starts it."""
jax.monitoring.register_event_duration_secs_listener(COMMAND.heard)
