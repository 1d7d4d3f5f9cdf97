"""Training to the end, checkpointed so that a killed run goes on to the same bits."""

import functools
import importlib.metadata
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from deform_jax import checks
from deform_jax.training import checkpoints
from deform_jax.training.mesh import INDEXED, check_batch, make_mesh, pmapped, replicate, stack, unstack
from deform_jax.training.progress import Progress
from deform_jax.training.recipe import Recipe
from deform_jax.training.state import State, create_state
from deform_jax.training.step import Prepare, epoch_order, indexed_evaluate_step, indexed_train_step
from deform_jax.typing import PyTree

EVALUATION_BATCH = 500


class Run(NamedTuple):
    """One trained network.

    Attributes:
      seed: the run's seed.
      variables: ``{"params": …, "batch_stats": …}`` after the last step.
      history: one row per epoch: epoch, step, loss, accuracy, images_per_second and, with an evaluation set,
        evaluation_loss and evaluation_accuracy.
    """

    seed: int
    variables: PyTree
    history: list[dict[str, float]]


class _Member:
    """One seed's files and records within a group that trains together."""

    def __init__(self, seed: int, folder: pathlib.Path | None):
        self.seed, self.folder = seed, folder
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}

    def save_state(self, name: str, state: State) -> None:
        """Keep the variables under ``states/name``; a repeated epoch finds them there already."""
        if self.folder is not None and not (self.folder / "states" / name).exists():
            record = {"step": int(state.step), "history": self.history}
            checkpoints.save(self.folder / "states" / name, state.variables, manifest=record)

    def save_best(self, state: State) -> None:
        """Keep the variables with the best evaluation accuracy so far; the ones before go once these are safe."""
        accuracy, epoch = self.history[-1].get("evaluation_accuracy"), int(self.history[-1]["epoch"])
        if accuracy is None or accuracy <= self.best.get("accuracy", -math.inf):
            return
        self.best = {"accuracy": accuracy, "epoch": epoch}
        self.save_state(f"best/{epoch}", state)
        if self.folder is not None:
            checkpoints.prune(self.folder / "states" / "best", keep=1)

    def save_resume(self, state: State, environment: dict[str, Any]) -> None:
        """Keep everything the run needs to go on, and the two newest such steps."""
        if self.folder is None:
            return
        step, folder = int(state.step), self.folder / "resume"
        record = {"step": step, "history": self.history, "best": self.best, "environment": environment}
        if not (folder / str(step)).exists():
            checkpoints.save(folder / str(step), state.variables, resume=_resumable(state), manifest=record)
        checkpoints.prune(folder, keep=2)


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: Mapping[str, Any],
    *,
    prepare: Prepare,
    seeds: Sequence[int] = (0,),
    evaluation: Mapping[str, Any] | None = None,
    prepare_evaluation: Prepare | None = None,
    folders: Sequence[str | os.PathLike] | None = None,
    mesh: Mesh | None = None,
    save_epochs: Sequence[int] = (),
    checkpoint_steps: int | None = None,
    progress: bool | str = True,
) -> list[Run]:
    """Train one network per seed, side by side on the mesh, and return them in the order of ``seeds``.

    Batch order and augmentation depend on the seed, the epoch and the step only: not on the number of devices, nor
    on interruptions. With ``folders``, a run that was killed goes on from its newest good checkpoint to the same bits
    (on the same machine with the same cores, devices, jax version and XLA flags; a change is announced on stderr).

    Each folder receives ``states/init``, ``states/epoch_NNNN`` for the chosen epochs, ``states/best/N`` (by evaluation
    accuracy, N the epoch), ``states/final``, and under ``resume/`` the two newest steps a run can go on from.

    Args:
      model: module whose ``apply(variables, images, train)`` returns (logits, taps), with a field ``axis_name``.
      recipe: optimiser settings.
      train: ``images`` (n, h, w, c) uint8 and ``labels`` (n,) integers; a copy is kept on every device.
      prepare: (per-image keys (n,), raw images) → images as the network takes them; compared by value.
      seeds: as many as the mesh's ``seed`` axis is long.
      evaluation: like ``train``; evaluated after every epoch, or None.
      prepare_evaluation: like ``prepare`` without randomness, called with keys None; ``prepare`` by default.
      folders: one per seed, or None to keep nothing.
      mesh: from ``make_mesh``; by default ``len(seeds)`` devices side by side.
      save_epochs: epochs (1 … epochs) after which to keep the variables.
      checkpoint_steps: steps between resumable checkpoints besides the one after every epoch, or None.
      progress: show a bar on stderr; a string is its label.

    Raises:
      ValueError, TypeError: impossible settings (each message says what to do).
      FloatingPointError: the loss became NaN or infinite.
    """
    mesh = make_mesh(len(seeds)) if mesh is None else mesh
    _check(recipe, train, seeds, folders, mesh, save_epochs)
    n, shape = train["images"].shape[0], tuple(train["images"].shape[1:])
    per_epoch = n // recipe.batch_size
    paths = [pathlib.Path(f).absolute() for f in folders] if folders is not None else [None] * len(seeds)
    members = [_Member(seed, path) for seed, path in zip(seeds, paths, strict=True)]
    fresh = [create_state(model, recipe, jax.random.key(seed), shape, per_epoch) for seed in seeds]
    for member, state in zip(members, fresh, strict=True):
        member.save_state("init", state)
    environment = _environment(mesh)
    state = stack(_restore(members, fresh, environment) or fresh, mesh)
    batch = replicate({name: jnp.asarray(train[name]) for name in ("images", "labels")}, mesh)
    step = _mapped_step(mesh, prepare)
    evaluate_all = _evaluator(model, evaluation, prepare_evaluation or prepare, mesh)
    done = int(state.step[0])
    label = progress if isinstance(progress, str) else "training"
    bar = Progress(recipe.epochs * per_epoch, done, recipe.batch_size * len(seeds), label, shown=bool(progress))
    with bar:
        for epoch in range(done // per_epoch, recipe.epochs):
            began, first = time.perf_counter(), int(state.step[0]) % per_epoch
            for order, last in _batches(seeds, epoch, n, recipe.batch_size, first):
                state, _ = step(state, {**batch, "order": order})
                bar.advance(epoch, state.totals)
                if checkpoint_steps and not last and int(state.step[0]) % checkpoint_steps == 0:
                    _save(members, state, environment)
            seconds = time.perf_counter() - began
            speed = (per_epoch - first) * recipe.batch_size * len(seeds) / seconds
            _close_epoch(members, state, epoch + 1, evaluate_all(state), speed, epoch + 1 in save_epochs)
            bar.report(members[0].history[-1])
            _save(members, state, environment)
    return _finish(members, state)


def evaluate(
    model: nn.Module, variables: PyTree, evaluation: Mapping[str, Any], *, prepare: Prepare
) -> dict[str, float]:
    """Return mean ``loss`` (nats) and ``accuracy`` of one network over a whole set, exactly (no image dropped).

    Args:
      model: module of this package.
      variables: its variables.
      evaluation: ``images`` (n, h, w, c) uint8, ``labels`` (n,).
      prepare: called with keys None.
    """
    _check_set("evaluation", evaluation)
    mesh = make_mesh(devices=jax.devices()[:1])
    return _evaluate(model, stack([variables], mesh), evaluation, prepare, mesh)[0]


def _check(
    recipe: Recipe,
    train: Mapping[str, Any],
    seeds: Sequence[int],
    folders: Sequence[Any] | None,
    mesh: Mesh,
    save_epochs: Sequence[int],
) -> None:
    _check_set("train", train)
    if not seeds or len(set(seeds)) != len(seeds):
        checks.fail("seeds", "be one or more different integers", f"{tuple(seeds)} was given")
    for seed in seeds:
        checks.integer("seeds", seed, minimum=0, maximum=2**31 - 1)
    if len(seeds) != mesh.shape["seed"]:
        length = mesh.shape["seed"]
        checks.fail("seeds", f"be as many as the mesh's seed axis is long, {length}", f"{len(seeds)} were given")
    if folders is not None and len(folders) != len(seeds):
        checks.fail("folders", f"be one per seed, {len(seeds)}", f"{len(folders)} were given")
    count = train["images"].shape[0]
    if recipe.batch_size > count:
        checks.fail("batch_size", f"be at most the {count} training images", f"{recipe.batch_size} was given")
    check_batch(recipe.batch_size, mesh)
    for epoch in save_epochs:
        checks.integer("save_epochs", epoch, minimum=1, maximum=recipe.epochs)


def _check_set(name: str, dataset: Mapping[str, Any]) -> None:
    for entry, dims, kind in (("images", "n h w c", "real"), ("labels", "n", "integer")):
        if entry not in dataset:
            checks.fail(name, "hold 'images' and 'labels'", f"it holds {', '.join(dataset) or 'nothing'}")
        checks.array(f"{name}[{entry!r}]", dataset[entry], dims, kind=kind, finite=True)
    images, labels = dataset["images"].shape[0], dataset["labels"].shape[0]
    if images != labels:
        checks.fail(name, "have one label per image", f"there are {images} images and {labels} labels")


def _batches(
    seeds: Sequence[int], epoch: int, n: int, batch_size: int, first: int
) -> Iterator[tuple[np.ndarray, bool]]:
    orders = [np.asarray(_order(jax.random.key(seed), epoch, n, batch_size)) for seed in seeds]
    order = np.stack(orders, axis=1)
    for step in range(first, len(order)):
        yield order[step], step + 1 == len(order)


_order = jax.jit(epoch_order, static_argnums=(2, 3))


@functools.lru_cache(maxsize=16)
def _mapped_step(mesh: Mesh, prepare: Prepare) -> Any:
    return pmapped(functools.partial(indexed_train_step, prepare=prepare), mesh, batch_layout=INDEXED)


@functools.lru_cache(maxsize=16)
def _mapped_evaluation(mesh: Mesh, model: nn.Module, prepare: Prepare) -> Any:
    def step(variables: PyTree, batch: Mapping[str, jax.Array], *, axis_name: str) -> dict[str, jax.Array]:
        return indexed_evaluate_step((model, variables), batch, prepare=prepare, axis_name=axis_name)

    layout = {**INDEXED, "order": P(None, "data")}
    return pmapped(
        lambda v, b, axis_name: step(v, {**b, "order": b["order"][0]}, axis_name=axis_name),
        mesh,
        batch_layout=layout,
        donate=False,
    )


def _evaluator(model: nn.Module, evaluation: Mapping[str, Any] | None, prepare: Prepare, mesh: Mesh) -> Any:
    if evaluation is None:
        return lambda state: [{} for _ in range(mesh.shape["seed"])]
    _check_set("evaluation", evaluation)
    placed = replicate({name: jnp.asarray(evaluation[name]) for name in ("images", "labels")}, mesh)
    return lambda state: _evaluate(model, state.variables, placed, prepare, mesh)


def _evaluate(
    model: nn.Module, variables: PyTree, evaluation: Mapping[str, Any], prepare: Prepare, mesh: Mesh
) -> list[dict[str, float]]:
    count, data = evaluation["images"].shape[0], mesh.shape["data"]
    size = -(-min(EVALUATION_BATCH, count) // data) * data
    order = np.full(-(-count // size) * size, -1, np.int32)
    order[:count] = np.arange(count)
    step = _mapped_evaluation(mesh, model, prepare)
    arrays = {name: evaluation[name] for name in ("images", "labels")}
    sums = [step(variables, {**arrays, "order": part[None]}) for part in order.reshape(-1, size)]
    totals = jax.tree.map(lambda *parts: np.sum([np.asarray(p, np.float64) for p in parts], axis=0), *sums)
    return [
        {"loss": float(loss / n), "accuracy": float(correct / n)}
        for loss, correct, n in zip(totals["loss"], totals["correct"], totals["count"], strict=True)
    ]


def _close_epoch(
    members: Sequence[_Member], state: State, epoch: int, evaluations: list[dict], speed: float, keep: bool
) -> None:
    totals = jax.device_get(state.totals)
    for i, (member, one) in enumerate(zip(members, unstack(state), strict=True)):
        loss, accuracy = (float(totals[name][i] / totals["count"][i]) for name in ("loss", "correct"))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss of seed {member.seed} became {loss} in epoch {epoch}. Lower the learning rate (it is "
                f"{one.recipe.learning_rate:g}) or add warm-up epochs; what was saved before is kept."
            )
        row = {"epoch": epoch, "step": int(one.step), "loss": loss, "accuracy": accuracy, "images_per_second": speed}
        row |= {f"evaluation_{name}": value for name, value in evaluations[i].items()}
        member.history.append(row)
        member.save_best(one)
        if keep:
            member.save_state(f"epoch_{epoch:04d}", one)


def _save(members: Sequence[_Member], state: State, environment: dict[str, Any]) -> None:
    for member, one in zip(members, unstack(state), strict=True):
        member.save_resume(one, environment)


def _finish(members: Sequence[_Member], state: State) -> list[Run]:
    runs = []
    for member, one in zip(members, unstack(state), strict=True):
        member.save_state("final", one)
        runs.append(Run(member.seed, jax.device_get(one.variables), member.history))
    return runs


def _resumable(state: State) -> dict[str, Any]:
    return {
        "step": state.step,
        "key": jax.random.key_data(state.key),
        "totals": state.totals,
        # Numbered, since optax's named tuples would come back as plain dicts.
        "opt_state": {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(state.opt_state))},
    }


def _restore(members: Sequence[_Member], fresh: Sequence[State], environment: dict[str, Any]) -> list[State] | None:
    """Return the states at the newest step that every seed of the group has in good order, or None."""
    if any(member.folder is None for member in members):
        return None
    folders = [member.folder / "resume" for member in members if member.folder is not None]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.prune(folder, keep=2)
    common = set.intersection(*({int(path.name) for path in checkpoints.steps(folder)} for folder in folders))
    for step in sorted(common, reverse=True):
        try:
            loaded = [checkpoints.load(folder / str(step), resume=True) for folder in folders]
        except checkpoints.CorruptCheckpointError as error:
            print(f"{error} Going back to the step before it.", file=sys.stderr)
            continue
        for member, found in zip(members, loaded, strict=True):
            member.history, member.best = found.manifest["history"], found.manifest["best"]
        _announce(loaded[0].manifest["environment"], environment)
        return [_restored(state, found) for state, found in zip(fresh, loaded, strict=True)]
    return None


def _restored(fresh: State, found: checkpoints.Checkpoint) -> State:
    resume = found.resume
    if resume is None:
        raise checkpoints.CorruptCheckpointError("A resumable checkpoint lacks its part `resume`. Remove it.")
    structure = jax.tree.structure(fresh.opt_state)
    return fresh.replace(
        step=jnp.asarray(resume["step"]),
        params=found.variables["params"],
        batch_stats=found.variables.get("batch_stats", {}),
        opt_state=jax.tree.unflatten(structure, [resume["opt_state"][name] for name in sorted(resume["opt_state"])]),
        key=jax.random.wrap_key_data(jnp.asarray(resume["key"])),
        totals=resume["totals"],
    )


def _environment(mesh: Mesh) -> dict[str, Any]:
    """What bit-identical resumption depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "device": mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "cores": cores,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _announce(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"{name} {before.get(name)} → {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        print(f"Going on under other conditions, so not to the same bits: {', '.join(changed)}.", file=sys.stderr)
