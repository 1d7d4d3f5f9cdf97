"""``epoch_order``: a permutation cut into full batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from deform_jax import data


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 1)])
@pytest.mark.parametrize("jit", [False, True])
def test_every_index_at_most_once_in_full_batches(key, n, batch_size, jit):
    function = functools.partial(data.epoch_order, n=n, batch_size=batch_size)
    order = (jax.jit(function) if jit else function)(key)
    assert order.shape == (n // batch_size, batch_size)
    assert order.dtype == jnp.int32
    values = np.asarray(order).ravel()
    assert len(set(values.tolist())) == len(values)
    assert values.min() >= 0
    assert values.max() < n
    np.testing.assert_array_equal(order, data.epoch_order(key, n, batch_size))


def test_epochs_differ(key):
    orders = {tuple(np.asarray(data.epoch_order(jax.random.fold_in(key, i), 20, 5)).ravel()) for i in range(5)}
    assert len(orders) == 5


def test_places_and_left_out_images_are_uniform(key):
    # 4,000 epochs of 5 images in batches of 2: each image stands in each of the 4 places (or is left out) 800 times in
    # expectation; 25 cells of which 16 are free. One χ² test at p > 1e-3 with a fixed key.
    orders = jax.vmap(lambda k: data.epoch_order(k, 5, 2).ravel())(jax.random.split(key, 4000))
    counts = np.stack([np.bincount(place, minlength=5) for place in np.asarray(orders).T])
    counts = np.vstack([counts, 4000 - counts.sum(0)])
    assert scipy.stats.chi2.sf(((counts - 800) ** 2 / 800).sum(), df=16) > 1e-3


@pytest.mark.parametrize(
    ("n", "batch_size", "error", "match"),
    [
        (0, 1, ValueError, r"`n` must be an integer ≥ 1, but 0"),
        (4, 0, ValueError, r"`batch_size` must be an integer ≥ 1 and ≤ 4, but 0"),
        (4, 5, ValueError, r"`batch_size` must be an integer ≥ 1 and ≤ 4, but 5"),
        (4.0, 2, TypeError, r"`n` must be an integer"),
        (4, 2.0, TypeError, r"`batch_size` must be an integer"),
    ],
)
def test_bad_arguments(key, n, batch_size, error, match):
    with pytest.raises(error, match=match):
        data.epoch_order(key, n, batch_size)


def test_a_traced_number_is_refused(key):
    with pytest.raises(TypeError, match=r"`n` must be .* known when the function is traced"):
        jax.jit(lambda n: data.epoch_order(key, n, 2))(8)
