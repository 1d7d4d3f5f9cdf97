"""The deformation within a box that moves a representation most, found by ascent, image by image."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes.distances import DISTANCES, Distance, opaque
from deform_jax.probes.pieces import each_image, join, split
from deform_jax.probes.represent import by_value, compiled, constant, read_taps
from deform_jax.typing import PyTree, Represent, Taps


class WorstCase(NamedTuple):
    """The worst deformation found for each image, and what it does."""

    parameters: Float[Array, "n ..."]
    """Of the deformations, within the box."""
    distances: OrderedDict[str, Float[Array, " n"]]
    """{tap: (n,)} between each image's representation and that of its deformed version."""
    trace: Float[Array, " steps"]
    """The best objective so far after each step, averaged over images; it never falls."""


def worst_case(
    represent: Represent,
    deform: Callable[..., Array],
    images: Float[Array, "n ..."],
    start: Float[Array, "n ..."],
    *,
    weights: Mapping[str, float | Array],
    limit: float | Array,
    steps: int = 20,
    step_size: float | Array | None = None,
    distance: Distance = "cosine",
    chunk: int | None = None,
) -> WorstCase:
    """Deformations in the box ``|parameters| ≤ limit`` that move chosen taps as far as possible, image by image.

    Projected sign-gradient ascent: every parameter moves by one step size along the sign of its derivative of
    Σ weight · distance(r(x), r(deform(parameters, x))), and is clipped to the box. What is kept of each image is the
    best of all that was tried, the start included, so that the objective is never below the start's. The ascent finds
    local maxima: run it from several random starts and take the best of each image.

    Args:
      represent: images (n, …) → ordered mapping {tap: (n, …)}, each image by itself, as for :func:`sensitivity`.
      deform: ``deform(parameters, image) -> image`` of one image, such as ``warps.deform_tps``. A function of a module
        is compiled once, and so is a ``jax.tree_util.Partial`` of one, whose arrays may change between calls; one that
        closes over values is compiled at every call of this one, since they may have changed.
      images: n clean images (n, …).
      start: the parameters of each image from which to ascend (n, …), within the box, in the unit of the parameters.
        Not zero where that is the identity: there every distance is least, and its gradient vanishes.
      weights: {tap: weight} of the objective, finite; taps that are not named have weight 0. They may be traced, and
        other weights do not recompile.
      limit: half the side of the box, > 0, in the unit of the parameters (pixels of shift, for ``deform_tps``). May be
        traced, as may ``step_size``.
      steps: number of steps, ≥ 1; static. Of what 100 steps reach, 20 reached 84 % to 99 %, the less the deeper the tap
        (block VGG, thin-plate splines of 2 px).
      step_size: of the first step, > 0, in the unit of the parameters; it falls linearly, to 1/``steps`` of it at the
        last. ``None`` is half the limit.
      distance: ``"cosine"``, ``"squared"`` or ``"euclidean"``, between whole taps.
      chunk: images that go through together, or ``None`` for all: gradients keep all activations of a chunk.

    Returns:
      ``(parameters, distances, trace)``. Under ``jit`` or ``grad`` the steps are scanned, which is slow on CPU; call it
      as it is for speed. For differentiation the parameters found and the trace are constants: what is left is the
      derivative of the distances at those parameters, which for the objective at a maximum is all of it.

    Raises:
      TypeError: ``represent`` or ``deform`` is not callable, or arrays are not floating.
      ValueError: a start outside the box or zero for any image (where the numbers are known), an unknown tap, no
        weight but zeros, options out of range, or deformed images of another shape.

    Source: ours. Both papers deform at random only, within the same box: LS 2.1, "a maximum distance of 10".
    """
    _check_functions(represent, deform)
    images = _check_images(images)
    checks.number("limit", limit, minimum=0, exclusive=True)
    start = _check_start(start, images, limit)
    step_size = limit / 2 if step_size is None else checks.number("step_size", step_size, minimum=0, exclusive=True)
    checks.option("distance", distance, DISTANCES)
    steps = checks.integer("steps", steps, minimum=1, maximum=checks.LONGEST)
    chunk = len(images) if chunk is None else checks.integer("chunk", chunk, minimum=1)
    _check_weights(weights)

    deform = by_value(deform)
    limit = jnp.asarray(limit, start.dtype)
    sizes = jnp.asarray(step_size, start.dtype) * jnp.linspace(1, 0, steps + 1, dtype=start.dtype)
    # On CPU a convolution in a loop of XLA's is 12 times slower, so that outside a trace the loop is Python's. Within
    # jit the sizes, computed here, are traced whatever the arguments are.
    scanned = checks.is_traced((represent, deform, images, start, weights, limit, sizes))
    search = partial(
        _search,
        compiled(read_taps, represent),
        compiled(
            _ascend, *((constant(represent), constant(deform)) if scanned else (represent, deform)), distance=distance
        ),
        compiled(_distances, represent, deform, distance=distance) if scanned else None,
        weights,
        limit,
        sizes,
    )
    return WorstCase(*_in_chunks(search, images, start, chunk, scanned))


class _State(NamedTuple):
    current: Float[Array, "n ..."]
    best: Float[Array, "n ..."]
    value: Float[Array, " n"]
    """The objective of the best; nan before there is one."""
    distances: Taps


def _search(
    read: Callable[..., Taps],
    ascend: Callable[..., _State],
    measure: Callable[..., Taps] | None,
    weights: Mapping[str, float | Array],
    limit: Array,
    sizes: Float[Array, " steps_and_one"],
    images: Array,
    start: Array,
) -> tuple[Array, Taps, Float[Array, "steps n"]]:
    """Best parameters, their distances, and the best objective after each step, of one chunk of images."""
    clean = read(images)
    weights = _by_tap(weights, clean)
    n = len(images)
    distances = OrderedDict((tap, jnp.zeros(n, _dtype(value))) for tap, value in clean.items())
    state = _State(start, start, jnp.full(n, jnp.nan, _dtype(*clean.values())), distances)
    if measure is None:
        values = []
        for size in sizes:
            state = ascend(state, images, clean, weights, limit, size)
            values.append(state.value)
        return state.best, state.distances, jnp.stack(values[1:])

    def step(state: _State, size: Array) -> tuple[_State, Array]:
        state = ascend(state, *held, size)
        return state, state.value

    held = lax.stop_gradient((images, clean, weights, limit))
    state, values = lax.scan(step, lax.stop_gradient(state), lax.stop_gradient(sizes))
    # Measured anew, since what led to the parameters is held constant, and the distances are not.
    return state.best, measure(images, clean, state.best), values[1:]


def _in_chunks(search: Callable[..., PyTree], images: Array, start: Array, chunk: int, scanned: bool) -> PyTree:
    """As ``sensitivity`` does, equal chunks of at most ``chunk``; the last one repeats its last image."""
    n = len(images)
    parts = -(-n // chunk)
    size = -(-n // parts)

    def chunks(x: Array) -> Array:
        return split(jnp.pad(x, [(0, parts * size - n)] + [(0, 0)] * (x.ndim - 1), mode="edge"), parts)

    def joined(x: Array) -> Array:
        return join(x)[:n]

    batches = chunks(images), chunks(start)
    if scanned:
        results = lax.map(lambda batch: search(*batch), batches)
    else:
        results = jax.tree.map(lambda *x: jnp.stack(x), *(search(*batch) for batch in zip(*batches, strict=True)))
    best, distances, values = results
    return joined(best), jax.tree.map(joined, distances), jax.vmap(joined, 1)(values).mean(1)


def _ascend(
    represent: Represent,
    deform: Callable[..., Array],
    state: _State,
    images: Array,
    clean: Taps,
    weights: Taps,
    limit: Array,
    size: Array,
    *,
    distance: str,
) -> _State:
    """Evaluate the current parameters, keep them where they are the best, and move on."""

    def objective(parameters: Array) -> tuple[Array, tuple[Array, Taps]]:
        distances = _distances(represent, deform, images, clean, parameters, distance=distance)
        # Taps without weight stay out even where they are not finite.
        terms = (jnp.where(weights[tap] != 0, weights[tap] * value, 0) for tap, value in distances.items())
        value = sum(terms, start=jnp.zeros_like(state.value))
        return value.sum(), (value, distances)

    gradient, (value, distances) = jax.grad(objective, has_aux=True)(state.current)
    better = (value > state.value) | jnp.isnan(state.value)
    choose = jax.vmap(jnp.where)
    best, distances = jax.tree.map(
        lambda new, old: choose(better, new, old), (state.current, distances), (state.best, state.distances)
    )
    direction = jnp.where(jnp.isnan(gradient), 0, jnp.sign(gradient))
    moved = jnp.clip(state.current + size * direction, -limit, limit)
    return _State(moved, best, jnp.where(better, value, state.value), distances)


def _distances(
    represent: Represent, deform: Callable[..., Array], images: Array, clean: Taps, parameters: Array, *, distance: str
) -> Taps:
    """{tap: (n,)} between the clean images and the deformed ones."""
    deformed = jax.vmap(deform)(parameters, images)
    if getattr(deformed, "shape", None) != images.shape:
        given = f"for images {images.shape} it returned {getattr(deformed, 'shape', type(deformed).__name__)}"
        checks.fail("deform", "return an image of the shape of the one it is given", given)
    # Hidden from XLA, which on CPU would sample every image again in each reduction that it fuses with the sampling.
    moved = read_taps(represent, opaque(deformed.astype(images.dtype)))
    return OrderedDict((tap, each_image(DISTANCES[distance], clean[tap], moved[tap])) for tap in clean)


def _dtype(*taps: Array) -> Any:
    return jnp.result_type(jnp.float32, *(tap.dtype for tap in taps))


def _check_functions(represent: Any, deform: Any) -> None:
    for name, function, what in (
        ("represent", represent, "from images to taps"),
        ("deform", deform, "from parameters and an image to an image"),
    ):
        if not callable(function):
            checks.fail(name, f"be callable, {what}", f"its type is {type(function).__name__}", error=TypeError)


def _check_images(images: Any) -> Array:
    images = checks.array("images", images, "...", finite=True)
    if images.ndim == 0:
        checks.fail("images", "hold images along its first axis", "its shape is ()")
    return images


def _check_start(start: Any, images: Array, limit: Any) -> Array:
    start = checks.array("start", start, "...", finite=True)
    if start.ndim == 0 or len(start) != len(images):
        given = f"its shape is {tuple(start.shape)}"
        checks.fail("start", f"hold the parameters of each of the {len(images)} images", given)
    if checks.is_traced((start, limit)):
        return start
    known = np.asarray(start).reshape(len(start), -1)
    if (np.abs(known) > np.asarray(limit, known.dtype)).any():
        given = f"its largest entry is {np.abs(known).max():g}"
        checks.fail("start", f"lie in the box |start| ≤ `limit` = {float(limit):g}", given, "Draw it within the box.")
    still = np.flatnonzero((known == 0).all(1))
    if len(still):
        given = f"it is zero for {len(still)} of {len(start)} images, the first at index {still[0]}"
        remedy = "The gradient vanishes at the identity: draw each start at random within the box."
        checks.fail("start", "not be zero for any image", given, remedy)
    return start


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, Mapping):
        given = f"its type is {type(weights).__name__}"
        checks.fail("weights", "be a mapping {tap: weight}", given, error=TypeError)
    for tap, weight in weights.items():
        checks.number(f"weights[{tap!r}]", weight)
    if not checks.is_traced(list(weights.values())) and not any(float(weight) for weight in weights.values()):
        checks.fail("weights", "give some tap a weight other than 0", f"{dict(weights)} was given")


def _by_tap(weights: Mapping[str, float | Array], clean: Taps) -> Taps:
    """The weights of all taps, in order, as arrays: what they are does not change the program."""
    for tap in weights:
        checks.option("weights", tap, clean)
    return OrderedDict((tap, jnp.asarray(weights.get(tap, 0.0), _dtype(value))) for tap, value in clean.items())
