"""Lowering: a step program and the formats of its states to an integer program.

Binary points are chosen here, once for all targets. Widths come from interval arithmetic, starting at the saturated
ranges of the states and the current; nothing knows which neuron it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ExportError
from ..neurons import StepProgram
from ..neurons.program import Arg as RealArg
from .formats import Constant, Formats, Value
from .intervals import product_interval, quantised
from .lowering_emit import Emitter
from .lowering_rules import Rules
from .program import ACC, WORD, Arg, IntProgram, IntValue


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
        self.source, self.formats, self.label = program, formats, label
        self.out = Emitter(formats.states, acc)
        rules = Rules(self.out, formats, label)
        self.env: dict[str, Value | Constant] = {
            n: Constant(np.asarray(v, np.float64).reshape(-1), n) for n, v in values.items()
        }
        for name, state in formats.states.items():
            self.env[name] = Value(name, state.frac, state.lo, state.hi)
        reads = {a for op in program.ops for a in op.args} | {*program.next_state.values(), program.output}
        if "current" in reads:
            self.env["current"] = self.current(scale, bias)
        for op in program.ops:
            self.env[op.name] = rules.apply(op.name, op.kind, [self.operand(a) for a in op.args])

    def current(self, scale: np.ndarray, bias: np.ndarray) -> Value:
        """The accumulator as a current: one multiply-shift per neuron, plus the bias, saturated."""
        form = self.formats.current
        real = scale * 2.0**form.frac
        peak = float(real.max())
        factor_bits = 24
        shift = min(max(factor_bits - 2 - math.floor(math.log2(peak)), 1), 60) if peak > 0 else 1
        factors = Constant(real, "scale")
        factor = self.out.constant(factors, shift)
        if factor.bits > WORD:
            raise ExportError(
                f"{self.label}: its weights are too large for the current's format (scale {scale.max():g})"
            )
        value: Value
        if factor.lo == factor.hi == 0 or self.out.acc == (0, 0):
            value = Value(0, form.frac, 0, 0)
        else:
            low, high = product_interval(self.out.acc, (factor.lo, factor.hi))
            product = self.out.emit("scaled", "mul", (ACC, factor.arg), low, high, form.frac + shift)
            value = self.out.at(product, form.frac, "input")
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
        value = self.out.clamp(value, least, most, "input_sat")
        if np.any(bias):
            ends = (-np.inf, np.inf) if far else (form.lo * 2.0**-form.frac, form.hi * 2.0**-form.frac)
            offset = self.out.constant(Constant(np.clip(bias, *ends), "bias"), form.frac)
            low, high = value.lo + offset.lo, value.hi + offset.hi
            if isinstance(value.arg, int) and isinstance(offset.arg, int):
                value = Value(low, form.frac, low, high)
            else:
                value = self.out.emit("current", "add", (value.arg, offset.arg), low, high, form.frac)
            value = self.out.clamp(value, form.lo, form.hi, "current_sat")
        return value

    def result(self) -> Lowered:
        stored: dict[str, Arg] = {}
        initial: dict[str, np.ndarray] = {}
        for name, arg in self.source.next_state.items():
            form = self.formats.states[name]
            stored[name] = self.out.store(self.operand(arg), form, f"{name}_next").arg
            start = self.operand(self.source.initial[name])
            if not isinstance(start, Constant):
                raise ExportError(f"{self.label}: the initial value of state {name!r} is not a constant")
            initial[name] = np.clip(quantised(start.real, form.frac), form.lo, form.hi)
        output = self.output(stored)
        ops, tables = self.out.needed([*stored.values(), output.arg])
        typed = IntProgram(
            states=tuple(self.formats.states[s] for s in self.source.states),
            tables=tuple(v for v, _ in tables.values()),
            acc=self.out.acc,
            ops=ops,
            next_state=stored,
            output=output.arg,
            output_value=IntValue("output", output.lo, output.hi, output.frac),
            binary=self.source.output_kind == "binary",
            signed=self.source.output_kind == "signed",
        )
        return Lowered(typed, {n: a for n, (_, a) in tables.items()}, initial)

    def output(self, stored: Mapping[str, Arg]) -> Value:
        arg = self.source.output
        lowest = {"binary": 0, "signed": -1}.get(self.source.output_kind)
        if lowest is not None:
            value = self.operand(arg)
            value = self.out.at(value, 0) if isinstance(value, Constant) else value
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
        return self.out.at(value, self.formats.frac) if isinstance(value, Constant) else value

    def operand(self, arg: RealArg) -> Value | Constant:
        return self.env[arg] if isinstance(arg, str) else Constant(np.array([arg]), f"{arg:g}")
