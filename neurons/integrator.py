from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from .lif import decay
from .neuron import Neuron, Parameter, State


class Integrator(Neuron):
    """Leaky integrator that does not spike; a readout. v[k] = decay v[k-1] + I[k], and v is the output. ``tau_mem=inf``
    does not leak.

    Parameter: ``tau_mem`` (ms). State: ``v``.
    """

    tau_mem = Parameter(20.0, unit="ms", positive=True)
    v = State(0.0)

    output: ClassVar[str] = "real"
    default_reset: ClassVar[str] = "none"

    def derive(self, dt: float) -> dict[str, Tensor]:
        return {"decay_mem": decay(self.tau_mem, dt, self.integrator)}

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v * p.decay_mem + current
        return v, v
