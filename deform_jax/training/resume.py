"""The files of each run, and how a group of runs that was killed goes on from them."""

import dataclasses
import importlib.metadata
import math
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deform_jax import checks
from deform_jax.training import checkpoints, processes
from deform_jax.training.checksums import checksums
from deform_jax.training.mesh import mesh_processes
from deform_jax.training.recipe import Recipe
from deform_jax.training.state import State


class Member:
    """One seed's files and records within a group that trains together.

    After an epoch the variables to keep are saved first and the resumable step last: a run killed at any moment
    repeats what followed its newest resumable step, finds the same arrays saved already, and replaces others.

    Where several processes train, all know every seed's records. ``among`` are those that hold its arrays and write its
    checkpoints together, of which the first removes; to the others its state is None, and they touch no file of it.
    """

    def __init__(
        self,
        seed: int,
        folder: pathlib.Path | None,
        settings: dict[str, Any],
        recipe: Recipe | None = None,
        among: tuple[int, ...] = (0,),
    ):
        self.seed, self.folder, self.among = seed, folder, among
        self.mine, self._leads = processes.index() in among, processes.index() == among[0]
        self._stop_accuracy = None if recipe is None else recipe.stop_accuracy
        self._stop_interpolation = None if recipe is None else recipe.stop_interpolation
        self._interpolated: int | None = None
        """The first epoch whose mean training loss was exactly 0."""
        self.settings = {"seed": seed, **settings}
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.feed: Any = None
        """The place in a stream at which the run was, None for arrays."""
        self._init_damaged = False
        self.ended = False
        """Whether the run was done before its last epoch: other seeds of its group may still go on."""
        self._end: State | None = None

    def save_state(self, name: str, state: State | None, *, replace: bool = True) -> None:
        """Keep the variables under ``states/name``; with ``replace``, in the place of other or damaged ones."""
        if self.folder is None or state is None:
            return
        path = self.folder / "states" / name
        replace = replace or (name == "init" and self._init_damaged)
        if not processes.agreed(self._leads and _has_room(path, state, replace), among=self.among):
            return
        step = self.history[-1]["step"] if self.ended else int(state.step)
        history = [] if name == "init" else self.history
        record = {"step": step, "history": history, "settings": self.settings}
        checkpoints.save(path, state.variables, manifest=record, among=self.among)

    def save_best(self, state: State | None) -> None:
        """Keep the variables with the best evaluation accuracy so far; the ones before go with the next resume."""
        accuracy, epoch = self.history[-1].get("evaluation_accuracy"), int(self.history[-1]["epoch"])
        if accuracy is not None and accuracy > self.best.get("accuracy", -math.inf):
            self.best = {"accuracy": accuracy, "epoch": epoch}
            self.save_state(f"best/{epoch}", state)

    def add(self, row: dict[str, float]) -> None:
        """Append an epoch to the history."""
        self.history.append(row)
        if self._interpolated is None and row["loss"] == 0:  # each row is looked at once: there can be a million
            self._interpolated = int(row["epoch"])

    def last_epoch(self) -> int | None:
        """Return the epoch with which the run is done, if that is known before the recipe's last one is reached."""
        if not self.history:
            return None
        if self._stop_accuracy is not None and self.history[-1]["accuracy"] >= self._stop_accuracy:
            return int(self.history[-1]["epoch"])
        if self._stop_interpolation is None or self._interpolated is None:
            return None
        return self._interpolated * self._stop_interpolation

    def done(self) -> bool:
        """Whether the newest epoch is the last one."""
        last = self.last_epoch()
        return last is not None and self.history[-1]["epoch"] >= last

    def end(self, state: State | None) -> None:
        """Mark the run as ended, and keep its end."""
        self.ended, self._end = True, state
        self.save_state("final", state)

    def held(self, state: State | None) -> State | None:
        """Return the state, or the one in which the run ended, with only the group's count of steps going on."""
        return state if self._end is None or state is None else self._end.replace(step=state.step)

    def save_resume(self, state: State | None, environment: dict[str, Any]) -> None:
        """Keep everything the run needs to go on, and the two newest such steps."""
        if self.folder is None or state is None:
            return
        step, folder = int(state.step), self.folder / "resume"
        record = {"step": step, "history": self.history, "best": self.best, "feed": self.feed}
        record |= {"environment": environment}
        path, rest = folder / str(step), _resumable(state)
        checkpoints.save(path, state.variables, resume=rest, manifest=record, among=self.among)
        if self._leads:
            checkpoints.prune(folder, keep=2)
            self._clear()

    def steps(self) -> set[int]:
        """Return the steps to go on from, unread, after removing what a kill left unfinished."""
        if self.folder is None:
            return set()
        checkpoints.prune(self.folder / "resume", keep=2)
        return {int(path.name) for path in checkpoints.steps(self.folder / "resume")}

    def load(self, step: int) -> checkpoints.Checkpoint:
        """Return a resumable step; only its records, where its arrays are other processes'."""
        path = pathlib.Path(self.folder or "") / "resume" / str(step)
        found = checkpoints.load(path, resume=True, arrays=self.mine)
        if found.resume is None and self.mine:
            raise checkpoints.CorruptCheckpointError(f"The checkpoint at {path} lacks what a run needs to go on.")
        return found

    def begin(self, step: int, record: dict[str, Any], *, removes: bool) -> None:
        """Take up the records of ``step`` and, in the process to which that falls, remove what was saved after it."""
        self.history, self._interpolated = [], None
        for row in record.get("history", []):
            self.add(row)
        self.best, self.feed = record.get("best", {}), record.get("feed")
        if self.folder is not None and removes:
            for path in checkpoints.steps(self.folder / "resume"):
                if int(path.name) > step:
                    shutil.rmtree(path)
            self._clear()

    def check_settings(self) -> None:
        """Refuse a folder that holds a run of another seed, model, recipe or image shape."""
        if self.folder is None or not self.mine or not (self.folder / "states" / "init").exists():
            return
        try:
            before = checkpoints.load(self.folder / "states" / "init").manifest.get("settings", self.settings)
        except checkpoints.CorruptCheckpointError as error:
            print(f"{error} It is no longer known which settings the run had.", file=sys.stderr)
            self._init_damaged = True
            return
        # Runs from before the recipe had some field were trained by its default. Other names that only one of the two
        # has are of another version of this package, and no difference.
        before = {f"recipe.{name}": value for name, value in dataclasses.asdict(Recipe()).items()} | before
        pairs = {name: (before[name], now) for name, now in self.settings.items() if name in before}
        changed = [f"{name} {then} instead of {now}" for name, (then, now) in pairs.items() if then != now]
        if changed:
            given = f"{self.folder} has one with {', '.join(changed)}"
            checks.fail("folders", "hold runs of the same settings", given, "Use another folder, or remove that one.")

    def _clear(self) -> None:
        """Remove unfinished saves, and all under ``states/best`` but the best as of the newest resumable step."""
        states = pathlib.Path(self.folder or "") / "states"
        old = [path for path in checkpoints.steps(states / "best") if int(path.name) != self.best.get("epoch")]
        for path in [*checkpoints.interrupted(states), *checkpoints.interrupted(states / "best"), *old]:
            shutil.rmtree(path)


def check_settings(members: Sequence[Member]) -> None:
    """Refuse folders that hold runs of other seeds, models, recipes or image shapes."""
    for member in members:
        member.check_settings()


def restore(
    members: Sequence[Member],
    fresh: Sequence[State | None],
    environment: dict[str, Any],
    among: tuple[int, ...] = (0,),
) -> list[State | None] | None:
    """Return the states at the newest step that every seed of the group has in good order, or None.

    Of several processes, ``among`` whom the group trains, the first lists and removes; each reads the seeds it holds.
    """
    leads = processes.index() == among[0]
    processes.jointly(lambda: check_settings(members), among=among)
    listed = [sorted(member.steps()) for member in members] if leads else []
    reached = dict(zip([member.seed for member in members], processes.agreed(listed, among=among), strict=True))
    step, found = _newest(members, set.intersection(*map(set, reached.values())), among)
    ahead = [f"{max(steps)} of seed {seed}" for seed, steps in reached.items() if max(steps, default=0) > step]
    if ahead and leads:
        goal = f"step {step}, the newest that every seed has in good order" if found else "the start"
        print(f"Going back to {goal}, from step {', '.join(ahead)}.", file=sys.stderr)
    for i, member in enumerate(members):
        member.begin(step, found[i].manifest if found else {}, removes=leads)
    processes.barrier("begin", among=among)  # nothing is written before all of that is removed
    if not found:
        return None
    if leads:
        _announce(found[0].manifest["environment"], environment)
    restored = [None if state is None else _restored(state, one) for state, one in zip(fresh, found, strict=True)]
    for member, one in zip(members, restored, strict=True):
        if member.done():
            member.end(one)
    return restored


def environment(mesh: Mesh) -> dict[str, Any]:
    """Return what bit-identical resumption depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "device": mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "processes": len(mesh_processes(mesh)),
        "cores": cores,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _newest(
    members: Sequence[Member], common: set[int], among: tuple[int, ...]
) -> tuple[int, list[checkpoints.Checkpoint]]:
    for step in sorted(common, reverse=True):
        found = []
        try:
            found = [member.load(step) for member in members]
        except checkpoints.CorruptCheckpointError as error:
            print(error, file=sys.stderr)
        if all(processes.gathered(bool(found), among=among)):
            return step, found
    return 0, []


def _has_room(path: pathlib.Path, state: State, replace: bool) -> bool:
    """Whether the state is to be saved there; what it replaces is removed."""
    if not path.exists():
        return True
    if not replace or _holds(path, state):
        return False
    shutil.rmtree(path)
    return True


def _holds(path: pathlib.Path, state: State) -> bool:
    try:
        saved = checkpoints.load(path).manifest["checksums"]["variables"]
    except checkpoints.CorruptCheckpointError as error:
        print(f"{error} It is saved again.", file=sys.stderr)
        return False
    return saved == checksums(state.variables)


def _resumable(state: State) -> dict[str, Any]:
    return {
        "step": state.step,
        "key": jax.random.key_data(state.key),
        "totals": state.totals,
        # Numbered, since optax's named tuples would come back as plain dicts.
        "opt_state": {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(state.opt_state))},
    }


def _restored(fresh: State, found: checkpoints.Checkpoint) -> State:
    resume: Any = found.resume
    structure = jax.tree.structure(fresh.opt_state)
    return fresh.replace(
        step=jnp.asarray(resume["step"]),
        params=found.variables["params"],
        batch_stats=found.variables.get("batch_stats", {}),
        opt_state=jax.tree.unflatten(structure, [resume["opt_state"][name] for name in sorted(resume["opt_state"])]),
        key=jax.random.wrap_key_data(jnp.asarray(resume["key"])),
        totals=resume["totals"],
    )


def _announce(before: dict[str, Any], now: dict[str, Any]) -> None:
    before = {"processes": 1} | before
    changed = [f"{name} {before.get(name)} → {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        print(f"Going on under other conditions, so not to the same bits: {', '.join(changed)}.", file=sys.stderr)
