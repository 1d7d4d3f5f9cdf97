"""Settings of XLA, the C library's allocator and the compilation cache, made before jax is imported."""

import ctypes
import importlib.util
import mmap
import os
import pathlib
import sys

XLA = "xla_cpu_experimental_ynn_fusion_type"
"""What XLA gives to its CPU library: all but convolutions, whose gradients XLA itself computes twice as fast."""
MALLOPT = {-8: 1, -3: 2**30, -1: 2**31 - 1}
"""M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: large arrays reuse memory, which otherwise goes back to the system
when they are freed and comes again page by page, each page zeroed. The process keeps its peak until it ends."""


def prepare(*, reuse: bool = True) -> None:
    """Set what makes CPUs faster, and keep compiled programs; what the user has set stays. Other platforms ignore it.

    ``reuse``: whether the allocator keeps freed memory.

    Without effect on XLA where jax has been imported, on the allocator where there is no GNU C library.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_folder()))
    # Smaller programs are compiled sooner than read.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    flags = os.environ.get("XLA_FLAGS", "")
    if "jax" not in sys.modules and XLA not in flags and _is_known(XLA):
        os.environ["XLA_FLAGS"] = f"{flags} --{XLA}=-individual_convolution".strip()
    theirs = any(name.startswith(("MALLOC_", "LD_PRELOAD")) for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if reuse and mallopt and not theirs:
        for option, value in MALLOPT.items():
            mallopt(option, value)


def _cache_folder() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "deform_jax" / "compiled"


def _is_known(flag: str) -> bool:
    """Whether the installed jaxlib has a flag: at any other it ends the process."""
    spec = importlib.util.find_spec("jaxlib")
    library = spec and spec.origin and pathlib.Path(spec.origin).with_name("libjax_common.so")
    if not library or not library.is_file():
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\0" + flag.encode() + b"\0") >= 0
