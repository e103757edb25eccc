"""The words of SystemVerilog: the banner, literals, the width of a register and the operations of an integer program as
expressions.
"""

from __future__ import annotations

import textwrap

import numpy as np

from .artefact import LICENCE, NOTICE
from .program import IntOp


def banner(what: str) -> list[str]:
    return [f"// {LICENCE}", f"// {what}", *(f"// {line}" for line in textwrap.wrap(NOTICE, 110)), ""]


def literal(value: int, bits: int) -> str:
    """A signed literal; negative numbers as their two's complement, since -2^(bits-1) has no positive counterpart."""
    return f"{bits}'sh{value & ((1 << bits) - 1):x}"


def unsigned_bits(values: np.ndarray) -> int:
    """Width of the narrowest register that holds ``values``, none of them negative."""
    return max(1, int(values.max()).bit_length())


def expression(op: IntOp, names: list[str], width: int) -> str:
    """One operation over operands of ``width`` bits."""
    one, zero = literal(1, width), literal(0, width)
    a = names[0]
    b = names[1] if len(names) > 1 else ""
    shift = op.args[1] if len(op.args) > 1 else 0
    forms = {
        "add": f"{a} + {b}",
        "sub": f"{a} - {b}",
        "mul": f"{a} * {b}",
        "neg": f"-{a}",
        "abs": f"({a} < {zero}) ? -{a} : {a}",
        "min": f"({a} < {b}) ? {a} : {b}",
        "max": f"({a} > {b}) ? {a} : {b}",
        "gt": f"({a} > {b}) ? {one} : {zero}",
        "ge": f"({a} >= {b}) ? {one} : {zero}",
        "select": f"({a} != {zero}) ? {b} : {names[-1]}",
        "shl": f"{a} <<< {shift}",
        "clamp": f"({a} < {b}) ? {b} : ({a} > {names[-1]}) ? {names[-1]} : {a}",
    }
    if op.kind == "rsr":
        assert isinstance(shift, int)
        return f"({a} + {literal(1 << (shift - 1), width)}) >>> {shift}"
    return forms[op.kind]
