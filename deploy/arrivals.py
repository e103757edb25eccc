"""When a spike arrives: the delays of a connection in whole steps, and the ring of accumulators that holds what is on
its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import ExportError
from .program import bits_of

DELAY_KINDS = ("uniform", "axonal", "dendritic", "synaptic")
MAX_RING = 1 << 24
"""Bytes that the ring of one population may take."""


@dataclass(frozen=True)
class IntConnection:
    """``weights`` int8 [N_target, N_source].

    ``delay`` says which output of the source is read in a step: this step's (0) or that of the step before (1), as a
    source that runs after its target needs. ``delays`` are further whole steps until it arrives: ``uniform`` [1],
    ``axonal`` [N_source], ``dendritic`` [N_target], ``synaptic`` [N_target, N_source] (uint8 or uint16); several add
    up. The weights count 2^``shift``, so that those of spikes meet those of samples in one accumulator.
    """

    name: str
    source: str
    delay: int
    weights: np.ndarray
    delays: Mapping[str, np.ndarray] = field(default_factory=dict)
    shift: int = 0

    @property
    def further(self) -> np.ndarray:
        """Further steps of every synapse, int64 [N_target, N_source]."""
        total = np.zeros(self.weights.shape, np.int64)
        for kind, steps in self.delays.items():
            total += steps.astype(np.int64)[:, None] if kind == "dendritic" else steps
        return total

    @property
    def reach(self) -> int:
        """The most further steps that a synapse has."""
        return sum(int(steps.max()) for steps in self.delays.values())

    @property
    def back(self) -> np.ndarray:
        """How many steps ago what arrives was sent: one number where all synapses agree, else [N_target, N_source]."""
        return np.array(self.delay + self.reach) if set(self.delays) <= {"uniform"} else self.delay + self.further

    def check(self, n_source: int, n_target: int, acc: tuple[int, int]) -> None:
        """Raise :class:`ExportError`, naming the connection, for what does not fit; ``acc`` is the interval of the
        target's accumulator.
        """
        if self.delay not in (0, 1):
            raise ExportError(
                f"connection {self.name!r} reads its source {self.delay} steps ago; it must be 0 or 1, longer delays "
                "are in 'delays'"
            )
        if self.weights.dtype != np.int8 or self.weights.shape != (n_target, n_source):
            raise ExportError(f"connection {self.name!r}: weights must be int8 [{n_target}, {n_source}]")
        if not 0 <= self.shift <= 30:
            raise ExportError(f"connection {self.name!r}: shift must be 0 to 30, got {self.shift}")
        shapes = {
            "uniform": (1,),
            "axonal": (n_source,),
            "dendritic": (n_target,),
            "synaptic": (n_target, n_source),
        }
        for kind, steps in self.delays.items():
            if kind not in shapes:
                raise ExportError(
                    f"connection {self.name!r}: delays of the unknown kind {kind!r}; one of {', '.join(DELAY_KINDS)}"
                )
            if steps.dtype not in (np.uint8, np.uint16) or steps.shape != shapes[kind]:
                raise ExportError(
                    f"connection {self.name!r}: {kind} delays must be uint8 or uint16 {list(shapes[kind])}, got "
                    f"{steps.dtype} {list(steps.shape)}"
                )
        check_ring(self.name, self.reach + 1, n_target, acc)


def check_ring(name: str, depth: int, size: int, acc: tuple[int, int]) -> None:
    """Raise :class:`ExportError` where the ring that connection ``name`` asks for is too large."""
    needed = depth * size * slot_bytes(acc)
    if depth > 1 and needed > MAX_RING:
        raise ExportError(
            f"connection {name!r} has a delay of {depth - 1} steps, for which its target needs a ring of {depth} "
            f"x {size} accumulators, {needed} bytes of RAM; at most {MAX_RING} are exported: shorten the delay"
        )


def slot_bytes(acc: tuple[int, int]) -> int:
    """Bytes of the smallest signed type that holds an accumulator: those of a ring are no wider."""
    return next(b for b in (1, 2, 4, 8) if bits_of(*acc) <= 8 * b)


def lowered_delays(
    total: int, tables: Mapping[str, np.ndarray], runs_before: bool, name: str
) -> tuple[int, dict[str, np.ndarray]]:
    """``delay`` and ``delays`` of an :class:`IntConnection` whose synapses have ``total`` steps plus those of
    ``tables`` (one per kind); ``runs_before`` says that the source runs before its target in a step.

    What all entries of a table share is moved to ``uniform``, so that tables hold small numbers and vanish where
    all are equal. Raises :class:`ExportError` for delays beyond 16 bits.
    """
    total += sum(int(steps.min()) for steps in tables.values())
    rest = {kind: steps - steps.min() for kind, steps in tables.items() if steps.min() != steps.max()}
    # a source that runs later can only be read a step late; one step for all needs no ring either way
    delay = 1 if not runs_before or (total == 1 and not rest) else 0
    if total - delay:
        rest = {"uniform": np.array([total - delay]), **rest}
    if any(int(steps.max()) > 0xFFFF for steps in rest.values()):
        raise ExportError(f"connection {name!r} has delays of more than {0xFFFF} steps; shorten them")
    return delay, {k: v.astype(np.uint8 if v.max() < 256 else np.uint16) for k, v in rest.items()}


class Ring:
    """What is on its way to one population, for a batch: ``depth`` accumulators [B, N] in float64, which hold whole
    numbers of 32 bits exactly.

    In step k what arrives after d further steps is added to slot (k + d) mod depth; the population takes slot k mod
    depth, which is then empty.
    """

    def __init__(self, connections: Sequence[IntConnection], depth: int, batch: int, size: int) -> None:
        self.slots = np.zeros((depth, batch, size))
        self.groups = {c.name: _groups(c) for c in connections}

    def send(self, step: int, connection: str, output: np.ndarray) -> None:
        """Add what ``output`` [B, N_source] brings over a connection."""
        for further, sources, targets, weights in self.groups[connection]:
            slot = self.slots[(step + further) % len(self.slots)]
            slot[:, targets] += output[:, sources] @ weights

    def take(self, step: int) -> np.ndarray:
        """The accumulator [B, N] of ``step``, int64."""
        slot = self.slots[step % len(self.slots)]
        arrived = slot.astype(np.int64)
        slot[:] = 0.0
        return arrived


def _groups(c: IntConnection) -> list[tuple[int, np.ndarray | slice, np.ndarray | slice, np.ndarray]]:
    """The synapses by their further delay: (delay, sources, targets, weights [n_source, n_target])."""
    if c.reach == 0:
        return [(0, slice(None), slice(None), c.weights.T * 2.0**c.shift)]
    further, result = c.further, []
    for delay in np.unique(further):
        chosen = (further == delay) & (c.weights != 0)
        targets, sources = np.flatnonzero(chosen.any(1)), np.flatnonzero(chosen.any(0))
        if len(targets):
            weights = np.where(chosen, c.weights, 0)[np.ix_(targets, sources)].T * 2.0**c.shift
            result.append((int(delay), sources, targets, weights))
    return result
