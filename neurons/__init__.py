"""What a neuron is: its dynamics, its surrogate gradient, its step program, and the engine that runs it over time."""

from .adlif import AdLIF
from .alif import ALIF
from .cubalif import CuBaLIF
from .engine import Cell, Link, Trace, run_eager
from .integrator import Integrator
from .izhikevich import Izhikevich
from .lif import LIF
from .neuron import Neuron, Parameter, ProgramNeuron, State
from .program import Op, StepProgram
from .surrogate import (
    SURROGATES,
    ATan,
    Boxcar,
    FastSigmoid,
    Gaussian,
    SlayerExp,
    StraightThrough,
    Surrogate,
    Triangle,
    surrogate_from_spec,
)
from .trace import fire, reset, use_surrogate

__all__ = [
    "ALIF",
    "LIF",
    "SURROGATES",
    "ATan",
    "AdLIF",
    "Boxcar",
    "Cell",
    "CuBaLIF",
    "FastSigmoid",
    "Gaussian",
    "Integrator",
    "Izhikevich",
    "Link",
    "Neuron",
    "Op",
    "Parameter",
    "ProgramNeuron",
    "SlayerExp",
    "State",
    "StepProgram",
    "StraightThrough",
    "Surrogate",
    "Trace",
    "Triangle",
    "fire",
    "reset",
    "run_eager",
    "surrogate_from_spec",
    "use_surrogate",
]
