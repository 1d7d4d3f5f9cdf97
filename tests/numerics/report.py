"""Measure the numerical error of every probe, print a table, and write it: ``python tests/numerics/report.py``.

Relative errors against float64, of float32 and of bfloat16 inputs, on 1, 2 and 8 simulated devices. Written are
``numerics.csv`` with every single measurement, ``numerics.md`` and ``provenance.json``.
"""

import argparse
import csv
import dataclasses
import functools
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import cases_filters  # noqa: E402, F401
import cases_representations  # noqa: E402, F401
import numpy as np  # noqa: E402
from cases import CASES, Case, errors  # noqa: E402
from inputs import CLOSENESS, DEVICES, DTYPES, Inputs  # noqa: E402

FIELDS = ("probe", "options", "perturbation", "dtype", "devices", "error", "bound", "with_rounding", "from_one_device")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was measured."""

    closeness: tuple[float, ...] = CLOSENESS
    devices: tuple[int, ...] = DEVICES
    dtypes: tuple[str, ...] = DTYPES
    only: str = ""


def measure(case: Case, settings: Settings):
    """Yield a row for each closeness, dtype and number of devices."""
    for closeness in settings.closeness if case.perturbed else settings.closeness[:1]:
        unrounded = case.run(Inputs(closeness=closeness))[1] if case.comparable else None
        for dtype in settings.dtypes:
            alone = None
            for devices in settings.devices:
                measured, reference, bound = case.run(Inputs(dtype, devices, closeness))
                alone = measured if alone is None else alone
                yield {
                    "probe": case.probe,
                    "options": case.options,
                    "perturbation": closeness if case.perturbed else "",
                    "dtype": dtype,
                    "devices": devices,
                    "error": errors(case, measured, reference),
                    "bound": bound,
                    "with_rounding": errors(case, measured, unrounded) if case.comparable else "",
                    "from_one_device": errors(case, measured, alone),
                }


def markdown(rows):
    """One line for each probe, option and perturbation: the worst over devices, and how far apart these are."""
    lines = [
        "| probe | options | perturbation | float32 | bound | bfloat16 | bound | bfloat16, rounding of inputs included "
        "| 1, 2, 8 devices apart |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {}
    for row in rows:
        groups.setdefault((row["probe"], row["options"], row["perturbation"]), []).append(row)
    for (probe, options, perturbation), group in groups.items():
        of = {dtype: [row for row in group if row["dtype"] == dtype] for dtype in DTYPES}
        cells = [f"`{probe}`", options, f"{perturbation:g}" if perturbation else "–"]
        for dtype in DTYPES:
            cells += [largest(of[dtype], "error"), largest(of[dtype], "bound")]
        cells += [largest(of["bfloat16"], "with_rounding"), largest(group, "from_one_device")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def largest(rows, field):
    values = [row[field] for row in rows if row[field] != ""]
    if not values:
        return "–"
    value = max(values)
    return "0" if value == 0 else "no digit" if not np.isfinite(value) or value >= 1 else f"{value:.0e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="folder for the tables")
    parser.add_argument("--only", default="", help="measure only probes whose name and options contain this")
    options = parser.parse_args()
    settings = Settings(only=options.only)
    began, rows = time.perf_counter(), []
    for case in CASES:
        if options.only in case.name:
            found = list(measure(case, settings))
            rows += found
            worst = max(row["error"] / row["bound"] if row["bound"] else row["error"] for row in found)
            print(f"{case.name:<70} worst error {worst:.1e} of its bound", file=sys.stderr, flush=True)
    table = markdown(rows)
    print(table)
    write(options.out, rows, table, settings, wall_seconds=round(time.perf_counter() - began, 1))
    beyond = [row for row in rows if not row["error"] <= row["bound"]]
    for row in beyond:
        print("beyond its bound:", *(f"{name}={row[name]}" for name in FIELDS[:7]), file=sys.stderr)
    return 1 if beyond else 0


def write(folder, rows, table, settings, **facts):
    from experiments.common import settings as common

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "numerics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        shorten = functools.partial(map, lambda value: f"{value:.3g}" if isinstance(value, float) else value)
        writer.writerows(dict(zip(FIELDS, shorten(row[field] for field in FIELDS), strict=True)) for row in rows)
    (folder / "numerics.md").write_text(table, encoding="utf-8")
    record = common.provenance(settings, command="python tests/numerics/report.py", **facts)
    (folder / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
