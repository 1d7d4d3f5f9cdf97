"""Faults of processes: killed, asked to end, started twice."""

import collections
import random
import signal
import time

from fault_child import STEPS
from fault_tools import (
    Outcome,
    check,
    check_same,
    counted,
    newest,
    plural,
    steps_done,
    train,
    undisturbed,
    unfinished,
)

IN_SAVE, AT_WORK, BEFORE = "within a save", "between saves", "before the first step"


def killed(root, tries=20):
    """SIGKILL at random moments; every third while orbax's temporary folder is there, the first for certain."""
    rng, moments, repeated, start, runs = random.Random(0), collections.Counter(), 0, [5.0], 0
    while moments.total() < tries:
        folder = root / f"killed{runs}"
        runs += 1
        while moments.total() < tries:
            moment = _kill(folder, (IN_SAVE, AT_WORK, BEFORE)[moments.total() % 3], rng, start)
            if moment is None:
                break  # the run was faster
            moments[moment] += 1
            if moment != BEFORE:
                repeated = max(repeated, steps_done(folder) - newest(folder))
        last = train(folder)
        last.succeed()
        check("other conditions" not in last.text, last.text)
        check_same(folder, undisturbed(root))
    check(moments[IN_SAVE] > 0, "none was killed within a save")
    where = ", ".join(f"{count} {moment}" for moment, count in moments.items())
    return Outcome(
        moments.total(),
        f"{plural(runs, 'run')} resumed by the same command, all bit-identical to an undisturbed one (killed {where})",
        f"work since the newest checkpoint, here at most {plural(repeated, 'step')}: repeated",
    )


def _kill(folder, wanted, rng, start):
    """Start or go on, kill, and return at which moment that was by what is on the disk; None if it had ended."""
    before, began = newest(folder), time.monotonic()
    child = train(folder)
    if wanted == BEFORE:
        time.sleep(rng.uniform(0, start[0]))
    else:
        child.wait_for(lambda: steps_done(folder) is not None)
        start[0] = time.monotonic() - began
        further = before + rng.randint(1, 2)  # each takes the run further, else it would never end
        child.wait_for(lambda: newest(folder) >= further)
        if wanted == IN_SAVE:
            child.wait_for(lambda: unfinished(folder))
        else:
            time.sleep(rng.uniform(0, (time.monotonic() - began - start[0]) / 2))
    if not child.kill():
        return None
    return BEFORE if steps_done(folder) is None else IN_SAVE if unfinished(folder) else AT_WORK


def asked_to_end(root, tries=5):
    """SIGTERM as from a scheduler, and Ctrl-C, at random steps of a run that saves only after epochs."""
    rng, folder, longest, lost, ends = random.Random(1), root / "asked", 0.0, 0, collections.Counter()
    for number in range(tries):
        child, wanted = train(folder, "--interval", 100), newest(folder) + rng.randint(1, 3)
        check(wanted < STEPS, "the run is too short for so many tries")
        child.wait_for(lambda wanted=wanted: (steps_done(folder) or 0) >= wanted)
        asked, began = (signal.SIGINT, 130) if number % 3 == 2 else (signal.SIGTERM, 143), time.monotonic()
        child.send(asked[0])
        code = child.end()
        longest = max(longest, time.monotonic() - began)
        check(code == asked[1], f"exit code {code} instead of {asked[1]}: {child.text}")
        said = f"Interrupted by {asked[0].name} at step {steps_done(folder)} of {STEPS}, and saved."
        check(said in child.text and "Traceback" not in child.text, child.text)
        lost += steps_done(folder) - newest(folder)
        ends[f"{asked[0].name} exit code {code}"] += 1
    train(folder, "--interval", 100).succeed()
    check_same(folder, undisturbed(root))
    codes = ", ".join(f"{count} {end}" for end, count in ends.items())
    outcome = f"saved at that step and ended within {longest:.1f} s ({codes}); resumed bit-identical"
    return Outcome(tries, outcome, "nothing" if lost == 0 else plural(lost, "step"))


def two_at_once(root, tries=3):
    """A second command on the same run: while the first goes on, when it is killed, and with other settings."""
    kinds, said = ("goes on", "is killed", "has other settings")[:tries], []
    for kind in kinds:
        folder = root / f"twice-{kind.replace(' ', '-')}"
        first = train(folder)
        first.wait_for(lambda folder=folder: steps_done(folder) is not None)
        first.send(signal.SIGSTOP)  # it would be at its end before the second one has started up
        counter = root / f"second-{kind.replace(' ', '-')}.steps"
        changed = ("--learning-rate", 0.2) if kind == "has other settings" else ()
        second = train(folder, *changed, steps=counter)
        if changed:
            check(second.end() == 1 and "must hold runs of the same settings" in second.text, second.text)
            said.append("one with other settings was refused at once")
        else:
            waited = second.wait_for(lambda second=second: "Waiting for its end" in second.text)
            check(waited and f"Process {first.process.pid} on " in second.text, second.text)
        first.send(signal.SIGCONT)
        if kind == "is killed":
            check(first.kill(), "it ended before it was killed")
            said.append("took over from a killed one")
        else:
            first.succeed()
        second.end() if changed else second.succeed()
        if kind == "goes on":
            check(counted(counter) is None, "the second process trained too")
            said.append("the second said for whom it waited and read the run back")
        check_same(folder, undisturbed(root))
    return Outcome(len(kinds), "; ".join(said), "nothing")
