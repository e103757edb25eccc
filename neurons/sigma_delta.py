from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .lif import decay
from .neuron import Neuron, Parameter, State
from .surrogate import ClippedStraightThrough, Surrogate
from .trace import fire


class SigmaDelta(Neuron):
    """Signed integrate-and-fire, a sigma-delta modulator: its spikes, +1 or -1, add up to what it received.

    v[k] = decay v[k-1] + I[k]; s = sign(v) where |v| > threshold, else 0; then v = v - 2 threshold s. Without leak (the
    default) and with the default threshold of 1/2, v is what was received and not sent yet, at most 1/2 unless inputs
    beyond 1 arrive, so the sum of its spikes follows the sum of its inputs. The mean of several such neurons that start
    at evenly spaced ``v_start`` follows the input itself, in steps of one over their number. [Inose, Yasuda, Murakami
    1962, delta-sigma modulation, with three levels; as a neuron: Yoon 2017, "LIF and simplified SRM neurons encode
    signals into spikes via a form of asynchronous pulse sigma-delta modulation"]

    Its surrogate is :class:`ClippedStraightThrough` by default: the gradient of the linear system that it follows, for
    as long as it can: a neuron that has more to send than one spike passes none on but through ``v``.

    Parameters: ``tau_mem`` (ms), ``threshold``, ``v_start``. State: ``v``. Output: -1, 0 or 1.
    """

    tau_mem = Parameter(float("inf"), unit="ms", positive=True)
    threshold = Parameter(0.5, positive=True)
    v_start = Parameter(0.0)
    v = State("v_start")

    output: ClassVar[str] = "signed"
    default_reset: ClassVar[str] = "none"

    def __init__(self, size: int, *, surrogate: Surrogate | None = None, **options: Any) -> None:
        super().__init__(size, surrogate=ClippedStraightThrough() if surrogate is None else surrogate, **options)

    def derive(self, dt: float) -> dict[str, Tensor]:
        return {"decay_mem": decay(self.tau_mem, dt, self.integrator)}

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v * p.decay_mem + current
        sign = torch.where(v > 0, 1.0, -1.0)
        spike = fire(v * sign - p.threshold) * sign  # not abs(v), whose gradient is 0 at 0
        return v - spike * (p.threshold + p.threshold), spike


def staggered(copies: int, quantum: float = 1.0) -> Tensor:
    """Starts of ``copies`` neurons, evenly spaced around 0 in steps of ``quantum`` / ``copies``."""
    return ((torch.arange(copies, dtype=torch.float64) + 0.5) / copies - 0.5) * quantum
