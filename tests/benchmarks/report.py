"""Write the README's tables of benchmarks from the committed results: ``python tests/benchmarks/report.py``.

Each work in one row: our rate, every peer's with the ratio of ours to it in the first run of the benchmark, in the
second (``results/cpu`` and ``results/cpu_again``), and in one with a newer jax for our part, its peers run anew beside
it (``results/cpu_newest``, where there is one), "–" where a work was not run, and peak memory; then the targets. And
where the time of a whole figure goes (``results/whole``).
"""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import records  # noqa: E402
from works import WORKS  # noqa: E402

FOLDERS = ("cpu", "cpu_again")
NEWEST = "cpu_newest"


def marks(name):
    """The lines before and after what is written."""
    return f"<!-- {name}: written by `python tests/benchmarks/report.py` -->\n", f"<!-- end of {name} -->"


def whole(results):
    """Where the time of a whole figure goes."""
    facts = json.loads((results / "whole" / "provenance.json").read_text(encoding="utf-8"))
    asked = facts["arguments"]
    lines = [
        f"`{asked['figure']} --scale {asked['scale']}`, medians of {asked['repeats']} rounds; "
        f"{facts['hardware']['cores']} cores ({facts['hardware']['processor']}), jax {facts['versions']['jax']}.",
        "",
        (results / "whole" / "whole.md").read_text(encoding="utf-8"),
    ]
    return "\n".join(lines).strip()


def side_by_side(results):
    """Contenders, and the targets."""
    folders = [name for name in (*FOLDERS, NEWEST) if (results / name).is_dir()]
    runs = [records.read_csv(results / name / "table.csv") for name in folders]
    facts, *_, last = (json.loads((results / name / "provenance.json").read_text("utf-8")) for name in folders)
    where = facts["hardware"]
    titles = ["ours is so many times as fast", "again"]
    lines = [
        f"{where['cores']} cores ({where['processor']}), {facts['arguments']['threads']} threads each; "
        f"{named(facts['versions'])}."
    ]
    if NEWEST in folders:
        titles.append(f"ours with jax {last['versions_of_ours']['jax']}")
        lines[0] += f" In the run with a newer jax, ours had {named(last['versions_of_ours'])}."
    lines += [
        "",
        row_of("work", "contender", "median rate", *titles, "peak memory, GiB"),
        "|" + "---|" * (4 + len(runs)),
    ]
    for work in WORKS:
        found = [[row for row in rows if row["work"] == work.name] for rows in runs]
        for index, row in enumerate(found[0]):
            ratios = []
            for rows in found:
                same = next((one for one in rows if one["contender"] == row["contender"]), None)
                ratios.append(digits(rows[0]["rate"] / same["rate"]) if same else "–")
            cells = [work.title if not index else "", row["contender"], f"{digits(row['rate'])} {row['unit']}"]
            lines.append(row_of(*cells, *(ratios if index else [""] * len(runs)), f"{row['peak_gib']:.2f}"))
    held = [records.read_csv(results / name / "targets.csv") for name in folders]
    works = {work.name: work.title for work in WORKS}
    lines += ["", row_of("work", "target", "found", *titles[1:]), "|" + "---|" * (2 + len(runs))]
    for first in held[0]:
        asked = [name for name in first if name not in ("found", "met")]
        title = works[first["work"]] + (", chunk=8" if "chunk" in first["contender"] else "")
        cells = []
        for rows in held:
            row = next((row for row in rows if all(row[name] == first[name] for name in asked)), None)
            cells.append(f"{row['found']:.2f}, {'met' if row['met'] == 'True' else 'not met'}" if row else "–")
        lines.append(row_of(title, first["asked"], *cells))
    return "\n".join(lines)


def row_of(*cells):
    return "| " + " | ".join(cells) + " |"


def named(versions):
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def digits(number):
    """Three digits, without an exponent."""
    number = float(f"{number:.3g}")
    return f"{number:,.0f}" if number >= 100 else f"{number:g}"


SECTIONS = {"benchmarks": side_by_side, "whole figure": whole}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results", help="where both runs' folders are")
    parser.add_argument("--readme", type=pathlib.Path, default=HERE.parents[1] / "README.md", help="file to write into")
    options = parser.parse_args()
    text = options.readme.read_text(encoding="utf-8")
    for name, section in SECTIONS.items():
        begin, end = marks(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}{section(options.results)}\n{end}{rest.split(end)[1]}"
    options.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
