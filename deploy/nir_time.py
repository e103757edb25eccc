"""What NIR leaves open: how its differential equations become steps, and which of Ranvier's neurons they then are.

A NIR file has neurons in continuous time and no step. Whoever reads it chooses one, and an integrator. Both ways of
translation rest on the same two facts: over one step a leak of time constant tau keeps a share of the membrane
potential, 1 - step / tau (forward Euler) or exp(-step / tau) (exact, for a constant input), and the input R I adds what
is not kept. Times are in the file's unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ToolError
from ..neurons import LIF, CuBaLIF, Integrator, Neuron, StepProgram
from ..neurons.neuron import INTEGRATORS

Reals = NDArray[np.float64]

UNITS = {"s": 1000.0, "ms": 1.0}
"""Milliseconds in one unit of a file's time."""
METADATA = "ranvier"
"""Under this name a file says how it is meant; readers may ignore it."""


def nir_package() -> Any:
    """The package ``nir``. Raises :class:`ToolError` where it is not installed."""
    try:
        import nir
    except ImportError as error:
        raise ToolError("the package nir is not installed; pip install 'ranvier[interop]'") from error
    return nir


@dataclass(frozen=True)
class Reading:
    """How a file is turned into steps: ``step``, one step in the file's unit of time, and ``integrator``.

    Raises:
        ConfigError: a step that is no positive time, an unknown integrator.
    """

    step: float
    integrator: str = "euler"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0):
            raise ConfigError(f"NIR: a step must be a positive time, got {self.step!r}")
        if self.integrator not in INTEGRATORS:
            raise ConfigError(f"NIR: integrator must be one of {', '.join(INTEGRATORS)}, got {self.integrator!r}")

    def kept(self, tau: Reals) -> Reals:
        """The share of the membrane potential that is left after a step."""
        return 1.0 - self.step / tau if self.integrator == "euler" else np.exp(-self.step / tau)

    def tau(self, kept: Reals) -> Reals:
        """The inverse of :meth:`kept`, for shares from 0 (Euler; above 0, exact) to below 1."""
        return self.step / (1.0 - kept) if self.integrator == "euler" else -self.step / np.log(kept)


@dataclass(frozen=True)
class Known:
    """A neuron that NIR can say: its class, and its reset."""

    kind: type[Neuron]
    reset: str


def _text(program: StepProgram) -> str:
    return repr({k: v for k, v in program.to_json().items() if k != "surrogate"})


def recognised(program: StepProgram) -> Known | None:
    """Which neuron's step a program is, however it was made or read; None for one that NIR cannot say.

    The surrogate and whether the reset passes gradients make no difference to what a neuron sends.
    """
    own = _text(program)
    for kind, resets in (
        (LIF, ("to_value", "subtract", "none")),
        (CuBaLIF, ("to_value", "subtract", "none")),
        (Integrator, ("none",)),
    ):
        for reset in resets:
            for detach in (False, True) if reset in ("to_value", "subtract") else (False,):
                if _text(kind(1, reset=reset, detach_reset=detach).program(1.0)) == own:
                    return Known(kind, reset)
    return None
