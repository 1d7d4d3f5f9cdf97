"""Measure deform_jax and its peers side by side: ``python tests/benchmarks/side_by_side.py``.

Every contender runs in a process of its own, on the same inputs, cores and threads; first each finds its fastest
setting, then their answers are compared, and then they run in turn, round after round. Written are ``runs.csv`` with
every single run, ``table.csv`` and ``table.md`` with medians and the ratios to ours, ``targets.csv``, and
``provenance.json``, after every work. Peers come with ``pip install -e ".[benchmarks]"``; those that are not installed
are left out.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import numpy as np  # noqa: E402
import records  # noqa: E402
from works import WORKS  # noqa: E402

ENVIRONMENT = dict(os.environ)
"""Of the contenders: importing ``experiments``, as provenance does, changes that of this process."""
TABLES = ("table.csv", "runs.csv", "targets.csv")
NEEDS = {"kornia": "kornia", "peers_torch": "torch", "opencv": "cv2", "scikit_image": "skimage", "scipy": "scipy"}


class Worker:
    """A contender's process."""

    def __init__(self, work, index, options):
        self.contender = work.contenders[index]
        python = options.python if self.contender.is_ours else sys.executable
        command = [python, str(HERE / "worker.py"), work.name, str(index), "--threads", str(options.threads)]
        command += ["--smoke"] * options.smoke
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self._heard()
        self.seconds = []

    def ask(self, line):
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self._heard()

    def end(self):
        """Nothing more to read, so it ends; closes the pipes and waits."""
        with self.process:
            pass

    def _heard(self):
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contender.name} ended with exit code {self.process.wait()}; its error is above.")
        return json.loads(line)


def measure(work, options):
    """Run one work; return a row for each contender, and the seconds of every run."""
    chosen = [i for i, contender in enumerate(work.contenders) if installed(contender)]
    for contender in work.contenders:
        if not installed(contender):
            print(f"  {contender.name}: not installed, left out", file=sys.stderr)
    workers = []
    try:
        workers.extend(Worker(work, index, options) for index in chosen)
        differences = compare(work, workers)
        repeats = work.repeats or options.repeats
        for round_ in range(repeats):
            for worker in workers:
                worker.seconds.append(worker.ask("run")["seconds"])
            print(f"  {work.name}: round {round_ + 1} of {repeats}", file=sys.stderr)
        peaks = [worker.ask("memory")["gib"] for worker in workers]
    finally:
        for worker in workers:
            worker.end()
    rows = [
        {
            "work": work.name,
            "contender": worker.contender.name,
            "setting": ", ".join(f"{name}={value}" for name, value in worker.ready["choice"].items() if name != "part"),
            "unit": work.unit,
            "count": worker.ready["count"],
            "runs": repeats,
            "median_s": statistics.median(worker.seconds),
            "min_s": min(worker.seconds),
            "max_s": max(worker.seconds),
            "rate": worker.ready["count"] / statistics.median(worker.seconds),
            "peak_gib": peak,
            "difference": difference,
        }
        for worker, peak, difference in zip(workers, peaks, differences, strict=True)
    ]
    return rows, [
        {"work": work.name, "contender": worker.contender.name, "run": index, "seconds": seconds}
        for worker in workers
        for index, seconds in enumerate(worker.seconds)
    ]


def compare(work, workers):
    """Each answer's largest difference from our first one's, as a part of its largest value; an error beyond bounds."""
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for index, worker in enumerate(workers):
            path = f"{folder}/{index}.npy"
            answers.append(np.load(path) if worker.ask(f"answer {path}")["saved"] else None)
    ours = answers[0]
    differences = []
    for worker, answer in zip(workers, answers, strict=True):
        if answer is None:
            differences.append("")
            continue
        same = ours[:: len(ours) // len(answer)]  # slow peers do every so-many-th image
        difference = float(np.abs(answer - same).max() / np.abs(same).max())
        if not difference <= work.tolerance:
            name = worker.contender.name
            raise ValueError(f"{work.name}: {name} differs from ours by {difference:.1e}, beyond {work.tolerance:.0e}.")
        differences.append(difference)
    return differences


def installed(contender):
    needed = [module for part, module in NEEDS.items() if part in contender.maker]
    return all(importlib.util.find_spec(module) for module in needed)


def targets(work, rows):
    """For each target: what was asked, what was found, and whether that meets it."""
    by_name = {row["contender"]: row for row in rows}
    for target in work.targets:
        mine, peer = by_name.get(target.contender), by_name.get(target.peer)
        if mine is None or (peer is None and target.of != "GiB"):
            continue
        if target.of == "speed":
            found = mine["rate"] / peer["rate"]
            asked, met = f"≥ {target.times:.3g} × the speed of {target.peer}", found >= target.times
        elif target.of == "memory":
            found = mine["peak_gib"] / peer["peak_gib"]
            asked, met = f"≤ {target.times:.3g} × the peak memory of {target.peer}", found <= target.times
        else:
            found, asked = mine["peak_gib"], f"≤ {target.times:.3g} GiB of peak memory"
            met = found <= target.times
        # As text, as it is read again.
        yield {"work": work.name, "contender": target.contender, "asked": asked, "found": found, "met": str(met)}


def markdown(rows, held):
    lines = ["| work | contender | setting | median | range | ours, times as fast | peak GiB |", "|" + "---|" * 7]
    for work in WORKS:
        of = [row for row in rows if row["work"] == work.name]
        for index, row in enumerate(of):
            rate, low, high = (row["count"] / row[name] for name in ("median_s", "max_s", "min_s"))
            ratio = of[0]["rate"] / row["rate"]
            cells = [work.title if index == 0 else "", row["contender"], row["setting"] or "–"]
            cells += [f"{rate:,.4g} {row['unit']}", f"{low:,.4g} – {high:,.4g}" if row["runs"] > 1 else "one run"]
            lines.append("| " + " | ".join([*cells, f"{ratio:.3g}" if index else "–", f"{row['peak_gib']:.2f}"]) + " |")
    lines += ["", "| work | contender | target | found | met |", "|" + "---|" * 5]
    titles = {work.name: work.title for work in WORKS}
    for row in held:
        met = "yes" if row["met"] == "True" else "no"
        lines.append(f"| {titles[row['work']]} | {row['contender']} | {row['asked']} | {row['found']:.3g} | {met} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [work.name for work in WORKS]
    parser.add_argument("--only", nargs="+", choices=names, help="works; what is there of others stays (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="counted runs of each contender (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads of every contender (default: 2)")
    said = "interpreter of deform_jax's contenders, for another jax (default: this one)"
    parser.add_argument("--python", default=sys.executable, help=said)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "cpu", help="folder for the tables")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, which say nothing of speed: for the tests")
    options = parser.parse_args()
    if min(options.repeats, options.threads) < 1:
        parser.error("--repeats and --threads must be at least 1")
    began = time.perf_counter()
    chosen = [work for work in WORKS if not options.only or work.name in options.only]
    held = [kept(options.out / name, chosen) if options.only else [] for name in TABLES]
    earlier = provenance_of(options.out) if any(held) else None
    for work in chosen:
        print(work.title, file=sys.stderr, flush=True)
        found, seconds = measure(work, options)
        for rows, new in zip(held, (found, seconds, targets(work, found)), strict=True):
            rows += new
        write(options, began, earlier, *held)
    print(markdown(held[0], held[2]))


def kept(path, chosen):
    """The rows that are there of works that are not measured now."""
    names = {work.name for work in chosen}
    return [row for row in records.read_csv(path) if row["work"] not in names] if path.exists() else []


def provenance_of(folder):
    """Of rows that stay: how they were measured."""
    path = folder / "provenance.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(options, began, earlier, rows, singles, held):
    """Write what there is so far, in the order of ``WORKS``."""
    order = {work.name: index for index, work in enumerate(WORKS)}
    for table, name in zip((rows, singles, held), TABLES, strict=True):
        table.sort(key=lambda row: order[row["work"]])
        if table:
            records.write_csv(options.out / name, table)
    (options.out / "table.md").write_text(markdown(rows, held), encoding="utf-8")
    command = "python tests/benchmarks/side_by_side.py"
    ours = records.versions_of(options.python) if options.python != sys.executable else None
    records.write_provenance(options.out, command, options, began, earlier=earlier, versions_of_ours=ours)


if __name__ == "__main__":
    main()
