"""Training to the end, checkpointed so that a killed run goes on to the same bits."""

import contextlib
import functools
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.sharding import Mesh

from deform_jax import checks
from deform_jax.training import locks, processes, resume
from deform_jax.training.arguments import check_layout, check_prepare, check_run, check_several, run_settings
from deform_jax.training.evaluation import EvaluationStream, check_loss, evaluator
from deform_jax.training.feed import Feed, TrainStream, make_feed
from deform_jax.training.given import check_mesh, check_trainable
from deform_jax.training.interruption import Interruption
from deform_jax.training.mesh import is_shared, make_mesh, mesh_processes, row_processes, rows_held
from deform_jax.training.placement import everywhere, held, stack, unstack
from deform_jax.training.progress import Progress
from deform_jax.training.recipe import Recipe
from deform_jax.training.reports import Reports, check_tensorboard
from deform_jax.training.resume import Member
from deform_jax.training.state import State, create_state
from deform_jax.training.step import Prepare
from deform_jax.typing import PyTree


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


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: Mapping[str, Any] | TrainStream,
    *,
    prepare: Prepare,
    seeds: Sequence[int] = (0,),
    evaluation: Mapping[str, Any] | EvaluationStream | None = None,
    prepare_evaluation: Prepare | None = None,
    folders: Sequence[str | os.PathLike] | None = None,
    mesh: Mesh | None = None,
    save_epochs: Sequence[int] = (),
    save_steps: Sequence[int] = (),
    checkpoint_steps: int | None = None,
    checkpoint_epochs: int = 1,
    progress: bool | str = True,
    tensorboard: bool = False,
) -> list[Run]:
    """Train one network per seed, side by side on the mesh, and return them in the order of ``seeds``.

    Batch order and augmentation depend on the seed, the epoch and the step only: not on the number of devices, nor
    on interruptions (dropout, where a network has it, draws for each device's part of a batch). With ``folders``, a
    run that was killed goes on from its newest good checkpoint to the same bits (on the same machine with the same
    cores, devices, jax version and XLA flags; a change is announced on stderr).

    Each folder receives ``states/init``, ``states/epoch_NNNN`` and ``states/step_NNNNNNNN`` for the chosen epochs and
    steps, ``states/best/N`` (by evaluation accuracy, N the epoch), ``states/final``, and under ``resume/`` the two
    newest steps a run can go on from; and ``log.jsonl``, to follow with ``tail -f``: a JSON object a line when the run
    begins, goes on or ends, for each epoch (of more than 1000 epochs, at most one a second), and every 30 s within an
    epoch. Seeds of a group go on together, from the newest step that all of them have in
    good order. Called again when it is finished, a run is read back at once. A second process that comes to train into
    the same folder says so on stderr and waits, then reads the run back; where there are no file locks (some buckets
    and network disks), a line says so and it is up to you.

    With ``folders`` and in the main thread, SIGTERM (by which clouds and schedulers announce that they take a machine
    back) and Ctrl-C end training after a resumable checkpoint of the step at hand.

    Several processes train together where ``jax.distributed`` is initialised: all make the same call, with equal data
    (each reads its own part of a ``TrainStream``) and a mesh over the devices of all, and all return the same. Each
    seed's checkpoints are written, once, by the processes that hold it; so the folders must be on a disk that all see.
    What was saved goes on under any other number of processes and devices.

    Args:
      model: module whose ``apply(variables, images, train)`` returns (logits, taps), with a field ``axis_name``.
      recipe: optimiser settings.
      train: ``images`` (n, h, w, c) or (n, length, c) uint8 and ``labels`` (n,) integers from 0, of which a copy is
        kept on every device; or a ``TrainStream``, such as ``data.ImageStream``, whose place is part of every resumable
        checkpoint.
      prepare: (per-image keys (n,), raw images) → images as the network takes them; compiled once for all that are
        equal and hash alike, so a frozen dataclass rather than a lambda.
      seeds: as many as the mesh's ``seed`` axis is long.
      evaluation: like ``train``, or an ``EvaluationStream``; evaluated after every epoch. Or None.
      prepare_evaluation: like ``prepare`` without randomness, called with keys None; ``prepare`` by default.
      folders: a different one per seed, or None to keep nothing. One that holds a run of another seed, recipe, model
        or image shape is refused.
      mesh: from ``make_mesh``; by default ``len(seeds)`` devices side by side.
      save_epochs: epochs (1 … epochs) after which to keep the variables.
      save_steps: steps (1 … epochs × steps per epoch) after which to keep the variables.
      checkpoint_steps: steps between resumable checkpoints besides those after epochs, or None.
      checkpoint_epochs: epochs between resumable checkpoints, for very short ones; the last epoch has one too.
      progress: show a bar on stderr with the time left, or lines where stderr is no terminal and no notebook that has
        ipywidgets; a string is its label.
      tensorboard: also write what the log says into ``tensorboard/`` in each folder, as scalars for TensorBoard.

    Raises:
      ValueError, TypeError: impossible settings (each message says what to do).
      FloatingPointError: the loss became NaN or infinite; nothing is saved from then on.
      Interrupted: SIGTERM or Ctrl-C; the same call goes on from the step at which it came.
      SaveError: a checkpoint could not be written, such as on a full disk; earlier ones are kept.
      ImportError: ``tensorboard`` without tensorboardX.
    """
    if not isinstance(progress, str):
        progress = checks.flag("progress", progress)
    check_run(recipe, seeds, folders, save_epochs, checkpoint_steps, checkpoint_epochs)
    tensorboard = check_tensorboard(tensorboard, folders)
    check_trainable(model)
    check_loss(recipe.loss, model)
    if mesh is not None:
        check_mesh(mesh)
    prepare_evaluation = prepare if prepare_evaluation is None else prepare_evaluation
    check_prepare(prepare, prepare_evaluation)
    mesh = make_mesh(len(seeds)) if mesh is None else mesh
    feed = make_feed(train, model, mesh)
    n, shape = feed.count, feed.image_shape
    check_layout(len(seeds), recipe.batch_size, n, mesh)
    evaluate_all = _evaluator(model, evaluation, prepare_evaluation, mesh, recipe.loss)
    per_epoch = n // recipe.batch_size
    check_several("save_steps", save_steps, "integers")
    kept = {checks.integer("save_steps", one, minimum=1, maximum=recipe.epochs * per_epoch) for one in save_steps}
    paths = [pathlib.Path(f).absolute() for f in folders] if folders is not None else [None] * len(seeds)
    settings = run_settings(model, recipe, (n, *shape))
    members = [
        Member(int(seed), path, settings, recipe, row)
        for seed, path, row in zip(seeds, paths, row_processes(mesh), strict=True)
    ]
    environment, among, mine = resume.environment(mesh), mesh_processes(mesh), rows_held(mesh)
    fresh = [
        create_state(model, recipe, jax.random.key(seed), shape, per_epoch) if row in mine else None
        for row, seed in enumerate(seeds)
    ]
    total, leads = recipe.epochs * per_epoch, processes.index() == among[0]
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(contextlib.closing(feed))
        cleanup.enter_context(_locked([path for path in paths if path is not None], members, among))
        restored = resume.restore(members, fresh, environment, among)
        for member, one in zip(members, fresh, strict=True):
            member.save_state("init", one, replace=restored is None)
        feed.start(seeds, recipe.batch_size, None if restored is None else [member.feed for member in members])
        state, step = stack(restored or fresh, mesh), feed.step(prepare)
        done = int(held(state.step)[0])
        label = progress if isinstance(progress, str) else "training"
        shown = bool(progress) and leads
        reports = cleanup.enter_context(Reports(members, mine, tensorboard=tensorboard, active=leads))
        reports.begin(done, total, recipe.epochs, resumed=restored is not None)
        size = recipe.batch_size * len(seeds)
        bar = cleanup.enter_context(Progress(total, done, size, label, shown=shown, reports=reports))
        interruption = cleanup.enter_context(Interruption(active=folders is not None))
        for epoch in range(done // per_epoch, recipe.epochs):
            if all(member.ended for member in members):
                break
            began, first = time.perf_counter(), done % per_epoch
            for batch in feed.batches(epoch, first):
                state, metrics = step(state, batch)
                feed.pace(metrics)
                done += 1
                bar.advance(epoch, state.totals)
                stop = interruption.asked()
                due = (stop or (checkpoint_steps and done % checkpoint_steps == 0)) and done % per_epoch
                if done in kept or due:
                    _averages(members, state, epoch + 1)
                if done in kept:
                    _keep(members, state, f"step_{done:08d}")
                if due:
                    _save(members, state, environment, feed)
                if stop and due:
                    raise interruption.error(done, total)
            averages = _averages(members, state, epoch + 1)
            speed = (per_epoch - first) * size / (time.perf_counter() - began)
            rows = [{"epoch": epoch + 1, "step": done, **one, "images_per_second": speed} for one in averages]
            _close_epoch(members, state, rows, evaluate_all(state.variables))
            if epoch + 1 in save_epochs:
                _keep(members, state, f"epoch_{epoch + 1:04d}")
            bar.expect(_last_epoch(members, recipe.epochs) * per_epoch)
            ended = epoch + 1 == recipe.epochs or all(member.ended for member in members)
            bar.report([member.history[-1] for member in members], last=ended)
            if ended or interruption.received or (epoch + 1) % checkpoint_epochs == 0:
                _save(members, state, environment, feed)
            if interruption.received and not ended:
                raise interruption.error(done, total)
        runs = _finish(members, state, mesh)
        reports.finish()
        if interruption.received:  # those that are trained next would not hear of it
            raise interruption.error(done, total)
        return runs


@contextlib.contextmanager
def _locked(folders: list[pathlib.Path], members: Sequence[Member], among: tuple[int, ...]) -> Iterator[None]:
    """Hold the locks of the folders: the first process for all, while the others wait for it as long as it takes."""
    with contextlib.ExitStack() as cleanup:
        if folders:
            processes.check_shared(folders[0].parent, among=among)
        own = folders if processes.index() == among[0] else []
        lock = locks.held(own, before_waiting=functools.partial(resume.check_settings, members))
        processes.jointly(lambda: cleanup.enter_context(lock), among=among, timeout=math.inf)
        yield


def _evaluator(
    model: nn.Module,
    evaluation: Mapping[str, Any] | EvaluationStream | None,
    prepare: Prepare,
    mesh: Mesh,
    loss: str,
) -> Callable[[PyTree], list[dict[str, float]]]:
    if evaluation is None:
        return lambda variables: [{} for _ in range(mesh.shape["seed"])]
    return evaluator(model, evaluation, prepare, mesh, loss)


def _averages(members: Sequence[Member], state: State, epoch: int) -> list[dict[str, float]]:
    """Return each seed's loss and accuracy over the epoch so far; a loss that is no number ends the run."""
    totals = everywhere(state.totals)
    rows = [
        {"loss": float(loss / count), "accuracy": float(correct / count)}
        for loss, correct, count in zip(totals["loss"], totals["correct"], totals["count"], strict=True)
    ]
    for member, row in zip(members, rows, strict=True):
        if not math.isfinite(row["loss"]) and not member.ended:
            known = hasattr(state.model, "num_classes")  # and labels were held against them
            labels = "" if known else " Labels beyond the model's outputs would make it so, too."
            raise FloatingPointError(
                f"The loss of seed {member.seed} became {row['loss']} in epoch {epoch}. Lower the learning rate (it is "
                f"{state.recipe.learning_rate:g}) or add warm-up epochs; what was saved before is kept.{labels}"
            )
    return rows


def _close_epoch(
    members: Sequence[Member], state: State, rows: list[dict[str, float]], evaluations: list[dict]
) -> None:
    going = [member for member in members if not member.ended]
    for member, row, evaluation in zip(members, rows, evaluations, strict=True):
        if not member.ended:
            member.add(row | {f"evaluation_{name}": value for name, value in evaluation.items()})
    if not any(evaluations) and not any(member.done() for member in going):
        return  # nothing to keep, and a copy of all arrays would take longer than a short epoch
    for member, one in zip(members, unstack(state), strict=True):
        if not member.ended:
            member.save_best(one)
            if member.done():
                member.end(one)


def _last_epoch(members: Sequence[Member], epochs: int) -> int:
    """Return the epoch after which all members are done, as far as is known."""
    return max(min(epochs, member.last_epoch() or epochs) for member in members)


def _keep(members: Sequence[Member], state: State, name: str) -> None:
    for member, one in zip(members, unstack(state), strict=True):
        if not member.ended:
            member.save_state(name, one)


def _save(members: Sequence[Member], state: State, environment: dict[str, Any], feed: Feed) -> None:
    for member, one, place in zip(members, unstack(state), feed.states(), strict=True):
        member.feed = place
        member.save_resume(member.held(one), environment)
    # No process goes on before every seed has this step: each keeps two only, and they must have one in common.
    processes.barrier("checkpoint", among=sorted({process for member in members for process in member.among}))


def _finish(members: Sequence[Member], state: State, mesh: Mesh) -> list[Run]:
    final = list(map(Member.held, members, unstack(state)))
    for member, one in zip(members, final, strict=True):
        member.save_state("final", one)
    variables = [None if one is None else one.variables for one in final]
    if is_shared(mesh):
        # Leaf by leaf, since a device may not have room for every seed's arrays at once.
        variables = unstack(jax.tree.map(everywhere, stack(variables, mesh)))
        processes.barrier("finished", among=mesh_processes(mesh))
    return [Run(member.seed, one, member.history) for member, one in zip(members, variables, strict=True)]
