"""Temperatures of maximum-entropy diffeomorphisms, and the displacements in pixels that they stand for."""

import math
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.warps import _inputs


def temperature(displacement: float | jax.Array, *, cutoff: int, size: int | tuple[int, int]) -> Any:
    """The temperature of a typical displacement: T = 4 δ²/(π n² ln c).

    The displacement is nominal: the root mean square over all pixels to leading order in ln c. At c = 3, the sine sums
    themselves give 0.84 δ on a fine grid; ``mean_displacement`` measures a field's own.

    Args:
      displacement: δ ≥ 0, in pixels. May be traced.
      cutoff: c ≥ 2, the number of sine modes along each side; static.
      size: n ≥ 1, of square images, or (h, w), of which the shorter side counts (see ``max_entropy_field``); static.

    Returns:
      T, without unit, a Python float, or an array where ``displacement`` is traced.

    Raises:
      TypeError: an argument that is no number, or no static integer where one is needed.
      ValueError: a displacement that is negative or not finite, a cutoff below 2 or a side below 1.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468.
    """
    displacement = _inputs.plain(checks.number("displacement", displacement, minimum=0))
    cutoff, side = _cutoff(cutoff), _side(size)
    return 4 * displacement**2 / (math.pi * side**2 * math.log(cutoff))


def typical_displacement(temperature: float | jax.Array, *, cutoff: int, size: int | tuple[int, int]) -> Any:
    """The typical displacement at a temperature, δ = n √(π T ln c)/2: the inverse of ``temperature``.

    Args:
      temperature: T ≥ 0, without unit. May be traced; the derivative at 0 is infinite.
      cutoff: c ≥ 2, the number of sine modes along each side; static.
      size: n or (h, w) in pixels, as in ``temperature``; static.

    Returns:
      δ in pixels, a Python float, or an array where ``temperature`` is traced. Nominal, as explained there.

    Raises:
      TypeError, ValueError: as ``temperature``.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468.
    """
    value = _inputs.plain(checks.number("temperature", temperature, minimum=0))
    cutoff, side = _cutoff(cutoff), _side(size)
    return side * math.sqrt(math.pi * math.log(cutoff)) / 2 * value**0.5


def temperature_range(*, cutoff: int, size: int | tuple[int, int]) -> tuple[float, float]:
    """The temperatures between which a field both moves pixels and does not fold: (1/(π n² ln c), 4/(π³ c² ln c)).

    At the lower end δ is half a pixel, at the upper n/(πc). The upper end is where a *typical* field begins to fold: on
    squares with c = 3 or 5 a third of the fields do so somewhere at that temperature, one in a thousand at a quarter.
    Neither end is enforced anywhere. Where n < πc/2 nothing lies between them and the lower exceeds the upper; and a
    displacement of one pixel lies beyond the upper where n < πc.

    Args:
      cutoff: c ≥ 2, the number of sine modes along each side; static.
      size: n or (h, w) in pixels, as in ``temperature``; static.

    Returns:
      (low, high), without unit.

    Raises:
      TypeError, ValueError: as ``temperature``.

    Petrini et al. 2021, section 2, https://arxiv.org/abs/2105.02468.
    """
    cutoff, side = _cutoff(cutoff), _side(size)
    return 1 / (math.pi * side**2 * math.log(cutoff)), 4 / (math.pi**3 * cutoff**2 * math.log(cutoff))


def temperature_grid(
    *, size: int | tuple[int, int], cutoffs: tuple[int, ...] = (3, 5, 15), count: int = 30
) -> OrderedDict[int, Float[Array, "count"]]:
    """The temperatures to scan at each cutoff: evenly spaced logarithms, from below ``temperature_range`` to above.

    Args:
      size: n or (h, w) in pixels, as in ``temperature``; static.
      cutoffs: different cutoffs c, each ≥ 2; static.
      count: number of temperatures at each, ≥ 2; static.

    Returns:
      ``{cutoff: (count,)}``, temperatures from ``low``/15 to 2 ``high`` of its ``temperature_range``, in this order.

    Raises:
      TypeError: ``cutoffs`` is not a tuple of integers, or ``count`` is none.
      ValueError: a cutoff below 2 or given twice, none at all, a count below 2 or a side below 1.

    The grid of Petrini et al. 2021, https://arxiv.org/abs/2105.02468.
    """
    wanted = "be a tuple of different integers, each ≥ 2"
    if not isinstance(cutoffs, tuple | list):
        checks.fail("cutoffs", wanted, f"{cutoffs!r} was given", "A single one is `(3,)`.", error=TypeError)
    known = [
        checks.integer(f"cutoffs[{i}]", cutoff, minimum=2, maximum=checks.LONGEST) for i, cutoff in enumerate(cutoffs)
    ]
    if not known or len(set(known)) < len(known):
        checks.fail("cutoffs", wanted, f"{tuple(known)} was given")
    count = checks.integer("count", count, minimum=2, maximum=checks.LONGEST)
    grid = OrderedDict()
    for cutoff in known:
        low, high = temperature_range(cutoff=cutoff, size=size)
        grid[cutoff] = jnp.asarray(np.geomspace(low / 15, 2 * high, count))
    return grid


def _cutoff(cutoff: int) -> int:
    return checks.integer("cutoff", cutoff, minimum=2, maximum=checks.LONGEST)  # ln 1 = 0


def _side(size: int | tuple[int, int]) -> int:
    """The shorter side, which is the n of every formula."""
    pair = size if isinstance(size, tuple | list) else (size, size)
    return min(checks.size_pair("size", pair, meaning="(height, width), or one for both"))
