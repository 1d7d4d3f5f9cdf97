"""How far every image's representation moves; for the cosine distance, in three passes over blocks of large taps.

Image by image, that distance reads and writes a tap of VGG16 at 224 px many times over; what is made of a block stays
in the cache. The other distances gain nothing from blocks.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deform_jax.probes import distances as d
from deform_jax.probes import pieces

BLOCK = 1024
"""Features of a block: few enough for the cache with some hundred images, enough for the vector units with a few."""


def moved(clean: Float[Array, "n ..."], moved: Float[Array, "n ..."], distance: str) -> Float[Array, " n"]:
    """The distance of each image's flat features to those of its moved version."""
    if distance == "cosine" and clean.size >= pieces.LARGE:
        return _cosine(clean, moved)
    return pieces.each_image(d.DISTANCES[distance], clean, moved)


@jax.custom_jvp
def _cosine(clean: Array, moved: Array) -> Array:
    reduce = functools.partial(pieces.block_sum, block=BLOCK)
    a, b = d.pair_scales(*reduce(_largest, clean, moved, combine=jnp.maximum))
    sums = reduce(lambda x, y: _sums(*d.cosine_terms(x * a, y * b)), clean, moved)
    norms, slope = d.cosine_norms(*sums)
    (chord,) = reduce(lambda x, y: _sums(d.cosine_chord(x * a, y * b, slope)), clean, moved)
    return d.cosine_from(chord, norms)[:, 0]


@_cosine.defjvp
def _derivative(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """As image by image: differentiating a loop over blocks would add up a whole tap for each block."""
    return jax.jvp(functools.partial(pieces.each_image, d.cosine_distance), primals, tangents)


def _sums(*terms: Array) -> tuple[Array, ...]:
    return tuple(jnp.sum(term, axis=1, keepdims=True) for term in terms)


def _largest(*parts: Array) -> tuple[Array, ...]:
    return tuple(jnp.max(jnp.abs(part), axis=1, keepdims=True) for part in parts)
