"""The integer model, its exporters and their verifiers."""

from .arrivals import IntConnection
from .footprint import Footprint, float_footprint, footprint, without_unread
from .inputs import IntInput, Sensor
from .integer import IntegerNetwork, IntegerResult, IntPopulation
from .latency import c_latency
from .nir_export import to_nir, write_nir
from .nir_import import from_nir
from .onnx_float import FloatAgreement, export_float_onnx, float_agreement
from .program import IntOp, IntProgram, IntValue
from .quantize import check_exportable, quantize
from .target_c import CTarget
from .target_onnx import OnnxTarget
from .target_verilog import VerilogTarget
from .verify import Agreement, Target, Verification, agreement, verify

TARGETS: dict[str, Target] = {"c": CTarget(), "onnx": OnnxTarget(), "verilog": VerilogTarget()}
"""Every target by name: what it is exported to and verified in."""

__all__ = [
    "TARGETS",
    "Agreement",
    "CTarget",
    "FloatAgreement",
    "Footprint",
    "IntConnection",
    "IntInput",
    "IntOp",
    "IntPopulation",
    "IntProgram",
    "IntValue",
    "IntegerNetwork",
    "IntegerResult",
    "OnnxTarget",
    "Sensor",
    "Target",
    "Verification",
    "VerilogTarget",
    "agreement",
    "c_latency",
    "check_exportable",
    "export_float_onnx",
    "float_agreement",
    "float_footprint",
    "footprint",
    "from_nir",
    "quantize",
    "to_nir",
    "verify",
    "without_unread",
    "write_nir",
]
