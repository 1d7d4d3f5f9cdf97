"""SI Figs 5 and 6, Prop. A.1, and G with and without ReLU: at smoke scale, and their numbers."""

import itertools
import math

import numpy as np
import pytest
from figure_results import main_of, read

from deform_jax import training
from experiments.common import tables
from experiments.spatial_information import fig6_pixel_diffusion, rectification, simple_measures

HERE = ("fig5_scale_detection_inputs", "fig6_pixel_diffusion", "diffusion_constants", "rectification")


@pytest.mark.parametrize("name", HERE)
def test_smoke_scale_writes_table_provenance_and_figure_and_redraws(name, complete):
    complete(name)


def test_fig5_counts_pairs_as_si_s_settings_have_them(smoke):
    found = {
        row["setting"]: tuple(int(row[name]) for name in ("close", "far", "dropped"))
        for row in read(smoke("fig5_scale_detection_inputs"))
    }
    patches = math.comb(28**2, 2)
    assert found == {
        "1-D task 1": (256, 112, 128),
        "1-D task 1, full gap": (192, 48, 256),
        "1-D task 2": (1984, 6144, 0),
        "2-D task 1": (130_206, 145_202, 31_528),
        "2-D task 1, 32 pixels": _counts_by_offset(32, 14, 2),
        # Four patches, of 14² pixels each.
        "2-D task 2": (4 * math.comb(196, 2), patches - 4 * math.comb(196, 2), 0),
    }


def _counts_by_offset(side, scale, gap):
    """Pairs by the offset between them: (side − |dy|) (side − |dx|) places for each."""
    counts = [0, 0, 0]
    for dy, dx in itertools.product(range(side), range(-side + 1, side)):
        if (dy, dx) > (0, 0):
            distance = math.hypot(dy, dx)
            kind = 0 if distance < scale - gap / 2 else 1 if distance >= scale + gap / 2 else 2
            counts[kind] += (side - dy) * (side - abs(dx))
    return tuple(counts)


def test_fig5_draws_one_pair_of_each_class_and_moves_by_at_most_a_pixel(smoke):
    rows = tables.read(smoke("fig5_scale_detection_inputs") / "examples.csv")
    assert len(rows) == 4 * 2 * 2 * 2  # tasks, classes, pixels, versions
    sides = {"a": (28, 28), "b": (28, 28), "c": (1, 32), "d": (1, 128)}
    places = {
        (panel, label, version): np.asarray(
            [[row["row"], row["column"]] for row in tables.select(rows, panel=panel, label=label, version=version)]
        )
        for panel in sides
        for label in (0, 1)
        for version in ("image", "displaced")
    }
    for (panel, label, version), pixels in places.items():
        moves = np.abs(places[panel, label, "displaced"] - places[panel, label, "image"])
        assert np.minimum(moves, np.asarray(sides[panel]) - moves).max() <= 1
        apart = np.abs(pixels[0] - pixels[1])
        if version == "displaced":
            continue
        if panel == "a":
            assert (math.hypot(*apart) < 13) if label else (math.hypot(*apart) >= 15)
        elif panel == "c":
            distance = min(apart[1], 32 - apart[1])
            assert (distance < 9) if label else (distance >= 13)
        else:
            patches = pixels // (14 if panel == "b" else 32)
            assert (patches[0] == patches[1]).all() == bool(label)


def test_fig6_s_receptive_fields_are_those_of_repeated_convolutions(smoke):
    folder = smoke("fig6_pixel_diffusion")
    rows = tables.read(folder / "table.csv")
    expected = {1.0: [math.sqrt(2 * k) for k in range(1, 7)], 2.0: [2, 4, 8, 16]}
    for stride, widths in expected.items():
        for name in ("receptive_field", "exact"):
            found = [row[name] for row in tables.select(rows, stride=stride)]
            np.testing.assert_allclose(found, widths, rtol=1e-12)
    shown = tables.read(folder / "representations.csv")
    kernel = np.ones(1)
    for layer in range(1, 7):
        kernel = np.convolve(kernel, np.ones(5) / 5)
        image = np.bincount([14, 34], minlength=48)
        wanted = np.convolve(np.tile(image, 3), kernel, mode="same")[48:96]
        found = [row["value"] for row in tables.select(shown, panel="left", layer=layer)]
        np.testing.assert_allclose(found, wanted, atol=1e-15)
    for layer in range(5):
        counts = np.bincount(np.asarray([5, 11]) // 2**layer, minlength=32 // 2**layer)
        assert [row["value"] for row in tables.select(shown, panel="right", layer=layer)] == counts.tolist()


def test_fig6_measures_what_wraps_around():
    """Many layers make a pixel uniform over the image, of width √((L² − 1)/12)."""
    found = fig6_pixel_diffusion.width(12, {"filter_size": 5, "stride": 1, "layers": 60})
    assert found[-1] == pytest.approx(math.sqrt(143 / 12), rel=1e-6)


def test_the_constants_measured_are_the_correct_ones_and_not_the_printed(smoke):
    rows = tables.read(smoke("diffusion_constants") / "table.csv")
    assert len(rows) == 5 * 16
    printed = {2: 1 / 6, 3: 2 / 9, 4: 0.75, 5: 16 / 15, 7: 18 / 7}
    for row in rows:
        size = int(row["filter_size"])
        # A layer adds the variance of a uniform distribution on F sites, and its mean: half a pixel for even F.
        sites = np.arange(size) - size // 2 + (size % 2 == 0)
        assert row["diffusion"] == pytest.approx(np.var(sites) / 2, rel=1e-9)
        assert row["drift"] == pytest.approx(np.mean(sites), abs=1e-9)
        assert row["diffusion_correct"] == pytest.approx(row["diffusion"], rel=1e-9)
        assert row["drift_correct"] == pytest.approx(row["drift"], abs=1e-9)
        assert row["diffusion_printed"] == pytest.approx(printed[size], rel=1e-9)
        assert row["drift_printed"] == pytest.approx((size - 1) / (2 * size) * (size % 2 == 0), abs=1e-12)
        assert abs(row["diffusion_printed"] / row["diffusion"] - 1) > 0.06


def test_only_the_correct_gaussian_is_approached(smoke):
    """Relative to the peak, its error falls as 1/k; with the printed constants it never falls below some share."""
    rows = tables.read(smoke("diffusion_constants") / "table.csv")
    for size in (2, 3, 4, 5, 7):
        first, last = (
            tables.select(rows, filter_size=size, layer=8)[0],
            tables.select(rows, filter_size=size, layer=16)[0],
        )
        right = [row["error_correct"] / row["peak"] for row in (first, last)]
        assert right[1] / right[0] == pytest.approx(0.5, abs=0.12)
        wrong = [row["error_printed"] / row["peak"] for row in (first, last)]
        assert wrong[1] > 2 * right[1]
        assert wrong[1] > 0.9 * wrong[0]


def test_without_relu_g_is_that_of_the_same_weights_as_matrices(smoke, runs):
    """Of a trained network of smoke scale, at its second layer, with noise that is not rectified."""
    folder, wanted = smoke("rectification"), rectification.SCALES["smoke"]
    (path,) = runs.glob("simple_cnn_stride2-*/seed_001/states/final")
    params = training.load(path).variables["params"]

    def represent(images):
        x = np.asarray(images, np.float64)
        for layer in ("conv01", "conv02"):
            kernel, bias = (np.asarray(params[layer][name], np.float64) for name in ("kernel", "bias"))
            pairs = x.reshape(len(x), -1, 2 * x.shape[-1])
            scale = math.sqrt(2 * x.shape[-1])
            x = math.sqrt(2) * (pairs @ kernel.reshape(-1, kernel.shape[-1]) / scale + bias)
        return x.reshape(len(x), -1)

    found = simple_measures.sample(wanted.probe(rectified=False), "task2")
    clean, noisy = represent(found.images), represent(found.noisy[0])
    between = [np.square(clean[:i] - one).sum(axis=1) for i, one in enumerate(clean)]
    expected = np.square(noisy - clean).sum(axis=1).mean() / np.concatenate(between).mean()
    head = {"units": "linear", "noise": "plain", "state": "trained", "seed": 1, "layer": "conv02"}
    (row,) = tables.select(tables.read(folder / "table.csv"), **head)
    assert row["G"] == pytest.approx(expected, rel=1e-4)


def test_g_grows_in_theory_only_where_noise_is_rectified(smoke):
    rows = tables.read(smoke("rectification") / "theory.csv")
    plain, rectified = ([row["G"] for row in tables.select(rows, noise=name)] for name in ("plain", "rectified"))
    np.testing.assert_allclose(plain[:5], 1, atol=0.02)
    assert [round(value, 4) for value in rectified] == [0.6613, 0.9796, 1.6144, 2.8761, 5.3690, 15.6018]


def test_slopes_are_those_of_power_laws_against_the_trained_networks_receptive_fields():
    rows, theory = [], []
    for k, width in enumerate((2.0, 4.0, 8.0, 16.0, 32.0), 1):
        head = {"task": "task2", "layer_index": k, "layer": f"conv0{k}"}
        for noise, power in (("rectified", 1.0), ("plain", 0.0)):
            theory.append({**head, "noise": noise, "A": width, "G": 3 * width**power})
            for state, units, seed in (("trained", "relu", 0), ("trained", "linear", 0), ("init", "relu", 0)):
                own = {"A": width if (state, units) == ("trained", "relu") else 1.0, "G": width ** (power / 2)}
                rows += [{**head, **own, "noise": noise, "state": state, "units": units, "seed": seed}]
    found = rectification.summarise(rows, theory)
    assert len(found) == 6
    for row in found:
        exact = 1.0 if row["noise"] == "rectified" else 0.0
        assert (row["value"], row["exact"]) == pytest.approx((exact / 2, exact), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fig6_pixel_diffusion", ["--pixels-1", "3", "48"], "--pixels-1 must be from 0 to 47"),
        ("fig6_pixel_diffusion", ["--layers", "6", "6"], "Argument `layers` must leave whole sites"),
        ("diffusion_constants", ["--filter-sizes", "1"], "--filter-sizes must be at least 2"),
        ("diffusion_constants", ["--length", "64"], "--length must be at least"),
        ("diffusion_constants", ["--shown", "17"], "--shown must be from 1"),
    ],
)
def test_impossible_settings_say_what_to_do(name, arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main_of(name)(["--scale", "smoke", "--results", str(tmp_path), *arguments])
    assert stop.value.code not in (0, None)
    assert message in " ".join(f"{stop.value.code} {capsys.readouterr().err}".replace("│", " ").split())
