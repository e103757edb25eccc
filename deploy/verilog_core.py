"""The module of the core: its ports, its registers, what an instruction is, and the clock that drives memories, rings
and the machine.
"""

from __future__ import annotations

from .verilog_machine import STATES, machine, sums
from .verilog_memories import Memories
from .verilog_neurons import neuron
from .verilog_plan import CoreLink, CorePlan
from .verilog_rings import advance, rings
from .verilog_text import banner


def core(plan: CorePlan, memories: Memories) -> str:
    """``NAME.sv``."""
    name = plan.name
    lines = [
        *banner(f"{name}: a spiking network as a time-multiplexed core. How it computes: {name}_contract.txt."),
        f"module {name} (",
        *_ports(plan),
        ");",
        *_registers(plan),
        *memories.declarations,
        *_instruction(plan),
        *_weight(plan),
        *rings(plan),
        *(line for update in plan.updates for line in neuron(plan, update)),
        "  assign in_ready = state == IN && !clear;",
        *(["  initial begin", *memories.loads, "  end"] if memories.loads else []),
        *_clock(plan),
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def _ports(plan: CorePlan) -> list[str]:
    return [
        "  input  wire        clk,",
        "  input  wire        rst,        // synchronous",
        "  input  wire        clear,      // forget everything, as before the first step; taken between steps",
        "  input  wire        in_valid,   // an input event, or with in_last the end of a step",
        "  output wire        in_ready,",
        "  input  wire        in_last,",
        "  input  wire [7:0]  in_port,",
        "  input  wire [15:0] in_channel, // each channel at most once in a step",
        "  input  wire signed [15:0] in_value," if plan.samples else "  input  wire [7:0]  in_value,",
        "  output reg         out_valid,  // an output other than 0, or with out_last the end of a step",
        "  input  wire        out_ready,",
        "  output reg         out_last,",
        "  output reg  [7:0]  out_population,",
        "  output reg  [15:0] out_index,",
        "  output reg  signed [31:0] out_value,",
        "  output reg         done,       // for one clock when a step has ended",
        "  output reg  [15:0] class_index // of the largest readout so far, the lowest of equals; valid from done on",
    ]


def _registers(plan: CorePlan) -> list[str]:
    return [
        f"  localparam {', '.join(f'{state} = {i}' for i, state in enumerate(STATES))};",
        "  reg [3:0] state;",
        f"  reg [{max(1, len(plan.steps).bit_length()) - 1}:0] pc;",
        "  reg bank;",
        "  reg [15:0] i, event_number, source;",
        f"  reg signed [{plan.times_bits - 1}:0] times;" if plan.signed else "  reg [7:0] times;",
        "  reg mac_valid;",
        "  reg [15:0] mac_i;",
        "  reg [31:0] address;",
        "  reg signed [31:0] acc_q;",
    ]


def _instruction(plan: CorePlan) -> list[str]:
    """What is at ``pc``: how many targets it has, how many events its source sent, and its kind."""
    lines = [
        "  reg [15:0] targets, events;",
        "  reg is_link, is_end;",
        "  always @* begin",
        "    targets = 16'd0; events = 16'd0; is_link = 1'b0; is_end = 1'b0;",
        "    case (pc)",
    ]
    for step in plan.steps:
        if isinstance(step, CoreLink):
            events = f"({step.bank}) ? fired{step.node}_1 : fired{step.node}_0"
            lines.append(
                f"      {step.pc}: begin is_link = 1'b1; targets = 16'd{step.target.size}; events = {events}; end"
            )
        else:
            lines.append(f"      {step.pc}: targets = 16'd{step.p.size};")
    return [*lines, "      default: is_end = 1'b1;", "    endcase", "  end"]


def _weight(plan: CorePlan) -> list[str]:
    """The weight that was read, and the sum with what it is added to."""
    return [
        "  reg signed [7:0] weight_q;",
        "  always @* case (pc)",
        *(f"    {link.pc}: weight_q = w{link.number}_q;" for link in plan.links),
        "    default: weight_q = 8'sd0;",
        "  endcase",
        f"  wire signed [31:0] sum = acc_q + {plan.product};",
    ]


def _clock(plan: CorePlan) -> list[str]:
    return [
        "  always @(posedge clk) begin",
        "    done <= 1'b0;",
        "    mac_valid <= 1'b0;",
        *advance(plan),
        "    if (rst) begin",
        "      state <= INIT; i <= 16'd0; address <= 32'd0; out_valid <= 1'b0; out_last <= 1'b0; bank <= 1'b0; class_index <= 16'd0; pc <= 0;",
        "      out_population <= 8'd0; out_index <= 16'd0; out_value <= 32'sd0;",
        "    end else case (state)",
        *(f"      {line}" for line in machine(plan)),
        "    endcase",
        "    if (mac_valid) case (pc)",
        *(f"      {line}" for line in sums(plan)),
        "      default: ;",
        "    endcase",
        "  end",
    ]
