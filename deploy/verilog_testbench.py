"""What runs an exported core: a testbench that replays a stimulus file, and that file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .integer import IntegerNetwork
from .verilog_text import banner

EVENT, STEP, DUMP, CLEAR, FINISH = range(5)
"""Commands of the testbench's stimulus file: an input event, the end of a step, print the states, clear, stop."""


def commands(inet: IntegerNetwork, stimuli: Mapping[str, np.ndarray], ends: np.ndarray) -> str:
    """The testbench's stimulus file for samples [T, B, N] of ``ends`` [B] steps: one command a line, ``kind port channel value``."""
    lines: list[str] = []
    for b, end in enumerate(ends):
        lines.append(f"{CLEAR} 0 0 0")
        for k in range(int(end)):
            for number, port in enumerate(inet.inputs):
                row = stimuli[port.name][k, b]
                lines += [f"{EVENT} {number} {c} {row[c]}" for c in np.flatnonzero(row)]
            lines.append(f"{STEP} 0 0 0")
        lines.append(f"{DUMP} 0 0 0")
    return "\n".join([*lines, f"{FINISH} 0 0 0", ""])


def testbench(inet: IntegerNetwork, name: str) -> str:
    """``NAME_tb.sv``: replays a stimulus file and prints every output, and at the end of a sample class, readouts and states."""
    dump = ['        $fwrite(out, "C %0d\\n", class_index);']
    value = "signed [15:0]" if any(i.samples for i in inet.inputs) else "[7:0]"
    read = inet.population(inet.readout[0])
    dump.append(f'        for (k = 0; k < {read.size}; k = k + 1) $fwrite(out, "R %0d\\n", dut.readout[k]);')
    for i, p in enumerate(inet.populations):
        for j in range(len(p.program.states)):
            dump.append(f'        for (k = 0; k < {p.size}; k = k + 1) $fwrite(out, "S %0d\\n", dut.s{i}_{j}[k]);')
    return "\n".join(
        [
            *banner(
                f"Testbench of {name}: +stimuli=FILE +outputs=FILE replays one into the other; +stall makes the reader slow."
            ),
            f"module {name}_tb;",
            "  reg clk = 1'b0, rst = 1'b1, clear = 1'b0, in_valid = 1'b0, in_last = 1'b0, out_ready = 1'b1;",
            "  reg [7:0] in_port = 8'd0;",
            f"  reg {value} in_value = 0;",
            "  reg [15:0] in_channel = 16'd0;",
            "  wire in_ready, out_valid, out_last, done;",
            "  wire [7:0] out_population;",
            "  wire [15:0] out_index, class_index;",
            "  wire signed [31:0] out_value;",
            "  reg [15:0] noise = 16'hace1;",
            "  reg stall = 1'b0;",
            "  reg [64:0] clocks = 65'd0;",
            "  reg [8*1024-1:0] path;",
            "  integer stimuli, out, got, kind, port, channel, value, k;",
            f"  {name} dut (.clk(clk), .rst(rst), .clear(clear), .in_valid(in_valid), .in_ready(in_ready), .in_last(in_last),",
            "    .in_port(in_port), .in_channel(in_channel), .in_value(in_value), .out_valid(out_valid), .out_ready(out_ready),",
            "    .out_last(out_last), .out_population(out_population), .out_index(out_index), .out_value(out_value), .done(done),",
            "    .class_index(class_index));",
            "  always #1 clk = ~clk;",
            "  always @(negedge clk) begin",
            "    noise <= {noise[14:0], noise[15] ^ noise[13] ^ noise[12] ^ noise[10]};",
            "    out_ready <= !stall || noise[0];",
            "    clocks <= clocks + 65'd1;",
            "  end",
            "  always @(posedge clk) if (!rst && out_valid && out_ready) begin",
            '    if (out_last) $fwrite(out, "E\\n"); else $fwrite(out, "O %0d %0d %0d\\n", out_population, out_index, out_value);',
            "  end",
            "  initial begin",
            '    if (!$value$plusargs("stimuli=%s", path)) begin $display("+stimuli=FILE is missing"); $finish; end',
            '    stimuli = $fopen(path, "r");',
            '    if (!$value$plusargs("outputs=%s", path)) begin $display("+outputs=FILE is missing"); $finish; end',
            '    out = $fopen(path, "w");',
            '    stall = $test$plusargs("stall") != 0;',
            "    repeat (3) @(negedge clk);",
            "    rst = 1'b0;",
            "    kind = 0;",
            f"    while (kind != {FINISH}) begin",
            '      got = $fscanf(stimuli, "%d %d %d %d", kind, port, channel, value);',
            f"      if (got != 4) kind = {FINISH};",
            f"      if (kind == {EVENT} || kind == {STEP}) begin",
            f"        in_last = kind == {STEP}; in_port = port[7:0]; in_channel = channel[15:0]; in_value = value{value.split()[-1]}; in_valid = 1'b1;",
            "        while (in_ready !== 1'b1) @(negedge clk);",
            "        @(negedge clk);",
            "        in_valid = 1'b0; in_last = 1'b0;",
            f"        if (kind == {STEP}) while (done !== 1'b1) @(negedge clk);",
            f"      end else if (kind == {CLEAR}) begin",
            "        while (in_ready !== 1'b1) @(negedge clk);",
            "        clear = 1'b1;",
            "        @(negedge clk);",
            "        clear = 1'b0;",
            f"      end else if (kind == {DUMP}) begin",
            *dump,
            "      end",
            "    end",
            '    $fwrite(out, "T %0d\\n", clocks);',
            "    $fclose(out);",
            "    $finish;",
            "  end",
            "endmodule",
            "",
        ]
    )
