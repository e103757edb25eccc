"""The step of a population in C: its integer program for every neuron, the readout, and the functions that it calls."""

from __future__ import annotations

from .c_names import CNames
from .c_text import expression, operand, storage, width
from .integer import IntegerNetwork, IntPopulation
from .names import identifiers
from .program import ACC


def arithmetic(inet: IntegerNetwork) -> list[str]:
    """The functions that operations call, only those that are used, so that nothing warns."""
    used = {(op.kind, width(op)) for p in inet.populations for op in p.program.ops}
    lines: list[str] = []
    for bits in (32, 64):
        wide = f"int{bits}_t"
        if ("rsr", bits) in used:
            lines += [
                "/* floor(x / 2^s), without shifting a negative number */",
                f"static {wide} floor_shift_{bits}({wide} x, int s)",
                "{",
                f"    return x < 0 ? ({wide})~((~x) >> s) : ({wide})(x >> s);",
                "}",
                "",
            ]
        if ("clamp", bits) in used:
            lines += [
                f"static {wide} clamp_{bits}({wide} x, {wide} lo, {wide} hi)",
                "{",
                "    return x < lo ? lo : x > hi ? hi : x;",
                "}",
                "",
            ]
    return lines


def update(c: CNames, p: IntPopulation) -> list[str]:
    """The function that takes what arrived and steps every neuron."""
    arrived, onward = [], []
    if p.depth > 1:
        ring, slot = f"state->{c.ring(p)}", f"state->{c.slot(p)}"
        arrived = [f"    {storage(*p.program.acc)} *arrived = {ring} + {slot} * {p.size};"]
        onward = [f"    {slot} = {slot} == {p.depth - 1} ? 0 : {slot} + 1;"]
    return [
        f"/* {p.name}: {p.model} */",
        f"static void update_{c.node[p.name]}({c.name}_state *state, {c.name}_out *out)",
        "{",
        "    int32_t i;",
        *arrived,
        f"    for (i = 0; i < {p.size}; ++i) {{",
        *(f"        {line}" for line in _neuron(c, p)),
        "    }",
        *onward,
        "}",
        "",
    ]


def _neuron(c: CNames, p: IntPopulation) -> list[str]:
    """The program of neuron ``i``."""
    program = p.program
    used = {a for op in program.ops for a in op.args} | {*program.next_state.values(), program.output}
    local = {ACC: ACC} | {t.name: f"{c.table(p, t.name)}[i]" for t in program.tables}
    lines = []
    if ACC in used:
        lines.append(f"const int32_t {ACC} = {'state->acc' if p.depth == 1 else 'arrived'}[i];")
    if p.depth > 1:
        lines.append("arrived[i] = 0;")
    for s in program.states:
        local[s.name] = c.local(p, s.name)
        if s.name in used:
            lines.append(f"const int32_t {local[s.name]} = state->{c.field(p, s.name)}[i];")
    values = identifiers([op.name for op in program.ops])
    for op in program.ops:
        local[op.name] = f"x_{values[op.name]}"
        kind = "int64_t" if op.bits > 32 else "int32_t"
        lines.append(f"const {kind} {local[op.name]} = {expression(op, local)};")
    for s in program.states:
        after = operand(program.next_state[s.name], local)
        lines.append(f"state->{c.field(p, s.name)}[i] = ({storage(s.lo, s.hi)}){after};")
    value = operand(program.output, local)
    lines.append(f"out->{c.node[p.name]}[i] = ({c.type_of(p.name)}){value};")
    return [*lines, _readout(c.inet.readout[1], value)] if p.name == c.inet.readout[0] else lines


def _readout(kind: str, value: str) -> str:
    if kind == "sum":
        return f"state->readout[i] += {value};"
    if kind == "max":
        return f"if ({value} > state->readout[i]) {{ state->readout[i] = {value}; }}"
    return f"state->readout[i] = {value};"
