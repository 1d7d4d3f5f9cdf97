"""The claims of SI's sections 1 and 2 on made-up results, and their table in the README."""

import pathlib

import numpy as np
import pytest
from figure_results import readme_rows

from deform_jax import models
from experiments.common import claims, statistics, tables
from experiments.spatial_information import claims as si
from experiments.spatial_information import claims_natural, errors

ROOT = pathlib.Path(__file__).parents[2]
PROVENANCE = {"settings": {"networks": {"training": {"dataset": "x", "width": 1.0}}}}
ACCURACY = [{"train_images": 100, "epochs": 2}]


def write(folder, figure, rows, name="table", provenance=PROVENANCE):
    folder = folder / figure / "demo"
    tables.write(folder / f"{name}.csv", rows)
    tables.write(folder / "accuracy.csv", ACCURACY)
    tables.write_json(folder / "provenance.json", provenance)


def world(folder, sign):
    """What SI describes for a sign of 1; for −1 the contrary. 17 architectures, 5 seeds, little noise."""
    rng = np.random.default_rng(0)
    noise = lambda: np.exp(0.02 * rng.normal())  # noqa: E731
    zoo, curves, modes = [], [], []
    for place, name in enumerate(models.ZOO):
        ratio = np.exp(0.15 * (place - 8))
        own = np.exp(0.5 * rng.normal(size=2))  # what D and G have besides R
        for seed in range(5):
            for norm in (0.0, 1.0, 10.0):
                head = {"noise_norm": norm, "architecture": name, "seed": seed, "learned": 1}
                error = 0.2 * ratio ** (0.5 * sign)
                shared = {"R": ratio, "R_median": ratio, "D": ratio**0.5 * own[0], "G": ratio**-0.5 * own[1]}
                trained = (
                    {"error": error, **shared} if sign > 0 else {"error": error, **shared, "R": own[0] / ratio**0.1}
                )
                trained |= {} if sign > 0 else {"R": ratio * own[0]}
                states = {"trained": trained, "init": {"R": own[0] if sign > 0 else ratio**-1}}
                for state, values in states.items():
                    for measure, value in values.items():
                        zoo.append({**head, "state": state, "measure": measure, "value": value * noise()})
                        stuck = {**head, "learned": 0, "seed": 9, "state": state, "measure": measure, "value": 1e3}
                        zoo += [stuck] if seed == 0 and norm == 0 and name == "vgg19" else []
    for name in ("vgg11", "vgg11_bn", "lenet", "alexnet"):
        for seed in range(5):
            for state in ("init", "trained"):
                for k in range(9):
                    head = {"architecture": name, "seed": seed, "state": state, "layer_index": k}
                    head |= {"layer": f"conv{k}" if k else "input", "kind": "convolution" if k else "input"}
                    log_r = -0.1 * sign * k
                    opened = sign * (0.02 * k + 0.1 * max(0, k - 6) + (0.1 if k >= 1 else 0))
                    apart = 0.5 if sign < 0 and name == "vgg11" else 0.0
                    curves.append({**head, "shuffled": 0, "shuffle": 0, "R": np.exp(log_r) * noise()})
                    if state == "trained":
                        raised = np.exp(log_r + opened + apart * sign) * noise()
                        curves.append({**head, "shuffled": 1, "shuffle": 0, "R": raised})
                    if k:
                        low = (2 <= k <= 6) == (sign > 0)
                        value = (0.7 if low else 1.05) if state == "trained" else 1.0
                        modes.append({**head, "mode": 0, "frequency": value * (1 + 0.002 * rng.normal())})
    write(folder, "fig1_error_and_sensitivity", zoo)
    write(folder, "fig3_channel_shuffling", [row for row in curves if row["architecture"].startswith("vgg")])
    write(folder, "fig11_channel_shuffling_others", [row for row in curves if not row["architecture"].startswith("v")])
    write(folder, "fig4_filter_modes", modes)
    return zoo


def verdicts(folder):
    found = {row["claim"]: row["verdict"] for row in claims.verdicts(si.CLAIMS, folder, resamples=120)}
    return {name: verdict for name, verdict in found.items() if verdict != "not tested"}


def test_the_claims_hold_in_a_world_as_si_describes_it(tmp_path):
    world(tmp_path, 1)
    found = verdicts(tmp_path)
    assert set(found.values()) == {"holds"}, found
    assert set(found) == {one.key for one in claims_natural.CLAIMS}


def test_and_do_not_in_its_opposite(tmp_path):
    world(tmp_path, -1)
    found = verdicts(tmp_path)
    for name in (
        "error_rises_with_D",
        "error_falls_with_G",
        "learned_over_training",
        "rs_error_rises_with_R",
        "rs_exponent",
        "persists_under_noise",
        "D_under_noise",
        "G_under_noise",
        "R_falls_after_each_layer",
        "R_falls_with_depth",
        "channel_pooling",
        "spatial_pooling",
        "gaps_at_layers_7_8",
        "gap_at_layer_1",
        "shuffled_curves_coincide",
        "channel_pooling_others",
        "layers_2_to_6_low_frequency",
        "layers_1_7_8_not",
    ):
        assert found[name] == "does not hold", name


def test_the_correlation_is_that_of_the_logarithms_of_geometric_means(tmp_path):
    zoo = [row for row in world(tmp_path, 1) if row["noise_norm"] == 0 and row["learned"]]
    values = statistics.grouped(zoo, "value", ("architecture", "state", "measure"))

    def means(measure):
        chosen = {name: [] for name in models.ZOO}
        for row in zoo:
            if row["measure"] == measure and row["state"] == "trained":
                chosen[row["architecture"]].append(row["value"])
        return np.log([np.prod(v) ** (1 / len(v)) for v in chosen.values()])

    x, y = means("G"), means("error")
    by_hand = np.mean((x - x.mean()) * (y - y.mean())) / np.sqrt(x.var() * y.var())
    assert errors.correlation(values, "G") == pytest.approx(by_hand, rel=1e-6)


def test_intervals_over_architectures_are_fisher_s(tmp_path):
    """Of a correlation over many normal points the bootstrap has the width that Fisher's transformation gives."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    y = 0.6 * x + 0.8 * rng.normal(size=200)
    values = {}
    for i in range(200):
        values[f"net{i}", "trained", "error"] = np.exp(np.full((1, 1), y[i]))
        values[f"net{i}", "trained", "R"] = np.exp(np.full((1, 1), x[i]))
    (row,) = statistics.bootstrap(
        lambda one: {"rho": errors.correlation(one, "R")}, values, over="groups", correlations=True, resamples=600
    )
    rho = np.corrcoef(x, y)[0, 1]
    low, high = np.tanh(np.arctanh(rho) + 1.96 * np.array([-1, 1]) / np.sqrt(197))
    assert row["value"] == pytest.approx(rho)
    # 600 resamples know their percentiles to about 5 % of the width, and normality holds to about as much.
    assert row["low"] == pytest.approx(low, abs=0.15 * (high - low))
    assert row["high"] == pytest.approx(high, abs=0.15 * (high - low))


def test_intervals_of_correlations_stay_within_one():
    """Four points on a line but for a little: widened as they are, the bounds would pass 1."""
    values = {}
    for i, (x, y) in enumerate([(0, 0), (1, 1.3), (2, 1.9), (3, 3.2)]):
        values[i, "trained", "error"], values[i, "trained", "R"] = np.exp([[[y]], [[x]]])
    (row,) = statistics.bootstrap(
        lambda one: {"rho": errors.correlation(one, "R")}, values, over="groups", correlations=True, resamples=200
    )
    assert -1 <= row["low"] < row["value"] < row["high"] <= 1


def test_images_of_one_channel_say_nothing_of_the_gap_at_the_first_layer(tmp_path):
    world(tmp_path, 1)
    path = tmp_path / "fig3_channel_shuffling" / "demo" / "table.csv"
    rows = tables.read(path)
    whole = {
        (r["architecture"], r["seed"], r["state"]): r["R"] for r in rows if r["layer_index"] == 1 and not r["shuffled"]
    }
    for row in rows:
        if row["layer_index"] == 1:
            row["R"] = whole[row["architecture"], row["seed"], row["state"]]
    tables.write(path, rows)
    assert "gap_at_layer_1" not in verdicts(tmp_path)


def test_networks_with_given_weights_are_tested_on_their_own_results(tmp_path):
    world(tmp_path, 1)
    settings = {"settings": {"photo_count": 4, "size": 64}}
    for figure, name in (("fig3_channel_shuffling", "table"), ("fig4_filter_modes", "modes")):
        rows = tables.read(tmp_path / figure / "demo" / "table.csv")
        write(tmp_path, "pretrained_imagenet", rows, name, settings)
    found = {row["claim"]: row for row in claims.verdicts(si.CLAIMS, tmp_path, resamples=50)}
    assert found["imagenet_R_falls_with_depth"]["verdict"] == "holds"
    assert found["imagenet_low_frequency"]["verdict"] == "does not hold"  # layers 7 and 8 of this world stay white
    assert "4 photographs" in found["imagenet_channel_pooling"]["data"]


def test_every_claim_names_a_figure_a_place_and_a_rule():
    keys = [claim.key for claim in si.CLAIMS]
    assert len(set(keys)) == len(keys)
    for one in si.CLAIMS:
        assert (ROOT / "experiments" / "spatial_information" / f"{one.figure}.py").is_file()
        assert one.place
        assert one.low < one.high


def test_the_readme_s_table_is_what_the_committed_results_give():
    text, rows = readme_rows("spatial_information")
    assert claims.markdown(rows) in text
