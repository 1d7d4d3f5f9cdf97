"""LS Fig. 2: the four steps from random control-point shifts to a deformed image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from deform_jax import warps
from experiments.common import cli, photographs, plots, tables


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which image, deformed how (LS Fig. 2 uses 4 × 4 control points)."""

    image: str = "chelsea"
    """Photograph: astronaut, chelsea, coffee (shipped with scikit-image), or the path of an image file."""
    size: int = 224
    """Pixels per side, after a central square crop."""
    grid: tuple[int, int] = (4, 4)
    """Control points, rows and columns."""
    max_shift: float = 20.0
    """Largest shift of a control point in each direction, pixels; twice LS's 10, to be seen."""
    arrows: int = 15
    """Arrows per side in the pictures of the smoothed field."""
    seed: int = 0
    """Seed of the deformation."""


SCALES = {"smoke": Settings(size=64, max_shift=6.0, arrows=9), "demo": Settings(), "paper": Settings()}


def plot(command: cli.Command[Settings], shifts: np.ndarray) -> None:
    """Draw control-point arrows, the smoothed field, the field over the image, and the result."""
    wanted = command.settings
    shape = (wanted.size, wanted.size)
    image = photographs.load(wanted.image, wanted.size)
    points = np.asarray(warps.control_points(wanted.grid, shape))
    field = np.asarray(warps.tps_field(jnp.asarray(shifts), shape))
    where = np.linspace(0, wanted.size - 1, wanted.arrows).round().astype(int)
    dense = np.stack(np.meshgrid(where, where, indexing="ij"), axis=-1)
    figure, axes = plots.grid(1, 4, size=2.0)
    steps, sampled = axes[0], field[np.ix_(where, where)]
    plots.arrows(steps[0], points, shifts, color="#D55E00", width=0.008)
    steps[0].plot(points[..., 1].ravel(), points[..., 0].ravel(), ".", color="black", clip_on=False)
    plots.arrows(steps[1], dense, sampled, color="#0072B2")
    steps[2].imshow(image)
    plots.arrows(steps[2], dense, sampled, color="white")
    steps[3].imshow(np.clip(warps.remap(jnp.asarray(image), jnp.asarray(field)), 0, 1))
    titles = ("(a) random sources", "(b) thin-plate spline", "(c) over the image", "(d) result")
    margin = wanted.max_shift + 2
    for panel, title in zip(steps, titles, strict=True):
        panel.set_title(title)
        panel.set_aspect("equal")
        panel.set_xlim(-margin, wanted.size - 1 + margin)
        panel.set_ylim(wanted.size - 1 + margin, -margin)
    g, m = wanted.grid, wanted.max_shift
    stamp = f"scale {command.options.scale} · {wanted.size} px · {g[0]} × {g[1]} control points, shifts up to {m:g} px"
    print("figure:", plots.save(figure, command.results, "fig2_warp_pipeline", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    wanted = command.settings
    if not command.options.plot_only:
        shifts = warps.random_shifts(jax.random.key(wanted.seed), wanted.grid, wanted.max_shift)
        tables.write(command.results / "table.csv", photographs.shift_rows(wanted.image, np.asarray(shifts)))
        cli.write_provenance(command)
    plot(command, photographs.shifts_of(tables.read(command.results / "table.csv")))


if __name__ == "__main__":
    main()
