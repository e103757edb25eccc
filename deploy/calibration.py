"""Calibration: what ranges the values of a population take on samples, and which widths keep its spikes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError
from ..networks import Network
from ..neurons import StepProgram
from ..neurons.program import TORCH, Arg, Op
from .formats import Formats
from .program import WORD, IntValue

STATE_MARGIN = 2.0
CURRENT_MARGIN = 4.0
GUARD_BITS = 3
"""Binary places that intermediate values have beyond the finest state."""


@dataclass(frozen=True)
class Recording:
    """One population in float on the calibration samples: ``current`` and ``output`` [T, B, N], ``valid`` [T, B],
    ``magnitude`` of every value.
    """

    program: StepProgram
    values: dict[str, Tensor]
    current: Tensor
    output: Tensor
    valid: Tensor
    magnitude: dict[str, float]


def record(net: Network, x: Tensor | Mapping[str, Tensor], lengths: Tensor | None) -> dict[str, Recording]:
    """Run ``net`` in evaluation on ``x`` and observe every population."""
    names = [*net.inputs, *net.populations]
    with torch.no_grad():
        sequences = net(x, lengths=lengths, record=names).recorded
        first = sequences[names[0]]
        steps, batch = first.shape[:2]
        ends = torch.full((batch,), steps) if lengths is None else torch.as_tensor(lengths)
        valid = torch.arange(steps).unsqueeze(1) < ends
        return {n: _observe(net, n, sequences, valid) for n in net.populations}


def _observe(net: Network, name: str, sequences: Mapping[str, Tensor], valid: Tensor) -> Recording:
    neuron = net.neuron(name)
    program, values = neuron.program(net.dt), neuron.values(net.dt)
    current = torch.zeros_like(sequences[name])
    for source, _, key, delay in net.graph.in_edges(name, keys=True, data="delay"):
        sent, connection = sequences[source], net.connection(key)
        if delay and not len(connection.delays):  # a connection with delays of its own moves what it is sent
            sent = torch.cat([sent.new_zeros(delay, *sent.shape[1:]), sent])[: len(current)]
        current = current + connection(sent)
    start = net.initial_state(current.shape[1]).get(name, {})
    state = {s: start[s] for s in program.states}
    magnitude: dict[str, float] = {}
    for k in range(len(current)):
        for spiking in (False, True):  # also as if every neuron fired, so that rare jumps fit
            env = _evaluate(program, state, current[k], values, spiking)
            _widen(magnitude, env, valid[k])
            nexts = {
                f"{s}_next ": env[a] if isinstance(a, str) else torch.full_like(current[k], a)
                for s, a in program.next_state.items()
            }
            _widen(magnitude, nexts, valid[k])
        state, _ = program.run(state, current[k], values)
    return Recording(program, values, current, sequences[name], valid, magnitude)


def _evaluate(
    program: StepProgram, state: Mapping[str, Tensor], current: Tensor, values: Mapping[str, Tensor], spiking: bool
) -> dict[str, Tensor]:
    env: dict[str, Tensor] = {**values, **state, "current": current}
    for op in program.ops:
        args = [env[a] if isinstance(a, str) else a for a in op.args]
        if op.kind == "fire":
            env[op.name] = torch.ones_like(current) if spiking else (torch.as_tensor(args[0]) > 0).to(current.dtype)
        else:
            env[op.name] = torch.as_tensor(TORCH[op.kind](*args))
    return env


def _widen(magnitude: dict[str, float], env: Mapping[str, Tensor], valid: Tensor) -> None:
    for name, value in env.items():
        seen = value[valid] if value.ndim == 2 and value.shape[0] == valid.shape[0] else value
        peak = float(seen.abs().max()) if seen.numel() else 0.0
        if not math.isfinite(peak):
            raise ExportError(
                f"calibration: the value {name.strip()!r} is not finite; the samples or the network are broken"
            )
        magnitude[name] = max(magnitude.get(name, 0.0), peak)


def make_formats(recording: Recording, widths: Mapping[str, int], param_bits: int, label: str) -> Formats:
    """Formats in which the observed ranges fit with a margin; ``widths`` gives the bits of each state."""
    program = recording.program
    whole, binary = _whole_states(program, recording.values), _binary_states(program)
    states: dict[str, IntValue] = {}
    for name in program.states:
        peak = max(recording.magnitude.get(name, 0.0), recording.magnitude.get(f"{name}_next ", 0.0))
        if name in binary:
            states[name] = IntValue(name, 0, 1, 0)
            continue
        bits = widths[name]
        if name in whole:
            while peak * STATE_MARGIN > (1 << (bits - 1)) - 1:
                bits += 8
            frac = 0
        else:
            frac = math.floor(math.log2(((1 << (bits - 1)) - 1) / (peak * STATE_MARGIN or 1.0)))
        if bits > WORD:
            raise ExportError(f"{label}: state {name!r} reaches {peak:g}, beyond {WORD} bits")
        states[name] = IntValue(name, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, frac)
    moving = [s.frac for n, s in states.items() if n not in whole and n not in binary]
    frac = max(moving, default=12) + GUARD_BITS
    peak = float(recording.current.abs()[recording.valid].max()) * CURRENT_MARGIN or 1.0
    reach = math.floor(math.log2(peak)) + 1
    current_frac = max(min(frac, 27 - reach), 12 - reach)
    limit = 1 << (current_frac + reach)
    return Formats(states, IntValue("current", -limit, limit - 1, current_frac), recording.magnitude, frac, param_bits)


Check = Callable[[Arg], bool]


def _whole_states(program: StepProgram, values: Mapping[str, Tensor]) -> set[str]:
    """States that only ever hold whole numbers: counters."""
    fixed = {n for n, v in values.items() if bool((v == v.round()).all())}
    arithmetic = {"add", "sub", "mul", "neg", "min", "max", "abs", "where", "detach"}

    def keeps(op: Op, ok: Check) -> bool:
        return op.kind in ("fire", "gt", "ge") or (op.kind in arithmetic and all(ok(a) for a in _results(op)))

    return _largest_set(program, fixed, keeps, lambda a: a == round(a))


def _binary_states(program: StepProgram) -> set[str]:
    """States that only ever hold 0 or 1."""

    def keeps(op: Op, ok: Check) -> bool:
        if op.kind == "sub":
            return op.args[0] == 1.0 and ok(op.args[1])
        return op.kind in ("fire", "gt", "ge") or (
            op.kind in ("mul", "min", "max", "detach", "where") and all(ok(a) for a in _results(op))
        )

    return _largest_set(program, set(), keeps, lambda a: a in (0.0, 1.0))


def _results(op: Op) -> tuple[Arg, ...]:
    return op.args[1:] if op.kind == "where" else op.args


def _largest_set(
    program: StepProgram, fixed: set[str], keeps: Callable[[Op, Check], bool], literal: Callable[[float], bool]
) -> set[str]:
    """The largest set of states closed under the step: assume it of all, drop those that break it, until none does."""
    held = set(program.states)
    while True:
        have = fixed | held

        def ok(arg: Arg, have: set[str] = have) -> bool:
            return arg in have if isinstance(arg, str) else literal(arg)

        for op in program.ops:
            if keeps(op, ok):
                have.add(op.name)
        kept = {s for s in held if ok(program.next_state[s]) and ok(program.initial[s])}
        if kept == held:
            return held
        held = kept


def open_loop_error(recording: Recording, output: np.ndarray) -> float:
    """How far an integer output [T, B, N] (in real units) is from float: differing spikes per spike, or RMS error per
    RMS for a real output.
    """
    valid = recording.valid.numpy()
    real = recording.output.numpy()[valid]
    got = output[valid]
    if recording.program.output_kind != "real":
        return float(np.sum(real != got)) / max(float(np.abs(real).sum()), 1.0)
    return float(np.sqrt(np.mean((real - got) ** 2)) / max(float(np.sqrt(np.mean(real**2))), 1e-12))
