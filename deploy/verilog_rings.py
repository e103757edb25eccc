"""The rings of the core, into which connections with delays send. A synapse that was read a clock ago arrives that many
slots after this step's: its accumulator is read now and written a clock later. Each ring has one reader and one writer,
as a block RAM has.
"""

from __future__ import annotations

from .verilog_plan import CoreLink, CorePlan, CoreUpdate


def rings(plan: CorePlan) -> list[str]:
    """Where in its ring the synapse arrives that was read, and the ports of every ring."""
    if not plan.rings:
        return []
    slot_bits = max((2 * u.p.depth).bit_length() for u in plan.rings)
    bits = max((u.p.depth * u.p.size).bit_length() for u in plan.rings)
    return [
        "  reg late_valid, ring_valid;",
        "  reg signed [31:0] product_q;",
        f"  reg [{slot_bits - 1}:0] slot;",
        f"  reg [{bits - 1}:0] ring_q, at;",
        "  always @* begin",
        "    slot = 0; at = 0;",
        "    case (pc)",
        *(_arrival(link) for link in plan.links if link.late),
        "      default: ;",
        "    endcase",
        "  end",
        *(line for u in plan.rings for line in _ports(u, [k.pc for k in plan.links if k.into == u.number], bits)),
    ]


def advance(plan: CorePlan) -> list[str]:
    """What every clock moves on, from a synapse that was read to its place in the ring."""
    if not plan.rings:
        return []
    return [
        "    late_valid <= 1'b0; ring_valid <= late_valid;",
        f"    ring_q <= at; product_q <= {plan.product};",
    ]


def _arrival(link: CoreLink) -> str:
    terms = [f"slot{link.into}"]
    for kind, steps in link.c.delays.items():
        terms.append(f"32'd{int(steps[0])}" if kind == "uniform" else f"{kind[0]}{link.number}_q")
    depth, size = link.target.depth, link.target.size
    wrapped = f"((slot < 32'd{depth}) ? slot : slot - 32'd{depth})" if link.c.reach else "slot"
    return f"      {link.pc}: begin slot = {' + '.join(terms)}; at = {wrapped} * 32'd{size} + mac_i; end"


def _ports(update: CoreUpdate, into: list[int], bits: int) -> list[str]:
    """Writing: zeros at first, what arrives over the connections at ``into``, and zeros once a neuron has taken its own.
    Reading: where the synapse that was read arrives, else this step's slot.
    """
    i, p = update.number, update.p
    return [
        f"  wire [{bits - 1}:0] base{i} = slot{i} * 32'd{p.size};",
        f"  wire arrives{i} = ring_valid && ({' || '.join(f'pc == {pc}' for pc in into)});",
        f"  wire write{i} = (state == INIT) ? address < 32'd{p.depth * p.size}"
        f" : arrives{i} || (state == EXEC && pc == {update.pc});",
        f"  wire [{bits - 1}:0] to{i} = (state == INIT) ? address : arrives{i} ? ring_q : base{i} + i;",
        f"  wire [{bits - 1}:0] from{i} = late_valid ? at : base{i} + i;",
        "  always @(posedge clk) begin",
        f"    if (write{i}) acc{i}[to{i}] <= (state != INIT && arrives{i}) ? arrived{i}_q + product_q : 0;",
        f"    arrived{i}_q <= acc{i}[from{i}];",
        "  end",
    ]
