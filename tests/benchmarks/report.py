"""Write the README's table of benchmarks from the committed results: ``python tests/benchmarks/report.py``.

Each work in one row: our rate, every peer's with the ratio of ours to it in the first run of the benchmark and in the
second (``results/cpu`` and ``results/cpu_again``), "–" where a work was run once, and peak memory; then the targets.
"""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import records  # noqa: E402
from works import WORKS  # noqa: E402

BEGIN, END = "<!-- benchmarks: written by `python tests/benchmarks/report.py` -->", "<!-- end of benchmarks -->"
FOLDERS = ("cpu", "cpu_again")


def section(results):
    """The README's lines between ``BEGIN`` and ``END``."""
    runs = [records.read_csv(results / name / "table.csv") for name in FOLDERS]
    facts = json.loads((results / FOLDERS[0] / "provenance.json").read_text(encoding="utf-8"))
    where, versions = facts["hardware"], facts["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{where['cores']} cores ({where['processor']}), {facts['arguments']['threads']} threads each; {named}.",
        "",
        "| work | contender | median rate | ours is so many times as fast | again | peak memory, GiB |",
        "|---|---|---|---|---|---|",
    ]
    for work in WORKS:
        both = [[row for row in rows if row["work"] == work.name] for rows in runs]
        for index, row in enumerate(both[0]):
            other = next((r for r in both[1] if r["contender"] == row["contender"]), None)
            ratios = [digits(of[0]["rate"] / r["rate"]) if r else "–" for of, r in zip(both, (row, other), strict=True)]
            cells = [work.title if not index else "", row["contender"], f"{digits(row['rate'])} {row['unit']}"]
            cells += ratios if index else ["", ""]
            lines.append("| " + " | ".join([*cells, f"{row['peak_gib']:.2f}"]) + " |")
    held = [records.read_csv(results / name / "targets.csv") for name in FOLDERS]
    titles = {work.name: work.title for work in WORKS}
    lines += ["", "| work | target | found | again |", "|---|---|---|---|"]
    for first in held[0]:
        same = [name for name in first if name not in ("found", "met")]
        second = next((row for row in held[1] if all(row[name] == first[name] for name in same)), None)
        title = titles[first["work"]] + (", chunk=8" if "chunk" in first["contender"] else "")
        found = [
            f"{row['found']:.2f}, {'met' if row['met'] == 'True' else 'not met'}" if row else "–"
            for row in (first, second)
        ]
        lines.append("| " + " | ".join([title, first["asked"], *found]) + " |")
    return "\n".join(lines)


def digits(number):
    """Three digits, without an exponent."""
    number = float(f"{number:.3g}")
    return f"{number:,.0f}" if number >= 100 else f"{number:g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results", help="where both runs' folders are")
    parser.add_argument("--readme", type=pathlib.Path, default=HERE.parents[1] / "README.md", help="file to write into")
    options = parser.parse_args()
    before, rest = options.readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}\n{section(options.results)}\n{END}{after}"
    options.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
