"""What every contender of a benchmark is: a call to time, the answer it gives, and how much one call does."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Job:
    """One contender, ready to run in its own process."""

    run: Callable[[], None]
    """Does the work once and waits until it is done."""
    answer: Callable[[], np.ndarray] | None
    """Its result on the shared inputs, for comparison; None where results are not comparable."""
    count: float
    """Units of work (images, steps) in one run."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """Which function makes a job, in what surroundings."""

    name: str
    maker: str
    """MODULE:FUNCTION, called with the work's sizes and one of the choices, returning a Job."""
    choices: tuple[Mapping[str, Any], ...] = ({},)
    """Settings of which the fastest is found by trial, before anything is counted."""
    reuse: bool = True
    """Whether the allocator keeps freed memory (``experiments.machine``), which favours all contenders alike."""
    is_ours: bool = False
    simulate: bool = False
    """Whether there is a simulated device for every core, as in the experiments."""

    def make(self, sizes: Mapping[str, Any], choice: Mapping[str, Any]) -> Job:
        module, function = self.maker.split(":")
        return getattr(importlib.import_module(module), function)(**sizes, **choice)


@dataclasses.dataclass(frozen=True)
class Target:
    """``contender`` is to be at least ``times`` as fast as ``peer``, or take at most ``times`` its memory."""

    contender: str
    peer: str
    times: float
    of: str = "speed"
    """``"speed"``, ``"memory"`` (at most), or ``"GiB"``: peak memory at most, without a peer."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Contenders that do the same work on the same inputs."""

    name: str
    title: str
    unit: str
    sizes: Mapping[str, Any]
    smoke: Mapping[str, Any]
    """Sizes in the tests."""
    contenders: tuple[Contender, ...]
    tolerance: float
    """Largest difference of answers from our own, as a part of our largest value."""
    targets: tuple[Target, ...] = ()
    repeats: int | None = None
    """Counted runs, where not as the command says."""
