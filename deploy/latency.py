"""What a step of an exported C program costs: time on this machine, instructions on an Arm Cortex-M4.

The self-test of the export is linked unchanged, and the linker puts a clock around its calls of the step
(``--wrap``). On the Cortex-M4 it runs in QEMU's model of Arm's AN386 board, which counts instructions, not cycles: a
step's time there depends on clock, flash and bus. The self-test compares every output of every step as it runs.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from ..errors import ToolError
from .c import export_c
from .integer import IntegerNetwork
from .tools import find_tool, run_tool
from .verify import Stimuli

REPEATS = 15
ARM = ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-ffreestanding", "-std=c99", "-Os", "-nostdlib")
TICK = 40
"""Instructions in one tick of SysTick: 25 MHz of the board's clock, at one instruction a nanosecond."""

HOST = """#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <time.h>
#include "{name}.h"
int selftest(void);
void __real_{name}_step({name}_state *state, const {name}_in *in, {name}_out *out);
void __wrap_{name}_step({name}_state *state, const {name}_in *in, {name}_out *out);
static double spent;
static long steps;
void __wrap_{name}_step({name}_state *state, const {name}_in *in, {name}_out *out)
{{
    struct timespec a, b;
    (void)clock_gettime(CLOCK_MONOTONIC, &a);
    __real_{name}_step(state, in, out);
    (void)clock_gettime(CLOCK_MONOTONIC, &b);
    spent += (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
    ++steps;
}}
int main(void)
{{
    int k;
    for (k = 0; k < {repeats}; ++k) {{
        spent = 0;
        steps = 0;
        if (selftest() != 0) {{ return 1; }}
        (void)printf("%.6f\\n", spent / (double)steps);
    }}
    return 0;
}}
"""

CORTEX = """#include <stddef.h>
#include <stdint.h>
#include "{name}.h"
#define SYSTICK ((volatile uint32_t *)0xE000E010u)
#define PAINT 0xA5A5A5A5u
#define PAINTED 1024
int selftest(void);
extern uint32_t stack_top;
void __real_{name}_step({name}_state *state, const {name}_in *in, {name}_out *out);
void __wrap_{name}_step({name}_state *state, const {name}_in *in, {name}_out *out);
static uint32_t ticks, most, steps, deepest;
void __wrap_{name}_step({name}_state *state, const {name}_in *in, {name}_out *out)
{{
    volatile uint32_t *low;
    uint32_t took, i;
    __asm__ volatile("mov %0, sp" : "=r"(low));
    low -= PAINTED;
    for (i = 0; i < PAINTED; ++i) {{ low[i] = PAINT; }} /* the stack below, to see how much of it a step takes */
    SYSTICK[2] = 0; /* a write clears the counter, which starts again */
    took = SYSTICK[2];
    __real_{name}_step(state, in, out);
    took = (took - SYSTICK[2]) & 0xFFFFFFu;
    for (i = 0; i < PAINTED && low[i] == PAINT; ++i) {{ }}
    if (4 * (PAINTED - i) > deepest) {{ deepest = 4 * (PAINTED - i); }}
    if (took > most) {{ most = took; }}
    ticks += took;
    ++steps;
}}
void *memset(void *to, int value, size_t n)
{{
    unsigned char *d = to;
    while (n--) {{ *d++ = (unsigned char)value; }}
    return to;
}}
void *memcpy(void *to, const void *from, size_t n)
{{
    unsigned char *d = to;
    const unsigned char *s = from;
    while (n--) {{ *d++ = *s++; }}
    return to;
}}
static void host(int operation, const void *argument)
{{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}}
static void say(uint32_t value)
{{
    char text[12];
    int i = 11;
    text[i] = 0;
    text[--i] = '\\n';
    do {{ text[--i] = (char)('0' + value % 10); value /= 10; }} while (value != 0);
    host(4, text + i);
}}
static void begin(void)
{{
    SYSTICK[1] = 0xFFFFFFu;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    say((uint32_t)selftest());
    say(ticks);
    say(most);
    say(steps);
    say(deepest);
    say((uint32_t)(sizeof({name}_state) + sizeof({name}_in) + sizeof({name}_out)));
    host(0x18, (const void *)0x20026); /* SYS_EXIT, the application's own wish */
    for (;;) {{ }}
}}
__attribute__((section(".vectors"), used)) static const void *const table[2] = {{&stack_top, (const void *)begin}};
"""

LINKER = """MEMORY { FLASH (rx) : ORIGIN = 0, LENGTH = 4M RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > FLASH
  .data : { *(.data*) } > RAM
  .bss : { *(.bss*) *(COMMON) } > RAM
  stack_top = ORIGIN(RAM) + LENGTH(RAM);
  /DISCARD/ : { *(.ARM.*) }
}
"""


def c_latency(inet: IntegerNetwork, x: Stimuli, name: str = "net") -> dict[str, Any]:
    """Time and instructions of one step of the C program, over the samples ``x`` [T, B, N].

    Returns:
        ``us_per_step`` (mean over the steps, median of 15 runs, ``-O2``, on this machine), None without a compiler
        for it; ``cortex_m4``: ``instructions_per_step``, ``instructions_slowest_step`` (to 40), ``stack`` (bytes
        below the caller of the step), ``ram`` (bytes of state, input and output there), ``differing_steps`` (steps
        and classes that are not the integer model's), at ``-Os``; or ``reason``, why it was not run.

    Raises:
        ToolError: a compiler or the emulator is there but failed, or this machine's program differs from ``inet``.
    """
    with tempfile.TemporaryDirectory() as work:
        export_c(inet, work, name, x)
        return {"us_per_step": _host(Path(work), name), "cortex_m4": _cortex(Path(work), name)}


def _host(work: Path, name: str) -> float | None:
    compiler = find_tool("cc", "gcc", "clang")
    if compiler is None:
        return None
    (work / "latency.c").write_text(HOST.format(name=name, repeats=REPEATS))
    parts = [f"{name}.c", f"{name}_test.c", "latency.c"]
    for part in parts:
        main = ["-Dmain=selftest"] if part.endswith("_test.c") else []
        run_tool([compiler, "-std=c99", "-O2", *main, "-c", part], work)
    wrapped = [f"-Wl,--wrap={name}_step", *(p.replace(".c", ".o") for p in parts)]
    run_tool([compiler, *wrapped, "-o", "latency"], work)
    return statistics.median(float(line) for line in run_tool(["./latency"], work).split())


def _cortex(work: Path, name: str) -> dict[str, Any]:
    compiler, emulator = find_tool(ARM[0]), find_tool("qemu-system-arm")
    if compiler is None or emulator is None:
        return {
            "reason": "no arm-none-eabi-gcc and qemu-system-arm: sudo apt install gcc-arm-none-eabi qemu-system-arm"
        }
    (work / "cortex.c").write_text(CORTEX.format(name=name))
    (work / "cortex.ld").write_text(LINKER)
    build = [compiler, *ARM[1:], f"-Wl,--wrap={name}_step", "-Dmain=selftest", "-T", "cortex.ld"]
    run_tool([*build, f"{name}.c", f"{name}_test.c", "cortex.c", "-lgcc", "-o", "cortex.elf"], work)
    run = [
        emulator,
        "-M",
        "mps2-an386",
        "-icount",
        "shift=0",
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "none",
    ]
    talk = ["-chardev", "stdio,id=said", "-semihosting-config", "enable=on,target=native,chardev=said"]
    said = run_tool([*run, *talk, "-kernel", "cortex.elf"], work, timeout=600)
    try:
        wrong, ticks, most, steps, stack, ram = (int(line) for line in said.split())
    except ValueError as error:
        raise ToolError(f"the program on the emulated Cortex-M4 said {said[-200:]!r}") from error
    return {
        "instructions_per_step": TICK * ticks / steps,
        "instructions_slowest_step": TICK * most,
        "stack": stack,
        "ram": ram,
        "differing_steps": wrong,
    }
