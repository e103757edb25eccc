from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from .lif import decay
from .neuron import Neuron, Parameter, State
from .trace import fire, reset


class AdLIF(Neuron):
    """Adaptive LIF with adaptation coupled to the membrane, in the symplectic-Euler form (SE-adLIF).

    v[k] = decay_mem v[k-1] + (1 - decay_mem) (I[k] - w[k-1]); spike s[k] when v > threshold; v is reset (to ``v_reset``
    by default); then, with v after the reset, w[k] = decay_w w[k-1] + (1 - decay_w) q (a v[k] + b s[k]). An input of
    weight g raises v by (1 - decay_mem) g. [Baronig, Ferrand, Sabathiel, Legenstein 2025, "Advancing spatio-temporal
    processing through adaptation in SNNs"]

    Parameters: ``tau_mem``, ``tau_w`` (ms), ``a`` in [0, 1], ``b`` in [0, 2], ``q``, ``threshold``, ``v_reset``.
    States: ``v``, ``w``.
    """

    tau_mem = Parameter(15.0, unit="ms", bounds=(0.1, 1000.0))
    tau_w = Parameter(150.0, unit="ms", bounds=(0.1, 5000.0))
    a = Parameter(0.5, bounds=(0.0, 1.0))
    b = Parameter(1.0, bounds=(0.0, 2.0))
    q = Parameter(1.0, positive=True)
    threshold = Parameter(1.0)
    v = State(0.0, reset=True)
    w = State(0.0)

    default_reset: ClassVar[str] = "to_value"

    def derive(self, dt: float) -> dict[str, Tensor]:
        mem, w = decay(self.tau_mem, dt, self.integrator), decay(self.tau_w, dt, self.integrator)
        gain_w = (1.0 - w) * self.q
        return {
            "decay_mem": mem,
            "gain_mem": 1.0 - mem,
            "decay_w": w,
            "coupling_v": gain_w * self.a,
            "coupling_spike": gain_w * self.b,
        }

    def step(self, v: Any, w: Any, current: Any, p: Any) -> Any:
        v = v * p.decay_mem + (current - w) * p.gain_mem
        spike = fire(v - p.threshold)
        v = reset(v, spike)
        w = w * p.decay_w + v * p.coupling_v + spike * p.coupling_spike
        return v, w, spike
