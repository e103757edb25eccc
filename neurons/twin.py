"""The smooth twin of a neuron: what it would be if its surrogate gradient were the truth."""

from __future__ import annotations

from torch import Tensor

from .neuron import Neuron
from .program import Arg, Builder, StepProgram, prune
from .trace import trace_function


def smooth_program(program: StepProgram) -> StepProgram:
    """``program`` with the antiderivative of its surrogate in place of ``fire``, real output and nothing detached.

    Its gradient is the exact derivative of what it computes, so that finite differences of a network of such neurons
    exist and can be compared with the gradients that training uses.

    Raises:
        TraceError: for a surrogate whose antiderivative has no step-program form (ATan, Gaussian) or is not defined.
    """
    b = Builder((*program.states, *program.params, "current"))
    names: dict[Arg, Arg] = {}

    def now(arg: Arg) -> Arg:
        return names.get(arg, arg)

    for op in program.ops:
        args = tuple(now(a) for a in op.args)
        if op.kind == "detach":
            names[op.name] = args[0]
        elif op.kind == "fire":
            assert program.surrogate is not None
            names[op.name] = trace_function(program.surrogate.antiderivative, b, args[0], "smooth")
        else:
            names[op.name] = b.emit(op.kind, *args, hint=op.name)
    result, output = {s: now(v) for s, v in program.next_state.items()}, now(program.output)
    return StepProgram(
        states=program.states,
        params=program.params,
        ops=prune(b.ops, [*result.values(), output]),
        next_state=result,
        output=output,
        output_kind="real",
        initial=program.initial,
    )


class SmoothTwin(Neuron):
    """A population of ``neuron``'s smooth twins (:func:`smooth_program`), with its parameters."""

    output = "real"

    def __init__(self, neuron: Neuron) -> None:
        super().__init__(neuron.size, reset="none")
        self.neuron = neuron
        self._smooth: dict[str, StepProgram] = {}

    def program(self, dt: float = 1.0) -> StepProgram:
        program = self.neuron.program(dt)
        if program.text not in self._smooth:
            self._smooth[program.text] = smooth_program(program)
        return self._smooth[program.text]

    def values(self, dt: float = 1.0) -> dict[str, Tensor]:
        return self.neuron.values(dt)
