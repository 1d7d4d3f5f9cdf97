"""From any callable to taps: what may be compiled once, and what it must return."""

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from types import MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deform_jax import checks
from deform_jax.typing import PyTree, Represent, Taps


@dataclasses.dataclass(frozen=True)
class _Structure:
    """Callables without their arrays: hashable, and equal to those of another seed of the same architecture."""

    treedef: Any
    fixed: tuple[Any, ...]

    def fill(self, arrays: list[Any]) -> tuple[Callable[..., Any], ...]:
        leaves = [leaf if array is None else array for leaf, array in zip(self.fixed, arrays, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)

    def reusable(self) -> bool:
        """Whether two calls may share one compilation: everything that can change between them is an argument.

        A plain function hides what it closes over. Were it compiled once per object, a network probed before and
        after training would silently give the first numbers twice.
        """
        if any(jax.tree_util.treedef_is_leaf(function) for function in self.treedef.children()):
            return False
        try:
            hash(self)
        except TypeError:
            return False
        return True


def call(measure: Callable[..., PyTree], represent: Represent, *arguments: Any, **options: Any) -> PyTree:
    """``measure(represent, *arguments, **options)`` under ``jit``, as :func:`compiled` has it."""
    if not callable(represent):
        given = f"its type is {type(represent).__name__}"
        checks.fail("represent", "be callable, from images to taps", given, error=TypeError)
    return compiled(measure, represent, **options)(*arguments)


def compiled(
    measure: Callable[..., PyTree], *functions: Callable[..., PyTree], **options: Any
) -> Callable[..., PyTree]:
    """``measure(*functions, …, **options)`` as a function of the arguments between, with ``options`` static.

    Each of the functions may be a plain callable, so that all is compiled anew for every call of ``compiled``, or a
    pytree that can be called, such as ``jax.tree_util.Partial(function, variables)`` or an Equinox module: its arrays
    are arguments of the compiled program and the rest is compared by value, so that every seed of one architecture
    shares one compilation.
    """
    leaves, treedef = jax.tree.flatten(functions)
    arrays = [leaf if isinstance(leaf, jax.Array | np.ndarray) else None for leaf in leaves]
    fixed = tuple(leaf if array is None else None for leaf, array in zip(leaves, arrays, strict=True))
    structure = _Structure(treedef, fixed)
    if structure.reusable():
        return partial(_compiled, measure, structure, tuple(sorted(options.items())), arrays)
    return partial(jax.jit(lambda a, *x: measure(*structure.fill(a), *x, **options)), arrays)


def by_value(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A plain function that closes over nothing as a pytree without arrays, to be compiled once; others as they are."""
    hides = getattr(function, "__closure__", None) is not None or isinstance(function, MethodType)
    leaf = jax.tree_util.treedef_is_leaf(jax.tree.structure(function))
    return jax.tree_util.Partial(function) if leaf and not hides else function


def constant(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A callable pytree with its arrays held constant for differentiation."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if isinstance(x, jax.Array | np.ndarray) else x, function)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    measure: Callable[..., PyTree],
    structure: _Structure,
    options: tuple[tuple[str, Any], ...],
    arrays: list[Any],
    *arguments: Any,
) -> PyTree:
    return measure(*structure.fill(arrays), *arguments, **dict(options))


def read_taps(represent: Represent, images: jax.Array) -> Taps:
    """The taps of ``images`` in the function's own order, checked; plain products run at the highest precision.

    A caller's own ``jax.default_matmul_precision`` is left alone.
    """
    chosen = jax.config.jax_default_matmul_precision is not None  # pyright: ignore[reportAttributeAccessIssue]
    with contextlib.nullcontext() if chosen else jax.default_matmul_precision("highest"):
        output: Any = represent(images)
    output = output._asdict() if hasattr(output, "_asdict") else output
    if not isinstance(output, Mapping):
        remedy = "Return for instance `OrderedDict(conv1=…, logits=…)`."
        given = f"its result has type {type(output).__name__}"
        checks.fail("represent", "return an ordered mapping {tap: array}", given, remedy, error=TypeError)
    if not output:
        checks.fail("represent", "return at least one tap", "it returned an empty mapping")
    return OrderedDict((name, _tap(name, value, len(images))) for name, value in output.items())


def _tap(name: Any, value: Any, n: int) -> jax.Array:
    if not isinstance(name, str):
        checks.fail("represent", "name its taps by strings", f"one is named {name!r}", error=TypeError)
    if not isinstance(value, jax.Array | np.ndarray):
        given = f"tap '{name}' has type {type(value).__name__}"
        checks.fail("represent", "return one array for each tap", given, error=TypeError)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        given = f"tap '{name}' has dtype {value.dtype}"
        checks.fail("represent", "return floating-point taps", given, error=TypeError)
    if value.ndim == 0 or value.shape[0] != n or value.size == 0:
        given = f"tap '{name}' has shape {tuple(value.shape)}"
        remedy = "Keep one row for each image, and at least one feature."
        checks.fail("represent", f"return taps of shape ({n}, …) for {n} images", given, remedy)
    return jnp.asarray(value)
