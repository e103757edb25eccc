from __future__ import annotations

from typing import Any

from torch import Tensor

from .lif import decay
from .neuron import Neuron, Parameter, State
from .trace import fire


class CuBaLIF(Neuron):
    """Current-based LIF: a synaptic current between input and membrane.

    i_syn[k] = decay_syn i_syn[k-1] + I[k]; v[k] = decay_mem v[k-1] + i_syn[k]; spike when v > threshold. An input of
    weight w raises i_syn by w, in the same step. [Neftci, Mostafa, Zenke 2019, with the new current in the membrane as
    in snnTorch's Synaptic]

    Parameters: ``tau_syn``, ``tau_mem`` (ms), ``threshold``, ``v_reset``. States: ``i_syn``, ``v``.
    """

    tau_syn = Parameter(10.0, unit="ms", positive=True)
    tau_mem = Parameter(20.0, unit="ms", positive=True)
    threshold = Parameter(1.0)
    i_syn = State(0.0)
    v = State(0.0, reset=True)

    def derive(self, dt: float) -> dict[str, Tensor]:
        return {
            "decay_syn": decay(self.tau_syn, dt, self.integrator),
            "decay_mem": decay(self.tau_mem, dt, self.integrator),
        }

    def step(self, i_syn: Any, v: Any, current: Any, p: Any) -> Any:
        i_syn = i_syn * p.decay_syn + current
        v = v * p.decay_mem + i_syn
        return i_syn, v, fire(v - p.threshold)
