"""From a Flax module and its variables to the callable that every probe takes."""

import dataclasses
import inspect
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from deform_jax import checks
from deform_jax.typing import Images, PyTree, Taps

_RUNS = itertools.count()


@dataclasses.dataclass(frozen=True)
class _Represent:
    """Compared by value, so that networks of one architecture share one compiled probe."""

    model: nn.Module
    output: bool

    def __call__(self, variables: PyTree, images: Images) -> Taps:
        if np.ndim(images) == 0:
            checks.fail("images", "be a batch (n, …)", "a single number was given")
        result: Any = self.model.apply(variables, images, train=False)
        checks.logits_and_taps(self.model, result, "Use `models.capture`, which takes any Flax Linen module.")
        logits, taps = result[0], OrderedDict(result[1])
        if self.output:
            taps["output"] = logits
        return taps


def represent(
    model: nn.Module, variables: PyTree, *, output: bool = False, precision: str | None = "highest"
) -> Partial:
    """Return ``represent(images (n, …, c)) -> OrderedDict {tap: (n, …)}`` for a module of this package.

    The variables are leaves of the returned ``jax.tree_util.Partial`` and the architecture is compared by value:
    probing several seeds, or a network before and after training, compiles once. The probe computes in float32 even if
    the network was trained in bfloat16, whose rounding would be part of what a sensitivity measures.

    Args:
      model: a module whose ``apply(variables, images, train=False)`` returns (logits, ordered taps).
      variables: ``{"params": …, "batch_stats": …}``.
      output: also append the logits as the last tap, ``"output"``.
      precision: of the network's products; ``"highest"`` by default, since TF32 or bfloat16 rounding would be part of
        what a sensitivity measures. ``None`` leaves it to the surroundings: the platform's default, or the highest
        inside a probe.

    Raises:
      TypeError, ValueError: not a Flax module, or variables without ``params``.
    """
    _check_variables(model, variables)
    output, precision = checks.flag("output", output), checks.precision("precision", precision)
    if hasattr(model, "precision"):
        model = model.clone(precision=precision)
    return Partial(_Represent(_in_float32(model), output), variables)


def with_batch_statistics(model: nn.Module, variables: PyTree, images: Images, **arguments: Any) -> PyTree:
    """Return ``variables`` with every batch norm's averages set to the statistics of ``images`` (n, h, w, c).

    For untrained networks, of any Flax Linen module: their running averages are still (0, 1), and statistics taken anew
    in each call would make f(x) and f(τx) different functions. Ours; the papers do not say. Exact over all the images
    given, which pass through the network at once, in each ``nn.BatchNorm``; dropout is off, and no axis is mapped.

    Args:
      model: the module.
      variables: ``{"params": …, "batch_stats": …}``; without the second they are returned as they are.
      images: (n, h, w, c), as the network takes them.
      **arguments: keyword arguments of ``model.__call__`` that put batch norm into training, hashable; by default
        ``train=True``.

    Raises:
      TypeError, ValueError: not a Flax module, variables without ``params``, or images that are not finite floats, and
        ``(n, h, w, c)`` where there is a batch norm; statistics that are not finite, where they are known in Python.
    """
    _check_variables(model, variables)
    normalised = variables.get("batch_stats")
    images = checks.array("images", images, "n h w c" if normalised else "...", finite=True)
    if not normalised:
        return variables
    arguments = arguments or {"train": True}
    _check_arguments(model, arguments)
    try:
        hash(model)
        of_images = _batch_statistics
    except TypeError:  # such as one of a list of layers
        of_images = _batch_statistics_of
    found = of_images(_in_float32(model), tuple(sorted(arguments.items())), variables, images)
    if not checks.is_traced((images, found)) and not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
        remedy = "Standardise the images, as `data.Prepare` does, and look for large or missing numbers in `variables`."
        checks.fail("images", "give finite statistics in every layer", "some are infinite or no numbers", remedy)
    return {**variables, "batch_stats": found}


def _in_float32(model: Any) -> nn.Module:
    return model.clone(compute_dtype="float32") if hasattr(model, "compute_dtype") else model


def _batch_statistics_of(
    model: nn.Module, arguments: tuple[tuple[str, Any], ...], variables: PyTree, images: Images
) -> PyTree:
    # `nn.jit` would run what it had compiled before, unchanged; it compiles anew for collections not seen before.
    mutable = ["batch_stats", f"none_{next(_RUNS)}"]
    with nn.intercept_methods(_unmapped_without_dropout):
        _, updated = model.apply(variables, images, mutable=mutable, **dict(arguments))
    return updated["batch_stats"]


def _unmapped_without_dropout(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Every call's own statistics, over the images given and no mapped axis; of a dropout, what it was given."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, nn.Dropout | nn.BatchNorm):
        return call(*args, **kwargs)
    if isinstance(module, nn.Dropout):
        return args[0] if args else kwargs["inputs"]
    for name, value in {"momentum": 0.0, "axis_name": None}.items():
        # Modules are frozen, and one bound to a scope cannot be cloned; it is this call's own copy.
        object.__setattr__(module, name, value)
    return call(*args, **kwargs)


_batch_statistics = jax.jit(_batch_statistics_of, static_argnums=(0, 1))


def _check_variables(model: Any, variables: Any) -> None:
    if not isinstance(model, nn.Module):
        checks.fail("model", "be a Flax Linen module", f"{type(model).__name__} was given", error=TypeError)
    if not isinstance(variables, Mapping) or "params" not in variables:
        keys = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
        checks.fail("variables", "be a mapping with the key 'params'", f"{keys} was given", "Pass {'params': params}.")


def _check_arguments(model: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that are not hashable, are not the module's, or leave out one that it needs."""
    for name, value in arguments.items():
        try:
            hash(value)
        except TypeError:
            checks.fail(
                name, "be hashable", f"{value!r} was given", "It is static in what is compiled.", error=TypeError
            )
    called = type(model).__name__
    try:
        known = list(inspect.signature(type(model).__call__).parameters.values())[2:]  # after self and the images
    except (TypeError, ValueError):
        return
    takes = [one.name for one in known if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    missing = [one.name for one in known if one.name in takes and one.default is one.empty]
    missing = [name for name in missing if name not in arguments]
    foreign = [name for name in arguments if name not in takes]
    if missing or (foreign and not any(one.kind is one.VAR_KEYWORD for one in known)):
        given = f"`{', '.join(missing)}` is missing" if missing else f"`{', '.join(foreign)}` was given"
        remedy = "Add it, as in `train=False`." if missing else f"It takes {', '.join(takes) or 'images alone'}."
        checks.fail("arguments", f"be those of `{called}.__call__`", given, remedy, error=TypeError)
