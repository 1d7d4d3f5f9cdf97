"""Tables of measurements, and what they were measured on."""

import csv
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

PACKAGES = ("jax", "jaxlib", "flax", "torch", "kornia", "opencv-python-headless", "scikit-image", "scipy", "numpy")


def write_csv(path, rows, fields=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_csv(path):
    """Rows whose numbers are numbers again."""

    def number(text):
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [{name: number(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write_provenance(folder, command, options, began, **facts):
    from experiments.common import settings

    kept = {name: value for name, value in vars(options).items() if name not in ("out", "point", "plot_only", "python")}
    record = {
        "command": command,
        "arguments": kept,
        "hardware": hardware(),
        "versions": versions(),
        "commit": settings.commit(),
        "wall_seconds": round(time.perf_counter() - began, 1),
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def versions():
    """Those of Python and of the packages that are installed beside it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def versions_of(python):
    """The same of another interpreter."""
    said = subprocess.check_output([python, __file__], text=True)
    return json.loads(said)


def hardware():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform()}


def stamp(folder):
    """What the measurements in a folder were made on, in a line for their figure."""
    facts = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    where = f"{facts['hardware']['cores']} cores, {facts['hardware']['processor']}; jax {facts['versions']['jax']}"
    return f"{where}; medians of several runs, shaded from the fastest to the slowest"


if __name__ == "__main__":
    print(json.dumps(versions()))
