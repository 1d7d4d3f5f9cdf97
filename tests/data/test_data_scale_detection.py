"""Scale detection: pairs against loops and scipy, splits, laws of displacement by enumeration, drawn images."""

import collections
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial, stats

from deform_jax import data
from deform_jax.data import ScaleDetection

PLANE = ScaleDetection(shape=(28, 28), scale=14, gap=2, pad=2)
PATCHES = ScaleDetection("patch", (128,), 32)


@pytest.mark.parametrize(
    ("task", "close", "far", "dropped"),
    [
        (ScaleDetection(), 256, 112, 128),
        (ScaleDetection(full_gap=True), 192, 48, 256),
        (PATCHES, 1984, 6144, 0),
        (PLANE, 130_206, 145_202, 31_528),
    ],
)
def test_there_are_as_many_pairs_as_published(task, close, far, dropped):
    pairs = data.pixel_pairs(task)
    assert (int((pairs.labels == 1).sum()), int((pairs.labels == 0).sum()), pairs.dropped) == (close, far, dropped)
    assert pairs.positions.shape == (close + far, 2, len(task.shape))
    assert pairs.positions.dtype == pairs.labels.dtype == np.int32


def labelled(task, label):
    """Plain Python's pairs: a label for each pair of different pixels, None where it is dropped."""
    pixels = itertools.product(*map(range, task.shape))
    found = {pair: label(*pair) for pair in itertools.combinations(pixels, 2)}
    return {pair: value for pair, value in found.items() if value is not None}


def by_distance(distance, low, high):
    return lambda a, b: 1 if distance(a, b) < low else 0 if distance(a, b) >= high else None


def around(shape):
    return lambda a, b: math.hypot(*(min(abs(p - q), n - abs(p - q)) for p, q, n in zip(a, b, shape, strict=True)))


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (ScaleDetection(shape=(12,), scale=4, gap=2), by_distance(around((12,)), 3, 5)),
        (ScaleDetection(shape=(13,), scale=5, gap=1, full_gap=True, periodic=False), by_distance(math.dist, 4, 6)),
        (ScaleDetection(shape=(7, 5), scale=3, gap=0), by_distance(math.dist, 3, 3)),  # d = 3 occurs, and is far
        (ScaleDetection(shape=(6, 6), scale=3, gap=1.5, periodic=True), by_distance(around((6, 6)), 2.25, 3.75)),
        (ScaleDetection("patch", (12,), 4), lambda a, b: int(a[0] // 4 == b[0] // 4)),
        (
            ScaleDetection("patch", (4, 6), 2),
            lambda a, b: int(all(p // 2 == q // 2 for p, q in zip(a, b, strict=True))),
        ),
    ],
)
def test_pairs_are_those_of_plain_loops(task, label):
    positions, labels, dropped = data.pixel_pairs(task)
    expected = labelled(task, label)
    assert [tuple(map(tuple, pair)) for pair in positions.tolist()] == list(expected)
    assert labels.tolist() == list(expected.values())
    assert len(expected) + dropped == math.comb(math.prod(task.shape), 2)


def test_distances_are_scipy_s():
    positions, labels, _ = data.pixel_pairs(PLANE)
    pixels = np.stack(np.meshgrid(*map(np.arange, PLANE.shape), indexing="ij"), axis=-1).reshape(-1, 2)
    table = spatial.distance.cdist(pixels, pixels)
    first, second = np.moveaxis(positions @ np.array([28, 1]), 1, 0)
    assert (first < second).all()
    distances = table[first, second]
    assert distances[labels == 1].max() < 13
    assert distances[labels == 0].min() == 15
    assert ((table < 13) | (table >= 15))[np.triu_indices(784, 1)].sum() == len(labels)


def test_splits_are_balanced_disjoint_and_nested(key):
    labels = data.pixel_pairs(PATCHES).labels
    small, test = data.balanced_split(key, labels, train=64, test=200)
    large, same = data.balanced_split(key, labels, train=1024, test=200)
    for chosen in (small, large, test):
        assert (2 * labels[chosen]).sum() == len(chosen) == len(set(chosen.tolist()))
        assert 0 < np.diff(labels[chosen]).astype(bool).mean() < 1  # not one class after the other
    assert not set(test.tolist()) & set(large.tolist())
    assert set(small.tolist()) < set(large.tolist())
    np.testing.assert_array_equal(test, same)
    other, _ = data.balanced_split(jax.random.key(1), labels, train=64, test=200)
    assert set(other.tolist()) != set(small.tolist())
    every, rest = data.balanced_split(key, labels, train=2 * 1984)
    assert sorted([*every, *rest]) == list(range(len(labels)))
    assert not labels[rest].any()  # all 1,984 close pairs are trained on
    three, _ = data.balanced_split(key, np.arange(30) % 3, train=9)
    assert sorted(three % 3) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_every_pair_is_as_likely_to_be_trained_on():
    labels = np.arange(20) % 2
    counts = np.zeros(20)
    for seed in range(200):
        counts[data.balanced_split(jax.random.key(seed), labels, train=4, test=4)[0]] += 1
    # Each is Binomial(200, 1/5); within a class they sum to 400: twice a χ² with 9 degrees of freedom.
    statistic = ((counts - 40) ** 2 / (40 * 0.8)).sum() * 0.9
    assert 1e-3 < stats.chi2(18).sf(statistic) < 0.999


def test_a_split_holds_the_pairs_of_its_task(key):
    task = ScaleDetection()
    split = data.scale_detection(key, task, train=48)
    assert [len(part) for part in split] == [48, 48, 320, 320]
    assert split.train_labels.sum() == 24
    pairs = {tuple(p.ravel().tolist()): y for p, y in zip(*data.pixel_pairs(task)[:2], strict=True)}
    drawn = np.concatenate([split.train_positions, split.test_positions])
    labels = np.concatenate([split.train_labels, split.test_labels])
    assert {tuple(p.ravel().tolist()): y for p, y in zip(drawn, labels, strict=True)} == pairs
    again = data.scale_detection(key, task, train=48)
    for part, same in zip(split, again, strict=True):
        np.testing.assert_array_equal(part, same)
        assert not part.flags.writeable


@pytest.mark.parametrize(("law", "counts"), [("step", (2, 4)), ("neighbourhood", (3, 9)), ("cross", (3, 5))])
def test_laws_of_displacement(law, counts):
    for ndim, count in zip((1, 2), counts, strict=True):
        moves = data.pixel_displacements(law, ndim)
        assert moves.shape == (count, ndim) == np.unique(moves, axis=0).shape
        assert (np.abs(moves).max(axis=-1) <= 1).all()
        np.testing.assert_array_equal(np.unique(-moves, axis=0), np.unique(moves, axis=0))  # symmetric: mean 0
        assert (moves == 0).all(axis=-1).sum() == (law != "step")
        if law != "neighbourhood":
            assert (np.abs(moves).sum(axis=-1) <= 1).all()


def plain_move(pixel, move, shape, boundary, patch):
    moved = [p + m for p, m in zip(pixel, move, strict=True)]
    if boundary == "periodic":
        moved = [p % n for p, n in zip(moved, shape, strict=True)]
    else:
        moved = [min(max(p, 0), n - 1) for p, n in zip(moved, shape, strict=True)]
    if patch and any(p // patch != q // patch for p, q in zip(pixel, moved, strict=True)):
        moved = pixel
    return tuple(moved)


@functools.partial(jax.jit, static_argnames=("shape", "law", "boundary", "patch"))
def displaced(key, positions, *, shape, law, boundary, patch=None):
    return data.displace_pixels(key, positions, shape, law=law, boundary=boundary, patch=patch)


@pytest.mark.parametrize(
    ("shape", "law", "boundary", "patch"),
    [
        ((8,), "step", "periodic", None),
        ((8,), "step", "clamp", 4),
        ((4, 6), "cross", "periodic", 2),
        ((4, 6), "neighbourhood", "clamp", None),
        ((4, 6), "step", "periodic", None),
    ],
)
def test_pixels_move_by_the_enumerated_law(key, shape, law, boundary, patch):
    pixels = list(itertools.product(*map(range, shape)))
    draws = 400
    positions = np.broadcast_to(np.array(pixels)[:, None], (len(pixels), draws, len(shape)))
    moved = np.asarray(displaced(key, positions, shape=shape, law=law, boundary=boundary, patch=patch))
    moves = data.pixel_displacements(law, len(shape)).tolist()
    statistic, freedom = 0.0, 0
    for pixel, reached in zip(pixels, moved.tolist(), strict=True):
        expected = collections.Counter(plain_move(pixel, move, shape, boundary, patch) for move in moves)
        found = collections.Counter(map(tuple, reached))
        assert set(found) == set(expected)  # 400 draws: each of at most 9 places is missed with p < 1e-20
        wanted = {place: draws * count / len(moves) for place, count in expected.items()}
        statistic += sum((found[place] - count) ** 2 / count for place, count in wanted.items())
        freedom += len(expected) - 1
    assert 1e-3 < stats.chi2(freedom).sf(statistic) < 0.999


def test_the_two_pixels_move_independently(key):
    positions = np.broadcast_to(np.array([[3], [5]]), (4000, 2, 1))
    moves = np.asarray(displaced(key, positions, shape=(8,), law="step", boundary="periodic"))[..., 0] - [3, 5]
    assert np.abs(moves.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert abs(moves.prod(axis=-1).mean()) < 5 / np.sqrt(4000)


def drawn(positions, shape, value=1.0, collapse=False, pad=0):
    """A plain-Python image."""
    image = np.zeros([n + 2 * pad for n in shape] + [1], np.float32)
    for pixel in positions.tolist():
        place = (*(p + pad for p in pixel), 0)
        image[place] = value if collapse else image[place] + value
    return image


render = jax.jit(data.render_pixels, static_argnames=("shape", "collisions", "pad"))


@pytest.mark.parametrize("shape", [(9,), (5, 7)])
@pytest.mark.parametrize("collisions", ["superpose", "collapse"])
def test_images_are_those_of_plain_loops(shape, collisions):
    positions = np.random.default_rng(0).integers(0, shape, (6, 4, 3, len(shape)))
    positions[0, 0, 1] = positions[0, 0, 0]  # a collision at least
    images = render(positions, shape, value=1.5, collisions=collisions, pad=2)
    assert images.dtype == jnp.float32
    expected = [drawn(p, shape, 1.5, collisions == "collapse", 2) for p in positions.reshape(24, 3, -1)]
    np.testing.assert_array_equal(images.reshape(np.shape(expected)), expected)
    assert images.max() == (3.0 if collisions == "superpose" else 1.5)
    each = jax.vmap(functools.partial(data.render_pixels, shape=shape, value=1.5, collisions=collisions, pad=2))
    np.testing.assert_array_equal(each(positions[:, 0]), images[:, 0])


def test_drawing_differentiates_and_leaves_out_what_is_outside():
    positions = jnp.array([[[2], [2]], [[0], [7]]])
    gradient = jax.jacfwd(lambda value: data.render_pixels(positions, (8,), value=value))(2.0)
    np.testing.assert_array_equal(gradient, data.render_pixels(positions, (8,)))
    outside = render(jnp.array([[[-1, 3], [1, 4], [4, 0]]]), (4, 4))  # traced: not refused
    np.testing.assert_array_equal(outside, np.zeros((1, 4, 4, 1)))


def test_each_image_can_have_its_own_key():
    keys, positions = jax.random.split(jax.random.key(2), 3), np.arange(6).reshape(3, 2, 1)
    move = functools.partial(data.displace_pixels, shape=(8,), law="step")
    together = jax.vmap(move)(keys, positions)
    for i in range(3):
        np.testing.assert_array_equal(together[i], move(keys[i], positions[i]))


@pytest.mark.parametrize(
    "task", [ScaleDetection(shape=(16,), scale=5), ScaleDetection(shape=(6, 5), gap=0, scale=3, pad=2)]
)
def test_stored_images_become_those_drawn(task):
    positions = data.pixel_pairs(task).positions[::7]
    positions = np.concatenate([positions, positions[:1, [0, 0]]])  # one pixel twice
    counts, value = data.pair_images(task, positions), data.active_value(task)
    assert counts.dtype == np.uint8
    prepared = jax.jit(lambda prepare, counts: prepare(None, counts), static_argnums=0)(
        data.ActivePixels(value), counts
    )
    np.testing.assert_array_equal(prepared, data.render_pixels(positions, task.shape, value=value, pad=task.pad))


def test_values_of_active_pixels():
    assert data.active_value(PATCHES) == 8
    assert data.active_value(PLANE) == 392
    assert data.active_value(ScaleDetection(shape=(28, 28), value=28 / math.sqrt(2))) ** 2 == pytest.approx(392)
    image = data.render_pixels(np.array([[3], [90]]), (128,), value=data.active_value(PATCHES))
    assert float(jnp.square(image).sum()) == 128  # ‖x‖² = L


def test_settings_are_values():
    assert ScaleDetection(shape=[32], scale=11) == ScaleDetection()
    assert hash(ScaleDetection(scale=11)) == hash(ScaleDetection())
    assert repr(ScaleDetection(scale=11, gap=4)) == repr(ScaleDetection())  # settings are told apart by their text
    assert data.ActivePixels(4) == data.ActivePixels(data.active_value(ScaleDetection()))


move = functools.partial(data.displace_pixels, jax.random.key(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ScaleDetection("both"), ValueError, "`task` must be one of 'distance', 'patch', but 'both'"),
        (lambda: ScaleDetection(shape=(4, 4, 4)), ValueError, r"`shape` must be \(L,\) or \(h, w\), in pixels, but"),
        (lambda: ScaleDetection(shape=32), TypeError, r"`shape` must be \(L,\) or"),
        (lambda: ScaleDetection(shape=(1, 9)), ValueError, "`shape` must be an integer ≥ 2, but 1"),
        (lambda: ScaleDetection(scale=0), ValueError, "`scale` must be a finite number > 0"),
        (lambda: ScaleDetection(gap=-1), ValueError, "`gap` must be a finite number ≥ 0, but -1"),
        (lambda: ScaleDetection(full_gap=1), TypeError, "`full_gap` must be one of True, False, but 1"),
        (lambda: ScaleDetection(periodic="no"), TypeError, "`periodic` must be one of True, False, None"),
        (lambda: ScaleDetection(value=0), ValueError, "`value` must be a finite number > 0"),
        (lambda: ScaleDetection(pad=-1), ValueError, "`pad` must be an integer ≥ 0"),
        (lambda: ScaleDetection("patch", (32,), 12), ValueError, r"divides every side of \(32,\) .* Patches tile"),
        (lambda: ScaleDetection("patch", (32, 16), 5.5), ValueError, "`scale` must be an integer that divides"),
        (lambda: data.pixel_pairs("distance"), TypeError, "`task` must be a `ScaleDetection`, but str"),
        (lambda: data.pixel_pairs(ScaleDetection(scale=16)), ValueError, "have far pairs, but .* none. Lower `scale`"),
        (lambda: data.pixel_pairs(ScaleDetection("patch", scale=32)), ValueError, "must have far pairs"),
        (lambda: data.pixel_pairs(ScaleDetection(scale=3)), ValueError, "must have close pairs, but .* Raise `scale`"),
        (lambda: data.pixel_pairs(ScaleDetection("patch", scale=1)), ValueError, "must have close pairs"),
        (lambda: split(train=7), ValueError, "`train` must be a multiple of 2, the number of classes, .* but 7"),
        (lambda: split(train=8, test=3), ValueError, "`test` must be a multiple of 2"),
        (lambda: split(train=0), ValueError, "`train` must be an integer ≥ 2"),
        (lambda: split(train=226), ValueError, "`train` must be at most 224, as the smallest class has 112, but 226"),
        (
            lambda: split(train=200, test=26),
            ValueError,
            "must be at most 224 together with `test`, .* but 200 .*, and 26 as",
        ),
        (lambda: data.balanced_split(jax.random.key(0), np.arange(8) % 2, train=8), ValueError, "must leave examples"),
        (lambda: data.balanced_split(jax.random.key(0), np.ones(8), train=2), TypeError, "`labels` must hold integer"),
        (lambda: data.balanced_split(0, np.arange(8) % 2, train=2), TypeError, "`key` must be one random key"),
        (
            lambda: data.pixel_displacements("jump", 1),
            ValueError,
            "`law` must be one of 'step', 'neighb",
        ),
        (lambda: data.pixel_displacements("step", 3), ValueError, "`ndim` must be an integer ≥ 1 and ≤ 2"),
        (lambda: move(np.zeros((2, 1), int), (8,), law="hop"), ValueError, "`law` must be one of"),
        (lambda: move(np.zeros((2, 1), int), (8,), law="step", boundary="edge"), ValueError, "`boundary` must be one"),
        (lambda: move(np.zeros((2, 1), int), (8,), law="step", patch=3), ValueError, r"`patch` must divide .* \(8,\)"),
        (lambda: move(np.zeros((2, 2), int), (8,), law="step"), ValueError, r"must have shape \(\.\.\., p, 1\)"),
        (lambda: move(np.full((2, 1), 8), (8,), law="step"), ValueError, r"pixels of an image .*\(8,\), but \[8\]"),
        (lambda: data.render_pixels(np.zeros((2, 1)), (8,)), TypeError, "`positions` must hold integer"),
        (lambda: data.render_pixels([[-1], [2]], (8,)), ValueError, r"must be pixels of an image .* but \[-1\]"),
        (lambda: data.render_pixels([[1], [2]], (8,), collisions="or"), ValueError, "`collisions` must be one of"),
        (lambda: data.pair_images(PATCHES, [[1], [2]]), ValueError, r"must have shape \(n, p, 1\)"),
        (lambda: data.ActivePixels(-1), ValueError, "`value` must be a finite number > 0"),
    ],
)
def test_bad_settings_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def split(**counts):
    return data.scale_detection(jax.random.key(0), ScaleDetection(), **counts)
