"""Statistics of convolution kernels: their total variation, and any statistic over a whole parameter pytree."""

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deform_jax import checks
from deform_jax.probes.distances import opaque, row_scale, widen
from deform_jax.typing import PyTree

KERNEL_NAMES = ("kernel", "w")
"""What Flax and Haiku call a kernel of layout (height, width, in, out) or (width, in, out)."""


def total_variation(kernel: Float[Array, "*size c_in c_out"], *, per_slice: bool = False) -> Float[Array, ""]:
    """Normalised total variation TV(W)/‖W‖₁ of a kernel: 0 where it is constant in space, larger where it is rough.

    TV(W) = ``Σ |W[i+1, j] − W[i, j]| + Σ |W[i, j+1] − W[i, j]|`` over neighbours within the kernel, no wrap-around, and
    over all channel pairs. Sobel 1.5, the 4-neighbour Laplacian 3.5, a large random normal 3×3 kernel 4√2/3. Kernels of
    different sizes have different scales: compare 3×3 with 3×3. Differentiable; the subgradient at ties is 0.

    Args:
      kernel: weights (h, w, in, out), or (width, in, out) of a 1-D convolution.
      per_slice: ``False`` pools both sums over the whole tensor before dividing, as LS's formula does; ``True``
        averages the ratios of the single spatial slices, which gives LS's 1.87 at initialisation. Slices that are
        zero are left out of the average (ours).

    Returns:
      () ratio, without unit; ``nan`` for a kernel that is zero, where the ratio is undefined.

    Raises:
      TypeError: not a floating-point array.
      ValueError: not of rank 3 or 4, or empty.

    Source: LS 4.1 and footnote 1.
    """
    return _total_variation(check_kernel(kernel), checks.flag("per_slice", per_slice))


@partial(jax.jit, static_argnums=1)
def _total_variation(kernel: Array, per_slice: bool) -> Array:
    kernel = opaque(widen(kernel))
    kernel = kernel * row_scale(kernel.reshape(-1))[0]  # sums then stay within float32
    spatial = tuple(range(kernel.ndim - 2))
    kept = spatial if per_slice else None
    variation = jnp.sum(jnp.stack([jnp.abs(jnp.diff(kernel, axis=axis)).sum(kept) for axis in spatial]), axis=0)
    size = jnp.abs(kernel).sum(kept)
    ratio = variation / jnp.where(size == 0, 1, size)
    counted = (size != 0).sum()
    return jnp.where(counted == 0, jnp.nan, ratio.sum() / jnp.maximum(counted, 1))


def filter_statistics(
    params: PyTree, statistic: Callable[[Array], Any], *, size: int | tuple[int, ...] | None = None
) -> OrderedDict[str, Any]:
    """``statistic`` of every convolution kernel in a parameter pytree, in natural order.

    A kernel is a floating-point leaf named ``kernel`` (Flax) or ``w`` (Haiku), of layout (h, w, in, out) or
    (width, in, out), with more than one spatial entry. Names tell nothing of the layout elsewhere (PyTorch's and
    Equinox's ``weight`` is (out, in, h, w)): rename and transpose such leaves first. The rank-3 kernels of attention
    layers look like 1-D convolutions; pass a part of the tree, or a ``size``, to leave them out.

    Args:
      params: nested dicts or any other pytree. Arrays may be traced: works under ``jit``, and under ``vmap`` over
        parameters stacked by seed.
      statistic: kernel → scalar or array, such as :func:`total_variation`.
      size: only kernels of this spatial size: ``3`` for 3×3 and for width 3, or a tuple ``(3, 3)`` or ``(3,)``.

    Returns:
      ``{layer: statistic}``; the layer is the path of modules joined by "/", sorted with numbers in order (``Conv_2``
      before ``Conv_10``). Empty if no kernel has the ``size``.

    Raises:
      TypeError: ``statistic`` is not callable, or ``size`` is not made of integers.
      ValueError: no convolution kernel in ``params``, or a ``size`` below 1.

    Source: LS 4.4 and SI Figs 4 and 12 plot such statistics by layer. Ours: kernels of one spatial entry are skipped,
    since their variation is 0 whatever they hold.
    """
    if not callable(statistic):
        given = f"its type is {type(statistic).__name__}"
        checks.fail("statistic", "be callable, from a kernel to a scalar", given, error=TypeError)
    return OrderedDict((layer, statistic(kernel)) for layer, kernel in find_kernels(params, size).items())


def check_kernel(kernel: Any) -> Array:
    """``kernel`` if it is one convolution's, of either layout."""
    kernel = checks.array("kernel", kernel, "... in out")
    if kernel.ndim not in (3, 4):
        requirement = "have shape (h, w, in, out) or (width, in, out)"
        checks.fail("kernel", requirement, f"its shape is {tuple(kernel.shape)}")
    return kernel


def find_kernels(
    params: PyTree, size: int | tuple[int, ...] | None = None, *, points: bool = False
) -> dict[str, Array]:
    """{layer: kernel} of a parameter pytree in natural order, of one spatial size or all.

    As :func:`filter_statistics` says; ``points`` also counts the kernels of one spatial entry.
    """
    wanted = _sizes(size)
    checks.pytree("params", params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = {layer: leaf for path, leaf in leaves if (layer := kernel_layer(path, leaf, points=points)) is not None}
    if not kernels:
        requirement = "hold a convolution kernel, of rank 3 or 4 and named `kernel` or `w`"
        given = f"none of its {len(leaves)} leaves is one"
        checks.fail("params", requirement, given, "Pass the parameters of a convolutional network.")
    for layer, kernel in kernels.items():
        if 0 in kernel.shape:
            checks.fail("params", "hold no empty kernel", f"that of {layer!r} has shape {tuple(kernel.shape)}")
        if isinstance(kernel, np.ndarray):
            checks.fits(f"params: {layer}", kernel)
    chosen = (layer for layer in kernels if not wanted or kernels[layer].shape[:-2] in wanted)
    return {layer: kernels[layer] for layer in sorted(chosen, key=_natural)}


def kernel_layer(path: tuple[Any, ...], leaf: Any, *, points: bool = False) -> str | None:
    """The modules to a convolution kernel, joined by "/"; ``None`` where the leaf at ``path`` is something else."""
    *modules, name = path_names(path) or [""]
    if name not in KERNEL_NAMES or not hasattr(leaf, "dtype"):
        return None
    if not jnp.issubdtype(leaf.dtype, jnp.floating) or len(leaf.shape) not in (3, 4):
        return None
    return None if math.prod(leaf.shape[:-2]) <= 1 and not points else "/".join(modules) or name


def path_names(path: tuple[Any, ...]) -> list[str]:
    """The names along a leaf's path: its modules, and last its own."""
    names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    return names[:-1] if names[-1:] == ["value"] else names  # how Flax NNX boxes its variables


def _sizes(size: Any) -> tuple[tuple[int, ...], ...]:
    if size is None:
        return ()
    if isinstance(size, tuple | list) and len(size) in (1, 2):
        return (tuple(checks.integer("size", part, minimum=1) for part in size),)
    length = checks.integer("size", size, minimum=1)
    return ((length,), (length, length))


def _natural(layer: str) -> list[list[str | int]]:
    """A sorting key in which numbers count as numbers, module by module."""
    parts = (re.split(r"(\d+)", module) for module in layer.split("/"))
    return [[int(piece) if piece.isdecimal() else piece for piece in part] for part in parts]
