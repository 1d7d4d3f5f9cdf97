"""How time and peak memory grow: ``python tests/benchmarks/growth.py``.

With the number of images, their size and the control-point grid (thin-plate-spline warps); with the number of images of
a probe (sensitivity of the CIFAR10 network at half width, whole and in chunks of 16); and with the number of devices
that share a batch (the training step of the same network; simulated devices on the cores there are, which shows what
sharing costs, not what it gains). Each point is a process of its own. Written are ``growth.csv``, ``growth.png``,
``growth.pdf`` and ``provenance.json``.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

HALF = ((2, 16), (2, 32), (2, 64), (2, 128))
SMALL = ((1, 4), (1, 8))


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: a job whose size grows in one respect."""

    name: str
    axis: str
    maker: str
    fixed: dict
    varied: str
    values: tuple
    smoke: tuple
    small: dict = dataclasses.field(default_factory=dict)
    """What else is smaller in the tests."""


def _tps(name, axis, varied, values, smoke, **fixed):
    rest = {"count": 16, "size": 64, "grid": 3, "bound": 2.0} | fixed
    rest.pop(varied)
    small = {name: value for name, value in {"count": 2, "size": 16}.items() if name != varied}
    return Line(name, axis, "tps", rest, varied, values, smoke, small)


def _probe(name, **fixed):
    sizes = {"size": 32, "blocks": HALF} | fixed
    small = {"size": 8, "blocks": SMALL}
    return Line(name, "images", "sensitivity", sizes, "count", (16, 32, 64, 128, 256, 512, 1024), (4, 6), small)


LINES = (
    _tps("warp: images of 64 px", "images", "count", (1, 4, 16, 64, 256, 1024, 2048), (1, 2)),
    _tps("warp: size of 16 images", "side, px", "size", (16, 32, 64, 128, 256, 512, 1024), (8, 16)),
    _tps("warp: grid, 16 images of 64 px", "control points per side", "grid", (2, 3, 5, 7, 9, 13, 17), (2, 3)),
    _probe("probe: images, whole"),
    _probe("probe: images, chunk=16", chunk=16),
    Line(
        "training step: batch of 128 shared",
        "devices",
        "train_step",
        {"count": 128, "size": 32, "blocks": HALF, "downsampling": "max"},
        "devices",
        (1, 2, 4, 8),
        (1, 2),
        {"count": 8, "size": 8, "blocks": SMALL},
    ),
)


def point(maker, sizes, repeats):
    """Seconds of every counted run after two, and the peak memory in GiB before the job was made and after."""
    import worker

    machine = worker.machine()
    devices = sizes.get("devices", 1)
    if devices > 1:
        os.environ["XLA_FLAGS"] = f"{machine.DEVICES}={devices}"
        os.environ["PJRT_NPROC"] = str(8 * devices)
    machine.prepare(simulate=False)
    import ours

    before = worker.peak_gib()
    job = getattr(ours, maker)(**sizes)
    job.run()
    job.run()
    return {
        "seconds": [worker.seconds(job) for _ in range(repeats)],
        "gib_before": before,
        "gib": worker.peak_gib(),
    }


def measure(line, value, options):
    sizes = line.fixed | (line.small if options.smoke else {}) | {line.varied: value}
    asked = json.dumps({"maker": line.maker, "sizes": sizes, "repeats": options.repeats})
    command = [sys.executable, str(HERE / "growth.py"), "--point", asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "line": line.name,
        "axis": line.axis,
        "value": value,
        "runs": options.repeats,
        "median_s": statistics.median(found["seconds"]),
        "min_s": min(found["seconds"]),
        "max_s": max(found["seconds"]),
        "gib_above_start": found["gib"] - found["gib_before"],
        "peak_gib": found["gib"],
    }


def draw(rows, folder, stamp):
    """Time above, memory below; a column for each thing that grows."""
    from matplotlib import pyplot as plt

    from experiments.common import plots

    colours = [colour for colour, *_ in plots.LINES.values()]
    columns = []
    for row in rows:
        key = (row["line"].split(":")[0], row["axis"])
        columns += [key] * (key not in columns)
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            2, len(columns), figsize=(2.3 * len(columns), 4.4), layout="constrained", sharex="col", squeeze=False
        )
        for (part, axis), (above, below) in zip(columns, axes.T, strict=True):
            names = list(dict.fromkeys(r["line"] for r in rows if r["axis"] == axis and r["line"].startswith(part)))
            for index, name in enumerate(names):
                of = [row for row in rows if row["line"] == name]
                x = [row["value"] for row in of]
                style = {"color": colours[index], "marker": "os"[index % 2], "label": name.split(", ")[-1]}
                above.plot(x, [1e3 * row["median_s"] for row in of], **style)
                above.fill_between(
                    x,
                    [1e3 * row["min_s"] for row in of],
                    [1e3 * row["max_s"] for row in of],
                    color=colours[index],
                    alpha=0.2,
                    lw=0,
                )
                below.plot(x, [max(1024 * row["gib_above_start"], 1) for row in of], **style)
            if len(names) > 1:
                above.legend(loc="lower right")
            title = names[0].split(", ")[0] if len(names) > 1 else names[0]
            above.set_title(title.replace(": ", ":\n"))
            below.set_xlabel(axis)
            for one in (above, below):
                scale(one, [row["value"] for row in rows if row["line"] == names[0]])
        axes[0, 0].set_ylabel("time, ms")
        axes[1, 0].set_ylabel("peak memory beyond\nthe start's, MiB")
        plots.save(figure, folder, "growth", stamp)


def scale(axes, values):
    """Logarithmic, with plain numbers; from zero where what is drawn spans less than a decade."""
    from matplotlib import ticker

    from experiments.common import plots

    low, high = axes.dataLim.intervaly
    if high < 10 * low:
        axes.set_ylim(0, 1.08 * high)
    else:
        axes.set_yscale("log")
    axes.set_xscale("log", base=2)
    plots.plain_log_ticks(axes)
    apart = values if len(values) < 6 else values[::2]
    axes.xaxis.set_major_locator(ticker.FixedLocator(apart))
    axes.xaxis.set_minor_locator(ticker.FixedLocator(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="counted runs of each point (default: 7)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "growth", help="folder for results")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the tests")
    parser.add_argument("--plot-only", action="store_true", help="draw growth.csv again")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(**json.loads(options.point))))
        return
    import records

    if options.plot_only:
        rows = records.read_csv(options.out / "growth.csv")
    else:
        began, rows = time.perf_counter(), []
        for line in LINES:
            for value in line.smoke if options.smoke else line.values:
                rows.append(measure(line, value, options))
                last = rows[-1]
                told = (
                    f"{last['value']} {line.axis}: {1e3 * last['median_s']:.1f} ms, {last['gib_above_start']:.2f} GiB"
                )
                print(f"{line.name}: {told}", file=sys.stderr, flush=True)
        records.write_csv(options.out / "growth.csv", rows)
        records.write_provenance(options.out, "python tests/benchmarks/growth.py", options, began)
    draw(rows, options.out, records.stamp(options.out))


if __name__ == "__main__":
    main()
