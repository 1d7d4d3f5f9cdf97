"""What SI measures: sensitivities D, G and R at the output and layer by layer, with and without shuffled channels."""

import dataclasses
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from deform_jax import data, models, probes, warps
from deform_jax.typing import PyTree, Represent
from experiments.common import clock, tasks

CONVENTIONS: Mapping[str, Any] = {
    "": {"normaliser": "mean", "numerator": "mean"},
    "_median": {"normaliser": "median", "numerator": "coordinate_median"},
}
"""Suffix of the columns → SI's means, and the medians of Petrini et al. 2021 (RS)."""
LAYERED = ("convolution", "block")
"""Kinds of layers that a curve over depth is drawn through."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Which images sensitivities are measured on."""

    probe_images: int = 500
    """Test images; every one is deformed once, and the same for all networks that are compared."""
    probe_seed: int = 0
    """Seed of images, deformations and noise."""
    chunk: int | None = None
    """Images a network sees at once while probing; None: all (faster), a number: less memory."""

    def __post_init__(self) -> None:
        if self.probe_images < 2:
            raise ValueError(f"--probe-images must be at least 2; {self.probe_images} given.")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"--chunk must be at least 1, or None; {self.chunk} given.")


@dataclasses.dataclass(frozen=True)
class Probe(Sample):
    """How sensitivities are measured (SI Eq. 1)."""

    displacement: float = 1.0
    """Typical displacement of a pixel δ, in pixels, which sets the temperature of the deformations."""
    cutoff: int = 3
    """Cutoff c of the deformations' modes: their highest frequency, in half periods per image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.perturb  # its own checks, before anything is trained

    @property
    def perturb(self) -> Any:
        """The random deformation of one image."""
        return warps.random_max_entropy(displacement=self.displacement, cutoff=self.cutoff)


@dataclasses.dataclass(frozen=True)
class PixelProbe(Sample):
    """How sensitivities are measured on pairs of active pixels: each pixel is displaced on its own (SI 3)."""

    law: Literal["neighbourhood", "cross", "step"] = "neighbourhood"
    """Equally likely moves of a pixel: to the 3 x 3 pixels around and including it; to its 4 neighbours or staying
    (cross); to its 4 neighbours (step)."""
    boundary: Literal["clamp", "periodic"] = "clamp"
    """A pixel that leaves the image goes to the nearest one inside, or comes in at the other side."""
    collisions: Literal["superpose", "collapse"] = "superpose"
    """Two pixels at one place add up, or make one pixel (the released code)."""
    keep_patch: bool = False
    """Patch tasks: undo moves that leave a pixel's patch (an option of the released code)."""


SMOKE = Probe(probe_images=32)
PAPER = Probe(chunk=125)
PIXELS: Mapping[str, PixelProbe] = {
    "smoke": PixelProbe(probe_images=32),
    "demo": PixelProbe(),
    "paper": PixelProbe(chunk=125),
}
"""On scale detection, at each scale."""


class Perturbed(NamedTuple):
    """Standardised images (n, h, w, c): clean, deformed, and with noise of each deformation's own norm."""

    images: jax.Array
    deformed: jax.Array
    noisy: jax.Array

    @property
    def norm(self) -> float:
        """Mean norm of the perturbations, SI's η*."""
        moved = np.asarray(self.deformed - self.images, np.float64).reshape(len(self.images), -1)
        return float(np.sqrt(np.square(moved).sum(axis=1)).mean())


def perturbed(probe: Probe, task: tasks.Task) -> Perturbed:
    """Return the probe's images and their perturbations; where the task has noise, it is on the images first."""
    found = task.test_examples(probe.probe_images, seed=probe.probe_seed)
    return perturb(probe, task.prepare_clean(None, found["images"]))


def displaced(probe: PixelProbe, task: tasks.Task, pairs: data.ScaleDetection) -> Perturbed:
    """Return test images of pairs of active pixels, with displaced pixels, and with noise as large as that changes."""
    if task.pairs is None:
        sys.exit("error: active pixels are displaced on --dataset scale_detection, not on other images.")
    if probe.keep_patch and pairs.task != "patch":
        sys.exit("error: --keep-patch is for --pairs.task patch.")
    images = task.test_examples(probe.probe_images, seed=probe.probe_seed)["images"]
    chosen = tasks.choice(len(task.pairs.test_labels), probe.probe_images, probe.probe_seed)
    move_key, noise_key = _keys(probe)
    moved = data.displace_pixels(
        move_key,
        task.pairs.test_positions[chosen],
        pairs.shape,
        law=probe.law,
        boundary=probe.boundary,
        patch=int(pairs.scale) if probe.keep_patch else None,
    )
    drawing = {"value": data.active_value(pairs), "collisions": probe.collisions, "pad": pairs.pad}
    deformed = data.render_pixels(moved, pairs.shape, **drawing)
    clean = task.prepare_clean(None, images)
    return Perturbed(clean, deformed, probes.matched_noise(noise_key, clean, deformed))


def perturb(probe: Probe, images: jax.Array) -> Perturbed:
    """Return standardised images with their deformed and noisy versions."""
    warp_key, noise_key = _keys(probe)
    deformed = jax.jit(jax.vmap(probe.perturb))(jax.random.split(warp_key, len(images)), images)
    return Perturbed(images, deformed, probes.matched_noise(noise_key, images, deformed))


def _keys(probe: Sample) -> jax.Array:
    """Return the keys of deformations and of noise."""
    return jax.random.split(jax.random.fold_in(jax.random.key(probe.probe_seed), 1))


def represent_init(model: Any, variables: PyTree, images: jax.Array) -> Represent:
    """Return an untrained network's taps, its batch norms with the statistics of the clean images."""
    return models.represent(model, models.with_batch_statistics(model, variables, images), output=True)


def represent_trained(model: Any, variables: PyTree) -> Represent:
    """Return a trained network's taps, the output last."""
    return models.represent(model, variables, output=True)


def rows(
    represent: Represent, sample: Perturbed, head: Mapping[str, Any], *, chunk: int | None = None
) -> list[dict[str, Any]]:
    """Return one row per tap, as ``sensitivity_rows`` has them, by the means (SI)."""
    return sensitivity_rows(probes.relative_sensitivity(represent, *sample, chunk=chunk), head)


@clock.COMMAND.part("probe")
def sensitivity_rows(found: probes.RelativeSensitivity, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per tap: ``head``, layer_index, layer, kind, depth k/K, and D, G and R."""
    values = jax.device_get(found._asdict())
    kinds = {layer: kind(layer) for layer in values["ratio"]}
    total = sum(1 for name in kinds.values() if name in LAYERED)
    table, k = [], 0
    for i, (layer, name) in enumerate(kinds.items()):
        k += name in LAYERED
        place = k / total if name in (*LAYERED, "input") and total else math.nan
        numbers = {column: float(values[part][layer]) for column, part in COLUMNS.items()}
        if not all(map(math.isfinite, numbers.values())):
            said = ", ".join(f"{key} {value}" for key, value in head.items())
            print(f"warning: no sensitivity at {layer} ({said}): its representations are alike.", file=sys.stderr)
        table.append({**head, "layer_index": i, "layer": layer, "kind": name, "depth": place, **numbers})
    return table


COLUMNS = {"D": "deformation", "G": "noise", "R": "ratio"}


@clock.COMMAND.part("probe")
def at_output(represent: Represent, sample: Perturbed, *, chunk: int | None = None) -> dict[str, float]:
    """Return D_f, G_f and R_f of the output by the means, and by the medians as ``D_median``, …."""
    found = {}
    for suffix, convention in CONVENTIONS.items():
        values = probes.relative_sensitivity(Partial(_last_tap, represent), *sample, chunk=chunk, **convention)
        parts = jax.device_get(values._asdict())
        found |= {f"{column}{suffix}": float(parts[part]["output"]) for column, part in COLUMNS.items()}
    return found


def _last_tap(represent: Represent, images: jax.Array) -> OrderedDict[str, jax.Array]:
    name, value = next(reversed(represent(images).items()))
    return OrderedDict([(name, value)])


def kind(layer: str) -> str:
    """Return what a tap of the zoo is: input, convolution, block, dense or output."""
    if layer in ("input", "output"):
        return layer
    named = {"conv": "convolution", "block": "block", "dense": "dense"}
    return named[re.split(r"\d", layer)[0]]


_shuffled = jax.jit(probes.shuffle_channels)


def shuffles(variables: PyTree, seed: int, count: int) -> list[PyTree]:
    """Return the variables with the input channels of every convolution shuffled, ``count`` times (SI 2)."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2), count)
    return [{**variables, "params": _shuffled(key, variables["params"])} for key in keys]


@clock.COMMAND.part("probe")
def mode_rows(params: PyTree, head: Mapping[str, Any], *, size: int = 3) -> list[dict[str, Any]]:
    """Return one row per kernel of that size and Laplacian mode: its power γ (SI Eq. 3), and the kernel's aggregate."""
    power = probes.filter_statistics(params, probes.laplacian_power, size=size)
    aggregate = probes.filter_statistics(params, probes.spatial_frequency, size=size)
    eigenvalues, _ = probes.laplacian_modes(size)
    return [
        {
            **head,
            "layer_index": k,
            "layer": layer,
            "mode": mode,
            "eigenvalue": float(eigenvalues[mode]),
            "power": float(power[layer][mode]),
            "share": float(power[layer][mode] / power[layer].sum()),
            "frequency": float(aggregate[layer]),
        }
        for k, layer in enumerate(power, 1)
        for mode in range(len(eigenvalues))
    ]
