"""Settings as frozen values, their hash, and the provenance that stands beside every result."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from deform_jax.training import processes

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "matplotlib")


def as_dict(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as nested JSON-ready dicts."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def digest(settings: Any) -> str:
    """Return ten hexadecimal digits of the settings that differ from their class's defaults.

    So a setting added later, with a default that keeps what was, does not orphan earlier results.
    """
    text = json.dumps(differences(settings, type(settings)()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(settings: Any, defaults: Any) -> dict[str, Any]:
    """Return {dotted name: value} of every setting that differs from the defaults."""
    ours, theirs = flat(as_dict(settings)), flat(as_dict(defaults))
    return {name: value for name, value in ours.items() if theirs.get(name) != value}


def provenance(settings: Any, *, command: str, **facts: Any) -> dict[str, Any]:
    """Return what produced a result: command, settings, versions, device, commit, date and any further facts."""
    device = jax.devices()[0]
    return {
        "command": command,
        "settings": as_dict(settings),
        "hash": digest(settings),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "processes": processes.count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **facts,
    }


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "deform_jax", "experiments/*.py")
        return git("rev-parse", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
