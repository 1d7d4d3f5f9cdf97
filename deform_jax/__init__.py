"""Measure and explain how convolutional networks become stable to deformations.

Five parts, each loaded only when it is first used:

- ``warps``: random key → displacement field → warped image.
- ``data``: image sets and tasks as seeded arrays.
- ``models``: Flax modules, image → (logits, ordered taps).
- ``training``: recipes, train steps on a device mesh, checkpoints.
- ``probes``: sensitivities and filter statistics of any callable or parameter pytree.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deform_jax import data, models, probes, training, warps

__all__ = ["data", "models", "probes", "training", "warps"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"deform_jax.{name}")
    raise AttributeError(f"module 'deform_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
