"""The claims of SI's section 4 and appendix B.2, of simple CNNs on scale detection in one dimension, and of two.

Exponents are fitted over the first part of each network, twice: against the asymptotic law, which is what SI says, and
against the exact homogeneous network of the same size, which is what the law stands for there. Thresholds are ours:
0.25 on exponents, 0.2 on the logarithms of curves that are said to coincide.
"""

from collections.abc import Callable
from typing import Any

from deform_jax import probes
from experiments.common.claims import Claim
from experiments.common.statistics import Values
from experiments.spatial_information import measures, simple
from experiments.spatial_information import scale_claim_statistics as on

SIMPLE, FILTERS, TWO_D = "fig7_simple_cnns", "tables_1_2_mean_filters", "two_dimensions"
PLACES = {
    "task1": {"D": "4.1, Eq. 5, Fig. 7", "G": "4.1, Eq. 7, Fig. 7", "R": "4.1, Fig. 7"},
    "task2": {"D": "4.2, Eq. 8, Fig. 7", "G": "4.2, Eq. 9, Fig. 7", "R": "4.2, Fig. 7"},
}
NAMES = {"task1": "Task 1, stride 1", "task2": "Task 2, stride F"}

Statistic = Callable[[Values], float]


def _layers(task: str) -> str:
    return f"layers 1 to {simple.CASES[task].first_part}"


def _simple(key: str, task: str, place: str, sentence: str, measures: str, statistic: Statistic, **more: Any) -> Claim:
    defaults = {"figure": SIMPLE, "value": ("A", "D", "G", "R"), "by": ("task", "state"), "where": {"task": task}}
    sentence = f"{NAMES[task]}: {sentence}"
    return Claim(f"{task}_{key}", place, sentence, measures=measures, statistic=statistic, **defaults | more)


def _law(stride: int, column: str) -> float:
    """The exponent that SI gives, in one dimension."""
    return getattr(probes.asymptotic_exponents(strided=stride > 1), measures.COLUMNS[column])


def _exponents(task: str) -> list[Claim]:
    found = []
    for column, place in PLACES[task].items():
        law = _law(simple.CASES[task].stride, column)
        sentence = f"{column}_k ~ A_k^{law:g} after training"
        measures = f"slope of log {column} against log A, as measured, {_layers(task)}"
        found += [
            _simple(
                f"{column}_asymptotic",
                task,
                place,
                sentence,
                measures,
                on.trained_slope(task, column),
                low=law - 0.25,
                high=law + 0.25,
            ),
            _simple(
                f"{column}_exact",
                task,
                place,
                f"{column}_k grows with A_k as homogeneous filters make it at this size",
                f"{measures}, less the exact homogeneous network's",
                on.beyond_exact(task, column),
                low=-0.25,
                high=0.25,
            ),
        ]
    return found


def _networks(task: str) -> list[Claim]:
    return [
        _simple(
            "mean_channel",
            task,
            "4.3, Fig. 7",
            "with every layer its mean channel, D_k and G_k overlap with the whole network's",
            f"mean |log ratio| of D and G, {_layers(task)}",
            on.apart(task, "mean_channel", "DG"),
            high=0.2,
        ),
        _simple(
            "constant_at_initialisation",
            task,
            "4.1, Fig. 7",
            "D_k and G_k are constant at initialisation",
            f"larger |slope| of log D and log G against log A of homogeneous filters, {_layers(task)}",
            on.initial_slope(task),
            high=0.2,
        ),
        _simple(
            "shuffling",
            task,
            "3, 4",
            "shuffling channels does not change R_k: all channels are like their mean",
            f"mean |log ratio| of shuffled to whole R, {_layers(task)}",
            on.apart(task, "shuffled", "R"),
            high=0.2,
        ),
        _simple(
            "error_zero",
            task,
            "B.2",
            "the generalisation error is exactly zero" + (" (SI says so of task 1)" if task == "task2" else ""),
            "most test pairs that any of these networks misclassifies",
            on.misclassified(task),
            high=0.5,
            table="accuracy",
            value=("test_error", "test_pairs"),
            by=("task",),
            exact=True,
            question=task == "task2",
        ),
    ]


def _filters(task: str, positive: int) -> list[Claim]:
    shared = {"figure": FILTERS, "value": "weight", "by": ("task", "place")}
    trained = {**shared, "where": {"task": task, "state": "trained"}}
    place = f"4.3, B.2, Table {task[-1]}"
    return [
        _simple(
            "filters_homogeneous",
            task,
            place,
            "mean filters are approximately homogeneous after training",
            f"sd over places over |mean| of the mean filter, largest of {_layers(task)}",
            on.unevenness(task),
            high=0.25,
            **trained,
        ),
        _simple(
            "filters_more_homogeneous",
            task,
            place,
            "mean filters are much more homogeneous than at initialisation",
            f"share of the mean filters' power outside the constant mode, trained over initial, {_layers(task)}",
            on.uneven_left(task),
            high=0.5,
            **shared | {"by": ("task", "state", "place")},
        ),
        _simple(
            "filters_positive",
            task,
            place,
            f"mean filters are positive in the first {positive} layers",
            "layers before the first whose mean filter is not positive, mean over networks",
            on.positive_layers,
            low=positive - 0.5,
            **trained,
        ),
    ]


def _two_dimensions(stride: int, column: str, *, area: bool = False) -> Claim:
    """In two dimensions the exponents of one, against the width or, which SI leaves open, the area."""
    law, against = _law(stride, column), "the area A²" if area else "the width A"
    name = f"Stride {'F' if stride > 1 else 1}"
    return Claim(
        f"two_dimensions_stride{stride}_{column}" + "_area" * area,
        "4",
        f"{name}: the analysis carries unaltered to two dimensions, {column}_k ~ A_k^{law:g}"
        + (", if A_k is an area" if area else ""),
        TWO_D,
        f"slope of log {column} against log of {against} of exact homogeneous networks, upper half of the layers",
        on.exponent(column, area=area),
        low=law - 0.25,
        high=law + 0.25,
        value=("A", "D", "G", "R"),
        by=("dimensions", "side"),
        where={"dimensions": 2.0, "stride": float(stride)},
        exact=True,
        question=area,
    )


CLAIMS = (
    *(
        claim
        for task, positive in (("task1", 9), ("task2", 5))
        for claim in (*_exponents(task), *_networks(task), *_filters(task, positive))
    ),
    *(_two_dimensions(stride, column) for stride in (1, 2) for column in measures.COLUMNS),
    *(_two_dimensions(stride, column, area=True) for stride in (1, 2) for column in ("D", "G")),
)
