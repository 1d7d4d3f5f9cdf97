"""Argument checks in one grammar: what must hold, what was given, what to do.

Every check reads only what is known in Python (types, shapes, static values). Values are looked at only where they
are concrete; inside ``jit``, ``vmap`` or ``grad`` a traced array passes the value checks.
"""

import math
from collections.abc import Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def fail(name: str, requirement: str, given: str, remedy: str = "", *, error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the message "Argument `name` must <requirement>, but <given>. <remedy>"."""
    message = f"Argument `{name}` must {requirement}, but {given}."
    raise error(f"{message} {remedy}" if remedy else message)


def is_traced(value: Any) -> bool:
    """Whether any leaf of ``value`` is a tracer, so that its numbers are not known in Python."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def array(
    name: str,
    value: Any,
    dims: str,
    *,
    kind: str = "float",
    finite: bool = False,
    nonempty: bool = True,
    remedy: str = "",
) -> jax.Array:
    """Return ``value`` as a jax array after checking rank, dtype, emptiness and (where concrete) finiteness.

    Args:
      name: the argument's name, for the message.
      value: anything array-like.
      dims: the expected axes, such as ``"h w c"``; an integer token fixes that axis; a leading ``"..."`` allows any
        leading axes.
      kind: ``"float"``, ``"integer"``, ``"real"`` (either of the two) or ``"any"``.
      finite: also refuse NaN and infinity, where the values are known.
      nonempty: refuse arrays with an axis of length 0.
      remedy: what to do, appended to every message.

    Raises:
      TypeError: not an array, or of another dtype.
      ValueError: wrong rank or axis length, empty, or not finite.
    """
    shape_text = f"({dims.replace(' ', ', ')})"
    if not isinstance(value, jax.Array):
        given = value
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            fail(name, f"be an array of shape {shape_text}", f"{_describe(given)} was given", remedy, error=TypeError)
        if value.dtype.kind in "OUSV" and not jnp.issubdtype(value.dtype, jnp.number):  # bfloat16 is of kind V
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
    return jnp.asarray(value)


def all_finite(name: str, value: Any, *, remedy: str = "") -> None:
    """Refuse a concrete array that holds NaN or infinity, and say how many and where the first one is."""
    if is_traced(value) or not jnp.issubdtype(value.dtype, jnp.inexact):
        return
    with jax.ensure_compile_time_eval():  # an array closed over by a jitted function is concrete
        if bool(jnp.isfinite(value).all()):
            return
    bad = np.argwhere(~np.isfinite(np.asarray(value, dtype=np.float64)))
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


def integer(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return ``value`` as a Python int within the bounds; a traced value is refused, since it sets a shape."""
    wanted = "be " + _bounded("an integer", minimum, maximum)
    if isinstance(value, Tracer):
        fail(name, wanted + " known when the function is traced", "a traced array was given", _STATIC, error=TypeError)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        fail(name, wanted, f"{_describe(value)} was given", error=TypeError)
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        fail(name, wanted, f"{value} was given")
    return int(value)


def number(
    name: str, value: Any, *, minimum: float | None = None, maximum: float | None = None, exclusive: bool = False
) -> Any:
    """Return ``value`` if it is a finite real scalar within the bounds; a traced scalar passes unexamined.

    ``exclusive`` makes the lower bound strict.
    """
    lower = "> " if exclusive else "≥ "
    wanted = "be " + _bounded("a finite number", minimum, maximum, lower)
    if isinstance(value, Tracer):
        if value.ndim != 0:
            fail(name, wanted, f"an array of shape {tuple(value.shape)} was given", error=TypeError)
        return value
    known = value.item() if isinstance(value, jax.Array | np.ndarray) and value.ndim == 0 else value
    if isinstance(known, bool) or not isinstance(known, int | float | np.integer | np.floating):
        fail(name, wanted, f"{_describe(value)} was given", error=TypeError)
    below = minimum is not None and (known < minimum or (exclusive and known == minimum))
    if not math.isfinite(known) or below or (maximum is not None and known > maximum):
        fail(name, wanted, f"{known} was given")
    return value


def size_pair(name: str, value: Any, *, minimum: int = 1, meaning: str = "(height, width)") -> tuple[int, int]:
    """Return a static pair of integers such as an image shape or a control-point grid."""
    wanted = f"be a pair of integers {meaning}, each ≥ {minimum}"
    if is_traced(value):
        fail(name, wanted, "a traced array was given", _STATIC, error=TypeError)
    if not isinstance(value, tuple | list) or len(value) != 2:
        fail(name, wanted, f"{_describe(value)} was given", error=TypeError)
    first, second = value
    for part in (first, second):
        if isinstance(part, bool) or not isinstance(part, int | np.integer):
            fail(name, wanted, f"{value!r} was given", error=TypeError)
    if first < minimum or second < minimum:
        fail(name, wanted, f"{tuple(value)} was given")
    return int(first), int(second)


def key(value: Any, *, remedy: str) -> jax.Array:
    """Return ``value`` if it is one random key, new-style or legacy; ``remedy`` is what a batch of keys hears."""
    requirement, make = "be one random key", "Make one with `jax.random.key(seed)`."
    if not isinstance(value, jax.Array):
        fail("key", requirement, f"{type(value).__name__} was given", make, error=TypeError)
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not typed and value.dtype != "uint32":
        fail("key", requirement, f"an array of dtype {value.dtype} was given", make, error=TypeError)
    if value.ndim != (0 if typed else 1):
        fail("key", requirement, f"keys of shape {tuple(value.shape)} were given", remedy)
    return value


_STATIC = "Mark it static (`static_argnames` of `jax.jit`) or close over it."


def _bounded(what: str, minimum: float | None, maximum: float | None, lower: str = "≥ ") -> str:
    parts = [] if minimum is None else [f"{lower}{minimum}"]
    parts += [] if maximum is None else [f"≤ {maximum}"]
    return f"{what} {' and '.join(parts)}" if parts else what


def _kind_error(value: Any, kind: type) -> type[Exception]:
    return ValueError if isinstance(value, kind) else TypeError


def _describe(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"
