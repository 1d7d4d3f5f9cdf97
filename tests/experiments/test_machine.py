"""What `import experiments` sets before jax is imported, seen from processes of their own."""

import json
import os
import subprocess
import sys

REPORT = """
import json, os, experiments
import jax
names = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
found = {name: os.environ[name] for name in names if name in os.environ}
print(json.dumps(found | {"devices": jax.device_count(), "cores": len(os.sched_getaffinity(0))}))
"""


def settings(**environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_COMP", "JAX_PERS"))}
    command = [sys.executable, "-c", REPORT]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_devices_and_cache_are_set_and_jax_takes_them(tmp_path):
    found = settings(XDG_CACHE_HOME=str(tmp_path))
    assert found["devices"] <= found["cores"] < 2 * found["devices"]
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "deform_jax" / "compiled")


def test_settings_of_the_user_stay(tmp_path):
    flags = "--xla_force_host_platform_device_count=3"
    found = settings(XLA_FLAGS=flags, JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert found["XLA_FLAGS"] == flags
    assert found["devices"] == 3
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
