"""Ranvier: write a spiking neuron once, train it with PyTorch, run the same bits on a microcontroller and an FPGA.

This is only the front door. The public names live in the rooms ``ranvier.neurons``, ``ranvier.networks``,
``ranvier.datasets``, ``ranvier.deploy`` and ``ranvier.experiments``; each is imported the first time it is asked for
(PEP 562), so that ``import ranvier`` costs milliseconds and any room can import ``ranvier.errors`` without a cycle.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_ROOMS = ("neurons", "networks", "datasets", "deploy", "experiments")
_MODULES = (*_ROOMS, "errors", "files", "cli")

_HOMES: dict[str, tuple[str, ...]] = {
    "ranvier.neurons": (
        "ALIF",
        "ATan",
        "AdLIF",
        "Boxcar",
        "ClippedStraightThrough",
        "CuBaLIF",
        "FastSigmoid",
        "Gaussian",
        "Integrator",
        "Izhikevich",
        "LIF",
        "Neuron",
        "Parameter",
        "SigmaDelta",
        "SlayerExp",
        "State",
        "StepProgram",
        "StraightThrough",
        "Triangle",
        "fire",
        "reset",
    ),
    "ranvier.networks": (
        "Copies",
        "Delay",
        "Dense",
        "L2MU",
        "Network",
        "Node",
        "PerChannel",
        "Result",
        "load_network",
        "published_l2mu",
        "save_network",
        "sensor_input",
    ),
    "ranvier.deploy": (
        "TARGETS",
        "IntegerNetwork",
        "Sensor",
        "from_nir",
        "quantize",
        "to_nir",
        "verify",
        "write_nir",
    ),
    "ranvier.errors": ("RanvierError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

try:
    __version__ = version("ranvier")
except PackageNotFoundError:  # read from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = sorted([*_HOME_OF, *_MODULES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"ranvier.{name}")
    else:
        raise AttributeError(f"module 'ranvier' has no attribute {name!r}; dir(ranvier) lists what it has")
    globals()[name] = value  # the next look-up is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
