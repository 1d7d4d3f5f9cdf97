"""The grammar of every error: what must hold, what was given, what to do; and what counts as a number."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

LONGEST = 2**24
"""The longest side and the largest count of things side by side: up to there float32 tells neighbours apart."""
MOST = 2**29
"""The most entries of an array whose size numbers alone decide: 2 GiB in float32. A larger one is a slip of the pen."""
LARGEST = 1e37
"""The largest setting: sums and differences of a few such numbers stay within float32."""
STATIC = "Mark it static (`static_argnames` of `jax.jit`) or close over it."


def fail(name: str, requirement: str, given: str, remedy: str = "", *, error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the message "Argument `name` must <requirement>, but <given>. <remedy>"."""
    message = f"Argument `{name}` must {requirement}, but {given}."
    raise error(f"{message} {remedy}" if remedy else message)


def bounded(what: str, minimum: float | None, maximum: float | None, lower: str = "≥ ") -> str:
    """What is wanted, with the bounds that are given."""
    parts = [] if minimum is None else [f"{lower}{minimum}"]
    parts += [] if maximum is None else [f"≤ {maximum}"]
    return f"{what} {' and '.join(parts)}" if parts else what


def told(maximum: float | None, value: Any) -> float | None:
    """The bound that no honest value comes near is told to those only who go beyond it."""
    beyond = is_integer(value) and value > LONGEST
    beyond |= isinstance(value, float | np.floating) and float(value) > LONGEST
    return None if maximum == LONGEST and not beyond else maximum


def kind_error(value: Any, kind: type) -> type[Exception]:
    """The error for a wrong value of the right kind, or for another kind."""
    return ValueError if isinstance(value, kind) else TypeError


def describe(value: Any) -> str:
    """What was given: of an array its shape and dtype, of anything else the value and its type."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{text(value)} ({type(value).__name__})"


def text(value: Any) -> str:
    """A value as Python writes it, cut short."""
    try:
        written = repr(value.item() if isinstance(value, np.generic) else value)
    except ValueError:  # an integer of more digits than Python writes
        written = f"a {type(value).__name__} too long to write"
    return written if len(written) <= 80 else written[:77] + "..."


def is_integer(value: Any) -> bool:
    """Whether it is an integer of Python or numpy; truth values are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def is_real(dtype: Any) -> bool:
    """Whether arrays of the dtype hold floating-point numbers or integers."""
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
