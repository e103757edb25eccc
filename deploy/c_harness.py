"""What runs an exported C program: its self-test with vectors, and the replay that the verifier drives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .c_names import CNames
from .c_text import array, banner
from .inputs import IntInput

SAMPLE_BIAS = 1 << 15
"""Added to samples in the vectors, which hold no negative numbers."""
FNV_START, FNV_FACTOR = 2166136261, 16777619


def vectors_header(c: CNames, x: np.ndarray | Mapping[str, np.ndarray]) -> str:
    """``NAME_vectors.h``: inputs as (port, channel, value), and per step a hash of all outputs."""
    stimuli = c.inet.stimuli(x)
    result = c.inet.run(stimuli)
    steps, samples = next(iter(stimuli.values())).shape[:2]
    events: list[int] = []
    ends: list[int] = []
    hashes: list[int] = []
    for b in range(samples):
        for k in range(steps):
            for number, port in enumerate(c.inet.inputs):
                for channel in np.flatnonzero(stimuli[port.name][k, b]):
                    value = int(stimuli[port.name][k, b, channel])
                    events += [number, int(channel), value + SAMPLE_BIAS if port.samples else value]
            ends.append(len(events) // 3)
            value = FNV_START
            for p in c.inet.populations:
                for byte in result.outputs[p.name][k, b].astype("<i4").tobytes():
                    value = (value ^ byte) * FNV_FACTOR & 0xFFFFFFFF
            hashes.append(value)
    n = c.name
    lines = [
        *banner(
            f"Test vectors of {n}: input events (port, channel, value), where each step ends, and what must come out."
        )
    ]
    lines += ["#include <stdint.h>", f"#define VECTOR_SAMPLES {samples}", f"#define VECTOR_STEPS {steps}"]
    lines += array(f"static const uint32_t vector_events[{max(len(events), 1)}]", events or [0])
    lines += array(f"static const uint32_t vector_ends[{len(ends)}]", ends)
    lines += array(f"static const uint32_t vector_hashes[{len(hashes)}]", hashes, "u")
    lines += array(f"static const int32_t vector_classes[{samples}]", result.classes.tolist())
    return "\n".join(lines) + "\n"


def read(port: IntInput) -> str:
    """A value of the vectors in the type of its port."""
    value = "vector_events[3 * e + 2]"
    return f"(int16_t)((int32_t){value} - {SAMPLE_BIAS})" if port.samples else f"(uint8_t){value}"


def self_test(c: CNames) -> str:
    n = c.name
    clear = [f"            for (i = 0; i < {i.size}; ++i) {{ in.{c.node[i.name]}[i] = 0; }}" for i in c.inet.inputs]
    put = [
        f"                if (vector_events[3 * e] == {k}) {{ in.{c.node[i.name]}[vector_events[3 * e + 1]] = {read(i)}; }}"
        for k, i in enumerate(c.inet.inputs)
    ]
    digest = [
        f"            for (i = 0; i < {p.size}; ++i) {{ hash = mixed(hash, (uint32_t)out.{c.node[p.name]}[i]); }}"
        for p in c.inet.populations
    ]
    lines = [
        *banner(f"Self-test of {n}: replays its vectors; returns the number of steps and classes that differ (0 is a pass)."),
        f'#include "{n}.h"', f'#include "{n}_vectors.h"', "",
        f"static {n}_state state;", f"static {n}_in in;", f"static {n}_out out;", "",
        "static uint32_t mixed(uint32_t hash, uint32_t value)", "{", "    int32_t i;", "    for (i = 0; i < 4; ++i) {",
        f"        hash = (hash ^ (value & 255u)) * {FNV_FACTOR}u;", "        value >>= 8;", "    }", "    return hash;", "}", "",
        "int main(void)", "{", "    int32_t sample, step, i, wrong = 0;", "    uint32_t e = 0, at = 0;",
        "    for (sample = 0; sample < VECTOR_SAMPLES; ++sample) {", f"        {n}_reset(&state);",
        "        for (step = 0; step < VECTOR_STEPS; ++step, ++at) {", f"            uint32_t hash = {FNV_START}u;", *clear,
        "            for (; e < vector_ends[at]; ++e) {", *put, "            }", f"            {n}_step(&state, &in, &out);", *digest,
        "            if (hash != vector_hashes[at]) { ++wrong; }", "        }",
        f"        if ({n}_class(&state) != vector_classes[sample]) {{ ++wrong; }}", "    }", "    return wrong > 255 ? 255 : wrong;", "}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def replay(c: CNames) -> str:
    n = c.name
    states = [
        f"        for (i = 0; i < {p.size}; ++i) {{ put(state.{c.field(p, s.name)}[i]); }}"
        for p in c.inet.populations
        for s in p.program.states
    ]
    lines = [
        *banner(f"Replays samples through {n} on the host: stdin holds, per sample, the number of steps (int32) and each step's input;"),
        f'#include "{n}.h"', "#include <stdio.h>", "",
        f"static {n}_state state;", f"static {n}_in in;", f"static {n}_out out;", "",
        "static void put(int64_t value)", "{", "    (void)fwrite(&value, sizeof value, 1, stdout);", "}", "",
        "int main(int argc, char **argv)", "{", "    int32_t steps, k, i;", "    (void)argv;",
        f'    if (argc > 1) {{ (void)printf("%lu\\n", (unsigned long)sizeof({n}_state)); return 0; }}',
        "    while (fread(&steps, sizeof steps, 1, stdin) == 1) {", f"        {n}_reset(&state);",
        "        for (k = 0; k < steps; ++k) {", *(f"            if (fread(in.{c.node[i.name]}, sizeof in.{c.node[i.name]}, 1, stdin) != 1) {{ return 1; }}" for i in c.inet.inputs),
        f"            {n}_step(&state, &in, &out);",
        *(f"            (void)fwrite(out.{c.node[p.name]}, sizeof out.{c.node[p.name]}, 1, stdout);" for p in c.inet.populations),
        "        }", f"        put({n}_class(&state));",
        f"        for (i = 0; i < {c.classes}; ++i) {{ put(state.readout[i]); }}", *states, "    }", "    return 0;", "}", "",
    ]  # fmt: skip
    return "\n".join(lines)
