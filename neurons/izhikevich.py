from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from .neuron import Neuron, Parameter, State
from .trace import fire


class Izhikevich(Neuron):
    """Izhikevich's neuron, in mV and ms.

    v' = k2 v^2 + k1 v + k0 - u + I, u' = a (b v - u); at v > v_peak a spike, v = c, u = u + d. ``current`` is I, in mV
    / ms, and is scaled by dt. ``integrator`` pins the order of the updates, on which the firing patterns depend:
    ``izh2004`` (default: v by one Euler step, then u with the new v, as in figure 1 of the 2004 paper), ``izh2003``
    (two half steps of v, then u, as in net.m of the 2003 paper), ``euler`` (both from the old values). [Izhikevich
    2003, IEEE TNN 14(6); 2004, IEEE TNN 15(5)]

    Parameters: ``a``, ``b``, ``c`` (mV), ``d``, ``k2``, ``k1``, ``k0``, ``v_peak`` (mV), ``v_start``, ``u_start``.
    States: ``v``, ``u``.
    """

    a = Parameter(0.02, unit="1/ms")
    b = Parameter(0.2, unit="1/ms")
    c = Parameter(-65.0, unit="mV")
    d = Parameter(8.0)
    k2 = Parameter(0.04)
    k1 = Parameter(5.0)
    k0 = Parameter(140.0)
    v_peak = Parameter(30.0, unit="mV")
    v_start = Parameter(-65.0, unit="mV")
    u_start = Parameter(-13.0)
    v = State("v_start", unit="mV", reset=True)
    u = State("u_start")

    default_reset: ClassVar[str] = "to_value"
    reset_amount: ClassVar[Mapping[str, str]] = {"to_value": "c"}
    integrators: ClassVar[tuple[str, ...]] = ("izh2004", "izh2003", "euler")

    def derive(self, dt: float) -> dict[str, Tensor]:
        return {"dt": self.a.new_tensor([dt]), "half_dt": self.a.new_tensor([dt / 2]), "dt_a": self.a * dt}

    def step(self, v: Any, u: Any, current: Any, p: Any) -> Any:
        old = v
        if self.integrator == "izh2003":
            for _ in range(2):
                v = v + p.half_dt * (p.k2 * v * v + p.k1 * v + p.k0 - u + current)
        else:
            v = v + p.dt * (p.k2 * v * v + p.k1 * v + p.k0 - u + current)
        driving = old if self.integrator == "euler" else v
        spike = fire(v - p.v_peak)
        u = u + p.dt_a * (p.b * driving - u) + spike * p.d
        return v, u, spike
