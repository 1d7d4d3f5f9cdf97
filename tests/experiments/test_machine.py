"""What `import experiments` sets before jax is imported, seen from processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from experiments import machine

REPORT = """
import json, os, experiments
import jax
jax.numpy.ones(2).block_until_ready()
names = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
print(json.dumps({name: os.environ[name] for name in names if name in os.environ}))
"""


def settings(**environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_COMP", "JAX_PERS"))}
    command = [sys.executable, "-c", REPORT]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_flag_and_cache_are_set_and_jax_takes_them(tmp_path):
    found = settings(XDG_CACHE_HOME=str(tmp_path))
    assert (machine.XLA in found.get("XLA_FLAGS", "")) == machine._is_known(machine.XLA)
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "deform_jax" / "compiled")


def test_settings_of_the_user_stay(tmp_path):
    flags = f"--{machine.XLA}=" if machine._is_known(machine.XLA) else ""
    found = settings(XLA_FLAGS=flags, JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert found["XLA_FLAGS"] == flags
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)


@pytest.mark.parametrize("flag", ["xla_cpu_no_such_flag", "cpu_experimental_ynn_fusion"])
def test_a_flag_that_jaxlib_does_not_have_is_found_out(flag):
    assert not machine._is_known(flag)
