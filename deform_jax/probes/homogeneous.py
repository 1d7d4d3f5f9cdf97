"""Networks of one channel with homogeneous filters, whose layers are matrices."""

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Float

from deform_jax import checks

DEEPEST = 10_000
"""The most layers: each is computed from the one before."""


def homogeneous_representations(
    images: Float[np.ndarray, "..."], *, filter_size: int, stride: int, layers: int, ndim: int = 1
) -> tuple[np.ndarray, ...]:
    """What the layers k = 1, …, K of one channel with homogeneous filters and no bias make of images.

    A layer of stride 1 averages over its window, so that each pixel diffuses; one of stride F sums, so that a site
    counts the active pixels in its receptive field. Either keeps Σ x.

    Args:
      images: ``(…, *shape)`` non-negative images of ``ndim`` axes, on which ReLU does nothing.
      filter_size, stride, layers: as for :func:`homogeneous_network`.
      ndim: how many of the last axes are the image's.

    Returns:
      K float64 arrays ``(…, *sites)``.

    Raises:
      TypeError: not an array of real numbers, or traced.
      ValueError: negative or not finite images, fewer axes than ``ndim``; the rest as :func:`homogeneous_network`.

    Source: SI Fig. 6 and appendix A, whose Eq. 10 lacks the factor 1/F that the text before it has.
    """
    ndim = checks.integer("ndim", ndim, minimum=1, maximum=64)  # numpy's own bound
    images = concrete("images", images, "... " + " ".join(f"side{axis}" for axis in range(ndim)), "real")
    shape = images.shape[-ndim:]
    for side in shape:
        checks.entries(
            "images", side, side, remedy="A layer is a matrix of all sites along a side: take smaller images."
        )
    check_layers(shape, filter_size, stride, layers)
    if images.min() < 0:
        checks.fail("images", "not be negative", f"the least value is {images.min():g}", "ReLU would change them.")
    found = []
    for matrices in zip(*(layer_matrices(side, filter_size, stride, layers) for side in shape), strict=True):
        result = images.astype(np.float64)
        for axis, matrix in enumerate(matrices, start=images.ndim - ndim):
            result = np.moveaxis(np.moveaxis(result, axis, -1) @ matrix.T, -1, axis)
        found.append(result)
    return tuple(found)


def translation_sensitivity(
    length: int, *, filter_size: int, stride: int = 1, layers: int
) -> Float[np.ndarray, " layers"]:
    """SI's estimate of D_k: ‖f_k(δ_{i+1}) − f_k(δ_i)‖² / ‖f_k(δ_i)‖², averaged over sites i, for k = 1, …, K.

    That of one pixel alone, moved by one, over its own norm. In more dimensions it is the same number, as the other
    axes cancel.

    Args:
      length: of the periodic image, in pixels.
      filter_size, stride, layers: as for :func:`homogeneous_network`.

    Returns:
      (K,) float64, without unit.

    Raises:
      TypeError, ValueError: as :func:`homogeneous_network`.

    Source: SI Eq. 4.
    """
    shape = (checks.integer("length", length, minimum=2, maximum=checks.LONGEST),)
    checks.entries("length", *shape, *shape, remedy="A layer is a matrix of all sites.")
    check_layers(shape, filter_size, stride, layers)
    steps = grams(shape, filter_size, stride, layers)
    return np.array([2 - 2 * np.trace(np.roll(gram, -1, 0)) / np.trace(gram) for gram in steps])


def receptive_field_size(filter_size: int, *, stride: int = 1, layers: int) -> Float[np.ndarray, " layers"]:
    """Width A_k in pixels of what one pixel becomes in homogeneous layers k = 1, …, K, before it wraps around.

    Stride 1: its standard deviation along an axis, √(k (F² − 1)/12). Stride F: exactly F^k.

    Args:
      filter_size: F ≥ 2.
      stride: 1 or F.
      layers: K.

    Returns:
      (K,) float64, in pixels.

    Raises:
      TypeError, ValueError: not integers, or out of range.

    Source: SI 4.1, A_k ~ √k, with the constant of appendix A put right; SI 4.2.
    """
    filter_size = checks.integer("filter_size", filter_size, minimum=2, maximum=checks.LONGEST)
    if checks.integer("stride", stride) not in (1, filter_size):
        checks.fail("stride", f"be 1 or `filter_size` {filter_size}", f"{stride} was given")
    layers = checks.integer("layers", layers, minimum=1, maximum=DEEPEST)
    if stride > 1 and layers * math.log(filter_size) > math.log(np.finfo(np.float64).max):
        checks.fail("layers", "keep the width F^layers within float64", f"{layers} was given for F = {filter_size}")
    k = np.arange(1, 1 + layers)
    return np.sqrt(k * (filter_size**2 - 1) / 12) if stride == 1 else np.float64(filter_size) ** k


def grams(shape: tuple[int, ...], filter_size: int, stride: int, layers: int) -> Iterator[np.ndarray]:
    """P_kᵀ P_k, (sites, sites), for k = 1, …: windows are products, and so are these."""
    axes = (layer_matrices(side, filter_size, stride, layers) for side in shape)
    for matrices in zip(*axes, strict=True):
        yield reduce(np.kron, [matrix.T @ matrix for matrix in matrices])


def layer_matrices(side: int, filter_size: int, stride: int, layers: int) -> Iterator[np.ndarray]:
    """P_k along one axis, (sites of the layer, ``side``)."""
    product = np.eye(side)
    for _ in range(layers):
        sites = np.arange(len(product) // stride)
        window = np.arange(filter_size) - (filter_size // 2 if stride == 1 else 0)
        rows = product[(sites[:, None] * stride + window) % len(product)]
        product = rows.mean(1) if stride == 1 else rows.sum(1)
        yield product


def check_shape(shape: Any) -> tuple[int, ...]:
    """The sides as Python integers, refused below 2."""
    if not isinstance(shape, tuple | list) or len(shape) == 0:
        checks.fail("shape", "be a tuple of sides in pixels", f"{shape!r} was given", error=TypeError)
    sides = tuple(checks.integer("shape", side, minimum=2, maximum=checks.LONGEST) for side in shape)
    checks.entries("shape", *sides, *sides, remedy="A layer is a matrix of all sites: take smaller images.")
    return sides


def check_layers(shape: tuple[int, ...], filter_size: int, stride: int, layers: int) -> None:
    """Refuse windows that do not fit, strides that are neither 1 nor F, and sites that do not come out whole."""
    filter_size = checks.integer("filter_size", filter_size, minimum=2, maximum=min(shape))
    layers = checks.integer("layers", layers, minimum=1, maximum=DEEPEST)
    if checks.integer("stride", stride) not in (1, filter_size):
        checks.fail("stride", f"be 1 or `filter_size` {filter_size}", f"{stride} was given")
    if stride > 1 and any(side % filter_size**layers for side in shape):
        given = f"{filter_size}^{layers} does not divide the sides {shape}"
        checks.fail("layers", "leave whole sites at every layer", given, "Take fewer layers, or pad the images.")


def concrete(name: str, value: Any, dims: str, kind: str) -> np.ndarray:
    """The argument as a numpy array in its own precision, after the usual checks."""
    if checks.is_traced(value):
        remedy = "Compute the theory outside `jax.jit`: it is exact, in float64."
        checks.fail(name, "be known in Python", "a traced array was given", remedy, error=TypeError)
    checks.array(name, value, dims, kind=kind, finite=True, wide=True)
    return np.asarray(value)
