"""The memories of the core and what is read from them: weights, delays, lists of events, accumulators, states and
tables, with the files that fill them.
"""

from __future__ import annotations

import numpy as np

from .program import bits_of
from .verilog_plan import CoreLink, CorePlan, CoreUpdate
from .verilog_text import unsigned_bits


class Memories:
    """Printed once, when made.

    Attributes:
        declarations: the registers. loads: the lines that fill them at first. files: their contents by name.
    """

    def __init__(self, plan: CorePlan) -> None:
        self.plan = plan
        self.declarations: list[str] = []
        self.loads: list[str] = []
        self.files: dict[str, str] = {}
        for link in plan.links:
            self._connection(link)
        for node, number in plan.nodes.items():
            self._events(node, number)
        for update in plan.updates:
            self._accumulators(update)
            self._states(update)
            self._tables(update)
        self._declare(f"  reg signed [63:0] readout [0:{plan.read.size - 1}];", "  reg signed [63:0] readout_q, best;")

    def _declare(self, *lines: str) -> None:
        self.declarations += lines

    def _load(self, memory: str, values: np.ndarray, bits: int) -> None:
        """Fill ``memory`` from a file of its own."""
        file = f"{self.plan.name}_{memory}.hex"
        digits = (bits + 3) // 4
        self.files[file] = "".join(f"{int(v) & ((1 << bits) - 1):0{digits}x}\n" for v in values)
        self.loads.append(f'    $readmemh("{file}", {memory});')

    def _connection(self, link: CoreLink) -> None:
        i, c, p = link.number, link.c, link.target
        self._declare(
            f"  reg signed [7:0] w{i} [0:{c.weights.size - 1}]; // {c.name}: one row of {p.size} targets per source",
            f"  reg signed [7:0] w{i}_q;",
        )
        self._load(f"w{i}", c.weights.T.reshape(-1), 8)
        for kind, steps in p.delay_tables(c).items():
            memory, bits = f"{kind[0]}{i}", unsigned_bits(steps)
            self._declare(
                f"  reg [{bits - 1}:0] {memory} [0:{steps.size - 1}]; // {c.name}: {kind} delays in steps",
                f"  reg [{bits - 1}:0] {memory}_q;",
            )
            self._load(memory, steps.T.reshape(-1), bits)

    def _events(self, node: str, i: int) -> None:
        n = self.plan.sizes[node]
        self._declare(
            f"  reg [15:0] list{i} [0:{2 * n - 1}]; // {node}: who fired, in two banks (this step, the step before)"
        )
        if node in self.plan.valued:
            self._declare(f"  reg {self.plan.value_type(node)} count{i} [0:{2 * n - 1}];")
        port = self.plan.ports.get(node)
        if port is not None and any(port.shifts):
            self._declare(f"  reg [3:0] shift{i} [0:{n - 1}]; // what each channel is shifted by as it enters")
            self._load(f"shift{i}", np.array(port.shifts), 4)
        self._declare(f"  reg [15:0] fired{i}_0, fired{i}_1;")

    def _accumulators(self, update: CoreUpdate) -> None:
        i, p = update.number, update.p
        if not update.ring:
            self._declare(f"  reg signed [31:0] acc{i} [0:{p.size - 1}]; // {p.name}")
            return
        top = bits_of(*p.program.acc) - 1
        self._declare(
            f"  reg signed [{top}:0] acc{i} [0:{p.depth * p.size - 1}]; // {p.name}: a ring of {p.depth} slots",
            f"  reg [{(p.depth - 1).bit_length() - 1}:0] slot{i}; // this step's",
            f"  reg signed [{top}:0] arrived{i}_q;",
        )

    def _states(self, update: CoreUpdate) -> None:
        i, p = update.number, update.p
        for j, s in enumerate(p.program.states):
            kind = f"reg signed [{s.bits - 1}:0]"
            self._declare(
                f"  {kind} s{i}_{j} [0:{p.size - 1}]; // {p.name}.{s.name}, real value times 2^{s.frac}",
                f"  {kind} s{i}_{j}_q;",
            )
            if not p.starts_alike(s.name):
                self._declare(f"  {kind} start{i}_{j} [0:{p.size - 1}];")
                self._load(f"start{i}_{j}", p.start(s.name), s.bits)

    def _tables(self, update: CoreUpdate) -> None:
        i, p = update.number, update.p
        for j, t in enumerate(p.program.tables):
            kind = f"reg signed [{t.bits - 1}:0]"
            self._declare(f"  {kind} t{i}_{j} [0:{p.size - 1}]; // {t.name}", f"  {kind} t{i}_{j}_q;")
            self._load(f"t{i}_{j}", p.table(t.name), t.bits)
