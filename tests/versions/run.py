"""Run the tests with the oldest and with the newest versions of what the package needs.

    python tests/versions/run.py                  # both ends, the whole suite
    python tests/versions/run.py floor --quick    # one end, a part of the suite that touches every subpackage

``floor`` is Python 3.11 with each requirement at the lower bound of ``pyproject.toml``, ``newest`` Python 3.13 with the
newest of everything. Each has a virtual environment under ``.versions``, made when first used and brought up to date
after. Prints a table, and with ``--out`` adds its rows to ``versions.csv``, ``versions.md`` and ``provenance.json``.
Only Python's own library is needed here. Ends with 1 if a test failed.
"""

import argparse
import csv
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from concurrent import futures

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = {"floor": "3.11", "newest": "3.13"}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "jaxtyping")
FIELDS = ("setting", "part", "python", *PACKAGES, "passed", "failed", "skipped", "seconds", "install_seconds", "commit")
# What the quick part needs of the extras.
QUICK_PACKAGES = ("pytest", "scipy", "scikit-image", "matplotlib", "tyro", "tqdm")
# Warps against scikit-image, distances, filters, taps of modules, crops; training on eight devices with orbax, killed
# and resumed, a checkpoint loaded elsewhere; a figure from its command line.
QUICK = (
    "tests/warps/test_tps.py",
    "tests/probes/test_probe_distances.py::test_scipy_agrees",
    "tests/probes/test_probe_distances.py::test_gradients_are_zero_at_zero_and_right_elsewhere",
    "tests/probes/test_probe_filters.py",
    "tests/models/test_capture.py::test_values_are_the_modules_own",
    "tests/models/test_capture.py::test_lifted_modules_keep_their_order_and_their_values",
    "tests/data/test_data_augment.py::test_uint8_stays_uint8",
    "tests/training/test_checkpoints.py::test_saved_from_eight_devices_and_loaded_on_one",
    "tests/training/test_resume.py::test_so_it_does_with_orbax",
    "tests/experiments/test_figures.py::test_smoke_scale_writes_table_provenance_and_figure_and_redraws"
    "[fig2_warp_pipeline]",
)
# What a provenance of `experiments` needs beside the package itself.
PROVENANCE = """
import dataclasses, json, sys
from experiments.common import settings as common

@dataclasses.dataclass(frozen=True)
class Settings:
    setting: str = ""
    part: str = ""

setting, part, command = sys.argv[1:]
print(json.dumps(common.provenance(Settings(setting, part), command=command)))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", nargs="?", default="both", choices=(*PYTHON, "both"))
    parser.add_argument("--quick", action="store_true", help="a part of the suite, and only what it needs installed")
    parser.add_argument(
        "--oracles", action="store_true", help="also install PyTorch, for the tests that compare with it"
    )
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    parser.add_argument("--jobs", type=int, default=2, help="test processes of the whole suite")
    parser.add_argument("--out", type=pathlib.Path, help="folder of tables to which the rows are added")
    options = parser.parse_args()
    chosen = list(PYTHON) if options.setting == "both" else [options.setting]
    pythons = {setting: find_python(PYTHON[setting]) for setting in chosen}
    # Quick parts run side by side; whole suites use several processes each.
    with futures.ThreadPoolExecutor(len(chosen) if options.quick else 1) as pool:
        found = list(pool.map(lambda setting: run(setting, pythons[setting], options), chosen))
    rows = [row for row, _ in found]
    records = {f"{row['setting']} {row['part']}": record for row, record in found}
    print(markdown(rows))
    if options.out:
        write(options.out, rows, records)
    return int(any(row["failed"] for row in rows))


def run(setting, python, options):
    """Install and test one setting: a row of the table, and its provenance."""
    part = "quick" if options.quick else "whole"
    began = time.perf_counter()
    environment = ROOT / ".versions" / f"{setting}-{part}"
    executable = install(setting, python, environment, options)
    installed = time.perf_counter() - began
    say(f"{setting}: installed in {installed:.0f} s; testing")
    # Away from any other checkout and cache that the caller's environment names.
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    clean["JAX_COMPILATION_CACHE_DIR"] = str(environment / "jax_cache")
    report = environment / "tests.xml"
    report.unlink(missing_ok=True)
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    arguments += list(QUICK) if options.quick else ["-n", str(options.jobs), "--dist", "loadfile"]
    began = time.perf_counter()
    log = environment / "tests.log"
    with log.open("w") as file:
        ended = subprocess.run([executable, *arguments], cwd=ROOT, env=clean, stdout=file, stderr=file, check=False)
    seconds = time.perf_counter() - began
    say(f"{setting}: tested in {seconds:.0f} s; all that pytest said is in {log}")
    if ended.returncode:
        say(log.read_text(errors="replace"))
    if not report.exists():
        sys.exit(f"pytest ended with status {ended.returncode} and wrote no report, at the setting '{setting}'.")
    counts = counted(report, ended.returncode)
    command = f"python tests/versions/run.py {setting}" + " --quick" * options.quick + " --oracles" * options.oracles
    provenance = subprocess.run(
        [executable, "-c", PROVENANCE, setting, part, command],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(provenance.stdout)
    row = {"setting": setting, "part": part, **versions(executable), **counts, "commit": record["commit"][:10]}
    return row | {"seconds": round(seconds), "install_seconds": round(installed)}, record


def install(setting, python, environment, options):
    """An environment with the checkout and its requirements; its interpreter."""
    executable = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    limits = floor(project["dependencies"]) if setting == "floor" else []
    extras = project["optional-dependencies"]
    if options.quick:
        wanted = sorted({r for extra in extras.values() for r in extra if name_of(r) in QUICK_PACKAGES})
    else:
        wanted = [f"{ROOT}[tests{',oracles' if options.oracles else ''}]"]
    stamp = hashlib.sha256(json.dumps([str(python), limits, wanted]).encode()).hexdigest()
    written = environment / "stamp.txt"
    current = written.exists() and written.read_text() == stamp and not options.fresh
    if not current:
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([python, "-m", "venv", environment], check=True)
    elif setting == "floor":  # whose versions do not change
        return executable
    constraints = environment / "constraints.txt"
    constraints.write_text("\n".join(limits))
    pip = [
        executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-warn-script-location",
        "--no-compile",
    ]
    editable = ["--editable", wanted[0]] if not options.quick else ["--editable", str(ROOT), *wanted]
    upgrade = ["--upgrade", "--upgrade-strategy", "eager"] if setting == "newest" else []
    subprocess.run([*pip, *upgrade, "--constraint", constraints, *editable], check=True)
    written.write_text(stamp)
    return executable


def floor(requirements):
    """Each requirement's lower bound, and jaxlib at jax's."""
    bounds = dict(re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement).groups() for requirement in requirements)
    return [f"{name}=={version}" for name, version in (bounds | {"jaxlib": bounds["jax"]}).items()]


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0]


def find_python(version):
    """An interpreter of this version: on the path, of pyenv, or of uv."""
    root = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates = [sys.executable, shutil.which(f"python{version}")]
    candidates += sorted((root / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    if shutil.which("uv"):
        found = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True, check=False)
        candidates += found.stdout.split("\n")[:1]
    for candidate in filter(None, candidates):
        if version_of(candidate) == version:
            return str(candidate)
    sys.exit(
        f"Python {version} must be installed for this setting, but neither the path, nor {root}, nor uv has one. "
        f"Install it, for instance with `uv python install {version}` or `pyenv install {version}`."
    )


def version_of(executable):
    script = "import sys; print('{}.{}'.format(*sys.version_info))"
    try:
        found = subprocess.run([executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return None
    return found.stdout.strip()


def versions(executable):
    script = "import importlib.metadata as m, json, platform, sys; print(json.dumps([platform.python_version(), "
    script += "*map(m.version, sys.argv[1:])]))"
    found = subprocess.run([executable, "-c", script, *PACKAGES], capture_output=True, text=True, check=True)
    return dict(zip(("python", *PACKAGES), json.loads(found.stdout), strict=True))


def say(text):
    print(text, file=sys.stderr, flush=True)


def counted(report, status):
    """Tests that passed, failed (errors too) and were skipped; a run that ended badly has at least one failure."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(name)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": total - failed - skipped, "failed": failed or int(status != 0), "skipped": skipped}


def markdown(rows):
    lines = ["| " + " | ".join(name.replace("_", " ") for name in FIELDS) + " |", "|---" * len(FIELDS) + "|"]
    lines += ["| " + " | ".join(str(row[name]) for name in FIELDS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(folder, rows, records):
    """Add rows to the tables, in place of those of the same setting and part."""
    folder.mkdir(parents=True, exist_ok=True)
    table, provenance = folder / "versions.csv", folder / "provenance.json"
    new = {(row["setting"], row["part"]) for row in rows}
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row["setting"], row["part"]) not in new] + rows
        records = json.loads(provenance.read_text(encoding="utf-8")) | records
    rows = sorted(rows, key=lambda row: (row["part"], row["setting"]))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "versions.md").write_text(markdown(rows), encoding="utf-8")
    provenance.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
