"""The words of C99: types, literals, arrays and the operations of an integer program as expressions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from .artefact import LICENCE, NOTICE
from .program import Arg, IntOp


def banner(what: str) -> list[str]:
    return [f"/* {LICENCE}", f" * {what}", *(f" * {line}" for line in textwrap.wrap(NOTICE, 110)), " */"]


def storage(lo: int, hi: int) -> str:
    """The smallest signed type that holds ``lo`` to ``hi``."""
    return next(f"int{b}_t" for b in (8, 16, 32, 64) if -(1 << (b - 1)) <= lo and hi < 1 << (b - 1))


def literal(value: int) -> str:
    if value == -(1 << 31):
        return "(-2147483647 - 1)"
    if -(1 << 31) < value < 1 << 31:
        return str(value)
    return f"(-INT64_C({-value}))" if value < 0 else f"INT64_C({value})"


def operand(arg: Arg, local: Mapping[str, str]) -> str:
    return local[arg] if isinstance(arg, str) else literal(arg) if arg >= 0 else f"({literal(arg)})"


def width(op: IntOp) -> int:
    return 64 if op.work > 32 else 32


def expression(op: IntOp, local: Mapping[str, str]) -> str:
    """The operation in C, computed in 32 or 64 bits as its working width says."""
    wide = width(op) == 64
    args = [f"(int64_t){operand(a, local)}" if wide else operand(a, local) for a in op.args]
    narrow = "(int32_t)" if wide and op.bits <= 32 else ""
    a = args[0]
    if op.kind in ("add", "sub", "mul"):
        text = f"{a} {dict(add='+', sub='-', mul='*')[op.kind]} {args[1]}"
    elif op.kind == "neg":
        text = f"-({a})"
    elif op.kind == "abs":
        text = f"{a} < 0 ? -({a}) : {a}"
    elif op.kind in ("min", "max"):
        text = f"{a} {'<' if op.kind == 'min' else '>'} {args[1]} ? {a} : {args[1]}"
    elif op.kind in ("gt", "ge"):
        return f"{a} {'>' if op.kind == 'gt' else '>='} {args[1]} ? 1 : 0"
    elif op.kind == "select":
        text = f"{a} != 0 ? {args[1]} : {args[2]}"
    elif op.kind == "shl":
        factor = 1 << int(op.args[1])
        text = f"{a} * {literal(factor)}"
    elif op.kind == "rsr":
        shift = int(op.args[1])
        text = f"floor_shift_{width(op)}({a} + {literal(1 << (shift - 1))}, {shift})"
    elif op.kind == "clamp":
        text = f"clamp_{width(op)}({a}, {operand(op.args[1], local)}, {operand(op.args[2], local)})"
    else:
        raise AssertionError(op.kind)
    return f"{narrow}({text})" if narrow else text


def array(declaration: str, values: Iterable[int], suffix: str = "") -> list[str]:
    body = ", ".join(f"{literal(int(v)) if not suffix else int(v)}{suffix}" for v in values)
    return [f"{declaration} = {{", *textwrap.wrap(body, 116, initial_indent="    ", subsequent_indent="    "), "};", ""]
