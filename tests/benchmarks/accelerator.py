"""deform_jax on a GPU or TPU: ``python tests/benchmarks/accelerator.py``.

Warps, as a fraction of the copy bandwidth that is measured first (a warp need only read and write every image once);
training, one step or several in one dispatch, in float32 and bfloat16, one network or several seeds in one program, as
images per second and as a fraction of the vendor's dense bfloat16 peak, beside ``torch.compile`` (channels last,
bfloat16) where PyTorch sees the same card; probes. Written are ``table.csv``, ``table.md`` and ``provenance.json``.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import ours  # noqa: E402
import records  # noqa: E402
import shared_inputs as inputs  # noqa: E402
import works  # noqa: E402

from deform_jax import training, warps  # noqa: E402
from experiments.common import costs  # noqa: E402

KINDS = {"H200": "H200", "v5 lite": "v5e", "v6 lite": "v6e"}
"""Part of jax's name of a device, and the name under which ``costs`` has its peak."""


def timed(function, repeats):
    """Median seconds of a call whose results are waited for, after two that are not counted."""
    taken = []
    for index in range(repeats + 2):
        began = time.perf_counter()
        jax.block_until_ready(function())
        taken += [time.perf_counter() - began] * (index > 1)
    return statistics.median(taken)


def copy_bandwidth(entries, repeats):
    """Bytes read and written a second by adding one to a large array."""
    x = jnp.zeros(entries, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 8 * entries / timed(lambda: add(x), repeats)


def warp_rows(options, bandwidth):
    for count, size, grid in ((16, 16, 3), (8, 24, 5)) if options.smoke else ((8192, 32, 3), (512, 224, 5)):
        images = jnp.asarray(inputs.images(min(count, 64), size))
        images = jnp.tile(images, (-(-count // len(images)), 1, 1, 1))[:count]
        keys = jax.random.split(jax.random.key(0), count)
        for name, perturb in (
            ("TPS", warps.random_tps(grid=(grid, grid))),
            ("max-entropy", warps.random_max_entropy()),
        ):
            function = jax.jit(jax.vmap(perturb))
            seconds = timed(functools.partial(function, keys, images), options.repeats)
            part = 2 * images.nbytes / seconds / bandwidth
            yield row(
                f"warp, {name}, {count} × {size}²×3", "deform_jax", count / seconds, "images/s", bandwidth_part=part
            )


def training_rows(options):
    blocks, size = (works.SMALL, 8) if options.smoke else (works.CIFAR10, 32)
    peak = next((costs.PEAKS[name] for kind, name in KINDS.items() if kind in jax.devices()[0].device_kind), None)
    for batch in (8,) if options.smoke else (128, 512, 2048):
        for dtype in ("float32", "bfloat16"):
            for steps, seeds in ((1, 1), (10, 1), (1, 4), (10, 4)):
                seconds, flops = training_step(batch, size, blocks, dtype, steps, seeds, options.repeats)
                name = f"{dtype}, {steps} step{'s' * (steps > 1)} a dispatch, {seeds} seed{'s' * (seeds > 1)}"
                yield row(
                    f"training, CIFAR10 network, batch {batch}",
                    f"deform_jax, {name}",
                    steps * seeds * batch / seconds,
                    "images/s",
                    peak_part=flops * steps * seeds / seconds / peak if peak else "",
                )
        yield from torch_rows(batch, size, blocks, options.repeats)


def training_step(batch, size, blocks, dtype, steps, seeds, repeats):
    """Seconds of ``steps`` steps of ``seeds`` networks in one dispatch, and the FLOPs of one step of one network."""
    state, data = start(batch, size, blocks, dtype)
    flops = jax.jit(training.train_step).lower(state, data).compile().cost_analysis()["flops"]
    step = dispatch(steps)
    held = [jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds), state)]

    def run():
        held[0] = step(held[0], data)
        return held[0]

    return timed(run, repeats), flops


def start(batch, size, blocks, dtype):
    """A network before its first step, and a batch."""
    model, variables = ours._vgg(blocks, 3, "max")
    model = model.clone(compute_dtype=dtype)
    state = training.create_state(model, training.Recipe(), jax.random.key(0), (size, size, 3), 10**6)
    state = state.replace(params=variables["params"], batch_stats=variables["batch_stats"])
    data = {"images": inputs.images(batch, size), "labels": inputs.labels(batch, 10)}
    return state, jax.tree.map(jnp.asarray, data)


def dispatch(steps):
    """``steps`` training steps on one batch as one program, for states with a leading axis of seeds."""

    def several(state, data):
        one = lambda state, _: (training.train_step(state, data)[0], None)  # noqa: E731
        return jax.lax.scan(one, state, None, length=steps)[0]

    return jax.jit(jax.vmap(several, in_axes=(0, None)), donate_argnums=0)


def torch_rows(batch, size, blocks, repeats):
    try:
        import peers_torch
    except ImportError:
        return
    if peers_torch.DEVICE.type != "cuda":
        return
    settings = {"count": batch, "size": size, "blocks": blocks, "downsampling": "max"}
    for compiled in (False, True):
        job = peers_torch.train_step(**settings, mixed=True, compiled=compiled)
        name = "torch.compile, channels last, bfloat16" if compiled else "torch, channels last, bfloat16"
        seconds = timed(lambda job=job: (job.run(), peers_torch._wait())[0], repeats)
        yield row(f"training, CIFAR10 network, batch {batch}", name, batch / seconds, "images/s")


def probe_rows(options):
    if options.smoke:
        cases = [(4, 8, works.SMALL, "small network")]
    else:
        cases = [(512, 32, works.CIFAR10, "CIFAR10 network"), (32, 224, works.VGG16, "VGG16-size network, 224 px")]
    for count, size, blocks, name in cases:
        for chunk in (None, max(2, count // 4)):
            job = ours.sensitivity(count=count, size=size, blocks=blocks, chunk=chunk)
            seconds = timed(job.run, options.repeats)
            title = f"sensitivity, {name}, {count} + {count} images"
            yield row(title, f"deform_jax, chunk={chunk}", 2 * count / seconds, "images/s")


def row(work, contender, rate, unit, *, bandwidth_part="", peak_part=""):
    print(f"{work}: {contender}: {rate:,.4g} {unit}", file=sys.stderr, flush=True)
    found = {"work": work, "contender": contender, "rate": rate, "unit": unit}
    return found | {"of_copy_bandwidth": bandwidth_part, "of_bfloat16_peak": peak_part}


def markdown(rows, bandwidth):
    lines = [
        f"{jax.devices()[0].device_kind}; copying moves {bandwidth / 1e9:,.0f} GB/s.",
        "",
        "| work | contender | rate | of copy bandwidth | of bfloat16 peak |",
        "|" + "---|" * 5,
    ]
    for one in rows:
        parts = [f"{one[name]:.2g}" if one[name] != "" else "–" for name in ("of_copy_bandwidth", "of_bfloat16_peak")]
        cells = [one["work"], one["contender"], f"{one['rate']:,.4g} {one['unit']}", *parts]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="counted runs (default: 7)")
    parser.add_argument("--out", type=pathlib.Path, help="folder (default: results/ and the device's name)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on any device: for the tests")
    options = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.smoke:
        parser.error("jax sees no accelerator here; tests/benchmarks/side_by_side.py is the benchmark for CPUs")
    began = time.perf_counter()
    bandwidth = copy_bandwidth(2**16 if options.smoke else 2**28, options.repeats)
    rows = [*warp_rows(options, bandwidth), *training_rows(options), *probe_rows(options)]
    folder = options.out or HERE / "results" / device.device_kind.lower().replace(" ", "_")
    table = markdown(rows, bandwidth)
    print(table)
    records.write_csv(folder / "table.csv", rows)
    (folder / "table.md").write_text(table, encoding="utf-8")
    facts = {"device": device.device_kind, "copy_bytes_per_second": bandwidth}
    records.write_provenance(folder, "python tests/benchmarks/accelerator.py", options, began, **facts)


if __name__ == "__main__":
    main()
