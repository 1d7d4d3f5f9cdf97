"""Worst cases against boxes whose corners can be enumerated, and angles that can be tried one by one."""

import functools
import itertools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from deform_jax import probes, warps

RNG = np.random.default_rng(0)
N, LIMIT = 5, 0.7
IMAGES = RNG.normal(size=(N, 3, 2)).astype(np.float32)
START = RNG.uniform(-LIMIT, LIMIT, (N, 2, 2)).astype(np.float32)
PUSH = RNG.normal(size=(4, 6)).astype(np.float32)
FIRST, SECOND = (RNG.normal(size=(6, size)).astype(np.float32) for size in (5, 3))
traces = []


def network(weights, images):
    traces.append("network")
    flat = images.reshape(len(images), -1)
    return OrderedDict(zebra=flat @ weights[0], apple=jnp.tanh(flat @ weights[1]))


def push(parameters, image):
    return image + (parameters.reshape(-1) @ PUSH).reshape(image.shape)


NETWORK = Partial(network, (FIRST, SECOND))
TASK = {"weights": {"zebra": 1.0}, "limit": LIMIT, "steps": 6}


def find(represent=NETWORK, deform=push, images=IMAGES, start=START, **options):
    return probes.worst_case(represent, deform, images, start, **{**TASK, **options})


def exact(images, parameters, distance):
    """{tap: (n,)} in float64, one image at a time."""
    result = OrderedDict(zebra=[], apple=[])
    for image, parameter in zip(np.float64(images), np.float64(parameters), strict=True):
        moved = image + (parameter.reshape(-1) @ PUSH).reshape(image.shape)
        for tap, function in (("zebra", lambda x: x @ FIRST), ("apple", lambda x: np.tanh(x @ SECOND))):
            a, b = function(image.reshape(-1)), function(moved.reshape(-1))
            if distance == "cosine":
                a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
            square = np.sum((a - b) ** 2)
            result[tap].append({"cosine": square / 2, "squared": square, "euclidean": np.sqrt(square)}[distance])
    return OrderedDict((tap, np.array(values)) for tap, values in result.items())


def assert_close(result, expected, rtol=1e-5):
    assert isinstance(result, OrderedDict)
    assert list(result) == list(expected)
    for tap in expected:
        np.testing.assert_allclose(result[tap], expected[tap], rtol=rtol, err_msg=tap)


def test_corners_of_the_box():
    """‖A(x + Bp) − Ax‖² is convex in p: its maxima are corners, and the best of many starts is the best corner."""
    starts = np.random.default_rng(1).uniform(-LIMIT, LIMIT, (40, 2, 2)).astype(np.float32)
    images = np.tile(IMAGES[:1], (40, 1, 1))
    result = find(images=images, start=starts, distance="squared", steps=20)
    corners = np.array(list(itertools.product((-LIMIT, LIMIT), repeat=4))).reshape(-1, 2, 2)
    values = exact(np.tile(IMAGES[:1], (16, 1, 1)), corners, "squared")["zebra"]
    np.testing.assert_allclose(result.distances["zebra"].max(), values.max(), rtol=1e-5)
    assert float(result.distances["zebra"].mean()) > 0.8 * values.max()
    # Ascent ends at corners, where the gradient points out of the box.
    np.testing.assert_allclose(np.abs(result.parameters), LIMIT, rtol=1e-6)
    ends = np.float64(result.parameters).reshape(-1, 4)
    assert (ends * (ends @ PUSH @ FIRST @ FIRST.T @ PUSH.T) > 0).all()


@pytest.mark.parametrize("distance", ["cosine", "squared", "euclidean"])
def test_what_is_returned(distance):
    weights = {"apple": 2.0, "zebra": 0.5}  # in another order than the taps
    result = find(weights=weights, distance=distance)
    assert np.abs(result.parameters).max() <= np.float32(LIMIT)
    expected = exact(IMAGES, result.parameters, distance)
    assert_close(result.distances, expected)
    before = exact(IMAGES, START, distance)
    objective, started = (2.0 * d["apple"] + 0.5 * d["zebra"] for d in (expected, before))
    assert (objective >= started * (1 - 1e-6)).all()
    assert objective.mean() > 1.2 * started.mean()
    assert result.trace.shape == (6,)
    assert (np.diff(result.trace) >= 0).all()
    np.testing.assert_allclose(result.trace[-1], objective.mean(), rtol=1e-5)


def still_best(parameters, image):
    """Furthest where all parameters are 0.1, with a slope everywhere else: every large step overshoots."""
    return image * (2 - jnp.abs(parameters - 0.1).mean())


def test_a_start_that_cannot_be_improved_is_kept():
    start = np.full((N, 3), 0.1, np.float32) + np.float32([[1e-3, 0, 0]])
    result = find(lambda x: OrderedDict(zebra=x), still_best, start=start, step_size=0.3, steps=2, distance="squared")
    np.testing.assert_array_equal(result.parameters, start)
    np.testing.assert_allclose(result.trace, np.mean((1 - 1e-3 / 3) ** 2 * (IMAGES**2).sum((1, 2))), rtol=1e-5)


def turn(angle, image):
    return warps.remap(image, warps.rotation_field(angle, image.shape[:2]))


def test_the_worst_angle_of_all(key):
    images = jax.random.normal(key, (3, 8, 8, 1))
    images = (images + jnp.roll(images, 1, 1) + jnp.roll(images, 1, 2)) / 2
    weights = jax.random.normal(key, (64, 4)) / 4
    represent = Partial(lambda w, x: OrderedDict(hidden=jnp.tanh(x.reshape(len(x), -1) @ w)), weights)
    angles = np.linspace(-1, 1, 401, dtype=np.float32)
    turned = jax.vmap(lambda image: jax.vmap(turn, (0, None))(angles, image))(images)
    clean, moved = represent(images)["hidden"], jax.vmap(represent)(turned)["hidden"]
    highest = probes.cosine_distance(jnp.repeat(clean[:, None], 401, 1), moved).max(1)
    starts = np.float32([-0.8, -0.5, -0.2, 0.2, 0.5, 0.8])
    each = [
        find(represent, turn, images, np.full(3, s), weights={"hidden": 1}, limit=1, step_size=0.2, steps=15)
        for s in starts
    ]
    found = np.max([result.distances["hidden"] for result in each], axis=0)
    np.testing.assert_allclose(found, highest, rtol=0.02)  # the last steps are 1/75, and the grid is of 1/200


def test_chunks_change_nothing():
    whole, parts = find(), find(chunk=2)  # of two, two, and one with another that fills it
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), parts, whole)


def test_one_compilation_for_networks_weights_limits_and_steps():
    traces.clear()
    results = []
    architecture = functools.partial(network)  # one that no other test has compiled
    for scale in (1, 2):
        represent = Partial(architecture, (scale * FIRST, SECOND))
        results += [
            find(represent, distance="squared"),
            find(represent, distance="squared", weights={"apple": 1, "zebra": 0.5}, limit=1.0),
            find(represent, distance="squared", steps=3, step_size=0.1),
        ]
    assert traces == ["network"] * 2  # of the clean images, and of the ascent
    assert len({float(result.trace[-1]) for result in results}) == 6


def test_plain_functions_are_read_anew_at_every_call_and_compiled_once_in_it():
    scale = {"network": 1.0, "push": 1.0}
    count = []

    def represent(images):
        count.append("represent")
        return OrderedDict(zebra=scale["network"] * images)

    def deform(parameters, image):
        count.append("deform")
        return push(scale["push"] * parameters, image)

    values = []
    for name in ("network", "push", None):
        count.clear()
        values.append(find(represent, deform, distance="squared", chunk=3).trace[-1])
        assert count == ["represent", "deform", "represent"]
        if name:
            scale[name] = 3.0
    np.testing.assert_allclose(values[1] / values[0], 9, rtol=1e-5)
    assert values[2] > 4 * values[1]
    scale["push"] = 1.0
    before = find(deform=deform, distance="squared").trace[-1]
    scale["push"] = 3.0
    np.testing.assert_allclose(find(deform=deform, distance="squared").trace[-1] / before, 9, rtol=1e-5)


def shove(strength, parameters, image):
    traces.append("shove")
    return push(strength * parameters, image)


def test_a_deformation_s_arrays_are_arguments():
    traces.clear()
    weak, strong = (find(deform=Partial(shove, jnp.float32(s)), distance="squared") for s in (0.5, 2.0))
    assert traces.count("shove") == 1
    assert strong.trace[0] > 4 * weak.trace[0]


def test_under_jit_and_vmap():
    plain = find()
    jitted = jax.jit(lambda weights, images, start, w: find(Partial(network, weights), push, images, start, weights=w))
    result = jitted((FIRST, SECOND), IMAGES, START, {"zebra": 1.0})
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), result, plain)
    assert list(result.distances) == ["zebra", "apple"]
    # Nothing traced among the arguments, and all within a trace; in chunks
    within = jax.jit(lambda: find(chunk=3)).trace()
    assert str(within.jaxpr).count("scan[") == 2  # over chunks and over steps: nothing is unrolled
    closed = within.lower().compile()()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), closed, plain)
    limits = jnp.float32([0.7, 1.4])
    batch = jax.vmap(lambda limit: find(limit=limit, step_size=0.35))(limits)
    for i in range(2):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6),
            batch,
            find(limit=float(limits[i]), step_size=0.35),
        )


def test_gradient_is_that_of_the_distance_at_the_worst_case():
    result = find(distance="squared")

    def worst(first, images):
        found = find(Partial(network, (first, SECOND)), images=images, distance="squared")
        return found.distances["zebra"].sum()

    gradients = jax.grad(worst, (0, 1))(FIRST, IMAGES)
    # The distance is ‖Aᵀ d‖² with d = Bp, whatever x is.
    moves = np.float64(result.parameters).reshape(N, -1) @ PUSH
    np.testing.assert_allclose(gradients[0], 2 * moves.T @ moves @ FIRST, rtol=1e-4)
    np.testing.assert_allclose(gradients[1], 0, atol=1e-3)

    def others(first, start, weight):
        represent = Partial(network, (first, SECOND))
        found = find(represent, start=start, weights={"zebra": weight}, distance="squared")
        return found.parameters.sum() + found.trace.sum()

    assert all(not np.any(gradient) for gradient in jax.grad(others, (0, 1, 2))(FIRST, START, 1.0))


def test_taps_without_weight_need_not_be_finite():
    def represent(images):
        return OrderedDict(zebra=images, bad=1e30 * images)

    result = find(represent, distance="squared")
    assert np.isfinite(result.trace).all()
    assert not np.isfinite(result.distances["bad"]).any()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"represent": 3}, TypeError, r"`represent` must be callable, from images to taps, but its type is int"),
        ({"deform": None}, TypeError, r"`deform` must be callable, from parameters and an image to an image"),
        ({"deform": lambda p, x: x[0]}, ValueError, r"`deform` must return an image of the shape .*\(5, 2\)"),
        ({"images": IMAGES * np.nan}, ValueError, r"`images` must be finite"),
        ({"images": np.float32(1)}, ValueError, r"`images` must hold images along its first axis"),
        ({"images": np.ones((5, 3, 2), int)}, TypeError, r"`images` must hold floating-point numbers"),
        ({"start": START[:3]}, ValueError, r"`start` must hold the parameters of each of the 5 images.*\(3, 2, 2\)"),
        ({"start": START * 0}, ValueError, r"`start` must not be zero .* zero for 5 of 5 .* index 0.*The gradient van"),
        ({"start": START * np.eye(5, dtype=np.float32)[1].reshape(5, 1, 1)}, ValueError, r"zero for 4 of 5 images"),
        ({"start": START + 1}, ValueError, r"`start` must lie in the box \|start\| ≤ `limit` = 0.7, but its largest"),
        ({"start": START + np.inf}, ValueError, r"`start` must be finite"),
        ({"limit": 0.0}, ValueError, r"`limit` must be a finite number > 0"),
        ({"step_size": -1}, ValueError, r"`step_size` must be a finite number > 0"),
        ({"steps": 0}, ValueError, r"`steps` must be an integer ≥ 1"),
        ({"chunk": 0}, ValueError, r"`chunk` must be an integer ≥ 1"),
        ({"distance": "l2"}, ValueError, r"`distance` must be one of 'cosine', 'squared', 'euclidean'"),
        ({"weights": "zebra"}, TypeError, r"`weights` must be a mapping \{tap: weight\}"),
        ({"weights": {}}, ValueError, r"`weights` must give some tap a weight other than 0"),
        ({"weights": {"zebra": 0.0}}, ValueError, r"`weights` must give some tap a weight other than 0"),
        ({"weights": {"zebra": np.nan}}, ValueError, r"`weights\['zebra'\]` must be a finite number"),
        ({"weights": {"horse": 1.0}}, ValueError, r"`weights` must be one of 'zebra', 'apple', but 'horse'"),
    ],
)
def test_bad_input(changes, error, text):
    with pytest.raises(error, match=text):
        find(**changes)


def test_traced_options_are_refused_in_our_words():
    with pytest.raises(TypeError, match=r"`steps` must be an integer ≥ 1 known when the function is traced"):
        jax.jit(lambda steps: find(steps=steps))(2)


def test_the_box_is_that_of_float32():
    """0.7 in float32 is less than 0.7, 0.1 is more; both are on the border."""
    for limit in (0.1, 0.7):
        result = find(start=np.full((N, 2, 2), limit, np.float32), limit=limit)
        assert np.abs(result.parameters).max() <= np.float32(limit)
