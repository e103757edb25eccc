"""The header of a C program: the structs of its state, its inputs and its outputs, and the three functions."""

from __future__ import annotations

from .c_names import CNames
from .c_text import banner, storage
from .inputs import RANGES, IntInput


def header(c: CNames) -> str:
    """``NAME.h``."""
    n = c.name
    guard = f"{n.upper()}_H"
    lines = [
        *banner(f"{n}: a spiking network as integer C99. How it computes: {n}_contract.txt."),
        f"#ifndef {guard}", f"#define {guard}", "",
        "#include <stdint.h>", "",
        "#ifdef __cplusplus", 'extern "C" {', "#endif", "",
        f"#define {n.upper()}_CLASSES {c.classes}", "",
        "/* The caller owns it; several may exist. Call the reset function before the first step. */",
        "typedef struct {", *_state(c), f"}} {n}_state;", "",
        "/* The input of one step. */",
        "typedef struct {", *_inputs(c), f"}} {n}_in;", "",
        "/* The output of every population in one step: spikes (0 or 1, where signed also -1) or a real value. */",
        "typedef struct {", *_outputs(c), f"}} {n}_out;", "",
        "/* Initial states, empty readout. */",
        f"void {n}_reset({n}_state *state);",
        f"/* One time step of {c.inet.dt:g} ms. */",
        f"void {n}_step({n}_state *state, const {n}_in *in, {n}_out *out);",
        "/* The class with the largest readout so far, the lowest of equals. */",
        f"int32_t {n}_class(const {n}_state *state);", "",
        "#ifdef __cplusplus", "}", "#endif", "",
        "#endif", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _state(c: CNames) -> list[str]:
    inet = c.inet
    lines = [
        f"    {storage(s.lo, s.hi)} {c.field(p, s.name)}[{p.size}]; /* real value times 2^{s.frac} */"
        for p in inet.populations
        for s in p.program.states
    ]
    lines += [
        f"    {c.type_of(node)} {c.before(node)}[{c.sizes[node]}]; /* its output in the step before */"
        for node in inet.delayed
    ]
    lines.append(f"    int64_t readout[{c.classes}];")
    for p in inet.populations:
        if p.depth > 1:
            ring = f"{storage(*p.program.acc)} {c.ring(p)}[{p.depth * p.size}]"
            lines.append(f"    {ring}; /* what arrives in this step and in the {p.depth - 1} after it */")
            lines.append(f"    int32_t {c.slot(p)}; /* this step's slot of the ring */")
    return [*lines, f"    int32_t acc[{c.scratch}]; /* scratch */"] if c.scratch else lines


def _inputs(c: CNames) -> list[str]:
    return [f"    {c.type_of(i.name)} {c.node[i.name]}[{i.size}]; /* {i.port}: {_range(i)} */" for i in c.inet.inputs]


def _range(port: IntInput) -> str:
    low, high = RANGES[port.port]
    return f"{low} or {high}" if port.binary else f"{low} to {high}"


def _outputs(c: CNames) -> list[str]:
    return [
        f"    {c.type_of(p.name)} {c.node[p.name]}[{p.size}];"
        + ("" if p.program.spikes else f" /* real value times 2^{p.program.output_value.frac} */")
        for p in c.inet.populations
    ]
