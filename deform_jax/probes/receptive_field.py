"""How wide a part of the image each layer of a network looks at, measured with single active pixels."""

import math
from collections import OrderedDict
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes import parts
from deform_jax.probes.distances import widen
from deform_jax.probes.represent import call, read_taps
from deform_jax.typing import Represent, Taps

_DEAD = "no active pixel changes the representation there"


def effective_receptive_field(
    represent: Represent,
    shape: tuple[int, ...],
    *,
    value: float,
    stride: int = 1,
    channels: int = 1,
    chunk: int | None = None,
) -> OrderedDict[str, Float[Array, ""]]:
    """Width A_k of each tap's effective receptive field, in input pixels, for periodic images.

    Seen from the input: ``a(i) = Σ_c |f_k(value δ_i) − f_k(0)|`` at one site, as a function of the active pixel i,
    averaged over the sites after each is turned back by its own place, and s² its variance about its circular mean.
    With stride 1 the width is s, for homogeneous filters √(k (F² − 1)/12) before it wraps around. With strides, where
    what a pixel becomes is always a single site, it is √(12 s² + 1), the number of sites of a uniform profile with that
    variance: for homogeneous filters of stride F exactly F^k.

    Differentiable in ``value`` and in the arrays of ``represent``; works inside ``jit`` and ``vmap``.

    Args:
      represent: images (n, …) → ordered mapping ``{tap: (n, *sites, features)}``, compiled as for :func:`sensitivity`.
        A tap (n, features) is taken as one site.
      shape: d sides of the images, in pixels, without channels: (L,) or (h, w). All prod(shape) active pixels are fed.
      value: of the active pixel, in image-value units; SI's is √(L/2).
      stride: 1, or any other for a network with strides equal to its filter size: which of the two widths.
      channels: of the images, all active together.
      chunk: active pixels that go through together, or ``None`` for all.

    Returns:
      ``{tap: ()}`` widths in the order of ``represent``. In more than one dimension s² is the mean of the variances
      along the axes. A single site is no exception: uniform over L pixels it has the width L of a strided network.
      ``nan`` where no active pixel changes anything, or where values are not finite; called eagerly, a
      ``RuntimeWarning`` names these taps.

    Raises:
      TypeError: ``represent`` is not callable or returns no mapping of arrays, or sizes are no static integers.
      ValueError: sizes below 1, ``value`` not positive, or a tap whose rank is neither 2 nor that of the images.

    Source: SI 4, "the typical size of the representation of a single-pixel input"; that is a single site for stride F,
    so that we measure it from the input side, in one way for both.
    """
    if not isinstance(shape, tuple | list) or len(shape) == 0:
        given = f"{shape!r} was given"
        checks.fail("shape", "be a tuple of sides in pixels, such as (32,)", given, error=TypeError)
    shape = tuple(checks.integer("shape", side, minimum=1, maximum=checks.LONGEST) for side in shape)
    value = checks.number("value", value, minimum=0, exclusive=True)
    strided = checks.integer("stride", stride, minimum=1) > 1
    channels = checks.integer("channels", channels, minimum=1, maximum=checks.LONGEST)
    count = math.prod(shape)
    chunk = count if chunk is None else min(checks.integer("chunk", chunk, minimum=1), count)
    remedy = "One image for each active pixel goes through: pass a smaller `chunk`, or smaller images."
    checks.entries("shape", chunk + 1, count, channels, remedy=remedy)
    options: dict[str, Any] = {"shape": shape, "channels": channels, "strided": strided}
    steps = -(-count // chunk)
    pixels = np.minimum(np.arange(steps * chunk), count - 1).reshape(steps, chunk)  # the last is repeated
    widths, totals = call(_widths, represent, jnp.asarray(value, jnp.float32), jnp.asarray(pixels), **options)
    parts.warn_undefined("The effective receptive field", widths, {_DEAD: totals})
    return widths


def _widths(
    represent: Represent, value: Array, pixels: Array, *, shape: tuple[int, ...], channels: int, strided: bool
) -> tuple[Taps, Taps]:
    """The width of every tap, and how much active pixels change it."""
    count = math.prod(shape)

    def responses(chunk: Array) -> Taps:
        # The empty image goes with each chunk: one more batch size would be one more forward pass to compile.
        active = jnp.arange(count)[None] == jnp.concatenate([jnp.full(1, -1, chunk.dtype), chunk])[:, None]
        images = jnp.broadcast_to((value * active).reshape(-1, *shape, 1), (len(active), *shape, channels))
        taps = read_taps(represent, images)
        return OrderedDict((tap, _response(tap, found, len(shape))) for tap, found in taps.items())

    found = responses(pixels[0]) if len(pixels) == 1 else lax.map(responses, pixels)
    widths, totals = OrderedDict(), OrderedDict()
    for tap, response in found.items():
        sites = response.shape[-len(shape) :]
        response = response.reshape(-1, *sites)[:count].reshape(*shape, *sites)
        totals[tap] = response.max()
        response = response / jnp.where(totals[tap] > 0, totals[tap], 1)
        variance = jnp.stack([_variance(_aligned(response, axis)) for axis in range(len(shape))]).mean()
        squared = 12 * variance + 1 if strided else variance
        width = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
        widths[tap] = jnp.where((totals[tap] > 0) & jnp.isfinite(variance), width, jnp.nan)
    return widths, totals


def _response(tap: str, found: Array, ndim: int) -> Array:
    """Σ_c |f(active) − f(empty)| of each active pixel at each site: (pixels, *sites)."""
    if found.ndim not in (2, ndim + 2):
        given = f"tap '{tap}' has shape {tuple(found.shape)}"
        requirement = f"return taps (n, *sites, features) with {ndim} axes of sites, or (n, features)"
        checks.fail("represent", requirement, given, "Reshape it, or leave it out.")
    found = widen(found)
    change = jnp.abs(found[1:] - found[:1]).sum(-1)
    return change.reshape(-1, *((1,) * ndim if found.ndim == 2 else change.shape[1:]))


def _aligned(response: Float[Array, "..."], axis: int) -> Float[Array, " side"]:
    """The response along one axis, averaged over sites with each turned back by its place in the image."""
    ndim = response.ndim // 2
    profile = response.mean(tuple(a for a in range(2 * ndim) if a not in (axis, ndim + axis)))
    side, sites = profile.shape
    place = np.round(np.arange(sites) * side / sites).astype(int)
    return profile[(np.arange(side)[:, None] + place) % side, np.arange(sites)[None]].mean(1)


def _variance(profile: Float[Array, " side"]) -> Float[Array, ""]:
    """Variance of a periodic profile's positions, cut open opposite to its circular mean; 0 where all is zero."""
    side = len(profile)
    total = profile.sum()
    weights = profile / jnp.where(total > 0, total, 1)
    angles = 2 * np.pi * np.arange(side) / side
    # The cut is locally constant: so is the variance in it.
    sine, cosine = (lax.stop_gradient(jnp.sum(weights * np.float32(wave))) for wave in (np.sin(angles), np.cos(angles)))
    centre = jnp.arctan2(sine, cosine) * (side / (2 * np.pi))
    offsets = (np.arange(side) - centre + side / 2) % side - side / 2
    return jnp.sum(weights * jnp.square(offsets - jnp.sum(weights * offsets)))
