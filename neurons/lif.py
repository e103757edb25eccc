from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .neuron import Neuron, Parameter, State
from .trace import fire


def decay(tau: Tensor, dt: float, integrator: str) -> Tensor:
    """What remains after ``dt`` of an exponential decay: exp(-dt/tau), or 1 - dt/tau under Euler (tau > dt)."""
    return torch.exp(-dt / tau) if integrator == "exact" else 1.0 - dt / tau


class LIF(Neuron):
    """Leaky integrate-and-fire.

    v[k] = decay v[k-1] + I[k]; spike when v > threshold; decay = exp(-dt / tau_mem), or 1 - dt / tau_mem under
    ``integrator="euler"``. An input of weight w raises v by w. [Gerstner et al. 2014, Neuronal Dynamics, 1.3]

    Parameters: ``tau_mem`` (ms), ``threshold``, ``v_reset`` (for ``reset="to_value"``). State: ``v``.
    """

    tau_mem = Parameter(20.0, unit="ms", positive=True)
    threshold = Parameter(1.0)
    v = State(0.0, reset=True)

    def derive(self, dt: float) -> dict[str, Tensor]:
        return {"decay_mem": decay(self.tau_mem, dt, self.integrator)}

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v * p.decay_mem + current
        return v, fire(v - p.threshold)
