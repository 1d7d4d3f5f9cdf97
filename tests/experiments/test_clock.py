"""Where a command's time goes: hand-computed splits, a figure's own, and what is imported before it is needed."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from deform_jax import training
from experiments.__main__ import figures
from experiments.common import clock

TRACE, LOWER, COMPILE = (
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
HEAVY = {"matplotlib", "scipy", "skimage", "tensorflow", "tensorflow_datasets", "grain", "orbax", "torch"}
DRAWN_FROM_PATCHES = "fig5_scale_detection_inputs"
"""Trains nothing, and names matplotlib's colours before all else."""


class Time:
    """A source of time that goes on when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def spent(time):
    return clock.Clock(time)


def split(spent):
    """The parts that took any time."""
    return {part: pytest.approx(seconds) for part, seconds in spent.split().items() if seconds}


def test_every_moment_is_of_the_part_that_was_begun_last(time, spent):
    spent.start(age=4)
    time.passes(1)
    spent.turn("other")
    time.passes(2)
    with spent.part("probe"):
        time.passes(3)
        with spent.part("data"):
            time.passes(5)
        time.passes(7)
    time.passes(11)
    spent.turn("plot")
    time.passes(13)
    assert split(spent) == {"imports and start": 5, "other": 13, "probe": 10, "data": 5, "plot": 13}
    assert spent.first == {"data": pytest.approx(15), "probe": pytest.approx(22)}


def test_compilations_are_taken_out_of_the_part_they_happen_in(time, spent):
    with spent.part("train"):
        time.passes(10)
        spent.heard(TRACE, 2)
        time.passes(4)
        spent.heard(COMPILE, 4, fun_name="jit(f)")
    with spent.part("probe"):
        time.passes(6)
        spent.heard(LOWER, 1)
    assert split(spent) == {"compile": 7, "train": 8, "probe": 5}


def test_what_is_compiled_while_tracing_counts_once(time, spent):
    with spent.part("probe"):
        time.passes(20)
        spent.heard(TRACE, 3)  # 17 to 20
        time.passes(2)
        spent.heard(COMPILE, 2)  # 20 to 22
        time.passes(3)
        spent.heard(TRACE, 9)  # 16 to 25, around both
        time.passes(5)
        spent.heard(COMPILE, 5)  # 25 to 30
        time.passes(1)
    assert split(spent) == {"compile": 14, "probe": 17}


def test_a_clock_that_goes_back_takes_nothing_away(time, spent):
    time.passes(10)
    spent.heard(COMPILE, -50)
    spent.heard(TRACE, 70)
    assert split(spent) == {"compile": 10}


def test_what_is_no_compilation_or_in_another_thread_does_not_count(time, spent):
    time.passes(10)
    spent.heard("/jax/compilation_cache/cache_retrieval_time_sec", 3)
    other = threading.Thread(target=spent.heard, args=(COMPILE, 4))
    other.start()
    other.join()
    assert split(spent) == {"imports and start": 10}


def test_a_failed_part_is_left(time, spent):
    spent.turn("other")

    def fail():
        with spent.part("train"):
            time.passes(2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    time.passes(3)
    assert split(spent) == {"train": 2, "other": 3}


def test_as_a_decorator_it_accounts_for_every_call(time, spent):
    work = spent.part("data")(time.passes)
    work(2)
    time.passes(1)
    work(3)
    assert split(spent) == {"data": 5, "imports and start": 1}


def test_the_line_gives_seconds_and_per_cent(time, spent):
    spent.start(age=1)
    with spent.part("train"):
        time.passes(3)
    said = clock.line(spent.split())
    assert said.startswith("wall time 4.0 s: imports and start 1.0 s (25%), data 0.0 s (0%)")
    assert "train 3.0 s (75%)" in said


def test_the_first_step_is_that_of_the_program_which_training_compiles():
    heard = clock.Clock()
    jax.monitoring.register_event_duration_secs_listener(heard.heard)
    mesh, state = training.make_mesh(1, 1), {"w": jnp.ones((1, 3))}

    def step():
        def own(state, batch, *, axis_name):
            return jax.tree.map(lambda w: w + 1, state)

        batch = {"images": jnp.ones((1, 2)), "labels": jnp.ones((1, 2))}
        training.pmapped(own, mesh, donate=False)(state, batch)

    jax.jit(lambda x: x * 3)(1.0)
    assert "step" not in heard.first
    with heard.part("probe"):
        step()
    assert "step" not in heard.first
    with heard.part("train"):
        step()
    assert 0 < heard.first["step"] <= heard.first["train"]
    assert heard.split()["compile"] > 0


def test_the_age_of_a_process_is_about_what_it_is():
    script = "import time; time.sleep(0.3); from experiments.common import clock; print(clock.process_age())"
    age = float(python(script))
    if sys.platform == "linux":
        assert 0.3 < age < 100
    else:
        assert age == 0


def test_a_figure_records_where_its_time_went(smoke):
    record = json.loads((smoke("fig3_layer_sensitivity") / "provenance.json").read_text())
    parts = record["wall_split"]
    assert set(parts) == set(clock.PARTS)
    assert all(seconds >= 0 for seconds in parts.values())
    measuring = sum(parts[name] for name in ("data", "compile", "train", "probe"))
    # Compiled while drawing, and written as tables, is little; rounding is less.
    assert measuring == pytest.approx(record["wall_seconds"], rel=0.1, abs=2)
    assert sum(parts.values()) == pytest.approx(record["wall_seconds"] + parts["plot"] + parts["other"], rel=0.2, abs=2)
    assert min(parts[name] for name in ("train", "probe", "plot")) > 0
    assert 0 < record["seconds_to_first_probe"] < sum(parts.values()) - parts["plot"]


def python(script, *arguments):
    """What a new interpreter prints."""
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(clock.__file__).parents[2])}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout


LOADED = "; import sys; print('\\nloaded:', *{name.partition('.')[0] for name in sys.modules})"


def loaded(script):
    """The packages that a new interpreter has imported after a script."""
    return set(python(script + LOADED).rpartition("loaded:")[2].split())


def test_the_list_of_figures_imports_next_to_nothing():
    found = loaded("from experiments import __main__ as listing; listing.main(['--help'])")
    assert not found & {"jax", "numpy", "tyro", "deform_jax", *HEAVY}


def test_figures_import_nothing_heavy_before_it_is_needed():
    names = [f"experiments.{paper}.{name}" for name, (paper, _) in figures().items() if name != DRAWN_FROM_PATCHES]
    found = loaded(f"import importlib; [importlib.import_module(name) for name in {names}]")
    assert {"jax", "tyro"} <= found
    assert not found & HEAVY


def test_neither_does_the_help_of_one():
    script = """
import contextlib
from experiments import __main__ as listing
with contextlib.suppress(SystemExit):
    listing.main(['fig3_layer_sensitivity', '--help'])
"""
    found = loaded(script.rstrip() + "\npass")
    assert "tyro" in found
    assert not found & HEAVY
