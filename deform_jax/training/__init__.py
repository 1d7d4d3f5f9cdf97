"""Recipes, pure train steps, device meshes, checkpoints and the loop that joins them."""

from deform_jax.training.checkpoints import Checkpoint, CorruptCheckpointError, SaveError, load, load_newest, save
from deform_jax.training.evaluation import EvaluationStream, evaluate
from deform_jax.training.feed import TrainStream
from deform_jax.training.interruption import Interrupted
from deform_jax.training.loop import Run, fit
from deform_jax.training.losses import cross_entropy, hinge
from deform_jax.training.mesh import make_mesh, pmapped
from deform_jax.training.placement import replicate, stack, unstack
from deform_jax.training.recipe import Recipe
from deform_jax.training.state import State, create_state
from deform_jax.training.step import epoch_order, indexed_train_step, prepared_train_step, train_step

__all__ = [
    "Checkpoint",
    "CorruptCheckpointError",
    "EvaluationStream",
    "Interrupted",
    "Recipe",
    "Run",
    "SaveError",
    "State",
    "TrainStream",
    "create_state",
    "cross_entropy",
    "epoch_order",
    "evaluate",
    "fit",
    "hinge",
    "indexed_train_step",
    "load",
    "load_newest",
    "make_mesh",
    "pmapped",
    "prepared_train_step",
    "replicate",
    "save",
    "stack",
    "train_step",
    "unstack",
]
