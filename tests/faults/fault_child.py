"""What the faults befall, each a command of its own: a small training run, and a writer of tables and figures."""

import argparse
import dataclasses
import itertools
import os
import pathlib
import sys
import time

import jax
import training_toys as toys

from deform_jax import training
from deform_jax.training import loop
from experiments.common import cli, plots, tables

RECIPE = dataclasses.replace(toys.RECIPE, schedule="cosine", warmup_epochs=1, epochs=5)
STEPS = RECIPE.epochs * toys.STEPS


def train(folder, interval=1, seed=0, **changes):
    """Train the run of all these tests, or go on with it; of several processes, over all their devices."""
    mesh = training.make_mesh(1, jax.device_count()) if jax.process_count() > 1 else None
    options = {
        "mesh": mesh,
        "seeds": (seed,),
        "evaluation": toys.TEST,
        "save_epochs": (2,),
        "checkpoint_steps": interval,
    }
    return toys.fit(dataclasses.replace(RECIPE, **changes), folders=[folder], **options)


def count_steps(path):
    """Keep the number of steps done in a file, which outlives the process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)

    class Counted(loop.Progress):
        def advance(self, *arguments):
            super().advance(*arguments)
            os.pwrite(file, f"{self._done:8d}".encode(), 0)

    loop.Progress = Counted


def write_for_ever(folder):
    """Write one table and one figure again and again, by turns of two contents."""
    for turn in itertools.cycle((0, 1)):
        tables.write(folder / "table.csv", table(turn))
        figure, (axes,) = plots.panels(1)
        axes.plot([0, 1], [turn, 1 - turn])
        plots.save(figure, folder, "figure", f"turn {turn}")


def table(turn):
    return [{"row": i, "value": (-1) ** turn * i} for i in range(20_000)]


@cli.script
def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("train", "write"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=pathlib.Path, help="file for the number of steps done")
    parser.add_argument("--interval", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=RECIPE.learning_rate)
    parser.add_argument("--clock", type=float, default=0, help="seconds by which the clock is wrong")
    options = parser.parse_args(arguments)
    if options.clock:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + options.clock
        time.time_ns = lambda: now_ns() + int(options.clock * 1e9)
    if options.task == "write":
        write_for_ever(options.folder)
    if options.steps:
        count_steps(options.steps)
    train(options.folder, options.interval, learning_rate=options.learning_rate)


if __name__ == "__main__":
    main(sys.argv[1:])
