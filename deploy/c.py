"""Exporter to self-contained C99: prints the integer network, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .arrivals import IntConnection
from .artefact import contract, default_vectors, write_all
from .c_harness import replay, self_test, vectors
from .c_text import array, banner, expression, literal, operand, storage, width
from .c_weights import helper, stored
from .inputs import RANGES
from .integer import IntegerNetwork, IntPopulation
from .names import checked_name, identifiers
from .program import ACC


def export_c(
    inet: IntegerNetwork, folder: str | Path, name: str, vectors: np.ndarray | Mapping[str, np.ndarray] | None = None
) -> list[Path]:
    """Write ``NAME.h``, ``NAME.c``, ``NAME_contract.txt``, ``NAME_vectors.h`` and ``NAME_test.c`` (a self-test on those
    vectors), and ``NAME_replay.c`` (samples from stdin, outputs to stdout; the verifier runs it).

    Args:
        vectors: input samples [T, B, N] to ship as test vectors; a few random ones by default.

    Raises:
        ExportError: before any file is written.
    """
    return write_all(folder, CPrinter(inet, checked_name(name)).files(vectors))


class CPrinter:
    """Prints one integer network as C."""

    def __init__(self, inet: IntegerNetwork, name: str) -> None:
        self.inet, self.name = inet, name
        self.node = identifiers([*(i.name for i in inet.inputs), *(p.name for p in inet.populations)])
        self.link = identifiers([c.name for p in inet.populations for c in p.connections])
        self.stored = {
            c.name: stored(c.name, self.link[c.name], c.weights) for p in inet.populations for c in p.connections
        }
        self.state = {p.name: identifiers([s.name for s in p.program.states]) for p in inet.populations}
        self.table = {p.name: identifiers([t.name for t in p.program.tables]) for p in inet.populations}
        self.sizes = {n.name: n.size for n in (*inet.inputs, *inet.populations)}
        self.signed = {p.name for p in inet.populations if p.program.signed}
        self.ports = {i.name: i for i in inet.inputs}
        self.scratch = max((p.size for p in inet.populations if p.depth == 1), default=0)

    def files(self, samples: np.ndarray | Mapping[str, np.ndarray] | None) -> dict[str, str]:
        n = self.name
        return {
            f"{n}.h": self.header(),
            f"{n}.c": self.source(),
            f"{n}_contract.txt": contract(self.inet),
            f"{n}_vectors.h": vectors(self, default_vectors(self.inet) if samples is None else samples),
            f"{n}_test.c": self_test(self),
            f"{n}_replay.c": replay(self),
        }

    # -- header
    # ---------------------------------------------------------------------------------------------------------------

    def header(self) -> str:
        n, inet = self.name, self.inet
        out_width = self.sizes[inet.readout[0]]
        guard = f"{n.upper()}_H"
        lines = [*banner(f"{n}: a spiking network as integer C99. How it computes: {n}_contract.txt.")]
        lines += [
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
        ]
        lines += [f"#define {n.upper()}_CLASSES {out_width}", ""]
        lines += [
            "/* The caller owns it; several may exist. Call the reset function before the first step. */",
            "typedef struct {",
        ]
        for p in inet.populations:
            for s in p.program.states:
                lines.append(
                    f"    {storage(s.lo, s.hi)} {self.field(p, s.name)}[{p.size}]; /* real value times 2^{s.frac} */"
                )
        for source in inet.delayed:
            lines.append(
                f"    {self.carrier(source)} before_{self.node[source]}[{self.sizes[source]}]; /* its output in the step before */"
            )
        lines.append(f"    int64_t readout[{out_width}];")
        for p in inet.populations:
            if p.depth > 1:
                ring = f"{storage(*p.program.acc)} ring_{self.node[p.name]}_r[{p.depth * p.size}]"
                lines.append(f"    {ring}; /* what arrives in this step and in the {p.depth - 1} after it */")
                lines.append(f"    int32_t slot_{self.node[p.name]}_r; /* this step's slot of the ring */")
        if self.scratch:
            lines.append(f"    int32_t acc[{self.scratch}]; /* scratch */")
        lines += [f"}} {n}_state;", "", "/* The input of one step. */", "typedef struct {"]
        lines += [
            f"    {self.carrier(i.name)} {self.node[i.name]}[{i.size}]; /* {i.port}: {' or '.join('01') if i.binary else f'{RANGES[i.port][0]} to {RANGES[i.port][1]}'} */"
            for i in inet.inputs
        ]
        lines += [
            f"}} {n}_in;",
            "",
            "/* The output of every population in one step: spikes (0 or 1, where signed also -1) or a real value. */",
            "typedef struct {",
        ]
        for p in inet.populations:
            kind = f"{p.program.dtype}_t"
            lines.append(
                f"    {kind} {self.node[p.name]}[{p.size}];"
                + ("" if p.program.spikes else f" /* real value times 2^{p.program.output_value.frac} */")
            )
        lines += [f"}} {n}_out;", ""]
        lines += ["/* Initial states, empty readout. */", f"void {n}_reset({n}_state *state);"]
        lines += [
            f"/* One time step of {inet.dt:g} ms. */",
            f"void {n}_step({n}_state *state, const {n}_in *in, {n}_out *out);",
        ]
        lines += [
            "/* The class with the largest readout so far, the lowest of equals. */",
            f"int32_t {n}_class(const {n}_state *state);",
        ]
        return "\n".join([*lines, "", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])

    def field(self, p: IntPopulation, state: str) -> str:
        return f"{self.node[p.name]}_{self.state[p.name][state]}_s"

    # -- source
    # ---------------------------------------------------------------------------------------------------------------

    def source(self) -> str:
        n = self.name
        lines = [*banner(f"{n}: how it computes is in {n}_contract.txt."), f'#include "{n}.h"', ""]
        for i in self.inet.inputs:
            if any(i.shifts):
                lines += [f"/* {i.name}: what each channel is shifted by as it enters */"]
                lines += array(f"static const uint8_t shift_{self.node[i.name]}[{i.size}]", i.shifts)
        for p in self.inet.populations:
            for c in p.connections:
                lines += self.stored[c.name].arrays()
                for kind, steps in c.delays.items():
                    if kind != "uniform" and p.depth > 1:
                        lines.append(f"/* its {kind} delays in steps */")
                        name = f"delay_{kind}_{self.link[c.name]}"
                        flat = steps.T.reshape(-1)
                        lines += array(f"static const uint{8 * steps.itemsize}_t {name}[{steps.size}]", flat)
            for t in p.program.tables:
                lines += array(
                    f"static const {storage(t.lo, t.hi)} {self.table_name(p, t.name)}[{p.size}]", p.table(t.name)
                )
            for s in p.program.states:
                if len(set(p.start(s.name).tolist())) > 1:
                    lines += array(
                        f"static const {storage(s.lo, s.hi)} start_{self.field(p, s.name)}[{p.size}]", p.start(s.name)
                    )
        lines += self.helpers()
        for p in self.inet.populations:
            for c in p.connections:
                lines += self.send(p, c) if self.own(p, c) else []
            lines += self.update(p)
        return "\n".join([*lines, *self.reset(), *self.step(), *self.classes(), ""])

    def table_name(self, p: IntPopulation, table: str) -> str:
        return f"t_{self.node[p.name]}_{self.table[p.name][table]}"

    def helpers(self) -> list[str]:
        """Only those that are used, so that nothing warns."""
        ops = [op for p in self.inet.populations for op in p.program.ops]
        lines: list[str] = helper() if any(w.packed for w in self.stored.values()) else []
        for bits in (32, 64):
            wide = f"int{bits}_t"
            if any(op.kind == "rsr" and width(op) == bits for op in ops):
                lines += [
                    "/* floor(x / 2^s), without shifting a negative number */",
                    f"static {wide} floor_shift_{bits}({wide} x, int s)",
                    "{",
                    f"    return x < 0 ? ({wide})~((~x) >> s) : ({wide})(x >> s);",
                    "}",
                    "",
                ]  # fmt: skip
            if any(op.kind == "clamp" and width(op) == bits for op in ops):
                lines += [
                    f"static {wide} clamp_{bits}({wide} x, {wide} lo, {wide} hi)",
                    "{",
                    "    return x < lo ? lo : x > hi ? hi : x;",
                    "}",
                    "",
                ]
        sources = {c.source for p in self.inet.populations for c in p.connections if not self.own(p, c)}
        if sources:
            # A spike adds its row; a silent source costs one comparison.
            counted = any(s in self.ports and not self.ports[s].binary for s in sources)
            plain = any(s not in self.ports or self.ports[s].binary for s in sources)
            for used, suffix, term in ((plain, "spikes", "row[i]"), (counted, "counts", "row[i] * (int32_t)source[j]")):
                if used:
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

    def send(self, p: IntPopulation, c: IntConnection) -> list[str]:
        """A connection into a ring, from samples, with weights that are shifted or not a byte each, as a function of
        its own.

        There is one form for every delay; only where it is read differs.
        """
        link, ring = self.link[c.name], f"state->ring_{self.node[p.name]}_r"
        outer = [f"state->slot_{self.node[p.name]}_r"]
        outer += [str(int(c.delays["uniform"][0]))] if "uniform" in c.delays else []
        outer += [f"delay_axonal_{link}[j]"] if "axonal" in c.delays else []
        inner = ["slot"]
        inner += [f"delay_dendritic_{link}[i]"] if "dendritic" in c.delays else []
        inner += [f"delay_synaptic_{link}[j * {p.size} + i]"] if "synaptic" in c.delays else []
        weights = self.stored[c.name]
        shifted = c.source in self.ports and any(self.ports[c.source].shifts)
        # sources that share a row are added up first, where nothing else tells them apart
        each = 1 if shifted or {"axonal", "synaptic"} & set(c.delays) else weights.copies[1]
        row = "j" if each > 1 or weights.copies[1] == 1 else f"(j / {weights.copies[1]})"
        factors = ["(int32_t)source[j]"] if self.counted(c.source) or c.source in self.signed else []
        if each > 1:
            factors = ["sum"]
        if shifted:
            factors.append(f"((int32_t)1 << shift_{self.node[c.source]}[j])")
        factors += [str(1 << c.shift)] if c.shift else []
        value = [f"            const int32_t value = {' * '.join(factors)};"] if factors else []
        term = "weight * value" if factors else "weight"
        wrap = f" - (at < {p.depth} ? 0 : {p.depth})" if c.reach else ""
        kind = storage(*p.program.acc) if p.depth > 1 else "int32_t"
        place = [f"const int32_t at = {' + '.join(inner)};", f"{kind} *acc = {ring} + (at{wrap}) * {p.size} + i;"]
        body = [*(place if p.depth > 1 else ["int32_t *acc = state->acc + i;"]), f"*acc = ({kind})(*acc + {term});"]
        one = "source[i]" if self.counted(c.source) or c.source in self.signed else "source[i] != 0"
        total = [
            "        int32_t sum = 0;",
            f"        for (i = {each} * j; i < {each} * j + {each}; ++i) {{ sum += {one}; }}",
        ]
        return [
            f"static void send_{link}({self.name}_state *state, const {self.carrier(c.source)} *source)",
            "{",
            "    int32_t i, j;",
            f"    for (j = 0; j < {self.sizes[c.source] // each}; ++j) {{",
            *(total if each > 1 else []),
            f"        if ({'sum' if each > 1 else 'source[j]'} != 0) {{",
            *([f"            const int32_t slot = {' + '.join(outer)};"] if p.depth > 1 else []),
            *value,
            *(f"            {line}" for line in weights.loop(body, row)),
            "        }",
            "    }",
            "}",
            "",
        ]

    def own(self, p: IntPopulation, c: IntConnection) -> bool:
        """Whether a connection is printed as a function of its own."""
        odd = p.depth > 1 or c.shift > 0 or not self.stored[c.name].plain
        return odd or self.carrier(c.source) != "uint8_t"

    def carrier(self, node: str) -> str:
        """The type of an output that other populations read."""
        return f"{self.ports[node].dtype if node in self.ports else np.dtype(np.int8 if node in self.signed else np.uint8)}_t"

    def counted(self, source: str) -> bool:
        return source in self.ports and not self.ports[source].binary

    def update(self, p: IntPopulation) -> list[str]:
        n, program = self.name, p.program
        used = {a for op in program.ops for a in op.args} | {*program.next_state.values(), program.output}
        local: dict[str, str] = {ACC: "acc"}
        body: list[str] = []
        if ACC in used:
            body.append(f"const int32_t acc = {'state->acc' if p.depth == 1 else 'arrived'}[i];")
        if p.depth > 1:
            body.append("arrived[i] = 0;")
        for s in program.states:
            local[s.name] = f"s_{self.state[p.name][s.name]}"
            if s.name in used:
                body.append(f"const int32_t {local[s.name]} = state->{self.field(p, s.name)}[i];")
        for t in program.tables:
            local[t.name] = f"{self.table_name(p, t.name)}[i]"
        values = identifiers([op.name for op in program.ops])
        for op in program.ops:
            local[op.name] = f"x_{values[op.name]}"
            kind = "int64_t" if op.bits > 32 else "int32_t"
            body.append(f"const {kind} {local[op.name]} = {expression(op, local)};")
        for s in program.states:
            body.append(
                f"state->{self.field(p, s.name)}[i] = ({storage(s.lo, s.hi)}){operand(program.next_state[s.name], local)};"
            )
        out = f"{program.dtype}_t"
        value = operand(program.output, local)
        body.append(f"out->{self.node[p.name]}[i] = ({out}){value};")
        if p.name == self.inet.readout[0]:
            kind = self.inet.readout[1]
            if kind == "sum":
                body.append(f"state->readout[i] += {value};")
            elif kind == "max":
                body.append(f"if ({value} > state->readout[i]) {{ state->readout[i] = {value}; }}")
            else:
                body.append(f"state->readout[i] = {value};")
        ring, slot = f"state->ring_{self.node[p.name]}_r", f"state->slot_{self.node[p.name]}_r"
        arrived = [f"    {storage(*p.program.acc)} *arrived = {ring} + {slot} * {p.size};"]
        onward = [f"    {slot} = {slot} == {p.depth - 1} ? 0 : {slot} + 1;"]
        return [
            f"/* {p.name}: {p.model} */",
            f"static void update_{self.node[p.name]}({n}_state *state, {n}_out *out)",
            "{",
            "    int32_t i;",
            *(arrived if p.depth > 1 else ()),
            f"    for (i = 0; i < {p.size}; ++i) {{",
            *(f"        {line}" for line in body),
            "    }",
            *(onward if p.depth > 1 else ()),
            "}",
            "",
        ]

    def reset(self) -> list[str]:
        lines = [f"void {self.name}_reset({self.name}_state *state)", "{", "    int32_t i;"]

        def fill(target: str, size: int, value: str) -> None:
            lines.append(f"    for (i = 0; i < {size}; ++i) {{ {target}[i] = {value}; }}")

        for p in self.inet.populations:
            for s in p.program.states:
                start = p.start(s.name)
                same = len(set(start.tolist())) == 1
                fill(
                    f"state->{self.field(p, s.name)}",
                    p.size,
                    literal(int(start[0])) if same else f"start_{self.field(p, s.name)}[i]",
                )
        for source in self.inet.delayed:
            fill(f"state->before_{self.node[source]}", self.sizes[source], "0")
        fill("state->readout", self.sizes[self.inet.readout[0]], literal(int(self.inet.readout_start()[0])))
        for p in self.inet.populations:
            if p.depth > 1:
                fill(f"state->ring_{self.node[p.name]}_r", p.depth * p.size, "0")
                lines.append(f"    state->slot_{self.node[p.name]}_r = 0;")
        if self.scratch:
            fill("state->acc", self.scratch, "0")
        return [*lines, "}", ""]

    def step(self) -> list[str]:
        n = self.name
        lines = [f"void {n}_step({n}_state *state, const {n}_in *in, {n}_out *out)", "{"]
        if self.scratch or self.inet.delayed:
            lines.append("    int32_t i;")
        if not any(c.source in self.ports for p in self.inet.populations for c in p.connections):
            lines.append("    (void)in;")
        for p in self.inet.populations:
            if p.depth == 1:
                lines.append(f"    for (i = 0; i < {p.size}; ++i) {{ state->acc[i] = 0; }}")
            for c in p.connections:
                source = (
                    f"state->before_{self.node[c.source]}"
                    if c.delay
                    else f"{'in' if c.source in self.ports else 'out'}->{self.node[c.source]}"
                )
                if self.own(p, c):
                    lines.append(f"    send_{self.link[c.name]}(state, {source});")
                    continue
                how = "counts" if self.counted(c.source) else "spikes"
                lines.append(
                    f"    add_{how}(state->acc, {p.size}, {source}, {self.sizes[c.source]}, w_{self.link[c.name]});"
                )
            lines.append(f"    update_{self.node[p.name]}(state, out);")
        for source in self.inet.delayed:
            origin = f"{'in' if source in self.ports else 'out'}->{self.node[source]}"
            lines.append(
                f"    for (i = 0; i < {self.sizes[source]}; ++i) {{ state->before_{self.node[source]}[i] = {origin}[i]; }}"
            )
        return [*lines, "}", ""]

    def classes(self) -> list[str]:
        return [
            f"int32_t {self.name}_class(const {self.name}_state *state)",
            "{",
            "    int32_t i, best = 0;",
            f"    for (i = 1; i < {self.sizes[self.inet.readout[0]]}; ++i) {{",
            "        if (state->readout[i] > state->readout[best]) { best = i; }",
            "    }",
            "    return best;",
            "}",
        ]
