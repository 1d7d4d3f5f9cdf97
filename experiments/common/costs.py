"""What every figure costs to train: FLOPs that XLA counts in the training step, and estimated device-hours."""

import argparse
import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from deform_jax import training
from experiments import __main__ as listing
from experiments.common import runs, tables, watch
from experiments.common import settings as common
from experiments.common.tasks import FEATURES, PAIRS, TEMPLATE_IMAGES, Training

PEAKS = {"v5e": 197e12, "v6e": 918e12, "H200": 989e12}
"""Dense bfloat16 FLOP/s of one chip, as its vendor states them."""
UTILISATION = 0.1
"""Assumed share of the peak: these networks and images are small for such devices."""
SETS = {"cifar10": (50_000, 3, 10), "mnist": (60_000, 1, 10), "imagenet2012": (1_281_167, 3, 1000)}
"""Training images, colour channels and classes of the sets that published sizes are trained on."""
INTERPOLATED = 30
"""Epochs to interpolation of the simple CNNs, which SI does not say; as seen here at 100 channels."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is estimated."""

    scale: str = "paper"
    utilisation: float = UTILISATION


@dataclasses.dataclass(frozen=True)
class Group:
    """Networks of the same settings but for their seeds."""

    training: Training
    downsampling: str | None
    seeds: int

    @property
    def key(self) -> tuple[str, str | None]:
        """What tells networks apart, as the folders of runs do."""
        return common.digest(self.training), self.downsampling


def groups(settings: Any) -> Iterator[Group]:
    """Yield the networks that a figure with these settings trains; none for figures that train nothing."""
    networks: Any = getattr(settings, "networks", None)
    if hasattr(settings, "feature_counts"):
        for count in settings.feature_counts:
            yield from _zoo(settings.networks_on(count))
    elif hasattr(settings, "noise_norms"):
        for noise in settings.noise_norms:
            yield from _zoo(settings.networks_at(noise), noise)
    elif hasattr(settings, "groups"):
        for task, simple in settings.groups():
            yield Group(simple.training_of(task), None, simple.of("seeds", task))
    elif hasattr(networks, "architectures"):
        yield from _zoo(networks)
    elif hasattr(networks, "tasks"):
        for task in networks.tasks:
            yield Group(networks.training_of(task), None, networks.of("seeds", task))
    elif hasattr(networks, "downsamplings"):
        yield from _block_vggs(settings)


def _zoo(networks: Any, noise: float | None = None) -> Iterator[Group]:
    for name in networks.architectures:
        yield Group(networks.training_of(name, noise), None, len(networks.seeds_of(name)))


def _block_vggs(settings: Any) -> Iterator[Group]:
    networks, wanted = settings.networks, settings.networks.training
    variants = [(wanted, networks.seeds)]
    if hasattr(settings, "strengths"):
        drawn = [(strength, seed) for strength in settings.strengths for seed in range(networks.seeds)]
        variants = [(dataclasses.replace(wanted, strength=float(c), task_seed=seed), 1) for c, seed in drawn]
    elif hasattr(settings, "tasks"):
        variants = [(dataclasses.replace(wanted, task=task), networks.seeds) for task in settings.tasks]
    for variant, seeds in variants:
        for downsampling in networks.downsamplings:
            yield Group(variant, downsampling, seeds)


def images_of(wanted: Training) -> tuple[int, int]:
    """Return the images of an epoch, the incomplete batch dropped, and the epochs."""
    count = wanted.train_images
    if wanted.task == "deformed_templates":
        count = count or TEMPLATE_IMAGES
    elif wanted.dataset not in (PAIRS, FEATURES):
        count = (count or _set(wanted)[0]) - wanted.validation_images
    batch = wanted.recipe.batch_size
    stop = wanted.recipe.stop_interpolation
    return (count or 0) // batch * batch, wanted.recipe.epochs if stop is None else stop * INTERPOLATED


def _set(wanted: Training) -> tuple[int, int, int]:
    name = wanted.dataset.removeprefix("stream:")
    return SETS.get(name, (10_000, 1, 10))


def _image(wanted: Training) -> tuple[tuple[int, ...], int]:
    """Return the shape of an image as the network takes it, and the number of outputs."""
    if wanted.dataset == PAIRS:
        shape = tuple(side + 2 * wanted.pairs.pad for side in wanted.pairs.shape)
        return (*shape, 1), 1
    if wanted.dataset == FEATURES:
        return (wanted.features.size, wanted.features.size, 1), wanted.features.num_classes
    _, channels, classes = _set(wanted)
    side = wanted.image_size if wanted.dataset.startswith("stream:") else 32
    return (side, side, channels), classes


def step_flops(wanted: Training, downsampling: str | None) -> float:
    """Return the FLOPs of one training step over the images of its batch, as XLA counts them.

    In the program as it is given to the compiler; in compiled ones the count was within 1 % of that where compared.
    """
    shape, classes = _image(wanted)
    model = runs.build(wanted, downsampling, classes)
    return _flops(model, wanted.recipe.loss, wanted.recipe.method, wanted.recipe.batch_size, shape)


@functools.lru_cache(maxsize=256)
def _flops(model: Any, loss: Any, method: Any, batch: int, shape: tuple[int, ...]) -> float:
    recipe = training.Recipe(loss=loss, method=method)
    state = jax.eval_shape(lambda key: training.create_state(model, recipe, key, shape, 1), jax.random.key(0))
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    step = jax.jit(training.train_step).lower(state, {"images": images, "labels": jnp.zeros(batch, jnp.int32)})
    analysis: Any = step.cost_analysis()
    return float(analysis["flops"]) / batch


def estimate(names: Sequence[str], scale: str, utilisation: float) -> list[dict[str, Any]]:
    """Return a row per figure: its networks, the images they train on, FLOPs, and device-hours; shared ones count once.

    Probes are left out: a thousand images forward, against millions forward and backward.
    """
    known: dict[tuple[str, str | None], str] = {}
    rows = []
    for name in watch.each(names, "counting", unit="figure"):
        scales = importlib.import_module(f"experiments.{listing.figures()[name][0]}.{name}").SCALES
        networks, images, flops, shared = 0, 0, 0.0, set()
        for group in groups(scales[scale]) if scale in scales else ():
            if group.key in known:
                shared.add(known[group.key])
                continue
            known[group.key] = name
            count, epochs = images_of(group.training)
            seen = count * epochs * group.seeds
            networks, images = networks + group.seeds, images + seen
            flops += seen * step_flops(group.training, group.downsampling)
        if networks or shared:
            hours = {f"{device}_hours": flops / peak / utilisation / 3600 for device, peak in PEAKS.items()}
            row = {"figure": name, "scale": scale, "networks": networks, "images": images, "flops": flops}
            rows.append(row | {"utilisation": utilisation, **hours, "shares_networks_of": " ".join(sorted(shared))})
    return rows


def markdown(rows: Sequence[tables.Row]) -> str:
    """Return the README's table."""
    lines = [
        f"| figure | networks | images trained on | FLOPs | {' | '.join(f'{device}, h' for device in PEAKS)} |",
        f"|---|---|---|---|{'---|' * len(PEAKS)}",
    ]
    for row in rows:
        sharing = ", ".join(f"`{name}`" for name in row["shares_networks_of"].split())
        added = f"{row['networks']:g}" + (f" besides those of {sharing}" if sharing else "")
        if not row["networks"]:
            lines.append(f"| `{row['figure']}` | those of {sharing} | – | – |{' – |' * len(PEAKS)}")
            continue
        hours = " | ".join(f"{row[f'{device}_hours']:.2g}" for device in PEAKS)
        lines.append(f"| `{row['figure']}` | {added} | {row['images']:.2g} | {row['flops']:.2g} | {hours} |")
    return "\n".join(lines)


BEGIN, END = "<!-- costs: written by `python -m experiments costs` -->", "<!-- end of costs -->"


def main(arguments: Sequence[str]) -> int:
    """Count the FLOPs of training every figure's networks, estimate device-hours, and write costs.csv and the README's
    table."""
    parser = argparse.ArgumentParser(prog="python -m experiments costs", description=main.__doc__)
    parser.add_argument("figures", nargs="*", help="which figures, by name (default: all that train networks)")
    parser.add_argument("--scale", default="paper", help="whose sizes (default: paper)")
    parser.add_argument(
        "--utilisation", type=float, default=UTILISATION, help=f"share of the devices' peak (default: {UTILISATION})"
    )
    parser.add_argument("--results", type=pathlib.Path, help="folder for costs.csv; default: experiments/results/costs")
    wanted = parser.parse_args(arguments)
    unknown = set(wanted.figures) - set(listing.figures())
    if unknown:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}.")
    if not 0 < wanted.utilisation <= 1:
        parser.error(f"--utilisation must be above 0 and at most 1; {wanted.utilisation} given.")
    root = pathlib.Path(__file__).parents[2]
    rows = estimate(wanted.figures or list(listing.figures()), wanted.scale, wanted.utilisation)
    if not rows:
        parser.error("none of these figures trains networks at that scale.")
    folder = wanted.results or root / "experiments" / "results" / "costs"
    tables.write(folder / "costs.csv", rows)
    settings = Settings(wanted.scale, wanted.utilisation)
    line = " ".join(["python -m experiments costs", *arguments])
    tables.write_json(folder / "provenance.json", common.provenance(settings, command=line, peaks=PEAKS))
    print(markdown(rows))
    if wanted.results is None and not wanted.figures:
        readme = root / "README.md"
        before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
        with tables.atomic(readme) as file:
            file.write(f"{before}{BEGIN}\n{markdown(rows)}\n{END}{rest.split(END)[1]}")
    return 0
