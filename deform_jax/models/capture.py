"""From any Flax Linen module to the callable that every probe takes: the outputs of its submodules, as called."""

import dataclasses
import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from deform_jax import checks
from deform_jax.models.representation import _check_arguments, _check_variables
from deform_jax.typing import Images, PyTree, Taps

Names = str | tuple[str, ...] | Callable[[str], bool] | None
Path = tuple[str, ...]
_CALL, _OURS = "__call__", ("input", "output")
_RUNS = itertools.count()


def capture(
    model: nn.Module,
    variables: PyTree,
    *,
    names: str | Iterable[str] | Callable[[str], bool] | None = None,
    output: bool = True,
    **arguments: Any,
) -> Partial:
    """Return ``represent(images (n, …)) -> OrderedDict {tap: (n, …)}`` for any Flax Linen module, whatever it returns.

    The taps are ``"input"``, then what each submodule's ``__call__`` returned, in the order in which they returned
    (a block after its parts), then the module's own ``"output"``. A tap is named by the path to its submodule, such as
    ``"block1/conv"``, as :func:`deform_jax.probes.filter_statistics` names its kernel; ``"block1/conv_2"`` is the
    second call of the same one. Of what a submodule returns, the floating-point arrays with one row per image are
    kept; where it returns several, each one's place in the result is appended, as in ``"attention.0"``.
    ``"input"`` and ``"output"`` are taken: a submodule so named comes out as ``"output_2"``.

    Functions between submodules leave no tap: after ``nn.relu(conv(x))`` the tap ``"conv"`` is what ReLU is given.
    Modules of this package return the taps of the papers: see :func:`represent`. For Flax NNX, Equinox and others, a
    pytree that can be called and returns its taps is all that a probe needs.

    The variables are leaves of the returned ``jax.tree_util.Partial`` and the rest is compared by value, so that all
    networks of one architecture share one compiled probe.

    Args:
      model: the module.
      variables: what ``model.apply`` takes: ``{"params": …}``, with ``"batch_stats"`` if there are any.
      names: which submodules' taps to keep: a regular expression that matches the whole name, several names, or a
        function of the name (compared by identity: define it once). ``None`` keeps all.
      output: whether the module's own result is the last tap.
      **arguments: further keyword arguments of ``model.__call__``, hashable: ``train=False`` or
        ``deterministic=True``, where a module has no such default.

    Raises:
      TypeError, ValueError: not a Flax Linen module, variables without ``params``, an argument that is not hashable,
        not the module's or missing, or ``names`` of another kind.
      ValueError: when called, ``names`` that no submodule has, or that leave nothing but the input.
    """
    _check_variables(model, variables)
    _check_arguments(model, arguments)
    kept = {collection: value for collection, value in variables.items() if collection != "intermediates"}
    return Partial(
        _Capture(model, _checked_names(names), checks.flag("output", output), tuple(sorted(arguments.items()))), kept
    )


@dataclasses.dataclass(frozen=True)
class _Capture:
    """Compared by value, so that networks of one architecture share one compiled probe."""

    model: nn.Module
    names: Names
    output: bool
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, variables: PyTree, images: Images) -> Taps:
        result, calls, values = self._run(variables, images)
        submodules = _arrays(_named(calls, values), len(images))
        taps: Taps = OrderedDict(input=jnp.asarray(images))
        taps.update(submodules if self.names is None else self._chosen(submodules))
        if self.output:
            taps.update(_arrays([("output", result)], len(images)))
        return taps

    def _run(
        self, variables: PyTree, images: Images, *more: str
    ) -> tuple[Any, list[Path], dict[Path, tuple[Any, ...]]]:
        """Return the result, whose calls ended in which order, and {path of a submodule: what its calls returned}.

        Values come by way of flax, which carries them out of ``nn.remat`` and ``nn.jit``; only their order is ours.
        """
        calls: list[Path] = []

        def note(module: nn.Module, method: str) -> bool:
            if method == _CALL:
                calls.append(module.path)
            return method == _CALL

        arguments: Any = {**dict(self.arguments), "mutable": ["intermediates", *more], "capture_intermediates": note}
        result, captured = self.model.apply(variables, images, **arguments)
        values = _values(captured.get("intermediates") or {})
        if not more and any(calls.count(path) < len(results) for path, results in values.items()):
            # `nn.jit` ran what it had compiled before, unnoted. It compiles anew for collections not seen before.
            return self._run(variables, images, f"intermediates_{next(_RUNS)}")
        return result, calls, values

    def _chosen(self, taps: Taps) -> Taps:
        names: Any = self.names
        if isinstance(names, tuple):
            unknown = [name for name in names if name not in taps]
            chosen = [] if unknown else names
        else:
            matches = re.compile(names).fullmatch if isinstance(names, str) else names
            unknown, chosen = names, [name for name in taps if matches(name)]
        if not chosen:
            given, remedy = f"{unknown!r} was given", f"They are {', '.join(taps) or 'none'}."
            checks.fail("names", "be of submodules that return an array with one row per image", given, remedy)
        return OrderedDict((name, tap) for name, tap in taps.items() if name in chosen)


def _values(tree: Mapping[str, Any], path: Path = ()) -> dict[Path, tuple[Any, ...]]:
    """Return {path of a submodule: what each of its calls returned}, without what modules sow themselves."""
    found = {path: tree[_CALL]} if _CALL in tree else {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _values(value, (*path, name))
    return found


def _named(calls: list[Path], values: dict[Path, tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
    """Give out what every call returned, in order and by a name of its own; the module itself is left to the caller."""
    taken = {*_OURS, *("/".join(path) for path in values)}
    done: dict[Path, int] = {}
    for path in calls:
        call = done.get(path, 0)
        if path == () or call >= len(values.get(path, ())):  # within `nn.scan`, values may stay inside
            continue
        done[path] = call + 1
        yield _name("/".join(path), call, taken), values[path][call]


def _name(base: str, call: int, taken: set[str]) -> str:
    if call == 0 and base not in _OURS:
        return base
    number = max(call + 1, 2)
    while f"{base}_{number}" in taken:
        number += 1
    taken.add(f"{base}_{number}")
    return f"{base}_{number}"


def _arrays(named: Iterable[tuple[str, Any]], n: int) -> Taps:
    """The floating-point arrays with one row per image, of results that may be any pytree."""
    taps: Taps = OrderedDict()
    for name, value in named:
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if _kept(leaf, n):
                place = jax.tree_util.keystr(path, simple=True, separator=".")
                taps[f"{name}.{place}" if place else name] = leaf
    return taps


def _kept(leaf: Any, n: int) -> bool:
    floating = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return floating and leaf.ndim > 0 and leaf.shape[0] == n and leaf.size > 0


def _checked_names(names: Any) -> Names:
    wanted = "be a regular expression, several names or a function of a name"
    listed: Any = names
    if isinstance(names, str):
        try:
            re.compile(names)
        except re.error as error:
            checks.fail("names", wanted, f"{names!r} was given", f"As an expression: {error}.")
    elif isinstance(names, Iterable) and getattr(names, "ndim", 1):
        listed = tuple(names)
        if not listed or not all(isinstance(name, str) for name in listed):
            checks.fail("names", wanted, f"{listed!r} was given", error=TypeError)
    elif names is not None and not callable(names):
        checks.fail("names", wanted, f"{names!r} was given", error=TypeError)
    return listed
