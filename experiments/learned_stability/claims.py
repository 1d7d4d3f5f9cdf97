"""The empirical claims of LS, and the questions it leaves open, each with the statistic and rule that test it.

Statistics are over layers after the input, and means over seeds; thresholds are ours, since LS gives curves.
"""

import dataclasses

from experiments.common.claims import Claim
from experiments.learned_stability import claim_statistics as of
from experiments.learned_stability import claims_beyond, claims_training

CIFAR10, IMAGENET = "block_vgg_cifar10", "block_vgg_imagenet"

_ALL = (*claims_training.CLAIMS, *claims_beyond.CLAIMS)

_ON_IMAGENET = (
    ("pooling_at_initialisation", "3.1, Fig. 3a"),
    ("pooled_networks_change", "3.2, Fig. 3b"),
    ("early_layers_rise", "3.2, Fig. 3b"),
    ("often_rises", "3.2, Fig. 3b"),
    ("similar_after_training", "3.3, Fig. 3b"),
    ("training_smooths", "4.4, Fig. 6a"),
)

CLAIMS = (
    *(dataclasses.replace(one, network=CIFAR10) for one in _ALL),
    *(
        dataclasses.replace(
            one, key=f"imagenet_{key}", place=place, sentence=f"ImageNet form: {one.sentence}", network=IMAGENET
        )
        for key, place in _ON_IMAGENET
        for one in _ALL
        if one.key == key
    ),
    Claim(
        "imagenet_smoothness_rises_with_depth",
        "4.4, Fig. 6a",
        "ImageNet form: filters in the upper layers are particularly smooth",
        claims_training.VARIATION,
        "rank correlation of trained total variation with the layer's number",
        of.rank_with_layer,
        high=0.0,
        value="total_variation",
        network=IMAGENET,
    ),
)
"""In the CIFAR10 form, and, where LS says it of ImageNet, in that."""
