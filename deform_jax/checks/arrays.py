"""Checks of arrays and of what holds them."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from deform_jax.checks.wording import MOST, describe, fail, text

_SMALL = 2**16
"""Entries that are looked at on the host: compiling a program for them takes longer."""


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
            fail(name, f"be an array of shape {shape_text}", f"{describe(given)} was given", remedy, error=TypeError)
        if value.dtype.kind in "OUSVmM" and not jnp.issubdtype(value.dtype, jnp.number):  # bfloat16 is of kind V
            fail(name, f"be an array of shape {shape_text}", f"{describe(given)} was given", remedy, error=TypeError)
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


def pytree(name: str, tree: Any) -> None:
    """Refuse dicts whose keys jax cannot sort."""
    try:
        jax.tree.structure(tree)
    except ValueError:
        given = "it is none: a dict of it has keys that cannot be sorted"
        fail(name, "be a pytree of arrays", given, "Name all by strings.", error=TypeError)


def logits_and_taps(model: Any, result: Any, remedy: str) -> None:
    """Refuse a network that returns anything else."""
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        given = f"{type(model).__name__} returns {type(result).__name__}"
        fail("model", "return (logits, {tap: activations})", given, remedy)


def same_shape(name: str, value: jax.Array, other_name: str, other: jax.Array) -> None:
    """Refuse two arrays whose shapes differ."""
    if value.shape != other.shape:
        fail(name, f"have the shape of `{other_name}`, {tuple(other.shape)}", f"its shape is {tuple(value.shape)}")


def entries(name: str, *lengths: int, remedy: str = "") -> None:
    """Refuse an argument that asks for an array of more than ``MOST`` entries, before any of it is allocated."""
    count = math.prod(int(length) for length in lengths)
    if count > MOST:
        listed = " × ".join(text(length) for length in lengths)
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


@functools.cache
def _legacy_length(implementation: str) -> int:
    """How many words a legacy key of the generator in force has."""
    return jax.eval_shape(lambda: jax.random.PRNGKey(0, impl=implementation)).shape[0]
