"""Lowering: a step program and the formats of its states to an integer program.

Binary points are chosen here, once for all targets. Widths come from interval arithmetic, starting at the saturated
ranges of the states and the current; nothing knows which neuron it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ExportError
from ..neurons import StepProgram
from ..neurons.program import Arg as RealArg
from .intervals import FOLD, NUMPY_SCALAR, fitting_frac, hull, product_interval, quantised, trailing_zeros
from .program import ACC, MAX_FRAC, WORD, Arg, IntOp, IntProgram, IntValue, bits_of


@dataclass(frozen=True)
class Value:
    """An integer value while lowering: its operand, binary point and interval."""

    arg: Arg
    frac: int
    lo: int
    hi: int

    @property
    def bits(self) -> int:
        return bits_of(self.lo, self.hi)


@dataclass(frozen=True)
class Constant:
    """A value known at export: real numbers [1] or [N], quantised where they are used, in the format that use needs."""

    real: np.ndarray
    name: str

    def exact_frac(self, limit: int) -> int | None:
        """The smallest binary point, up to ``limit``, at which all are whole numbers."""
        return next((f for f in range(limit + 1) if np.all(self.real * 2.0**f == np.round(self.real * 2.0**f))), None)


@dataclass(frozen=True)
class Formats:
    """What calibration decided for one population.

    ``states``: interval and binary point of each state. ``current``: those of the input current, which saturates.
    ``magnitude``: the largest absolute value of each value of the step program. ``frac``: binary point that
    intermediate values need at least. ``param_bits``: width of factors that are constants.
    """

    states: Mapping[str, IntValue]
    current: IntValue
    magnitude: Mapping[str, float]
    frac: int
    param_bits: int


@dataclass(frozen=True)
class Lowered:
    program: IntProgram
    tables: dict[str, np.ndarray]
    initial: dict[str, np.ndarray]


def lower(
    program: StepProgram,
    values: Mapping[str, np.ndarray],
    formats: Formats,
    acc: tuple[int, int],
    scale: np.ndarray,
    bias: np.ndarray,
    label: str,
) -> Lowered:
    """Type ``program`` to integers.

    Args:
        values: the program's parameters, float64 [1] or [N].
        acc: interval of the accumulator.
        scale: the current that one unit of the accumulator stands for, per neuron [N].
        bias: constant current per neuron [N], added at the current's binary point.
        label: name of the population, for errors.

    Raises:
        ExportError: naming an operation that has no integer form.
    """
    return _Lowering(program, values, formats, acc, scale, bias, label).result()


class _Lowering:
    def __init__(
        self,
        program: StepProgram,
        values: Mapping[str, np.ndarray],
        formats: Formats,
        acc: tuple[int, int],
        scale: np.ndarray,
        bias: np.ndarray,
        label: str,
    ) -> None:
        self.source, self.formats, self.label, self.acc = program, formats, label, acc
        self.ops: list[IntOp] = []
        self.tables: dict[str, tuple[IntValue, np.ndarray]] = {}
        self.seen: dict[tuple[str, tuple[Arg, ...]], Value] = {}
        self.taken = {*program.states, ACC}
        self.env: dict[str, Value | Constant] = {
            n: Constant(np.asarray(v, np.float64).reshape(-1), n) for n, v in values.items()
        }
        for name, state in formats.states.items():
            self.env[name] = Value(name, state.frac, state.lo, state.hi)
        self.size = len(scale)
        reads = {a for op in program.ops for a in op.args} | {*program.next_state.values(), program.output}
        if "current" in reads:
            self.env["current"] = self.current(scale, bias)
        for op in program.ops:
            self.env[op.name] = self.operation(op.name, op.kind, [self.operand(a) for a in op.args])

    def result(self) -> Lowered:
        stored: dict[str, Arg] = {}
        initial: dict[str, np.ndarray] = {}
        for name, arg in self.source.next_state.items():
            form = self.formats.states[name]
            stored[name] = self.store(self.operand(arg), form, f"{name}_next").arg
            start = self.operand(self.source.initial[name])
            if not isinstance(start, Constant):
                raise ExportError(f"{self.label}: the initial value of state {name!r} is not a constant")
            initial[name] = np.clip(quantised(start.real, form.frac), form.lo, form.hi)
        output = self.output(stored)
        live = _prune(self.ops, [*stored.values(), output.arg])
        read = {a for op in live for a in op.args} | {*stored.values(), output.arg}
        kept = {n: t for n, t in self.tables.items() if n in read}
        typed = IntProgram(
            states=tuple(self.formats.states[s] for s in self.source.states),
            tables=tuple(v for v, _ in kept.values()),
            acc=self.acc,
            ops=live,
            next_state=stored,
            output=output.arg,
            output_value=IntValue("output", output.lo, output.hi, output.frac),
            binary=self.source.output_kind == "binary",
            signed=self.source.output_kind == "signed",
        )
        return Lowered(typed, {n: a for n, (_, a) in kept.items()}, initial)

    def output(self, stored: Mapping[str, Arg]) -> Value:
        arg = self.source.output
        lowest = {"binary": 0, "signed": -1}.get(self.source.output_kind)
        if lowest is not None:
            value = self.operand(arg)
            value = self.at(value, 0) if isinstance(value, Constant) else value
            if value.frac != 0 or value.lo < lowest or value.hi > 1:
                raise ExportError(
                    f"{self.label}: its output is declared {self.source.output_kind} but {arg!r} is not provably "
                    f"{'0' if lowest == 0 else '-1, 0'} or 1"
                )
            return value
        for name, after in self.source.next_state.items():  # a readout sends the state that it stores
            if after == arg and isinstance(arg, str):
                form = self.formats.states[name]
                return Value(stored[name], form.frac, form.lo, form.hi)
        value = self.operand(arg)
        return self.at(value, self.formats.frac) if isinstance(value, Constant) else value

    def operand(self, arg: RealArg) -> Value | Constant:
        return self.env[arg] if isinstance(arg, str) else Constant(np.array([arg]), f"{arg:g}")

    # -- emitting
    # -------------------------------------------------------------------------------------------------------------

    def emit(self, hint: str, kind: str, args: Sequence[Arg], lo: int, hi: int, frac: int, work: int = 0) -> Value:
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
        if name in self.formats.states:
            return self.formats.states[name].bits
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

    def at(self, value: Value | Constant, frac: int, hint: str = "aligned") -> Value:
        """``value`` at binary point ``frac``, rounding half up where bits are lost."""
        if isinstance(value, Constant):
            return self.constant(value, frac)
        shift = frac - value.frac
        if shift == 0:
            return value
        if isinstance(value.arg, int):
            moved = value.arg << shift if shift > 0 else (value.arg + (1 << (-shift - 1))) >> -shift
            return Value(moved, frac, moved, moved)
        if shift > 0:
            return self.emit(hint, "shl", (value.arg, shift), value.lo << shift, value.hi << shift, frac)
        half = 1 << (-shift - 1)
        lo, hi = (value.lo + half) >> -shift, (value.hi + half) >> -shift
        return self.emit(hint, "rsr", (value.arg, -shift), lo, hi, frac, bits_of(value.lo, value.hi + half))

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

    def current(self, scale: np.ndarray, bias: np.ndarray) -> Value:
        """The accumulator as a current: one multiply-shift per neuron, plus the bias, saturated."""
        form = self.formats.current
        real = scale * 2.0**form.frac
        peak = float(real.max())
        factor_bits = 24
        shift = min(max(factor_bits - 2 - math.floor(math.log2(peak)), 1), 60) if peak > 0 else 1
        factors = Constant(real, "scale")
        factor = self.constant(factors, shift)
        if factor.bits > WORD:
            raise ExportError(
                f"{self.label}: its weights are too large for the current's format (scale {scale.max():g})"
            )
        value: Value
        if factor.lo == factor.hi == 0 or self.acc == (0, 0):
            value = Value(0, form.frac, 0, 0)
        else:
            low, high = product_interval(self.acc, (factor.lo, factor.hi))
            product = self.emit("scaled", "mul", (ACC, factor.arg), low, high, form.frac + shift)
            value = self.at(product, form.frac, "input")
        least, most = form.lo, form.hi
        far = float(np.abs(bias).max()) * 2.0**form.frac > form.hi / 2
        if far:  # as the offset of samples may be: what the sum brings back into the range must not saturate before
            least, most = (
                int(end - b * 2.0**form.frac) for end, b in ((least - 1, bias.max()), (most + 1, bias.min()))
            )
            if max(most, -least) >= 1 << (WORD - 2):
                raise ExportError(
                    f"{self.label}: its bias, or a sensor's offset, is too far outside of its current's range"
                )
        value = self.clamp(value, least, most, "input_sat")
        if np.any(bias):
            ends = (-np.inf, np.inf) if far else (form.lo * 2.0**-form.frac, form.hi * 2.0**-form.frac)
            offset = self.constant(Constant(np.clip(bias, *ends), "bias"), form.frac)
            low, high = value.lo + offset.lo, value.hi + offset.hi
            if isinstance(value.arg, int) and isinstance(offset.arg, int):
                value = Value(low, form.frac, low, high)
            else:
                value = self.emit("current", "add", (value.arg, offset.arg), low, high, form.frac)
            value = self.clamp(value, form.lo, form.hi, "current_sat")
        return value

    # -- operations
    # -----------------------------------------------------------------------------------------------------------

    def operation(self, name: str, kind: str, args: list[Value | Constant]) -> Value | Constant:
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
            return self.within_word(self.emit(name, "neg", (a.arg,), -a.hi, -a.lo, a.frac), name)
        if kind == "abs" and isinstance(a, Value):
            low = 0 if a.lo <= 0 <= a.hi else min(abs(a.lo), abs(a.hi))
            return self.within_word(self.emit(name, "abs", (a.arg,), low, max(abs(a.lo), abs(a.hi)), a.frac), name)
        if kind == "where":
            return self.choice(name, a, args[1], args[2])
        raise ExportError(
            f"{self.label}: {name} = {kind}(...) has no integer form: {kind} of a value that changes while running "
            "is not exported yet; "
            f"write it with add, sub, mul, min, max, abs, comparisons and where, or move it into derive()"
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
            x, y = self.peek(a, frac), self.peek(b, frac)
            low, high = hull(kind, x, y)
            if max(bits_of(*x), bits_of(*y), bits_of(low, high)) <= WORD:
                break
            frac -= 1
        left, right = self.at(a, frac), self.at(b, frac)
        if isinstance(left.arg, int) and isinstance(right.arg, int):
            whole = int(NUMPY_SCALAR[kind](left.arg, right.arg))
            return Value(whole, 0 if kind in ("gt", "ge") else frac, whole, whole)
        low, high = hull(kind, (left.lo, left.hi), (right.lo, right.hi))
        return self.emit(name, kind, (left.arg, right.arg), low, high, 0 if kind in ("gt", "ge") else frac)

    def wanted_frac(self, value: Value | Constant, other: Value | Constant) -> int:
        """The binary point at which ``value`` wants to meet ``other``: a constant's own if it is exact, at most the
        working one.
        """
        if isinstance(value, Value):
            return value.frac
        beside = other.frac if isinstance(other, Value) else 0
        exact = value.exact_frac(max(beside, self.formats.frac, 0))
        return exact if exact is not None else max(beside, self.formats.frac)

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

    def choice(
        self, name: str, condition: Value | Constant, a: Value | Constant, b: Value | Constant
    ) -> Value | Constant:
        if isinstance(condition, Constant):
            if np.all(condition.real != 0) or np.all(condition.real == 0):
                return a if condition.real.flat[0] != 0 else b
            condition = self.constant(Constant((condition.real != 0).astype(np.float64), condition.name), 0)
        if isinstance(condition.arg, int):
            return a if condition.arg != 0 else b
        frac = max(self.wanted_frac(a, b), self.wanted_frac(b, a))
        while max(bits_of(*self.peek(a, frac)), bits_of(*self.peek(b, frac))) > WORD:
            frac -= 1
        left, right = self.at(a, frac), self.at(b, frac)
        if left.arg == right.arg:
            return left
        if (left.arg, right.arg, frac) == (1, 0, 0) and (condition.lo, condition.hi) == (0, 1):
            return condition
        return self.emit(
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
                    moved = self.emit(name, "neg", (a.arg,), -a.hi, -a.lo, moved.frac)
                return self.within_word(moved, name)
        low, high = product_interval((a.lo, a.hi), (b.lo, b.hi))
        if a.arg == b.arg:
            low = 0 if a.lo <= 0 <= a.hi else min(a.lo * a.lo, a.hi * a.hi)
        raw = self.emit(name, "mul", (a.arg, b.arg), low, high, a.frac + b.frac)
        magnitude = self.formats.magnitude.get(name, 1.0)
        significant = 15 - (math.floor(math.log2(magnitude)) + 1 if magnitude > 0 else 0)
        return self.within_word(raw, name, max(self.formats.frac, min(significant, MAX_FRAC)))

    def factor(self, value: Constant) -> Value:
        """A constant that multiplies: at full width, without trailing zeros."""
        frac = fitting_frac(float(np.max(np.abs(value.real))), self.formats.param_bits)
        exact = value.exact_frac(frac) if frac >= 0 else None
        if exact == 0:
            whole = value.real.astype(np.int64)
            twos = min(trailing_zeros(int(w)) for w in whole if w)
            exact = -twos
        return self.constant(value, frac if exact is None else exact)

    def within_word(self, value: Value, hint: str, target: int | None = None) -> Value:
        """``value`` rounded to ``target`` binary places (if it has more) and to what fits the word."""
        frac = value.frac if target is None else min(value.frac, target)
        while bits_of(*self.peek(value, frac)) > WORD:
            frac -= 1
        return self.at(value, frac, hint)


def _plain(name: str) -> str:
    return name if name.isidentifier() else "constant"


def _prune(ops: Sequence[IntOp], results: Sequence[Arg]) -> tuple[IntOp, ...]:
    needed = set(results)
    kept = []
    for op in reversed(ops):
        if op.name in needed:
            kept.append(op)
            needed.update(op.args)
    return tuple(reversed(kept))
