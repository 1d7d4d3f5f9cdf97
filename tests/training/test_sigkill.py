"""A process killed by SIGKILL, again and again, and started again each time: the parameters of an uninterrupted run."""

import os
import random
import runpy
import signal
import subprocess
import sys
import time

import training_toys as toys

from deform_jax import training

EPOCHS, KILLS = 7, 2
SCRIPT = f"""
import dataclasses, sys
import training_toys as toys

recipe = dataclasses.replace(toys.RECIPE, schedule="cosine", warmup_epochs=1, epochs={EPOCHS})
toys.fit(recipe, folders=[sys.argv[1]], evaluation=toys.TEST, save_epochs=(2,), checkpoint_steps=2)
"""


def steps(folder):
    return sorted(int(path.name) for path in folder.glob("resume/*") if path.name.isdigit())


def test_killed_runs_end_with_the_same_bits(tmp_path, monkeypatch):
    """Killed at random moments, fixed by a seed, once a new resumable step has appeared: many fall into a save."""
    script, killed, whole = tmp_path / "train.py", tmp_path / "killed", tmp_path / "whole"
    script.write_text(SCRIPT)
    command = [sys.executable, script, killed]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    rng, reached = random.Random(0), [0]
    for _ in range(KILLS):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while steps(killed)[-1:] <= reached[-1:] and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        errors = process.communicate()[1].decode()
        assert process.returncode == -signal.SIGKILL, errors
        reached.append(steps(killed)[-1])
    assert reached == sorted(set(reached))  # every process took the run further
    assert reached[-1] < EPOCHS * toys.STEPS  # and it was still at work
    last = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "other conditions" not in last.stderr

    # Without interruption, in this process: same machine, cores, devices and flags.
    monkeypatch.setattr(sys, "argv", ["train.py", str(whole)])
    runpy.run_path(str(script))
    names = sorted(str(path.parent.relative_to(whole)) for path in whole.rglob("manifest") if path.is_dir())
    assert names == sorted(str(path.parent.relative_to(killed)) for path in killed.rglob("manifest") if path.is_dir())
    assert {"states/init", "states/epoch_0002", "states/final", f"resume/{EPOCHS * toys.STEPS}"} <= set(names)
    for name in names:
        one, other = (training.load(run / name, resume=True) for run in (killed, whole))
        toys.assert_identical((one.variables, one.resume), (other.variables, other.resume))
        assert toys.timeless(one.manifest["history"]) == toys.timeless(other.manifest["history"])
