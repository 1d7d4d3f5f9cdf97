"""What a folder of runs holds, read from its files alone: while others train there, and whatever has befallen them.

Imports nothing heavy for runs that are finished; of others it asks the package whether they are being trained now.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Literal

RUNS = pathlib.Path("runs")
"""Where figures keep their networks by default."""
REMOVING = ".removing-"
"""What the name of a run begins with while it is removed."""
ASIDE = ".damaged-"
"""What the name of a seed's folder has in it when it was set aside as damaged."""
NAMED = re.compile(r"(?P<label>.+)-[0-9a-f]{10}")
State = Literal["finished", "training", "interrupted", "failed", "stopped", "damaged", "set aside", "empty"]


@dataclasses.dataclass(frozen=True)
class Seed:
    """One network's folder."""

    path: pathlib.Path
    state: State
    note: str
    """Who trains it, or what is wrong with it; "" where there is nothing to say."""
    history: list[dict[str, Any]]
    newest: dict[str, Any]
    """The newest facts of its training, from the history or the log: epoch, step, loss, accuracy, …"""
    changed: float
    """When it last gave a sign of life, seconds since 1970."""
    size: int
    """Bytes on disk."""

    @property
    def name(self) -> str:
        """The seed's number, or the folder's name where that has none."""
        found = re.fullmatch(r"seed_(\d+)", self.path.name)
        return str(int(found[1])) if found else self.path.name

    @property
    def accuracy(self) -> tuple[float | None, bool]:
        """The newest accuracy, and whether it was measured on images that were not trained on."""
        for row in (self.newest, *reversed(self.history)):
            if row.get("evaluation_accuracy") is not None:
                return row["evaluation_accuracy"], True
        return self.newest.get("accuracy"), False


@dataclasses.dataclass(frozen=True)
class Run:
    """The networks of one setting."""

    path: pathlib.Path
    settings: dict[str, Any]
    """{dotted name: value}, the name as on the command line; {} where they cannot be read."""
    seeds: list[Seed]
    problem: str
    """What is wrong with the folder as a whole, or ""."""
    size: int

    @property
    def epochs(self) -> int | None:
        """The number of epochs that were asked for."""
        return self.settings.get("epochs")

    @property
    def changed(self) -> float:
        """When any seed last gave a sign of life, seconds since 1970."""
        return max((seed.changed for seed in self.seeds), default=_changed(self.path))


def listed(runs: pathlib.Path) -> list[Run]:
    """Return what is in the folder of runs, by name.

    Raises:
      OSError: there is no such folder, or it cannot be read.
    """
    kept = [path for path in runs.iterdir() if not path.name.startswith(".") or path.name.startswith(REMOVING)]
    return [read(path) for path in sorted(kept) if path.is_dir()]


def read(path: pathlib.Path) -> Run:
    """Return a run; what cannot be read of it is its ``problem``, or that of one of its seeds."""
    if path.is_symlink():
        return Run(path, {}, [], f"a link to {path.resolve()}", 0)
    settings, problem, seeds = {}, "", []
    if path.name.startswith(REMOVING):
        problem = "its removal was cut off; removing it again ends that"
    try:
        settings = _flat(json.loads((path / "settings.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        problem = problem or "no settings.json"
    except (OSError, ValueError, AttributeError) as error:
        problem = problem or f"settings.json cannot be read: {_first_line(error)}"
    try:
        seeds = [_seed(one) for one in sorted(path.glob("seed_*")) if one.is_dir()]
        if not seeds:
            problem = problem or "no network was trained yet"
    except OSError as error:
        problem = f"it cannot be read: {_first_line(error)}"
    return Run(path, settings, seeds, problem, size(path))


def foreign(path: pathlib.Path) -> str:
    """Return why a folder is no run that may be removed as one, or ""."""
    if path.is_symlink():
        return f"it is a link to {path.resolve()}"
    if not NAMED.fullmatch(path.name.removeprefix(REMOVING)):
        return "its name is not that of a run, which ends in a dash and ten hexadecimal digits"
    other = [one.name for one in path.iterdir() if not re.fullmatch(r"\.?settings\.json.*|seed_\d+.*", one.name)]
    return f"it holds what no run does: {', '.join(sorted(other)[:3])}" if other else ""


def checkpoints(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Yield the name and size of each checkpoint of a seed: states that are kept, then those to go on from."""
    for folder in ("states", "states/best", "resume"):
        for one in sorted((path / folder).glob("*"), key=_natural):
            if one.is_dir() and one.name != "best" and ".orbax-checkpoint-tmp" not in one.name:
                yield f"{folder}/{one.name}", size(one)


def size(path: pathlib.Path) -> int:
    """Return the bytes that a folder takes on disk; what vanishes meanwhile is not counted."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += size(pathlib.Path(entry.path))
                else:
                    status = entry.stat(follow_symlinks=False)
                    total += getattr(status, "st_blocks", status.st_size // 512) * 512
    return total


def _seed(path: pathlib.Path) -> Seed:
    state, note, history, newest = _looked(path)
    return Seed(path, state, note, history, newest or (history[-1] if history else {}), _changed(path), size(path))


def _looked(path: pathlib.Path) -> tuple[State, str, list[dict[str, Any]], dict[str, Any]]:
    """Return a seed's state, note, history, and the newest facts of its training where the log has later ones."""
    if ASIDE in path.name:
        return "set aside", "found damaged, and trained again", [], {}
    try:
        if (path / "states" / "final").is_dir():
            return "finished", "", _history(path / "states" / "final"), {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return "damaged", f"states/final: {_first_line(error)}", [], {}
    from deform_jax.training import locks, run_log  # which takes a second

    holder, told = locks.holder(path), run_log.tail(path / run_log.NAME)
    steps = sorted((one for one in (path / "resume").glob("*") if one.name.isdigit()), key=_natural)
    history, problem = [], ""
    for step in reversed(steps):
        try:
            history = _history(step)
            break
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = problem or f"resume/{step.name}: {_first_line(error)}"
    facts = next((line for line in reversed(told) if "step" in line), {})
    if history and facts.get("step", 0) <= history[-1]["step"]:  # the log knows how much time is left
        facts = facts | history[-1] if facts.get("step") == history[-1]["step"] else {}
    if holder is not None:
        return "training", holder, history, facts
    if problem and not history:
        return "damaged", problem, history, facts
    if told and told[-1].get("event") in ("interrupted", "failed"):
        return told[-1]["event"], str(told[-1].get("reason", "")), history, facts
    return ("stopped" if told or steps or (path / "states").is_dir() else "empty"), problem, history, facts


def _history(checkpoint: pathlib.Path) -> list[dict[str, Any]]:
    record = json.loads((checkpoint / "manifest" / "metadata").read_text(encoding="utf-8"))
    if not (checkpoint / "variables").is_dir():
        raise ValueError("its arrays are gone")
    return list(record["history"])


def _changed(path: pathlib.Path) -> float:
    """Return when anything at the top of a seed's folder was last written."""
    places = (".", "log.jsonl", "states", "states/best", "resume")
    return max((_modified(path / place) for place in places), default=0.0)


def _modified(path: pathlib.Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        inner = prefix if name in ("training", "recipe") else f"{prefix}{name}."  # as the command line has them
        flat |= _flat(value, inner) if isinstance(value, dict) else {prefix + name: value}
    return flat


def _natural(path: pathlib.Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _first_line(error: Exception) -> str:
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0]
