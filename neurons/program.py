"""The step program: one neuron's step as a short list of scalar operations.

A step program is pure data. It is traced once from a neuron's Python ``step`` (:mod:`.trace`), completed by the library
with reset and refractoriness (:mod:`.transforms`), and read by everything that runs or exports a neuron: the eager
engine, the integer model, C and Verilog. Adding a target means reading this list; adding a neuron means writing a step.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, TraceError
from .surrogate import Surrogate, surrogate_from_spec

Arg = str | float
"""An operand: the name of a value, or a literal number."""

ARITY = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "abs": 1, "min": 2, "max": 2,
    "exp": 1, "reciprocal": 1, "sqrt": 1, "gt": 2, "ge": 2, "where": 3, "fire": 1, "detach": 1,
}  # fmt: skip
"""The operations and how many operands each takes. Comparisons give 0 or 1; ``fire`` 1 where its operand is > 0."""

OUTPUT_KINDS = ("binary", "signed", "real")
"""What a population sends: 0 or 1; -1, 0 or 1; any number."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Op:
    """``name = kind(*args)``; every name is assigned once."""

    name: str
    kind: str
    args: tuple[Arg, ...]

    def __str__(self) -> str:
        infix = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">="}
        shown = [a if isinstance(a, str) else f"{a:g}" for a in self.args]
        if self.kind in infix and len(shown) == 2:
            return f"{self.name} = {shown[0]} {infix[self.kind]} {shown[1]}"
        return f"{self.name} = {self.kind}({', '.join(shown)})"


@dataclass(frozen=True)
class StepProgram:
    """One step of a population, elementwise over its neurons.

    ``states`` and ``params`` and the name ``current`` are inputs. ``next_state`` maps each state to the value it takes,
    ``output`` names what the population sends on. ``initial`` gives each state's value before the first step: a number
    or the name of a parameter. Parameters are runtime inputs of shape [1] or [N]; nothing learnable is baked in. All
    names are ASCII identifiers and all literals finite, since exporters print them.

    Raises:
        TraceError: for anything else than a valid program.
    """

    states: tuple[str, ...]
    params: tuple[str, ...]
    ops: tuple[Op, ...]
    next_state: Mapping[str, Arg]
    output: Arg
    output_kind: str = "binary"
    initial: Mapping[str, Arg] = field(default_factory=dict)
    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        inputs = (*self.states, *self.params, "current")
        known = set(inputs)
        if len(known) < len(inputs):
            twice = sorted({n for n in inputs if inputs.count(n) > 1})
            raise TraceError(
                f"step program: {', '.join(twice)} names two of its inputs (states, parameters, derived, current)"
            )
        for name in (*inputs, *(op.name for op in self.ops)):
            if not _NAME.fullmatch(name):
                raise TraceError(f"step program: {name!r} is not a name made of ASCII letters, digits and underscores")
        for op in self.ops:
            if op.kind not in ARITY:
                raise TraceError(f"step program: unknown operation {op.kind!r} in {op}; known: {', '.join(ARITY)}")
            if len(op.args) != ARITY[op.kind]:
                raise TraceError(f"step program: {op.kind} takes {ARITY[op.kind]} operands, got {len(op.args)} in {op}")
            for arg in op.args:
                if isinstance(arg, str) and arg not in known:
                    raise TraceError(f"step program: {op} reads {arg!r}, which is not defined before it")
                if not isinstance(arg, str) and not math.isfinite(arg):
                    raise TraceError(f"step program: {op} has the literal {arg}, which is not finite")
            if not any(isinstance(arg, str) for arg in op.args):
                raise TraceError(f"step program: {op} has no operand but literals; write the number itself")
            if op.name in known:
                raise TraceError(f"step program: {op.name!r} is assigned twice")
            known.add(op.name)
        if set(self.next_state) != set(self.states) or set(self.initial) != set(self.states):
            raise TraceError(
                f"step program: next and initial values must be given for exactly the states ({', '.join(self.states)})"
            )
        for arg in (*self.next_state.values(), self.output, *self.initial.values()):
            if isinstance(arg, str) and arg not in known:
                raise TraceError(f"step program: the result {arg!r} is not defined")
            if not isinstance(arg, str) and not math.isfinite(arg):
                raise TraceError(f"step program: the result {arg} is not finite")
        for state, arg in self.initial.items():
            if isinstance(arg, str) and arg not in self.params:
                raise TraceError(
                    f"step program: the initial value of {state!r} must be a number or a parameter, got {arg!r}"
                )
        if self.output_kind not in OUTPUT_KINDS:
            raise TraceError(f"step program: output kind {self.output_kind!r} is not one of {', '.join(OUTPUT_KINDS)}")
        if self.surrogate is None and any(op.kind == "fire" for op in self.ops):
            raise TraceError("step program: it fires but names no surrogate gradient")

    def __str__(self) -> str:
        lines = [f"step({', '.join((*self.states, 'current'))}; {', '.join(self.params)})"]
        lines += [f"  {op}" for op in self.ops]
        nexts = ", ".join(f"{k} <- {v if isinstance(v, str) else format(v, 'g')}" for k, v in self.next_state.items())
        lines.append(f"  next: {nexts or '(no state)'}")
        lines.append(f"  output: {self.output} ({self.output_kind})")
        if self.surrogate is not None:
            lines.append(f"  surrogate: {self.surrogate}")
        return "\n".join(lines)

    def run(
        self,
        state: Mapping[str, Tensor],
        current: Tensor,
        values: Mapping[str, Tensor],
        record: dict[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One step in torch: ``state`` [B, N] each, ``current`` [B, N], ``values`` [1] or [N] each.

        Returns the next state and the output [B, N]. ``record``, if given, receives every value by name.
        """
        env = evaluate(self.ops, {**values, **state, "current": current}, self.surrogate)
        if record is not None:
            record.update(env)
        return {s: _value(env, a, current) for s, a in self.next_state.items()}, _value(env, self.output, current)

    @cached_property
    def text(self) -> str:
        """:meth:`to_json` as one line of text: equal programs have equal texts."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    def to_json(self) -> dict[str, Any]:
        """The program as plain JSON data; :meth:`from_json` reads it back, equal."""
        return {
            "states": list(self.states),
            "params": list(self.params),
            "ops": [[op.name, op.kind, *op.args] for op in self.ops],
            "next_state": dict(self.next_state),
            "output": self.output,
            "output_kind": self.output_kind,
            "initial": dict(self.initial),
            "surrogate": None if self.surrogate is None else self.surrogate.spec(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepProgram:
        """Read :meth:`to_json`'s data. Raises :class:`TraceError` for anything that is not a valid program."""
        try:
            ops = tuple(Op(_text(n), _text(k), tuple(_arg(a) for a in args)) for n, k, *args in data["ops"])
            spec = data["surrogate"]
            return cls(
                states=_texts(data["states"]),
                params=_texts(data["params"]),
                ops=ops,
                next_state={str(k): _arg(v) for k, v in data["next_state"].items()},
                output=_arg(data["output"]),
                output_kind=_text(data["output_kind"]),
                initial={str(k): _arg(v) for k, v in data["initial"].items()},
                surrogate=None if spec is None else surrogate_from_spec(spec),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ConfigError) as error:
            raise TraceError(f"step program: the JSON data is malformed ({error!r})") from error


def evaluate(ops: Sequence[Op], env: dict[str, Any], surrogate: Surrogate | None) -> dict[str, Any]:
    """Run ``ops`` in torch on the named values of ``env``, to which theirs are added."""
    for op in ops:
        args = [env[a] if isinstance(a, str) else a for a in op.args]
        env[op.name] = surrogate(args[0]) if op.kind == "fire" else TORCH[op.kind](*args)  # type: ignore[misc]
    return env


def _arg(value: Any) -> Arg:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"operand {value!r} is neither a name nor a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is not a list of names")
    return tuple(map(_text, value))


def _value(env: Mapping[str, Tensor], arg: Arg, like: Tensor) -> Tensor:
    value = env[arg] if isinstance(arg, str) else torch.as_tensor(arg, dtype=like.dtype, device=like.device)
    return value if value.shape == like.shape else value.expand_as(like)


def _binary(tensor_op: Callable[..., Tensor], scalar_op: Callable[[float, float], float]) -> Callable[..., Any]:
    def apply(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return tensor_op(a, b)
        if isinstance(a, Tensor):
            return tensor_op(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))
        if isinstance(b, Tensor):
            return tensor_op(torch.as_tensor(a, dtype=b.dtype, device=b.device), b)
        return scalar_op(a, b)

    return apply


def _compare(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(a: Any, b: Any) -> Any:
        like = a if isinstance(a, Tensor) else b
        return test(a, b).to(like.dtype) if isinstance(like, Tensor) else float(test(a, b))

    return apply


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, Tensor):
        return a if condition != 0 else b
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = torch.as_tensor(
            a, dtype=condition.dtype, device=condition.device
        )  # two plain numbers would give the default dtype
    return torch.where(condition != 0, a, b)


TORCH: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": abs,
    "min": _binary(torch.minimum, min),
    "max": _binary(torch.maximum, max),
    "exp": lambda a: torch.exp(a) if isinstance(a, Tensor) else math.exp(a),
    "reciprocal": lambda a: 1.0 / a,
    "sqrt": lambda a: torch.sqrt(a) if isinstance(a, Tensor) else math.sqrt(a),
    "gt": _compare(lambda a, b: a > b),
    "ge": _compare(lambda a, b: a >= b),
    "where": _where,
    "detach": lambda a: a.detach() if isinstance(a, Tensor) else a,
}
"""What each operation but ``fire`` does, on tensors and on plain numbers (the builder folds constants with it)."""


class Builder:
    """Appends operations, sharing equal ones and folding constants. ``known`` are operations done before, whose values
    may be used.
    """

    def __init__(self, reserved: Sequence[str], known: Sequence[Op] = ()) -> None:
        self.ops: list[Op] = []
        self._seen: dict[tuple[str, tuple[Arg, ...]], str] = {_key(op.kind, op.args): op.name for op in known}
        self._names = {*reserved, *(op.name for op in known)}
        self._flags: set[Arg] = set()

    def flag(self, arg: Arg) -> Arg:
        """Note that a value is 0 or 1."""
        self._flags.add(arg)
        return arg

    def is_flag(self, arg: Arg) -> bool:
        return arg in self._flags

    def emit(self, kind: str, *args: Arg, hint: str | None = None) -> Arg:
        if all(not isinstance(a, str) for a in args) and kind in TORCH:
            return _fold(kind, args)
        if kind in ("add", "mul") and _identity(kind, args) is not None:
            return _identity(kind, args)  # type: ignore[return-value]
        key = _key(kind, args)
        if key not in self._seen:
            name = self._fresh(hint or kind)
            self.ops.append(Op(name, kind, args))
            self._seen[key] = name
            if kind in ("gt", "ge", "fire"):
                self._flags.add(name)
        return self._seen[key]

    def _fresh(self, hint: str) -> str:
        name, number = hint, 1
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name


def _key(kind: str, args: tuple[Arg, ...]) -> tuple[str, tuple[Arg, ...]]:
    return kind, tuple(sorted(args, key=str)) if kind in ("add", "mul", "min", "max") else args


def _fold(kind: str, args: tuple[Arg, ...]) -> float:
    try:
        value = float(TORCH[kind](*args))
    except (ArithmeticError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise TraceError(f"{kind}({', '.join(f'{a:g}' for a in args)}) is not a finite number")
    return value


def _identity(kind: str, args: tuple[Arg, ...]) -> Arg | None:
    neutral = 0.0 if kind == "add" else 1.0
    for this, other in (args, args[::-1]):
        if not isinstance(this, str) and this == neutral:
            return other
    return None


def names_read(args: Iterable[Arg], ops: Iterable[Op]) -> set[str]:
    """The names that ``args`` are and ``ops`` read."""
    return {a for a in (*args, *(a for op in ops for a in op.args)) if isinstance(a, str)}


def prune(ops: Sequence[Op], results: Sequence[Arg]) -> tuple[Op, ...]:
    """The operations that ``results`` need, in order."""
    needed = {r for r in results if isinstance(r, str)}
    kept = []
    for op in reversed(ops):
        if op.name in needed:
            kept.append(op)
            needed.update(a for a in op.args if isinstance(a, str))
    return tuple(reversed(kept))
