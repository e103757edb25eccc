"""What one integer network is called in C, and of which types: its header, its source and what runs it agree on this."""

from __future__ import annotations

from .integer import IntegerNetwork, IntPopulation
from .names import identifiers


class CNames:
    """The names in the C program ``name``.

    Attributes:
        node: every input and population, a field of the inputs' or the outputs' struct. link: every connection.
    """

    def __init__(self, inet: IntegerNetwork, name: str) -> None:
        self.inet, self.name = inet, name
        self.ports, self.sizes = inet.ports, inet.sizes
        self.node = identifiers(self.sizes)
        self.link = identifiers([c.name for p in inet.populations for c in p.connections])
        self._states = {p.name: identifiers([s.name for s in p.program.states]) for p in inet.populations}
        self._tables = {p.name: identifiers([t.name for t in p.program.tables]) for p in inet.populations}

    @property
    def classes(self) -> int:
        """How many values the readout has."""
        return self.sizes[self.inet.readout[0]]

    @property
    def scratch(self) -> int:
        """The most accumulators that a population without a ring needs."""
        return max((p.size for p in self.inet.populations if p.depth == 1), default=0)

    def type_of(self, node: str) -> str:
        """The type of what an input receives or a population sends."""
        port = self.ports.get(node)
        return f"{self.inet.population(node).program.dtype if port is None else port.dtype}_t"

    def sent(self, node: str) -> str:
        """Where a step finds what ``node`` sends in it."""
        return f"{'in' if node in self.ports else 'out'}->{self.node[node]}"

    # -- fields of the state
    # -------------------------------------------------------------------------------------------------------------

    def field(self, p: IntPopulation, state: str) -> str:
        return f"{self.node[p.name]}_{self._states[p.name][state]}_s"

    def before(self, node: str) -> str:
        """What ``node`` sent in the step before."""
        return f"before_{self.node[node]}"

    def ring(self, p: IntPopulation) -> str:
        return f"ring_{self.node[p.name]}_r"

    def slot(self, p: IntPopulation) -> str:
        """This step's slot of the ring."""
        return f"slot_{self.node[p.name]}_r"

    # -- in the source
    # -------------------------------------------------------------------------------------------------------------

    def local(self, p: IntPopulation, state: str) -> str:
        """A state of one neuron."""
        return f"s_{self._states[p.name][state]}"

    def table(self, p: IntPopulation, table: str) -> str:
        return f"t_{self.node[p.name]}_{self._tables[p.name][table]}"

    def start(self, p: IntPopulation, state: str) -> str:
        """The initial values of a state, where they differ."""
        return f"start_{self.field(p, state)}"

    def shift(self, node: str) -> str:
        """What each channel of an input is shifted by."""
        return f"shift_{self.node[node]}"
