"""The integer model, its exporters and their verifiers."""

from .integer import IntConnection, IntegerNetwork, IntegerResult, IntInput, IntPopulation
from .program import IntOp, IntProgram, IntValue
from .quantize import check_exportable, quantize
from .target_c import CTarget
from .target_verilog import VerilogTarget
from .verify import Agreement, Target, Verification, agreement, verify

TARGETS: dict[str, Target] = {"c": CTarget(), "verilog": VerilogTarget()}
"""Every target by name: what it is exported to and verified in."""

__all__ = [
    "TARGETS",
    "Agreement",
    "CTarget",
    "IntConnection",
    "IntInput",
    "IntOp",
    "IntPopulation",
    "IntProgram",
    "IntValue",
    "IntegerNetwork",
    "IntegerResult",
    "Target",
    "Verification",
    "VerilogTarget",
    "agreement",
    "check_exportable",
    "quantize",
    "verify",
]
