"""Printing one cell of a stage's plan as triton kernels: its step program over time, and the derivative of it.

A program of the grid has a block of the flattened [B, N] and runs all steps with the states in registers. Feed-forward
cells need nothing else. Cells that are linked and too large for :mod:`.triton_loop` are run by these kernels over the
few steps between two products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..derivative import OUTPUT_GRADIENT, gradient_name
from ..program import Arg, Op, names_read
from .plan import Plan

BLOCK = 128
"""Neurons of the flattened [B, N] in one program: few, so that a small layer is spread over many processors."""
AHEAD = 4
"""Steps whose values are being fetched at a time."""

_INFIX = {"add": "+", "sub": "-", "mul": "*"}


class Text:
    """Lines of source with their indentation."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def __call__(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    def block(self, head: str) -> None:
        self(head)
        self.depth += 1

    def kernel(self, head: str, numbers: Sequence[str] = ()) -> None:
        """Begin a kernel; its whole numbers are no reason to compile it again."""
        self.depth = 0
        listed = ", ".join(f'"{n}"' for n in ("T", "B", *numbers))
        self("", "", f"@triton.jit(do_not_specialize=[{listed}])")
        self.block(head)

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"


class Values:
    """How the operations of one cell are written: names with a prefix, literals once, all in ``dtype``."""

    def __init__(self, prefix: str, dtype: str, shape: Sequence[int]) -> None:
        self.prefix, self.dtype, self.shape = prefix, dtype, ", ".join(map(str, shape))
        self._literals: dict[float, str] = {}

    def __call__(self, arg: Arg) -> str:
        if isinstance(arg, str):
            return f"{self.prefix}{arg}"
        return self._literals.setdefault(float(arg), f"L{len(self._literals)}_{self.prefix}")

    def whole(self, arg: Arg) -> str:
        """``arg`` in the shape of the block, whatever its own is."""
        return f"tl.broadcast_to({self(arg)}, {self.shape})"

    def literals(self) -> list[str]:
        """Definitions of the literals used so far; triton alone would take them as float32 in float64 programs too."""
        number = np.dtype(self.dtype).type
        return [
            f"{name} = tl.full((), {float(number(value))!r}, tl.{self.dtype})" for value, name in self._literals.items()
        ]

    def statement(self, op: Op) -> str:
        a = [self(arg) for arg in op.args]
        forms = {
            # rounded as torch does it; triton's / is not
            "div": lambda: f"tl.div_rn({a[0]}, {a[1]})" if self.dtype == "float32" else f"{a[0]} / {a[1]}",
            "reciprocal": lambda: (
                f"tl.div_rn({self(1.0)}, {a[0]})" if self.dtype == "float32" else f"{self(1.0)} / {a[0]}"
            ),
            "sqrt": lambda: f"tl.sqrt_rn({a[0]})" if self.dtype == "float32" else f"tl.sqrt({a[0]})",
            "exp": lambda: f"tl.exp({a[0]})",
            "neg": lambda: f"-{a[0]}",
            "abs": lambda: f"tl.abs({a[0]})",
            # a NaN goes through, as in torch
            "min": lambda: f"tl.where(({a[0]} < {a[1]}) | ({a[0]} != {a[0]}), {a[0]}, {a[1]})",
            "max": lambda: f"tl.where(({a[0]} > {a[1]}) | ({a[0]} != {a[0]}), {a[0]}, {a[1]})",
            "gt": lambda: f"tl.where({a[0]} > {a[1]}, {self(1.0)}, {self(0.0)})",
            "ge": lambda: f"tl.where({a[0]} >= {a[1]}, {self(1.0)}, {self(0.0)})",
            "where": lambda: f"tl.where({a[0]} != {self(0.0)}, {a[1]}, {a[2]})",
            "fire": lambda: f"tl.where({a[0]} > {self(0.0)}, {self(1.0)}, {self(0.0)})",
            "detach": lambda: a[0],
        }
        value = f"{a[0]} {_INFIX[op.kind]} {a[1]}" if op.kind in _INFIX else forms[op.kind]()
        return f"{self(op.name)} = {value}"


def head() -> Text:
    """The beginning of a module."""
    text = Text()
    text('"""Printed by ranvier from a network\'s step programs."""', "import triton", "import triton.language as tl")
    return text


def cell_source(plan: Plan, cell: int, size: int, dtype: str) -> str:
    """A module with ``forward`` and, if the plan has gradients, ``backward`` for one cell of ``size`` neurons."""
    text = head()
    _forward(text, plan, cell, size, dtype)
    if plan.gradients:
        _backward(text, plan, cell, size, dtype)
    return str(text)


def cell_forward_names(plan: Plan, cell: int) -> list[str]:
    """What ``forward`` takes after T and B (here: neurons times samples): ``current`` [T, B, N], the states
    ``now_v`` [B, N], which it changes, values, ``output`` and, [T, B, N] each, ``states_v`` and ``saved_x``.
    """
    program = plan.cells[cell].program
    names = ["current", *(f"now_{s}" for s in program.states), *(f"value_{p}" for p in program.params), "output"]
    names += [f"states_{s}" for s in program.states] if plan.keep_states else []
    return names + [f"saved_{s}" for s in plan.saved(cell)]


def cell_backward_names(plan: Plan, cell: int) -> list[str]:
    """What ``backward`` takes after T and B: ``d_output`` [T, B, N], ``d_states_v`` [T, B, N] if states were kept, the
    gradients of the states ``carry_v`` [B, N], which it changes, values, ``saved_x``, ``d_current`` (which may be
    ``d_output``) and the sums over time ``sum_p`` [B, N] that it adds to.
    """
    planned = plan.cells[cell]
    program = planned.program
    names = ["d_output", *(f"d_states_{s}" for s in program.states if plan.keep_states)]
    names += [*(f"carry_{s}" for s in program.states), *(f"value_{p}" for p in program.params)]
    names += [*(f"saved_{s}" for s in plan.saved(cell)), "d_current"]
    return names + [f"sum_{p}" for p in planned.learned]


def _place(text: Text, size: int) -> None:
    text(f"at = tl.program_id(0) * {BLOCK} + tl.arange(0, {BLOCK})", "live = at < B", f"n = at % {size}")


def _forward(text: Text, plan: Plan, cell: int, size: int, dtype: str) -> None:
    program = plan.cells[cell].program
    x = Values("x_", dtype, [BLOCK])
    saved = plan.saved(cell)
    read = names_read((*program.next_state.values(), program.output, *saved), program.ops)
    ops = [x.statement(op) for op in program.ops]
    after = [f"r_{s} = {x.whole(v)}" for s, v in program.next_state.items()]
    output = x.whole(program.output)
    text.kernel(f"def forward(T, B, {', '.join(cell_forward_names(plan, cell))}):")
    _place(text, size)
    text(*x.literals())
    text(*(f"x_{p} = tl.load(value_{p} + n, mask=live, other=0.0)" for p in program.params if p in read))
    text(*(f"r_{s} = tl.load(now_{s} + at, mask=live, other=0.0)" for s in program.states))
    text("row = tl.zeros((), tl.int64)")
    text.block(f"for t in tl.range(0, T, num_stages={AHEAD}):")
    text("x_current = tl.load(current + row + at, mask=live, other=0.0)")
    text(*(f"x_{s} = r_{s}" for s in program.states), *ops, *after)
    text(f"tl.store(output + row + at, {output}, mask=live)")
    text(*(f"tl.store(saved_{s} + row + at, x_{s}, mask=live)" for s in saved))
    if plan.keep_states:
        text(*(f"tl.store(states_{s} + row + at, r_{s}, mask=live)" for s in program.states))
    text("row += B")
    text.depth -= 1
    text(*(f"tl.store(now_{s} + at, r_{s}, mask=live)" for s in program.states))


def _backward(text: Text, plan: Plan, cell: int, size: int, dtype: str) -> None:
    planned = plan.cells[cell]
    program, derivative = planned.program, planned.derivative
    results = derivative.gradients
    x = Values("x_", dtype, [BLOCK])
    read = names_read(results.values(), derivative.ops)
    ops = [x.statement(op) for op in derivative.ops]
    after = [f"r_{s} = {x.whole(results[s])}" for s in program.states]
    sums = [f"r_{p} = r_{p} + {x.whole(results[p])}" for p in planned.learned]
    d_current = x.whole(results["current"])
    text.kernel(f"def backward(T, B, {', '.join(cell_backward_names(plan, cell))}):")
    _place(text, size)
    text(*x.literals())
    text(*(f"x_{p} = tl.load(value_{p} + n, mask=live, other=0.0)" for p in program.params if p in read))
    text(*(f"r_{s} = tl.load(carry_{s} + at, mask=live, other=0.0)" for s in program.states))
    text(*(f"r_{p} = tl.zeros(({BLOCK},), tl.{dtype})" for p in planned.learned))
    text("row = (tl.zeros((), tl.int64) + T - 1) * B")
    text.block(f"for back in tl.range(0, T, num_stages={AHEAD}):")
    text(f"x_{OUTPUT_GRADIENT} = tl.load(d_output + row + at, mask=live, other=0.0)")
    text(*(f"x_{s} = tl.load(saved_{s} + row + at, mask=live, other=0.0)" for s in derivative.saved if s in read))
    for s in program.states:
        arrived = f" + tl.load(d_states_{s} + row + at, mask=live, other=0.0)" if plan.keep_states else ""
        text(f"x_{gradient_name(s)} = r_{s}{arrived}")
    text(*ops, *after, *sums, f"tl.store(d_current + row + at, {d_current}, mask=live)", "row -= B")
    text.depth -= 1
    text(*(f"tl.store(carry_{s} + at, r_{s}, mask=live)" for s in program.states))
    for p in planned.learned:
        text(f"so_far = tl.load(sum_{p} + at, mask=live, other=0.0)")
        text(f"tl.store(sum_{p} + at, so_far + r_{p}, mask=live)")
