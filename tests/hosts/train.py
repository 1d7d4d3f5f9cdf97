"""What each process of a test runs: train the toy task in one layout after another, and keep what ``fit`` returned.

python train.py FOLDER LAYOUT… --coordinator HOST:PORT --processes N --process I
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
    parser.add_argument("--coordinator")
    for name in ("processes", "process"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    wanted = arguments()
    hosts.start(wanted.coordinator, wanted.processes, wanted.process, 10)

import training_toys as toys  # noqa: E402 - which computes

from deform_jax import training  # noqa: E402

RECIPE = dataclasses.replace(toys.RECIPE, schedule="cosine", warmup_epochs=1, epochs=3)


def fit(folder, layout, mesh=None):
    """Train the seeds of a layout such as 2x2 in their folders, and return (seed, variables, history) of each."""
    side, split = map(int, layout.split("x"))
    folders = [folder / layout / str(seed) for seed in range(side)]
    options = {"evaluation": toys.TEST, "save_epochs": (2,), "checkpoint_steps": 2, "folders": folders}
    mesh = training.make_mesh(side, split) if mesh is None else mesh
    runs = toys.fit(RECIPE, seeds=range(side), mesh=mesh, **options)
    return [(run.seed, jax.tree.map(np.asarray, run.variables), toys.timeless(run.history)) for run in runs]


def main():
    with hosts.together():
        for layout in wanted.layouts:
            try:
                found = fit(wanted.folder, layout)
            except ValueError as error:
                print(error, file=sys.stderr)
                continue
            (wanted.folder / f"{layout}.{wanted.process}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
