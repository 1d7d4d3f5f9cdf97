"""Where the time of a whole figure goes: ``python tests/benchmarks/whole.py``.

Runs the command of a figure in turn with nothing compiled before, with compiled programs kept from then, and with the
trained networks kept as well, each into folders of its own, and ``python -m experiments --help``. Written are
``whole.csv`` (a row for every run: seconds of every part, to the first training step and to the first measurement),
``whole.md`` with medians, and ``provenance.json``.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import records  # noqa: E402

PARTS = ("imports and start", "data", "compile", "train", "probe", "plot", "other")
"""Those of ``experiments.common.clock``, whose import would change the environment that is timed."""
FIRSTS = ("seconds_to_first_step", "seconds_to_first_probe")
STARTS = ("nothing compiled before", "compiled programs kept", "trained networks kept too")
HELP = "python -m experiments --help"


def experiments(*arguments, cache):
    """Run the command with its compiled programs in a folder; return its wall seconds, start of Python included."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "experiments", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def measure(figure, scale):
    """Yield a row for each of ``STARTS``, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        for index, start in enumerate(STARTS):
            runs, results = place / f"runs{min(index, 1)}", place / f"results{index}"
            settings = (figure, "--scale", scale, "--runs", str(runs), "--results", str(results))
            seconds = experiments(*settings, cache=place / "compiled")
            facts = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
            split = {part: facts["wall_split"].get(part, 0.0) for part in PARTS}
            firsts = {name: facts.get(name, "") for name in FIRSTS}
            print(f"{start}: {seconds:.1f} s", file=sys.stderr, flush=True)
            yield {"command": f"{figure} --scale {scale}", "start": start, "seconds": seconds, **split, **firsts}


def markdown(rows):
    titles = ["start", "seconds", *(f"{part}, %" for part in PARTS), "to first step, s", "to first measurement, s"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for start in STARTS:
        of = [row for row in rows if row["start"] == start]
        middle = {name: median(row[name] for row in of) for name in ("seconds", *PARTS, *FIRSTS)}
        whole = sum(middle[part] for part in PARTS)
        cells = [start, f"{middle['seconds']:.0f}", *(f"{100 * middle[part] / whole:.0f}" for part in PARTS)]
        cells += ["–" if middle[name] is None else f"{middle[name]:.1f}" for name in FIRSTS]
        lines.append("| " + " | ".join(cells) + " |")
    helped = median(row["seconds"] for row in rows if row["command"] == HELP)
    return "\n".join([*lines, "", f"`{HELP}`: {helped:.2f} s."]) + "\n"


def median(values):
    """Of numbers; of a part that a run has not, None."""
    found = [value for value in values if value != ""]
    return statistics.median(found) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", default="fig3_layer_sensitivity", help="as `python -m experiments` names them")
    parser.add_argument("--scale", default="demo", help="of the figure (default: demo)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of all three starts (default: 3)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "whole", help="folder for the tables")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    began, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        nothing = dict.fromkeys(("start", *PARTS, *FIRSTS), "")
        rows += [
            {"command": HELP, "seconds": experiments("--help", cache=folder), **nothing} for _ in range(options.repeats)
        ]
    for _ in range(options.repeats):
        for row in measure(options.figure, options.scale):
            rows.append(row)
            records.write_csv(options.out / "whole.csv", rows, list(row))
    (options.out / "whole.md").write_text(markdown(rows), encoding="utf-8")
    records.write_provenance(options.out, "python tests/benchmarks/whole.py", options, began)
    print(markdown(rows))


if __name__ == "__main__":
    main()
