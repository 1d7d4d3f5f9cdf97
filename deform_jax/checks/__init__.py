"""Argument checks in one grammar: what must hold, what was given, what to do.

Every check reads only what is known in Python (types, shapes, static values). Values are looked at only where they
are concrete; inside ``jit``, ``vmap`` or ``grad`` a traced array passes the value checks.
"""

from deform_jax.checks.arrays import (
    all_finite,
    array,
    entries,
    fits,
    is_traced,
    key,
    logits_and_taps,
    pytree,
    same_shape,
)
from deform_jax.checks.settings import flag, integer, number, option, path, precision, size_pair
from deform_jax.checks.wording import LARGEST, LONGEST, MOST, fail

__all__ = [
    "LARGEST",
    "LONGEST",
    "MOST",
    "all_finite",
    "array",
    "entries",
    "fail",
    "fits",
    "flag",
    "integer",
    "is_traced",
    "key",
    "logits_and_taps",
    "number",
    "option",
    "path",
    "precision",
    "pytree",
    "same_shape",
    "size_pair",
]
