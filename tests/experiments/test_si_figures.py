"""SI's figures of sections 1 and 2 at smoke scale, as their user would run them."""

import jax
import numpy as np
import pytest
import skimage
from figure_results import main_of, read
from PIL import Image

from deform_jax import models, training, warps
from experiments.common import cli, runs, tables
from experiments.spatial_information import (
    errors,
    fig3_channel_shuffling,
    measures,
    modes,
    pretrained_imagenet,
    recipes,
)

HERE = (
    "fig1_error_and_sensitivity",
    "fig2_pooling",
    "fig3_channel_shuffling",
    "fig4_filter_modes",
    "fig10_noisy_training",
    "fig11_channel_shuffling_others",
    "fig12_spatial_frequency",
    "fig13_filter_modes_deep",
    "fig14_filter_modes_alexnet",
    "temperatures",
)


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_fig1_table_holds_every_single_measurement_and_its_summary_every_correlation(smoke):
    table = read(smoke("fig1_error_and_sensitivity"))
    # Noises, architectures, seeds; error and norm once, and D, G, R in two conventions and states.
    assert len(table) == 2 * 2 * 2 * (2 + 2 * 2 * 3)
    summary = read(smoke("fig1_error_and_sensitivity"), "summary")
    assert len(summary) == 2 * 2 * 6
    accuracy = read(smoke("fig1_error_and_sensitivity"), "accuracy")
    errors_of = [row for row in table if row["measure"] == "error"]
    assert [float(row["value"]) for row in errors_of] == [1 - float(row["test_accuracy"]) for row in accuracy]


def test_fig3_agrees_with_a_numpy_recomputation(smoke, runs):
    """From the saved network, chosen on held-out images: SI's Eq. 1 by explicit loops, at one layer."""
    rows = read(smoke("fig3_channel_shuffling"))
    settings = fig3_channel_shuffling.SCALES["smoke"]
    task = recipes.load_task(settings.networks, cli.Options())
    sample = measures.perturbed(settings.probe, task)
    model = models.create("vgg11", width=settings.networks.training.width, num_classes=10)
    (folder,) = runs.glob("vgg11-*/seed_001/states/best/1")
    represent = models.represent(model, training.load(folder).variables)
    clean, deformed, noisy = (np.asarray(represent(batch)["conv05"], np.float64).reshape(32, -1) for batch in sample)
    between = [np.square(a - b).sum() for i, a in enumerate(clean) for b in clean[:i]]
    expected = [np.square(moved - clean).sum(axis=1).mean() / np.mean(between) for moved in (deformed, noisy)]
    (row,) = [r for r in rows if (r["seed"], r["state"], r["shuffled"], r["layer"]) == ("1", "trained", "0", "conv05")]
    np.testing.assert_allclose([float(row["D"]), float(row["G"])], expected, rtol=1e-4)
    assert float(row["R"]) == pytest.approx(expected[0] / expected[1], rel=1e-4)
    assert float(row["depth"]) == 5 / 8
    norms = [np.linalg.norm(np.asarray(moved - sample.images).reshape(32, -1), axis=1) for moved in sample[1:]]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_networks_of_different_depth_are_drawn_together(smoke):
    rows = tables.read(smoke("fig4_filter_modes") / "table.csv")
    shallow = [{**row, "architecture": "vgg13"} for row in rows if row["layer_index"] <= 5]
    figure = modes.draw([*rows, *shallow])
    assert [len(panel.get_lines()) for panel in figure.axes] == [4] * 5 + [2] * 3


def test_images_are_deformed_at_the_temperature_of_one_pixel(smoke):
    probe = measures.Probe()
    assert probe.perturb == warps.random_max_entropy(displacement=1.0, cutoff=3)
    table = tables.read(smoke("temperatures") / "table.csv")
    (low, high) = warps.temperature_range(cutoff=3, size=32)
    assert {row["valid"] for row in table} == {0.0, 1.0}
    assert all(row["valid"] == (low <= row["temperature"] <= high) for row in table)
    norms = [row["perturbation_norm"] for row in table if row["seed"] == 0]
    assert norms == sorted(norms)


def test_networks_are_trained_as_si_says():
    networks = recipes.PAPER
    convolutional, connected = (networks.training_of(name) for name in ("resnet18", "fc_l4"))
    assert (convolutional.recipe.method, convolutional.recipe.learning_rate) == ("sgd", 0.1)
    assert (convolutional.recipe.momentum, convolutional.recipe.weight_decay) == (0.9, 5e-4)
    assert (convolutional.recipe.batch_size, convolutional.recipe.epochs) == (128, 250)
    assert (connected.recipe.method, connected.recipe.learning_rate, connected.recipe.weight_decay) == ("adam", 0.1, 0)
    assert convolutional.selection == "best"
    assert convolutional.augment
    assert networks.seeds == 5
    assert networks.architectures == models.ZOO
    assert len(models.ZOO) == 17
    assert errors.ZOO_SCALES["paper"].noise_norms == (0.0, 0.01, 0.1, 1.0, 10.0, 30.0, 100.0)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fig1_error_and_sensitivity", ["--architectures", "vgg12"], "--architectures must name some of"),
        ("fig1_error_and_sensitivity", ["--noise-norms", "1"], "--noise-norms must hold 0"),
        ("fig1_error_and_sensitivity", ["--network", "vgg11"], "--architectures says which"),
        ("fig3_channel_shuffling", ["--shuffles", "0"], "--shuffles must be at least 1"),
        ("fig3_channel_shuffling", ["--validation-images", "0"], "give --validation-images too"),
        ("temperatures", ["--cutoffs", "1"], "cutoffs"),
        ("pretrained_imagenet", ["--photos", "nowhere"], "there is no nowhere"),
    ],
)
def test_impossible_settings_say_what_to_do(name, arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main_of(name)(["--scale", "smoke", "--results", str(tmp_path), "--runs", str(tmp_path), *arguments])
    assert stop.value.code not in (0, None)
    assert message in " ".join(f"{stop.value.code} {capsys.readouterr().err}".replace("│", " ").split())


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(("astronaut", "coffee", "camera", "brick")):
        path = tmp_path / "photos" / ("" if i else "more") / f"{name}.{'png' if i else 'JPG'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage.data, name)()).save(path)
    return tmp_path / "photos"


def test_trained_imagenet_networks_are_probed_with_a_folder_of_photographs(photos, tmp_path, monkeypatch):
    """With a narrow network of random weights in the place of a loaded one, through the real command."""
    rng = np.random.default_rng(0)

    def weights(leaf):
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.0
        return np.float32(spread * rng.normal(size=leaf.shape))

    def load(source, name=None, *, cache=None):
        model = models.create(f"{source}_imagenet", width=1 / 32, num_classes=7)
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
        return model, jax.tree.map(weights, jax.eval_shape(model.init, jax.random.key(0), image))

    monkeypatch.setattr(models, "load_pretrained", load)
    results = tmp_path / "results"
    shared = ["--scale", "smoke", "--photos", str(photos), "--results", str(results)]
    main_of("pretrained_imagenet")([*shared, "--weights", "vgg11"])
    rows = read(results)
    assert len(rows) == 2 * (1 + 8 + 2 + 1)  # whole and shuffled; input, convolutions, dense layers, output
    inputs = {row["D"] for row in rows if row["layer"] == "input"}
    assert len(inputs) == 1  # whole and shuffled networks see the same perturbations
    drawn = {path.name for path in results.glob("*.png")}
    assert drawn == {f"{stem}.png" for stem in ("pretrained_imagenet", "fig4_imagenet", "fig12_imagenet")}
    for path in results.glob("*.png"):
        path.unlink()
    main_of("pretrained_imagenet")([*shared, "--plot-only"])
    assert {path.name for path in results.glob("*.png")} == drawn


def test_a_photograph_is_scaled_and_cut_as_torchvision_does(tmp_path):
    """The centre of the photograph with its shorter side at 256/224 of the crop's."""
    ramp = np.tile(np.linspace(0, 255, 512).astype(np.uint8)[None, :, None], (256, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "wide.png")
    cut = pretrained_imagenet.read(tmp_path / "wide.png", 224)
    assert cut.shape == (224, 224, 3)
    np.testing.assert_allclose(cut[:, 0].mean(), 255 * (144 / 511), atol=1)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(SystemExit, match=r"broken\.png cannot be read"):
        pretrained_imagenet.read(tmp_path / "broken.png", 224)


def test_the_network_that_did_best_on_held_out_images_is_the_one_measured(runs, smoke):
    smoke("fig3_channel_shuffling")
    (folder,) = runs.glob("vgg11-*/seed_000")
    history = training.load(folder / "states" / "final").manifest["history"]
    assert "evaluation_accuracy" in history[-1]
    settings = recipes.SMOKE.training_of("vgg11")
    best = recipes.selected_epoch(runs_trained(folder, history), settings)
    assert (folder / "states" / "best" / str(best)).is_dir()


def runs_trained(folder, history):
    return runs.Trained(0, None, None, history, folder)
