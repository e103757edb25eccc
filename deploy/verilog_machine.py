"""The machine that runs a step in the core, one synapse or one neuron a clock. ``INIT`` fills the memories, ``IN`` takes
input events. Then for each instruction ``NEXT`` says what it is: ``ROW``, ``ROW2`` and ``MAC`` go through the events of a
connection and the targets of each; ``READ``, ``EXEC`` and ``SEND`` through the neurons of a population; ``END`` ends the
step.
"""

from __future__ import annotations

from .verilog_plan import CorePlan
from .verilog_text import literal

STATES = ("INIT", "IN", "NEXT", "ROW", "ROW2", "MAC", "READ", "EXEC", "SEND", "END")


def machine(plan: CorePlan) -> list[str]:
    """The states as cases."""
    return [
        *_init(plan),
        *_in(plan),
        *_next(),
        *_row(plan),
        *_mac(plan),
        *_read(plan),
        *_exec(plan),
        *_send(plan),
        *_end(plan),
        "default: state <= INIT;",
    ]


def _init(plan: CorePlan) -> list[str]:
    lines = ["INIT: begin", *(f"  slot{u.number} <= 0;" for u in plan.rings)]
    for u in plan.updates:
        i, p = u.number, u.p
        lines.append(f"  if (i < 16'd{p.size}) begin")
        lines += [] if u.ring else [f"    acc{i}[i] <= 32'sd0;"]
        for j, s in enumerate(p.program.states):
            start = literal(int(p.start(s.name)[0]), s.bits) if p.starts_alike(s.name) else f"start{i}_{j}[i]"
            lines.append(f"    s{i}_{j}[i] <= {start};")
        if p is plan.read:
            lines.append(f"    readout[i] <= {literal(int(plan.inet.readout_start()[0]), 64)};")
        lines.append("  end")
    lines += [f"  fired{n}_0 <= 16'd0; fired{n}_1 <= 16'd0;" for n in plan.nodes.values()]
    longest = max(plan.sizes.values())
    if not plan.rings:
        return [
            *lines,
            f"  if (i == 16'd{longest - 1}) begin state <= IN; i <= 16'd0; end else i <= i + 16'd1;",
            "end",
        ]
    # the rings are the longest memories, and may have more than 65535 words
    longest = max(longest, *(u.p.depth * u.p.size for u in plan.rings))
    return [
        *lines,
        "  address <= address + 32'd1;",
        f"  if (address == 32'd{longest - 1}) begin state <= IN; i <= 16'd0; end",
        "  else if (i != 16'hffff) i <= i + 16'd1;",
        "end",
    ]


def _in(plan: CorePlan) -> list[str]:
    first = "address <= 32'd0; " if plan.rings else ""
    lines = [
        f"IN: if (clear) begin state <= INIT; i <= 16'd0; {first}class_index <= 16'd0; end else if (in_valid) begin",
        "  if (in_last) begin pc <= 0; state <= NEXT; end else case (in_port)",
    ]
    for k, port in enumerate(plan.inet.inputs):
        value = f"in_value <<< shift{plan.nodes[port.name]}[in_channel]" if any(port.shifts) else "in_value"
        bits = 16 if plan.samples else 8
        lines += [
            f"    {k}: if (in_value != {bits}'d0 && in_channel < 16'd{port.size}) begin",
            *(f"      {line}" for line in _push(plan, port.name, "in_channel", value)),
            "    end",
        ]
    return [*lines, "    default: ;", "  endcase", "end"]


def _next() -> list[str]:
    return [
        "NEXT: begin",
        "  i <= 16'd0; event_number <= 16'd0;",
        "  if (is_end) state <= END; else if (is_link) state <= (events == 16'd0) ? NEXT : ROW; else state <= READ;",
        "  if (is_link && events == 16'd0) pc <= pc + 1'b1;",
        "end",
    ]


def _row(plan: CorePlan) -> list[str]:
    """The next event and what its weights are multiplied with, then where its row begins."""
    lines = ["ROW: begin", "  state <= ROW2;", "  case (pc)"]
    for link in plan.links:
        at = f"event_number + (({link.bank}) ? 16'd{link.room} : 16'd0)"
        times = plan.times(link, at)
        lines.append(f"    {link.pc}: begin source <= list{link.node}[{at}]; times <= {times}; end")
    lines += ["    default: ;", "  endcase", "end"]
    lines += ["ROW2: begin address <= source * targets; i <= 16'd0; state <= MAC;"]
    for link in plan.links:
        if link.late and "axonal" in link.c.delays:
            lines.append(f"  if (pc == {link.pc}) a{link.number}_q <= a{link.number}[source];")
    return [*lines, "end"]


def _mac(plan: CorePlan) -> list[str]:
    """Reads a weight and what it is added to; the sum is written a clock later."""
    lines = ["MAC: begin", "  mac_i <= i;", "  case (pc)"]
    for link in plan.links:
        n = link.number
        reads = [f"w{n}_q <= w{n}[address];"]
        if link.late:
            reads += ["late_valid <= 1'b1;"]
            reads += [f"d{n}_q <= d{n}[i];"] if "dendritic" in link.c.delays else []
            reads += [f"s{n}_q <= s{n}[address];"] if "synaptic" in link.c.delays else []
        else:
            reads += [f"acc_q <= acc{link.into}[i];", "mac_valid <= 1'b1;"]
        lines.append(f"    {link.pc}: begin {' '.join(reads)} end")
    return [
        *lines,
        "    default: ;",
        "  endcase",
        "  address <= address + 32'd1;",
        "  if (i == targets - 16'd1) begin",
        "    i <= 16'd0; event_number <= event_number + 16'd1;",
        # ROW and ROW2 (or SEND's drain below) leave time for the last sum to be written before it is read again
        "    state <= (event_number == events - 16'd1) ? SEND : ROW;",
        "  end else i <= i + 16'd1;",
        "end",
    ]


def sums(plan: CorePlan) -> list[str]:
    """What MAC read a clock ago, written; rings are written by themselves."""
    return [f"{link.pc}: acc{link.into}[mac_i] <= sum;" for link in plan.links if not link.late]


def _read(plan: CorePlan) -> list[str]:
    lines = ["READ: begin", "  state <= EXEC;", "  case (pc)"]
    for u in plan.updates:
        n, program = u.number, u.p.program
        reads = [] if u.ring else [f"acc_q <= acc{n}[i];"]
        reads += [f"s{n}_{j}_q <= s{n}_{j}[i];" for j in range(len(program.states))]
        reads += [f"t{n}_{j}_q <= t{n}_{j}[i];" for j in range(len(program.tables))]
        reads += ["readout_q <= readout[i];"] if u.p is plan.read else []
        lines.append(f"    {u.pc}: begin {' '.join(reads)} end")
    return [*lines, "    default: ;", "  endcase", "end"]


def _exec(plan: CorePlan) -> list[str]:
    lines = ["EXEC: begin", "  state <= SEND; out_index <= i; out_last <= 1'b0;", "  case (pc)"]
    for u in plan.updates:
        n, program = u.number, u.p.program
        lines.append(f"    {u.pc}: begin")
        lines += [] if u.ring else [f"      acc{n}[i] <= 32'sd0;"]
        lines += [f"      s{n}_{j}[i] <= n{n}_{j};" for j in range(len(program.states))]
        lines.append(f"      out_population <= 8'd{n}; out_value <= o{n}; out_valid <= o{n} != 32'sd0;")
        if program.spikes:
            pushed = _push(plan, u.p.name, "i", f"o{n}")
            lines += [f"      if (o{n} != 32'sd0) begin", *(f"        {line}" for line in pushed), "      end"]
        if u.p is plan.read:
            lines += [
                "      readout[i] <= readout_next;",
                "      if (i == 16'd0 || readout_next > best) begin best <= readout_next; class_index <= i; end",
            ]
        lines.append("    end")
    return [*lines, "    default: ;", "  endcase", "end"]


def _send(plan: CorePlan) -> list[str]:
    """Ends a connection once nothing is on its way into a ring; else hands out what a neuron sends."""
    onward = "pc <= pc + 1'b1; state <= NEXT;"
    return [
        "SEND: if (is_link) begin",
        f"  if (!late_valid) begin {onward} end" if plan.rings else f"  {onward}",
        "end else if (!out_valid || out_ready) begin",
        "  out_valid <= 1'b0;",
        f"  if (i == targets - 16'd1) begin {onward} end",
        "  else begin i <= i + 16'd1; state <= READ; end",
        "end",
    ]


def _end(plan: CorePlan) -> list[str]:
    lines = [
        "END: if (out_valid && out_ready) begin",
        "  out_valid <= 1'b0; out_last <= 1'b0; done <= 1'b1; state <= IN; bank <= !bank;",
    ]
    lines += [f"  if (bank) fired{n}_0 <= 16'd0; else fired{n}_1 <= 16'd0;" for n in plan.nodes.values()]
    for u in plan.rings:
        lines.append(f"  slot{u.number} <= (slot{u.number} == {u.p.depth - 1}) ? 0 : slot{u.number} + 1'b1;")
    return [*lines, "end else begin out_valid <= 1'b1; out_last <= 1'b1; end"]


def _push(plan: CorePlan, node: str, index: str, value: str) -> list[str]:
    """Append to a node's event list in this step's bank, with its value where it sends more than 0 and 1."""
    n, size = plan.nodes[node], plan.sizes[node]
    lines = []
    for bank, offset in ((0, "16'd0"), (1, f"16'd{size}")):
        store = f"list{n}[fired{n}_{bank} + {offset}] <= {index}; "
        if node in plan.valued:
            store += f"count{n}[fired{n}_{bank} + {offset}] <= {value}; "
        lines.append(
            f"if ({'bank' if bank else '!bank'} && fired{n}_{bank} < 16'd{size}) begin {store}fired{n}_{bank} <= fired{n}_{bank} + 16'd1; end"
        )
    return lines
