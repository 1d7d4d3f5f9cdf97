"""SI Figs 3, 4, 11, 12, 13, 14 on ImageNet: trained networks by name or file, probed with a folder of photographs."""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from deform_jax import data, models, probes
from deform_jax.typing import PyTree
from experiments.common import cli, plots, results, tables, watch
from experiments.spatial_information import depth, measures, modes, recipes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SHORTER_SIDE = 256 / 224
"""A photograph's shorter side before its centre is cut out, over the side of what is cut out, as torchvision has it."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, and which photographs."""

    weights: tuple[str, ...] = tuple(models.PRETRAINED)
    """Networks: names such as vgg11_bn (torchvision's published weights, downloaded once into --data-folder),
    hf:OWNER/REPOSITORY, or paths of .safetensors and .pth files whose names begin with the architecture's."""
    photos: str = "photos"
    """Folder of photographs, searched with all its subfolders."""
    photo_count: int = 500
    """Photographs that are used: chosen at random, the same for all networks."""
    size: int = 224
    """Pixels per side: the centre of a photograph whose shorter side has 256/224 of that."""
    batch: int = 25
    """Photographs that are in memory at once."""
    shuffles: int = 3
    """Random permutations of every convolution's input channels; curves are means over them."""
    initial_seeds: int = 5
    """Fresh networks of each architecture whose filters are drawn dotted; no activations of these are measured."""
    displacement: float = 1.0
    """Typical displacement of a pixel δ, in pixels."""
    cutoff: int = 3
    """Cutoff c of the deformations' modes."""
    seed: int = 0
    """Seed of the choice of photographs, deformations, noise and shuffles."""

    def __post_init__(self) -> None:
        least = {"photo_count": 2, "batch": 1, "shuffles": 1, "initial_seeds": 1, "size": 63}
        for name, value in least.items():
            if getattr(self, name) < value:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least {value}; {getattr(self, name)} given.")
        if not self.weights:
            raise ValueError("--weights must name at least one network.")
        _ = self.probe

    @property
    def probe(self) -> measures.Probe:
        """How a batch is deformed."""
        return measures.Probe(displacement=self.displacement, cutoff=self.cutoff, probe_seed=self.seed)


SCALES = {
    "smoke": Settings(photo_count=4, size=64, batch=2, shuffles=1, initial_seeds=1),
    "demo": Settings(("alexnet", "vgg11", "vgg11_bn", "resnet18"), photo_count=100),
    "paper": Settings(),
}


def photographs(wanted: Settings) -> list[pathlib.Path]:
    """Return the files that are used, chosen at random from the folder."""
    folder = pathlib.Path(wanted.photos).expanduser()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if len(found) < wanted.photo_count:
        given = f"{folder} holds {len(found)} ({', '.join(SUFFIXES)})" if folder.is_dir() else f"there is no {folder}"
        sys.exit(f"error: {wanted.photo_count} photographs are wanted, but {given}. Give --photos or --photo-count.")
    order = np.random.default_rng(wanted.seed).permutation(len(found))[: wanted.photo_count]
    return [found[i] for i in order]


def read(path: pathlib.Path, size: int) -> np.ndarray:
    """Return a photograph's centre as (size, size, 3) uint8, scaled as torchvision's evaluation does."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        sys.exit(f"error: {path} cannot be read as a photograph ({error}). Remove it from the folder.")
    shorter = round(size * SHORTER_SIDE)
    width, height = (max(shorter, round(length * shorter / min(image.size))) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def samples(wanted: Settings, files: Sequence[pathlib.Path], label: str) -> Iterator[measures.Perturbed]:
    """Yield the photographs batch by batch with their perturbations, which depend on the file's place only."""
    for start in watch.each(range(0, len(files), wanted.batch), label, unit="batch"):
        stored = np.stack([read(path, wanted.size) for path in files[start : start + wanted.batch]])
        probe = dataclasses.replace(wanted.probe, probe_seed=wanted.seed * 1_000_003 + start)
        yield measures.perturb(probe, data.IMAGENET_PREPARE(None, stored))


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Load every network; return rows of sensitivity (network, shuffled, shuffle, layer), and of modes."""
    wanted = command.settings
    files = photographs(wanted)
    table, powers = [], []
    for source in wanted.weights:
        model, variables = models.load_pretrained(source, cache=command.options.data_folder)
        name = architecture(model)
        head = {"architecture": name, "state": "trained"}
        variants = [(depth.WHOLE, variables)]
        shuffled = measures.shuffles(variables, wanted.seed, wanted.shuffles)
        variants += [({"shuffled": 1, "shuffle": i}, one) for i, one in enumerate(shuffled)]
        for facts, one in variants:
            label = f"{recipes.LABELS[name]}{', shuffled' if facts['shuffled'] else ''}"
            found = probes.streamed_relative_sensitivity(
                measures.represent_trained(model, one), samples(wanted, files, label)
            )
            table += measures.sensitivity_rows(found, head | {"seed": 0} | facts)
        powers += mode_rows(model, variables, name, wanted.initial_seeds)
    return {"table": table, "modes": powers}


def architecture(model: Any) -> str:
    """Return the zoo's name of a loaded module."""
    known = {(type(made), _form(made)): name for name in models.ZOO for made in [models.create(name)]}
    return known[type(model), _form(model)]


def _form(model: Any) -> tuple[Any, Any]:
    return getattr(model, "depth", None), getattr(model, "batch_norm", None)


def mode_rows(model: Any, variables: PyTree, name: str, seeds: int) -> list[dict[str, Any]]:
    """Return the powers of the 3 × 3 kernels' modes, trained and of fresh networks."""
    rows = measures.mode_rows(variables["params"], {"architecture": name, "seed": 0, "state": "trained"})
    for seed in range(seeds):
        fresh = _initial(model, jax.random.key(seed))
        rows += measures.mode_rows(fresh, {"architecture": name, "seed": seed, "state": "init"})
    return rows


@functools.partial(jax.jit, static_argnums=0)
def _initial(model: Any, key: jax.Array) -> PyTree:
    """The kernels of a fresh network; jit leaves out what is not returned, as the largest dense layers."""
    params = model.init(key, jax.numpy.zeros((1, 64, 64, 3)), train=False)["params"]
    return {name: {"kernel": part["kernel"]} for name, part in params.items() if np.ndim(part.get("kernel", 0)) == 4}


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row], powers: Sequence[tables.Row]) -> None:
    """Draw each of the paper's figures for which there are networks."""
    names = tables.unique(rows, "architecture")
    vggs = [name for name in names if name.startswith("vgg")]
    others = [name for name in names if name not in vggs]
    groups = {"VGG": vggs, "other architectures": others}
    groups = {title: members for title, members in groups.items() if members}
    stamp = stamp_of(command)
    figure, axes = plots.panels(len(groups), sharey=True)
    for panel, (title, members) in zip(axes, groups.items(), strict=True):
        depth.panel(panel, rows, members)
        panel.plot([], [], color="0.4", linestyle="--", label="shuffled channels")
        panel.set_title(title)
        panel.legend()
    axes[0].set_ylabel("relative sensitivity, $R_k$")
    print("figure:", plots.save(figure, command.results, "pretrained_imagenet", stamp))
    for stem, wanted in {
        "fig4_imagenet": [name for name in names if name in ("vgg11", "vgg11_bn")],
        "fig13_imagenet": [name for name in vggs if name.startswith(("vgg16", "vgg19"))],
        "fig14_imagenet": [name for name in names if name == "alexnet"],
    }.items():
        if wanted:
            chosen = [row for row in powers if row["architecture"] in wanted]
            print("figure:", plots.save(modes.draw(chosen), command.results, stem, stamp))
    figure, (panel,) = plots.panels(1)
    frequency(panel, powers)
    print("figure:", plots.save(figure, command.results, "fig12_imagenet", stamp))


def frequency(panel: Any, powers: Sequence[tables.Row]) -> None:
    """Draw the aggregate frequency of the 3 × 3 kernels against relative depth, initialisation dotted (SI Fig. 12)."""
    names = tables.unique(powers, "architecture")
    for colour, name in zip(plots.hues(len(names)), names, strict=True):
        modes.frequency_line(panel, [row for row in powers if row["architecture"] == name], colour)
    modes.frequency_axes(panel)


def stamp_of(command: cli.Command[Settings]) -> str:
    """Return the line that says on a figure at what scale it was made."""
    wanted = command.settings
    photos = f"{wanted.photo_count} photographs, {wanted.size} px"
    return (
        f"scale {command.options.scale} · trained weights as given · {photos} · "
        f"δ = {wanted.displacement:g} px, c = {wanted.cutoff} · {wanted.shuffles} shuffle(s), "
        f"{wanted.initial_seeds} fresh network(s)"
    )


def show(rows: Sequence[tables.Row]) -> str:
    """Return R of the last layer and of the output over the input's, whole and shuffled."""
    lines = []
    for name in tables.unique(rows, "architecture"):
        cells = []
        for shuffled in (0, 1):
            own = tables.select(rows, architecture=name, shuffled=shuffled)
            curve = [row["R"] for row in own if row["kind"] in measures.LAYERED and row["depth"] == 1]
            before = np.mean([row["R"] for row in own if row["layer"] == "input"])
            output = [row["R"] for row in own if row["layer"] == "output"]
            cells += [f"{math.exp(np.mean(np.log(one))) / before:.3f}" for one in (curve, output)]
        lines.append([recipes.LABELS[name], *cells])
    header = ["R over the input's", "last convolution", "output", "shuffled: last convolution", "output"]
    return tables.render(header, lines)


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    rows, powers = results.measured(command, lambda: measure(command), "table", "modes")
    print(show(rows))
    plot(command, rows, powers)


if __name__ == "__main__":
    main()
