"""How rough the filters of a convolution are: their power in the modes of the grid Laplacian."""

import math
from functools import lru_cache, partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes.distances import opaque, row_scale, widen
from deform_jax.probes.filters import check_kernel

Degenerate = Literal["separate", "mean", "sum"]


def laplacian_modes(size: int | tuple[int, ...], *, ndim: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the Laplacian of a grid with free boundaries: a filter's "Fourier modes".

    The Laplacian is that of the graph whose edges are the pairs of neighbouring entries. Its eigenvectors are products
    of cosines, cos(π k (i + ½) / F) along each axis; with k and l half-waves the eigenvalue is 4 sin²(π k / 2F) +
    4 sin²(π l / 2F). So (k, l) shares it with (l, k), and any rotation of the two modes would serve as well: the
    products are our choice, and only the power in a whole eigenspace does not depend on it.

    Args:
      size: F, the entries along each axis of the grid, or a tuple (height, width) or (width,). Static.
      ndim: 2, or 1 for the kernels of 1-D convolutions; a tuple has its own.

    Returns:
      ``(eigenvalues (N,), modes (N, *size))``, N entries in all, float64, read-only and cached. Eigenvalues ascend, and
      are exactly equal within an eigenspace (3 × 3: 0, 1, 1, 2, 3, 3, 4, 4, 6); there the mode with fewer half-waves
      along the first axis comes first. Modes are orthonormal, and positive at their first entry.

    Raises:
      TypeError: sizes or ``ndim`` are not integers.
      ValueError: a size below 1, or ``ndim`` neither 1 nor 2.

    Source: SI 2, the eigenvectors of Eq. 3.
    """
    ndim = checks.integer("ndim", ndim, minimum=1, maximum=2)
    if isinstance(size, tuple | list) and len(size) in (1, 2):
        lengths = tuple(checks.integer("size", length, minimum=1, maximum=checks.LONGEST) for length in size)
    else:
        lengths = (checks.integer("size", size, minimum=1, maximum=checks.LONGEST),) * ndim
    checks.entries("size", *lengths, *lengths, remedy="There are as many modes as entries: take a smaller grid.")
    return _modes(lengths)


def laplacian_power(
    kernel: Float[Array, "*size c_in c_out"], *, degenerate: Degenerate = "separate"
) -> Float[Array, " modes"]:
    """Power γ_l of a kernel in each mode Ψ_l of the grid Laplacian: the mean over channel pairs of (Ψ_l · w)².

    The modes are those of :func:`laplacian_modes`, from the constant to the roughest. Their powers add up to the mean
    of ‖w‖². ``jit``, ``vmap`` and ``grad`` work; so does :func:`filter_statistics`.

    Args:
      kernel: weights (h, w, in, out), or (width, in, out) of a 1-D convolution.
      degenerate: what to do with modes of equal eigenvalue, among which the basis is a choice. ``"separate"``: nothing;
        ``"mean"``: give each the mean power of its eigenspace; ``"sum"``: add them up, one entry for each eigenvalue of
        ``numpy.unique(eigenvalues)``. The last two do not depend on the basis.

    Returns:
      (modes,) powers, h · w or ``width`` of them (6 for ``"sum"`` and 3 × 3), in the squared unit of the weights. Below
      1e-38 and above 3e38 they leave float32.

    Raises:
      TypeError: not a floating-point array.
      ValueError: not of rank 3 or 4, or empty; unknown ``degenerate``.

    Source: SI Eq. 3; Figs 4, 13 and 14 plot the powers by layer. Ours: ``degenerate``.
    """
    checks.option("degenerate", degenerate, ("separate", "mean", "sum"))
    return _laplacian_power(check_kernel(kernel), degenerate)


def spatial_frequency(kernel: Float[Array, "*size c_in c_out"]) -> Float[Array, ""]:
    """Mean eigenvalue of a kernel's modes weighted by their power, in units of white noise's: 0 where it is constant.

    N (Σ λ_l)⁻¹ ⟨‖w‖²⟩⁻¹ Σ λ_l ⟨(Ψ_l · w)²⟩, with means ⟨…⟩ over channel pairs and N spatial entries. White noise 1, and
    for 3 × 3 the roughest mode 2.25, Sobel 0.5, binomial 0.25. It is computed from the differences of neighbours, whose
    squares add up to Σ λ_l (Ψ_l · w)²: small values keep their relative accuracy. ``jit``, ``vmap`` and ``grad`` work;
    so does :func:`filter_statistics`.

    Args:
      kernel: weights (h, w, in, out), or (width, in, out) of a 1-D convolution.

    Returns:
      () ratio, without unit and whatever the weights' scale; ``nan`` for a kernel that is zero.

    Raises:
      TypeError: not a floating-point array.
      ValueError: not of rank 3 or 4, empty, or of one spatial entry, where there is no frequency.

    Source: SI Fig. 12.
    """
    kernel = check_kernel(kernel)
    if math.prod(kernel.shape[:-2]) == 1:
        given = f"its shape is {tuple(kernel.shape)}"
        checks.fail("kernel", "have more than one spatial entry", given, "Leave pointwise convolutions out.")
    return _spatial_frequency(kernel)


def mean_filter(kernel: Float[Array, "*size c_in c_out"]) -> Float[Array, " *size"]:
    """Mean of a kernel's filters over its channel pairs.

    Args:
      kernel: weights (h, w, in, out), or (width, in, out) of a 1-D convolution.

    Returns:
      (h, w) or (width,), in the unit of the weights.

    Raises:
      TypeError: not a floating-point array.
      ValueError: not of rank 3 or 4, or empty.

    Source: SI Tables 1 and 2.
    """
    return widen(check_kernel(kernel)).mean((-2, -1))


@lru_cache
def _modes(lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    count = math.prod(lengths)
    waves = np.stack(np.unravel_index(np.arange(count), lengths), axis=1)
    # Rounded, so that equal sums of different terms are equal: how they differ would be the order of their modes.
    eigenvalues = (4 * np.sin(np.pi * waves / (2 * np.array(lengths))) ** 2).sum(1).round(12)
    modes = np.ones((count, *lengths))
    for axis, (length, k) in enumerate(zip(lengths, waves.T, strict=True)):
        cosines = np.cos(np.pi * np.outer(k, np.arange(length) + 0.5) / length)
        cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
        modes *= cosines.reshape(count, *(length if a == axis else 1 for a in range(len(lengths))))
    order = np.argsort(eigenvalues, kind="stable")
    eigenvalues, modes = eigenvalues[order], modes[order]
    eigenvalues.flags.writeable = modes.flags.writeable = False
    return eigenvalues, modes


@partial(jax.jit, static_argnums=1)
def _laplacian_power(kernel: Array, degenerate: str) -> Array:
    eigenvalues, modes = _modes(kernel.shape[:-2])
    filters = opaque(widen(kernel)).reshape(len(modes), -1)
    scale = row_scale(filters.reshape(-1))[0]
    filters = filters * scale  # exact, and no sum of them leaves float32
    matrix = jnp.asarray(modes.reshape(len(modes), -1), filters.dtype)
    # A constant has no part in any mode but the first. Left in the product, its rounding would drown their power.
    projections = jnp.matmul(matrix, filters - filters[:1], precision=lax.Precision.HIGHEST)
    projections = projections.at[0].add(math.sqrt(len(modes)) * filters[0])
    power = jnp.square(projections).mean(1) / scale / scale
    if degenerate == "separate":
        return power
    _, space, counts = np.unique(eigenvalues, return_inverse=True, return_counts=True)
    total = jnp.zeros(len(counts), power.dtype).at[space].add(power)
    return total if degenerate == "sum" else (total / jnp.asarray(counts, total.dtype))[space]


@jax.jit
def _spatial_frequency(kernel: Array) -> Array:
    kernel = opaque(widen(kernel))
    kernel = kernel * row_scale(kernel.reshape(-1))[0]
    size = kernel.shape[:-2]
    differences = [jnp.diff(kernel, axis=axis) for axis in range(len(size))]
    neighbours = sum(math.prod(difference.shape[:-2]) for difference in differences)
    energy = jnp.stack([jnp.square(difference).sum() for difference in differences]).sum()
    square = jnp.square(kernel).sum()
    # Σ λ is the Laplacian's trace: twice its number of edges.
    ratio = math.prod(size) / (2 * neighbours) * energy / jnp.where(square == 0, 1, square)
    return jnp.where(square == 0, jnp.nan, ratio)
