"""Tracing: from a neuron's Python ``step`` to a step program.

The step is called once with torch.fx proxies in place of its arguments. Each operation it performs is checked and
appended at once, so that an error carries the line of the user's code that caused it.
"""

from __future__ import annotations

import math
import operator
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from ..errors import TraceError
from .program import Arg, Builder
from .surrogate import FastSigmoid, Surrogate

_TORCH = os.path.dirname(torch.__file__) + os.sep  # noqa: PTH120
_ACTIVE_SURROGATE: ContextVar[Surrogate] = ContextVar("surrogate", default=FastSigmoid())  # noqa: B039 (frozen)


@contextmanager
def use_surrogate(surrogate: Surrogate) -> Iterator[None]:
    """Inside, :func:`fire` on plain tensors uses ``surrogate``; lets a ``step`` be called by hand."""
    token = _ACTIVE_SURROGATE.set(surrogate)
    try:
        yield
    finally:
        _ACTIVE_SURROGATE.reset(token)


def fire(x: Any) -> Any:
    """Spike where ``x`` (usually ``v - threshold``) is above 0: 1, else 0, with the neuron's surrogate in the backward
    pass.
    """
    if isinstance(x, fx.Proxy):
        return x.tracer.create_proxy("call_function", fire, (x,), {})
    return _ACTIVE_SURROGATE.get()(x)


def reset(v: Any, spike: Any) -> Any:
    """Marks where in ``step`` the membrane reset happens, when later lines need the value after it; without it the
    library resets at the end of the step. What it does (subtract, to a value, nothing) is the population's choice.
    """
    if isinstance(v, fx.Proxy):
        return v.tracer.create_proxy("call_function", reset, (v, spike), {})
    raise TraceError(
        "reset(v, spike) marks a place in a traced step and does nothing by itself on tensors; run the neuron's program"
    )


def _swap(kind: str) -> Callable[[Builder, Arg, Arg], Arg]:
    return lambda b, x, y: b.emit(kind, y, x)


def _plain(kind: str) -> Callable[..., Arg]:
    return lambda b, *args: b.emit(kind, *args)


def _power(b: Builder, x: Arg, exponent: Arg) -> Arg:
    if exponent == 0.5:
        return b.emit("sqrt", x)
    if isinstance(exponent, str) or exponent not in (-1, 1, 2, 3, 4):
        raise TraceError(f"a power must be -1, 0.5, 1, 2, 3 or 4, got {exponent}")
    if exponent == -1:
        return b.emit("reciprocal", x)
    out = x
    for _ in range(int(exponent) - 1):
        out = b.emit("mul", out, x)
    return out


def _sigmoid(b: Builder, x: Arg) -> Arg:
    bounded = b.emit(
        "min", b.emit("neg", x), 80.0
    )  # beyond it exp overflows float32, and the gradient is 0 times infinity
    return b.emit("reciprocal", b.emit("add", b.emit("exp", bounded), 1.0))


def _tanh(b: Builder, x: Arg) -> Arg:
    return b.emit("sub", b.emit("mul", _sigmoid(b, b.emit("mul", x, 2.0)), 2.0), 1.0)


def _logic(kind: str) -> Callable[..., Arg]:
    def emit(b: Builder, *args: Arg) -> Arg:
        if not all(b.is_flag(a) for a in args):
            raise TraceError("&, | and ~ take comparisons (or spikes), not numbers")
        return b.flag(b.emit("sub", 1.0, *args) if kind == "not" else b.emit(kind, *args))

    return emit


def _clamp(b: Builder, x: Arg, low: Arg | None = None, high: Arg | None = None) -> Arg:
    x = x if low is None else b.emit("max", x, low)
    return x if high is None else b.emit("min", x, high)


_BY_NAME: dict[str, Callable[..., Arg]] = {
    "add": _plain("add"), "sub": _plain("sub"), "mul": _plain("mul"), "truediv": _plain("div"), "div": _plain("div"),
    "neg": _plain("neg"), "abs": _plain("abs"), "minimum": _plain("min"), "maximum": _plain("max"),
    "exp": _plain("exp"), "reciprocal": _plain("reciprocal"), "sqrt": _plain("sqrt"), "where": _plain("where"),
    "detach": _plain("detach"),
    "gt": _plain("gt"), "ge": _plain("ge"), "lt": _swap("gt"), "le": _swap("ge"), "pow": _power,
    "and_": _logic("mul"), "logical_and": _logic("mul"), "or_": _logic("max"), "logical_or": _logic("max"),
    "invert": _logic("not"), "logical_not": _logic("not"),
    "square": lambda b, x: b.emit("mul", x, x), "relu": lambda b, x: b.emit("max", x, 0.0),
    "sigmoid": _sigmoid, "tanh": _tanh, "clamp": _clamp, "clip": _clamp,
    "fire": _plain("fire"), "reset": _plain("reset"),
    "rsub": lambda b, x, y: b.emit("sub", y, x), "pos": lambda b, x: x,
    "zeros_like": lambda b, x: 0.0, "ones_like": lambda b, x: 1.0,
}  # fmt: skip

_REDUCTIONS = {"sum", "mean", "max", "min", "prod", "norm", "matmul", "mm", "dot", "argmax", "std", "var", "softmax",
               "cumsum", "any", "all", "sort", "amax", "amin"}  # fmt: skip


class _StepTracer(fx.Tracer):
    """Gives proxies for a step's arguments and turns each operation on them into an operation of the builder."""

    def __init__(self, builder: Builder, where: str) -> None:
        super().__init__()
        self.graph = fx.Graph(tracer_cls=_StepTracer)
        self.builder = builder
        self.where = where
        self.values: dict[fx.Node, Arg] = {}

    def value(self, arg: Any) -> Arg | None:
        if isinstance(arg, fx.Proxy):
            return self.values[arg.node]
        if arg is None:
            return None
        if isinstance(arg, bool | int | float):
            if not math.isfinite(arg):
                self.fail(f"the literal {arg} is not finite")
            return float(arg)
        if isinstance(arg, Tensor):
            self.fail(
                "a tensor is used directly and would be frozen into the program; declare it as a Parameter and "
                "read it from p, or write a number"
            )
        self.fail(f"an operand of type {type(arg).__name__} is neither a value of the step nor a number")

    def wrap(self, value: Arg, name: str) -> fx.Proxy:
        node = self.graph.create_node("placeholder", name, (), {}, name=None)
        self.values[node] = value
        return fx.Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any, **__: Any) -> fx.Proxy:  # type: ignore[override]
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        emit = _BY_NAME.get(name)
        if name in ("max", "min") and len(args) == 2 and not kwargs:
            emit = _plain(name)
        if emit is None or target in (torch.nn.functional.softmax,):
            if name in _REDUCTIONS:
                self.fail(
                    f"{name}() mixes neurons; a step is elementwise: send values between neurons through a connection"
                )
            self.fail(f"the operation {name!r} has no step-program form; known: {', '.join(sorted(set(_BY_NAME)))}")
        operands = [self.value(a) for a in args]
        renamed = {"min": "low", "max": "high"}
        keywords = {renamed.get(k, str(k)): self.value(v) for k, v in kwargs.items() if k != "alpha"}
        if kwargs.get("alpha", 1) != 1:
            self.fail(f"{name}(..., alpha=) is not supported; multiply first")
        try:
            value = emit(self.builder, *operands, **keywords)
        except TraceError as error:
            self.fail(str(error))
        except TypeError as error:
            self.fail(f"{name} was called with operands it does not take ({error})")
        return self.wrap(value, name)

    def to_bool(self, obj: fx.Proxy) -> bool:  # type: ignore[override]
        self.fail("the step branches on a value (if, while, and, or, not, min(), max()); use torch.where, & and |")

    def iter(self, obj: fx.Proxy) -> Any:  # type: ignore[override]
        self.fail("the step iterates over a value; a step is elementwise")

    def keys(self, obj: fx.Proxy) -> Any:  # type: ignore[override]
        self.fail("the step unpacks a value as a mapping")

    def fail(self, why: str) -> NoReturn:
        raise TraceError(f"{self.where} cannot be traced at {user_line()}: {why}")


def user_line() -> str:
    """``file:line: source`` of the innermost frame outside torch and this tracer."""
    return _line_of(traceback.extract_stack())


def _line_of(frames: Iterable[traceback.FrameSummary]) -> str:
    for frame in reversed(list(frames)):
        if frame.filename not in (__file__, operator.__file__) and not frame.filename.startswith((_TORCH, "<frozen")):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "an unknown line"


class Names:
    """The ``p`` of a step: attribute access gives the proxy of a parameter or derived value."""

    def __init__(self, tracer: _StepTracer, known: Iterable[str]) -> None:
        self._tracer = tracer
        self._known = tuple(known)

    def __getattr__(self, name: str) -> fx.Proxy:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._known:
            self._tracer.fail(
                f"p.{name} is neither a Parameter nor returned by derive(); known: {', '.join(self._known)}"
            )
        return self._tracer.wrap(name, name)


def trace_step(
    step: Callable[..., Any], states: tuple[str, ...], known: Iterable[str], where: str
) -> tuple[Builder, dict[str, Arg], Arg]:
    """Trace ``step(*states, current, p)``. Returns the builder with its operations, the next states and the output.

    Raises:
        TraceError: naming file and line, for control flow on values, reductions, unknown operations, tensors used
            directly, whatever else the step raises, and a wrong number of results. ``where`` names the step in it.
    """
    known = list(known)
    builder = Builder([*states, "current", *known])
    tracer = _StepTracer(builder, where)
    try:
        result = step(*(tracer.wrap(s, s) for s in states), tracer.wrap("current", "current"), Names(tracer, known))
    except TraceError:
        raise
    except Exception as error:  # a user's step may fail in any way on a proxy: item assignment, math.exp(v), len(v)
        line = _line_of(traceback.extract_tb(error.__traceback__))
        raise TraceError(f"{where} cannot be traced at {line}: {type(error).__name__}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(states) + 1:
        raise TraceError(
            f"{where} must return its {len(states)} next state(s) ({', '.join(states) or 'none'}) and then its "
            f"output; it returned {len(results)} value(s)"
        )
    values: list[Arg] = []
    for label, item in zip((*states, "output"), results, strict=True):
        if isinstance(item, fx.Proxy):
            values.append(tracer.values[item.node])
        elif isinstance(item, int | float) and math.isfinite(item):
            values.append(float(item))
        else:
            raise TraceError(
                f"{where} returned {type(item).__name__} for {label}; it must be a value of the step or a finite number"
            )
    return builder, dict(zip(states, values[:-1], strict=True)), values[-1]


def trace_function(function: Callable[[Any], Any], builder: Builder, argument: Arg, name: str) -> Arg:
    """Append ``function(argument)`` to ``builder``, elementwise in one value, and return its result.

    Raises:
        TraceError: as :func:`trace_step`.
    """
    owner = getattr(function, "__qualname__", name)
    tracer = _StepTracer(builder, owner)
    try:
        result = function(tracer.wrap(argument, name))
    except TraceError:
        raise
    except Exception as error:
        line = _line_of(traceback.extract_tb(error.__traceback__))
        raise TraceError(f"{owner} cannot be traced at {line}: {type(error).__name__}: {error}") from error
    if isinstance(result, fx.Proxy):
        return tracer.values[result.node]
    if isinstance(result, int | float) and math.isfinite(result):
        return float(result)
    raise TraceError(f"{owner} returned {type(result).__name__}; it must be a value or a finite number")
