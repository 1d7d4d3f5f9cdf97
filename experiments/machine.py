"""Settings of XLA, the C library's allocator and the compilation cache, made before jax is imported."""

import ctypes
import os
import pathlib
import sys

DEVICES = "--xla_force_host_platform_device_count"
MALLOPT = {-8: 1, -3: 2**30, -1: 2**31 - 1}
"""M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: large arrays reuse memory, which otherwise goes back to the system
when they are freed and comes again page by page, each page zeroed. The process keeps its peak until it ends."""


def prepare(*, simulate: bool = True, reuse: bool = True) -> None:
    """Set what makes CPUs faster, and keep compiled programs; what the user has set stays. Other platforms ignore it.

    Without effect on XLA where jax has been imported, on the allocator where there is no GNU C library.

    Args:
      simulate: one simulated device per core, with the batch split over them, trains full-width networks on CPU about
        a quarter faster than one device with as many threads.
      reuse: whether the allocator keeps freed memory.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_folder()))
    # Smaller programs are compiled sooner than read.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    flags = os.environ.get("XLA_FLAGS", "")
    if simulate and "jax" not in sys.modules and DEVICES not in flags:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # The largest power of two, which divides the usual batches.
        os.environ["XLA_FLAGS"] = f"{flags} {DEVICES}={2 ** (cores.bit_length() - 1)}".strip()
        # XLA runs them all on one pool of threads, as many as cores, and a collective holds its thread until every
        # device has come: with so few, two collectives that wait can leave none for the others, and XLA aborts.
        os.environ.setdefault("PJRT_NPROC", str(8 * cores))
    theirs = any(name.startswith(("MALLOC_", "LD_PRELOAD")) for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if reuse and mallopt and not theirs:
        for option, value in MALLOPT.items():
            mallopt(option, value)


def _cache_folder() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "deform_jax" / "compiled"
