"""Faults of one process of two that train together, on this machine's loopback."""

import collections
import random
import signal
import socket
import time

from fault_child import STEPS
from fault_tools import CHILD, Child, Outcome, check, check_same, counted, newest, plural

PAIR = CHILD.with_name("fault_pair.py")
PEER_TIMEOUT = 20
"""Seconds after which a process that no longer answers is taken for dead."""
ENDS_WITHIN = PEER_TIMEOUT + 40
"""Seconds from the death of one process to the end of the other, on a machine that does other things too."""


class Pair:
    """Two processes of the same command."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._counters = [folder.with_name(f"{folder.name}.{index}.steps") for index in (0, 1)]
        self.children = []
        for index, counter in enumerate(self._counters):
            counter.unlink(missing_ok=True)
            task = ("train", folder, "--steps", counter, "--interval", 100)
            self.children.append(Child(PAIR, address, 2, index, PEER_TIMEOUT, *task))

    def step(self, index):
        return counted(self._counters[index]) or 0

    def wait_for_step(self, step):
        for index, child in enumerate(self.children):
            check(child.wait_for(lambda index=index: self.step(index) >= step), child.text)

    def succeed(self):
        for child in self.children:
            child.succeed()


def undisturbed_pair(root):
    """Return the run of two processes that nothing befell: other devices than one process has, so other bits."""
    folder = root / "undisturbed-pair"
    if not (folder / "states" / "final").is_dir():
        Pair(folder).succeed()
    return folder


def one_of_two_killed(root, tries=4):
    """Each in turn, at random steps: the other one ends by itself, and both started again go on."""
    rng, folder, longest, repeated, said = random.Random(5), root / "pair-killed", 0.0, 0, collections.Counter()
    clear = {
        "saying what to do": ("Start all of them again with the same command",),
        "saying what jax found": ("distributed service detected fatal errors", "coordination service"),
    }
    for number in range(tries):
        pair, wanted = Pair(folder), newest(folder) + rng.randint(1, 6)
        check(wanted < STEPS, "the run is too short for so many tries")
        pair.wait_for_step(wanted)
        victim, other = pair.children[number % 2], pair.children[1 - number % 2]
        reached = pair.step(1 - number % 2)
        check(victim.kill(), victim.text)
        began = time.monotonic()
        code = other.end(limit=ENDS_WITHIN)
        longest = max(longest, time.monotonic() - began)
        found = [name for name, texts in clear.items() if any(text in other.text for text in texts)]
        check(code != 0 and found, f"exit code {code}: {other.text}")
        said[found[0]] += 1
        repeated = max(repeated, reached - newest(folder))
    Pair(folder).succeed()
    check_same(folder, undisturbed_pair(root))
    errors = ", ".join(f"{count} {name}" for name, count in said.items())
    return Outcome(
        tries,
        f"the other one ended by itself within {longest:.0f} s with an error ({errors}); both started again ended "
        "bit-identical",
        f"work since the newest checkpoint, here at most {plural(repeated, 'step')}: repeated",
    )


def one_of_two_asked(root, tries=2):
    """SIGTERM to one of two processes: both save the same step and end."""
    folder, longest = root / "pair-asked", 0.0
    for number in range(tries):
        pair = Pair(folder)
        pair.wait_for_step(newest(folder) + 1)
        began = time.monotonic()
        pair.children[number % 2].send(signal.SIGTERM)
        codes = [child.end() for child in pair.children]
        longest = max(longest, time.monotonic() - began)
        texts = [child.text for child in pair.children]
        line = f"Interrupted by SIGTERM at step {newest(folder)} of {STEPS}, and saved."
        check(codes == [143, 143] and all(line in text for text in texts), f"exit codes {codes}: {texts}")
    Pair(folder).succeed()
    check_same(folder, undisturbed_pair(root))
    outcome = f"both saved the same step and ended with exit code 143 within {longest:.1f} s; resumed bit-identical"
    return Outcome(tries, outcome, "nothing")
