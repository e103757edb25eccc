"""The integer program: a step program typed to fixed point, as a flat list of explicit integer operations.

Every value has a known interval and every operation a working width, so that a printer decides nothing: it prints the
list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ExportError

Arg = str | int
"""An operand: the name of a value (state, table, ``acc`` or an earlier operation) or a literal integer."""

ACC = "acc"
"""The name of the accumulator, the program's only input besides states and tables."""
WORD = 32
"""Widest value that is kept; only a raw product or its rounding is wider, up to 64 bits."""
MAX_FRAC = 40
"""The most binary places that a value is given."""

ARITY = {
    "add": 2, "sub": 2, "mul": 2, "neg": 1, "abs": 1, "min": 2, "max": 2,
    "gt": 2, "ge": 2, "select": 3, "shl": 2, "rsr": 2, "clamp": 3,
}  # fmt: skip
"""The operations. ``gt`` and ``ge`` give 0 or 1; ``select(c, a, b)`` is a where c is not 0; ``shl(x, s)`` is x 2^s;
``rsr(x, s)`` is floor((x + 2^(s-1)) / 2^s), round half up; ``clamp(x, lo, hi)`` saturates.
"""


def bits_of(lo: int, hi: int) -> int:
    """Width of the narrowest two's-complement number that holds ``lo`` to ``hi``; at least 2."""
    return max((hi if hi >= 0 else ~hi).bit_length(), (lo if lo >= 0 else ~lo).bit_length(), 1) + 1


@dataclass(frozen=True)
class IntOp:
    """``name = kind(*args)`` with its result in [``lo``, ``hi``]; ``work`` is the width it must be computed in."""

    name: str
    kind: str
    args: tuple[Arg, ...]
    lo: int
    hi: int
    work: int

    @property
    def bits(self) -> int:
        return bits_of(self.lo, self.hi)

    def __str__(self) -> str:
        return f"{self.name} = {self.kind}({', '.join(map(str, self.args))})  # s{self.bits} [{self.lo}, {self.hi}]"


@dataclass(frozen=True)
class IntValue:
    """A state, a table or the output: its interval and its binary point (the real value is the integer times
    2^-``frac``).
    """

    name: str
    lo: int
    hi: int
    frac: int

    @property
    def bits(self) -> int:
        return bits_of(self.lo, self.hi)


@dataclass(frozen=True)
class IntProgram:
    """One step of a population in integers, elementwise over its neurons.

    ``acc`` is the interval of the accumulator (sum of weight times source, int32). ``tables`` hold one constant per
    neuron; constants equal for all neurons are literals. Every name in ``next_state`` lies in its state's interval:
    saturation is an operation of the list. The output is ``binary`` (0 or 1), ``signed`` (-1, 0 or 1) or, without
    either, a real value.
    """

    states: tuple[IntValue, ...]
    tables: tuple[IntValue, ...]
    acc: tuple[int, int]
    ops: tuple[IntOp, ...]
    next_state: Mapping[str, Arg]
    output: Arg
    output_value: IntValue
    binary: bool
    signed: bool = False

    def __post_init__(self) -> None:
        known = {v.name for v in (*self.states, *self.tables)} | {ACC}
        for op in self.ops:
            if ARITY.get(op.kind) != len(op.args) or op.name in known:
                raise ExportError(f"integer program: {op} is not a known operation or assigns a name twice")
            for arg in op.args:
                if isinstance(arg, str) and arg not in known:
                    raise ExportError(f"integer program: {op} reads {arg!r}, which is not defined before it")
            if op.bits > 64 or op.work > 64:
                raise ExportError(f"integer program: {op} needs more than 64 bits")
            known.add(op.name)
        for arg in (*self.next_state.values(), self.output):
            if isinstance(arg, str) and arg not in known:
                raise ExportError(f"integer program: the result {arg!r} is not defined")
        if set(self.next_state) != {s.name for s in self.states}:
            raise ExportError("integer program: a state has no next value")

    @property
    def spikes(self) -> bool:
        """Whether the output is spikes, which other populations can read."""
        return self.binary or self.signed

    @property
    def dtype(self) -> np.dtype:
        """The type of the output."""
        return np.dtype(np.uint8 if self.binary else np.int8 if self.signed else np.int32)

    @property
    def kind(self) -> str:
        return "binary" if self.binary else "signed" if self.signed else f"frac {self.output_value.frac}"

    def __str__(self) -> str:
        lines = [f"state {s.name}: s{s.bits} frac {s.frac}" for s in self.states]
        lines += [f"table {t.name}: s{t.bits} frac {t.frac}" for t in self.tables]
        lines += [f"acc: s{bits_of(*self.acc)}", *map(str, self.ops)]
        lines += [f"next {k} <- {v}" for k, v in self.next_state.items()]
        return "\n".join([*lines, f"output {self.output} ({self.kind})"])

    def interval(self, arg: Arg) -> tuple[int, int]:
        """[lo, hi] of an operand."""
        if not isinstance(arg, str):
            return arg, arg
        if arg == ACC:
            return self.acc
        value = next(v for v in (*self.states, *self.tables, *self.ops) if v.name == arg)
        return value.lo, value.hi

    def run(
        self, state: Mapping[str, np.ndarray], acc: np.ndarray, tables: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """One step in NumPy int64: ``state`` and ``acc`` [B, N], ``tables`` [N] each; returns next state and output [B,
        N].
        """
        env: dict[str, Any] = {**tables, **state, ACC: acc}
        for op in self.ops:
            env[op.name] = NUMPY[op.kind](*(env[a] if isinstance(a, str) else a for a in op.args))
        full = np.zeros_like(acc)

        def read(arg: Arg) -> np.ndarray:
            return np.broadcast_to(np.asarray(env[arg] if isinstance(arg, str) else arg, np.int64), full.shape)

        return {s: read(a) for s, a in self.next_state.items()}, read(self.output)

    def to_json(self) -> dict[str, Any]:
        return {
            "states": [[v.name, v.lo, v.hi, v.frac] for v in self.states],
            "tables": [[v.name, v.lo, v.hi, v.frac] for v in self.tables],
            "acc": list(self.acc),
            "ops": [[op.name, op.kind, list(op.args), op.lo, op.hi, op.work] for op in self.ops],
            "next_state": dict(self.next_state),
            "output": self.output,
            "output_value": [
                self.output_value.name,
                self.output_value.lo,
                self.output_value.hi,
                self.output_value.frac,
            ],
            "binary": self.binary,
            "signed": self.signed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> IntProgram:
        """Read :meth:`to_json`'s data; raises :class:`ExportError` if it is malformed."""
        try:
            return cls(
                states=tuple(IntValue(*v) for v in data["states"]),
                tables=tuple(IntValue(*v) for v in data["tables"]),
                acc=(int(data["acc"][0]), int(data["acc"][1])),
                ops=tuple(IntOp(n, k, tuple(a), lo, hi, work) for n, k, a, lo, hi, work in data["ops"]),
                next_state=dict(data["next_state"]),
                output=data["output"],
                output_value=IntValue(*data["output_value"]),
                binary=bool(data["binary"]),
                signed=bool(data["signed"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ExportError(f"integer program: the JSON data is malformed ({error!r})") from error


NUMPY: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "abs": np.abs,
    "min": np.minimum,
    "max": np.maximum,
    "gt": lambda a, b: np.greater(a, b).astype(np.int64),
    "ge": lambda a, b: np.greater_equal(a, b).astype(np.int64),
    "select": lambda c, a, b: np.where(np.not_equal(c, 0), a, b),
    "shl": lambda a, s: a * (1 << s),
    "rsr": lambda a, s: (a + (1 << (s - 1))) >> s,
    "clamp": np.clip,
}
"""What each operation does, on int64 arrays: the definition that every target must equal."""
