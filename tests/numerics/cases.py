"""What a case of the campaign is: a probe on its inputs, its reference, and how large their difference may be.

Bounds have reasons and are not fitted. The sum of m positive terms is off by λ √m u of it, with u the unit roundoff
(Higham and Mary 2019; see ``networks.LAMBDA``), and a single operation by u. Sums accumulate in float32 at least,
whatever the inputs' dtype, so that bfloat16 inputs have the bounds of float32: their values are exact numbers, too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from inputs import Inputs
from networks import LAMBDA, UNIT
from references import wide

OPERATIONS = 16
"""Single operations on the way to a value, sums apart: no probe has more."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One probe with one choice of options."""

    probe: str
    options: str
    run: Callable[[Inputs], tuple[Any, Any, float]]
    """Gives what was measured, the reference, a tree of the same structure, and the bound on their relative error."""
    each: bool = False
    """Whether errors of array entries are relative to that entry, not to the array's largest."""
    perturbed: bool = False
    """Whether the inputs depend on the closeness of the perturbation."""
    comparable: bool = True
    """Whether rounded inputs pose the same question, so that the result can be held against the unrounded one."""

    @property
    def name(self):
        return f"{self.probe}({self.options})"


CASES: list[Case] = []


def case(probe, options="", **facts):
    """Register a function of the inputs."""

    def register(run):
        CASES.append(Case(probe, options, run, **facts))
        return run

    return register


def arithmetic(terms, sums=1, amplified=1.0):
    """The relative error of float32 after so many sums, one upon the other, of at most so many terms.

    Where terms of both signs cancel, it is amplified by the sum of their sizes over the size of their sum.
    """
    return (LAMBDA * sums * np.sqrt(terms) + OPERATIONS) * UNIT["float32"] * amplified


def errors(case, measured, reference):
    """The largest relative error of all leaves."""
    measured, reference = (jax.tree.leaves(tree) for tree in (measured, reference))
    return max(error(m, r, case.each) for m, r in zip(measured, reference, strict=True))


def error(measured, reference, each):
    measured, reference = wide(measured), wide(reference)
    assert measured.shape == reference.shape
    difference = abs(measured - reference)
    scale = abs(reference) if each else abs(reference).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(difference == 0, 0, difference / scale)))
