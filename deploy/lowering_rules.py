"""What each operation of a step program is in integers: at which binary point its operands meet, and what becomes of
products. Constants are folded in float64 and rounded only where they are used.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ExportError
from .formats import Constant, Formats, Value
from .intervals import FOLD, NUMPY_SCALAR, fitting_frac, hull, product_interval, trailing_zeros
from .lowering_emit import Emitter
from .program import MAX_FRAC, WORD, bits_of


class Rules:
    """The rules for one population, which ``label`` names in errors; what they emit goes to ``out``."""

    def __init__(self, out: Emitter, formats: Formats, label: str) -> None:
        self.out, self.formats, self.label = out, formats, label

    def apply(self, name: str, kind: str, args: list[Value | Constant]) -> Value | Constant:
        """``name = kind(*args)``. Raises :class:`ExportError` for what has no integer form."""
        if all(isinstance(a, Constant) for a in args):
            return self.folded(name, kind, [a for a in args if isinstance(a, Constant)])
        a = args[0]
        if kind == "detach":
            return a
        if kind == "div" and isinstance(args[1], Constant):
            if np.any(args[1].real == 0):
                raise ExportError(f"{self.label}: {name} divides by {args[1].name}, which is 0")
            return self.product(name, a, Constant(1.0 / args[1].real, f"inverse_{_plain(args[1].name)}"))
        if kind == "mul":
            return self.product(name, a, args[1])
        if kind in ("add", "sub", "min", "max", "gt", "ge"):
            return self.pairwise(name, kind, a, args[1])
        if kind == "fire":
            return self.pairwise(name, "gt", a, Constant(np.array([0.0]), "0"))
        if kind == "neg" and isinstance(a, Value):
            return self.out.within_word(self.out.emit(name, "neg", (a.arg,), -a.hi, -a.lo, a.frac), name)
        if kind == "abs" and isinstance(a, Value):
            low = 0 if a.lo <= 0 <= a.hi else min(abs(a.lo), abs(a.hi))
            return self.out.within_word(
                self.out.emit(name, "abs", (a.arg,), low, max(abs(a.lo), abs(a.hi)), a.frac), name
            )
        if kind == "where":
            return self.choice(name, a, args[1], args[2])
        raise ExportError(
            f"{self.label}: {name} = {kind}(...) has no integer form: {kind} of a value that changes while running "
            "is not exported yet; "
            "write it with add, sub, mul, min, max, abs, comparisons and where, or move it into derive()"
        )

    def folded(self, name: str, kind: str, args: list[Constant]) -> Constant:
        with np.errstate(all="ignore"):
            real = np.asarray(FOLD[kind](*(a.real for a in args)), np.float64)
        if not np.all(np.isfinite(real)):
            raise ExportError(
                f"{self.label}: the constant {name} = {kind}({', '.join(a.name for a in args)}) is not finite"
            )
        return Constant(real, name)

    def pairwise(self, name: str, kind: str, a: Value | Constant, b: Value | Constant) -> Value:
        for this, other in ((a, b), (b, a)) if kind == "add" else ():
            if isinstance(this, Value) and isinstance(other, Constant) and not np.any(other.real):
                return this
        frac = max(self.wanted_frac(a, b), self.wanted_frac(b, a))
        while True:
            x, y = self.out.peek(a, frac), self.out.peek(b, frac)
            low, high = hull(kind, x, y)
            if max(bits_of(*x), bits_of(*y), bits_of(low, high)) <= WORD:
                break
            frac -= 1
        left, right = self.out.at(a, frac), self.out.at(b, frac)
        if isinstance(left.arg, int) and isinstance(right.arg, int):
            whole = int(NUMPY_SCALAR[kind](left.arg, right.arg))
            return Value(whole, 0 if kind in ("gt", "ge") else frac, whole, whole)
        low, high = hull(kind, (left.lo, left.hi), (right.lo, right.hi))
        return self.out.emit(name, kind, (left.arg, right.arg), low, high, 0 if kind in ("gt", "ge") else frac)

    def wanted_frac(self, value: Value | Constant, other: Value | Constant) -> int:
        """The binary point at which ``value`` wants to meet ``other``: a constant's own if it is exact, at most the
        working one.
        """
        if isinstance(value, Value):
            return value.frac
        beside = other.frac if isinstance(other, Value) else 0
        exact = value.exact_frac(max(beside, self.formats.frac, 0))
        return exact if exact is not None else max(beside, self.formats.frac)

    def choice(
        self, name: str, condition: Value | Constant, a: Value | Constant, b: Value | Constant
    ) -> Value | Constant:
        if isinstance(condition, Constant):
            if np.all(condition.real != 0) or np.all(condition.real == 0):
                return a if condition.real.flat[0] != 0 else b
            condition = self.out.constant(Constant((condition.real != 0).astype(np.float64), condition.name), 0)
        if isinstance(condition.arg, int):
            return a if condition.arg != 0 else b
        frac = max(self.wanted_frac(a, b), self.wanted_frac(b, a))
        while max(bits_of(*self.out.peek(a, frac)), bits_of(*self.out.peek(b, frac))) > WORD:
            frac -= 1
        left, right = self.out.at(a, frac), self.out.at(b, frac)
        if left.arg == right.arg:
            return left
        if (left.arg, right.arg, frac) == (1, 0, 0) and (condition.lo, condition.hi) == (0, 1):
            return condition
        return self.out.emit(
            name, "select", (condition.arg, left.arg, right.arg), min(left.lo, right.lo), max(left.hi, right.hi), frac
        )

    def product(self, name: str, a: Value | Constant, b: Value | Constant) -> Value | Constant:
        if isinstance(a, Constant):
            a, b = b, a
        assert isinstance(a, Value)
        if isinstance(b, Value) and (b.frac, b.lo, b.hi) == (0, 0, 1):
            a, b = b, a
        if isinstance(a.arg, int) and isinstance(b, Constant):
            return Constant(a.arg * 2.0**-a.frac * b.real, name)
        if (a.frac, a.lo, a.hi) == (0, 0, 1):  # a spike chooses, it needs no multiplier
            return self.choice(name, a, b, Constant(np.array([0.0]), "0"))
        if isinstance(b, Constant):
            if not np.any(b.real):
                return Constant(np.array([0.0]), name)
            b = self.factor(b)
            if isinstance(b.arg, int) and abs(b.arg) == 1:  # a power of two only moves the binary point
                moved = Value(a.arg, a.frac + b.frac, a.lo, a.hi)
                if b.arg < 0:
                    moved = self.out.emit(name, "neg", (a.arg,), -a.hi, -a.lo, moved.frac)
                return self.out.within_word(moved, name)
        low, high = product_interval((a.lo, a.hi), (b.lo, b.hi))
        if a.arg == b.arg:
            low = 0 if a.lo <= 0 <= a.hi else min(a.lo * a.lo, a.hi * a.hi)
        raw = self.out.emit(name, "mul", (a.arg, b.arg), low, high, a.frac + b.frac)
        magnitude = self.formats.magnitude.get(name, 1.0)
        significant = 15 - (math.floor(math.log2(magnitude)) + 1 if magnitude > 0 else 0)
        return self.out.within_word(raw, name, max(self.formats.frac, min(significant, MAX_FRAC)))

    def factor(self, value: Constant) -> Value:
        """A constant that multiplies: at full width, without trailing zeros."""
        frac = fitting_frac(float(np.max(np.abs(value.real))), self.formats.param_bits)
        exact = value.exact_frac(frac) if frac >= 0 else None
        if exact == 0:
            whole = value.real.astype(np.int64)
            twos = min(trailing_zeros(int(w)) for w in whole if w)
            exact = -twos
        return self.out.constant(value, frac if exact is None else exact)


def _plain(name: str) -> str:
    return name if name.isidentifier() else "constant"
