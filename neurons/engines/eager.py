"""The plain torch loop: the specification that the other engines are tested against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from .stage import Cell, Link, Trace, block_of
from .taps import Taps


def run_eager(
    cells: Sequence[Cell],
    links: Sequence[Link],
    currents: Mapping[str, Tensor],
    states: Mapping[str, Mapping[str, Tensor]],
    history: Mapping[str, Tensor],
    keep_states: bool = False,
) -> dict[str, Trace]:
    """Step ``cells`` over T, in the order given within a step, as many steps at a time as the delays allow.

    Args:
        cells: populations, in topological order of the links without delay.
        links: connections among them.
        currents: input of each cell from outside the stage, [T, B, N].
        states: state of each cell before the first step, [B, N] each.
        history: outputs of each cell before the first step, [D, B, N], latest last, D at least the longest delay of its
            links.
        keep_states: keep the states of all steps; otherwise only the last.
    """
    by_name = {c.name: c for c in cells}
    length = len(currents[cells[0].name])
    block, order = block_of(list(by_name), [(k.source, k.target, k.delay) for k in links], length)
    # split and unbind once: a slice x[t] per step would make the backward pass quadratic in T
    blocks = {name: currents[name].split(block) for name in order}
    outputs: dict[str, list[Tensor]] = {name: list(history[name].unbind(0)) for name in order}
    before = {name: len(out) for name, out in outputs.items()}
    incoming = {name: [k for k in links if k.target == name] for name in order}
    now = {name: dict(states[name]) for name in order}
    arrivals = {id(k): _Arrivals(k) for k in links if k.taps}
    kept: dict[str, dict[str, list[Tensor]]] = {c.name: {s: [] for s in c.program.states} for c in cells}
    for start in range(0, length, block):
        for name in order:
            cell, current = by_name[name], blocks[name][start // block]
            for link in incoming[name]:
                first = before[link.source] + start - link.delay
                if link.taps:
                    current = current + arrivals[id(link)].take(first, first + len(current), outputs[link.source])
                    continue
                sent = torch.stack(outputs[link.source][first : first + len(current)])
                current = current + linear(sent if link.mask is None else sent * link.mask, link.weight)
            for k, step in enumerate(current.unbind(0), start):
                now[name], out = cell.program.run(now[name], step, cell.values)
                outputs[name].append(out)
                if keep_states or k == length - 1:
                    for state, value in now[name].items():
                        kept[name][state].append(value)
    return {
        name: Trace(torch.stack(outputs[name][before[name] :]), {s: torch.stack(v) for s, v in kept[name].items()})
        for name in by_name
    }


class _Arrivals:
    """What a connection with taps brings to its target, by the index of the output that its shortest delay reads.

    Every output is sent once, to all the steps at which it arrives.
    """

    def __init__(self, link: Link) -> None:
        kinds = {t.kind: t for t in link.taps}
        self.link = link
        self.axonal, self.dendritic, self.synaptic = (
            _Ahead(kinds[k], link.weight) if k in kinds else None for k in ("axonal", "dendritic", "synaptic")
        )
        self.done = 0

    def take(self, first: int, last: int, outputs: list[Tensor]) -> Tensor:
        """The currents from index ``first`` to ``last``, [last - first, B, N_target]."""
        weight, mask = self.link.weight, self.link.mask
        for i in range(self.done, last):
            sent = outputs[i] if mask is None else outputs[i] * mask
            if self.synaptic is not None:
                self.synaptic.send(i, sent, linear)
                continue
            if self.axonal is not None:
                self.axonal.send(i, sent, torch.mul)
                sent = self.axonal.at(i)
            if self.dendritic is not None:
                self.dendritic.send(i, linear(sent, weight), torch.mul)
        self.done = max(self.done, last)
        arrived = self.synaptic or self.dendritic
        if arrived is not None:
            return torch.stack([arrived.at(i) for i in range(first, last)])
        assert self.axonal is not None
        return linear(torch.stack([self.axonal.at(i) for i in range(first, last)]), weight)


class _Ahead:
    """Sums of what arrives at each index, from sources that send ahead of theirs by the delays of ``taps``."""

    def __init__(self, taps: Taps, weight: Tensor) -> None:
        kernel = taps.dense_weight(weight) if taps.kind == "synaptic" else taps.dense()
        reached = (taps.offsets - taps.low).unique().tolist()
        self.gains = [(k, kernel[k]) for k in reached]  # no tap is at the others
        self.sums: dict[int, Tensor] = {}
        self.nothing: Tensor | None = None

    def send(self, index: int, values: Tensor, by: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Add ``by(values, gain)`` at those indices from ``index`` on that a tap reaches."""
        for k, gain in self.gains:
            part, before = by(values, gain), self.sums.get(index + k)
            self.sums[index + k] = part if before is None else before + part
            self.nothing = torch.zeros_like(part) if self.nothing is None else self.nothing

    def at(self, index: int) -> Tensor:
        """What arrives at ``index``, once all that can was sent."""
        found = self.sums.get(index, self.nothing)
        assert found is not None
        return found
