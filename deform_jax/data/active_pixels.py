"""Images of a few active pixels on an empty background: moving the pixels, and drawing them (SI sections 3 and 4)."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from deform_jax import checks
from deform_jax.typing import RandomKey

_LAWS = ("step", "neighbourhood", "cross")


def pixel_displacements(law: str, ndim: int) -> np.ndarray:
    """Return the equally likely moves of one pixel: (m, ndim) int32 numpy, in pixels.

    Args:
      law: ``"step"``: a unit move along one axis, −1 or +1 in 1-D (SI section 4); ``"neighbourhood"``: the 3^ndim
        pixels around and including the pixel itself (SI section 3); ``"cross"``: the unit moves and staying.
      ndim: 1 or 2.

    Raises:
      TypeError, ValueError: an unknown law, or another ``ndim``.
    """
    checks.option("law", law, _LAWS)
    ndim = checks.integer("ndim", ndim, minimum=1, maximum=2)
    moves = np.array(list(itertools.product((-1, 0, 1), repeat=ndim)), np.int32)
    lengths = np.abs(moves).sum(axis=-1)
    return moves[{"step": lengths == 1, "neighbourhood": lengths >= 0, "cross": lengths <= 1}[law]]


def displace_pixels(
    key: RandomKey,
    positions: Any,
    shape: Sequence[int],
    *,
    law: str,
    boundary: Literal["periodic", "clamp"] = "periodic",
    patch: int | None = None,
) -> Int32[Array, "*batch p d"]:
    """Return pixels each moved at random, independently of all others: what a diffeomorphism does to such images.

    Args:
      key: a random key; one for all pixels.
      positions: (…, p, d) integers from 0, the p active pixels of each image.
      shape: (L,) or (h, w), in pixels, without padding; static.
      law: of the moves, as :func:`pixel_displacements`; static.
      boundary: a pixel that leaves the image comes in at the other side (``"periodic"``, SI section 4), or goes to the
        nearest pixel inside (``"clamp"``, the 2-D task); static.
      patch: undo a pixel's move where it leaves its patch of that many pixels a side, so that the class of a
        ``"patch"`` task is kept, as the released code can; static. Default: moves are kept (SI section 4.2 counts on
        those that cross the border).

    Raises:
      TypeError, ValueError: no key or more than one; positions of another rank or, where known, outside the image;
        unknown options; a patch that does not divide ``shape``.
    """
    remedy = "One key moves all pixels; `jax.vmap` over keys and positions gives each image a key of its own."
    checks.key(key, remedy=remedy)
    shape = image_shape(shape)
    checks.option("boundary", boundary, ("periodic", "clamp"))
    positions = pixel_positions(positions, shape)
    moves = jnp.asarray(pixel_displacements(law, len(shape)))
    limit = jnp.broadcast_to(jnp.asarray(shape, jnp.int32), positions.shape)
    moved = positions + moves[jax.random.randint(key, positions.shape[:-1], 0, len(moves))]
    moved = moved % limit if boundary == "periodic" else jnp.clip(moved, 0, limit - 1)
    if patch is None:
        return moved
    patch = checks.integer("patch", patch, minimum=1)
    if any(length % patch for length in shape):
        checks.fail("patch", f"divide every side of {shape}", f"{patch} was given")
    inside = (moved // patch == positions // patch).all(axis=-1, keepdims=True)
    return jnp.where(inside, moved, positions)


def render_pixels(
    positions: Any,
    shape: Sequence[int],
    *,
    value: Any = 1.0,
    collisions: Literal["superpose", "collapse"] = "superpose",
    pad: int = 0,
) -> Float[Array, "*batch_and_shape 1"]:
    """Return images of active pixels on an empty background.

    Args:
      positions: (…, p, d) integers from 0, the p active pixels of each image; those outside the image are refused where
        they are known, and else not drawn.
      shape: (L,) or (h, w), in pixels, without padding; static.
      value: of an active pixel.
      collisions: two pixels at one place add up (``"superpose"``, the linearity SI section 4 rests on), or make one
        pixel (``"collapse"``, the released code); static.
      pad: zero pixels added on every side; static.

    Returns:
      (…, L + 2 pad, 1) or (…, h + 2 pad, w + 2 pad, 1) float32.

    Raises:
      TypeError, ValueError: positions of another rank or outside the image, unknown options.
    """
    shape = image_shape(shape)
    checks.option("collisions", collisions, ("superpose", "collapse"))
    pad = checks.integer("pad", pad, minimum=0, maximum=checks.LONGEST)
    value = checks.number("value", value)
    positions = pixel_positions(positions, shape)
    size, batch = math.prod(shape), positions.shape[:-2]
    checks.entries("shape", *batch, *(length + 2 * pad for length in shape), remedy="Draw fewer images at a time.")
    flat = positions[..., 0] if len(shape) == 1 else positions[..., 0] * shape[1] + positions[..., 1]
    inside = [(positions[..., axis] >= 0) & (positions[..., axis] < length) for axis, length in enumerate(shape)]
    flat = jnp.where(jnp.stack(inside).all(axis=0), flat, size).reshape(-1, positions.shape[-2])
    counts = jax.vmap(lambda index: jnp.zeros(size, jnp.float32).at[index].add(1.0, mode="drop"))(flat)
    images = (jnp.minimum(counts, 1.0) if collisions == "collapse" else counts) * jnp.asarray(value, jnp.float32)
    images = images.reshape(*batch, *shape, 1)
    return jnp.pad(images, [(0, 0)] * len(batch) + [(pad, pad)] * len(shape) + [(0, 0)])


@dataclasses.dataclass(frozen=True)
class ActivePixels:
    """The ``prepare`` of ``training.fit`` for scale detection: images are counts of active pixels times ``value``.

    Args:
      value: of an active pixel, such as :func:`active_value` gives.

    Raises:
      TypeError, ValueError: ``value`` is no finite number > 0.
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(checks.number("value", self.value, minimum=0, exclusive=True)))

    def __call__(self, keys: jax.Array | None, counts: Any) -> Float[Array, "n *shape 1"]:
        """Return float32 images from uint8 counts (n, …, 1); nothing is random, and ``keys`` are not used."""
        return self.value * checks.array("counts", counts, "... 1", kind="real").astype(jnp.float32)


def image_shape(shape: Any) -> tuple[int, ...]:
    """Return a static (L,) or (h, w), each side ≥ 2 pixels."""
    if not isinstance(shape, tuple | list) or len(shape) not in (1, 2):
        error = ValueError if isinstance(shape, tuple | list) else TypeError
        checks.fail("shape", "be (L,) or (h, w), in pixels", f"{shape!r} was given", error=error)
    sides = tuple(checks.integer("shape", length, minimum=2, maximum=checks.LONGEST) for length in shape)
    checks.entries("shape", *sides)
    return sides


def pixel_positions(positions: Any, shape: tuple[int, ...], *, dims: str = "... p") -> Int[Array, "*batch p d"]:
    """Return positions as int32 after checking their rank and, where they are known, that they are inside."""
    positions = checks.array("positions", positions, f"{dims} {len(shape)}", kind="integer")
    if not checks.is_traced(positions):
        known = np.asarray(positions)
        outside = ((known < 0) | (known >= np.array(shape))).any(axis=-1)
        if outside.any():
            first = known[tuple(np.argwhere(outside)[0])].tolist()
            checks.fail("positions", f"be pixels of an image of shape {shape}", f"{first} was given")
    return positions.astype(jnp.int32)
