"""One public function against hostile arguments: each call works as documented, or is refused by our error."""

import dataclasses
import re
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.errors
import jax
import jax.numpy as jnp
import numpy as np
from hostile_values import NAMES, Argument
from hypothesis import strategies as st

GRAMMAR = re.compile(r"Argument `[^`]+` must .+, but .+\.", re.DOTALL)
PHASES = (hypothesis.Phase.generate, hypothesis.Phase.shrink)


@dataclasses.dataclass(frozen=True)
class Case:
    """How one public name is called, and what of its results is documented.

    Attributes:
      name: subpackage and public name, and in brackets what is called of it: ``"data.Prepare(call)"``.
      arguments: by keyword.
      expect: (result, arguments) → whether the result is of the documented kind, shape and dtype.
      call: what is called; the public function itself by default.
      nan: (arguments) → whether a result that is no number is documented for them.
      also: other documented exceptions, each with a pattern of its message, which holds a remedy.
      warned: pattern of documented warnings.
      traced: arguments that may be traced: the good call must pass under ``jax.eval_shape`` with them abstract.
      earlier: arguments, of a good call changed, that once failed.
      refused: whether the good call, which has what it needs nowhere here, is to be refused too.
      dear: left to the campaign, since what it imports or compiles takes too long for the tests.
    """

    name: str
    arguments: dict[str, Argument]
    expect: Callable[[Any, dict[str, Any]], Any]
    call: Callable[..., Any] | None = None
    nan: Callable[[dict[str, Any]], bool] = lambda arguments: False
    also: tuple[tuple[type[Exception], str], ...] = ()
    warned: str | None = None
    traced: tuple[str, ...] = ()
    earlier: tuple[dict[str, str], ...] = ()
    refused: bool = False
    dear: bool = False

    @property
    def public(self) -> str:
        """Subpackage and public name alone."""
        return self.name.partition("(")[0]

    def function(self) -> Callable[..., Any]:
        """Return what is called."""
        if self.call is not None:
            return self.call
        package, _, attribute = self.name.partition(".")
        return getattr(NAMES[package], attribute)

    def good(self) -> dict[str, str]:
        """Return the texts of a good call."""
        return {name: argument.good[0] for name, argument in self.arguments.items()}

    def text(self, arguments: dict[str, str]) -> str:
        """Return a call as Python source."""
        return f"{self.name}({', '.join(f'{name}={text}' for name, text in arguments.items())})"


BEYOND = 1e15
"""Numbers of this size make products that leave float32: the infinity that comes of it is rounding, and counted."""


CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Failed(AssertionError):
    """A call that neither worked nor was refused by our error; ``kind`` is what the table calls it."""

    def __init__(self, kind: str, message: str):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclasses.dataclass
class Count:
    """What came of the examples of one case."""

    examples: int = 0
    worked: int = 0
    overflowed: int = 0
    """Of those that worked: with an infinity, as numbers beyond ``BEYOND`` were given."""
    refused: int = 0
    traced: int = 0
    """Of those that worked: as programs that were traced and not run, for want of time."""
    failures: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Kind, and the shrunk call with what it did."""


def judge(case: Case, arguments: dict[str, str], *, abstract: bool = False) -> str:
    """Return ``"worked"``, ``"overflowed"`` or ``"refused"`` for one call, or raise :class:`Failed`.

    ``abstract``: what jax would compute is traced and no more, within which the arguments are as concrete as ever. That
    takes no compilation, and looks at all that is refused, at shapes and at dtypes; but at no values.
    """
    values = {name: eval(text, dict(NAMES)) for name, text in arguments.items()}  # of our own tables' texts
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = (_traced if abstract else _computed)(case.function(), values)
        except CONCRETE:
            if abstract:
                return "worked"  # as far as jax goes: the rest is numpy's, of numbers that are not there
            raise
        except Exception as error:
            _check_refusal(case, error)
            return "refused"
    said = [str(warning.message) for warning in caught]
    ours = [text for text in said if case.warned is not None and re.search(case.warned, text)]
    if len(ours) < len(said):
        raise Failed("warning", next(text for text in said if text not in ours)[:300])
    infinite = not ours and _infinite(case, result, values)
    if not _expected(case, result, values):
        raise Failed("other result", f"{jax.tree.map(_described, result)}"[:300])
    return "overflowed" if infinite else "worked"


def _computed(function: Callable[..., Any], values: dict[str, Any]) -> Any:
    return jax.block_until_ready(function(**values))


def _traced(function: Callable[..., Any], values: dict[str, Any]) -> Any:
    results = []
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")  # it takes longer than most refusals
    try:
        jax.eval_shape(lambda: results.append(function(**values)))
    finally:
        jax.config.update("jax_traceback_filtering", filtering)
    return results[0]


def _expected(case: Case, result: Any, values: dict[str, Any]) -> bool:
    try:
        return case.expect(result, values) in (True, None)
    except (*CONCRETE, jax.errors.UnexpectedTracerError):  # it wants values, of what was only traced
        return True


def _check_refusal(case: Case, error: Exception) -> None:
    message = str(error)
    if isinstance(error, ValueError | TypeError) and GRAMMAR.match(message):
        return
    if any(isinstance(error, kind) and re.search(pattern, message) for kind, pattern in case.also):
        return
    raise Failed(type(error).__name__, " ".join(message.split())[:300]) from error


def _infinite(case: Case, result: Any, values: dict[str, Any]) -> bool:
    """Refuse a NaN that neither the arguments nor the documentation explain; say whether there is an infinity."""
    given, found = list(_numbers(values)), list(_numbers(result))
    nan = next((array for array in found if np.isnan(array).any()), None)
    if not all(np.isfinite(array).all() for array in given):
        return False
    if nan is not None and not case.nan(values):
        raise Failed("silent NaN", _described(nan))
    infinite = next((array for array in found if np.isinf(array).any()), None)
    if infinite is not None and max((np.abs(array).max(initial=0) for array in given), default=0) < BEYOND:
        raise Failed("silent infinity", _described(infinite))
    return infinite is not None


def _numbers(tree: Any) -> Iterator[np.ndarray]:
    """Yield the floating-point arrays and numbers of a pytree or object, in float64."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of generators
            leaves = jax.tree.leaves(tree)
    except (TypeError, ValueError):  # keys that cannot be sorted
        return
    for leaf in leaves:
        if isinstance(leaf, int) and abs(leaf) > BEYOND:
            yield np.array(float(min(abs(leaf), 1e300)))
        if isinstance(leaf, jax.core.Tracer):
            continue
        if isinstance(leaf, float) or (
            isinstance(leaf, jax.Array | np.ndarray | np.generic)
            and jnp.issubdtype(leaf.dtype, jnp.inexact)
            and not jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        ):
            yield np.asarray(leaf, np.float64)


def _described(leaf: Any) -> str:
    text = " ".join(repr(leaf).split())
    shape = f"{leaf.dtype}{tuple(leaf.shape)} " if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else ""
    return f"{shape}{text[:80]}"


def calls(case: Case) -> st.SearchStrategy[dict[str, str]]:
    """Return a strategy of calls with one or two hostile arguments among good ones."""

    @st.composite
    def draw_call(draw: Any) -> dict[str, str]:
        hostile = draw(st.sets(st.sampled_from(list(case.arguments)), min_size=1, max_size=2))
        return {
            name: draw(argument.hostile if name in hostile else st.sampled_from(argument.good))
            for name, argument in case.arguments.items()
        }

    return draw_call()


def run(
    case: Case, examples: int, seed: int, *, seconds: float, before: Callable[[str], None] = lambda text: None
) -> Count:
    """Run the good call, what once failed, and ``examples`` drawn calls; ``before`` is told of each call.

    Once ``seconds`` have passed, which are mostly compilation's, calls are traced and not run. After a failure
    hypothesis looks for the simplest such call; those trials are not counted.
    """
    count, end = Count(), time.monotonic() + seconds

    def attempt(arguments: dict[str, str]) -> str:
        before(case.text(arguments))
        abstract = time.monotonic() >= end and not count.failures  # what failed as it ran is shrunk as it runs
        outcome = judge(case, arguments, abstract=abstract)
        if not count.failures:
            count.examples += 1
            count.refused += outcome == "refused"
            count.worked += outcome != "refused"
            count.overflowed += outcome == "overflowed"
            count.traced += abstract and outcome != "refused"
        return outcome

    for changes in ({}, *case.earlier):
        try:
            if attempt({**case.good(), **changes}) == "refused" and not changes and not case.refused:
                raise Failed("refused", "the good call itself")
        except Failed as failure:
            count.examples += 1
            count.failures.append((failure.kind, f"{case.text({**case.good(), **changes})} → {failure}"))
    if count.failures or not case.arguments:
        return count
    last: list[dict[str, str]] = []

    @hypothesis.seed(seed + zlib.crc32(case.name.encode()))
    @hypothesis.settings(
        max_examples=examples,
        phases=PHASES,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @hypothesis.given(calls(case))
    def drawn(arguments: dict[str, str]) -> None:
        last[:] = [arguments]
        try:
            attempt(arguments)
        except Failed as failure:
            count.failures[:] = [(failure.kind, f"{case.text(arguments)} → {failure}")]
            raise

    try:
        drawn()
    except (Failed, hypothesis.errors.Flaky):  # flaky: what failed did not fail again, and is told as it was
        count.examples += 1  # the failing one; `last` and the failure kept are those of its simplest form
    return count


def trace(case: Case) -> None:
    """Trace the good call with its ``traced`` arguments abstract: no check of values may look at them."""
    values = {name: eval(text, dict(NAMES)) for name, text in case.good().items()}
    fixed = {name: value for name, value in values.items() if name not in case.traced}
    jax.eval_shape(lambda **abstract: case.function()(**abstract, **fixed), **{n: values[n] for n in case.traced})
