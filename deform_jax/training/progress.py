"""The progress of a training run on stderr."""

import importlib
import sys
import time
from types import TracebackType
from typing import Any

import jax

from deform_jax.training.placement import held


class Progress:
    """A tqdm bar (epoch, loss, accuracy, images/s, time left), or one line per epoch where tqdm is not installed."""

    def __init__(self, steps: int, done: int, images_per_step: int, label: str, *, shown: bool):
        self._images, self._shown, self._bar, self._looked = images_per_step, shown, None, 0.0
        self._pending, self._label = 0, label
        if shown:
            try:
                tqdm = importlib.import_module("tqdm.auto").tqdm
            except ImportError:
                return
            total, initial = steps * images_per_step, done * images_per_step
            self._bar = tqdm(total=total, initial=initial, desc=label, unit="img", unit_scale=True, mininterval=0.5)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._pending * self._images)
            self._bar.close()

    def advance(self, epoch: int, totals: dict[str, jax.Array]) -> None:
        """Count one step; twice a second, wait for it and show the epoch's averages so far."""
        self._pending += 1
        now = time.monotonic()
        if self._bar is None or now - self._looked < 0.5:
            return
        sums: dict[str, Any] = held(totals)  # this process's seeds: what all hold, all would have to look at
        count = sums["count"].sum()
        self._bar.set_postfix(
            epoch=epoch + 1,
            loss=f"{sums['loss'].sum() / count:.3f}",
            accuracy=f"{sums['correct'].sum() / count:.3f}",
            refresh=False,
        )
        self._bar.update(self._pending * self._images)
        self._pending, self._looked = 0, now

    def expect(self, steps: int) -> None:
        """Be told how many steps there will be, where that becomes known on the way."""
        if self._bar is not None and self._bar.total != steps * self._images:
            self._bar.total = steps * self._images
            self._bar.refresh()

    def report(self, rows: list[dict[str, float]]) -> None:
        """Without a bar, print one line for a finished epoch: the mean of the seeds' rows."""
        if self._shown and self._bar is None:
            means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
            text = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items())
            print(f"{self._label}: {text}", file=sys.stderr)
