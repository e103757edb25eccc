"""A connection in C: its constants, how a step calls it, and where it is no plain sum of rows a function of its own."""

from __future__ import annotations

from collections.abc import Sequence

from .arrivals import IntConnection
from .c_names import CNames
from .c_text import array, storage
from .c_weights import stored
from .integer import IntPopulation


class CConnection:
    """Connection ``c`` into population ``target``."""

    def __init__(self, names: CNames, target: IntPopulation, c: IntConnection) -> None:
        self.names, self.target, self.c = names, target, c
        self.link = names.link[c.name]
        self.weights = stored(c.name, self.link, c.weights)
        self.valued = c.source in names.inet.valued

    @property
    def own(self) -> bool:
        """Whether it is a function of its own: into a ring, from samples or signed spikes, with weights that are
        shifted or not a byte each.
        """
        odd = self.target.depth > 1 or self.c.shift > 0 or not self.weights.plain
        return odd or self.names.type_of(self.c.source) != "uint8_t"

    def constants(self) -> list[str]:
        lines = self.weights.arrays()
        for kind, steps in self.target.delay_tables(self.c).items():
            kept = f"static const uint{8 * steps.itemsize}_t {self._delay(kind)}[{steps.size}]"
            lines += [f"/* its {kind} delays in steps */", *array(kept, steps.T.reshape(-1))]
        return lines

    def call(self) -> str:
        """The line of a step that sends what the source fired."""
        names, c = self.names, self.c
        source = f"state->{names.before(c.source)}" if c.delay else names.sent(c.source)
        if self.own:
            return f"    send_{self.link}(state, {source});"
        suffix = "counts" if self.valued else "spikes"
        return f"    add_{suffix}(state->acc, {self.target.size}, {source}, {names.sizes[c.source]}, w_{self.link});"

    def function(self) -> list[str]:
        """There is one form for every delay; only where it is read differs."""
        names, each = self.names, self._each()
        fired = "sum" if each > 1 else "source[j]"
        shared = self.weights.copies[1]
        row = "j" if each > 1 or shared == 1 else f"(j / {shared})"
        slot, place = self._arrival()
        value, term = self._term(fired)
        kind = storage(*self.target.program.acc) if self.target.depth > 1 else "int32_t"
        body = [*place, f"*acc = ({kind})(*acc + {term});"]
        return [
            f"static void send_{self.link}({names.name}_state *state, const {names.type_of(self.c.source)} *source)",
            "{",
            "    int32_t i, j;",
            f"    for (j = 0; j < {names.sizes[self.c.source] // each}; ++j) {{",
            *(f"        {line}" for line in self._total(each)),
            f"        if ({fired} != 0) {{",
            *(f"            {line}" for line in (*slot, *value, *self.weights.loop(body, row))),
            "        }",
            "    }",
            "}",
            "",
        ]

    def _delay(self, kind: str) -> str:
        return f"delay_{kind}_{self.link}"

    @property
    def _shifted(self) -> bool:
        port = self.names.ports.get(self.c.source)
        return port is not None and any(port.shifts)

    def _each(self) -> int:
        """How many sources are added up first: those that share a row, where nothing else tells them apart."""
        apart = self._shifted or {"axonal", "synaptic"} & set(self.c.delays)
        return 1 if apart else self.weights.copies[1]

    def _total(self, each: int) -> list[str]:
        if each == 1:
            return []
        one = "source[i]" if self.valued else "source[i] != 0"
        return ["int32_t sum = 0;", f"for (i = {each} * j; i < {each} * j + {each}; ++i) {{ sum += {one}; }}"]

    def _arrival(self) -> tuple[list[str], list[str]]:
        """Lines that find the slot of a source, and those that find the accumulator of one of its synapses."""
        p, c = self.target, self.c
        if p.depth == 1:
            return [], ["int32_t *acc = state->acc + i;"]
        outer = [f"state->{self.names.slot(p)}"]
        outer += [str(int(c.delays["uniform"][0]))] if "uniform" in c.delays else []
        outer += [f"{self._delay('axonal')}[j]"] if "axonal" in c.delays else []
        inner = ["slot"]
        inner += [f"{self._delay('dendritic')}[i]"] if "dendritic" in c.delays else []
        inner += [f"{self._delay('synaptic')}[j * {p.size} + i]"] if "synaptic" in c.delays else []
        wrap = f" - (at < {p.depth} ? 0 : {p.depth})" if c.reach else ""
        ring = f"state->{self.names.ring(p)}"
        return [f"const int32_t slot = {' + '.join(outer)};"], [
            f"const int32_t at = {' + '.join(inner)};",
            f"{storage(*p.program.acc)} *acc = {ring} + (at{wrap}) * {p.size} + i;",
        ]

    def _term(self, fired: str) -> tuple[list[str], str]:
        """Lines that find what a source's weights are multiplied with, and what a synapse then adds."""
        factors = [fired] if fired == "sum" else ["(int32_t)source[j]"] if self.valued else []
        if self._shifted:
            factors.append(f"((int32_t)1 << {self.names.shift(self.c.source)}[j])")
        factors += [str(1 << self.c.shift)] if self.c.shift else []
        if not factors:
            return [], "weight"
        return [f"const int32_t value = {' * '.join(factors)};"], "weight * value"


def adders(connections: Sequence[CConnection]) -> list[str]:
    """The functions that plain connections share, those that are used. A spike adds its row; a silent source costs one
    comparison.
    """
    lines: list[str] = []
    for valued, suffix, term in ((False, "spikes", "row[i]"), (True, "counts", "row[i] * (int32_t)source[j]")):
        if any(not c.own and c.valued == valued for c in connections):
            lines += [
                f"static void add_{suffix}(int32_t *acc, int32_t targets, const uint8_t *source, int32_t sources, const int8_t *row)",
                "{",
                "    int32_t i, j;",
                "    for (j = 0; j < sources; ++j, row += targets) {",
                "        if (source[j] != 0) {",
                "            for (i = 0; i < targets; ++i) {",
                f"                acc[i] += {term};",
                "            }",
                "        }",
                "    }",
                "}",
                "",
            ]
    return lines
