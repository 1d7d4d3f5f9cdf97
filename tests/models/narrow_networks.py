"""Networks of 1/16 of the width, every number of which is another, as our variables and as PyTorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import models

NARROW, CLASSES = 1 / 16, 7


@functools.cache
def variables(name):
    """Variables of the narrow network, numbered through: every number of every array is another."""
    model = models.create(name, width=NARROW, num_classes=CLASSES)
    size = 64 if name.endswith("imagenet") else 32
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), image))
    starts = np.cumsum([0, *[leaf.size for leaf in shapes]])
    leaves = [
        np.arange(start, start + leaf.size, dtype=np.float32) for start, leaf in zip(starts, shapes, strict=False)
    ]
    assert starts[-1] < 2**24  # exact in float32
    return jax.tree.unflatten(tree, [a.reshape(leaf.shape) for a, leaf in zip(leaves, shapes, strict=True)])


def state_of(name):
    return models.to_torch(name, variables(name), width=NARROW)


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def message(error, call, *arguments, **settings):
    with pytest.raises(error) as caught:
        call(*arguments, **settings)
    return str(caught.value)
