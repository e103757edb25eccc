from __future__ import annotations

from typing import Any

from torch import Tensor

from .lif import decay
from .neuron import Neuron, Parameter, State
from .trace import fire


class ALIF(Neuron):
    """LIF whose threshold rises with its own spikes.

    v[k] = decay_mem v[k-1] + I[k]; spike s[k] when v > threshold + beta a[k-1]; a[k] = decay_adapt a[k-1] + (1 -
    decay_adapt) s[k]. ``subtract`` subtracts the base threshold. [Bellec et al. 2018, LSNN; Yin, Corradi, Bohte 2021]

    Parameters: ``tau_mem``, ``tau_adapt`` (ms), ``beta``, ``threshold``, ``v_reset``. States: ``v``, ``a``.
    """

    tau_mem = Parameter(20.0, unit="ms", positive=True)
    tau_adapt = Parameter(200.0, unit="ms", positive=True)
    beta = Parameter(1.8)
    threshold = Parameter(1.0)
    v = State(0.0, reset=True)
    a = State(0.0)

    def derive(self, dt: float) -> dict[str, Tensor]:
        adapt = decay(self.tau_adapt, dt, self.integrator)
        return {"decay_mem": decay(self.tau_mem, dt, self.integrator), "decay_adapt": adapt, "gain_adapt": 1.0 - adapt}

    def step(self, v: Any, a: Any, current: Any, p: Any) -> Any:
        v = v * p.decay_mem + current
        spike = fire(v - (p.threshold + a * p.beta))
        a = a * p.decay_adapt + spike * p.gain_adapt
        return v, a, spike
