"""Hostile arguments for every public function: how many were tried, worked and were refused by our own error.

    python tests/bad_input/campaign.py [--examples 200] [--seed 0] [--seconds 4] [--only NAME …] [--out FOLDER]

Each subpackage runs in a process of its own, so that a crash of the interpreter is counted rather than suffered, and
each example within a time and a memory limit. Failures print the simplest such call. The table and where it comes from
are written to the folder, by default ``results/`` beside this file.
"""

import argparse
import csv
import dataclasses
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

HERE = pathlib.Path(__file__).parent
MODULES = ("cases_warps", "cases_probes", "cases_data", "cases_models", "cases_training")
COLUMNS = ("package", "function", "examples", "worked", "beyond_float32", "traced", "refused", "failures", "seconds")
MEMORY = 3 * 2**30
"""Bytes that one example may ask for beyond what its process has."""
FLAGS = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PYTHONFAULTHANDLER": "1",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides a campaign."""

    examples: int = 200
    seed: int = 0
    seconds: float = 4.0
    """Of each function, after which its calls are traced and not run."""
    limit: float = 60.0
    """Seconds that one call may take."""


def rows(module: str, settings: Settings, only: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield the counts of each case of a table, run in child processes: a new one where one died."""
    first = 0
    while True:
        death = None
        for row in _child(module, settings, only, first):
            death = row.get("died")
            if death is None:
                first += 1
                yield row
        if death is None:
            return
        failure = {"kind": "hang" if death == "hang" else f"crash ({death})", "call": row["at"]}
        yield {**dict.fromkeys(COLUMNS, 0), "function": row["name"], "examples": 1, "failed": [failure]}
        first += 1


def _child(module: str, settings: Settings, only: tuple[str, ...], first: int) -> Iterator[dict[str, Any]]:
    """Yield what a child writes, and last how it died if it did."""
    arguments = [module, str(first), json.dumps(dataclasses.asdict(settings)), *only]
    environment = {
        **os.environ,
        **FLAGS,
        "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "at"
        command = [sys.executable, str(HERE / "campaign_child.py"), str(place), *arguments]
        with (pathlib.Path(folder) / "said").open("w+") as said:
            # In its own folder, where names such as '' and 'missing' lead to nothing of ours.
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, cwd=folder
            ) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    if line.startswith("{"):
                        yield json.loads(line)
            said.seek(0)
            words = said.read()
        if child.returncode:
            hung = "Timeout (" in words and "most recent call first" in words
            if not place.is_file():
                raise RuntimeError(f"{module} could not begin:\n{words[-2000:]}")
            name, _, call = place.read_text().partition("\n")
            yield {
                "name": name,
                "at": call,
                "died": "hang" if hung else f"exit {child.returncode}: {words.strip()[-1500:]}",
            }


def run(
    settings: Settings, modules: tuple[str, ...], only: tuple[str, ...], shown: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of all tables, with a bar of functions done."""
    from tqdm import tqdm

    sys.path.insert(0, str(HERE))
    found = []
    total = sum(len(_names(module, only)) for module in modules)
    with tqdm(total=total, unit="function", disable=not shown) as bar:
        for module in modules:
            for row in rows(module, settings, only):
                row["package"] = module.removeprefix("cases_")
                row["failures"] = len(row["failed"])
                bar.set_postfix_str(row["function"], refresh=False)
                bar.update()
                for failure in row["failed"]:
                    bar.write(f"FAILED ({failure['kind']}): {failure['call']}", file=sys.stderr)
                found.append(row)
    return found


def _names(module: str, only: tuple[str, ...]) -> list[str]:
    return [
        case.name for case in importlib.import_module(module).CASES if not only or case.public.split(".")[-1] in only
    ]


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each subpackage and one for all, in the columns of the table."""
    totals = []
    for package in (*dict.fromkeys(row["package"] for row in found), "all"):
        chosen = [row for row in found if package in (row["package"], "all")]
        sums = {name: sum(row[name] for row in chosen) for name in COLUMNS[2:]}
        totals.append({"package": package, "function": f"{len(chosen)} cases", **sums})
    return totals


def write(folder: pathlib.Path, found: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Write ``counts.csv``, ``counts.md`` and ``provenance.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "counts.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "seconds": round(row["seconds"], 1)} for row in found)
    kinds = [failure for row in found for failure in row["failed"]]
    parts = ["# Bad input", "", _markdown(summary(found)), "", "## By function", "", _markdown(found)]
    parts += ["", "## Failures", "", *([f"- {f['kind']}: `{f['call']}`" for f in kinds] or ["None."])]
    (folder / "counts.md").write_text("\n".join(parts) + "\n")
    (folder / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")


def _markdown(table: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in table:
        values = ({**row, "seconds": f"{row['seconds']:.0f}"}[name] for name in COLUMNS)
        lines.append("| " + " | ".join(str(value) for value in values) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the command line; the exit status says whether there were failures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--examples", type=int, default=Settings.examples, help="drawn calls for each function")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of the drawn calls")
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="for running each; then only tracing")
    parser.add_argument("--limit", type=float, default=Settings.limit, help="seconds that one call may take")
    parser.add_argument("--only", nargs="+", default=[], help="public names, without their subpackage")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="folder for the tables")
    given = parser.parse_args()
    os.environ.update({name: os.environ.get(name, value) for name, value in FLAGS.items()})
    sys.path.insert(0, str(HERE.parents[1]))
    settings, began = Settings(given.examples, given.seed, given.seconds, given.limit), time.monotonic()
    found = run(settings, MODULES, tuple(given.only))
    from experiments.common.settings import provenance

    command = "python tests/bad_input/campaign.py " + " ".join(sys.argv[1:])
    facts = {
        "wall_seconds": round(time.monotonic() - began),
        "processor": _processor(),
        "hypothesis": _version("hypothesis"),
    }
    write(given.out, found, provenance(settings, command=command.strip(), **facts))
    print(_markdown(summary(found)))
    print(f"Written to {given.out}.")
    return int(any(row["failed"] for row in found))


def _processor() -> str:
    """Return the processor's name where the system tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(package: str) -> str:
    return importlib.import_module(package).__version__


if __name__ == "__main__":
    sys.exit(main())
