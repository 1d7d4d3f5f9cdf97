"""The figures of both papers, one command each; `python -m experiments` lists them."""

import importlib.util
import os
import pathlib
import sys

_ROOT = pathlib.Path(__file__).parents[1]
_SPEC = importlib.util.find_spec("deform_jax")
if _SPEC is None or _SPEC.origin is None or pathlib.Path(_SPEC.origin).parents[1] != _ROOT:
    raise ImportError(
        f"The experiments in {_ROOT} run with the deform_jax beside them, but the one that is installed is "
        f"{_SPEC.origin if _SPEC else 'none'}. From {_ROOT}, run: pip install -e '.[experiments]'"
    )

# On CPU, one simulated device per core with the batch split over them trains these networks about a quarter faster
# than one device with as many threads. Other platforms ignore the flag; a setting of the user's own is kept.
_FLAG = "--xla_force_host_platform_device_count"
if "jax" not in sys.modules and _FLAG not in os.environ.get("XLA_FLAGS", ""):
    _CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The largest power of two, which divides the usual batches.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}={2 ** (_CORES.bit_length() - 1)}".strip()
    # XLA runs them all on one pool of threads, as many as cores, and a collective holds its thread until every device
    # has come: with so few, two collectives that wait can leave none for the others, and XLA aborts the process.
    os.environ.setdefault("PJRT_NPROC", str(8 * _CORES))
