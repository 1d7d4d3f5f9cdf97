"""SI Fig. 7, Tables 1 and 2, and how they depend on width: at smoke scale, and what they are computed from."""

import dataclasses

import numpy as np
import pytest
from figure_results import main_of, read

from deform_jax import data, models, training
from experiments.common import runs as networks_on_disk
from experiments.common import tables
from experiments.spatial_information import (
    fig7_simple_cnns,
    simple,
    simple_measures,
    tables_1_2_mean_filters,
    width_dependence,
)

HERE = ("fig7_simple_cnns", "tables_1_2_mean_filters", "width_dependence")


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_fig7_agrees_with_a_numpy_recomputation(smoke, runs):
    """From the saved network: Eq. 1 by explicit loops over pairs, at one layer."""
    rows = tables.read(smoke("fig7_simple_cnns") / "table.csv")
    wanted = simple.SIMPLE_SCALES["smoke"]
    model = runs_build(wanted, "task1")
    (folder,) = [path for path in runs.glob("simple_cnn_stride1-*/seed_001/states/final") if path.is_dir()][:1]
    represent = models.represent(model, training.load(folder).variables)
    found = simple_measures.sample(wanted.probe, "task1")
    batches = (found.images, found.displaced[0], found.noisy[0])
    clean, moved, noisy = (np.asarray(represent(one)["conv03"], np.float64).reshape(len(one), -1) for one in batches)
    between = [np.square(a - b).sum() for i, a in enumerate(clean) for b in clean[:i]]
    expected = [np.square(other - clean).sum(axis=1).mean() / np.mean(between) for other in (moved, noisy)]
    (row,) = tables.select(rows, task="task1", seed=1, state="trained", layer="conv03")
    np.testing.assert_allclose([row["D"], row["G"]], expected, rtol=1e-4)
    assert row["R"] == pytest.approx(expected[0] / expected[1], rel=1e-4)


def runs_build(wanted, task):
    return networks_on_disk.build(wanted.networks.training_of(task), None, 1)


def test_probed_images_are_balanced_moved_by_one_and_noisy_as_much_as_moved():
    found = simple_measures.sample(simple.Probe(share=0.5, draws=2), "task1")
    images, displaced, noisy = (np.asarray(one)[..., 0] for one in (found.images, found.displaced[1], found.noisy[1]))
    assert len(images) == 2 * round(0.5 * 368 / 2)
    np.testing.assert_allclose(np.square(images).sum(axis=1), 32, rtol=1e-5)
    # Each active pixel came from one of its two neighbours.
    assert all(((m > 0) <= (np.roll(c, 1) + np.roll(c, -1) > 0)).all() for m, c in zip(displaced, images, strict=True))
    assert not np.array_equal(*(np.asarray(one) for one in found.displaced))
    eta = noisy - images
    assert eta.min() >= 0
    assert np.mean(eta > 1e-6) == pytest.approx(0.5, abs=0.03)  # 5,888 entries: 4.6 standard deviations
    variance = np.square(displaced - images).mean()
    assert np.square(eta).mean() == pytest.approx(variance / 2, rel=0.1)
    distances = np.abs(np.diff(found.positions[:, :, 0], axis=1))[:, 0]
    close = np.minimum(distances, 32 - distances) < 9
    assert close.mean() == 0.5


def test_the_theory_beside_the_networks_is_that_of_the_protocols():
    exact = simple_measures.theory_rows("task1")
    assert [round(row["D"], 4) for row in exact[:3]] == [0.3750, 0.1875, 0.1312]
    assert [round(row["G"], 4) for row in exact[-2:]] == [2.7881, 2.9570]
    assert exact[3]["A"] == pytest.approx(np.sqrt(4 * 8 / 12))
    assert exact[3]["D_asymptotic"] == pytest.approx(0.3750 / 4)
    patches = simple_measures.theory_rows("task2")
    assert len(patches) == 6
    assert [round(row["G"], 4) for row in patches] == [0.6613, 0.9796, 1.6144, 2.8761, 5.3690, 15.6018]
    assert patches[2]["R_asymptotic"] == pytest.approx(patches[0]["R"] / 16)


def test_slopes_are_those_of_power_laws_whatever_their_factors():
    widths = np.array([1.0, 2.0, 4.0])
    values = {
        (state, name): factor * np.stack([widths**power, 3 * widths**power])
        for state, factor in (("init", 1.0), ("trained", 2.0), ("mean_channel", 5.0))
        for name, power in (("A", 1), ("D", -2))
    }
    found = fig7_simple_cnns.slopes(values, "D", widths)
    assert found == pytest.approx({"init": -2, "trained": -2, "mean_channel": -2})
    values["mean_channel", "D"] = np.full((2, 3), np.nan)
    assert np.isnan(fig7_simple_cnns.slopes(values, "D", widths)["mean_channel"])


def test_simple_cnns_are_trained_as_si_says():
    networks = simple.SIMPLE_SCALES["paper"].networks
    assert (networks.channels, networks.seeds_1, networks.seeds_2, networks.interpolations) == (1000, 4, 10, 500)
    for task, pairs, layers in (("task1", 48, 12), ("task2", 1024, 7)):
        wanted = networks.training_of(task)
        assert wanted.train_images == pairs
        assert wanted.recipe.learning_rate == pytest.approx(10.0)
        assert (wanted.recipe.momentum, wanted.recipe.batch_size, wanted.recipe.loss) == (0.0, 8, "hinge")
        # The gradient of 0.01 Σ w² / (H · depth) is 2 · 0.01 w / (H · depth).
        assert wanted.recipe.weight_decay == pytest.approx(0.02 / (1000 * layers))
        model = networks_on_disk.build(wanted, None, 1)
        assert (model.layers, model.channels * model.width) == (layers, 1000)
    assert networks.training_of("task1").pairs == data.ScaleDetection()
    assert networks.training_of("task2").pairs == data.ScaleDetection("patch", (128,), 32, 0)


def test_mean_filters_stand_beside_the_published_ones(smoke):
    rows = tables.read(smoke("tables_1_2_mean_filters") / "table.csv")
    compared = tables_1_2_mean_filters.compare(rows, channels=16)
    assert len(compared) == 2 * (12 * 3 + 7 * 2)
    (entry,) = tables.select(compared, task="task2", state="trained", layer_index=3, place=1)
    assert entry["published"] == 0.0065
    own = tables.select(rows, task="task2", state="trained", layer_index=3, place=1)
    assert entry["mean"] == pytest.approx(np.mean([row["weight"] for row in own]))
    assert entry["scaled"] == pytest.approx(entry["mean"] * np.sqrt(16 / 1000))
    text = tables_1_2_mean_filters.show(compared, 16)
    assert "[0.2928, 0.2605, 0.2928]" in text
    assert "[-0.0028, -0.0029]" in text


def test_accuracies_say_when_a_network_interpolated_and_whether_it_went_on_to_the_end(smoke):
    for row in read(smoke("fig7_simple_cnns"), "accuracy"):
        assert row["to_the_end"] in ("0", "1")
        assert (row["interpolation_epoch"] == "nan") <= (row["to_the_end"] == "0")
        assert 0 <= float(row["test_error"]) <= 1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fig7_simple_cnns", ["--tasks", "task3"], "--tasks must name some of"),
        ("fig7_simple_cnns", ["--channels", "0"], "--channels must be at least 1"),
        ("fig7_simple_cnns", ["--share", "0"], "--share must be above 0"),
        ("fig7_simple_cnns", ["--train-1", "1000"], "at most"),
        ("width_dependence", ["--channels-1", "3", "4"], "must be of one length"),
    ],
)
def test_impossible_settings_say_what_to_do(name, arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main_of(name)(["--scale", "smoke", "--results", str(tmp_path), "--runs", str(tmp_path), *arguments])
    assert stop.value.code not in (0, None)
    assert message in " ".join(f"{stop.value.code} {capsys.readouterr().err}".replace("│", " ").split())


def test_widths_that_two_figures_share_are_trained_once():
    groups = width_dependence.SCALES["demo"].groups()
    fig7 = simple.SIMPLE_SCALES["demo"].networks
    for task in ("task1", "task2"):
        shared = [
            group for name, group in groups if name == task and (group.channels, group.interpolations) == (100, 500)
        ]
        assert [group.training_of(task) for group in shared] == [fig7.training_of(task)]
    with pytest.raises(ValueError, match="none given"):
        dataclasses.replace(
            width_dependence.Settings(),
            **{f"{name}_{n}": () for name in ("channels", "interpolations", "seeds") for n in (1, 2)},
        )
