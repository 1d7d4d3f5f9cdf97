"""Loops that take long, over networks to be measured above all, with the time left on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from deform_jax.training import processes, progress

T = TypeVar("T")
DELAY = 2.0
"""Seconds before a bar appears; one that is done goes away."""
LINES = 30.0
"""Seconds between two lines, where there is no bar, and before the first one."""


def each(items: Iterable[T], label: str, *, unit: str = "network") -> Iterator[T]:
    """Yield the items, with a bar in a terminal or notebook, else with a line now and then.

    Of several processes, the first one shows it.

    Args:
      items: read to the end at once, so that their number is known.
      label: what is done with them, such as "probing".
      unit: what one of them is called.
    """
    todo = list(items)
    if not processes.is_writer():
        yield from todo
        return
    bar = progress.bar_type()
    if bar is not None:
        yield from bar(todo, label, leave=False, delay=DELAY, unit=unit)
        return
    began = said = time.monotonic()
    for done, item in enumerate(todo, 1):
        yield item
        now = time.monotonic()
        if now - said >= LINES and done < len(todo):
            left = progress.duration((now - began) / done * (len(todo) - done))
            print(f"{label}: {done} of {len(todo)} {unit}s, {left} left", file=sys.stderr, flush=True)
            said = now
