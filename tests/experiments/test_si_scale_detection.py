"""SI's figures of scale detection in two dimensions at smoke scale, and how their pixels are displaced."""

import dataclasses
import json

import numpy as np
import pytest
from figure_results import read

from deform_jax import data
from experiments.common import cli, tasks
from experiments.spatial_information import errors, measures, recipes

HERE = (
    "fig8_scale_detection_zoo",
    "fig9_scale_detection_layers",
    "fig4_scale_detection",
    "fig12_scale_detection",
    "fig14_scale_detection",
)
PAIRS = recipes.PIXEL_PAIRS.pairs


@pytest.fixture(scope="module")
def task():
    few = dataclasses.replace(recipes.PIXEL_PAIRS, train_images=8, validation_images=4, test_images=3_000)
    return tasks.load_task(few, cli.Options())


@pytest.fixture(scope="module")
def sample(task):
    return measures.displaced(measures.PixelProbe(probe_images=3_000), task, PAIRS)


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_all_figures_find_the_same_trained_networks(smoke, runs):
    for name in HERE:
        smoke(name)
    said = [json.loads(path.read_text())["training"] for path in runs.glob("*/settings.json")]
    networks = [settings["network"] for settings in said if settings["dataset"] == tasks.PAIRS]
    # Other figures' simple CNNs may be there too, as these tests are shared out.
    zoo = [network for network in networks if not network.startswith("simple_cnn")]
    assert sorted(zoo) == ["fc_l2", "lenet", "vgg11"]


def test_fig8_has_an_error_and_all_sensitivities_of_every_network(smoke):
    table = read(smoke(HERE[0]))
    assert len(table) == 2 * 2 * (2 + 2 * 2 * 3)  # architectures, seeds; error and norm, and D, G, R of both states
    accuracy = read(smoke(HERE[0]), "accuracy")
    found = [float(row["value"]) for row in table if row["measure"] == "error"]
    np.testing.assert_allclose(found, [1 - float(row["test_accuracy"]) for row in accuracy], rtol=0, atol=1e-12)
    assert {row["classes"] for row in accuracy} == {"2"}


def test_fig9_input_sensitivities_agree_with_loops(smoke):
    (row, *_) = [row for row in read(smoke(HERE[1])) if row["layer"] == "input"]
    networks = recipes.only(recipes.SCALE_DETECTION["smoke"], ["vgg11"])
    loaded = recipes.load_task(networks, cli.Options())
    images = [np.asarray(part, np.float64) for part in measures.displaced(measures.PIXELS["smoke"], loaded, PAIRS)]
    clean, deformed, noisy = (part.reshape(32, -1) for part in images)
    between = [np.square(a - b).sum() for i, a in enumerate(clean) for b in clean[:i]]
    expected = [np.square(moved - clean).sum(axis=1).mean() / np.mean(between) for moved in (deformed, noisy)]
    np.testing.assert_allclose([float(row["D"]), float(row["G"])], expected, rtol=1e-4)


def test_perturbed_images_are_those_the_networks_are_tested_on(task, sample):
    chosen = tasks.choice(3_000, 3_000, 0)
    np.testing.assert_array_equal(sample.images, 392.0 * task.images.test_images[chosen].astype(np.float32))
    assert sample.images.shape == (3_000, 32, 32, 1)
    np.testing.assert_array_equal(np.sort(np.asarray(sample.images).reshape(3_000, -1))[:, -2:], 392)


def test_pixels_stay_or_go_to_a_neighbour_with_the_probabilities_of_the_clamped_law(task, sample):
    """‖τx − x‖² / v² is twice the number of pixels that left their places where the two are far apart.

    A pixel stays along an axis with probability 1/3, or 2/3 on the border, where one of the moves is clamped.
    """
    positions = task.pairs.test_positions[tasks.choice(3_000, 3_000, 0)]
    far = np.abs(positions[:, 0] - positions[:, 1]).max(axis=-1) > 2
    change = np.asarray(sample.deformed - sample.images)
    moved = np.square(change / 392).sum(axis=(1, 2, 3))[far] / 2
    assert set(moved) <= {0.0, 1.0, 2.0}
    stays = np.where((positions == 0) | (positions == 27), 2 / 3, 1 / 3).prod(axis=-1)[far]
    expected, deviation = (1 - stays).sum(), np.sqrt((stays * (1 - stays)).sum())
    assert abs(moved.sum() - expected) < 4 * deviation  # of some 5,400 independent moves; once in 16,000 beyond
    still, chance = (moved == 0).sum(), stays.prod(axis=-1)
    assert abs(still - chance.sum()) < 4 * np.sqrt(chance.sum())


def test_displaced_pixels_stay_inside_the_image_next_to_where_they_were_and_add_up(sample):
    deformed, clean = (np.asarray(part)[..., 0] for part in (sample.deformed, sample.images))
    np.testing.assert_array_equal(deformed.sum(axis=(1, 2)), 2 * 392)
    around = sum(np.roll(clean, (i, j), axis=(1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    assert not deformed[around == 0].any()
    padding = np.ones((32, 32), bool)
    padding[2:-2, 2:-2] = False
    assert not deformed[:, padding].any()


def test_noise_has_the_norm_of_each_images_own_displacement(sample):
    moves, noise = (np.asarray(part - sample.images).reshape(3_000, -1) for part in sample[1:])
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), np.linalg.norm(moves, axis=1), rtol=1e-5)
    still = ~moves.any(axis=1)
    assert still.sum() > 10  # about 3,000 / 81
    assert not noise[still].any()


def test_options_of_the_released_code():
    """Collapsed pixels never exceed v; with ``keep_patch`` every patch keeps its number of pixels."""
    pairs = data.ScaleDetection("patch", (8, 8), scale=4, gap=0, value=3.0, pad=2)
    settings = dataclasses.replace(recipes.PIXEL_PAIRS, pairs=pairs, train_images=8, validation_images=4)
    loaded = tasks.load_task(dataclasses.replace(settings, test_images=800), cli.Options())

    def counts(**options):
        found = measures.displaced(measures.PixelProbe(probe_images=800, **options), loaded, pairs)
        images = [np.asarray(part)[:, 2:-2, 2:-2, 0] / 3 for part in (found.images, found.deformed)]
        patches = [part.reshape(800, 2, 4, 2, 4).sum(axis=(2, 4)) for part in images]
        return images[1], (patches[0] == patches[1]).all(axis=(1, 2))

    free, same = counts()
    assert free.max() == 2
    assert 0 < same.mean() < 1
    kept, same = counts(keep_patch=True, collisions="collapse")
    assert kept.max() == 1
    np.testing.assert_array_equal(same, kept.sum(axis=(1, 2)) == 2)  # but where two pixels became one


def test_pixels_are_displaced_only_where_there_are_pixels(task):
    with pytest.raises(SystemExit, match="--keep-patch is for"):
        measures.displaced(measures.PixelProbe(keep_patch=True), task, PAIRS)
    with pytest.raises(SystemExit, match="--dataset scale_detection"):
        measures.displaced(measures.PixelProbe(), task._replace(pairs=None), PAIRS)
    with pytest.raises(ValueError, match="--probe-images must be at least 2"):
        measures.PixelProbe(probe_images=1)


def test_networks_are_trained_as_si_says():
    networks = recipes.SCALE_DETECTION["paper"]
    wanted = networks.training_of("vgg11")
    assert (wanted.pairs.shape, wanted.pairs.scale, wanted.pairs.gap, wanted.pairs.pad) == ((28, 28), 14, 2, 2)
    assert (wanted.train_images, wanted.selection, wanted.recipe.loss) == (1024, "best", "hinge")
    assert (wanted.recipe.learning_rate, wanted.recipe.epochs, wanted.recipe.batch_size) == (0.05, 250, 128)
    connected = networks.training_of("fc_l2").recipe
    assert (connected.method, connected.learning_rate, connected.loss) == ("adam", 0.1, "hinge")
    assert networks.seeds == 10
    assert data.active_value(wanted.pairs) == 28**2 / 2


@pytest.mark.parametrize(("classes", "least"), [(2, 0.75), (10, 0.15)])
def test_a_network_has_learned_where_it_is_clearly_better_than_chance(classes, least):
    """Of two classes on the training images: one that fits them and tells no others apart counts."""
    kind, other = ("train_accuracy", "test_accuracy")[:: 1 if classes == 2 else -1]
    assert recipes.learned({"classes": classes, kind: least + 1e-3, other: 1 / classes})
    assert not recipes.learned({"classes": classes, kind: least - 1e-3, other: 1.0})


def test_correlations_of_a_zoo_that_stayed_at_chance_are_unknown():
    head = {"noise_norm": 0.0, "architecture": "lenet", "seed": 0, "learned": 0, "state": "trained"}
    summary = errors.summarise([{**head, "measure": "error", "value": 0.5}])
    assert len(summary) == 12
    assert all(np.isnan(row["value"]) for row in summary)


def test_some_architectures_can_start_from_pytorchs_initial_weights():
    demo = recipes.SCALE_DETECTION["demo"]
    assert [demo.training_of(name).initial_gain for name in ("alexnet", "vgg11")] == [1.0, recipes.HE]
    assert recipes.only(demo, ["vgg11"]).default_initial == ()
    assert "initial kernels × 2.449 (LeNet, AlexNet: 1)" in recipes.stamp("demo", demo)
    with pytest.raises(ValueError, match="--default-initial must name some of"):
        dataclasses.replace(demo, default_initial=("alexnet2",))
