"""The numbers and widths that one integer network has in the core. A step is a micro-program: for each population in
order an instruction for every connection into it and one that updates it. Names in the core are numbers with a prefix,
so that no user's name meets a keyword.
"""

from __future__ import annotations

from dataclasses import dataclass

from .arrivals import IntConnection
from .integer import IntegerNetwork, IntPopulation
from .verilog_text import literal


@dataclass(frozen=True)
class CoreLink:
    """The instruction at ``pc`` that sends the events of a source over connection ``c``.

    Attributes:
        number: of the connection. into: number of its target among the populations. node: number of its source among
            inputs and populations. room: the most events that the source sends in a step.
    """

    pc: int
    number: int
    c: IntConnection
    target: IntPopulation
    into: int
    node: int
    room: int

    @property
    def late(self) -> bool:
        """Whether it goes into a ring."""
        return self.target.depth > 1

    @property
    def bank(self) -> str:
        """Whether the events that it reads lie in the second bank."""
        return "!bank" if self.c.delay else "bank"


@dataclass(frozen=True)
class CoreUpdate:
    """The instruction at ``pc`` that updates the neurons of population ``p``, number ``number``."""

    pc: int
    number: int
    p: IntPopulation

    @property
    def ring(self) -> bool:
        return self.p.depth > 1


class CorePlan:
    """The core ``name``.

    Attributes:
        nodes: the number of every input and population. steps: the micro-program. links, updates: its two kinds of
            instruction. samples: whether numbers of 16 bits enter. signed: whether a weight is multiplied with what
            may be negative.
    """

    def __init__(self, inet: IntegerNetwork, name: str) -> None:
        self.inet, self.name = inet, name
        self.ports, self.sizes, self.valued = inet.ports, inet.sizes, inet.valued
        self.nodes = {node: i for i, node in enumerate(self.sizes)}
        self.samples = any(i.samples for i in inet.inputs)
        self.signed = self.samples or any(p.program.signed for p in inet.populations)
        self.steps: list[CoreLink | CoreUpdate] = []
        for i, p in enumerate(inet.populations):
            for c in p.connections:
                pc, number = len(self.steps), len(self.steps) - i  # so far there are i updates
                self.steps.append(CoreLink(pc, number, c, p, i, self.nodes[c.source], self.sizes[c.source]))
            self.steps.append(CoreUpdate(len(self.steps), i, p))
        self.links = [step for step in self.steps if isinstance(step, CoreLink)]
        self.updates = [step for step in self.steps if isinstance(step, CoreUpdate)]

    @property
    def rings(self) -> list[CoreUpdate]:
        return [u for u in self.updates if u.ring]

    @property
    def read(self) -> IntPopulation:
        """The population that is read out."""
        return self.inet.population(self.inet.readout[0])

    # -- what a weight is multiplied with
    # -------------------------------------------------------------------------------------------------------------

    def value_bits(self, node: str) -> int:
        """Width of what a source sends as a signed number."""
        port = self.ports.get(node)
        if port is None or port.binary:
            return 2
        return 16 + max(port.shifts) if port.samples else 9

    def value_type(self, node: str) -> str:
        """How the values of a source are kept."""
        port = self.ports.get(node)
        return f"signed [{self.value_bits(node) - 1}:0]" if port is None or port.samples else "[7:0]"

    @property
    def times_bits(self) -> int:
        """Width of what a weight is multiplied with, where some are negative: a value, shifted, with its sign."""
        return max(self.value_bits(link.c.source) + link.c.shift for link in self.links)

    @property
    def product(self) -> str:
        """A weight times its factor, both with a sign."""
        return "weight_q * times" if self.signed else "weight_q * $signed({1'b0, times})"

    def times(self, link: CoreLink, at: str) -> str:
        """What a weight is multiplied with: the value of the source's event ``at``, or 1."""
        c = link.c
        value = f"count{link.node}[{at}]"
        if not self.signed:
            return value if c.source in self.valued else "8'd1"
        if c.source not in self.valued:
            return literal(1 << c.shift, self.times_bits)
        value = value if c.source not in self.ports or self.ports[c.source].samples else f"$signed({{1'b0, {value}}})"
        return f"{value} <<< {c.shift}" if c.shift else value
