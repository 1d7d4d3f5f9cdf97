"""SI section 5 at smoke scale: what is measured of networks on images of k features, and how features are moved."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from figure_results import read
from scipy import stats

from deform_jax import data, training
from experiments.common import cli, tasks
from experiments.spatial_information import combinatorial_features, combinatorial_measures, combinatorial_statistics

HERE = ("combinatorial_features",)
SMOKE = combinatorial_features.SCALES["smoke"]
COUNT = 2


@pytest.fixture(scope="module")
def task():
    return tasks.load_task(SMOKE.networks_on(COUNT).training, cli.Options())


@pytest.fixture(scope="module")
def samples(task):
    return combinatorial_measures.perturbed(SMOKE, task, COUNT)


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_every_measurement_is_in_the_table_once(smoke):
    folder = smoke(HERE[0])
    table = read(folder)
    names = ("architecture", "features", "seed", "state", "perturbation", "measure")
    found = [tuple(row[name] for name in names) for row in table]
    measured = [("init", "trained"), ("features", "diffeomorphism"), ("D", "G", "R")]
    once = [("trained", "none", "error"), ("none", "features", "norm"), ("none", "diffeomorphism", "norm")]
    expected = [
        ("fc_l2", k, seed, *rest) for k in "12" for seed in "01" for rest in [*once, *itertools.product(*measured)]
    ]
    assert sorted(found) == sorted(expected)
    value = {key: float(row["value"]) for key, row in zip(found, table, strict=True)}
    for key in found:
        if key[-1] == "R":
            assert value[key] == pytest.approx(value[*key[:-1], "D"] / value[*key[:-1], "G"], rel=1e-5)
    for row in read(folder, "accuracy"):
        error = value["fc_l2", row["features"], row["seed"], "trained", "none", "error"]
        assert error == max(0.5 / 64, 1 - float(row["test_accuracy"]))
    layers = read(folder, "layers")
    assert len(layers) == 2 * 2 * 2 * 2 * 3  # features, seeds, states, perturbations; input, hidden, output
    for row in layers:
        if row["layer"] == "output":
            key = ("fc_l2", row["features"], row["seed"], row["state"], row["perturbation"], "D")
            assert float(row["D"]) == value[key]


def test_features_and_labels_are_those_of_the_images(task):
    """Images to train on and held out are all that were drawn for that, standardised by their own mean and spread."""
    features = SMOKE.networks_on(COUNT).training.features
    drawn = task.features
    assert (len(drawn.train_labels), len(drawn.test_labels)) == (128 + 32, 64)
    np.testing.assert_array_equal(drawn.test_labels, drawn.test_features.sum(axis=1) % 2)
    np.testing.assert_array_equal(task.evaluation["labels"], drawn.test_labels)
    rendered = data.render_features(drawn.test_features, drawn.test_positions, features)
    np.testing.assert_allclose(task.evaluation["images"] / 255, rendered, atol=0.51 / 255)
    train = np.concatenate([task.train["images"], task.validation["images"]])
    assert len(train) == 160
    prepared = np.asarray(task.prepare(None, train))
    assert prepared.mean() == pytest.approx(0, abs=1e-4)
    assert prepared.std() == pytest.approx(1, abs=1e-4)
    assert task.num_classes == 2


def centres(images, cell):
    """Mass and centre of mass of one cell of each image, pixels from 0."""
    row, column = 16 * (cell // 2), 16 * (cell % 2)
    part = images[:, row : row + 16, column : column + 16, 0].astype(np.float64)
    mass = part.sum(axis=(1, 2))
    places = np.arange(16)
    moments = [np.einsum("nij,i->n", part, places) + row * mass, np.einsum("nij,j->n", part, places) + column * mass]
    return mass, np.stack(moments, axis=-1) / mass[:, None]


def test_moved_features_stay_what_they_are_and_move_by_uniform_shifts(task, samples):
    """A feature's image keeps its mass and its arrangement; its centre moves in either direction by up to √(3/2) δ."""
    prepare = task.prepare_clean
    clean, moved = (prepare.std[0] * np.asarray(one) + prepare.mean[0] for one in samples["features"][:2])
    shifts = []
    for cell in range(COUNT):
        (mass, before), (after_mass, after) = centres(clean, cell), centres(moved, cell)
        np.testing.assert_allclose(after_mass, mass, rtol=2e-3)  # nothing leaves its cell but tails below 1 %
        shifts.append(after - before)
    shifts = np.asarray(shifts)  # (cell, image, axis): each feature moves on its own
    limit = math.sqrt(1.5)
    assert np.abs(shifts).max() < limit + 0.03
    flat = shifts.transpose(1, 0, 2).reshape(len(clean), -1)
    for component in flat.T:
        assert stats.kstest(component, stats.uniform(-limit, 2 * limit).cdf).pvalue > 0.001
    # 32 images: an sd of 0.18 for each of the six correlations.
    assert np.abs(np.corrcoef(flat.T) - np.eye(4)).max() < 0.6
    features = SMOKE.networks_on(COUNT).training.features
    chosen = tasks.choice(64, 32, 0)
    places = task.features.test_positions[chosen] + shifts.transpose(1, 0, 2)
    again = data.render_features(task.features.test_features[chosen], places.astype(np.float32), features)
    assert np.abs(moved - again).max() < 0.03  # the same features, drawn anew where they are now
    assert np.abs(clean - again).max() > 0.3


def test_either_noise_is_as_large_as_its_perturbation(samples):
    assert list(samples) == ["features", "diffeomorphism"]
    np.testing.assert_array_equal(samples["features"].images, samples["diffeomorphism"].images)
    for sample in samples.values():
        clean, deformed, noisy = (np.asarray(one, np.float64).reshape(32, -1) for one in sample)
        sizes = np.linalg.norm(deformed - clean, axis=1)
        assert sizes.min() > 0
        np.testing.assert_allclose(np.linalg.norm(noisy - clean, axis=1), sizes, rtol=1e-5)
        assert sample.norm == pytest.approx(sizes.mean())


def test_correlations_within_k_are_those_of_what_is_left_after_its_mean():
    """Against numpy, on points whose levels are far apart and whose slopes within k are opposite to the pooled one."""
    rng = np.random.default_rng(0)
    rows, x, y, ks = [], [], [], []
    for k, name in itertools.product((1.0, 2.0, 3.0), "abc"):
        own = rng.normal()
        x, y, ks = [*x, 5 * k + own], [*y, 5 * k - own], [*ks, k]
        head = {"architecture": name, "features": k, "learned": 1}
        for seed, swing in enumerate((-0.1, 0.1)):  # geometric means over seeds are exact
            rows.append(head | {"seed": seed, "state": "trained", "perturbation": "none", "measure": "error"})
            rows[-1]["value"] = math.exp(x[-1] + swing)
            for state, move, column in itertools.product(("init", "trained"), ("features", "diffeomorphism"), "DGR"):
                rows.append(head | {"seed": seed, "state": state, "perturbation": move, "measure": column})
                rows[-1]["value"] = math.exp(y[-1] - swing)
    stuck = [row | {"architecture": "d", "learned": 0, "value": row["value"] ** 2} for row in rows]
    summary = combinatorial_statistics.summarise(rows + stuck)
    left = [np.asarray(v).reshape(3, 3) - np.asarray(v).reshape(3, 3).mean(axis=1, keepdims=True) for v in (x, y)]
    expected = {"correlation": (x, y), "correlation_within_k": [values.ravel() for values in left]}
    for kind, (a, b) in expected.items():
        found = [row for row in summary if row["statistic"] == kind]
        assert len(found) == 2 * 2 * 3
        for row in found:
            assert row["value"] == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-9)
            assert -1 <= row["low"] <= row["value"] + 1e-9 <= row["high"] + 2e-9 <= 1 + 2e-9
            assert row["points"] == 9
    assert stats.pearsonr(*expected["correlation"])[0] > 0.5
    means = [row for row in summary if row["statistic"] == "mean" and row["measure"] == "error"]
    assert [math.log(row["value"]) for row in means[:9]] == pytest.approx(x)


def test_settings_of_a_task_have_flags_of_their_own():
    """``noise``, ``width`` and ``task`` are names of more than one setting."""
    given = ["--noise", "3", "--width", "0.5", "--features.noise", "0.1", "--features.width", "0.9"]
    given += ["--pairs.task", "patch", "--scale", "smoke", "--pairs.scale", "4", "--feature-counts", "1", "3"]
    settings = combinatorial_features.SCALES
    found = cli.parse(settings, script="x.py", description="", arguments=given).settings
    wanted = found.networks.training
    assert (wanted.noise, wanted.width, wanted.task) == (3, 0.5, "original")
    assert dataclasses.asdict(wanted.features) == dataclasses.asdict(
        dataclasses.replace(SMOKE.networks.training.features, noise=0.1, width=0.9)
    )
    assert isinstance(wanted.features, data.Combinatorial)
    assert (wanted.pairs.task, wanted.pairs.scale) == ("patch", 4)
    assert found.feature_counts == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_counts": (1, 1)}, "--feature-counts must hold positive numbers, each once"),
        ({"feature_counts": (5,)}, "`features` must be an integer ≥ 1 and ≤ 4, but 5"),
        (
            {"probe": dataclasses.replace(SMOKE.probe, displacement=1.1)},
            "--displacement must keep features in their cells: at most 1.02; 1.1 given",
        ),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_images": None}, "error: --dataset combinatorial needs --test-images, the number of test images."),
        ({"train_images": None}, "error: --dataset combinatorial needs --train-images, the number of training images."),
        ({"augment": True}, "error: --augment does not go with --dataset combinatorial."),
        ({"task": "random_labels"}, "error: --task does not go with --dataset combinatorial."),
        ({"recipe": training.Recipe(loss="hinge")}, "error: --loss hinge is for --dataset scale_detection"),
    ],
    ids=str,
)
def test_tasks_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(SystemExit, match=message):
        tasks.load_task(dataclasses.replace(SMOKE.networks.training, **changes), cli.Options())
