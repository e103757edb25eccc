"""The source of a C program: constants, a function for each population and what it needs, and the three functions that
the header names: reset, step and class.
"""

from __future__ import annotations

from .c_connection import CConnection, adders
from .c_names import CNames
from .c_text import array, banner, literal, storage
from .c_update import arithmetic, update
from .c_weights import helper

Links = dict[str, list[CConnection]]
"""The connections into every population."""


def source(c: CNames) -> str:
    """``NAME.c``."""
    links = {p.name: [CConnection(c, p, k) for k in p.connections] for p in c.inet.populations}
    every = [link for into in links.values() for link in into]
    lines = [
        *banner(f"{c.name}: how it computes is in {c.name}_contract.txt."),
        f'#include "{c.name}.h"',
        "",
        *_constants(c, links),
        *(helper() if any(link.weights.packed for link in every) else []),
        *arithmetic(c.inet),
        *adders(every),
    ]
    for p in c.inet.populations:
        for link in links[p.name]:
            lines += link.function() if link.own else []
        lines += update(c, p)
    return "\n".join([*lines, *_reset(c), *_step(c, links), *_class(c), ""])


def _constants(c: CNames, links: Links) -> list[str]:
    lines: list[str] = []
    for i in c.inet.inputs:
        if any(i.shifts):
            lines += [f"/* {i.name}: what each channel is shifted by as it enters */"]
            lines += array(f"static const uint8_t {c.shift(i.name)}[{i.size}]", i.shifts)
    for p in c.inet.populations:
        for link in links[p.name]:
            lines += link.constants()
        for t in p.program.tables:
            kept = f"static const {storage(t.lo, t.hi)} {c.table(p, t.name)}[{p.size}]"
            lines += array(kept, p.table(t.name))
        for s in p.program.states:
            if not p.starts_alike(s.name):
                kept = f"static const {storage(s.lo, s.hi)} {c.start(p, s.name)}[{p.size}]"
                lines += array(kept, p.start(s.name))
    return lines


def _reset(c: CNames) -> list[str]:
    lines = [f"void {c.name}_reset({c.name}_state *state)", "{", "    int32_t i;"]

    def fill(field: str, size: int, value: str) -> None:
        lines.append(f"    for (i = 0; i < {size}; ++i) {{ state->{field}[i] = {value}; }}")

    for p in c.inet.populations:
        for s in p.program.states:
            alike = p.starts_alike(s.name)
            fill(c.field(p, s.name), p.size, literal(int(p.start(s.name)[0])) if alike else f"{c.start(p, s.name)}[i]")
    for node in c.inet.delayed:
        fill(c.before(node), c.sizes[node], "0")
    fill("readout", c.classes, literal(int(c.inet.readout_start()[0])))
    for p in c.inet.populations:
        if p.depth > 1:
            fill(c.ring(p), p.depth * p.size, "0")
            lines.append(f"    state->{c.slot(p)} = 0;")
    if c.scratch:
        fill("acc", c.scratch, "0")
    return [*lines, "}", ""]


def _step(c: CNames, links: Links) -> list[str]:
    n = c.name
    lines = [f"void {n}_step({n}_state *state, const {n}_in *in, {n}_out *out)", "{"]
    if c.scratch or c.inet.delayed:
        lines.append("    int32_t i;")
    if not any(link.c.source in c.ports for into in links.values() for link in into):
        lines.append("    (void)in;")
    for p in c.inet.populations:
        if p.depth == 1:
            lines.append(f"    for (i = 0; i < {p.size}; ++i) {{ state->acc[i] = 0; }}")
        lines += [link.call() for link in links[p.name]]
        lines.append(f"    update_{c.node[p.name]}(state, out);")
    for node in c.inet.delayed:
        lines.append(f"    for (i = 0; i < {c.sizes[node]}; ++i) {{ state->{c.before(node)}[i] = {c.sent(node)}[i]; }}")
    return [*lines, "}", ""]


def _class(c: CNames) -> list[str]:
    return [
        f"int32_t {c.name}_class(const {c.name}_state *state)",
        "{",
        "    int32_t i, best = 0;",
        f"    for (i = 1; i < {c.classes}; ++i) {{",
        "        if (state->readout[i] > state->readout[best]) { best = i; }",
        "    }",
        "    return best;",
        "}",
    ]
