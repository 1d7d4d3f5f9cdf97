"""Train a network, or load it if the same settings trained it before."""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from deform_jax import models, training
from deform_jax.training import locks, mesh, processes
from experiments.common import cli, clock, tables
from experiments.common import settings as common
from experiments.common.tasks import Task, Training


class Trained(NamedTuple):
    """A network before and after training: variables of both states and the training history.

    ``trained`` is the last epoch's network, or the selected one; the history goes on to the last epoch all the same.
    """

    seed: int
    init: Any
    trained: Any
    history: list[dict[str, float]]
    folder: pathlib.Path

    def steps(self) -> dict[int, pathlib.Path]:
        """Return {step: checkpoint} of the states kept during training, from 0 on, the last one included."""
        states = self.folder / "states"
        kept = {int(path.name.removeprefix("step_")): path for path in states.glob("step_*")}
        return dict(sorted({0: states / "init", **kept, int(self.history[-1]["step"]): states / "final"}.items()))


def build(settings: Training, downsampling: str | None, num_classes: int) -> Any:
    """Return the untrained module; ``downsampling`` is None for networks that have one form of it."""
    chosen: dict[str, Any] = {} if downsampling is None else {"downsampling": downsampling}
    if settings.initial_gain != 1:
        chosen["initial_gain"] = settings.initial_gain
    return models.create(
        settings.network,
        num_classes=num_classes,
        width=settings.width,
        compute_dtype=settings.compute_dtype,
        **chosen,
    )


def initial(model: Any, seed: int, shape: Sequence[int]) -> Any:
    """Return the variables that training with this seed starts from, for images (h, w, c) or (length, c)."""
    recipe = training.Recipe()
    return training.create_state(model, recipe, jax.random.key(seed), tuple(shape), 1).variables


@clock.COMMAND.part("train")
def train_or_load(
    settings: Training,
    task: Task,
    downsampling: str | None,
    seeds: Sequence[int],
    options: cli.Options,
    *,
    keep_steps: bool = True,
    checkpoint_epochs: int = 1,
) -> list[Trained]:
    """Return the trained networks of all seeds, training those that the folder does not hold yet.

    A run's folder is named by the hash of its settings; ``settings.json`` in it says what they were. Seeds train side
    by side where there are several devices, else one after another, and a killed run goes on where it was. Several
    processes train them together, in a folder on a disk that all see.
    ``keep_steps`` keeps the states after 1, 2, 4, … steps too; ``checkpoint_epochs`` is for very short epochs.
    """
    identity = _Identity(settings) if downsampling is None else _Identity(settings, downsampling)
    label = settings.network if downsampling is None else f"{settings.network}-{downsampling}"
    base = options.runs / f"{label}-{common.digest(identity)}"
    paths = {seed: base / f"seed_{seed:03d}" for seed in seeds}
    found = {seed: loaded for seed in seeds if (loaded := _load(seed, paths[seed], settings.selection)) is not None}
    model = build(settings, downsampling, task.num_classes)
    missing = [seed for seed in seeds if seed not in found]
    if missing:
        tables.check_writable("runs", base)
        tables.write_json(base / "settings.json", common.as_dict(identity))
    # Where a training set is to be fitted, the test set waits for the end: it would take longer than the epochs.
    held_out = task.evaluation if task.validation is None else task.validation
    to_fit = settings.recipe.stop_accuracy is not None or settings.recipe.stop_interpolation is not None
    evaluation = None if to_fit else held_out
    while missing:
        devices = _layout(len(missing), settings.recipe.batch_size, options.data_axis)
        group, missing = missing[: devices.shape["seed"]], missing[devices.shape["seed"] :]
        training.fit(
            model,
            settings.recipe,
            task.train,
            evaluation=evaluation,
            prepare=task.prepare,
            prepare_evaluation=task.prepare_clean,
            seeds=group,
            folders=[paths[seed] for seed in group],
            mesh=devices,
            save_steps=log_spaced(settings.recipe, task.train_count) if keep_steps else (),
            checkpoint_steps=options.checkpoint_steps,
            checkpoint_epochs=checkpoint_epochs,
            tensorboard=options.tensorboard,
            progress=f"{downsampling or settings.network}, seed {', '.join(map(str, group))}",
        )
        for seed in group:
            loaded = _load(seed, paths[seed], settings.selection)
            if loaded is None:
                raise RuntimeError(f"Seed {seed} was trained, but {paths[seed]} holds no result. Is the disk full?")
            found[seed] = loaded
            tables.write(paths[seed] / "history.csv", loaded.history)
    return [found[seed] for seed in seeds]


def log_spaced(recipe: training.Recipe, count: int) -> list[int]:
    """Return the steps 1, 2, 4, … below the last one, after which a network's state is kept."""
    total = recipe.epochs * (count // recipe.batch_size)
    return [2**k for k in range(total.bit_length()) if 2**k < total]


@dataclasses.dataclass(frozen=True)
class _Identity:
    training: Training = dataclasses.field(default_factory=Training)
    downsampling: str = "max"


def _load(seed: int, path: pathlib.Path, selection: str) -> Trained | None:
    """Return a finished run, or None where there is none in good order; of several processes, all read it alike."""
    final = path / "states" / "final"
    if not processes.agreed(final.is_dir()):
        return None
    found = None
    processes.appeared(final)
    with contextlib.suppress(training.CorruptCheckpointError, FileNotFoundError):
        found = _read(seed, path, selection)
    if all(processes.gathered(found is not None)):
        return found
    good = processes.agreed(processes.is_writer() and _trained_again(seed, path, selection), timeout=processes.LONGEST)
    return _read(seed, path, selection) if good else None


def _trained_again(seed: int, path: pathlib.Path, selection: str) -> bool:
    """Whether another command has found the damage of a run too, and trained the seed again; else set it aside."""
    tables.check_writable("runs", path)
    with locks.held([path]):
        try:
            _read(seed, path, selection)
        except (training.CorruptCheckpointError, FileNotFoundError) as error:
            if (path / "states" / "final").is_dir():
                _set_aside(path)
                print(f"{error}\nSeed {seed} is trained again.", file=sys.stderr)
            return False
    return True


def _read(seed: int, path: pathlib.Path, selection: str) -> Trained:
    init, final = (training.load(path / "states" / name) for name in ("init", "final"))
    chosen = final if selection == "final" else training.load(_newest_best(path))
    return Trained(seed, init.variables, chosen.variables, final.manifest["history"], path)


def _set_aside(path: pathlib.Path) -> None:
    """Move a damaged run, never over another one, even where the clock has gone back."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    path.rename(aside)
    print(f"The run was moved to {aside}.", file=sys.stderr)


def _newest_best(path: pathlib.Path) -> pathlib.Path:
    """The best so far of a run that has ended is the one of the latest epoch."""
    kept = sorted((path / "states" / "best").glob("[0-9]*"), key=lambda one: int(one.name))
    if not kept:
        raise FileNotFoundError(f"The run in {path} holds no network selected on held-out images.")
    return kept[-1]


def _layout(seeds: int, batch_size: int, data_axis: int | None) -> Mesh:
    """Return a mesh for the next seeds: as many side by side as divide the devices, the batch over the rest."""
    fitting = [
        (side, split)
        for side, split in mesh.layouts()
        if side <= seeds and (batch_size % split == 0 if data_axis is None else split == data_axis)
    ]
    # Where there is none, the one that is refused says which would do.
    return training.make_mesh(*max(fitting, default=(1, 1 if data_axis is None else data_axis)))


def with_training_statistics(settings: Training, task: Task, downsampling: str, trained: Trained) -> Trained:
    """Return the network with batch norm's statistics taken anew, from training images (see ``Task``).

    Where training ends while the learning rate is high, and batches are small, the running averages lag behind.
    """
    model = build(settings, downsampling, task.num_classes)
    images = task.statistics_examples()
    return trained._replace(trained=models.with_batch_statistics(model, trained.trained, images))


def accuracy(settings: Training, task: Task, downsampling: str | None, trained: Trained) -> float:
    """Return the accuracy of the trained network on the test images."""
    known = trained.history[-1].get("evaluation_accuracy") if task.validation is None else None
    return float(_evaluate(settings, task, downsampling, trained, task.evaluation) if known is None else known)


def fitted(settings: Training, task: Task, downsampling: str | None, trained: Trained) -> float:
    """Return the final accuracy on the training images, as probed: not augmented; NaN for a stream."""
    if not isinstance(task.train, dict):
        return float("nan")
    return _evaluate(settings, task, downsampling, trained, task.train)


def _evaluate(settings: Training, task: Task, downsampling: str | None, trained: Trained, images: Any) -> float:
    model = build(settings, downsampling, task.num_classes)
    loss = settings.recipe.loss
    return training.evaluate(model, trained.trained, images, prepare=task.prepare_clean, loss=loss)["accuracy"]
