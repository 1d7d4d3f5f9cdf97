"""Checks of settings: single numbers, names and paths."""

import contextlib
import functools
import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from deform_jax.checks.arrays import entries, is_traced
from deform_jax.checks.wording import (
    LARGEST,
    LONGEST,
    STATIC,
    bounded,
    describe,
    fail,
    is_integer,
    is_real,
    kind_error,
    text,
    told,
)


def option(name: str, value: Any, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of the named options (a static string)."""
    options = tuple(options)
    if isinstance(value, str) and value in options:
        return value
    listed = ", ".join(repr(o) for o in options)
    fail(name, f"be one of {listed}", f"{describe(value)} was given", error=kind_error(value, str))


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        fail(name, "be True or False", f"{describe(value)} was given", error=TypeError)
    return bool(value)


def integer(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return ``value`` as a Python int within the bounds; a traced value is refused, since it sets a shape."""
    wanted = "be " + bounded("an integer", minimum, told(maximum, value))
    if isinstance(value, Tracer):
        fail(name, wanted + " known when the function is traced", "a traced array was given", STATIC, error=TypeError)
    if not is_integer(value):
        fail(name, wanted, f"{describe(value)} was given", error=TypeError)
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        fail(name, wanted, f"{text(value)} was given")
    return int(value)


def number(
    name: str, value: Any, *, minimum: float | None = None, maximum: float | None = None, exclusive: bool = False
) -> Any:
    """Return ``value`` if it is a finite real scalar within the bounds; a traced scalar passes unexamined.

    ``exclusive`` makes the lower bound strict. Beyond ±``LARGEST`` nothing counts as finite.
    """
    lower = "> " if exclusive else "≥ "
    wanted = "be " + bounded("a finite number", minimum, told(maximum, value), lower)
    if isinstance(value, Tracer):
        if value.ndim != 0 or not is_real(value.dtype):
            given = f"an array of shape {tuple(value.shape)} and dtype {value.dtype} was given"
            fail(name, wanted, given, error=TypeError)
        return value
    scalar = isinstance(value, jax.Array | np.ndarray) and value.ndim == 0 and is_real(value.dtype)
    known = value.item() if scalar else value
    if not is_integer(known) and not isinstance(known, float | np.floating):
        fail(name, wanted, f"{describe(value)} was given", error=TypeError)
    # In Python's numbers: numpy's would warn of what they are compared with.
    plain = int(known) if is_integer(known) else float(known)
    below = minimum is not None and (plain < minimum or (exclusive and plain == minimum))
    if not abs(plain) <= LARGEST or below or (maximum is not None and plain > maximum):
        remedy = f"Its size can be up to {LARGEST:g}." if LARGEST < abs(plain) < math.inf else ""
        fail(name, wanted, f"{text(known)} was given", remedy)
    return float(plain) if isinstance(plain, int) and abs(plain) > np.iinfo(np.int32).max else value


def size_pair(name: str, value: Any, *, minimum: int = 1, meaning: str = "(height, width)") -> tuple[int, int]:
    """Return a static pair of integers such as an image shape or a control-point grid, of up to ``MOST`` entries."""
    wanted = f"be a pair of integers {meaning}, each ≥ {minimum}"
    if isinstance(value, Tracer) or (isinstance(value, tuple | list) and is_traced(value)):
        fail(name, wanted, "a traced array was given", STATIC, error=TypeError)
    if not isinstance(value, tuple | list) or len(value) != 2:
        fail(name, wanted, f"{describe(value)} was given", error=TypeError)
    first, second = value
    if not is_integer(first) or not is_integer(second):
        fail(name, wanted, f"{text(value)} was given", error=TypeError)
    if first < minimum or second < minimum:
        fail(name, wanted, f"{text(tuple(value))} was given")
    if max(first, second) > LONGEST:
        fail(name, f"{wanted} and ≤ {LONGEST}", f"{text(tuple(value))} was given")
    entries(name, first, second)
    return int(first), int(second)


def precision(name: str, value: Any) -> Any:
    """Return ``value`` if jax takes it as the precision of a product; ``None`` is the platform's default."""
    try:
        known = _is_precision(value)
    except TypeError:  # not hashable
        known = False
    if not known:
        wanted = "be None, or a precision of jax's such as 'highest'"
        fail(name, wanted, f"{describe(value)} was given", error=kind_error(value, str))
    return value


@functools.lru_cache(maxsize=64)
def _is_precision(value: Any) -> bool:
    try:
        jax.eval_shape(lambda x: jax.lax.dot(x, x, precision=value), jax.ShapeDtypeStruct((1, 1), jnp.float32))
    except (TypeError, ValueError):
        return False
    return True


def path(name: str, value: Any) -> pathlib.Path:
    """Return the path that a string or path object names, ``~`` expanded; whether anything is there is not asked."""
    wanted = "be the path of a file or folder"
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        fail(name, wanted, f"{describe(value)} was given", error=kind_error(value, str))
    try:
        place = pathlib.Path(value).expanduser()
        with contextlib.suppress(FileNotFoundError):
            os.stat(place)
        return place
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, or no name at all
        fail(name, wanted, f"{text(value)} is none here ({type(error).__name__}: {text(str(error))})")
