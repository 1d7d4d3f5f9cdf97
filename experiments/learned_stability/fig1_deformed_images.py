"""LS Fig. 1: photographs and their random thin-plate-spline deformations."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from deform_jax import warps
from experiments.common import cli, photographs, plots, tables


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which images, deformed how (LS 2.1: the ImageNet setting)."""

    images: tuple[str, ...] = photographs.SHIPPED
    """Photographs: astronaut, chelsea, coffee (shipped with scikit-image), or paths of image files."""
    size: int = 224
    """Pixels per side, after a central square crop."""
    grid: tuple[int, int] = (5, 5)
    """Control points, rows and columns."""
    max_shift: float = 10.0
    """Largest shift of a control point in each direction, pixels."""
    deformations: int = 2
    """Deformations shown of every image."""
    seed: int = 0
    """Seed of the deformations."""


SCALES = {
    "smoke": Settings(images=("astronaut",), size=64, max_shift=10 * 64 / 224, deformations=1),
    "demo": Settings(),
    "paper": Settings(),
}


def sample(wanted: Settings) -> list[dict[str, object]]:
    """Return the control-point shifts of every deformation, one row per control point."""
    rows = []
    for i, name in enumerate(wanted.images):
        for d in range(wanted.deformations):
            key = jax.random.fold_in(jax.random.key(wanted.seed), i * wanted.deformations + d)
            shifts = warps.random_shifts(key, wanted.grid, wanted.max_shift)
            rows += photographs.shift_rows(f"{name}/{d}", np.asarray(shifts))
    return rows


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw one row per photograph: the original, then its deformations."""
    wanted = command.settings
    figure, axes = plots.grid(len(wanted.images), 1 + wanted.deformations)
    deform = jax.jit(warps.deform_tps)
    for line, name in zip(axes, wanted.images, strict=True):
        image = photographs.load(name, wanted.size)
        chosen = [tables.select(rows, image=f"{name}/{d}") for d in range(wanted.deformations)]
        shown = [image, *(deform(photographs.shifts_of(shift_rows), image) for shift_rows in chosen)]
        for panel, picture in zip(line, shown, strict=True):
            panel.imshow(np.clip(picture, 0, 1))
    axes[0][0].set_title("original")
    for d in range(wanted.deformations):
        axes[0][1 + d].set_title(f"deformed {d + 1}" if wanted.deformations > 1 else "deformed")
    g, m = wanted.grid, wanted.max_shift
    stamp = f"scale {command.options.scale} · {wanted.size} px · {g[0]} × {g[1]} control points, shifts up to {m:g} px"
    print("figure:", plots.save(figure, command.results, "fig1_deformed_images", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    if not command.options.plot_only:
        tables.write(command.results / "table.csv", sample(command.settings))
        cli.write_provenance(command)
    plot(command, tables.read(command.results / "table.csv"))


if __name__ == "__main__":
    main()
