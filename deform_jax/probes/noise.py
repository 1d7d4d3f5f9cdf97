"""Noise to set beside a deformation: as large, but of no particular direction."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes.distances import euclidean_distance, row_norm, widen
from deform_jax.typing import RandomKey


def matched_noise(
    key: RandomKey, images: Float[Array, "n ..."], deformed: Float[Array, "n ..."]
) -> Float[Array, "n ..."]:
    """Add to each image noise as large as its deformation: ``images`` + η with ‖η‖ = ‖``deformed`` − ``images``‖.

    η is a Gaussian draw over all pixels and channels, scaled image by image to exactly that norm: its direction is
    uniform. In float32 the norms agree to 2e-7 where a deformation is at least 1 % of its image's norm; below, the sum
    ``images`` + η rounds η away, so that it is 1e-6 at 0.1 % (for 3072 pixels, less for more).

    Args:
      key: one random key; every image gets its own noise from it.
      images: (n, …) clean images of any rank, floating-point.
      deformed: one deformed version of each, of the same shape.

    Returns:
      (n, …) noisy images in the dtype of ``images``; those whose deformation changes nothing, unchanged. Differentiable
      in both through the norm, with a gradient of 0 there. Works under ``jit`` and ``vmap``.

    Raises:
      TypeError: ``key`` is not a random key; images are not floating-point.
      ValueError: a batch of keys, different shapes, no axis, empty, or NaN or infinite images.

    Source: SI Eq. 1, "white noise perturbations η of magnitude ‖τ(x) − x‖"; scaled for each image as in RS.
    """
    key, images, deformed = _check(key, images, deformed)
    return _matched_noise(key, images, deformed)


def rectified_noise(
    key: RandomKey, images: Float[Array, "n ..."], deformed: Float[Array, "n ..."], *, rectified: bool = True
) -> Float[Array, "n ..."]:
    """Add rectified Gaussian noise of one size for all images: ``images`` + ReLU(η), η ~ N(0, σ²) at every entry.

    σ² is the mean of (``deformed`` − ``images``)² over images, pixels and channels.

    Args:
      key: one random key; every entry of every image gets its own noise from it.
      images: (n, …) clean images of any rank, floating-point.
      deformed: one deformed version of each, of the same shape.
      rectified: ``False`` adds η itself.

    Returns:
      (n, …) noisy images in the dtype of ``images``. Differentiable in both through σ, with a gradient of 0 where no
      image is deformed. Works under ``jit`` and ``vmap``.

    Raises:
      TypeError: ``key`` is not a random key; images are not floating-point; ``rectified`` is not a bool.
      ValueError: a batch of keys, different shapes, no axis, empty, or NaN or infinite images.

    Source: SI 4.1 (Eq. 6) and B.2, "Gaussian noise with already the ReLU applied on": away from active pixels only
    positive noise passes the first layer, and without ReLU G_k nears its law only late. Ours: one σ for all images.
    """
    key, images, deformed = _check(key, images, deformed)
    return _rectified_noise(key, images, deformed, checks.flag("rectified", rectified))


def _check(key: RandomKey, images: Array, deformed: Array) -> tuple[Array, Array, Array]:
    key = checks.key(key, remedy="Every image gets its own noise from it.")
    images = checks.array("images", images, "...", finite=True)
    deformed = checks.array("deformed", deformed, "...", finite=True)
    if images.ndim == 0:
        checks.fail("images", "hold images along its first axis", "its shape is ()")
    checks.same_shape("deformed", deformed, "images", images)
    return key, images, deformed


@jax.jit
def _matched_noise(key: RandomKey, images: Array, deformed: Array) -> Array:
    clean, moved = (widen(x).reshape(len(x), -1) for x in (images, deformed))
    direction = jax.random.normal(key, clean.shape, clean.dtype)
    size = euclidean_distance(clean, moved.astype(clean.dtype))[:, None] / row_norm(direction)[0]
    return (clean + direction * size).reshape(images.shape).astype(images.dtype)


@partial(jax.jit, static_argnums=3)
def _rectified_noise(key: RandomKey, images: Array, deformed: Array, rectified: bool) -> Array:
    clean, moved = widen(images), widen(deformed).astype(widen(images).dtype)
    spread = euclidean_distance(clean.reshape(-1), moved.reshape(-1)) / math.sqrt(clean.size)
    noise = jax.random.normal(key, clean.shape, clean.dtype)
    noise = jax.nn.relu(noise) if rectified else noise
    added = jnp.where(noise == 0, 0, spread * noise)  # and not ∞ · 0, where the deformation leaves float32
    return (clean + added).astype(images.dtype)
