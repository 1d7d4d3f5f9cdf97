"""The empirical claims of LS, and the questions it leaves open, each with the statistic and rule that test it.

Statistics are over layers after the input, and means over seeds; thresholds are ours, since LS gives curves.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from experiments.common import statistics
from experiments.common.claims import Claim
from experiments.common.statistics import Values
from experiments.learned_stability import fig3_layer_sensitivity
from experiments.learned_stability.recipes import POOLED

EARLY = 3
"""Layers 1 to 3: the first block."""
FIRST_DOWN = 2
"""Index, after the input, of the first downsampling of both networks."""


def _mean(values: Values, *, state: str, pooled: bool | None = None) -> np.ndarray:
    """Return the mean over downsamplings and seeds, by layer."""
    chosen = [
        array.mean(axis=0)
        for key, array in values.items()
        if key[1] == state and (pooled is None or (key[0] in POOLED) == pooled)
    ]
    return np.mean(chosen, axis=0) if chosen else np.full(1, np.nan)


def _ratio(state: str) -> Callable[[Values], float]:
    """Return the geometric mean over layers, from the first downsampling on, of unpooled over pooled."""
    return lambda values: fig3_layer_sensitivity.gap(values, state, FIRST_DOWN)["ratio"]


def _pooled_change(values: Values) -> float:
    before, after = (_mean(values, state=state, pooled=True) for state in ("init", "trained"))
    return float((np.abs(after - before) / before).mean())


def _log_change(values: Values, layers: slice) -> float:
    before, after = (_mean(values, state=state) for state in ("init", "trained"))
    return float(np.log(after / before)[layers].mean())


def _share_raised(values: Values) -> float:
    names = [key[0] for key in values if key[1] == "init"]
    raised = [values[n, "trained"].mean(axis=0) > values[n, "init"].mean(axis=0) for n in names]
    return float(np.mean(raised))


def _spread(values: Values, state: str) -> float:
    return statistics.relative_spread([array for key, array in values.items() if key[1] == state])


def _spread_left(values: Values) -> float:
    return _spread(values, "trained") / _spread(values, "init")


def _least_fall(values: Values) -> float:
    """Return the largest ratio of successive means, in order of the second part of the keys: below 1 is falling."""
    ratios = [after / before for before, after in itertools.pairwise(_by_step(values))]
    return float(max(ratios, default=float("nan")))


def _by_step(values: Values) -> list[float]:
    steps = sorted({key[1] for key in values})
    return [float(np.mean([a.mean() for key, a in values.items() if key[1] == step])) for step in steps]


def _last_over_first(values: Values) -> float:
    by_step = _by_step(values)
    return by_step[-1] / by_step[0] if len(by_step) > 1 else float("nan")


def _trained_over_initial(values: Values) -> float:
    """Return the largest ratio over downsamplings of the mean over layers, trained over initial."""
    names = {key[0] for key in values}
    ratios = []
    for name in names:
        before, after = (
            np.mean([array.mean() for key, array in values.items() if key[0] == name and key[-1] == state])
            for state in ("init", "trained")
        )
        ratios.append(after / before)
    return float(max(ratios))


def _rank_with_layer(values: Values) -> float:
    trained = _mean(values, state="trained")
    return _rank_correlation(np.arange(len(trained)), trained)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(v)).astype(float) for v in (x, y)]
    return float(np.corrcoef(ranks)[0, 1])


def _task_spread_ratio(values: Values) -> float:
    """Return the spread over downsamplings for random labels, over that for true labels (keys: downsampling, task)."""
    return _spread(values, "random_labels") / _spread(values, "original")


def _between_over_within(values: Values) -> float:
    """Return the sd over downsamplings (of means) over that over seeds (of one downsampling), mean over layers."""
    chosen = [array for key, array in values.items() if key[1] == "random_labels"]
    if len(chosen) < 2 or len(chosen[0]) < 2:
        return float("nan")
    between = np.std([array.mean(axis=0) for array in chosen], axis=0, ddof=1)
    within = np.sqrt(np.mean([array.var(axis=0, ddof=1) for array in chosen], axis=0))
    with np.errstate(divide="ignore"):  # a resample of one seed only has no spread
        return float((between / within).mean())


def _least(values: Values) -> float:
    return float(min(array.min() for array in values.values()))


def _overall(values: Values) -> float:
    return float(np.mean([array.mean() for array in values.values()]))


def _worst_ratio(values: Values) -> float:
    """Return unpooled over pooled at the last layer after training."""
    return float(_mean(values, state="trained", pooled=False)[-1] / _mean(values, state="trained", pooled=True)[-1])


def _detour(values: Values) -> float:
    """Return the share of the way over steps that is undone again, over downsamplings (keys: downsampling, step)."""
    steps, names = sorted({key[1] for key in values}), sorted({key[0] for key in values})
    paths = [np.stack([values[name, step].mean(axis=0) for step in steps]) for name in names]
    return float(np.mean([statistics.detour(path) for path in paths]))


CIFAR10, IMAGENET = "block_vgg_cifar10", "block_vgg_imagenet"
SENSITIVITY, VARIATION, RANDOM = "fig3_layer_sensitivity", "fig6_filter_smoothness", "fig7_random_labels"
INITIAL = "footnote1_initial_variation"

_CLAIMS = (
    Claim(
        "pooling_at_initialisation",
        "3.1",
        "At initialisation, pooling leads to representations that are more stable to deformation",
        SENSITIVITY,
        "sensitivity without pooling over that with pooling, geometric mean over layers, at initialisation",
        _ratio("init"),
        low=1.0,
    ),
    Claim(
        "pooled_networks_change",
        "3.2",
        "The sensitivity of networks with pooling changes significantly over the course of training",
        SENSITIVITY,
        "relative change of pooled networks' sensitivity, absolute, mean over layers",
        _pooled_change,
        low=0.1,
    ),
    Claim(
        "early_layers_rise",
        "3.2",
        "Sensitivity often increases with training, especially in the early layers",
        SENSITIVITY,
        "log of trained over initial mean sensitivity, mean over layers 1 to 3",
        lambda values: _log_change(values, slice(0, EARLY)),
        low=0.0,
    ),
    Claim(
        "often_rises",
        "3.2",
        "While sensitivity sometimes decreases with training, it often increases",
        SENSITIVITY,
        "share of (downsampling, layer) pairs where it rises",
        _share_raised,
        low=0.25,
    ),
    Claim(
        "similar_after_training",
        "3.3",
        "Pooling has almost no effect on the final deformation stability",
        SENSITIVITY,
        "sensitivity without pooling over that with pooling, geometric mean over layers, after training",
        _ratio("trained"),
        low=1 / 1.1,
        high=1.1,
    ),
    Claim(
        "differences_vanish",
        "3.3",
        "By the end of training the differences between downsamplings have vanished",
        SENSITIVITY,
        "spread over downsamplings after training, over that at initialisation",
        _spread_left,
        high=0.25,
    ),
    Claim(
        "euclidean_at_initialisation",
        "2.1",
        "The Euclidean distance gives qualitatively similar results: pooling matters at initialisation",
        SENSITIVITY,
        "as for the cosine distance, in the Euclidean distance",
        _ratio("init"),
        low=1.0,
        value="euclidean",
    ),
    Claim(
        "euclidean_after_training",
        "2.1",
        "The Euclidean distance gives qualitatively similar results: pooling does not matter after training",
        SENSITIVITY,
        "as for the cosine distance, in the Euclidean distance",
        _ratio("trained"),
        low=1 / 1.1,
        high=1.1,
        value="euclidean",
    ),
    Claim(
        "smooth_initialisation",
        "4.2, Fig. 4",
        "As σ grows, the representations become less sensitive to deformation",
        "fig4_smoothed_initialisation",
        "largest ratio of mean sensitivity between successive σ",
        _least_fall,
        high=1.0,
        by=("downsampling", "sigma"),
    ),
    Claim(
        "smooth_initialisation_euclidean",
        "4.2, Fig. 4; 2.1",
        "As σ grows, the representations become less sensitive to deformation, in the Euclidean distance too",
        "fig4_smoothed_initialisation",
        "largest ratio of mean sensitivity between successive σ",
        _least_fall,
        high=1.0,
        value="euclidean",
        by=("downsampling", "sigma"),
    ),
    Claim(
        "stronger_deformations",
        "4.3, Fig. 5",
        "Stronger deformations lead to smoother filters after training",
        "fig5_synthetic_tasks",
        "mean total variation at the strongest over that at the weakest deformation",
        _last_over_first,
        high=1.0,
        value="total_variation",
        by=("downsampling", "strength"),
        where={"state": "trained"},
    ),
    Claim(
        "progressively_smoother",
        "4.3",
        "In tasks requiring increasing stability, networks learn progressively smoother filters",
        "fig5_synthetic_tasks",
        "largest ratio of mean total variation between successive strengths",
        _least_fall,
        high=1.0,
        value="total_variation",
        by=("downsampling", "strength"),
        where={"state": "trained"},
    ),
    Claim(
        "synthetic_below_initial",
        "Fig. 5b",
        "Filters of networks trained on deformed templates are smoother than at initialisation",
        "fig5_synthetic_tasks",
        "largest ratio over downsamplings of mean total variation, trained over initial",
        _trained_over_initial,
        high=1.0,
        value="total_variation",
        by=("downsampling", "strength", "state"),
    ),
    Claim(
        "training_smooths",
        "4.4, Fig. 6",
        "Filter smoothness increases as a result of training across all architectures",
        VARIATION,
        "largest ratio over downsamplings of mean total variation, trained over initial",
        _trained_over_initial,
        high=1.0,
        value="total_variation",
    ),
    Claim(
        "similar_smoothness",
        "Fig. 6",
        "Different architectures converge to similar levels of filter smoothness",
        VARIATION,
        "sd over downsamplings of trained total variation, relative, mean over layers",
        lambda values: _spread(values, "trained"),
        high=0.05,
        value="total_variation",
    ),
    Claim(
        "smoothness_falls_with_depth",
        "Fig. 6b",
        "For CIFAR10 the smoothness decreases from layer to layer",
        VARIATION,
        "rank correlation of trained total variation with the layer's number",
        _rank_with_layer,
        low=0.0,
        value="total_variation",
    ),
    Claim(
        "random_labels_fitted",
        "5",
        "Networks can be trained on random labels (the precondition of Figs 6c and 7)",
        RANDOM,
        "least training accuracy of a network",
        _least,
        low=0.95,
        table="accuracy",
        value="fitted_accuracy",
        by=("downsampling", "task"),
        where={"task": "random_labels"},
    ),
    Claim(
        "random_labels_sensitivity_differs",
        "5, Fig. 7",
        "With random labels, unlike with real ones, architectures converge to different patterns of stability",
        RANDOM,
        "spread over downsamplings of sensitivity, random labels over true labels fitted alike",
        _task_spread_ratio,
        low=1.0,
        by=("downsampling", "task"),
        where={"state": "trained", "probe": "images"},
    ),
    Claim(
        "random_labels_euclidean_differs",
        "5, Fig. 7; 2.1",
        "The same in the Euclidean distance",
        RANDOM,
        "spread over downsamplings of sensitivity, random labels over true labels fitted alike",
        _task_spread_ratio,
        low=1.0,
        value="euclidean",
        by=("downsampling", "task"),
        where={"state": "trained", "probe": "images"},
    ),
    Claim(
        "architecture_not_seed",
        "5",
        "With random labels this depends on architecture significantly, but does not vary much with the random seed",
        RANDOM,
        "sd over downsamplings over sd over seeds of sensitivity, mean over layers",
        _between_over_within,
        low=2.0,
        by=("downsampling", "task"),
        where={"state": "trained", "probe": "images"},
    ),
    Claim(
        "random_labels_smoothness_differs",
        "Fig. 6c",
        "When training on random labels the smoothness of filters depends largely on the downsampling",
        RANDOM,
        "spread over downsamplings of total variation, random labels over true labels fitted alike",
        _task_spread_ratio,
        low=1.0,
        table="variation",
        value="total_variation",
        by=("downsampling", "task"),
        where={"state": "trained"},
    ),
    Claim(
        "initial_variation_pooled",
        "footnote 1",
        "The average total variation at initialisation is approximately 1.87 (LS's formula, pooled over the tensor)",
        INITIAL,
        "mean over layer shapes",
        _overall,
        low=1.865,
        high=1.875,
        value="pooled_mean",
        by=("shape",),
    ),
    Claim(
        "initial_variation_per_slice",
        "footnote 1",
        "The average total variation at initialisation is approximately 1.87 (mean over single filter slices)",
        INITIAL,
        "mean over layer shapes",
        _overall,
        low=1.865,
        high=1.875,
        value="per_slice_mean",
        by=("shape",),
    ),
    Claim(
        "initial_variation_same_everywhere",
        "footnote 1",
        "The average differs between layers only in the fourth decimal place",
        INITIAL,
        "largest minus smallest mean over layer shapes, per slice",
        lambda values: float(np.ptp([array.mean() for array in values.values()])),
        high=0.001,
        value="per_slice_mean",
        by=("shape",),
    ),
    Claim(
        "initial_variation_sd_first",
        "footnote 1",
        "The standard deviation is 0.035 in the first layer",
        INITIAL,
        "largest sd over layer shapes, pooled",
        lambda values: float(max(array.mean() for array in values.values())),
        low=0.034,
        high=0.037,
        value="pooled_sd",
        by=("shape",),
    ),
    Claim(
        "initial_variation_sd_larger",
        "footnote 1",
        "The standard deviation is 0.012 for the larger layers",
        INITIAL,
        "smallest sd over layer shapes, pooled",
        lambda values: float(min(array.mean() for array in values.values())),
        low=0.011,
        high=0.013,
        value="pooled_sd",
        by=("shape",),
    ),
    Claim(
        "monotone_sensitivity",
        "6",
        "Is the trajectory of sensitivity monotone?",
        "trajectories",
        "share of the way during training that is undone again (0: monotone)",
        _detour,
        high=0.1,
        by=("downsampling", "step"),
        question=True,
    ),
    Claim(
        "monotone_smoothness",
        "6",
        "Is the trajectory toward smooth filters monotone?",
        "trajectories",
        "share of the way during training that is undone again (0: monotone)",
        _detour,
        high=0.1,
        table="variation",
        value="total_variation",
        by=("downsampling", "step"),
        question=True,
    ),
    Claim(
        "worst_case_similar",
        "6",
        "Do networks with and without pooling agree after training in the worst case, too?",
        "worst_case",
        "worst-case sensitivity of the last layer, without pooling over with pooling",
        _worst_ratio,
        low=1 / 1.1,
        high=1.1,
        value="worst",
        where={"target": "block4_down"},
        question=True,
    ),
)

_ON_IMAGENET = (
    ("pooling_at_initialisation", "3.1, Fig. 3a"),
    ("pooled_networks_change", "3.2, Fig. 3b"),
    ("early_layers_rise", "3.2, Fig. 3b"),
    ("often_rises", "3.2, Fig. 3b"),
    ("similar_after_training", "3.3, Fig. 3b"),
    ("training_smooths", "4.4, Fig. 6a"),
)

CLAIMS = (
    *(dataclasses.replace(one, network=CIFAR10) for one in _CLAIMS),
    *(
        dataclasses.replace(
            one, key=f"imagenet_{key}", place=place, sentence=f"ImageNet form: {one.sentence}", network=IMAGENET
        )
        for key, place in _ON_IMAGENET
        for one in _CLAIMS
        if one.key == key
    ),
    Claim(
        "imagenet_smoothness_rises_with_depth",
        "4.4, Fig. 6a",
        "ImageNet form: filters in the upper layers are particularly smooth",
        VARIATION,
        "rank correlation of trained total variation with the layer's number",
        _rank_with_layer,
        high=0.0,
        value="total_variation",
        network=IMAGENET,
    ),
)
"""In the CIFAR10 form, and, where LS says it of ImageNet, in that."""
