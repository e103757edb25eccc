"""What an engine runs: a stage, that is populations stepped together and the connections among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx
import torch
from torch import Tensor

from ..program import StepProgram
from .taps import Taps

FUSED_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
"""The number types that fused engines take, with their names in printed source."""
WORTH_SPARSE = 2**25
"""Multiplications of a dense product over a whole sequence from which it is worth to count its zeros."""


@dataclass(frozen=True)
class Cell:
    """A population inside a stage: its program and the program's values, [1] or [N] each."""

    name: str
    program: StepProgram
    values: Mapping[str, Tensor]


@dataclass(frozen=True)
class Link:
    """A connection inside a stage. ``weight`` [N_target, N_source]; ``delay`` in steps; ``mask`` [B, N_source]
    multiplies the source's output. With ``taps`` every source, target or pair has delays of its own, which add up to
    at least ``delay`` steps. With ``copies`` (t, s) the weights are [N_target / t, N_source / s]: every t targets in
    turn receive the same, from sums over every s sources in turn.
    """

    source: str
    target: str
    weight: Tensor
    delay: int
    mask: Tensor | None = None
    taps: tuple[Taps, ...] = ()
    copies: tuple[int, int] = (1, 1)

    def whole(self) -> Link:
        """The same with a weight for every pair."""
        if self.copies == (1, 1):
            return self
        return replace(self, weight=repeated(self.weight, *self.copies), copies=(1, 1))


def repeated(weight: Tensor, rows: int, columns: int) -> Tensor:
    """``weight`` with each row ``rows`` times and each column ``columns`` times in turn."""
    n, m = weight.shape
    return weight[:, None, :, None].expand(n, rows, m, columns).reshape(n * rows, m * columns)


@dataclass(frozen=True)
class Trace:
    """What a stage gives for one cell: ``output`` [T, B, N] and each state, [T, B, N] after every step or, where only
    the last was asked for, [1, B, N].
    """

    output: Tensor
    states: dict[str, Tensor]


def block_of(names: Sequence[str], links: Sequence[tuple[str, str, int]], steps: int) -> tuple[int, list[str]]:
    """How many steps the stage may advance at a time, and the order of its cells within such a block.

    ``links`` are (source, target, delay). If m is the largest number for which the links with a delay below m form no
    cycle, whatever a block of m steps receives over the others was sent before it; so each population runs m steps
    alone. ``names`` are in topological order of the links without delay.
    """
    block = steps
    for delay in sorted({d for _, _, d in links}):
        if delay < steps and not nx.is_directed_acyclic_graph(nx.DiGraph([(a, b) for a, b, d in links if d <= delay])):
            block = max(1, delay)
            break
    inside = nx.DiGraph()
    inside.add_nodes_from(names)
    inside.add_edges_from((a, b) for a, b, d in links if d < block)
    return block, list(nx.lexicographical_topological_sort(inside, key=list(names).index))
