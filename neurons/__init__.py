"""What a neuron is: its dynamics, its surrogate gradient, its step program, and the engines that run it over time."""

from .adlif import AdLIF
from .alif import ALIF
from .cubalif import CuBaLIF
from .derivative import Derivative, differentiate
from .engines import (
    ENGINES,
    Cell,
    Link,
    Taps,
    Trace,
    available_engines,
    check_engine,
    is_silent,
    repeated,
    run_eager,
    run_stage,
    sequence_delayed,
    sequence_product,
)
from .integrator import Integrator
from .izhikevich import Izhikevich
from .lif import LIF
from .neuron import Neuron, Parameter, ProgramNeuron, State
from .program import Op, StepProgram
from .sigma_delta import SigmaDelta, staggered
from .surrogate import (
    SURROGATES,
    ATan,
    Boxcar,
    ClippedStraightThrough,
    FastSigmoid,
    Gaussian,
    SlayerExp,
    StraightThrough,
    Surrogate,
    Triangle,
    surrogate_from_spec,
)
from .trace import fire, reset, use_surrogate
from .twin import SmoothTwin, smooth_program

__all__ = [
    "ALIF",
    "ENGINES",
    "LIF",
    "SURROGATES",
    "ATan",
    "AdLIF",
    "Boxcar",
    "Cell",
    "ClippedStraightThrough",
    "CuBaLIF",
    "Derivative",
    "FastSigmoid",
    "Gaussian",
    "Integrator",
    "Izhikevich",
    "Link",
    "Neuron",
    "Op",
    "Parameter",
    "ProgramNeuron",
    "SigmaDelta",
    "SlayerExp",
    "SmoothTwin",
    "State",
    "StepProgram",
    "StraightThrough",
    "Surrogate",
    "Taps",
    "Trace",
    "Triangle",
    "available_engines",
    "check_engine",
    "differentiate",
    "fire",
    "is_silent",
    "repeated",
    "reset",
    "run_eager",
    "run_stage",
    "sequence_delayed",
    "sequence_product",
    "smooth_program",
    "staggered",
    "surrogate_from_spec",
    "use_surrogate",
]
