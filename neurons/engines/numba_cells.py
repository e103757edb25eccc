"""Printing one step of a cell, elementwise over its neurons, as numba functions: the step program, its derivative, and
what the backward pass restores before it. They are compiled without contraction, so that they round as torch does.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..derivative import OUTPUT_GRADIENT, Derivative, gradient_name
from ..program import Arg, Op, StepProgram, names_read

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def _operand(arg: Arg, literals: dict[float, str]) -> str:
    return f"x_{arg}" if isinstance(arg, str) else literals.setdefault(float(arg), f"L{len(literals)}")


def _statement(op: Op, literals: dict[float, str]) -> str:
    a = [_operand(arg, literals) for arg in op.args]
    zero, one = _operand(0.0, literals), _operand(1.0, literals)
    forms = {
        "neg": lambda: f"-{a[0]}",
        "abs": lambda: f"abs({a[0]})",
        # a NaN goes through, as in torch
        "min": lambda: f"({a[0]} if {a[0]} < {a[1]} or {a[0]} != {a[0]} else {a[1]})",
        "max": lambda: f"({a[0]} if {a[0]} > {a[1]} or {a[0]} != {a[0]} else {a[1]})",
        "exp": lambda: f"np.exp({a[0]})",
        "reciprocal": lambda: f"{one} / {a[0]}",
        "sqrt": lambda: f"np.sqrt({a[0]})",
        "gt": lambda: f"({one} if {a[0]} > {a[1]} else {zero})",
        "ge": lambda: f"({one} if {a[0]} >= {a[1]} else {zero})",
        "where": lambda: f"({a[1]} if {a[0]} != {zero} else {a[2]})",
        "fire": lambda: f"({one} if {a[0]} > {zero} else {zero})",
        "detach": lambda: a[0],
    }
    value = f"{a[0]} {_INFIX[op.kind]} {a[1]}" if op.kind in _INFIX else forms[op.kind]()
    return f"x_{op.name} = {value}"


def _loop(name: str, arrays: Iterable[str], body: Iterable[str]) -> str:
    # integer division by zero cannot happen here, and its check would keep the loop from being vectorised
    lines = ['@kernel(distinct=True, error_model="numpy")', f"def {name}(size, {', '.join(arrays)}):"]
    lines += ["    for n in range(size):"]
    return "\n".join([*lines, *(f"        {line}" for line in body)])


def cell_forward(i: int, program: StepProgram, saved: tuple[str, ...], literals: dict[float, str]) -> str:
    read = names_read((*program.next_state.values(), program.output, *saved), program.ops)
    body = ["x_current = current[n]"]
    body += [f"x_{s} = a_{s}[n]" for s in program.states if s in read]
    body += [f"x_{p} = p_{p}[n]" for p in program.params if p in read]
    body += [_statement(op, literals) for op in program.ops]
    body += [f"a_{s}[n] = {_operand(v, literals)}" for s, v in program.next_state.items()]
    body += [f"output[n] = {_operand(program.output, literals)}"]
    body += [f"s_{s}[n] = x_{s}" for s in saved]
    arrays = ["current", *(f"a_{s}" for s in program.states), "output", *(f"s_{s}" for s in saved)]
    return _loop(f"forward{i}", [*arrays, *(f"p_{p}" for p in program.params)], body)


def cell_backward(i: int, derivative: Derivative, sends: bool, literals: dict[float, str]) -> str:
    program = derivative.program
    results = derivative.gradients
    read = names_read(results.values(), derivative.ops)
    carried = [gradient_name(s) for s in program.states]
    rebuilt = sends and derivative.rebuilt
    body = [f"x_{s} = s_{s}[n]" for s in derivative.saved if s in read or s == program.output]
    body += [f"x_{s} = r_{s}[n]" for s in derivative.restored]
    body += [f"x_{p} = p_{p}[n]" for p in program.params if p in read]
    body += [f"x_{OUTPUT_GRADIENT} = {OUTPUT_GRADIENT}[n]"] if OUTPUT_GRADIENT in read else []
    body += [f"x_{c} = a_{c}[n]" for c in carried if c in read]
    body += [_statement(op, literals) for op in derivative.ops]
    body += [f"d_current[n] = {_operand(results['current'], literals)}"]
    body += [f"a_{gradient_name(s)}[n] = {_operand(results[s], literals)}" for s in program.states]
    body += [f"g_{p}[n] += {_operand(results[p], literals)}" for p in derivative.learned]
    body += [f"output[n] = {_operand(program.output, literals)}"] if rebuilt else []
    arrays = [OUTPUT_GRADIENT, *(f"a_{c}" for c in carried), "d_current", *(f"s_{s}" for s in derivative.saved)]
    arrays += [*(f"r_{s}" for s in derivative.restored), *(["output"] if rebuilt else [])]
    arrays += [f"g_{p}" for p in derivative.learned]
    return _loop(f"backward{i}", [*arrays, *(f"p_{p}" for p in program.params)], body)


def cell_restore(i: int, derivative: Derivative, literals: dict[float, str]) -> str:
    read = names_read(derivative.restore.values(), derivative.restore_ops)
    body = [f"x_{s} = s_{s}[n]" for s in derivative.saved if s in read]
    body += [f"x_{p} = p_{p}[n]" for p in derivative.program.params if p in read]
    body += [_statement(op, literals) for op in derivative.restore_ops]
    body += [f"r_{s}[n] = {_operand(v, literals)}" for s, v in derivative.restore.items()]
    arrays = [*(f"r_{s}" for s in derivative.restored), *(f"s_{s}" for s in derivative.saved)]
    return _loop(f"restore{i}", [*arrays, *(f"p_{p}" for p in derivative.program.params)], body)


def cell_gate(i: int, derivative: Derivative, literals: dict[float, str]) -> str:
    assert derivative.gate is not None
    read = names_read([derivative.gate], derivative.gate_ops)
    body = [f"x_{s} = s_{s}[n]" for s in derivative.saved if s in read]
    body += [f"x_{p} = p_{p}[n]" for p in derivative.program.params if p in read]
    body += [_statement(op, literals) for op in derivative.gate_ops]
    body += [f"gate[n] = {_operand(derivative.gate, literals)}"]
    arrays = ["gate", *(f"s_{s}" for s in derivative.saved), *(f"p_{p}" for p in derivative.program.params)]
    return _loop(f"gate{i}", arrays, body)
