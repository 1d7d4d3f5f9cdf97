"""Removing runs: those that nobody trains, and each one whole, or not at all."""

import shutil
from collections.abc import Sequence
from typing import NoReturn

from experiments.common import run_folders
from experiments.common.run_folders import Run


def named(found: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """Return the runs of these names, or of these beginnings of a name, each once.

    Raises:
      ValueError: there is none, or there are several.
    """
    chosen: dict[str, Run] = {}
    for name in names:
        fitting = [run for run in found if run.path.name == name] or [
            run for run in found if run.path.name.startswith(name)
        ]
        if len(fitting) > 1:
            raise ValueError(f"{name} is the beginning of several: {_some(fitting)}. Give more of the name.")
        if not fitting:
            raise ValueError(f"there is no run {name}. There are: {_some(found) or 'none at all'}.")
        chosen[fitting[0].path.name] = fitting[0]
    return list(chosen.values())


def check(chosen: Sequence[Run]) -> None:
    """Refuse what is no run, and runs that are being trained now.

    Raises:
      ValueError: says which and why.
    """
    from deform_jax.training import locks

    for run in chosen:
        if problem := run_folders.foreign(run.path):
            raise ValueError(f"{run.path} is not removed: {problem}.")
        for seed in run.seeds:
            if holder := locks.holder(seed.path):
                _refuse(run, f"{holder}, trains seed {seed.name}")


def remove(run: Run) -> None:
    """Remove a run. First it is renamed, so that it is there whole or not at all; a cut-off rest is listed as that.

    Raises:
      ValueError: it is being trained now, or cannot be changed.
      OSError: the disk's.
    """
    from deform_jax.training import locks

    target = run.path
    if not target.name.startswith(run_folders.REMOVING):
        target = run.path.with_name(f"{run_folders.REMOVING}{run.path.name}")
        if target.exists():
            shutil.rmtree(target)
        # Who came for one of the locks meanwhile finds the folder gone, and begins anew.
        with locks.held([seed.path for seed in run.seeds], before_waiting=lambda: _refuse(run, "it was taken up")):
            run.path.rename(target)
    shutil.rmtree(target)


def _refuse(run: Run, why: str) -> NoReturn:
    raise ValueError(f"{run.path.name} is being trained now: {why}. Nothing of it was removed.")


def _some(runs: Sequence[Run]) -> str:
    names = [run.path.name for run in runs]
    return ", ".join(names[:5]) + (f", … ({len(names)})" if len(names) > 5 else "")
