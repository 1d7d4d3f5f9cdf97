"""Estimated costs: FLOPs against closed forms, and the committed table."""

import dataclasses
import itertools
import pathlib

import pytest

from deform_jax import data, training
from experiments import __main__ as listing
from experiments.__main__ import main as run
from experiments.common import costs, tables
from experiments.common.tasks import FEATURES, PAIRS, Training
from experiments.learned_stability import fig5_synthetic_tasks, fig7_random_labels
from experiments.spatial_information import errors

ROOT = pathlib.Path(__file__).parents[2]


def test_flops_of_a_fully_connected_step_are_those_of_its_products():
    """Forward, and both gradients, 2 n_in n_out each; the images take no gradient. Biases, loss and SGD are small."""
    wanted = Training(dataset=FEATURES, features=data.Combinatorial(), network="fc_l2", width=1.0, train_images=64)
    sizes = [32 * 32, 64, 2]
    products = [2 * n * m for n, m in itertools.pairwise(sizes)]
    expected = 3 * sum(products) - products[0]
    assert expected < costs.step_flops(wanted, None) < 1.05 * expected


def test_flops_of_a_convolution_are_those_of_its_taps():
    """Of a simple CNN with circular padding: L F n_in n_out multiply-adds, three times but for the images."""
    recipe = training.Recipe(loss="hinge", batch_size=8)
    wanted = Training(dataset=PAIRS, network="simple_cnn_stride1", width=0.2, train_images=48, recipe=recipe)
    taps = [2 * 32 * 3 * n * 200 for n in (1, *[200] * 11)]
    expected = 3 * sum(taps) - taps[0]
    assert expected < costs.step_flops(wanted, None) < 1.15 * expected


def test_images_and_networks_are_counted_as_trained():
    assert costs.images_of(Training()) == (50_000 // 128 * 128, 100)
    assert costs.images_of(Training(validation_images=5_000)) == (45_000 // 128 * 128, 100)
    assert costs.images_of(dataclasses.replace(Training(), task="deformed_templates"))[0] == 12_800
    counted = [list(costs.groups(module.SCALES["paper"])) for module in (fig5_synthetic_tasks, fig7_random_labels)]
    assert [sum(group.seeds for group in found) for found in counted] == [4 * 5 * 5, 3 * 5 * 5]
    noises = len(errors.ZOO_SCALES["paper"].noise_norms)
    assert sum(group.seeds for group in costs.groups(errors.ZOO_SCALES["paper"])) == noises * 17 * 5


def test_figures_that_share_networks_pay_once(tmp_path, capsys):
    arguments = ["fig6_filter_smoothness", "fig3_layer_sensitivity", "fig1_deformed_images", "--scale", "smoke"]
    assert run(["costs", *arguments, "--results", str(tmp_path)]) == 0
    first, second = tables.read(tmp_path / "costs.csv")
    assert (first["networks"], second["networks"]) == (4, 0)
    assert first["images"] == 4 * 256
    assert second["shares_networks_of"] == "fig6_filter_smoothness"
    assert first["H200_hours"] == pytest.approx(first["flops"] / 989e12 / 0.1 / 3600)
    assert "| `fig3_layer_sensitivity` | those of `fig6_filter_smoothness` |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["fig0"], ["--utilisation", "2"], ["fig1_deformed_images"]])
def test_impossible_costs_are_refused(arguments, tmp_path):
    with pytest.raises(SystemExit) as stop:
        run(["costs", *arguments, "--results", str(tmp_path)])
    assert stop.value.code == 2


def test_the_readme_has_the_committed_costs():
    rows = tables.read(ROOT / "experiments" / "results" / "costs" / "costs.csv")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(costs.BEGIN)[1].split(costs.END)[0].strip() == costs.markdown(rows)
    assert {row["figure"] for row in rows} <= set(listing.figures())
