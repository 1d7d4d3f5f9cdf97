"""What is told of a group of runs while it trains: lines in each one's log, and scalars for TensorBoard."""

import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from deform_jax import checks
from deform_jax.training import run_log, scalars
from deform_jax.training.resume import Member

STEPS_EVERY = 30.0
"""Seconds between two lines within an epoch."""
EVERY_EPOCH = 1000
"""Epochs up to which each one has its line; in longer runs, at most one in a second."""
ORDER = ("epoch", "step", "steps", *scalars.TAGS)
"""Where the run is, then how well it does, as far as a line says so; then the rest."""


def check_tensorboard(wanted: bool, folders: Any) -> bool:
    """Refuse TensorBoard's scalars where they would go nowhere, or without the package that writes them."""
    if not checks.flag("tensorboard", wanted):
        return False
    if folders is None:
        checks.fail("tensorboard", "be False without folders", "True was given", "Give `folders` to write to.")
    scalars.needed("event_file_writer")
    return True


class Reports:
    """The logs of a group's seeds, written by the one process that holds their folders' locks."""

    def __init__(self, members: Sequence[Member], held: Sequence[int], *, tensorboard: bool, active: bool):
        """Take the group's members, and which of them this process can read the loss of."""
        self._folders = {member: member.folder for member in members if active and member.folder is not None}
        self._rows = {members[row]: i for i, row in enumerate(sorted(held))}
        self._tensorboard, self._scalars = tensorboard, dict[Member, scalars.Scalars]()
        self._told: dict[Member, int] = {}
        """The newest epoch in the log of each seed that is trained now."""
        self._thin, self._said, self._newest = False, False, time.monotonic()

    def __enter__(self) -> "Reports":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._said = True  # in words that would not hold here
        for member in self._told if error is not None else ():
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._write(member, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", reason=reason)
        for one in self._scalars.values():
            one.close()

    def begin(self, done: int, steps: int, epochs: int, *, resumed: bool) -> None:
        """Say in each log that training begins or goes on: of the lines before, those of later steps are void."""
        self._thin = epochs > EVERY_EPOCH
        for member, folder in self._folders.items() if done < steps else ():
            if member.ended:
                continue
            self._told[member] = int(member.history[-1]["epoch"]) if member.history else 0
            self._try(lambda folder=folder: run_log.mend(folder / run_log.NAME))
            place = {"epoch": self._told[member], "step": done, "steps": steps}
            process = {"host": socket.gethostname(), "pid": os.getpid()}
            self._write(member, "resumed" if resumed else "start", **place, **process)
            if self._tensorboard:
                self._try(lambda member=member, folder=folder: self._open(member, folder, done if resumed else None))

    def due(self) -> bool:
        """Whether it is time for a line within the epoch."""
        return bool(self._told) and time.monotonic() - self._newest >= STEPS_EVERY

    def step(self, sums: Mapping[str, Any], **facts: Any) -> None:
        """Add a line within an epoch, with the averages since its start: of the seeds that are held here."""
        for member in self._told:
            i, means = self._rows.get(member), {}
            if i is not None:
                means = {
                    name: float(sums[total][i] / sums["count"][i])
                    for name, total in (("loss", "loss"), ("accuracy", "correct"))
                }
            self._write(member, "step", **facts, **means)

    def epoch(self, seconds_left: float | None) -> None:
        """Add the line of the epoch that has ended, and to the log of a run that is done with it that this is so."""
        if self._thin and time.monotonic() - self._newest < 1 and not any(member.ended for member in self._told):
            return
        for member in list(self._told):
            self._close_epoch(member, seconds_left=seconds_left)
            if member.ended:
                self._finish(member)

    def finish(self) -> None:
        """Say in each log that the run is finished, where it does not say so already."""
        for member in self._folders:
            self._finish(member)

    def _close_epoch(self, member: Member, **facts: Any) -> None:
        row = member.history[-1]
        if self._told.get(member, row["epoch"]) < row["epoch"]:
            self._told[member] = int(row["epoch"])
            self._write(member, "epoch", **row, **facts)

    def _finish(self, member: Member) -> None:
        self._close_epoch(member)
        told = run_log.tail(self._folders[member] / run_log.NAME)
        if told and told[-1].get("event") != "finished":  # a run from before there were logs has none
            row = {name: value for name, value in member.history[-1].items() if name != "images_per_second"}
            self._write(member, "finished", **row)
        self._told.pop(member, None)

    def _open(self, member: Member, folder: pathlib.Path, resumed_at: int | None) -> None:
        self._scalars[member] = scalars.Scalars(folder / scalars.FOLDER, resumed_at=resumed_at)

    def _write(self, member: Member, event: str, **facts: Any) -> None:
        self._newest = time.monotonic()
        facts = {name: facts[name] for name in (*ORDER, *facts) if name in facts}
        record = {"event": event, "seed": member.seed, **facts}
        self._try(lambda: run_log.append(self._folders[member] / run_log.NAME, record))
        if (
            member in self._scalars
            and event in ("step", "epoch")
            and not self._try(lambda: self._scalars[member].add(facts, facts["step"]))
        ):
            self._scalars.pop(member).close()

    def _try(self, call: Callable[[], object]) -> bool:
        """Whether it could be written; training does not end for want of that, and says once what is wrong."""
        try:
            call()
        except OSError as error:
            if not self._said:
                print(f"Training goes on, but its log cannot be written: {error}.", file=sys.stderr)
            self._said = True
            return False
        return True
