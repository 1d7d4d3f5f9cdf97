"""Tables, statistics, settings' hashes and the summary numbers, against hand calculations."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest

from experiments.common import cli, runs, settings, statistics, tables
from experiments.learned_stability import fig3_layer_sensitivity as fig3

LAYERS = ("input", "block1_conv1", "block1_down", "block2_conv1")


def rows_of(values):
    """Return fig3 rows from {(downsampling, state): (seeds, layers) values}, two draws around each value."""
    return [
        {"downsampling": d, "seed": s, "state": state, "draw": draw, "layer_index": i, "layer": layer,
         "sensitivity": values[d, state][s][i] + (0.01 if draw else -0.01)}
        for d, state in values
        for s in range(len(values[d, state]))
        for draw in (0, 1)
        for i, layer in enumerate(LAYERS)
    ]  # fmt: skip


def test_gap_is_the_geometric_mean_ratio_from_the_first_downsampling_on():
    values = {
        ("max", "init"): [[1, 9, 0.2, 0.1], [1, 9, 0.4, 0.3]],
        ("strided", "init"): [[1, 1, 0.6, 0.8], [1, 1, 0.6, 0.8]],
        ("max", "trained"): [[1, 9, 0.5, 0.5], [1, 9, 0.5, 0.5]],
        ("strided", "trained"): [[1, 1, 0.5, 0.72], [1, 1, 0.5, 0.72]],
    }
    rows = rows_of(values)
    # Means over seeds 0.3, 0.2 against 0.6, 0.8: ratios 2 and 4. The layers before the first downsampling do not count.
    assert fig3.gap(fig3.by_network(rows), "init", 2) == pytest.approx({"ratio": math.sqrt(8), "difference": 0.45})
    assert fig3.gap(fig3.by_network(rows), "trained", 2) == pytest.approx({"ratio": 1.2, "difference": 0.11})
    summary = {row["statistic"]: row for row in fig3.summarise(rows)}
    assert summary["difference_removed"]["value"] == pytest.approx(1 - 0.11 / 0.45)
    # With two seeds, the extreme resamples are one seed twice.
    assert summary["ratio_init"]["low"] == pytest.approx(math.sqrt(1.5 * 0.8 / 0.3))
    assert summary["ratio_init"]["high"] == pytest.approx(math.sqrt(3 * 8))
    assert "2.83 (95 % interval 2.00 to 4.90) before" in fig3.sentence(rows, list(summary.values()))


def test_the_sentence_needs_both_kinds_of_networks():
    values = {("max", state): [[1, 1, 0.2, 0.1]] for state in ("init", "trained")}
    rows = rows_of(values)
    assert fig3.sentence(rows, fig3.summarise(rows)).startswith("No comparison")


def test_probe_spread_is_the_relative_sd_over_draws():
    values = {("max", "init"): [[1, 1, 1, 1]]}
    assert fig3.probe_spread(rows_of(values)) == pytest.approx(0.01 * math.sqrt(2))


def test_bootstrap_covers_a_known_mean():
    """The percentile interval of a mean of 40 normals is close to ± 1.96 sd/√40 (within 20 %)."""
    data = np.random.default_rng(1).normal(size=40)

    def statistic(seeds):
        return {"mean": float(data.mean() if seeds is None else data[seeds["all"]].mean())}

    (row,) = statistics.bootstrap(statistic, {"all": 40})
    half = 1.96 * data.std() / math.sqrt(40)
    assert row["low"] == pytest.approx(data.mean() - half, abs=0.2 * half)
    assert row["high"] == pytest.approx(data.mean() + half, abs=0.2 * half)


def test_hash_is_of_what_differs_from_the_defaults():
    base = runs.Training()
    assert settings.digest(base) == settings.digest(runs.Training())
    wider = dataclasses.replace(base, width=0.5)
    assert settings.digest(wider) != settings.digest(base)
    assert settings.differences(wider, base) == {"width": 0.5}
    nested = dataclasses.replace(base, recipe=dataclasses.replace(base.recipe, epochs=3))
    assert settings.differences(nested, base) == {"recipe.epochs": 3}


def test_results_of_other_settings_never_land_on_the_scale_s_own():
    def folder(*arguments):
        return cli.parse(fig3.SCALES, script="x/fig3.py", description="", arguments=list(arguments)).results

    assert folder() == pathlib.Path("x/results/fig3/demo")
    assert folder("--scale", "paper") == pathlib.Path("x/results/fig3/paper")
    assert folder("--seeds", "4").name.startswith("demo-")
    assert folder("--seeds", "4") != folder("--seeds", "5")
    assert folder("--seeds", "4", "--tag", "four").name == "demo-four"


def test_tables_round_trip_and_are_never_half_written(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    rows = [{"name": "a, b", "value": 0.1}, {"name": "c", "value": 2}]
    tables.write(path, rows)
    assert tables.read(path) == rows
    before = path.read_bytes()
    with pytest.raises(ValueError, match="extra"):
        tables.write(path, [rows[0], {"name": "d", "value": 3, "extra": 4}])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_spread_is_the_sample_sd():
    values = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(tables.spread(values), np.sqrt(((values - values.mean(0)) ** 2).sum(0) / 4))
    assert np.isnan(tables.spread(values[:1])).all()
