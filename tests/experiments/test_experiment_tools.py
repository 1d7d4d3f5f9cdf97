"""Tables, statistics, settings' hashes and the summary numbers, against hand calculations."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest
from scipy import stats

from experiments.common import cli, plots, settings, statistics, tables, tasks
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
    grouped = statistics.grouped(rows, "sensitivity", ("downsampling", "state"))
    assert fig3.gap(grouped, "init", 1) == pytest.approx({"ratio": math.sqrt(8), "difference": 0.45})
    assert fig3.gap(grouped, "trained", 1) == pytest.approx({"ratio": 1.2, "difference": 0.11})
    summary = {row["statistic"]: row for row in fig3.summarise(rows)}
    assert summary["difference_removed"]["value"] == pytest.approx(1 - 0.11 / 0.45)
    # With two seeds, the extreme resamples are one seed twice; their distance from the value is widened.
    widening = math.sqrt(2) * stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    low, high = (
        math.sqrt(8) + widening * (extreme - math.sqrt(8)) for extreme in (math.sqrt(1.5 * 0.8 / 0.3), math.sqrt(3 * 8))
    )
    assert summary["ratio_init"]["low"] == pytest.approx(low)
    assert summary["ratio_init"]["high"] == pytest.approx(high)
    assert f"2.83 (95 % interval {low:.2f} to {high:.2f}) before" in fig3.sentence(rows, list(summary.values()))


def test_the_sentence_needs_both_kinds_of_networks():
    values = {("max", state): [[1, 1, 0.2, 0.1]] for state in ("init", "trained")}
    rows = rows_of(values)
    assert fig3.sentence(rows, fig3.summarise(rows)).startswith("No comparison")


def test_probe_spread_is_the_relative_sd_over_draws():
    values = {("max", "init"): [[1, 1, 1, 1]]}
    assert fig3.probe_spread(rows_of(values)) == pytest.approx(0.01 * math.sqrt(2))


def mean(values):
    return {"mean": float(np.mean([array.mean() for array in values.values()]))}


def test_bootstrap_of_many_is_the_textbook_interval():
    """Of a mean of 40 normals: ± t sd/√40, but for the noise of 2000 resamples (within 10 %)."""
    data = np.random.default_rng(1).normal(size=40)
    (row,) = statistics.bootstrap(mean, {("all",): data})
    half = stats.t.ppf(0.975, 39) * data.std(ddof=1) / math.sqrt(40)
    assert row["low"] == pytest.approx(data.mean() - half, abs=0.1 * half)
    assert row["high"] == pytest.approx(data.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize(("groups", "seeds"), [(1, 3), (5, 3)])
def test_intervals_of_few_seeds_cover_what_they_say(groups, seeds):
    """Of 200 means of normals, 95 % lie within; the standard error of that share is 1.5 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = {(group,): rng.normal(size=seeds) for group in range(groups)}
        (row,) = statistics.bootstrap(mean, values, resamples=100)
        covered += row["low"] < 0 < row["high"]
    assert 0.9 < covered / 200 <= 0.99


def test_one_seed_has_no_interval():
    (row,) = statistics.bootstrap(mean, {("a",): np.ones(3), ("b",): np.ones(1)}, resamples=5)
    assert row["value"] == 1
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])


def test_arrays_of_one_group_are_resampled_together():
    data = np.random.default_rng(0).normal(size=5)

    def difference(values):
        return {"difference": float((values["a", "after"] - values["a", "before"]).mean())}

    (row,) = statistics.bootstrap(difference, {("a", "before"): data, ("a", "after"): data + 1})
    assert (row["low"], row["value"], row["high"]) == pytest.approx((1, 1, 1))


def test_detour_and_spread_by_hand():
    assert statistics.detour(np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 2.0]])) == 0
    assert statistics.detour(np.array([[0.0], [3.0], [1.0]])) == pytest.approx(1 - 1 / 5)
    assert math.isnan(statistics.detour(np.zeros((2, 4))))
    assert statistics.relative_spread([np.array([[1.0]]), np.array([[3.0]])]) == pytest.approx(math.sqrt(2) / 2)
    assert math.isnan(statistics.relative_spread([np.ones((2, 2))]))


def test_hash_is_of_what_differs_from_the_defaults():
    base = tasks.Training()
    assert settings.digest(base) == settings.digest(tasks.Training())
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


def test_a_figure_is_saved_for_screen_and_print_with_its_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FORMATS", ("png", "pdf"))
    figure, _ = plots.panels(1)
    assert plots.save(figure, tmp_path, "figure", "scale smoke") == tmp_path / "figure.png"
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.pdf"}


def test_a_band_on_a_logarithmic_axis_is_geometric():
    values = np.exp(np.random.default_rng(0).normal(size=(5, 3)))
    _, (panel,) = plots.panels(1)
    plots.band(panel, np.arange(3), values, color="black", geometric=True)
    (line,) = panel.get_lines()
    np.testing.assert_allclose(line.get_ydata(), stats.gmean(values))
    corners = panel.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx((stats.gmean(values) / stats.gstd(values) ** 2).min())


def test_by_layer_draws_what_probes_return():
    """Means and bands over seeds, states of one network in one colour, init dotted, pooling layers shaded."""
    layers = ("input", "conv1", "pool1", "block1_down")
    seeds = [dict(zip(layers, np.arange(1.0, 5) * scale, strict=True)) for scale in (1, 2, 3)]
    panel = plots.by_layer({"mine": seeds[0], "max init": seeds, "max trained": seeds[:1]}, "S", log=True)
    mine, init, trained = panel.get_lines()
    np.testing.assert_allclose(init.get_ydata(), stats.gmean([list(one.values()) for one in seeds]))
    assert [one.get_linestyle() for one in (init, trained, mine)] == [":", "-", "-"]
    assert init.get_color() == trained.get_color() == plots.LINES["max"][0] != mine.get_color()
    assert [text.get_text() for text in panel.get_xticklabels()] == list(layers)
    assert [patch.get_x() for patch in panel.patches] == [1.5, 2.5]
    assert (panel.get_ylabel(), panel.get_yscale()) == ("S", "log")
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["mine", "max init", "max trained"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "same layers for every label, but nothing was given"),
        ({"a": {"conv1": 1.0}, "b": {"conv2": 1.0}}, r"\('conv1',\) and \('conv2',\) was given"),
        ({"a": {"conv1": 1.0}, "b": []}, "same layers for every label"),
        ({"a": {"conv1": np.ones(9)}}, r"one number per layer, but those of 'a' have shape \(9,\)"),
    ],
)
def test_by_layer_refuses_what_is_no_curve(values, message):
    with pytest.raises(ValueError, match=message):
        plots.by_layer(values)
