"""Exporter to SystemVerilog: a plain time-multiplexed core that prints the integer network and decides nothing.

One synapse or one neuron is processed per clock. Rows of weights are read only for sources that fired (or have a count); weights, states,
tables and event lists are memories with a registered read, so that synthesis finds block RAM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .arrivals import IntConnection
from .artefact import contract, default_vectors, write_all
from .inputs import IntInput
from .integer import IntegerNetwork, IntPopulation
from .names import checked_name
from .program import ACC, Arg, IntOp, bits_of
from .verilog_testbench import banner, commands, testbench


def export_verilog(
    inet: IntegerNetwork, folder: str | Path, name: str, vectors: np.ndarray | Mapping[str, np.ndarray] | None = None
) -> list[Path]:
    """Write the core ``NAME.sv``, its memories ``NAME_*.hex``, the replaying testbench ``NAME_tb.sv``, ``NAME_stimuli.txt`` (``vectors``, a few
    random ones by default) and ``NAME_contract.txt``.

    Raises:
        ExportError: before any file is written.
    """
    printer = _Printer(inet, checked_name(name))
    stimuli = inet.stimuli(default_vectors(inet) if vectors is None else vectors)
    steps, batch = next(iter(stimuli.values())).shape[:2]
    files = {
        f"{name}.sv": printer.core(),
        f"{name}_tb.sv": testbench(inet, name),
        f"{name}_stimuli.txt": commands(inet, stimuli, np.full(batch, steps)),
        f"{name}_contract.txt": contract(inet),
    }
    return write_all(folder, files | printer.memories)


class _Printer:
    """Prints one integer network. Names in the core are numbers with a prefix, so that no user's name meets a keyword."""

    def __init__(self, inet: IntegerNetwork, name: str) -> None:
        self.inet, self.name = inet, name
        self.nodes = {n.name: i for i, n in enumerate((*inet.inputs, *inet.populations))}
        self.sizes = {n.name: n.size for n in (*inet.inputs, *inet.populations)}
        self.counts = {i.name for i in inet.inputs if not i.binary}
        self.ports = {i.name: i for i in inet.inputs}
        self.samples = any(i.samples for i in inet.inputs)
        signed = {p.name for p in inet.populations if p.program.signed}
        self.counts |= signed
        self.signed = self.samples or bool(signed)
        self.rings = [i for i, p in enumerate(inet.populations) if p.depth > 1]
        self.links = [(p, c) for p in inet.populations for c in p.connections]
        self.memories: dict[str, str] = {}
        # the micro-program of a step: ("link", number) and ("update", population), in the order of the populations
        self.steps: list[tuple[str, int]] = []
        number = 0
        for i, p in enumerate(inet.populations):
            for _ in p.connections:
                self.steps.append(("link", number))
                number += 1
            self.steps.append(("update", i))

    # -- memories -----------------------------------------------------------------------------------------------------

    def memory(self, tag: str, values: np.ndarray, bits: int) -> str:
        """Remember a hex file of ``values`` and return its name."""
        file = f"{self.name}_{tag}.hex"
        digits = (bits + 3) // 4
        self.memories[file] = "".join(f"{int(v) & ((1 << bits) - 1):0{digits}x}\n" for v in values)
        return file

    # -- the core -----------------------------------------------------------------------------------------------------

    def core(self) -> str:
        inet, name = self.inet, self.name
        longest = max(self.sizes.values())
        read = inet.population(inet.readout[0])
        d: list[str] = []  # declarations
        load: list[str] = []  # $readmemh
        for p, c in self.links:
            i = self.link_number(c.name)
            d.append(
                f"  reg signed [7:0] w{i} [0:{c.weights.size - 1}]; // {c.name}: one row of {p.size} targets per source"
            )
            d.append(f"  reg signed [7:0] w{i}_q;")
            load.append(f'    $readmemh("{self.memory(f"w{i}", c.weights.T.reshape(-1), 8)}", w{i});')
            for kind, steps in c.delays.items():
                if kind != "uniform" and p.depth > 1:
                    d.append(
                        f"  reg {bus(steps)} {kind[0]}{i} [0:{steps.size - 1}]; // {c.name}: {kind} delays in steps"
                    )
                    d.append(f"  reg {bus(steps)} {kind[0]}{i}_q;")
                    file = self.memory(f"{kind[0]}{i}", steps.T.reshape(-1), delay_bits(steps))
                    load.append(f'    $readmemh("{file}", {kind[0]}{i});')
        for node, i in self.nodes.items():
            n = self.sizes[node]
            d.append(
                f"  reg [15:0] list{i} [0:{2 * n - 1}]; // {node}: who fired, in two banks (this step, the step before)"
            )
            if node in self.counts:
                port = self.ports.get(node)
                d.append(f"  reg {value_bus(port)} count{i} [0:{2 * n - 1}];")
                if port is not None and any(port.shifts):
                    d.append(f"  reg [3:0] shift{i} [0:{n - 1}]; // what each channel is shifted by as it enters")
                    load.append(f'    $readmemh("{self.memory(f"shift{i}", np.array(port.shifts), 4)}", shift{i});')
            d.append(f"  reg [15:0] fired{i}_0, fired{i}_1;")
        for i, p in enumerate(inet.populations):
            if p.depth == 1:
                d.append(f"  reg signed [31:0] acc{i} [0:{p.size - 1}]; // {p.name}")
            else:
                bits = bits_of(*p.program.acc)
                d.append(
                    f"  reg signed [{bits - 1}:0] acc{i} [0:{p.depth * p.size - 1}]; // {p.name}: a ring of {p.depth} slots"
                )
                d.append(f"  reg [{(p.depth - 1).bit_length() - 1}:0] slot{i}; // this step's")
                d.append(f"  reg signed [{bits - 1}:0] arrived{i}_q;")
            for j, s in enumerate(p.program.states):
                d.append(
                    f"  reg signed [{s.bits - 1}:0] s{i}_{j} [0:{p.size - 1}]; // {p.name}.{s.name}, real value times 2^{s.frac}"
                )
                d.append(f"  reg signed [{s.bits - 1}:0] s{i}_{j}_q;")
                if len(set(p.start(s.name).tolist())) > 1:
                    d.append(f"  reg signed [{s.bits - 1}:0] start{i}_{j} [0:{p.size - 1}];")
                    load.append(
                        f'    $readmemh("{self.memory(f"start{i}_{j}", p.start(s.name), s.bits)}", start{i}_{j});'
                    )
            for j, t in enumerate(p.program.tables):
                d.append(f"  reg signed [{t.bits - 1}:0] t{i}_{j} [0:{p.size - 1}]; // {t.name}")
                d.append(f"  reg signed [{t.bits - 1}:0] t{i}_{j}_q;")
                load.append(f'    $readmemh("{self.memory(f"t{i}_{j}", p.table(t.name), t.bits)}", t{i}_{j});')
        d.append(f"  reg signed [63:0] readout [0:{read.size - 1}];")
        d.append("  reg signed [63:0] readout_q, best;")
        factor = "times" if self.signed else "$signed({1'b0, times})"
        body = [line for i, p in enumerate(inet.populations) for line in self.program(i, p)]
        return "\n".join(
            [
                *banner(f"{name}: a spiking network as a time-multiplexed core. How it computes: {name}_contract.txt."),
                f"module {name} (",
                "  input  wire        clk,",
                "  input  wire        rst,        // synchronous",
                "  input  wire        clear,      // forget everything, as before the first step; taken between steps",
                "  input  wire        in_valid,   // an input event, or with in_last the end of a step",
                "  output wire        in_ready,",
                "  input  wire        in_last,",
                "  input  wire [7:0]  in_port,",
                "  input  wire [15:0] in_channel, // each channel at most once in a step",
                "  input  wire signed [15:0] in_value," if self.samples else "  input  wire [7:0]  in_value,",
                "  output reg         out_valid,  // an output other than 0, or with out_last the end of a step",
                "  input  wire        out_ready,",
                "  output reg         out_last,",
                "  output reg  [7:0]  out_population,",
                "  output reg  [15:0] out_index,",
                "  output reg  signed [31:0] out_value,",
                "  output reg         done,       // for one clock when a step has ended",
                "  output reg  [15:0] class_index // of the largest readout so far, the lowest of equals; valid from done on",
                ");",
                "  localparam INIT = 0, IN = 1, NEXT = 2, ROW = 3, ROW2 = 4, MAC = 5, READ = 6, EXEC = 7, SEND = 8, END = 9;",
                "  reg [3:0] state;",
                f"  reg [{max(1, (len(self.steps)).bit_length()) - 1}:0] pc;",
                "  reg bank;",
                "  reg [15:0] i, event_number, source;",
                f"  reg signed [{self.times_bits() - 1}:0] times;" if self.signed else "  reg [7:0] times;",
                "  reg mac_valid;",
                "  reg [15:0] mac_i;",
                "  reg [31:0] address;",
                "  reg signed [31:0] acc_q;",
                *d,
                *self.micro(),
                "  reg signed [7:0] weight_q;",
                "  always @* case (pc)",
                *(f"    {k}: weight_q = w{n}_q;" for k, (kind, n) in enumerate(self.steps) if kind == "link"),
                "    default: weight_q = 8'sd0;",
                "  endcase",
                f"  wire signed [31:0] sum = acc_q + weight_q * {factor};",
                *self.arrival(),
                *body,
                "  assign in_ready = state == IN && !clear;",
                *(["  initial begin", *load, "  end"] if load else []),
                "  always @(posedge clk) begin",
                "    done <= 1'b0;",
                "    mac_valid <= 1'b0;",
                *(
                    [
                        "    late_valid <= 1'b0; ring_valid <= late_valid;",
                        f"    ring_q <= at; product_q <= weight_q * {factor};",
                    ]
                    if self.rings
                    else []
                ),
                "    if (rst) begin",
                "      state <= INIT; i <= 16'd0; address <= 32'd0; out_valid <= 1'b0; out_last <= 1'b0; bank <= 1'b0; class_index <= 16'd0; pc <= 0;",
                "      out_population <= 8'd0; out_index <= 16'd0; out_value <= 32'sd0;",
                "    end else case (state)",
                *(f"      {line}" for line in self.machine(longest)),
                "    endcase",
                "    if (mac_valid) case (pc)",
                *(
                    f"      {k}: acc{self.population_number(self.links[n][0].name)}[mac_i] <= sum;"
                    for k, (kind, n) in enumerate(self.steps)
                    if kind == "link" and not self.late(n)
                ),
                "      default: ;",
                "    endcase",
                "  end",
                "endmodule",
                "",
            ]
        )

    def times_bits(self) -> int:
        """Width of what a weight is multiplied with, where some are negative: a value, shifted, with its sign."""
        return max(value_bits(self.ports.get(c.source)) + c.shift for _, c in self.links)

    def times(self, c: IntConnection, at: str) -> str:
        """What a weight of ``c`` is multiplied with: the value of the source's event ``at``, or 1."""
        if not self.signed:
            return f"count{self.nodes[c.source]}[{at}]" if c.source in self.counts else "8'd1"
        if c.source not in self.counts:
            return literal(1 << c.shift, self.times_bits())
        value = f"count{self.nodes[c.source]}[{at}]"
        value = value if c.source not in self.ports or self.ports[c.source].samples else f"$signed({{1'b0, {value}}})"
        return f"{value} <<< {c.shift}" if c.shift else value

    def late(self, link: int) -> bool:
        """Whether a connection goes into a ring."""
        return self.links[link][0].depth > 1

    def arrival(self) -> list[str]:
        """The rings. A synapse that was read a clock ago arrives that many slots after this step's: its accumulator is
        read now and written a clock later. Each ring has one reader and one writer, as a block RAM has.
        """
        if not self.rings:
            return []
        rings = [self.inet.populations[i] for i in self.rings]
        sum_bits = max((2 * p.depth).bit_length() for p in rings)
        bits = max((p.depth * p.size).bit_length() for p in rings)
        lines = ["  reg late_valid, ring_valid;", "  reg signed [31:0] product_q;"]
        lines += [f"  reg [{sum_bits - 1}:0] slot;", f"  reg [{bits - 1}:0] ring_q, at;"]
        lines += ["  always @* begin", "    slot = 0; at = 0;", "    case (pc)"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "link" and self.late(n):
                p, c = self.links[n]
                terms = [f"slot{self.population_number(p.name)}"]
                for name, steps in c.delays.items():
                    terms.append(f"32'd{int(steps[0])}" if name == "uniform" else f"{name[0]}{n}_q")
                wrapped = f"((slot < 32'd{p.depth}) ? slot : slot - 32'd{p.depth})" if c.reach else "slot"
                lines.append(f"      {k}: begin slot = {' + '.join(terms)}; at = {wrapped} * 32'd{p.size} + mac_i; end")
        lines += ["      default: ;", "    endcase", "  end"]
        for i in self.rings:
            p = self.inet.populations[i]
            own = [k for k, (kind, n) in enumerate(self.steps) if kind == "link" and self.links[n][0] is p]
            lines += [
                f"  wire [{bits - 1}:0] base{i} = slot{i} * 32'd{p.size};",
                f"  wire arrives{i} = ring_valid && ({' || '.join(f'pc == {k}' for k in own)});",
                f"  wire write{i} = (state == INIT) ? address < 32'd{p.depth * p.size}"
                f" : arrives{i} || (state == EXEC && pc == {self.steps.index(('update', i))});",
                f"  wire [{bits - 1}:0] to{i} = (state == INIT) ? address : arrives{i} ? ring_q : base{i} + i;",
                f"  wire [{bits - 1}:0] from{i} = late_valid ? at : base{i} + i;",
                "  always @(posedge clk) begin",
                f"    if (write{i}) acc{i}[to{i}] <= (state != INIT && arrives{i}) ? arrived{i}_q + product_q : 0;",
                f"    arrived{i}_q <= acc{i}[from{i}];",
                "  end",
            ]
        return lines

    def link_number(self, key: str) -> int:
        return next(i for i, (_, c) in enumerate(self.links) if c.name == key)

    def population_number(self, name: str) -> int:
        return next(i for i, p in enumerate(self.inet.populations) if p.name == name)

    def micro(self) -> list[str]:
        """What the instruction at ``pc`` is: how many targets it has, how many events its source sent, and its kind."""
        lines = ["  reg [15:0] targets, events;", "  reg is_link, is_end;", "  always @* begin"]
        lines += ["    targets = 16'd0; events = 16'd0; is_link = 1'b0; is_end = 1'b0;", "    case (pc)"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "link":
                p, c = self.links[n]
                node = self.nodes[c.source]
                now = "bank" if not c.delay else "!bank"
                lines.append(
                    f"      {k}: begin is_link = 1'b1; targets = 16'd{p.size}; events = ({now}) ? fired{node}_1 : fired{node}_0; end"
                )
            else:
                lines.append(f"      {k}: targets = 16'd{self.inet.populations[n].size};")
        return [*lines, "      default: is_end = 1'b1;", "    endcase", "  end"]

    def program(self, i: int, p: IntPopulation) -> list[str]:
        """The integer program as wires: every operation in a width that holds its operands and its result."""
        program = p.program
        local = {ACC: f"arrived{i}_q" if i in self.rings else "acc_q"} | {
            s.name: f"s{i}_{j}_q" for j, s in enumerate(program.states)
        }
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
        if p.name == self.inet.readout[0]:
            after = {"sum": f"readout_q + o{i}", "max": f"(o{i} > readout_q) ? o{i} : readout_q", "last": f"o{i}"}[
                self.inet.readout[1]
            ]
            lines.append(f"  wire signed [63:0] readout_next = {after};")
        return lines

    def machine(self, longest: int) -> list[str]:
        """The states of the machine, as cases."""
        inet = self.inet
        read = inet.population(inet.readout[0])
        lines = ["INIT: begin"]
        for i in self.rings:
            lines.append(f"  slot{i} <= 0;")
        for i, p in enumerate(inet.populations):
            lines.append(f"  if (i < 16'd{p.size}) begin")
            if i not in self.rings:
                lines.append(f"    acc{i}[i] <= 32'sd0;")
            for j, s in enumerate(p.program.states):
                start = p.start(s.name)
                same = len(set(start.tolist())) == 1
                lines.append(f"    s{i}_{j}[i] <= {literal(int(start[0]), s.bits) if same else f'start{i}_{j}[i]'};")
            if p.name == read.name:
                lines.append(f"    readout[i] <= {literal(int(inet.readout_start()[0]), 64)};")
            lines.append("  end")
        lines += [f"  fired{n}_0 <= 16'd0; fired{n}_1 <= 16'd0;" for n in self.nodes.values()]
        first = "address <= 32'd0; " if self.rings else ""
        if self.rings:  # whose memories are the longest, and may have more than 65535 words
            longest = max(longest, *(inet.populations[i].depth * inet.populations[i].size for i in self.rings))
            lines += [
                "  address <= address + 32'd1;",
                f"  if (address == 32'd{longest - 1}) begin state <= IN; i <= 16'd0; end",
            ]
            lines += ["  else if (i != 16'hffff) i <= i + 16'd1;", "end"]
        else:
            lines += [f"  if (i == 16'd{longest - 1}) begin state <= IN; i <= 16'd0; end else i <= i + 16'd1;", "end"]
        lines += [
            f"IN: if (clear) begin state <= INIT; i <= 16'd0; {first}class_index <= 16'd0; end else if (in_valid) begin"
        ]
        lines += ["  if (in_last) begin pc <= 0; state <= NEXT; end else case (in_port)"]
        for k, port in enumerate(inet.inputs):
            value = f"in_value <<< shift{self.nodes[port.name]}[in_channel]" if any(port.shifts) else "in_value"
            lines.append(
                f"    {k}: if (in_value != {16 if self.samples else 8}'d0 && in_channel < 16'd{port.size}) begin"
            )
            lines += self.push(port.name, "in_channel", value, "      ")
            lines.append("    end")
        lines += ["    default: ;", "  endcase", "end"]
        lines += ["NEXT: begin", "  i <= 16'd0; event_number <= 16'd0;"]
        lines += [
            "  if (is_end) state <= END; else if (is_link) state <= (events == 16'd0) ? NEXT : ROW; else state <= READ;"
        ]
        lines += ["  if (is_link && events == 16'd0) pc <= pc + 1'b1;", "end"]
        lines += ["ROW: begin", "  state <= ROW2;", "  case (pc)"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "link":
                c = self.links[n][1]
                node, size = self.nodes[c.source], self.sizes[c.source]
                at = f"event_number + (({'!' if c.delay else ''}bank) ? 16'd{size} : 16'd0)"
                times = self.times(c, at)
                lines.append(f"    {k}: begin source <= list{node}[{at}]; times <= {times}; end")
        lines += ["    default: ;", "  endcase", "end"]
        lines += ["ROW2: begin address <= source * targets; i <= 16'd0; state <= MAC;"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "link" and self.late(n) and "axonal" in self.links[n][1].delays:
                lines.append(f"  if (pc == {k}) a{n}_q <= a{n}[source];")
        lines += ["end", "MAC: begin", "  mac_i <= i;", "  case (pc)"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "link" and self.late(n):
                delays = self.links[n][1].delays
                reads = [f"w{n}_q <= w{n}[address];", "late_valid <= 1'b1;"]
                reads += [f"d{n}_q <= d{n}[i];"] if "dendritic" in delays else []
                reads += [f"s{n}_q <= s{n}[address];"] if "synaptic" in delays else []
                lines.append(f"    {k}: begin {' '.join(reads)} end")
            elif kind == "link":
                lines.append(
                    f"    {k}: begin w{n}_q <= w{n}[address]; acc_q <= acc{self.population_number(self.links[n][0].name)}[i]; mac_valid <= 1'b1; end"
                )
        lines += ["    default: ;", "  endcase", "  address <= address + 32'd1;"]
        lines += ["  if (i == targets - 16'd1) begin", "    i <= 16'd0; event_number <= event_number + 16'd1;"]
        # ROW and ROW2 (or SEND's drain below) leave time for the last sum to be written before it is read again
        lines += ["    state <= (event_number == events - 16'd1) ? SEND : ROW;", "  end else i <= i + 16'd1;", "end"]
        lines += ["READ: begin", "  state <= EXEC;", "  case (pc)"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "update":
                p = inet.populations[n]
                reads = [] if n in self.rings else [f"acc_q <= acc{n}[i];"]
                reads += [f"s{n}_{j}_q <= s{n}_{j}[i];" for j in range(len(p.program.states))]
                reads += [f"t{n}_{j}_q <= t{n}_{j}[i];" for j in range(len(p.program.tables))]
                reads += ["readout_q <= readout[i];"] if p.name == read.name else []
                lines.append(f"    {k}: begin {' '.join(reads)} end")
        lines += ["    default: ;", "  endcase", "end"]
        lines += ["EXEC: begin", "  state <= SEND; out_index <= i; out_last <= 1'b0;", "  case (pc)"]
        for k, (kind, n) in enumerate(self.steps):
            if kind == "update":
                p = inet.populations[n]
                lines.append(f"    {k}: begin")
                if n not in self.rings:
                    lines.append(f"      acc{n}[i] <= 32'sd0;")
                lines += [f"      s{n}_{j}[i] <= n{n}_{j};" for j in range(len(p.program.states))]
                lines.append(f"      out_population <= 8'd{n}; out_value <= o{n}; out_valid <= o{n} != 32'sd0;")
                if p.program.spikes:
                    lines.append(f"      if (o{n} != 32'sd0) begin")
                    lines += self.push(p.name, "i", f"o{n}" if p.program.signed else None, "        ")
                    lines.append("      end")
                if p.name == read.name:
                    lines.append("      readout[i] <= readout_next;")
                    lines.append(
                        "      if (i == 16'd0 || readout_next > best) begin best <= readout_next; class_index <= i; end"
                    )
                lines.append("    end")
        lines += ["    default: ;", "  endcase", "end"]
        lines += [
            "SEND: if (is_link) begin",
            f"  {'if (!late_valid) begin ' if self.rings else ''}pc <= pc + 1'b1; state <= NEXT;{' end' if self.rings else ''}",
            "end else if (!out_valid || out_ready) begin",
        ]
        lines += ["  out_valid <= 1'b0;", "  if (i == targets - 16'd1) begin pc <= pc + 1'b1; state <= NEXT; end"]
        lines += ["  else begin i <= i + 16'd1; state <= READ; end", "end"]
        lines += [
            "END: if (out_valid && out_ready) begin",
            "  out_valid <= 1'b0; out_last <= 1'b0; done <= 1'b1; state <= IN; bank <= !bank;",
        ]
        lines += [f"  if (bank) fired{n}_0 <= 16'd0; else fired{n}_1 <= 16'd0;" for n in self.nodes.values()]
        for i in self.rings:
            last = inet.populations[i].depth - 1
            lines.append(f"  slot{i} <= (slot{i} == {last}) ? 0 : slot{i} + 1'b1;")
        lines += ["end else begin out_valid <= 1'b1; out_last <= 1'b1; end", "default: state <= INIT;"]
        return lines

    def push(self, node: str, index: str, value: str | None, pad: str) -> list[str]:
        """Append to a node's event list in this step's bank."""
        n, size = self.nodes[node], self.sizes[node]
        lines = []
        for bank, offset in ((0, "16'd0"), (1, f"16'd{size}")):
            store = f"list{n}[fired{n}_{bank} + {offset}] <= {index}; "
            if value is not None and node in self.counts:
                store += f"count{n}[fired{n}_{bank} + {offset}] <= {value}; "
            lines.append(
                f"{pad}if ({'bank' if bank else '!bank'} && fired{n}_{bank} < 16'd{size}) begin {store}fired{n}_{bank} <= fired{n}_{bank} + 16'd1; end"
            )
        return lines


def literal(value: int, bits: int) -> str:
    """A signed literal; negative numbers as their two's complement, since -2^(bits-1) has no positive counterpart."""
    return f"{bits}'sh{value & ((1 << bits) - 1):x}"


def value_bits(port: IntInput | None) -> int:
    """Width of a source's value as a signed number."""
    if port is None or port.binary:
        return 2
    return 16 + max(port.shifts) if port.samples else 9


def value_bus(port: IntInput | None) -> str:
    """The memory of the values of a port or (None) of signed spikes, as a range of bits."""
    return f"signed [{value_bits(port) - 1}:0]" if port is None or port.samples else "[7:0]"


def delay_bits(steps: np.ndarray) -> int:
    return max(1, int(steps.max()).bit_length())


def bus(steps: np.ndarray) -> str:
    """The width of delays, as a range of bits."""
    return f"[{delay_bits(steps) - 1}:0]"


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
