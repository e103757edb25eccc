"""The integer program of a population as wires: from its accumulator, states and tables to its next states and its
output. Every operation has a width that holds its operands and its result.
"""

from __future__ import annotations

from .program import ACC, Arg, bits_of
from .verilog_plan import CorePlan, CoreUpdate
from .verilog_text import expression, literal


def neuron(plan: CorePlan, update: CoreUpdate) -> list[str]:
    """The wires, and of the population that is read out also the next readout."""
    i, p, program = update.number, update.p, update.p.program
    local = {ACC: f"arrived{i}_q" if update.ring else "acc_q"}
    local |= {s.name: f"s{i}_{j}_q" for j, s in enumerate(program.states)}
    local |= {t.name: f"t{i}_{j}_q" for j, t in enumerate(program.tables)}
    lines = [f"  // {p.name}: {p.model}"]
    for j, op in enumerate(program.ops):
        width = max(op.work, op.bits, *(bits_of(*program.interval(a)) for a in op.args))
        wire = f"x{i}_{j}"
        names = []
        for k, arg in enumerate(op.args):
            if isinstance(arg, str):
                lines.append(f"  wire signed [{width - 1}:0] {wire}_{k} = {local[arg]};")
                names.append(f"{wire}_{k}")
            else:
                names.append(literal(arg, width))
        lines.append(f"  wire signed [{width - 1}:0] {wire} = {expression(op, names, width)}; // {op.name}")
        local[op.name] = wire

    def value(arg: Arg, bits: int) -> str:
        return local[arg] if isinstance(arg, str) else literal(arg, bits)

    for j, s in enumerate(program.states):
        lines.append(f"  wire signed [{s.bits - 1}:0] n{i}_{j} = {value(program.next_state[s.name], s.bits)};")
    lines.append(f"  wire signed [31:0] o{i} = {value(program.output, 32)};")
    if p is plan.read:
        forms = {"sum": f"readout_q + o{i}", "max": f"(o{i} > readout_q) ? o{i} : readout_q", "last": f"o{i}"}
        lines.append(f"  wire signed [63:0] readout_next = {forms[plan.inet.readout[1]]};")
    return lines
