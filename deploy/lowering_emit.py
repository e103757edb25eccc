"""Emitting the integer program: operations with their intervals and widths, constants as literals or tables, and values
moved to another binary point, saturated or rounded to what fits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from .formats import Constant, Value
from .intervals import quantised
from .program import ACC, WORD, Arg, IntOp, IntValue, bits_of


class Emitter:
    """The operations and tables of one population so far, from its ``states`` and its accumulator in ``acc``."""

    def __init__(self, states: Mapping[str, IntValue], acc: tuple[int, int]) -> None:
        self.states, self.acc = states, acc
        self.ops: list[IntOp] = []
        self.tables: dict[str, tuple[IntValue, np.ndarray]] = {}
        self.seen: dict[tuple[str, tuple[Arg, ...]], Value] = {}
        self.taken = {*states, ACC}

    def emit(self, hint: str, kind: str, args: Sequence[Arg], lo: int, hi: int, frac: int, work: int = 0) -> Value:
        """The value of an operation, named after ``hint``; one that was emitted before is taken again."""
        key = (kind, tuple(args))
        if key not in self.seen:
            name = self.fresh(hint)
            inputs = [
                bits_of(a, a) if isinstance(a, int) else self.width(a)
                for a in args[: 1 if kind in ("shl", "rsr") else None]
            ]
            self.ops.append(IntOp(name, kind, tuple(args), lo, hi, max(work, bits_of(lo, hi), *inputs)))
            self.seen[key] = Value(name, frac, lo, hi)
        known = self.seen[key]
        return Value(known.arg, frac, known.lo, known.hi)

    def width(self, name: str) -> int:
        if name == ACC:
            return bits_of(*self.acc)
        if name in self.states:
            return self.states[name].bits
        if name in self.tables:
            return self.tables[name][0].bits
        return next(op.bits for op in reversed(self.ops) if op.name == name)

    def fresh(self, hint: str) -> str:
        hint = re.sub(r"\W", "_", hint, flags=re.ASCII)
        name, number = hint, 1
        while name in self.taken:
            number += 1
            name = f"{hint}_{number}"
        self.taken.add(name)
        return name

    def constant(self, value: Constant, frac: int) -> Value:
        """``value`` at binary point ``frac``: a literal if all neurons share it, else a table."""
        whole = quantised(value.real, frac)
        lo, hi = int(whole.min()), int(whole.max())
        if lo == hi:
            return Value(lo, frac, lo, hi)
        for name, (known, table) in self.tables.items():
            if known.frac == frac and np.array_equal(table, whole):
                return Value(name, frac, lo, hi)
        name = self.fresh(value.name)
        self.tables[name] = (IntValue(name, lo, hi, frac), whole)
        return Value(name, frac, lo, hi)

    def peek(self, value: Value | Constant, frac: int) -> tuple[int, int]:
        """The interval that ``value`` would have at ``frac``."""
        if isinstance(value, Constant):
            whole = quantised(value.real, frac, check=False)
            return int(whole.min()), int(whole.max())
        shift = frac - value.frac
        if shift >= 0:
            return value.lo << shift, value.hi << shift
        half = 1 << (-shift - 1)
        return (value.lo + half) >> -shift, (value.hi + half) >> -shift

    def at(self, value: Value | Constant, frac: int, hint: str = "aligned") -> Value:
        """``value`` at binary point ``frac``, rounding half up where bits are lost."""
        if isinstance(value, Constant):
            return self.constant(value, frac)
        shift = frac - value.frac
        if shift == 0:
            return value
        lo, hi = self.peek(value, frac)
        if isinstance(value.arg, int):
            return Value(lo, frac, lo, hi)
        if shift > 0:
            return self.emit(hint, "shl", (value.arg, shift), lo, hi, frac)
        half = 1 << (-shift - 1)
        return self.emit(hint, "rsr", (value.arg, -shift), lo, hi, frac, bits_of(value.lo, value.hi + half))

    def within_word(self, value: Value, hint: str, target: int | None = None) -> Value:
        """``value`` rounded to ``target`` binary places (if it has more) and to what fits the word."""
        frac = value.frac if target is None else min(value.frac, target)
        while bits_of(*self.peek(value, frac)) > WORD:
            frac -= 1
        return self.at(value, frac, hint)

    def clamp(self, value: Value, lo: int, hi: int, hint: str) -> Value:
        if value.lo >= lo and value.hi <= hi:
            return value
        if isinstance(value.arg, int):
            kept = min(max(value.arg, lo), hi)
            return Value(kept, value.frac, kept, kept)
        low, high = min(max(value.lo, lo), hi), max(min(value.hi, hi), lo)
        return self.emit(hint, "clamp", (value.arg, lo, hi), low, high, value.frac, bits_of(lo, hi))

    def store(self, value: Value | Constant, form: IntValue, hint: str) -> Value:
        """``value`` rounded and saturated to the format of a state."""
        if isinstance(value, Constant):
            return self.clamp(self.constant(value, form.frac), form.lo, form.hi, hint)
        shift = form.frac - value.frac
        if shift > 0:  # saturate before widening, so that the shift cannot leave the word
            value = self.clamp(value, -(-form.lo >> shift) - 1, (form.hi >> shift) + 1, hint)
        return self.clamp(self.at(value, form.frac, hint), form.lo, form.hi, hint)

    def needed(self, results: Sequence[Arg]) -> tuple[tuple[IntOp, ...], dict[str, tuple[IntValue, np.ndarray]]]:
        """The operations and the tables that ``results`` come from."""
        read = set(results)
        kept = []
        for op in reversed(self.ops):
            if op.name in read:
                kept.append(op)
                read.update(op.args)
        return tuple(reversed(kept)), {n: t for n, t in self.tables.items() if n in read}
