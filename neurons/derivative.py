"""The reverse-mode derivative of a step program, as a list of operations like the program itself.

One rule per operation. What the backward pass needs from the forward pass is split by a minimum cut into values that
are kept for every step and values that are computed again from them, so that as few bytes as possible are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import networkx as nx

from ..errors import TraceError
from .program import Arg, Builder, Op, StepProgram, prune
from .trace import trace_function

OUTPUT_GRADIENT = "d_output"
KEPT_ALREADY = 0.01
"""Weight in the cut of a population's output: it is kept anyway, since it is a result."""


def gradient_name(name: str) -> str:
    """The name of the gradient with respect to a state after the step, an input or a parameter."""
    return f"d_{name}"


@dataclass(frozen=True)
class Derivative:
    """One step of a population backward, elementwise over its neurons.

    Inputs: ``saved`` (values of the forward step that were kept), the program's parameters, ``d_output`` and, for each
    state, ``d_<state>``, the gradient with respect to its value after the step. ``gradients`` maps ``current``, each
    state before the step and each parameter of ``learned`` to the name of its gradient (0.0 where there is none).

    ``gate`` names the value that ``d_output`` is multiplied with before it does anything, if there is one: where it is
    0 the gradient of the output need not be known. It is computed by ``gate_ops`` from what was saved.

    ``restored`` are states before the step that are not saved: ``restore_ops`` compute them, as ``restore`` says, from
    what the step before saved (before the first step they are the initial states). With ``rebuilt``, ``ops`` compute
    the program's output too, so that it need not be kept either.
    """

    program: StepProgram
    learned: tuple[str, ...]
    saved: tuple[str, ...]
    ops: tuple[Op, ...]
    gradients: Mapping[str, Arg]
    gate: Arg | None
    gate_ops: tuple[Op, ...]
    restored: tuple[str, ...] = ()
    restore: Mapping[str, Arg] = field(default_factory=dict)
    restore_ops: tuple[Op, ...] = ()
    rebuilt: bool = False

    def __str__(self) -> str:
        inputs = ", ".join((*self.saved, *self.restored, OUTPUT_GRADIENT, *map(gradient_name, self.program.states)))
        lines = [f"backward({inputs}; {', '.join(self.program.params)})"]
        lines += [f"  {op}" for op in self.ops]
        shown = {k: v if isinstance(v, str) else format(v, "g") for k, v in self.gradients.items()}
        lines.append(f"  gradients: {', '.join(f'{gradient_name(k)} <- {v}' for k, v in shown.items())}")
        lines.append(f"  kept from the forward step: {', '.join(self.saved) or '(nothing)'}")
        if self.restored:
            lines.append(f"  {', '.join(self.restored)} before the step: from what the step before kept")
            lines += [f"    {op}" for op in self.restore_ops]
        if self.gate is not None:
            lines.append(f"  {OUTPUT_GRADIENT} matters only where {self.gate} is not 0")
        return "\n".join(lines)


def differentiate(program: StepProgram, learned: Iterable[str] = (), frugal: bool = False) -> Derivative:
    """The derivative of ``program``, with gradients of the parameters in ``learned`` besides those of the current and
    the states. With ``frugal``, states and the output are computed again wherever the saved values allow it.

    Raises:
        TraceError: for a parameter the program does not have, or a surrogate whose derivative cannot be traced.
    """
    learned = tuple(learned)
    unknown = set(learned) - set(program.params)
    if unknown:
        raise TraceError(f"derivative: the program has no parameter {', '.join(sorted(unknown))}")
    forward = {op.name: op for op in program.ops}
    carried = [gradient_name(s) for s in program.states]
    reserved = (*program.states, *program.params, "current", OUTPUT_GRADIENT, *carried)
    tape = _Tape(program, Builder(reserved, known=program.ops))
    for state, arg in program.next_state.items():
        tape.add(arg, gradient_name(state))
    tape.add(program.output, OUTPUT_GRADIENT)
    tape.run()
    wanted = ("current", *program.states, *learned)
    gradients: dict[str, Arg] = {n: tape.adjoint.get(n, 0.0) for n in wanted}
    backward = prune(tape.b.ops, list(gradients.values()))
    gate = _gate(program, tape)
    needed = _values_read(backward, forward, program)
    if gate is not None:
        backward_gate = prune(tape.b.ops, [gate])
        needed |= _values_read(backward_gate, forward, program) | ({str(gate)} & set(forward))
    else:
        backward_gate = ()
    needed |= {a for a in gradients.values() if isinstance(a, str) and a in forward}
    saved, restored = _kept_and_restored(program, needed) if frugal else (_cut(program, needed), ())
    again = _recompute(program, (*saved, *restored))
    rebuilt = frugal and _follows(program, program.output, (*saved, *restored))
    gate_ops = prune((*again, *backward_gate), [gate]) if gate is not None else ()
    if any(a in restored for op in gate_ops for a in op.args):
        gate, gate_ops = None, ()  # it is wanted before the states are restored
    restore = {s: program.next_state[s] for s in restored}
    return Derivative(
        program=program,
        learned=learned,
        saved=saved,
        ops=prune((*again, *backward), [*gradients.values(), *([program.output] if rebuilt else [])]),
        gradients=gradients,
        gate=gate,
        gate_ops=gate_ops,
        restored=restored,
        restore=restore,
        restore_ops=prune(_recompute(program, saved), list(restore.values())),
        rebuilt=rebuilt,
    )


class _Tape:
    """Adjoints of a program's values, filled from its results to its inputs."""

    def __init__(self, program: StepProgram, builder: Builder, through_fire: bool = True) -> None:
        self.program, self.b, self.through_fire = program, builder, through_fire
        self.adjoint: dict[str, Arg] = {}
        self.surrogate_at: list[Arg] = []

    def add(self, arg: Arg, gradient: Arg | None) -> None:
        if isinstance(arg, str) and gradient is not None:
            before = self.adjoint.get(arg)
            self.adjoint[arg] = (
                gradient if before is None else self.b.emit("add", before, gradient, hint=gradient_name(arg))
            )

    def run(self) -> None:
        for op in reversed(self.program.ops):
            gradient = self.adjoint.get(op.name)
            if gradient is None:
                continue
            if op.kind == "fire":
                if not self.through_fire:
                    continue
                assert self.program.surrogate is not None
                slope = trace_function(self.program.surrogate.derivative, self.b, op.args[0], "slope")
                self.surrogate_at.append(slope)
                gradients = (self.b.emit("mul", gradient, slope, hint=gradient_name(str(op.args[0]))),)
            else:
                gradients = RULES[op.kind](self.b, gradient, op)
            for arg, part in zip(op.args, gradients, strict=True):
                self.add(arg, part)


def _difference(b: Builder, d: Arg, op: Op) -> tuple[Arg | None, ...]:
    return d, b.emit("neg", d) if isinstance(op.args[1], str) else None


def _product(b: Builder, d: Arg, op: Op) -> tuple[Arg | None, ...]:
    x, y = op.args
    return (
        b.emit("mul", d, y) if isinstance(x, str) else None,
        b.emit("mul", d, x) if isinstance(y, str) else None,
    )


def _quotient(b: Builder, d: Arg, op: Op) -> tuple[Arg | None, ...]:
    x, y = op.args
    over = b.emit("div", d, y)
    return over if isinstance(x, str) else None, (
        b.emit("neg", b.emit("mul", over, op.name)) if isinstance(y, str) else None
    )


def _magnitude(b: Builder, d: Arg, op: Op) -> tuple[Arg | None, ...]:
    (x,) = op.args
    return (b.emit("mul", d, b.emit("sub", b.emit("gt", x, 0.0), b.emit("gt", 0.0, x), hint="sign")),)


def _extremum(largest: bool) -> Callable[[Builder, Arg, Op], tuple[Arg | None, ...]]:
    def rule(b: Builder, d: Arg, op: Op) -> tuple[Arg | None, ...]:
        x, y = op.args if largest else op.args[::-1]
        # the first operand's share; where both are equal each has half, as torch's maximum and minimum do
        share = b.emit("mul", b.emit("add", b.emit("ge", x, y), b.emit("gt", x, y)), 0.5, hint="share")
        return b.emit("mul", d, share), b.emit("mul", d, b.emit("sub", 1.0, share))

    return rule


def _choice(b: Builder, d: Arg, op: Op) -> tuple[Arg | None, ...]:
    condition, x, y = op.args
    return (
        None,
        b.emit("where", condition, d, 0.0) if isinstance(x, str) else None,
        b.emit("where", condition, 0.0, d) if isinstance(y, str) else None,
    )


RULES: dict[str, Callable[[Builder, Arg, Op], tuple[Arg | None, ...]]] = {
    "add": lambda b, d, op: (d, d),
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
    "neg": lambda b, d, op: (b.emit("neg", d),),
    "abs": _magnitude,
    "min": _extremum(largest=False),
    "max": _extremum(largest=True),
    "exp": lambda b, d, op: (b.emit("mul", d, op.name),),
    "reciprocal": lambda b, d, op: (b.emit("neg", b.emit("mul", d, b.emit("mul", op.name, op.name))),),
    "sqrt": lambda b, d, op: (b.emit("div", b.emit("mul", d, 0.5), op.name),),
    "gt": lambda b, d, op: (None, None),
    "ge": lambda b, d, op: (None, None),
    "where": _choice,
    "detach": lambda b, d, op: (None,),
}
"""For each operation but ``fire``: from the gradient ``d`` of its result to those of its operands."""


def _gate(program: StepProgram, tape: _Tape) -> Arg | None:
    """The surrogate's derivative, if the output acts on the gradients only through it."""
    if len(tape.surrogate_at) != 1 or not isinstance(tape.surrogate_at[0], str):
        return None
    alone = _Tape(program, Builder((OUTPUT_GRADIENT,), known=program.ops), through_fire=False)
    alone.add(program.output, OUTPUT_GRADIENT)
    alone.run()
    inputs = {"current", *program.states, *program.params}
    return None if inputs & set(alone.adjoint) else tape.surrogate_at[0]


def _values_read(ops: Iterable[Op], forward: Mapping[str, Op], program: StepProgram) -> set[str]:
    """The values of the forward step that change from step to step and that ``ops`` read."""
    per_step = {*forward, "current", *program.states}
    return {a for op in ops for a in op.args if isinstance(a, str) and a in per_step}


def _kept_and_restored(program: StepProgram, needed: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fewest values to keep if states before the step may be computed from what the step before kept, and those
    states.
    """
    best: tuple[float, tuple[str, ...], tuple[str, ...]] | None = None
    for count in range(len(program.states) + 1):
        for restored in combinations(program.states, count):
            results = {program.next_state[s] for s in restored}
            # they must follow without each other, or one step would need the one before it, and so on
            must = {r for r in results if isinstance(r, str) and r not in program.params}
            before = _cut(program, must, costs=dict.fromkeys(restored, 1000.0), early=True)
            if set(before) & set(restored):
                continue
            rest = _cut(program, needed - set(restored), costs=dict.fromkeys((*before, *restored), 0.0))
            saved = tuple(n for n in _order(program) if n in {*before, *rest} and n not in restored)
            used = tuple(s for s in restored if s in {*rest, *needed})
            cost = sum(KEPT_ALREADY if n == program.output else 1.0 for n in saved)
            if used == restored and (best is None or cost < best[0]):
                best = cost, saved, restored
    assert best is not None  # restoring no state is always possible
    return best[1], best[2]


def _follows(program: StepProgram, value: Arg, known: tuple[str, ...]) -> bool:
    """Whether ``value`` can be computed from ``known`` and the parameters."""
    names = {*known, *program.params, *(op.name for op in _recompute(program, known))}
    return not isinstance(value, str) or value in names


def _order(program: StepProgram) -> list[str]:
    return ["current", *program.states, *(op.name for op in program.ops)]


def _cut(
    program: StepProgram, needed: set[str], costs: Mapping[str, float] | None = None, early: bool = False
) -> tuple[str, ...]:
    """The cheapest set of values from which all of ``needed`` can be computed again (a minimum cut of the program).

    Of equally cheap ones the last in the program, from which least is left to compute, or, if ``early``, the first,
    from which most can be computed. ``costs`` are 1 where not given.
    """
    if not needed:
        return ()
    graph = nx.DiGraph()
    order = _order(program)
    own = {program.output: KEPT_ALREADY} | dict(costs or {})
    for name in order:
        graph.add_edge((name, "in"), (name, "out"), capacity=own.get(name, 1.0))
    for name in ("current", *program.states):
        graph.add_edge("source", (name, "in"))  # without a capacity: it cannot be cut
    for op in program.ops:
        for arg in op.args:
            if isinstance(arg, str) and arg not in program.params:
                graph.add_edge((arg, "out"), (op.name, "in"))
    for name in needed:
        graph.add_edge((name, "out"), "sink")
    if early:
        near = nx.minimum_cut(graph.reverse(), "sink", "source")[1][1]
    else:
        near = nx.minimum_cut(graph, "source", "sink")[1][0]
    return tuple(n for n in order if (n, "in") in near and (n, "out") not in near)


def _recompute(program: StepProgram, saved: tuple[str, ...]) -> tuple[Op, ...]:
    """The operations of the forward step that can follow from ``saved``."""
    known = {*saved, *program.params}
    ops = []
    for op in program.ops:
        if op.name not in known and all(not isinstance(a, str) or a in known for a in op.args):
            ops.append(op)
            known.add(op.name)
    return tuple(ops)
