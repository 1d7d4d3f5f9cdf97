"""Argument checks in one grammar: what must hold, what was given, what to do.

Every check reads only what is known in Python (types, shapes, static values). Values are looked at only where they
are concrete; inside ``jit``, ``vmap`` or ``grad`` a traced array passes the value checks.
"""

import contextlib
import functools
import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

LONGEST = 2**24
"""The longest side and the largest count of things side by side: up to there float32 tells neighbours apart."""
MOST = 2**29
"""The most entries of an array whose size numbers alone decide: 2 GiB in float32. A larger one is a slip of the pen."""
LARGEST = 1e37
"""The largest setting: sums and differences of a few such numbers stay within float32."""


def fail(name: str, requirement: str, given: str, remedy: str = "", *, error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the message "Argument `name` must <requirement>, but <given>. <remedy>"."""
    message = f"Argument `{name}` must {requirement}, but {given}."
    raise error(f"{message} {remedy}" if remedy else message)


def is_traced(value: Any) -> bool:
    """Whether any leaf of ``value`` is a tracer, so that its numbers are not known in Python."""
    try:
        return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
    except ValueError:  # of jax, which sorts the keys of dicts: one that cannot be sorted passes no ``jit``
        return False


def array(
    name: str,
    value: Any,
    dims: str,
    *,
    kind: str = "float",
    finite: bool = False,
    nonempty: bool = True,
    wide: bool = False,
    remedy: str = "",
) -> Any:
    """Return ``value`` as a jax array after checking rank, dtype, emptiness and (where concrete) finiteness.

    Args:
      name: the argument's name, for the message.
      value: anything array-like.
      dims: the expected axes, such as ``"h w c"``; an integer token fixes that axis; a leading ``"..."`` allows any
        leading axes.
      kind: ``"float"``, ``"integer"``, ``"real"`` (either of the two) or ``"any"``.
      finite: also refuse NaN and infinity, where the values are known.
      nonempty: refuse arrays with an axis of length 0.
      wide: return the array as it came, numpy's 64-bit numbers included, for what is computed in numpy.
      remedy: what to do, appended to every message.

    Raises:
      TypeError: not an array, or of another dtype.
      ValueError: wrong rank or axis length, empty, not finite, or numbers that jax's narrower type could not hold.
    """
    shape_text = f"({dims.replace(' ', ', ')})"
    if not isinstance(value, jax.Array):
        given = value
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            fail(name, f"be an array of shape {shape_text}", f"{_describe(given)} was given", remedy, error=TypeError)
        if value.dtype.kind in "OUSVmM" and not jnp.issubdtype(value.dtype, jnp.number):  # bfloat16 is of kind V
            fail(name, f"be an array of shape {shape_text}", f"{_describe(given)} was given", remedy, error=TypeError)
    kinds = {"float": jnp.floating, "integer": jnp.integer, "real": (jnp.floating, jnp.integer), "any": ()}[kind]
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if kinds and not any(jnp.issubdtype(value.dtype, k) for k in kinds):
        wanted = {"float": "floating-point", "integer": "integer", "real": "real"}[kind]
        hint = remedy or ("Convert it, for instance with `images.astype('float32') / 255`." if kind == "float" else "")
        fail(name, f"hold {wanted} numbers", f"its dtype is {value.dtype}", hint, error=TypeError)
    tokens = dims.split()
    open_ended = tokens[:1] == ["..."]
    tokens = tokens[1:] if open_ended else tokens
    if value.ndim < len(tokens) or (value.ndim != len(tokens) and not open_ended):
        fail(name, f"have shape {shape_text}", f"its shape is {tuple(value.shape)}", remedy)
    for token, length in zip(tokens, value.shape[value.ndim - len(tokens) :], strict=True):
        if token.isdigit() and int(token) != length:
            fail(name, f"have shape {shape_text}", f"its shape is {tuple(value.shape)}", remedy)
    if nonempty and 0 in value.shape:
        fail(name, "not be empty", f"its shape is {tuple(value.shape)}", remedy)
    if finite:
        all_finite(name, value, remedy=remedy)
    if wide:
        return value
    if not isinstance(value, jax.Array):
        fits(name, value, remedy=remedy)
    return jnp.asarray(value)


def fits(name: str, value: np.ndarray, *, remedy: str = "") -> None:
    """Refuse numbers that the 32 bits of jax's arrays would silently turn into others: integers wrap around."""
    narrow = jax.dtypes.canonicalize_dtype(value.dtype)
    if narrow == value.dtype or value.size == 0 or jnp.issubdtype(value.dtype, jnp.complexfloating):
        return
    if jnp.issubdtype(value.dtype, jnp.integer):
        limits = np.iinfo(narrow)
        beyond = (value < limits.min) | (value > limits.max)
    else:
        limits = np.finfo(narrow)
        beyond = np.isfinite(value) & (np.abs(value) > limits.max)
    if beyond.any():
        wanted = f"hold numbers within {narrow}, {limits.min:.9g} to {limits.max:.9g}"
        fail(name, wanted, f"it holds {value[beyond][0]:g}", remedy or "Use a smaller unit.")


def all_finite(name: str, value: Any, *, remedy: str = "") -> None:
    """Refuse a concrete array that holds NaN or infinity, and say how many and where the first one is."""
    if is_traced(value) or not jnp.issubdtype(value.dtype, jnp.inexact):
        return
    if isinstance(value, jax.Array) and not (value.is_fully_addressable and value.size <= _SMALL):
        with jax.ensure_compile_time_eval():  # an array closed over by a jitted function is concrete
            if bool(jnp.isfinite(value).all()):
                return
    bad = np.argwhere(~np.isfinite(np.asarray(value)))
    if not len(bad):
        return
    first = tuple(int(i) for i in bad[0])
    hint = remedy or "Remove or replace them first."
    fail(name, "be finite", f"it holds {len(bad)} NaN or infinite value(s), the first at index {first}", hint)


def same_shape(name: str, value: jax.Array, other_name: str, other: jax.Array) -> None:
    """Refuse two arrays whose shapes differ."""
    if value.shape != other.shape:
        fail(name, f"have the shape of `{other_name}`, {tuple(other.shape)}", f"its shape is {tuple(value.shape)}")


def option(name: str, value: Any, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of the named options (a static string)."""
    options = tuple(options)
    if isinstance(value, str) and value in options:
        return value
    listed = ", ".join(repr(o) for o in options)
    fail(name, f"be one of {listed}", f"{_describe(value)} was given", error=_kind_error(value, str))


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        fail(name, "be True or False", f"{_describe(value)} was given", error=TypeError)
    return bool(value)


def integer(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return ``value`` as a Python int within the bounds; a traced value is refused, since it sets a shape."""
    wanted = "be " + _bounded("an integer", minimum, _told(maximum, value))
    if isinstance(value, Tracer):
        fail(name, wanted + " known when the function is traced", "a traced array was given", _STATIC, error=TypeError)
    if not _is_integer(value):
        fail(name, wanted, f"{_describe(value)} was given", error=TypeError)
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        fail(name, wanted, f"{_text(value)} was given")
    return int(value)


def number(
    name: str, value: Any, *, minimum: float | None = None, maximum: float | None = None, exclusive: bool = False
) -> Any:
    """Return ``value`` if it is a finite real scalar within the bounds; a traced scalar passes unexamined.

    ``exclusive`` makes the lower bound strict. Beyond ±``LARGEST`` nothing counts as finite.
    """
    lower = "> " if exclusive else "≥ "
    wanted = "be " + _bounded("a finite number", minimum, _told(maximum, value), lower)
    if isinstance(value, Tracer):
        if value.ndim != 0 or not _is_real(value.dtype):
            given = f"an array of shape {tuple(value.shape)} and dtype {value.dtype} was given"
            fail(name, wanted, given, error=TypeError)
        return value
    scalar = isinstance(value, jax.Array | np.ndarray) and value.ndim == 0 and _is_real(value.dtype)
    known = value.item() if scalar else value
    if not _is_integer(known) and not isinstance(known, float | np.floating):
        fail(name, wanted, f"{_describe(value)} was given", error=TypeError)
    # In Python's numbers: numpy's would warn of what they are compared with.
    plain = int(known) if _is_integer(known) else float(known)
    below = minimum is not None and (plain < minimum or (exclusive and plain == minimum))
    if not abs(plain) <= LARGEST or below or (maximum is not None and plain > maximum):
        remedy = f"Its size can be up to {LARGEST:g}." if LARGEST < abs(plain) < math.inf else ""
        fail(name, wanted, f"{_text(known)} was given", remedy)
    return float(plain) if isinstance(plain, int) and abs(plain) > np.iinfo(np.int32).max else value


def size_pair(name: str, value: Any, *, minimum: int = 1, meaning: str = "(height, width)") -> tuple[int, int]:
    """Return a static pair of integers such as an image shape or a control-point grid, of up to ``MOST`` entries."""
    wanted = f"be a pair of integers {meaning}, each ≥ {minimum}"
    if isinstance(value, Tracer) or (isinstance(value, tuple | list) and is_traced(value)):
        fail(name, wanted, "a traced array was given", _STATIC, error=TypeError)
    if not isinstance(value, tuple | list) or len(value) != 2:
        fail(name, wanted, f"{_describe(value)} was given", error=TypeError)
    first, second = value
    if not _is_integer(first) or not _is_integer(second):
        fail(name, wanted, f"{_text(value)} was given", error=TypeError)
    if first < minimum or second < minimum:
        fail(name, wanted, f"{_text(tuple(value))} was given")
    if max(first, second) > LONGEST:
        fail(name, f"{wanted} and ≤ {LONGEST}", f"{_text(tuple(value))} was given")
    entries(name, first, second)
    return int(first), int(second)


def entries(name: str, *lengths: int, remedy: str = "") -> None:
    """Refuse an argument that asks for an array of more than ``MOST`` entries, before any of it is allocated."""
    count = math.prod(int(length) for length in lengths)
    if count > MOST:
        listed = " × ".join(_text(length) for length in lengths)
        fail(name, f"ask for arrays of at most {MOST} entries", f"{listed} were asked for", remedy)


def key(value: Any, *, remedy: str, name: str = "key") -> jax.Array:
    """Return ``value`` if it is one random key, new-style or legacy; ``remedy`` is what a batch of keys hears."""
    requirement, make = "be one random key", "Make one with `jax.random.key(seed)`."
    if not isinstance(value, jax.Array):
        fail(name, requirement, f"{type(value).__name__} was given", make, error=TypeError)
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not typed and value.dtype != "uint32":
        fail(name, requirement, f"an array of dtype {value.dtype} was given", make, error=TypeError)
    if value.ndim != (0 if typed else 1):
        fail(name, requirement, f"keys of shape {tuple(value.shape)} were given", remedy)
    if not typed:
        length = _legacy_length(str(jax.config.jax_default_prng_impl))  # pyright: ignore[reportAttributeAccessIssue]
        if value.shape != (length,):
            fail(name, requirement, f"an array of shape {tuple(value.shape)} was given, not ({length},)", make)
    return value


def precision(name: str, value: Any) -> Any:
    """Return ``value`` if jax takes it as the precision of a product; ``None`` is the platform's default."""
    try:
        known = _is_precision(value)
    except TypeError:  # not hashable
        known = False
    if not known:
        wanted = "be None, or a precision of jax's such as 'highest'"
        fail(name, wanted, f"{_describe(value)} was given", error=_kind_error(value, str))
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
        fail(name, wanted, f"{_describe(value)} was given", error=_kind_error(value, str))
    try:
        place = pathlib.Path(value).expanduser()
        with contextlib.suppress(FileNotFoundError):
            os.stat(place)
        return place
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, or no name at all
        fail(name, wanted, f"{_text(value)} is none here ({type(error).__name__}: {_text(str(error))})")


@functools.cache
def _legacy_length(implementation: str) -> int:
    """How many words a legacy key of the generator in force has."""
    return jax.eval_shape(lambda: jax.random.PRNGKey(0, impl=implementation)).shape[0]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


_SMALL = 2**16
"""Entries that are looked at on the host: compiling a program for them takes longer."""
_STATIC = "Mark it static (`static_argnames` of `jax.jit`) or close over it."


def _bounded(what: str, minimum: float | None, maximum: float | None, lower: str = "≥ ") -> str:
    parts = [] if minimum is None else [f"{lower}{minimum}"]
    parts += [] if maximum is None else [f"≤ {maximum}"]
    return f"{what} {' and '.join(parts)}" if parts else what


def _told(maximum: float | None, value: Any) -> float | None:
    """The bound that no honest value comes near is told to those only who go beyond it."""
    beyond = _is_integer(value) and value > LONGEST
    beyond |= isinstance(value, float | np.floating) and float(value) > LONGEST
    return None if maximum == LONGEST and not beyond else maximum


def _kind_error(value: Any, kind: type) -> type[Exception]:
    return ValueError if isinstance(value, kind) else TypeError


def _describe(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{_text(value)} ({type(value).__name__})"


def _text(value: Any) -> str:
    """A value as Python writes it, cut short."""
    try:
        text = repr(value.item() if isinstance(value, np.generic) else value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a {type(value).__name__} too long to write"
    return text if len(text) <= 80 else text[:77] + "..."
