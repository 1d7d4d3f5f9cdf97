"""Operations on the convolution kernels of a parameter pytree: what they do to a network, before or after training."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes.distances import opaque, row_norm, row_scale, widen
from deform_jax.probes.filters import find_kernels, kernel_layer
from deform_jax.typing import PyTree

WIDEST = 1e4
"""The largest sd in pixels. A Gaussian is flat over any kernel long before."""


def smooth_filters(
    params: PyTree, sigma: float, *, size: int | tuple[int, ...] | None = 3, same_norm: bool = False
) -> PyTree:
    """Blur every convolution kernel by a Gaussian of sd ``sigma``, each spatial slice by itself.

    The Gaussian is sampled at whole pixels up to a radius of ⌈4σ⌉ and normalised there; a kernel is zero outside its
    support, and keeps its size. So a wide Gaussian also shrinks the kernel, unless ``same_norm``.

    Args:
      params: nested dicts or any other pytree; kernels are the leaves that :func:`filter_statistics` measures. They may
        be traced: works under ``jit``, and under ``vmap`` over parameters stacked by seed.
      sigma: standard deviation in pixels, from 0, which changes nothing, to 1e4; static.
      size: only kernels of this spatial size: ``3`` for 3×3 and for width 3, or a tuple; ``None`` for every kernel.
      same_norm: rescale each kernel, as a whole, to the Frobenius norm it had.

    Returns:
      The same pytree with those kernels blurred, in their own dtypes, and all other leaves as they were.

    Raises:
      TypeError: ``sigma`` is not a number, or traced; ``size`` is not made of integers.
      ValueError: ``sigma`` out of range, or no kernel of that size in ``params``.

    Source: LS 4.2, "smoothed initialisation". The values of σ, the radius, the boundary and that nothing is rescaled
    are ours; the paper gives none of them.
    """
    return sharpen_filters(params, -1.0, sigma=sigma, size=size, same_norm=same_norm)


def sharpen_filters(
    params: PyTree,
    amount: float | Float[Array, ""],
    *,
    sigma: float = 1.0,
    size: int | tuple[int, ...] | None = 3,
    same_norm: bool = True,
) -> PyTree:
    """Roughen every convolution kernel W: W + amount · (W − blurred W), at the norm it had.

    An unsharp mask on the filters. It undoes smoothness that training has learned, by degrees, or adds more of it.

    Args:
      params: as for :func:`smooth_filters`.
      amount: how much of what the blur removes is added, without unit: positive roughens, 0 changes nothing, −1 leaves
        the blurred kernel, beyond that the difference is inverted. May be traced, and differentiated.
      sigma: standard deviation of the blur in pixels, from 0 to 1e4; static.
      size: only kernels of this spatial size, as for :func:`smooth_filters`.
      same_norm: rescale each kernel, as a whole, to the Frobenius norm it had.

    Returns:
      The same pytree with those kernels changed, in their own dtypes, and all other leaves as they were.

    Raises:
      TypeError, ValueError: as :func:`smooth_filters`; and an ``amount`` that is not a finite number.

    Source: ours, for the question with which LS (6) ends: when do smooth filters suffice?
    """
    amount, same_norm = checks.number("amount", amount), checks.flag("same_norm", same_norm)
    sigma = _static_sigma(sigma)
    return map_kernels(lambda kernel: _sharpen(jnp.asarray(kernel), amount, sigma, same_norm), params, size)


def map_kernels(function: Callable[[Array], Array], params: PyTree, size: int | tuple[int, ...] | None) -> PyTree:
    """``params`` with ``function`` applied to every convolution kernel of a spatial size, and the rest as it was."""
    chosen = find_kernels(params, size)
    if not chosen:
        found = sorted({kernel.shape[:-2] for kernel in find_kernels(params).values()})
        given = f"its kernels have the sizes {', '.join(map(str, found))}"
        checks.fail("params", f"hold a kernel of `size` {size}", given, "Choose the `size` among them.")

    def change(path: tuple[Any, ...], leaf: Any) -> Any:
        return function(leaf) if kernel_layer(path, leaf) in chosen else leaf

    return jax.tree_util.tree_map_with_path(change, params)


def _static_sigma(sigma: Any) -> float:
    if checks.is_traced(sigma):
        wanted = "be a number of pixels known when the function is traced"
        checks.fail("sigma", wanted, "a traced array was given", "Close over it, or mark it static.", error=TypeError)
    return float(checks.number("sigma", sigma, minimum=0, maximum=WIDEST))


@partial(jax.jit, static_argnums=(2, 3))
def _sharpen(kernel: Array, amount: Array, sigma: float, same_norm: bool) -> Array:
    wide = opaque(widen(kernel))
    scale = row_scale(wide.reshape(-1))[0]
    wide = wide * scale  # exact, and no product of it leaves float32
    amount = jnp.asarray(amount, wide.dtype)
    # So, and not W + amount (W − blurred): exact at amounts of 0 and −1.
    result = (1 + amount) * wide - amount * _blur(wide, sigma)
    return ((_at_norm_of(wide, result) if same_norm else result) / scale).astype(kernel.dtype)


def _blur(kernel: Float[Array, "*size c_in c_out"], sigma: float) -> Float[Array, "*size c_in c_out"]:
    for axis, length in enumerate(kernel.shape[:-2]):
        matrix = jnp.asarray(_blur_matrix(length, sigma), kernel.dtype)
        kernel = jnp.moveaxis(jnp.tensordot(matrix, kernel, (1, axis), precision=lax.Precision.HIGHEST), 0, axis)
    return kernel


def _blur_matrix(length: int, sigma: float) -> np.ndarray:
    """The Gaussian of every pixel of one axis at every other, normalised over its whole radius."""
    radius = math.ceil(4 * sigma)
    steps = np.arange(-radius, radius + 1)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        gaussian = np.where(steps == 0, 1.0, np.exp(-0.5 * np.square(steps / np.float64(sigma))))
    gaussian /= gaussian.sum()
    gap = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    return np.where(gap <= radius, gaussian[radius + np.minimum(gap, radius)], 0.0)


def _at_norm_of(old: Array, new: Array) -> Array:
    """``new`` times ‖old‖/‖new‖; zero stays zero."""
    (old_scale, old_norm), (new_scale, new_norm) = _norm(old), _norm(new)
    return new * new_scale * (old_norm / new_norm) / old_scale  # in this order nothing leaves float32, nor 0 its place


def _norm(kernel: Array) -> tuple[Array, Array]:
    """A power of two, and the norm of the kernel times it: no square leaves float32. The norm of 0 is 1 here."""
    flat = kernel.reshape(-1)
    scale = row_scale(flat)
    norm, _ = row_norm(flat * scale)
    return scale[0], norm[0]
