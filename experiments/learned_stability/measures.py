"""What LS measures, as rows of a table: sensitivity in both distances, and filter smoothness, layer by layer."""

import dataclasses
import functools
import itertools
import math
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from deform_jax import models, probes, warps
from deform_jax.probes.represent import read_taps
from deform_jax.typing import Perturb, PyTree, Represent, Taps
from experiments.common import clock, runs, tasks, watch

DISTANCES: Mapping[str, Any] = {"sensitivity": "cosine", "euclidean": "euclidean"}
"""Column → distance: LS's normalised cosine distance, and the variant it calls qualitatively similar."""
LABELS = {"sensitivity": "normalised cosine distance", "euclidean": "normalised Euclidean distance"}
VARIATIONS = {
    "total_variation": probes.total_variation,
    "total_variation_per_slice": functools.partial(probes.total_variation, per_slice=True),
}


@dataclasses.dataclass(frozen=True)
class Probe:
    """How sensitivity is measured (LS 2.1)."""

    probe_images: int = 128
    """Test images per draw; the normaliser is the median over all their pairs."""
    draws: int = 3
    """Independent draws of images and deformations, each shared by all networks."""
    grid: tuple[int, int] = (3, 3)
    """Control points of the thin-plate spline, rows and columns."""
    max_shift: float = 2.0
    """Largest shift of a control point in each direction, pixels."""
    probe_seed: int = 0
    """Seed of the draws."""
    chunk: int | None = None
    """Images a network sees at once while probing; None: all (faster), a number: less memory."""

    def __post_init__(self) -> None:
        for name, value, least in (("probe-images", self.probe_images, 2), ("draws", self.draws, 1)):
            if value < least:
                raise ValueError(f"--{name} must be at least {least}; {value} given.")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"--chunk must be at least 1, or None; {self.chunk} given.")
        _ = self.perturb  # its own checks, before anything is trained

    @property
    def perturb(self) -> Perturb:
        """The paper's random deformation of one image."""
        return warps.random_tps(grid=self.grid, max_shift=self.max_shift)


IMAGENET = Probe(grid=(5, 5), max_shift=10.0, chunk=16)
SMOKE = Probe(probe_images=16, draws=2)

Draw = tuple[jax.Array, jax.Array]
"""Clean and perturbed images (n, h, w, c), standardised."""


def clean_images(probe: Probe, task: tasks.Task) -> list[jax.Array]:
    """Return the standardised test images of every draw; draws do not share images."""
    found = task.test_examples(probe.probe_images * probe.draws, seed=probe.probe_seed)
    images = task.prepare_clean(None, found["images"])
    return [images[i * probe.probe_images : (i + 1) * probe.probe_images] for i in range(probe.draws)]


def draws(probe: Probe, task: tasks.Task, perturb: Perturb | None = None) -> list[Draw]:
    """Return clean and perturbed images of every draw; ``perturb`` is the paper's deformation by default."""
    _, warp_key = jax.random.split(jax.random.key(probe.probe_seed))
    warp = jax.jit(jax.vmap(perturb or probe.perturb))
    return [
        (images, warp(jax.random.split(jax.random.fold_in(warp_key, index), len(images)), images))
        for index, images in enumerate(clean_images(probe, task))
    ]


def _both_distances(represent: Represent, images: jax.Array, perturbed: jax.Array, chunk: int | None) -> dict[str, Any]:
    """One program for both distances, so that they share the network's passes."""
    return {
        column: probes.sensitivity(represent, images, perturbed, distance=distance, chunk=chunk)
        for column, distance in DISTANCES.items()
    }


_sensitivities = jax.jit(_both_distances, static_argnames="chunk")
_taps = jax.jit(read_taps)


@jax.jit
def _sensitivities_of(clean: Taps, perturbed: Taps) -> dict[str, Any]:
    """The same from the taps: compiled once for all networks that have taps of these shapes, not for each of them.

    Their passes compile in a tenth of the time that these distances take.
    """
    ends = list(itertools.accumulate(math.prod(tap.shape[1:]) for tap in clean.values()))[:-1]

    def apart(rows: jax.Array) -> Taps:
        parts = zip(clean.items(), jnp.split(rows, ends, axis=1), strict=True)
        return OrderedDict((name, part.reshape(tap.shape)) for (name, tap), part in parts)

    images, moved = (
        jnp.concatenate([tap.reshape(len(tap), -1) for tap in taps.values()], axis=1) for taps in (clean, perturbed)
    )
    return _both_distances(apart, images, moved, None)


@clock.COMMAND.part("probe")
def sensitivity_rows(
    represent: Represent, drawn: Sequence[Draw], head: Mapping[str, Any], *, chunk: int | None = None
) -> list[dict[str, Any]]:
    """Return one row per (draw, layer): ``head``, draw, layer_index, layer, and a column per distance."""
    rows = []
    for index, (images, perturbed) in enumerate(drawn):
        if chunk is None:
            found = _sensitivities_of(_taps(represent, images), _taps(represent, perturbed))
        else:
            found = _sensitivities(represent, images, perturbed, chunk)
        values = jax.device_get(found)
        for i, layer in enumerate(values["sensitivity"]):
            row = {column: float(by_layer[layer]) for column, by_layer in values.items()}
            if not all(map(math.isfinite, row.values())):
                said = ", ".join(f"{name} {value}" for name, value in head.items())
                print(f"warning: no sensitivity at {layer} ({said}): its representations are alike.", file=sys.stderr)
            rows.append({**head, "draw": index, "layer_index": i, "layer": layer, **row})
    return rows


def both_states(
    probe: Probe,
    settings: tasks.Training,
    task: tasks.Task,
    trained: Mapping[str, Sequence[runs.Trained]],
    *,
    perturb: Perturb | None = None,
) -> list[dict[str, Any]]:
    """Return sensitivity rows of every network at initialisation and after training.

    At initialisation batch norm gets the statistics of each draw's clean images (protocols: computed once, frozen).
    """
    rows = []
    drawn = draws(probe, task, perturb)
    for downsampling, network in each_network(trained):
        model = runs.build(settings, downsampling, task.num_classes)
        head = {"downsampling": downsampling, "seed": network.seed}
        for index, pair in enumerate(drawn):
            initial = models.with_batch_statistics(model, network.init, pair[0])
            for state, variables in (("init", initial), ("trained", network.trained)):
                represent = models.represent(model, variables)
                found = sensitivity_rows(represent, [pair], {**head, "state": state}, chunk=probe.chunk)
                rows += [{**row, "draw": index} for row in found]
    return rows


def each_network(trained: Mapping[str, Sequence[runs.Trained]]) -> Iterator[tuple[str, runs.Trained]]:
    """Yield every network with its downsampling, and show meanwhile how many are probed."""
    return watch.each([(name, network) for name, networks in trained.items() for network in networks], "probing")


@clock.COMMAND.part("probe")
def variation_rows(params: PyTree, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per 3 × 3 convolution, numbered from 1, with its total variation pooled and per slice."""
    values = {name: probes.filter_statistics(params, statistic, size=3) for name, statistic in VARIATIONS.items()}
    return [
        {**head, "layer_index": i, "layer": layer, **{name: float(found[layer]) for name, found in values.items()}}
        for i, layer in enumerate(values["total_variation"], 1)
    ]


def both_variations(trained: Mapping[str, Sequence[runs.Trained]]) -> list[dict[str, Any]]:
    """Return variation rows of every network at initialisation and after training."""
    return [
        row
        for downsampling, networks in trained.items()
        for network in networks
        for state, variables in (("init", network.init), ("trained", network.trained))
        for row in variation_rows(
            variables["params"], {"downsampling": downsampling, "seed": network.seed, "state": state}
        )
    ]
