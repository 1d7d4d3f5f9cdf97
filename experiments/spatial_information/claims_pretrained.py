"""What SI's section 2 says of networks trained on ImageNet."""

from collections.abc import Callable
from typing import Any

from experiments.common.claims import Claim
from experiments.common.statistics import Values
from experiments.spatial_information import claim_statistics as of

FIGURE = "pretrained_imagenet"


def _pretrained(
    key: str, place: str, sentence: str, measures: str, statistic: Callable[[Values], float], table: str, **bounds: Any
) -> Claim:
    curves = table == "table"
    return Claim(
        f"imagenet_{key}",
        place,
        f"ImageNet: {sentence}",
        FIGURE,
        measures,
        statistic,
        table=table,
        value="R" if curves else "frequency",
        by=("architecture", "state", "shuffled") if curves else ("architecture", "state"),
        over="groups",
        where={"kind": "convolution"} if curves else {"mode": 0.0},
        **bounds,
    )


CLAIMS = (
    _pretrained(
        "R_falls_with_depth",
        "2, Fig. 3 (right)",
        "insensitivity is built layer by layer",
        "largest ratio over networks of R at the last convolution to R at the first",
        of.last_over_first(0),
        "table",
        high=1.0,
    ),
    _pretrained(
        "channel_pooling",
        "2, Fig. 3 (right)",
        "shuffling channels raises R_k",
        "shuffled over whole R, geometric mean over layers and networks",
        of.raised_by_shuffling,
        "table",
        low=1.0,
    ),
    _pretrained(
        "spatial_pooling",
        "2, Fig. 3 (right)",
        "the shuffled curves are not constant",
        "largest ratio over networks of shuffled R at the last convolution to that at the first",
        of.last_over_first(1),
        "table",
        high=1.0,
    ),
    _pretrained(
        "low_frequency",
        "2, Figs 4, 12, 13",
        "filters at all layers of VGG11 and VGG11bn become low-frequency, except for the first",
        "largest trained over initial spatial frequency, over layers 2 to 8",
        of.frequency_change(slice(1, 8), max, of.VGG11),
        "modes",
        high=1.0,
    ),
    _pretrained(
        "first_layer_not",
        "2, Figs 4, 12, 13",
        "… except for k = 1",
        "smallest trained over initial spatial frequency at layer 1",
        of.frequency_change(slice(0, 1), min, of.VGG11),
        "modes",
        low=0.9,
    ),
)
