"""The exact sensitivities of a network with homogeneous filters on images of two active pixels."""

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deform_jax import checks
from deform_jax.probes.homogeneous import check_layers, check_shape, concrete, grams, receptive_field_size

Boundary = Literal["periodic", "clamp"]
Collisions = Literal["superpose", "collapse"]
PairNormaliser = Literal["independent", "distinct"]


class HomogeneousTheory(NamedTuple):
    """Sensitivities of layers k = 1, …, K: float64, one entry for each layer."""

    receptive_field: Float[np.ndarray, " layers"]
    """A_k, the width of a pixel's representation before it wraps around, in pixels."""
    deformation: Float[np.ndarray, " layers"]
    """D_k: squared distance that displacements move representations, over that between two images."""
    noise: Float[np.ndarray, " layers"]
    """G_k: squared distance that noise as large as the displacements moves them, over the same."""
    ratio: Float[np.ndarray, " layers"]
    """R_k = D_k/G_k."""


def homogeneous_network(
    positions: Int[np.ndarray, "pairs 2 d"],
    weights: Float[np.ndarray, " pairs"] | None,
    shape: tuple[int, ...],
    *,
    filter_size: int,
    stride: int,
    layers: int,
    displacements: Int[np.ndarray, "moves d"],
    value: float = 1.0,
    boundary: Boundary = "periodic",
    collisions: Collisions = "superpose",
    rectified: bool = True,
    normaliser: PairNormaliser = "independent",
    noise_variance: float | None = None,
) -> HomogeneousTheory:
    """D_k, G_k and R_k of one channel with homogeneous filters and no bias, with nothing sampled or approximated.

    Images have two active pixels at different sites. Such a network is linear on them, f_k(x) = P_k x, and D and G are
    2nd moments of images, displacements and noise seen through P_kᵀ P_k. It costs O(sites²) in time and memory for each
    layer, whatever the number of pairs: a second for 28 × 28 pixels, 12 layers and SI's 275,408 pairs.

    Args:
      positions: (P, 2, d) sites of both active pixels, integers with 0 ≤ position < ``shape``.
      weights: (P,) probabilities of the pairs up to a factor, or ``None`` for equal ones; those of
        :func:`balanced_weights` give every class the same.
      shape: d sides of the images, in pixels, any d ≥ 1. Convolutions wrap around.
      filter_size: F ≥ 2 along every axis. Windows of stride 1 are centred, an even one with F/2 sites before its centre
        and F/2 − 1 after; those of stride F are {0, …, F−1}, {F, …, 2F−1}, ….
      stride: 1 or F, at every layer.
      layers: K. For stride F, F^K must divide every side.
      displacements: (m, d) equally likely moves in pixels, of each active pixel by itself.
      value: of an active pixel; D, G and R depend on it only where ``noise_variance`` is given.
      boundary: a pixel that leaves the image comes in on the other side (``"periodic"``) or stays at the border
        (``"clamp"``).
      collisions: pixels displaced to one site add up (``"superpose"``), or count as one (``"collapse"``).
      rectified: noise is ReLU(η), added to the image, with η ~ N(0, σ²). ``False``: η itself, in a network without
        ReLU, where G does not grow with depth.
      normaliser: mean squared distance between two ``"independent"`` draws of a pair, which may be the same, or
        between two ``"distinct"`` ones, as the probes have it: 1/(1 − Σ w²) times larger.
      noise_variance: σ²; ``None`` for the mean of (τx − x)² over images, displacements and pixels.

    Returns:
      (A, D, G, R), each float64 (K,). D, G and R are ``nan`` where all images are represented alike, as at a layer with
      a single site; a ``RuntimeWarning`` names these layers. R is ``nan`` too where there is no noise, G = 0.

    Raises:
      TypeError: positions or displacements are not integers; traced arguments.
      ValueError: positions outside the image or twice the same in a pair, other shapes, weights that are negative or
        all zero, options out of range, sides that F^K does not divide.

    Source: SI 4 and appendix A, which have the asymptotic laws of :func:`asymptotic_exponents`. Ours: the exact form at
    finite sizes, ``boundary`` and ``collisions``. The noise on two active pixels is taken as added after ReLU, as SI's
    measurements have it (B.2).
    """
    shape = check_shape(shape)
    check_layers(shape, filter_size, stride, layers)
    pairs, weights = _check_pairs(positions, weights, shape)
    checks.option("boundary", boundary, ("periodic", "clamp"))
    checks.option("collisions", collisions, ("superpose", "collapse"))
    checks.option("normaliser", normaliser, ("independent", "distinct"))
    value = float(checks.number("value", value, minimum=0, exclusive=True))
    rectified = checks.flag("rectified", rectified)
    targets = _targets(displacements, shape, boundary)
    second, mean, moved = _moments(pairs, weights, targets, collapse=collisions == "collapse")
    variance = value**2 * np.trace(moved) / len(mean)
    if noise_variance is not None:
        variance = float(checks.number("noise_variance", noise_variance, minimum=0))
    # ReLU of a normal variable has mean σ/√(2π) and variance σ² (1/2 − 1/(2π)).
    square, spread = (variance / (2 * np.pi), variance * (0.5 - 0.5 / np.pi)) if rectified else (0.0, variance)
    covariance = second - np.outer(mean, mean)
    share = 1 - np.square(weights).sum() if normaliser == "distinct" else 1.0
    sums = []
    for gram in grams(shape, filter_size, stride, layers):
        between = 2 * value**2 * np.vdot(covariance, gram)
        between = between if between > 1e-12 * value**2 * np.vdot(second, gram) else np.nan  # below is rounding
        noise = spread * np.trace(gram) + square * gram.sum()
        sums.append((value**2 * np.vdot(moved, gram) * share / between, noise * share / between))
    deformation, noise = np.array(sums).T
    _warn_alike(deformation)
    ratio = np.divide(deformation, noise, out=np.full(layers, np.nan), where=noise != 0)
    return HomogeneousTheory(receptive_field_size(filter_size, stride=stride, layers=layers), deformation, noise, ratio)


def balanced_weights(labels: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Weights of pairs, of sum 1, that give each class the same share and each pair of a class the same weight.

    Args:
      labels: (P,) integers of any values.

    Returns:
      (P,) float64.

    Raises:
      TypeError, ValueError: not integers of shape (P,), or empty.

    Source: SI's classes are balanced.
    """
    labels = concrete("labels", labels, "pairs", "integer")
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[index].astype(np.float64))


def _moments(
    pairs: np.ndarray, weights: np.ndarray, targets: np.ndarray, *, collapse: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E x xᵀ and E x of the images, and E (τx − x)(τx − x)ᵀ, with active pixels of value 1."""
    n = targets.shape[1]
    (first, other), sites = pairs.T, np.arange(n)
    mean = np.bincount(pairs.ravel(), np.repeat(weights, 2), n)
    both = np.bincount(first * n + other, weights, n * n).reshape(n, n)
    both += both.T
    transition = np.zeros((n, n))
    for target in targets:
        transition[sites, target] += 1 / len(targets)
    step, flow = transition - np.eye(n), mean[:, None] * transition
    moved = np.diag(mean + mean @ transition) - flow - flow.T + step.T @ both @ step
    if collapse:
        moved += _collapsed(pairs, weights, targets)
    return np.diag(mean) + both, mean, moved


def _collapsed(pairs: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What E (τx − x)(τx − x)ᵀ gains where two pixels meet at c and leave e_c instead of 2 e_c."""
    n = targets.shape[1]
    gain = np.zeros((n, n))
    for a in targets:
        for b in targets:
            met = a[pairs[:, 0]] == b[pairs[:, 1]]
            site, weight = a[pairs[met, 0]], weights[met] / len(targets) ** 2
            np.add.at(gain, (site, site), -1.5 * weight)
            for pixel in pairs[met].T:
                np.add.at(gain, (site, pixel), weight)
    return gain + gain.T


def _targets(displacements: Any, shape: tuple[int, ...], boundary: str) -> np.ndarray:
    """Where each move takes each site: (moves, sites)."""
    moves = concrete("displacements", displacements, f"moves {len(shape)}", "integer")
    if np.abs(moves.astype(np.float64)).max() > checks.LONGEST:
        checks.fail("displacements", f"be moves of at most {checks.LONGEST} pixels", "larger ones were given")
    moves = moves.astype(np.int64)
    sites = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    mode = "wrap" if boundary == "periodic" else "clip"
    return np.stack([np.ravel_multi_index(tuple((sites + move).T), shape, mode=mode) for move in moves])


def _warn_alike(values: np.ndarray) -> None:
    alike = np.flatnonzero(np.isnan(values)) + 1
    if len(alike):
        listed = ", ".join(map(str, alike))
        why = "the images are all represented alike there, so that the normaliser is zero"
        warnings.warn(f"The theory is nan at layer {listed}: {why}.", RuntimeWarning, stacklevel=3)


def _check_pairs(positions: Any, weights: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Sites (P, 2) numbered in C order, and the weights with sum 1."""
    positions = concrete("positions", positions, f"pairs 2 {len(shape)}", "integer")
    if (positions < 0).any() or (positions >= shape).any():
        given = f"they range from {positions.min()} to {positions.max()}"
        checks.fail("positions", f"lie within the shape {shape}", given, "Wrap or clamp them first.")
    positions = positions.astype(np.int64)
    pairs = np.asarray(np.ravel_multi_index(tuple(np.moveaxis(positions, -1, 0)), shape))
    same = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    if len(same):
        checks.fail("positions", "be pairs of different pixels", f"those of pair {same[0]} are the same")
    if weights is None:
        return pairs, np.full(len(pairs), 1 / len(pairs))
    weights = concrete("weights", weights, str(len(pairs)), "real").astype(np.float64)
    if weights.min() < 0 or weights.max() == 0:
        given = f"they range from {weights.min():g} to {weights.max():g}"
        checks.fail("weights", "not be negative, nor all zero", given)
    weights = np.ldexp(weights, -np.frexp(weights.max())[1])  # exact, and their sum stays within float64
    return pairs, weights / weights.sum()
