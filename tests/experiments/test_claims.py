"""Verdicts, on tables whose answer is known; the claims of LS on made-up results; the table in the README."""

import pathlib

import numpy as np
import pytest
from figure_results import readme_rows

from experiments.__main__ import main as run
from experiments.common import claims, statistics, tables
from experiments.learned_stability import claim_statistics as of
from experiments.learned_stability import claims as ls

ROOT = pathlib.Path(__file__).parents[2]
CIFAR10 = {"settings": {"networks": {"training": {"dataset": "x", "width": 1.0, "network": "block_vgg_cifar10"}}}}
DOWNSAMPLINGS = ("max", "average", "subsample", "strided", "strided_relu")


def claim(**changes):
    def mean(values):
        return float(np.mean([array.mean() for array in values.values()]))

    settings = {"statistic": mean, "low": 0.0, "figure": "figure"} | changes
    return claims.Claim(key="key", place="1.1", sentence="It is so", measures="mean", **settings)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, "holds"),
        (-0.2, -0.1, "does not hold"),
        (-0.1, 0.1, "undecided"),
        (1.1, 1.2, "does not hold"),
        (0.9, 1.1, "undecided"),
        (-0.5, 1.5, "undecided"),
        (float("nan"), 0.2, "undecided"),
    ],
)
def test_verdicts_follow_from_the_interval_alone(low, high, expected):
    assert claims.verdict(claim(high=1.0), low, high) == expected


def made_up(folder, effect, *, seeds=5, noise=0.01):
    """A results folder whose trained values are ``effect`` times the initial ones."""
    rng = np.random.default_rng(0)
    rows = [
        {"downsampling": name, "seed": seed, "state": state, "layer_index": i, "layer": layer, "sensitivity": value}
        for name in ("max", "strided_relu")
        for seed in range(seeds)
        for state, factor in (("init", 1.0), ("trained", effect))
        for i, layer in enumerate(("input", "conv1", "conv2"))
        for value in [100.0 if layer == "input" else factor + noise * rng.normal()]
    ]
    tables.write(folder / "table.csv", rows)
    tables.write_json(folder / "provenance.json", {"settings": {}})
    return rows


@pytest.mark.parametrize(("effect", "verdict"), [(1.5, "holds"), (0.5, "does not hold"), (1.0, "undecided")])
def test_a_known_effect_is_found(tmp_path, effect, verdict):
    made_up(tmp_path, effect)

    def change(values):
        return float(np.mean([values[n, "trained"].mean() - values[n, "init"].mean() for n in ("max", "strided_relu")]))

    row = claims.evaluate(claim(statistic=change), tmp_path)
    assert row["verdict"] == verdict
    assert row["value"] == pytest.approx(effect - 1, abs=0.02)  # the input is left out
    # Of 2 × 5 seeds × 2 layers, initial and trained: sd of the mean 0.01·√(2/20).
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * 0.01 * np.sqrt(2 / 20), rel=0.5)


def test_rows_are_chosen_grouped_and_averaged_as_by_hand(tmp_path):
    rows = made_up(tmp_path, 2.0, seeds=2)
    values = statistics.grouped(rows, "sensitivity", ("downsampling", "state"))
    assert set(values) == {(n, s) for n in ("max", "strided_relu") for s in ("init", "trained")}
    expected = [
        [next(r["sensitivity"] for r in rows if r["seed"] == s and r["layer"] == layer) for layer in ("conv1", "conv2")]
        for s in range(2)
    ]
    np.testing.assert_array_equal(values["max", "init"], expected)
    assert claims.evaluate(claim(where={"state": "elsewhere"}), tmp_path) is None
    assert claims.evaluate(claim(value="euclidean"), tmp_path) is None


def test_the_largest_scale_speaks_and_a_claim_without_results_says_what_to_run(tmp_path):
    for name, seeds in (("demo", 3), ("demo-five", 5), ("smoke", 1)):
        made_up(tmp_path / "figure" / name, 1.0, seeds=seeds)
    rows = claims.verdicts([claim(), claim(figure="other")], tmp_path, resamples=10)
    assert [row["scale"] for row in rows] == ["demo", "demo-five", "smoke", ""]
    assert rows[2]["verdict"] == "undecided"  # one seed decides nothing
    chosen = claims.best(rows[:3])
    assert [row["scale"] for row in chosen] == ["demo-five"]
    text = claims.markdown([*chosen, rows[3]])
    assert "**not tested**" in text
    assert "run `other`" in text


def test_among_untrained_networks_the_larger_scale_speaks():
    row = {"claim": "key", "networks_per_group": 5, "images_trained_on": 0}
    rows = [{**row, "scale": scale} for scale in ("demo", "imagenet", "paper", "smoke", "elsewhere")]
    for order in (rows, rows[::-1]):
        assert [one["scale"] for one in claims.best(order)] == ["imagenet"]


def test_results_of_an_earlier_version_are_named(tmp_path):
    made_up(tmp_path, 1.0)
    tables.write(tmp_path / "accuracy.csv", [{"epochs": 1}])
    with pytest.raises(SystemExit, match="earlier version"):
        claims.evaluate(claim(), tmp_path, resamples=1)


@pytest.mark.parametrize(
    ("statistic", "seconds"),
    [
        (of.ratio("init"), ("init", "trained")),
        (of.spread_left, ("init", "trained")),
        (of.worst_ratio, ("init", "trained")),
        (of.task_spread_ratio, ("random_labels",)),
        (of.between_over_within, ("random_labels",)),
        (of.least_fall, (1.0,)),
        (of.last_over_first, (1.0,)),
        (of.detour, (0.0, 5.0)),
    ],
)
def test_too_little_to_compare_is_nan_and_no_error(statistic, seconds):
    """One downsampling, one task, one strength, or the two ends of a training."""
    assert np.isnan(statistic({("max", second): 1.0 + np.arange(24.0).reshape(2, 12) for second in seconds}))


def results(folder, *, spread_init, spread_trained, level, fall):
    """Fig. 3 and Fig. 6 tables: downsamplings apart by a factor, pooled ones below, trained ones at a level."""
    rng = np.random.default_rng(1)
    sensitivity, variation = [], []
    layers = ["input", *(f"layer{i}" for i in range(1, 7))]
    for position, name in enumerate(DOWNSAMPLINGS):
        for seed in range(5):
            for state, spread, scale in (("init", spread_init, 1.0), ("trained", spread_trained, level)):
                head = {"downsampling": name, "seed": seed, "state": state}
                for i, layer in enumerate(layers):
                    value = scale * (1 + spread * (position - 2)) * (1 + 0.01 * rng.normal())
                    row = {**head, "layer_index": i, "layer": layer}
                    sensitivity.append({**row, "sensitivity": value, "euclidean": value})
                    smooth = 1.86 * (fall if state == "trained" else 1) * (1 + 0.01 * i + 0.001 * rng.normal())
                    variation.append({**row, "total_variation": smooth})
    for figure, rows in (("fig3_layer_sensitivity", sensitivity), ("fig6_filter_smoothness", variation)):
        tables.write(folder / figure / "demo" / "table.csv", rows)
        tables.write_json(folder / figure / "demo" / "provenance.json", CIFAR10)


def verdicts(folder):
    return {row["claim"]: row["verdict"] for row in claims.verdicts(ls.CLAIMS, folder, resamples=200)}


def test_the_claims_of_ls_hold_in_a_world_as_ls_describes_it(tmp_path):
    results(tmp_path, spread_init=0.2, spread_trained=0.0, level=1.3, fall=0.8)
    found = verdicts(tmp_path)
    tested = {name: verdict for name, verdict in found.items() if verdict != "not tested"}
    assert set(tested.values()) == {"holds"}, tested
    assert len(tested) == 11


def test_and_do_not_in_its_opposite(tmp_path):
    results(tmp_path, spread_init=-0.2, spread_trained=-0.2, level=0.95, fall=1.2)
    found = verdicts(tmp_path)
    for name in (
        "pooling_at_initialisation",
        "pooled_networks_change",
        "early_layers_rise",
        "often_rises",
        "similar_after_training",
        "differences_vanish",
        "euclidean_at_initialisation",
        "training_smooths",
    ):
        assert found[name] == "does not hold", name


def test_results_of_one_architecture_say_nothing_of_the_other(tmp_path):
    results(tmp_path, spread_init=0.2, spread_trained=0.0, level=1.3, fall=0.8)
    assert verdicts(tmp_path)["imagenet_training_smooths"] == "not tested"
    for path in tmp_path.glob("*/demo/provenance.json"):
        path.write_text(path.read_text().replace("cifar10", "imagenet"))
    found = verdicts(tmp_path)
    assert found["training_smooths"] == "not tested"
    assert found["imagenet_training_smooths"] == found["imagenet_pooling_at_initialisation"] == "holds"
    assert found["imagenet_smoothness_rises_with_depth"] == "does not hold"  # in a world of the CIFAR10 kind


def table(folder, figure, name, rows):
    tables.write(folder / figure / "demo" / f"{name}.csv", rows)
    tables.write_json(folder / figure / "demo" / "provenance.json", CIFAR10)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "does not hold")])
def test_claims_on_the_other_figures(tmp_path, sign, verdict):
    """Effects of one sign are what LS says, of the other the contrary."""
    rng = np.random.default_rng(2)
    rows = {name: [] for name in ("fig4", "fig5", "labels", "variation", "accuracy", "steps", "worst")}
    for position, name in enumerate(DOWNSAMPLINGS):
        for seed in range(5):
            head = {"downsampling": name, "seed": seed, "layer_index": 1, "layer": "conv"}

            def value(x):
                return x * (1 + 0.005 * rng.normal())

            for sigma in (0.0, 1.0, 2.0):
                falling = value(1 - 0.2 * sign * sigma)
                rows["fig4"].append({**head, "sigma": sigma, "sensitivity": falling, "euclidean": falling})
            for strength in (1.0, 2.0, 3.0):
                smoother = value(1.8 * (1 - 0.1 * sign * strength))
                rows["fig5"] += [
                    {**head, "strength": strength, "state": "trained", "total_variation": smoother},
                    {**head, "strength": strength, "state": "init", "total_variation": 1.8},
                ]
            for task, spread in (("original", 0.05), ("random_labels", 0.05 + 0.04 * sign)):
                apart = value(1 + spread * (position - 2))
                row = {**head, "task": task, "state": "trained", "probe": "images"}
                moved = apart if sign > 0 or task == "original" else value(1.0)
                rows["labels"].append({**row, "sensitivity": moved, "euclidean": moved})
                rows["variation"].append({**row, "total_variation": apart})
                rows["accuracy"].append(
                    {**head, "task": task, "fitted_accuracy": 0.97 if sign > 0 else 0.5 + seed / 99}
                )
                rows["accuracy"][-1] |= {"epochs": 3, "train_images": 100}
            for step, height in ((0, 1.0), (1, 0.8 if sign > 0 else 0.2), (2, 0.6)):
                rows["steps"].append({**head, "step": step, "sensitivity": value(height), "total_variation": height})
            pooled = name in ("max", "average")
            row = {**head, "state": "trained"}
            sought = {**row, "target": "block4_down", "worst": value(2.0 if pooled or sign > 0 else 3.0)}
            # What the last layer does under deformations sought for another says nothing of its worst case.
            rows["worst"] += [sought, {**row, "target": "block1_conv1", "worst": 9.0 if pooled else 1.0}]
    table(tmp_path, "fig4_smoothed_initialisation", "table", rows["fig4"])
    table(tmp_path, "fig5_synthetic_tasks", "table", rows["fig5"])
    for name in ("labels", "variation", "accuracy"):
        table(tmp_path, "fig7_random_labels", "table" if name == "labels" else name, rows[name])
    for name in ("table", "variation"):
        table(tmp_path, "trajectories", name, rows["steps"])
    table(tmp_path, "worst_case", "table", rows["worst"])
    found = {name: v for name, v in verdicts(tmp_path).items() if v != "not tested"}
    assert len(found) == 13
    assert set(found.values()) == {verdict}, found


def test_every_claim_names_a_figure_a_place_and_a_rule():
    keys = [claim.key for claim in ls.CLAIMS]
    assert len(set(keys)) == len(keys)
    for one in ls.CLAIMS:
        assert (ROOT / "experiments" / "learned_stability" / f"{one.figure}.py").is_file()
        assert one.place
        assert one.low < one.high
        assert np.isfinite(one.low) or np.isfinite(one.high)


def test_the_command_writes_every_scale_and_prints_one_line_for_each_claim(tmp_path, capsys):
    results(tmp_path, spread_init=0.2, spread_trained=0.0, level=1.3, fall=0.8)
    assert run(["claims", "learned_stability", "--results", str(tmp_path), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert all(one.key in printed for one in ls.CLAIMS)
    assert len(tables.read(tmp_path / "claims.csv")) == len(ls.CLAIMS)


def test_the_readme_s_table_is_what_the_committed_results_give():
    """No verdict is typed in by hand."""
    text, rows = readme_rows("learned_stability")
    assert text.split(claims.BEGIN)[1].split(claims.END)[0].strip() == claims.markdown(rows)
