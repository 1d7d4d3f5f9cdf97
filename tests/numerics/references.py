"""Every probe again, in float64 and plain numpy, from its formula in the papers and with no eye to speed.

Each takes the very numbers that the probe was given, so that what differs is the probe's arithmetic alone.
"""

import itertools
from collections import OrderedDict

import numpy as np


def wide(x):
    return np.asarray(x).astype(np.float64)


def flat(x):
    x = wide(x)
    return x.reshape(len(x), -1)


def norm(x):
    return np.sqrt((x * x).sum())


# Distances (LS 2.1, SI Eq. 1) of two vectors.


def cosine(a, b):
    """1 − cos of the angle, as half the squared chord: 1e-9 of it is no more than rounding in float64 either way."""
    na, nb = norm(a), norm(b)
    if na == 0 or nb == 0:
        return float(na != nb)
    return 0.5 * ((a / na - b / nb) ** 2).sum()


def squared(a, b):
    return ((a - b) ** 2).sum()


def euclidean(a, b):
    return norm(a - b)


DISTANCES = {"cosine": cosine, "squared": squared, "euclidean": euclidean}


def row_distances(a, b, distance):
    return np.array([DISTANCES[distance](x, y) for x, y in zip(flat(a), flat(b), strict=True)])


def pair_distances(clean, distance):
    return np.array([DISTANCES[distance](x, y) for x, y in itertools.combinations(flat(clean), 2)])


# Sensitivities (LS 2.1, SI Eq. 1, RS) of mappings {tap: (n, …)}.


def numerator(clean, moved, distance, kind):
    if kind == "mean":
        return row_distances(clean, moved, distance).mean()
    return np.median((flat(clean) - flat(moved)) ** 2, axis=0).sum()


def sensitivity(clean, moved, *, distance="cosine", normaliser="median", numerator="mean"):
    middle = {"median": np.median, "mean": np.mean}[normaliser]
    return OrderedDict(
        (tap, globals()["numerator"](clean[tap], moved[tap], distance, numerator)) for tap in clean
    ), OrderedDict((tap, middle(pair_distances(clean[tap], distance))) for tap in clean)


# Noise (SI Eq. 1; SI 4.1), of the same random draw.


def matched(images, deformed, draw):
    """The noise, of each image's norm of deformation."""
    images, deformed, draw = wide(images), wide(deformed), wide(draw)
    return np.stack([g * (norm(d - x) / norm(g)) for x, d, g in zip(images, deformed, draw, strict=True)])


def rectified(images, deformed, draw):
    draw = wide(draw)
    return np.where(draw > 0, draw, 0) * np.sqrt(((wide(deformed) - wide(images)) ** 2).mean())


# Filters: kernels (h, w, in, out).


def total_variation(kernel, per_slice=False):
    kernel = wide(kernel)
    height, width = kernel.shape[:2]
    variation = np.zeros(kernel.shape[2:])
    for i, j in itertools.product(range(height), range(width)):
        if i + 1 < height:
            variation += abs(kernel[i + 1, j] - kernel[i, j])
        if j + 1 < width:
            variation += abs(kernel[i, j + 1] - kernel[i, j])
    size = abs(kernel).sum((0, 1))
    return (variation / size).mean() if per_slice else variation.sum() / size.sum()


def laplacian(height, width):
    """Of the grid's graph: degrees on the diagonal, −1 for every edge."""
    sites = list(itertools.product(range(height), range(width)))
    matrix = np.array([[-1.0 if abs(a - c) + abs(b - d) == 1 else 0.0 for c, d in sites] for a, b in sites])
    return matrix - np.diag(matrix.sum(1))


def eigenspaces(height, width):
    """[(eigenvalue, projector)] of the grid's Laplacian, ascending."""
    values, vectors = np.linalg.eigh(laplacian(height, width))
    found = []
    for value in np.unique(values.round(9)):
        inside = vectors[:, abs(values - value) < 1e-6]
        found.append((value, inside @ inside.T))
    return found


def product_cosines(height, width):
    """{(k, l): mode (h, w)}, orthonormal."""
    rows = [np.cos(np.pi * k * (np.arange(height) + 0.5) / height) for k in range(height)]
    columns = [np.cos(np.pi * k * (np.arange(width) + 0.5) / width) for k in range(width)]
    return {
        (k, m): np.outer(rows[k] / norm(rows[k]), columns[m] / norm(columns[m]))
        for k in range(height)
        for m in range(width)
    }


def mode_powers(kernel):
    """The mean over channel pairs of (Ψ · w)², by eigenvalue and then by half-waves along the first axis."""
    kernel = wide(kernel)
    height, width = kernel.shape[:2]
    modes = product_cosines(height, width)

    def eigenvalue(waves):
        return round(sum(4 * np.sin(np.pi * k / (2 * n)) ** 2 for k, n in zip(waves, (height, width), strict=True)), 9)

    return np.array(
        [
            ((modes[w][..., None, None] * kernel).sum((0, 1)) ** 2).mean()
            for w in sorted(modes, key=lambda w: (eigenvalue(w), w))
        ]
    )


def eigenspace_powers(kernel):
    kernel = wide(kernel)
    filters = kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)
    return np.array([((p @ filters) ** 2).sum(0).mean() for _, p in eigenspaces(*kernel.shape[:2])])


def spatial_frequency(kernel):
    kernel = wide(kernel)
    matrix = laplacian(*kernel.shape[:2])
    filters = kernel.reshape(len(matrix), -1)
    energy = np.array([w @ matrix @ w for w in filters.T]).mean()
    return len(matrix) / np.trace(matrix) * energy / (filters**2).sum(0).mean()


def mean_filter(kernel):
    kernel = wide(kernel)
    return sum(kernel[:, :, i, j] for i in range(kernel.shape[2]) for j in range(kernel.shape[3])) / np.prod(
        kernel.shape[2:]
    )


def blurred(kernel, sigma):
    """Each slice correlated with a Gaussian, sampled to a radius of ⌈4σ⌉ and normalised there; zero outside."""
    kernel = wide(kernel)
    radius = int(np.ceil(4 * sigma))
    weights = {step: np.exp(-(step**2) / (2 * sigma**2)) for step in range(-radius, radius + 1)}
    total = sum(weights.values())
    height, width = kernel.shape[:2]
    result = np.zeros_like(kernel)
    for i, j, a, b in itertools.product(range(height), range(width), range(height), range(width)):
        result[i, j] += weights.get(i - a, 0) / total * weights.get(j - b, 0) / total * kernel[a, b]
    return result


def sharpened(kernel, amount, sigma, same_norm):
    kernel = wide(kernel)
    result = kernel + amount * (kernel - blurred(kernel, sigma))
    return result * (norm(kernel) / norm(result)) if same_norm else result


# The receptive field (SI 4), of 1-D networks.


def receptive_field(represent, length, value, strided):
    """{tap: width}: a(i) = Σ_c |f(value δ_i) − f(0)| at a site, sites turned back by their place, sd about the mean."""
    empty = represent(np.zeros((1, length, 1)))
    active = represent(value * np.eye(length)[..., None])
    widths = OrderedDict()
    for tap, found in active.items():
        change = abs(wide(found) - wide(empty[tap])).sum(-1)  # (pixel, site)
        sites = change.shape[1]
        profile = np.zeros(length)
        for site in range(sites):
            profile += np.roll(change[:, site], -round(site * length / sites))
        profile /= profile.sum()
        turn = np.angle((profile * np.exp(2j * np.pi * np.arange(length) / length)).sum())
        centre = turn * length / (2 * np.pi)
        offsets = np.array([(i - centre + length / 2) % length - length / 2 for i in range(length)])
        variance = (profile * offsets**2).sum() - (profile * offsets).sum() ** 2
        widths[tap] = np.sqrt(12 * variance + 1) if strided else np.sqrt(variance)
    return widths
