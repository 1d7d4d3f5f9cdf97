"""Eight simulated CPU devices, a compilation cache, and strict numerics, set before jax is first imported."""

import gc
import importlib.util
import logging
import mmap
import os
import pathlib
import sys

# Unoptimised code: these networks are tiny, and compiling them is what takes the time. A training step compiles in a
# quarter of it with XLA's older loop emitters, in one piece rather than in one per thread.
FLAGS = {
    "xla_force_host_platform_device_count": 8,
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}


def known(flags):
    """Those that the installed jaxlib has: it ends the process at any other.

    Whole strings only: the name of a flag that is gone, as the emitters' in jaxlib 0.12, still stands in a list.
    """
    library = pathlib.Path(importlib.util.find_spec("jaxlib").origin).with_name("libjax_common.so")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {name: value for name, value in flags.items() if content.find(b"\0" + name.encode() + b"\0") >= 0}


os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={value}" for name, value in known(FLAGS).items()))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


def pytest_configure(config):
    """With ``--dist loadfile``, files in their order: by their number of tests, the longest ones would come last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish():
    """Look for garbage seldom, and never again among all that jax has: tracing makes much, little of it in cycles."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def collected():
    """Collect at its end what a test leaves behind: that alone, since looking through all of jax takes a second."""
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture
def abandoned_reads(monkeypatch, collected):
    """Contain what orbax leaves behind when one of several reads fails.

    It abandons the others: their callbacks find its event loop closed, and asyncio logs their errors when they are
    collected. Inside pytest, that formats tracebacks in the middle of anything, even of parsing code (which CPython
    3.11 does not survive: "AST constructor recursion depth mismatch").
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """The data_dir of a small set in ImageNet's form: 40 JPEG crops of photographs to train on, 10 to test."""
    from experiments.common import photograph_set

    folder = tmp_path_factory.mktemp("photographs")
    photograph_set.write(folder, 40, files=2)
    return folder
