"""The progress of a training run on stderr."""

import importlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import jax

from deform_jax.training.placement import held
from deform_jax.training.reports import Reports

LOOK = 0.5
"""Seconds between two looks at the device, for each of which a bar waits for the newest step."""
LINES = 10.0
"""Seconds between two lines, where there is no bar; the first and the last epoch have one all the same."""
LINE_WITHIN = 60.0
"""Seconds after which a long epoch has one, too."""


def bar_type() -> Any | None:
    """Return tqdm's bar for a terminal or a notebook; None in files, pipes and logs, which keep every state of it.

    A notebook without ipywidgets, whose text output keeps them too, has none either.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is not None:
        shows = importlib.util.find_spec("ipywidgets") is not None
    else:
        shows = sys.stderr is not None and sys.stderr.isatty()
    try:
        return importlib.import_module("tqdm.auto").tqdm if shows else None
    except ImportError:
        return None


def duration(seconds: float) -> str:
    """Return a time such as "40 s", "12 min", "3 h 05 min" or "2 days 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} days {hours % 24} h"


class Progress:
    """A tqdm bar (epoch, loss, accuracy, images/s, time left), or lines where there can be none; and ``reports``."""

    def __init__(
        self, steps: int, done: int, images_per_step: int, label: str, *, shown: bool, reports: Reports | None = None
    ):
        self._steps, self._done, self._images, self._label = steps, done, images_per_step, label
        self._bar, self._looked, self._pending = None, 0.0, 0
        self._lines, self._line, self._reports = shown, -LINES, reports
        self._began: tuple[float, int] | None = None
        """When a step, the first one at first, was compiled and under way, and which: from then on speed is counted."""
        self._warm = False
        bar = bar_type() if shown else None
        if bar is not None:
            total, initial = steps * images_per_step, done * images_per_step
            self._bar = bar(total=total, initial=initial, desc=label, unit="img", unit_scale=True, mininterval=LOOK)
            self._lines = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._pending * self._images)
            self._bar.close()

    def advance(self, epoch: int, totals: dict[str, jax.Array]) -> None:
        """Count one step; now and then, wait for it and show the epoch's averages so far.

        That is twice a second with a bar; without, for a line within a long epoch.
        """
        now = time.monotonic()
        self._pending, self._done = self._pending + 1, self._done + 1
        self._began = self._began or (now, self._done)
        reported = self._reports is not None and self._reports.due()
        lined = self._lines and now - max(self._line, self._began[0]) > LINE_WITHIN
        if now - self._looked < LOOK if self._bar is not None else not (reported or lined):
            return
        sums: dict[str, Any] = held(totals)  # this process's seeds: what all hold, all would have to look at
        count = sums["count"].sum()
        shown = {
            name: f"{sums[total].sum() / count:.3f}" for name, total in (("loss", "loss"), ("accuracy", "correct"))
        }
        if self._bar is not None:
            self._bar.set_postfix(epoch=epoch + 1, **shown, refresh=False)
            self._bar.update(self._pending * self._images)
            self._pending, self._looked = 0, now
        if lined:
            self._print({"epoch": epoch + 1, "step": self._done, **shown})
        if reported and self._reports is not None:
            facts = {"images_per_second": self._speed(), "seconds_left": self._left()}
            self._reports.step(sums, epoch=epoch + 1, step=self._done, **facts)

    def expect(self, steps: int) -> None:
        """Be told how many steps there will be, where that becomes known on the way."""
        if self._steps == steps:
            return
        self._steps = steps
        if self._bar is not None:
            self._bar.total = steps * self._images
            self._bar.refresh()

    def report(self, rows: Sequence[dict[str, float]], *, last: bool) -> None:
        """Note the end of an epoch; without a bar, print a line, the mean of the seeds' rows."""
        if self._reports is not None:
            self._reports.epoch(self._left())
        if self._lines and (last or time.monotonic() - self._line >= LINES):
            self._print({name: sum(row[name] for row in rows) / len(rows) for name in rows[0]})
        if not self._warm:  # what the first epoch alone compiles is evaluation
            self._warm, self._began = True, (time.monotonic(), self._done)

    def _print(self, facts: dict[str, Any]) -> None:
        parts = [f"{name.replace('_', ' ')} {v if isinstance(v, str) else f'{v:.4g}'}" for name, v in facts.items()]
        left = self._left()
        parts += [] if left is None or self._done >= self._steps else [f"{duration(left)} left"]
        print(f"{self._label}: {', '.join(parts)}", file=sys.stderr, flush=True)
        self._line = time.monotonic()

    def _speed(self) -> float | None:
        """Return images per second since the first step was under way, with evaluations and checkpoints."""
        if self._began is None or self._done == self._began[1]:
            return None
        return (self._done - self._began[1]) * self._images / (time.monotonic() - self._began[0])

    def _left(self) -> float | None:
        speed = self._speed()
        return None if speed is None else max(0, self._steps - self._done) * self._images / speed
