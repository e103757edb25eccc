"""Running step programs over time. The eager engine is a plain torch loop: the specification that others are tested
against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .program import StepProgram


@dataclass(frozen=True)
class Cell:
    """A population inside a stage: its program and the program's values, [1] or [N] each."""

    name: str
    program: StepProgram
    values: Mapping[str, Tensor]


@dataclass(frozen=True)
class Link:
    """A connection inside a stage. ``weight`` [N_target, N_source]; ``delay`` in steps; ``mask`` [B, N_source]
    multiplies the source's output.
    """

    source: str
    target: str
    weight: Tensor
    delay: int
    mask: Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """What a stage gives for one cell: ``output`` [T, B, N] and every state after each step, T tensors [B, N]."""

    output: Tensor
    states: dict[str, list[Tensor]]


def run_eager(
    cells: Sequence[Cell],
    links: Sequence[Link],
    currents: Mapping[str, Tensor],
    states: Mapping[str, Mapping[str, Tensor]],
    history: Mapping[str, Tensor],
    keep_states: bool = False,
) -> dict[str, Trace]:
    """Step ``cells`` over T, in the order given within a step.

    Args:
        cells: populations, in topological order of the links without delay.
        links: connections among them.
        currents: input of each cell from outside the stage, [T, B, N].
        states: state of each cell before the first step, [B, N] each.
        history: outputs of each cell before the first step, [D, B, N], latest last, D at least the longest delay of its
            links.
        keep_states: keep the states of all steps; otherwise only the last (the lists then have one entry).
    """
    steps = {c.name: currents[c.name].unbind(0) for c in cells}
    outputs: dict[str, list[Tensor]] = {c.name: list(history[c.name].unbind(0)) for c in cells}
    before = {name: len(out) for name, out in outputs.items()}
    incoming = {c.name: [(link, link.weight.t()) for link in links if link.target == c.name] for c in cells}
    now = {c.name: dict(states[c.name]) for c in cells}
    kept: dict[str, dict[str, list[Tensor]]] = {c.name: {s: [] for s in c.program.states} for c in cells}
    length = len(steps[cells[0].name])
    for k in range(length):
        for cell in cells:
            current = steps[cell.name][k]
            for link, weight in incoming[cell.name]:
                sent = outputs[link.source][before[link.source] + k - link.delay]
                current = torch.addmm(current, sent if link.mask is None else sent * link.mask, weight)
            now[cell.name], out = cell.program.run(now[cell.name], current, cell.values)
            outputs[cell.name].append(out)
            if keep_states or k == length - 1:
                for name, value in now[cell.name].items():
                    kept[cell.name][name].append(value)
    return {c.name: Trace(torch.stack(outputs[c.name][before[c.name] :]), kept[c.name]) for c in cells}
