"""What each process of a test runs: train the toy task in one layout after another, and keep what ``fit`` returned.

python train.py FOLDER LAYOUT… [--short] [--stream] [--own-disks] --coordinator HOST:PORT --processes N --process I
"""

import argparse
import dataclasses
import pathlib
import pickle
import sys

import jax
import numpy as np

from experiments.common import hosts


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("layouts", nargs="+")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--stream", action="store_true", help="images that each process reads, its part of every batch")
    parser.add_argument("--own-disks", action="store_true", help="a folder for each process, as on disks of their own")
    parser.add_argument("--coordinator")
    for name in ("processes", "process"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    wanted = arguments()
    hosts.start(wanted.coordinator, wanted.processes, wanted.process, 10)

import training_toys as toys  # noqa: E402 - which computes

from deform_jax import training  # noqa: E402


def fit(folder, layout, mesh=None, *, short=False, stream=False):
    """Train the seeds of a layout such as 2x2 in their folders, and return (seed, variables, history) of each.

    12 steps with checkpoints at every second one, or 8 with one after each epoch.
    """
    side, split = map(int, layout.split("x"))
    folders = [folder / layout / str(seed) for seed in range(side)]
    recipe = dataclasses.replace(toys.RECIPE, schedule="cosine", warmup_epochs=1, epochs=2 if short else 3)
    every = None if short else 2
    train, evaluation = (toys.ArrayStream(), toys.ArrayStream()) if stream else (toys.TRAIN, toys.TEST)
    options = {"evaluation": evaluation, "save_epochs": (2,), "checkpoint_steps": every, "folders": folders}
    mesh = training.make_mesh(side, split) if mesh is None else mesh
    runs = toys.fit(recipe, train, seeds=range(side), mesh=mesh, **options)
    return [(run.seed, jax.tree.map(np.asarray, run.variables), toys.timeless(run.history)) for run in runs]


def main():
    with hosts.together():
        folder = wanted.folder / str(wanted.process) if wanted.own_disks else wanted.folder
        for layout in wanted.layouts:
            try:
                found = fit(folder, layout, short=wanted.short, stream=wanted.stream)
            except ValueError as error:
                print(error, file=sys.stderr)
                continue
            (wanted.folder / f"{layout}.{wanted.process}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
