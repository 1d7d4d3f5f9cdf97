"""Chunks must cost less memory, as XLA's own plan of its temporary buffers says."""

from collections import OrderedDict
from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from deform_jax import probes

N, SIZE, CHANNELS, DEPTH = 64, 32, 32, 3
LAYER = N * SIZE * SIZE * CHANNELS * 4  # bytes of one activation: 8 MiB


def network(kernels, x):
    taps = OrderedDict(input=x)
    for i, kernel in enumerate(kernels):
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        taps[f"layer{i}"] = x = jax.nn.relu(x)
    return taps


def planned(chunk, **options):
    """Temporary bytes of the compiled measurement, in units of the largest activation of all images."""
    widths = [3] + [CHANNELS] * DEPTH
    kernels = [jax.ShapeDtypeStruct((3, 3, a, b), jnp.float32) for a, b in pairwise(widths)]
    images = jax.ShapeDtypeStruct((N, SIZE, SIZE, 3), jnp.float32)

    def measure(kernels, images, perturbed):
        return probes.sensitivity(Partial(network, kernels), images, perturbed, chunk=chunk, **options)

    return jax.jit(measure).lower(kernels, images, images).compile().memory_analysis().temp_size_in_bytes / LAYER


@pytest.mark.parametrize(
    ("options", "whole", "chunked"),
    [({"distance": "cosine"}, 6.5, 4.0), ({"distance": "squared", "normaliser": "mean"}, 5.5, 1.5)],
    ids=["median", "streamed"],
)
def test_chunks_need_less_memory(options, whole, chunked):
    # Bounds with a margin over jax 0.10.2 on CPU: two forward passes at once, one at once, one chunk of 8 in 64.
    used = planned(None, **options), planned(8, **options)
    assert used[0] < whole
    assert used[1] < chunked
    assert used[1] < 0.75 * used[0]
