"""How many bytes a network takes on a device, and leaving out what no one reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..networks import Network
from .arrivals import IntConnection
from .c_text import storage
from .c_weights import copies_of, stored
from .folding import fold
from .integer import IntegerNetwork, IntPopulation

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Footprint:
    """Bytes of constants: ``weights``, ``delays``, and ``tables`` (scales, biases, decays, first states)."""

    weights: int
    delays: int
    tables: int

    @property
    def total(self) -> int:
        return self.weights + self.delays + self.tables


def footprint(inet: IntegerNetwork) -> Footprint:
    """The constants of ``inet`` as the C program stores them, without its code."""
    weights = delays = tables = 0
    for p in inet.populations:
        for c in p.connections:
            weights += stored(c.name, c.name, c.weights).bytes
            delays += sum(steps.nbytes for steps in p.delay_tables(c).values())
        for t in p.program.tables:
            tables += p.size * _width(t.lo, t.hi)
        for s in p.program.states:
            if not p.starts_alike(s.name):
                tables += p.size * _width(s.lo, s.hi)
    tables += sum(i.size for i in inet.inputs if any(i.shifts))
    return Footprint(weights, delays, tables)


def float_footprint(net: Network) -> Footprint:
    """The same of the float network: 4 bytes for each weight, bias and value of a neuron; batch norm folded in, delays
    as in integers. Of neurons that are copies of each other the weights count once, and of one matrix for many channels
    those that are not 0.
    """
    weights = delays = tables = 0
    for name in net.populations:
        folded, bias = fold(net, name, f"population {name!r}")
        for c in folded:
            targets, sources = copies_of(c.weights)
            once = c.weights[::targets, ::sources]
            repeats = hasattr(net.connection(c.name.partition("#")[0]), "matrix")
            weights += FLOAT_BYTES * (int(np.count_nonzero(once)) if repeats else once.size)
        delays += sum(v.nbytes for c in folded for kind, v in c.delays.items() if kind != "uniform")
        values = net.neuron(name).values(net.dt)
        used = [values[p] for p in net.neuron(name).program(net.dt).params]
        tables += FLOAT_BYTES * ((bias.size if np.any(bias) else 0) + sum(v.numel() for v in used))
    return Footprint(weights, delays, tables)


def without_unread(inet: IntegerNetwork) -> IntegerNetwork:
    """``inet`` without the neurons whose output reaches no readout, as pruning leaves them; readouts stay the same.

    Inputs keep their channels, and a population that would lose all its neurons keeps one.
    """
    kept = {p.name: np.ones(p.size, bool) for p in inet.populations}
    while True:
        read = {p.name: np.zeros(p.size, bool) for p in inet.populations}
        read[inet.readout[0]][:] = True
        for p in inet.populations:
            for c in p.connections:
                if c.source in read:
                    read[c.source] |= _heard(c, kept[p.name], c.source == p.name)
        for mask in read.values():
            mask[0] |= not mask.any()
        if all(np.array_equal(read[n] & kept[n], kept[n]) for n in kept):
            break
        kept = {n: read[n] & kept[n] for n in kept}
    parts = tuple(_cut(p, kept) for p in inet.populations)
    return replace(inet, populations=parts)


def _heard(c: IntConnection, kept: np.ndarray, itself: bool) -> np.ndarray:
    """The sources that a neuron that stays has a weight from; a neuron does not stay for its own sake."""
    weights = c.weights.copy()
    if itself:
        np.fill_diagonal(weights, 0)
    return np.asarray(weights[kept].any(0))


def _cut(p: IntPopulation, kept: Mapping[str, np.ndarray]) -> IntPopulation:
    own = kept[p.name]
    every = np.arange(0)

    def chosen(v: np.ndarray) -> np.ndarray:
        return v if v.size == 1 else v[own]

    links = []
    for c in p.connections:
        sources = kept.get(c.source, every)
        sources = np.ones(c.weights.shape[1], bool) if sources.size == 0 else sources
        delays = {
            kind: v
            if kind == "uniform"
            else v[sources]
            if kind == "axonal"
            else v[own]
            if kind == "dendritic"
            else v[np.ix_(own, sources)]
            for kind, v in c.delays.items()
        }
        links.append(replace(c, weights=c.weights[np.ix_(own, sources)], delays=delays))
    return replace(
        p,
        size=int(own.sum()),
        connections=tuple(links),
        tables={n: chosen(v) for n, v in p.tables.items()},
        initial={n: chosen(v) for n, v in p.initial.items()},
    )


def _width(lo: int, hi: int) -> int:
    return int(storage(lo, hi).removeprefix("int").removesuffix("_t")) // 8
