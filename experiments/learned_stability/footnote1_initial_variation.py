"""LS footnote 1: total variation of freshly drawn filters, resampled for every layer shape, beside its closed form."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from deform_jax import models, probes
from experiments.common import cli, plots, results, tables, watch

BYTES = 2**28
"""Memory that one chunk of samples may take."""


TENTHS = 10
"""Independent parts of the draws, for intervals."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which layer shapes, and how often each is drawn."""

    resamples: int = 10_000
    """Draws of every shape (LS: 10,000)."""
    largest: int = 512
    """Leave out layers with more output channels than this; the largest take hours on a CPU at 10,000 draws."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        if self.resamples < 2 * TENTHS:
            raise ValueError(f"--resamples must be at least {2 * TENTHS}; {self.resamples} given.")
        if self.largest < 32:
            raise ValueError(f"--largest must be at least 32, the first layer's channels; {self.largest} given.")


SCALES = {"smoke": Settings(50, 32), "demo": Settings(10_000, 64), "paper": Settings()}


def shapes(largest: int) -> dict[tuple[int, int], str]:
    """Return {(channels in, out): which networks have such 3 × 3 layers} for LS's networks, on colour images."""
    found: dict[tuple[int, int], str] = {}
    for name, blocks in (("CIFAR10", models.CIFAR10_BLOCKS), ("ImageNet", models.IMAGENET_BLOCKS)):
        before = 3
        for layers, channels in blocks:
            for _ in range(layers):
                if channels <= largest and name not in found.get((before, channels), ""):
                    found[before, channels] = ", ".join(filter(None, [found.get((before, channels)), name]))
                before = channels
    return found


@functools.partial(jax.jit, static_argnums=(1, 2))
def _sample(key: jax.Array, shape: tuple[int, ...], count: int) -> tuple[jax.Array, jax.Array]:
    """Pooled and per-slice total variation of ``count`` fresh kernels of one shape."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel = models.truncated_normal_fan_in(key, shape)
        return probes.total_variation(kernel), probes.total_variation(kernel, per_slice=True)

    return jax.vmap(one)(jax.random.split(key, count))


def closed_forms() -> dict[str, float]:
    """Return the pooled value for infinitely many channels: (12/9) E|x − y| / E|x|, a 3 × 3 filter having 12 edges.

    ``truncated`` is for normals truncated at ± 2 standard deviations, by quadrature; ``normal`` is 4√2/3.
    """
    from scipy import integrate, special, stats  # slow to import

    absolute = 2 * integrate.quad(lambda x: x * stats.truncnorm.pdf(x, -2, 2), 0, 2)[0]
    # E|x − y| = 2 ∫ F(1 − F), for any distribution function F.
    low, high = special.ndtr(-2), special.ndtr(2)

    def spread(x: float) -> float:
        below = (special.ndtr(x) - low) / (high - low)
        return 2 * below * (1 - below)

    return {
        "truncated": 12 / 9 * integrate.quad(spread, -2, 2)[0] / absolute,
        "normal": 4 * math.sqrt(2) / 3,
    }


def measure(settings: Settings) -> results.Tables:
    """Return one row per layer shape and tenth of the draws (``seed``): mean and standard deviation over the draws."""
    rows, exact = [], closed_forms()["truncated"]
    for (c_in, c_out), networks in watch.each(shapes(settings.largest).items(), "drawing filters", unit="layer shape"):
        shape = (3, 3, c_in, c_out)
        chunk = max(1, min(settings.resamples // TENTHS, BYTES // (16 * math.prod(shape))))
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(settings.seed), c_in), c_out)
        for tenth in range(TENTHS):
            wanted = settings.resamples // TENTHS
            counts = [min(chunk, wanted - start) for start in range(0, wanted, chunk)]
            keys = jax.random.split(jax.random.fold_in(key, tenth), len(counts))
            parts = [jax.device_get(_sample(one, shape, count)) for one, count in zip(keys, counts, strict=True)]
            pooled, single = (np.concatenate(values).astype(np.float64) for values in zip(*parts, strict=True))
            rows.append(
                {
                    "shape": f"{c_in} → {c_out}",
                    "channels_in": c_in,
                    "channels_out": c_out,
                    "networks": networks,
                    "seed": tenth,
                    "resamples": wanted,
                    "pooled_mean": pooled.mean(),
                    "pooled_sd": pooled.std(ddof=1),
                    "per_slice_mean": single.mean(),
                    "per_slice_sd": single.std(ddof=1),
                    "closed_form_pooled": exact,
                }
            )
    return {"table": rows}


def over_draws(rows: Sequence[tables.Row]) -> list[dict[str, Any]]:
    """Return one row per layer shape, over all its draws."""
    found = []
    for shape in tables.unique(rows, "shape"):
        chosen = tables.select(rows, shape=shape)
        merged = dict(chosen[0])
        for kind in ("pooled", "per_slice"):
            means, sds = (np.asarray([row[f"{kind}_{what}"] for row in chosen]) for what in ("mean", "sd"))
            merged |= {f"{kind}_mean": means.mean(), f"{kind}_sd": np.sqrt(np.square(sds).mean())}
        found.append(merged | {"resamples": sum(row["resamples"] for row in chosen)})
    return found


def show(rows: Sequence[tables.Row]) -> str:
    """Return the table."""
    header = ["layer", "pooled mean", "sd", "per-slice mean", "sd", "closed form, pooled"]
    lines = [
        [
            f"{row['shape']} ({row['networks']})",
            *(f"{row[name]:.5f}" for name in ("pooled_mean", "pooled_sd", "per_slice_mean", "per_slice_sd")),
            f"{row['closed_form_pooled']:.5f}",
        ]
        for row in rows
    ]
    return f"Total variation of 3 × 3 filters at initialisation\n{tables.render(header, lines)}"


def plot(command: cli.Command[Settings], rows: Sequence[tables.Row]) -> None:
    """Draw mean ± sd by number of filter slices, the closed forms and LS's 1.87 beside."""
    figure, (left, right) = plots.panels(2)
    count = np.asarray([row["channels_in"] * row["channels_out"] for row in rows])
    for name, colour, marker, label, aside in (
        ("pooled", plots.LINES["max"][0], "o", "pooled (LS's formula)", 0.95),
        ("per_slice", plots.LINES["subsample"][0], "^", "mean of single slices", 1.05),
    ):
        mean, sd = (np.asarray([row[f"{name}_{what}"] for row in rows]) for what in ("mean", "sd"))
        left.errorbar(count * aside, mean, sd, fmt=marker, color=colour, capsize=2, label=label)
        right.plot(count * aside, sd, marker, color=colour, label=label)
    left.axhline(closed_forms()["truncated"], color="black", linestyle=":", label="closed form, pooled")
    left.axhline(1.87, color="0.6", linestyle="--", label="LS: 1.87")
    for value, label in ((0.035, "LS: 0.035, first layer"), (0.012, "LS: 0.012, larger layers")):
        right.axhline(value, color="0.6", linestyle="--" if value == 0.035 else "-.", label=label)
    for panel, label in ((left, "total variation, mean ± sd"), (right, "sd over draws")):
        panel.set_xscale("log")
        panel.set_xlabel("filter slices (channels in × out)")
        panel.set_ylabel(label)
        panel.legend(fontsize=7)
    right.set_yscale("log")
    stamp = f"scale {command.options.scale} · {rows[0]['resamples']:g} draws of every layer shape"
    print("figure:", plots.save(figure, command.results, "footnote1_initial_variation", stamp))


@cli.script
def main(arguments: list[str] | None = None) -> None:
    command = cli.parse(SCALES, script=__file__, description=str(__doc__), arguments=arguments)
    (rows,) = results.measured(command, lambda: measure(command.settings), "table")
    merged = over_draws(rows)
    print(show(merged))
    plot(command, merged)


if __name__ == "__main__":
    main()
