"""What ``fit`` refuses before it begins, and the settings by which a run is known again."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence, Set
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from deform_jax import checks
from deform_jax.training.given import check_kind
from deform_jax.training.mesh import check_batch, host_part, mesh_processes
from deform_jax.training.recipe import Recipe


def check_run(
    recipe: Recipe,
    seeds: Sequence[int],
    folders: Sequence[Any] | None,
    save_epochs: Sequence[int],
    checkpoint_steps: int | None,
    checkpoint_epochs: int,
) -> None:
    """Refuse seeds, folders, epochs and intervals that make no run."""
    check_kind("recipe", recipe, Recipe)
    check_several("seeds", seeds, "integers")
    for seed in seeds:
        checks.integer("seeds", seed, minimum=0, maximum=2**31 - 1)
    if len(seeds) == 0 or len(set(seeds)) != len(seeds):
        checks.fail("seeds", "be one or more different integers", f"{tuple(seeds)} was given")
    if folders is not None:
        check_several("folders", folders, "paths")
        for folder in folders:
            checks.path("folders", folder)
    check_several("save_epochs", save_epochs, "integers")
    different = {pathlib.Path(folder).absolute() for folder in folders or ()}
    if folders is not None and not len(different) == len(folders) == len(seeds):
        given = f"{len(folders)} were given" if len(folders) != len(seeds) else "two are the same"
        checks.fail("folders", f"be a different one per seed, {len(seeds)}", given)
    for epoch in save_epochs:
        checks.integer("save_epochs", epoch, minimum=1, maximum=recipe.epochs)
    if checkpoint_steps is not None:
        checks.integer("checkpoint_steps", checkpoint_steps, minimum=1)
    checks.integer("checkpoint_epochs", checkpoint_epochs, minimum=1)


def check_several(name: str, values: Any, what: str) -> None:
    """Refuse what is not several values of known number, such as one alone."""
    if not isinstance(values, Sequence | range | Set) or isinstance(values, str | bytes):
        checks.fail(name, f"be a tuple of {what}", f"{values!r} was given"[:200], error=TypeError)


def check_prepare(*functions: Any) -> None:
    """Refuse what cannot be called, or cannot be compared by value."""
    for name, function in zip(("prepare", "prepare_evaluation"), functions, strict=True):
        if not callable(function) or getattr(function, "__hash__", None) is None:
            remedy = "Use a function, or a frozen dataclass with __call__."
            checks.fail(name, "be callable and hashable", f"{function!r} was given", remedy, error=TypeError)


def check_layout(seeds: int, batch_size: int, count: int, mesh: Mesh) -> None:
    """Refuse a group of seeds, or a batch, that does not suit the mesh or the training set; and a mesh of others."""
    if jax.process_index() not in mesh_processes(mesh):
        checks.fail("mesh", f"have devices of this process, {jax.process_index()}", "it has none")
    host_part(mesh)
    if seeds != mesh.shape["seed"]:
        requirement = f"be as many as the mesh's seed axis is long, {mesh.shape['seed']}"
        checks.fail("seeds", requirement, f"{seeds} were given")
    if batch_size > count:
        checks.fail("batch_size", f"be at most the {count} training images", f"{batch_size} was given")
    check_batch(batch_size, mesh)


def run_settings(model: nn.Module, recipe: Recipe, images: tuple[int, ...]) -> dict[str, Any]:
    """Return what must not change between a run's parts, as JSON gives it back; values it cannot write by type only."""
    fields = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name", "axis_name")]
    settings = {"model": type(model).__name__, "images": images}
    settings |= {f"model.{field}": getattr(model, field) for field in fields}
    settings |= {f"recipe.{field}": value for field, value in dataclasses.asdict(recipe).items()}
    return json.loads(json.dumps(settings, default=lambda value: type(value).__name__))
