"""One contender in a process of its own: reads one word a line, answers with one line of JSON."""

import argparse
import importlib.util
import json
import os
import pathlib
import sys
import time

SHORT, WARM = 1.0, 0.5
"""Seconds, see ``seconds``."""
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", help="its name, as side_by_side.py --only has it")
    parser.add_argument("contender", type=int, help="its number among those of the work, from 0")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the tests")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads (default: 2)")
    options = parser.parse_args()
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    from works import WORKS

    work = next(work for work in WORKS if work.name == options.work)
    contender = work.contenders[options.contender]
    surroundings(contender, options.threads)
    warm = 0 if options.smoke else WARM
    job, choice = fastest(contender, work.smoke if options.smoke else work.sizes, warm)

    def say(**facts):
        print(json.dumps(facts), file=answers, flush=True)

    say(choice=dict(choice), count=job.count)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "run":
            say(seconds=seconds(job, warm))
        elif command == "answer":
            import numpy as np

            if job.answer is not None:
                np.save(rest[0], job.answer())
            say(saved=job.answer is not None)
        elif command == "memory":
            say(gib=peak_gib())


def surroundings(contender, threads):
    """The cores and threads that all contenders get, and the allocator as the contender is to have it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    machine().prepare(simulate=contender.simulate, reuse=contender.reuse)
    if "torch" in contender.maker:
        import torch

        torch.set_num_threads(threads)


def machine():
    """``experiments.machine`` by itself: the package would prepare at once, in its own way."""
    path = HERE.parents[1] / "experiments" / "machine.py"
    spec = importlib.util.spec_from_file_location("machine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fastest(contender, sizes, warm):
    """The job with the choice whose best of three runs is fastest, and the choice."""
    if len(contender.choices) == 1:
        job = contender.make(sizes, contender.choices[0])
        job.run()
        return job, contender.choices[0]
    taken = []
    for choice in contender.choices:
        job = contender.make(sizes, choice)
        job.run()
        taken.append(min(seconds(job, warm) for _ in range(3)) / job.count)
        del job
    choice = contender.choices[taken.index(min(taken))]
    job = contender.make(sizes, choice)
    job.run()
    return job, choice


def seconds(job, warm=WARM):
    """Of one run, as it is in a stream of them.

    Runs of less than ``SHORT`` are repeated for ``warm`` seconds before the one that counts: the caches have been
    others', and of threads that have slept, two may share a core at first.
    """
    began, taken = time.perf_counter(), _seconds(job)
    if taken > SHORT:
        return taken
    while time.perf_counter() - began < warm:
        _seconds(job)
    return _seconds(job)


def _seconds(job):
    began = time.perf_counter()
    job.run()
    return time.perf_counter() - began


def peak_gib():
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


if __name__ == "__main__":
    main()
