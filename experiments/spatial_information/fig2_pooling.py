"""SI Fig. 2: spatial pooling (a 2 × 2 mean) and channel pooling (over rotated filters), computed."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deform_jax import warps
from experiments.common import cli, plots, tables


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is pooled."""

    channels: int = 8
    """Channels of (b): their filters are one filter, rotated by 0, 1, … times the angle."""
    angle: float = 22.5
    """Angle θ between the filters of successive channels, degrees; with eight channels 22.5 goes once around."""
    size: int = 15
    """Side of filters and inputs in (b), in pixels."""
    angles: int = 73
    """Rotations of the input in (b), from 0 to 180 degrees."""
    seed: int = 0
    """Seed of the representation in (a)."""

    def __post_init__(self) -> None:
        for name, least in (("channels", 2), ("size", 5), ("angles", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}; {getattr(self, name)} given.")


SCALES = {"smoke": Settings(angles=9), "demo": Settings(), "paper": Settings()}


def representation(wanted: Settings) -> np.ndarray:
    """Return a random 4 × 4 representation of non-negative whole numbers, as a ReLU could leave them."""
    return np.asarray(jax.random.randint(jax.random.key(wanted.seed), (4, 4), 0, 10))


def pool(x: Any) -> np.ndarray:
    """Return the mean of every 2 × 2 window, stride 1."""
    sums = lax.reduce_window(jnp.asarray(x, jnp.float32), 0.0, lax.add, (2, 2), (1, 1), "VALID")
    return np.asarray(sums / 4)


def bar(wanted: Settings, degrees: float) -> jax.Array:
    """Return a soft bar through the centre, standing upright and then rotated, as (size, size)."""
    x = np.arange(wanted.size) - (wanted.size - 1) / 2
    profile = np.exp(-0.5 * np.square(x / 1.2)) - 0.5 * np.exp(-0.5 * np.square(x / 2.4))
    window = np.exp(-0.5 * np.add.outer(np.square(x), np.square(x)) / (wanted.size / 5) ** 2)
    image = jnp.asarray((profile[None, :] * window)[..., None], jnp.float32)
    field = warps.rotation_field(math.radians(degrees), (wanted.size, wanted.size))
    return warps.remap(image, field)[..., 0]


def measure(wanted: Settings) -> list[dict[str, Any]]:
    """Return the numbers of both parts: representations and what pooling makes of them; responses to rotated inputs."""
    image = representation(wanted)
    rows = []
    for name, x in (("before", image[:3, :3]), ("shifted", image[:3, 1:])):
        for part, array in (("representation", x), ("pooled", pool(x))):
            for (i, j), value in np.ndenumerate(array):
                head = {"part": "a", "series": f"{part} {name}", "row": i, "column": j}
                rows.append({**head, "angle": 0.0, "value": float(value)})
    filters = jnp.stack([bar(wanted, c * wanted.angle) for c in range(wanted.channels)])
    for degrees in np.linspace(0, 180, wanted.angles):
        seen = jnp.maximum(jnp.einsum("chw,hw->c", filters, bar(wanted, float(degrees)), precision="highest"), 0)
        for channel, value in enumerate(np.asarray(seen)):
            head = {"part": "b", "series": f"channel {channel + 1}", "row": channel, "column": 0}
            rows.append({**head, "angle": float(degrees), "value": float(value)})
    return rows


def change(rows: Sequence[tables.Row], part: str) -> float:
    """Return how far the shift moves a representation of (a): ‖after − before‖² / ‖before‖²."""
    before, after = (_array(rows, f"{part} {name}") for name in ("before", "shifted"))
    return float(np.square(after - before).sum() / np.square(before).sum())


def variation(rows: Sequence[tables.Row]) -> tuple[float, float]:
    """Return the sd over rotations, over the mean, of one channel's response and of the mean over channels."""
    responses = np.asarray([[row["value"] for row in tables.select(rows, series=name)] for name in _channels(rows)])
    single = (responses.std(axis=1) / responses.mean(axis=1)).mean()
    pooled = responses.mean(axis=0)
    return float(single), float(pooled.std() / pooled.mean())


def _channels(rows: Sequence[tables.Row]) -> list[str]:
    return [name for name in tables.unique(rows, "series") if name.startswith("channel")]


def _array(rows: Sequence[tables.Row], series: str) -> np.ndarray:
    chosen = tables.select(rows, series=series)
    side = 1 + int(max(row["row"] for row in chosen))
    return np.asarray([row["value"] for row in chosen]).reshape(side, side)


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw (a) a representation and its shift, before and after pooling; (b) filters, inputs and responses."""
    wanted = command.settings
    layout = [["r0", "r1", "f0", "f1", "curve"], ["p0", "p1", "i0", "i1", "curve"]]
    figure, axes = plots.mosaic(layout, size=(8.6, 3.5), width_ratios=[1, 1, 1, 1, 2.6])
    for i, name in enumerate(("before", "shifted")):
        for letter, part in (("r", "representation"), ("p", "pooled")):
            values = _array(rows, f"{part} {name}")
            panel = axes[f"{letter}{i}"]
            panel.imshow(values, cmap="Blues", vmin=0, vmax=14)
            for (row, column), value in np.ndenumerate(values):
                panel.annotate(f"{value:g}", (column, row), ha="center", va="center", fontsize=7)
            plots.bare(panel)
        axes[f"r{i}"].set_title("(a) representation" if i == 0 else "shifted by a pixel")
        axes[f"p{i}"].set_title("2 × 2 mean" if i == 0 else f"moved {change(rows, 'pooled'):.2f}")
        degrees = i * wanted.angle
        plots.picture(
            axes[f"f{i}"], np.asarray(bar(wanted, degrees))[..., None], f"{'(b) ' if i == 0 else ''}filter {i + 1}"
        )
        plots.picture(axes[f"i{i}"], np.asarray(bar(wanted, degrees))[..., None], "input" if i == 0 else "rotated by θ")
    names = _channels(rows)
    for colour, name in zip(plots.shades(len(names)), names, strict=True):
        chosen = tables.select(rows, series=name)
        axes["curve"].plot([row["angle"] for row in chosen], [row["value"] for row in chosen], color=colour, alpha=0.7)
    angles = tables.unique(tables.select(rows, part="b"), "angle")
    means = [np.mean([row["value"] for row in tables.select(rows, part="b", angle=angle)]) for angle in angles]
    axes["curve"].plot(angles, means, color="black", linewidth=2.2, label="mean over channels")
    axes["curve"].plot([], [], color=plots.shades(3)[1], label="one channel each")
    axes["curve"].set_xlabel("rotation of the input, degrees")
    axes["curve"].set_ylabel("response after ReLU")
    axes["curve"].set_xticks(range(0, 181, 45))
    axes["curve"].set_ylim(bottom=0, top=1.3 * max(row["value"] for row in tables.select(rows, part="b")))
    axes["curve"].legend(loc="upper center", ncols=2)
    moved = f"{change(rows, 'representation'):.2f} and its mean by {change(rows, 'pooled'):.2f} of its squared norm"
    stamp = (
        f"scale {command.options.scale} · (a) a shift by one pixel moves the representation by {moved} · "
        f"(b) {wanted.channels} channels, θ = {wanted.angle:g}°, {wanted.size} × {wanted.size} px"
    )
    print("figure:", plots.save(figure, command.results, "fig2_pooling", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    if not command.options.plot_only:
        tables.write(command.results / "table.csv", measure(command.settings))
        cli.write_provenance(command)
    rows = tables.read(command.results / "table.csv")
    single, pooled = (100 * value for value in variation(rows))
    before, after = change(rows, "representation"), change(rows, "pooled")
    print(
        f"(a) spatial pooling: a one-pixel shift moves the representation by {before:.3f} of its squared norm, its "
        f"2 × 2 mean by {after:.3f}.\n(b) channel pooling: as the input rotates, one channel's response varies by "
        f"{single:.1f} % (sd over mean), the mean over channels by {pooled:.1f} %."
    )
    plot(command, rows)


if __name__ == "__main__":
    main()
