"""Combinatorial images: the rule by exact enumeration, drawing against plain loops, laws of places and features."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deform_jax import data
from deform_jax.data import Combinatorial

TASK = Combinatorial()
FREE = Combinatorial(
    features=3, vocabulary=6, num_classes=2, grid=2, placement="free", jitter=1, spacing=1.5, width=0.75, size=24
)


def every_combination(settings):
    return np.array(list(itertools.product(range(settings.vocabulary), repeat=settings.features)))


label = jax.jit(data.combination_label, static_argnums=1)
held_out = jax.jit(data.combination_held_out, static_argnums=1)


@pytest.mark.parametrize(
    "settings", [TASK, FREE, Combinatorial(vocabulary=12, num_classes=4), Combinatorial(features=3, vocabulary=4)]
)
def test_no_smaller_set_of_features_tells_the_class(settings):
    combinations = every_combination(settings)
    labels, testing = np.asarray(label(combinations, settings)), np.asarray(held_out(combinations, settings))
    assert labels.tolist() == [sum(c) % settings.num_classes for c in combinations.tolist()]
    for part, slot in itertools.product((labels >= 0, testing, ~testing), range(settings.features)):
        classes = {}
        for features, value in zip(combinations[part].tolist(), labels[part].tolist(), strict=True):
            others = (*features[:slot], *features[slot + 1 :])
            classes.setdefault(others, []).append(value)
        assert len(classes) == settings.vocabulary ** (settings.features - 1)
        for given in classes.values():  # whatever all features but one, every class as often
            assert np.ptp(np.bincount(given, minlength=settings.num_classes)) == 0
    assert testing.mean() == settings.num_classes / settings.vocabulary
    np.testing.assert_array_equal(held_out(combinations[:, ::-1], settings), testing)  # in whatever order


@pytest.mark.parametrize(("blobs", "count"), [(2, 12), (4, 96), (8, 8)])
def test_features_are_different_constellations(blobs, count):
    settings = Combinatorial(vocabulary=count, blobs=blobs)
    places = data.feature_vocabulary(settings)
    assert places.shape == (count, blobs, 2)
    np.testing.assert_array_equal(places.max(axis=1), -places.min(axis=1))  # about the middle
    assert np.abs(places).max() == 2.5
    assert (np.diff(places.reshape(-1, 2), axis=0) % 2.5 % 1.25 == 0).all()
    shapes = {tuple(sorted(map(tuple, (p - p.min(axis=0)).tolist()))) for p in places}
    assert len(shapes) == count  # no two are translations of one another
    # All sets of blobs on 3 × 3 places, less translations, by hand: two blobs differ by one of 24 / 2 vectors.
    most = {2: 12, 4: 97, 8: 9}[blobs]
    with pytest.raises(ValueError, match=f"`vocabulary` must be an integer ≥ 2 and ≤ {most}, but 98"):
        Combinatorial(vocabulary=98, blobs=blobs)


def test_the_vocabulary_is_the_task_s_and_of_one_brightness():
    other = dataclasses.replace(TASK, seed=1)
    assert (data.feature_vocabulary(TASK) != data.feature_vocabulary(other)).any()
    images = render(np.arange(8)[:, None], np.full((8, 1, 2), 15.3, np.float32), TASK)
    # Sampled Gaussians a pixel wide sum to their integral but for 2 exp(−2π²) < 1e-8; all is inside the image.
    np.testing.assert_allclose(images.sum(axis=(1, 2, 3)), images[0].sum(), rtol=1e-5)


def plain_image(features, positions, settings):
    """Pixel by pixel."""
    brightest = sum(math.exp(-(x**2 + y**2) / 2 / settings.width**2) for x, y in offsets(settings))
    vocabulary = data.feature_vocabulary(settings).tolist()
    image = np.zeros((settings.size, settings.size, 1))
    for feature, (row, column) in zip(features.tolist(), positions.tolist(), strict=True):
        for dy, dx in vocabulary[feature]:
            for i, j in np.ndindex(settings.size, settings.size):
                distance = (i - row - dy) ** 2 + (j - column - dx) ** 2
                image[i, j, 0] += math.exp(-distance / 2 / settings.width**2) / brightest
    return image


def offsets(settings):
    return itertools.product((-settings.spacing, 0, settings.spacing), repeat=2)


@functools.partial(jax.jit, static_argnums=2)
def render(features, positions, settings):
    return data.render_features(features, positions, settings)


def test_images_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    features, positions = rng.integers(0, 6, (2, 2, 3)), rng.uniform(0, 24, (2, 2, 3, 2)).astype(np.float32)
    images = render(features, positions, FREE)
    assert images.shape == (2, 2, 24, 24, 1)
    for place in np.ndindex(2, 2):
        expected = plain_image(features[place], positions[place], FREE)
        np.testing.assert_allclose(images[place], expected, atol=2e-6)  # float32, of at most a few units
    alone = jax.vmap(lambda f, p: data.render_features(f, p, FREE))(features[0], positions[0])
    np.testing.assert_allclose(alone, images[0], atol=1e-6)


def test_images_are_smooth_in_the_places():
    features, place = np.array([2]), jnp.array([[11.3, 12.1]])
    energy = jax.jit(lambda p: jnp.square(data.render_features(features, p, FREE) - 0.1).sum())
    gradient = jax.grad(energy)(place)
    for axis in (0, 1):
        step = jnp.zeros((1, 2)).at[0, axis].set(0.02)
        finite = (energy(place + step) - energy(place - step)) / 0.04
        np.testing.assert_allclose(gradient[0, axis], finite, atol=5e-3)  # float32 rounding of ~ 3 over 0.04
    whole = render(features, place + jnp.array([[2.0, -3.0]]), FREE)
    np.testing.assert_allclose(whole, jnp.roll(render(features, place, FREE), (2, -3), (0, 1)), atol=2e-6)


@pytest.fixture(scope="module")
def split():
    return data.combinatorial_split(jax.random.key(3), dataclasses.replace(FREE, disjoint=True), train=900, test=300)


def test_combinations_are_uniform_within_their_class_and_part(split):
    combinations = every_combination(FREE)
    testing = np.asarray(held_out(combinations, FREE))
    for features, labels, part in (
        (split.train_features, split.train_labels, ~testing),
        (split.test_features, split.test_labels, testing),
    ):
        assert np.ptp(np.bincount(labels)) == 0
        np.testing.assert_array_equal(label(features, FREE), labels)
        index = features @ np.array([36, 6, 1])
        counts = np.bincount(index, minlength=216)
        assert not counts[~part].any()  # disjoint
        # 900 draws of 144 combinations, 300 of 72: at least 4 expected of each.
        assert stats.chisquare(counts[part]).pvalue > 1e-3
    both = [{tuple(sorted(f)) for f in part.tolist()} for part in (split.train_features, split.test_features)]
    assert not both[0] & both[1]


def test_without_disjoint_both_parts_have_all_combinations(key):
    drawn = data.combinatorial_split(key, TASK, train=1000, test=1000)
    for features, labels in ((drawn.train_features, drawn.train_labels), (drawn.test_features, drawn.test_labels)):
        assert len(np.unique(features, axis=0)) == 64  # 1000 draws of 64: one is missed with p < 1e-5
        np.testing.assert_array_equal(label(features, TASK), labels)
    assert (drawn.train_features != drawn.test_features).any()


def test_features_stay_in_cells_of_their_own(split, key):
    cells = np.concatenate([split.train_positions, split.test_positions])
    offsets = (cells + 0.5) % 12 - 6  # from the centre of a cell of 12 px
    assert 0.99 < np.abs(offsets).max() <= 1 + 1e-5
    assert stats.kstest(offsets.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    cell = np.floor((cells + 0.5) / 12).astype(int) @ np.array([2, 1])
    assert set(np.unique(cell)) == {0, 1, 2, 3}
    assert all(len(set(c)) == 3 for c in cell.tolist())
    assert stats.chisquare(np.unique(cell @ [16, 4, 1], return_counts=True)[1]).pvalue > 1e-3  # 24 arrangements
    fixed = data.combinatorial_split(key, TASK, train=1000, test=1000).train_positions
    assert (np.floor((fixed + 0.5) / 16) == [[0, 0], [0, 1]]).all()


def test_images_are_the_split_drawn_and_reproducible(key):
    images = data.combinatorial_images(key, TASK, train=20, test=10)
    drawn = data.combinatorial_split(key, TASK, train=20, test=10)
    expected = np.round(255 * np.asarray(render(drawn.train_features, drawn.train_positions, TASK)))
    differences = np.abs(images.train_images - expected)
    assert differences.max() <= 1  # compiled apart, a rounding may differ
    assert differences.mean() < 1e-3
    assert images.train_images.dtype == np.uint8
    assert 200 < images.train_images.max() <= 255
    np.testing.assert_array_equal(images.train_labels, np.arange(20) % 2)
    assert images.num_classes == 2
    again = data.combinatorial_images(key, TASK, train=20, test=10)
    other = data.combinatorial_images(jax.random.key(9), TASK, train=20, test=10)
    np.testing.assert_array_equal(again.train_images, images.train_images)
    np.testing.assert_array_equal(again.test_images, images.test_images)
    assert (other.test_images != images.test_images).any()
    assert not images.test_images.flags.writeable
    data.validation_split(key, images, 4)


def test_noise_is_white_of_the_deviation_said(key):
    noisy = data.combinatorial_images(key, dataclasses.replace(TASK, noise=0.1), train=20, test=10)
    clean = data.combinatorial_images(key, TASK, train=20, test=10)
    for part, quiet in ((noisy.train_images, clean.train_images), (noisy.test_images, clean.test_images)):
        added = (part.astype(float) - quiet)[(quiet > 80) & (quiet < 175)]  # 3 deviations from black and white
        assert len(added) > 300
        assert abs(added.mean()) < 5 * 25.5 / math.sqrt(len(added))
        assert added.std() == pytest.approx(25.5, rel=5 / math.sqrt(2 * len(added)))
        dark = part[quiet == 0]
        assert (dark == 0).mean() == pytest.approx(stats.norm.cdf(0.5 / 25.5), abs=5 * 0.5 / math.sqrt(len(dark)))
    assert (noisy.train_images[:10] != noisy.test_images).any()


def test_moving_features(key):
    keys, positions = jax.random.split(key, 500), np.full((500, 3, 2), 12, np.float32)
    one = jax.jit(lambda key, places, most: data.displace_features(key, places, FREE, max_shift=most))
    move = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))
    shifts = np.asarray(move(keys, positions, 2.0)) - 12
    assert stats.kstest(shifts.ravel(), stats.uniform(-2, 4).cdf).pvalue > 1e-3
    correlations = np.corrcoef(shifts.reshape(500, 6), rowvar=False) - np.eye(6)
    assert np.abs(correlations).max() < 5 / math.sqrt(500)
    # 3.75 px of reach: three widths beyond the outermost blob end at the outer pixels' edges.
    assert np.asarray(move(keys, positions - 9, 2.0)).min() == 3.25
    assert np.asarray(move(keys, positions + 9, 2.0)).max() == 19.75
    np.testing.assert_allclose(one(keys[7], positions[7], 2.0) - 12, shifts[7], atol=1e-5)
    np.testing.assert_array_equal(one(keys[7], positions[7], 0.0), positions[7])


def test_settings_are_values():
    assert hash(Combinatorial(jitter=2)) == hash(TASK)
    assert repr(Combinatorial(jitter=2, spacing=2.5, noise=0)) == repr(TASK)


draw = data.combinatorial_images
PLACES = np.full((2, 2), 9.0, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Combinatorial(features=5), ValueError, "`features` must be an integer ≥ 1 and ≤ 4, but 5"),
        (lambda: Combinatorial(features=1, disjoint=True), ValueError, "`features` must be an integer ≥ 2"),
        (lambda: Combinatorial(vocabulary=9), ValueError, "must be a multiple of `num_classes`, 2, for no"),
        (lambda: Combinatorial(vocabulary=2, disjoint=True), ValueError, "`vocabulary` must be an integer ≥ 4"),
        (lambda: Combinatorial(num_classes=1), ValueError, "`num_classes` must be an integer ≥ 2"),
        (lambda: Combinatorial(placement="loose"), ValueError, "`placement` must be one of 'fixed', 'free'"),
        (lambda: Combinatorial(jitter=3), ValueError, r"keep features, which reach 5.5 px, in their cells of ± 8 px"),
        (lambda: Combinatorial(jitter=-1), ValueError, "`jitter` must be a finite number ≥ 0"),
        (lambda: Combinatorial(width=0), ValueError, "`width` must be a finite number > 0"),
        (lambda: Combinatorial(blobs=10), ValueError, "`blobs` must be an integer ≥ 1 and ≤ 9"),
        (lambda: Combinatorial(disjoint=1), TypeError, "`disjoint` must be True or False"),
        (lambda: data.feature_vocabulary("task"), TypeError, "`settings` must be a `Combinatorial`, but str"),
        (lambda: data.combination_label([1, 2, 3], TASK), ValueError, r"must have shape \(\.\.\., 2\)"),
        (lambda: data.combination_label([1, 8], TASK), ValueError, "`features` must be from 0 to 7, .* but 8 was"),
        (lambda: data.render_features([0.5, 1], PLACES, TASK), TypeError, "`features` must hold integer"),
        (lambda: data.render_features([1], PLACES, TASK), ValueError, r"one place for each .* \(1, 2\), but"),
        (lambda: data.displace_features(0, PLACES, TASK, max_shift=1), TypeError, "`key` must be one random key"),
        (lambda: data.displace_features(jax.random.key(0), PLACES, TASK, max_shift=-1), ValueError, "`max_shift` must"),
        (lambda: draw(jax.random.key(0), TASK, train=1, test=9), ValueError, "`train` must be an i"),
        (lambda: draw(jax.random.split(jax.random.key(0)), TASK, train=2, test=2), ValueError, "key"),
    ],
)
def test_bad_settings_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
