"""The figures of both papers, one command each; `python -m experiments` lists them."""

import importlib.util
import pathlib

_ROOT = pathlib.Path(__file__).parents[1]
_SPEC = importlib.util.find_spec("deform_jax")
if _SPEC is None or _SPEC.origin is None or pathlib.Path(_SPEC.origin).parents[1] != _ROOT:
    raise ImportError(
        f"The experiments in {_ROOT} run with the deform_jax beside them, but the one that is installed is "
        f"{_SPEC.origin if _SPEC else 'none'}. From {_ROOT}, run: pip install -e '.[experiments]'"
    )

from experiments import machine  # noqa: E402

machine.prepare()
