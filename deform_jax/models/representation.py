"""From a Flax module and its variables to the callable that every probe takes."""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from deform_jax import checks
from deform_jax.typing import Images, PyTree, Taps


@dataclasses.dataclass(frozen=True)
class _Represent:
    """Compared by value, so that networks of one architecture share one compiled probe."""

    model: nn.Module
    output: bool

    def __call__(self, variables: PyTree, images: Images) -> Taps:
        if np.ndim(images) == 0:
            checks.fail("images", "be a batch (n, …)", "a single number was given")
        logits, taps = self.model.apply(variables, images, train=False)  # pyright: ignore[reportGeneralTypeIssues]
        taps = OrderedDict(taps)
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


def with_batch_statistics(model: nn.Module, variables: PyTree, images: Images) -> PyTree:
    """Return ``variables`` with every batch norm's averages set to the statistics of ``images`` (n, h, w, c).

    For untrained networks: their running averages are still (0, 1), and statistics taken anew in each call would make
    f(x) and f(τx) different functions. Ours; the papers do not say. Exact over all the images given, which pass
    through the network at once; dropout is off.

    Raises:
      TypeError, ValueError: not a Flax module, variables without ``params``, or images that are not finite floats, and
        ``(n, h, w, c)`` where there is a batch norm; statistics that are not finite, where they are known in Python.
    """
    _check_variables(model, variables)
    normalised = variables.get("batch_stats")
    images = checks.array("images", images, "n h w c" if normalised else "...", finite=True)
    if not normalised:
        return variables
    if not (hasattr(model, "momentum") and hasattr(model, "axis_name")):
        given = f"{type(model).__name__} lacks one of them"
        checks.fail("model", "have the fields `momentum` and `axis_name`", given, "Apply it with mutable batch_stats.")
    found = _batch_statistics(_unmapped(model), variables, images)
    if not checks.is_traced((images, found)) and not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
        remedy = "Standardise the images, as `data.Prepare` does, and look for large or missing numbers in `variables`."
        checks.fail("images", "give finite statistics in every layer", "some are infinite or no numbers", remedy)
    return {**variables, "batch_stats": found}


def _unmapped(model: Any) -> nn.Module:
    """Every call's own statistics, over the images given and no mapped axis."""
    return _in_float32(model.clone(momentum=0.0, axis_name=None))


def _in_float32(model: Any) -> nn.Module:
    return model.clone(compute_dtype="float32") if hasattr(model, "compute_dtype") else model


def _batch_statistics_of(model: nn.Module, variables: PyTree, images: Images) -> PyTree:
    with nn.intercept_methods(_without_dropout):
        _, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    return updated["batch_stats"]


def _without_dropout(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    dropout = isinstance(context.module, nn.Dropout) and context.method_name == "__call__"
    return args[0] if dropout else call(*args, **kwargs)


_batch_statistics = jax.jit(_batch_statistics_of, static_argnums=0)


def _check_variables(model: Any, variables: Any) -> None:
    if not isinstance(model, nn.Module):
        checks.fail("model", "be a Flax Linen module", f"{type(model).__name__} was given", error=TypeError)
    if not isinstance(variables, Mapping) or "params" not in variables:
        keys = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
        checks.fail("variables", "be a mapping with the key 'params'", f"{keys} was given", "Pass {'params': params}.")
