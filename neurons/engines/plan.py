"""The plan of a stage: everything that a fused kernel depends on, as plain data.

It is what source is printed from, what a compiled kernel is found by, and, as JSON, the only argument of the torch
operators beside tensors; so a traced or saved graph needs no table of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from typing import Any

from torch import Tensor

from ..derivative import Derivative, differentiate
from ..program import StepProgram
from .stage import Cell, Link, block_of

KEPT = ("saved", "passed", "product")
"""How the names of results begin that are only for the backward pass."""
FRUGAL = ("numba",)
"""Engines that restore states and rebuild outputs in the backward pass; for the others memory is not what is short."""
LONGEST_BLOCK = 32
"""Steps that a fused kernel advances at a time at most: enough rows for a product."""


@dataclass(frozen=True)
class CellPlan:
    """A population: its program, the parameters whose gradients are wanted, and whether to keep as little as can be."""

    program: StepProgram
    learned: tuple[str, ...]
    frugal: bool = False

    @cached_property
    def derivative(self) -> Derivative:
        return differentiate(self.program, self.learned, self.frugal)


@dataclass(frozen=True)
class LinkPlan:
    """A connection between the cells of two numbers.

    ``learned`` says whether the gradient of its weights is wanted; ``axonal`` and ``dendritic``, that every source and
    every target has delays of its own, ``timed`` and ``retimed`` that the gradients of their gains are; ``pairs``, that
    every pair has, so that its weights are those amounts that arrive after each of its delays. ``targets`` and
    ``sources`` are the copies of :class:`Link`.
    """

    source: int
    target: int
    delay: int
    masked: bool
    learned: bool
    axonal: bool = False
    timed: bool = False
    dendritic: bool = False
    retimed: bool = False
    pairs: bool = False
    targets: int = 1
    sources: int = 1

    @property
    def delayed(self) -> bool:
        """Whether the kernels leave what was sent before the first step to others."""
        return self.axonal or self.dendritic or self.pairs


@dataclass(frozen=True)
class Plan:
    """A stage without its numbers.

    Attributes:
        block: steps that the stage may advance at a time; ``order`` is that of its cells within a block.
        keep_states: whether the states after every step are results, or only the last.
        gradients: whether a backward pass will follow, so that what it needs must be kept.
        past: whether gradients of the outputs before the first step are wanted.
    """

    engine: str
    cells: tuple[CellPlan, ...]
    links: tuple[LinkPlan, ...]
    block: int
    order: tuple[int, ...]
    keep_states: bool
    gradients: bool
    past: bool

    def saved(self, cell: int) -> tuple[str, ...]:
        """The values of a cell that a forward pass keeps at every step, beside its output."""
        return self.cells[cell].derivative.saved if self.gradients else ()

    def into(self, cell: int) -> Iterator[tuple[int, LinkPlan]]:
        """The links into a cell, with their numbers."""
        return ((i, k) for i, k in enumerate(self.links) if k.target == cell)

    def out_of(self, cell: int) -> Iterator[tuple[int, LinkPlan]]:
        """The links from a cell, with their numbers."""
        return ((i, k) for i, k in enumerate(self.links) if k.source == cell)

    def sends(self, cell: int) -> bool:
        """Whether a link starts at the cell, so that the gradient of a weight needs its output."""
        return any(k.source == cell for k in self.links)

    # -- the order of tensors in the operators' lists ----------------------------------------------

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors given: ``current0`` [T, B, N], ``state0.v`` [B, N], ``history0`` [D, B, N], ``value0.x``
        [N] of cell 0, ..., ``weight0`` [N_target, N_source], ``mask0`` [B, N_source], of axonal delays ``offsets0`` and
        ``gains0`` [K, N_source], of dendritic ones ``lags0`` and ``shares0`` [K, N_target], and instead of a weight
        ``amounts0`` and ``offsets0`` [M, N_target, N_source] of pairs' of link 0, ... Of axonal and dendritic delays
        together the offsets hold the least of the dendritic ones too, which the lags leave out. Weights
        of copies are as in :class:`Link`.
        """
        names: list[str] = []
        for i, cell in enumerate(self.cells):
            names += [f"current{i}", *(f"state{i}.{s}" for s in cell.program.states), f"history{i}"]
            names += [f"value{i}.{p}" for p in cell.program.params]
        for i, link in enumerate(self.links):
            names += [f"amounts{i}" if link.pairs else f"weight{i}", *([f"mask{i}"] if link.masked else [])]
            names += [f"offsets{i}"] if link.axonal or link.pairs else []
            names += [f"gains{i}"] if link.axonal else []
            names += [f"lags{i}", f"shares{i}"] if link.dendritic else []
        return tuple(names)

    @cached_property
    def results(self) -> tuple[str, ...]:
        """Names of the tensors returned: ``output0`` [T, B, N], ``states0.v`` [T or 1, B, N], ..., and then what is
        kept for the backward pass, ``saved0.x`` [T, B, N] and, of a link with axonal delays, ``passed0``
        [T, B, N_source], what arrived at its weights, of one with dendritic delays that learn ``product0``
        [T, B, N_target], what left them.
        """
        names: list[str] = []
        for i, cell in enumerate(self.cells):
            names += [f"output{i}", *(f"states{i}.{s}" for s in cell.program.states)]
        names += [f"saved{i}.{s}" for i in range(len(self.cells)) for s in self.saved(i)]
        names += [f"passed{i}" for i, k in enumerate(self.links) if k.axonal and k.learned]
        return (*names, *(f"product{i}" for i, k in enumerate(self.links) if k.retimed))

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """Those of the inputs and results that the backward pass reads."""
        names = [n for n in self.inputs if not n.startswith(("current", "state"))]
        for i, cell in enumerate(self.cells):
            names += [f"state{i}.{s}" for s in cell.derivative.restored]
            names += [f"output{i}"] if self.sends(i) and not cell.derivative.rebuilt else []
        return (*names, *(n for n in self.results if n.startswith(KEPT)))

    @cached_property
    def differentiable(self) -> tuple[str, ...]:
        """Those of the results that a gradient may arrive at."""
        return tuple(n for n in self.results if not n.startswith(KEPT))

    # -- JSON --------------------------------------------------------------------------------------

    @cached_property
    def text(self) -> str:
        """The plan as JSON; :func:`read_plan` reads it."""
        data = {
            "engine": self.engine,
            "cells": [{"program": c.program.to_json(), "learned": c.learned} for c in self.cells],
            "links": [astuple(k) for k in self.links],
            "block": self.block,
            "order": self.order,
            "keep_states": self.keep_states,
            "gradients": self.gradients,
            "past": self.past,
        }
        return json.dumps(data, separators=(",", ":"))


@lru_cache(maxsize=512)
def read_plan(text: str) -> Plan:
    """The plan of :attr:`Plan.text`."""
    data: Mapping[str, Any] = json.loads(text)
    return Plan(
        data["engine"],
        tuple(
            CellPlan(StepProgram.from_json(c["program"]), tuple(c["learned"]), data["engine"] in FRUGAL)
            for c in data["cells"]
        ),
        tuple(LinkPlan(*k) for k in data["links"]),
        data["block"],
        tuple(data["order"]),
        data["keep_states"],
        data["gradients"],
        data["past"],
    )


def plan_of(
    engine: str, cells: Sequence[Cell], links: Sequence[Link], keep_states: bool, gradients: bool, past: bool
) -> Plan:
    """The plan of a stage; ``gradients`` says whether a backward pass may follow, ``past`` whether into the history."""
    number = {c.name: i for i, c in enumerate(cells)}
    return _plan(
        engine,
        tuple(
            (c.program.text, tuple(n for n in c.program.params if gradients and c.values[n].requires_grad))
            for c in cells
        ),
        tuple(
            (
                number[k.source],
                number[k.target],
                k.delay,
                k.mask is not None,
                gradients
                and (k.weight.requires_grad or any(t.gains.requires_grad for t in k.taps if t.kind == "synaptic")),
                *_delays_of(k, gradients),
                *k.copies,
            )
            for k in links
        ),
        keep_states,
        gradients,
        past,
    )


def _delays_of(link: Link, gradients: bool) -> tuple[bool, bool, bool, bool, bool]:
    kinds = {t.kind: gradients and t.gains.requires_grad for t in link.taps}
    axonal, dendritic = "axonal" in kinds, "dendritic" in kinds
    timed, retimed = axonal and kinds["axonal"], dendritic and kinds["dendritic"]
    return axonal, timed, dendritic, retimed, "synaptic" in kinds


@lru_cache(maxsize=512)
def _plan(
    engine: str,
    cells: tuple[tuple[str, tuple[str, ...]], ...],
    links: tuple[tuple[int, int, int, bool, bool, bool, bool, bool, bool, bool, int, int], ...],
    keep_states: bool,
    gradients: bool,
    past: bool,
) -> Plan:
    names = [str(i) for i in range(len(cells))]
    block, order = block_of(names, [(names[k[0]], names[k[1]], k[2]) for k in links], LONGEST_BLOCK)
    return Plan(
        engine,
        tuple(CellPlan(StepProgram.from_json(json.loads(text)), learned, engine in FRUGAL) for text, learned in cells),
        tuple(LinkPlan(*k) for k in links),
        block,
        tuple(map(int, order)),
        keep_states,
        gradients,
        past,
    )


def tensors_of(
    cells: Sequence[Cell],
    links: Sequence[Link],
    currents: Mapping[str, Tensor],
    states: Mapping[str, Mapping[str, Tensor]],
    history: Mapping[str, Tensor],
) -> list[Tensor]:
    """The tensors of a stage in the order of :attr:`Plan.inputs`."""
    tensors: list[Tensor] = []
    for cell in cells:
        size = currents[cell.name].shape[2]
        # of what links with delays of their own still bring, the kernels see the current
        reach = max((k.delay for k in links if k.source == cell.name and not k.taps), default=0)
        past = history[cell.name][len(history[cell.name]) - reach :]
        tensors += [currents[cell.name], *(states[cell.name][s] for s in cell.program.states), past]
        tensors += [cell.values[p].expand(size) for p in cell.program.params]
    for link in links:
        taps = {t.kind: t for t in link.taps}
        axonal, dendritic, pairs = (taps.get(kind) for kind in ("axonal", "dendritic", "synaptic"))
        amounts, offsets = (link.weight, None) if pairs is None else pairs.by_pair(link.weight)
        tensors += [amounts, *([] if link.mask is None else [link.mask])]
        tensors += [] if offsets is None else [offsets]
        low = 0 if dendritic is None else dendritic.low
        tensors += [] if axonal is None else [axonal.offsets + low, axonal.gains]
        tensors += [] if dendritic is None else [dendritic.offsets - low, dendritic.gains]
    return tensors
