"""All faults, for real: `python tests/faults/campaign.py [--quick] [--kills 20] [--only NAME ...] [--out FOLDER]`.

Every scenario runs in a process of its own with a time limit, on a network of one convolution. The table goes to
stdout and, unless ``--quick``, to ``results/`` beside this file, where ``--only`` leaves the other rows as they are.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
DEVICES = 2
LIMIT = 3600
"""Seconds for one scenario."""
FAULTS = {
    "killed": "`kill -9` of a training run",
    "asked_to_end": "SIGTERM (preemption) or Ctrl-C",
    "one_of_two_killed": "`kill -9` of one process of two",
    "one_of_two_asked": "SIGTERM to one process of two",
    "two_at_once": "two commands on one run folder",
    "damaged_checkpoint": "file of a resumable step deleted, cut, or one bit flipped",
    "damaged_result": "file of a finished network deleted, cut, or one bit flipped",
    "disk_full": "disk full during a save",
    "read_only": "read-only folder for results or runs",
    "other_settings": "folder of a run with other or older settings",
    "clock": "clock going backwards, file times of the future",
    "half_written": "writers of tables and figures killed",
}
QUICK = {
    "killed": 3,
    "asked_to_end": 1,
    "one_of_two_killed": 1,
    "one_of_two_asked": 1,
    "two_at_once": 1,
    "damaged_checkpoint": 1,
    "damaged_result": 1,
    "disk_full": 1,
    "read_only": 1,
    "other_settings": 1,
    "clock": 1,
    "half_written": 1,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the campaign."""

    kills: int = 20
    devices: int = DEVICES


def processor():
    """Return the processor's name, where the system says it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def scenario(name):
    import fault_disks
    import fault_files
    import fault_hosts
    import fault_processes

    modules = fault_processes, fault_hosts, fault_files, fault_disks
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def run_one(name, root, tries, answer):
    """Run a scenario in this process, and leave its row in the file ``answer``."""
    import fault_tools

    row = {"fault": FAULTS[name], "tried": 0, "outcome": "", "lost": ""}
    try:
        outcome = scenario(name)(root, *([] if tries is None else [tries]))
        row |= outcome._asdict()
    except fault_tools.NotTried as reason:
        row["outcome"] = f"not tried: {reason}"
    except AssertionError as error:
        said = str(error)
        short = said if len(said) < 20_000 else f"{said[:15_000]} … {said[-5_000:]}"
        row |= {"outcome": f"FAILED: {short}", "lost": "?"}
    answer.write_text(json.dumps(row))


def in_a_process(name, root, tries):
    """Return the row of a scenario; one that crashes or hangs is a row too."""
    answer = root / f"{name}.json"
    command = [sys.executable, __file__, "--one", name, "--root", root, "--answer", answer]
    command += [] if tries is None else ["--tries", str(tries)]
    try:
        ended = subprocess.run(command, timeout=LIMIT, capture_output=True, text=True, check=False)
        problem = f"exit code {ended.returncode}: {ended.stderr[-1500:]}"
    except subprocess.TimeoutExpired:
        problem = f"no end within {LIMIT} s"
    if answer.exists():
        return json.loads(answer.read_text())
    return {"fault": FAULTS[name], "tried": 0, "outcome": f"FAILED: {problem}", "lost": "?"}


def markdown(rows):
    lines = ["| fault | times tried | outcome | lost |", "| --- | ---: | --- | --- |"]
    cells = [[" ".join(str(row[name]).split()) for name in ("fault", "tried", "outcome", "lost")] for row in rows]
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells), ""])


def prepare_environment():
    """Give all processes the same two cores, devices and flags, on which bits depend, and one compilation cache."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MPLBACKEND", "Agg")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every fault, few times")
    parser.add_argument("--kills", type=int, default=20, help="times that a run is killed")
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="some faults only")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="folder for the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    for name in ("--root", "--answer"):
        parser.add_argument(name, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--tries", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent / "training")]
    if options.one:
        run_one(options.one, options.root, options.tries, options.answer)
        return 0
    prepare_environment()
    return campaign(options)


def campaign(options):
    from tqdm import tqdm

    rows, tries = [], QUICK if options.quick else {"killed": options.kills}
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        names = tqdm(options.only or FAULTS, desc="faults")
        for name in names:
            names.set_postfix_str(name)
            rows.append(in_a_process(name, pathlib.Path(root), tries.get(name)))
            tqdm.write(f"{FAULTS[name]}: {rows[-1]['tried']} tried, {rows[-1]['outcome']}", file=sys.stderr)
            if not options.quick:
                keep(rows, options)
    print(markdown(rows))
    return 1 if any(row["outcome"].startswith("FAILED") for row in rows) else 0


def keep(ours, options):
    """Write the rows in the places of those that the table has of the same faults, and where they were made."""
    from experiments.common import settings, tables

    path = options.out / "faults.csv"
    known = {row["fault"]: row for row in (tables.read(path) if path.exists() else [])}
    known |= {row["fault"]: row for row in ours}
    rows = [known[fault] | {"tried": int(known[fault]["tried"])} for fault in FAULTS.values() if fault in known]
    tables.write(path, rows)
    with tables.atomic(options.out / "faults.md") as file:
        file.write(markdown(rows))
    command = f"python tests/faults/campaign.py --kills {options.kills}"
    command += f" --only {' '.join(options.only)}" if options.only else ""
    record = settings.provenance(Settings(kills=options.kills), command=command, processor=processor())
    # Each row with what made it: the others of a table may be of an earlier run.
    provenance = options.out / "provenance.json"
    made = json.loads(provenance.read_text()).get("made", {}) if provenance.exists() else {}
    made |= {row["fault"]: {name: record[name] for name in ("command", "commit", "date")} for row in ours}
    tables.write_json(provenance, record | {"made": {row["fault"]: made.get(row["fault"]) for row in rows}})


if __name__ == "__main__":
    sys.exit(main())
