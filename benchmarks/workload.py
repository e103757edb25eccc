"""The work that every peer is given: one recurrent layer, C inputs to H spiking neurons, seen for T steps by B samples.

Needs NumPy only: the peers that live in an environment of their own make the same arrays from the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DT, TAU_MEM, TAU_SYN, THRESHOLD = 1.0, 20.0, 5.0, 1.0  # ms; TAU_SYN for peers whose neuron has a synaptic current
DECAY = math.exp(-DT / TAU_MEM)
SLOPE = 10.0  # the surrogate of every peer that offers it: 1 / (1 + SLOPE |v - threshold|)^2
RECURRENT_GAIN = 0.5  # standard deviation of the recurrent weights times sqrt(H)
SEED = 20


@dataclass(frozen=True)
class Cell:
    """One size of the work. ``rate``: share of ones in the input, and the rate that hidden spikes are tuned to."""

    B: int
    T: int
    C: int
    H: int
    rate: float

    def __post_init__(self) -> None:
        if min(self.B, self.T, self.C, self.H) < 1 or not 0 < self.rate < 1:
            raise ValueError(f"a cell is B,T,C,H of at least 1 and a rate between 0 and 1, got {self}")

    @classmethod
    def parse(cls, text: str) -> Cell:
        """``32,250,140,256,0.05``; the rate may be written ``5%``. Raises :class:`ValueError` for anything else."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 5:
            raise ValueError(f"a cell is B,T,C,H,rate, such as 32,250,140,256,0.05, got {text!r}")
        rate = float(parts[4][:-1]) / 100 if parts[4].endswith("%") else float(parts[4])
        b, t, c, h = (int(part) for part in parts[:4])
        return cls(b, t, c, h, rate)

    def with_steps(self, steps: int) -> Cell:
        return Cell(self.B, steps, self.C, self.H, self.rate)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"B{self.B} T{self.T} C{self.C} H{self.H} {self.rate:.3g}"


@dataclass(frozen=True)
class Workload:
    """``x`` [T, B, C] of zeros and ones; ``w_in`` [H, C] before its tuned gain; ``w_rec`` [H, H] (target, source);
    ``upstream`` [T, B, H], the random weights of the loss, sum(upstream * output). All float32.
    """

    cell: Cell
    x: np.ndarray
    w_in: np.ndarray
    w_rec: np.ndarray
    upstream: np.ndarray


def make_workload(cell: Cell) -> Workload:
    rng = np.random.default_rng(SEED)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    w_in = (1.0 + draw(cell.H, cell.C)) / (cell.C * cell.rate)  # a gain of g gives a mean current of g per step
    w_rec = draw(cell.H, cell.H) * (RECURRENT_GAIN / math.sqrt(cell.H))
    x = (rng.random((cell.T, cell.B, cell.C), np.float32) < cell.rate).astype(np.float32)
    return Workload(cell, x, w_in.astype(np.float32), w_rec.astype(np.float32), draw(cell.T, cell.B, cell.H))


def tuning_cell(cell: Cell) -> Cell:
    """A smaller piece of the same work, large enough to see the rate of the whole."""
    return Cell(min(cell.B, 4), min(cell.T, 250), cell.C, cell.H, cell.rate)


def tune(rate_of: Callable[[float], float], target: float, tolerance: float = 0.03, tries: int = 24) -> float:
    """The gain of the input weights at which ``rate_of(gain)``, which rises with it, comes to ``target``."""
    low, high = 1e-3, 1e3
    gain = math.sqrt(low * high)
    for _ in range(tries):
        gain = math.sqrt(low * high)
        rate = rate_of(gain)
        if abs(rate - target) <= tolerance * target:
            break
        low, high = (gain, high) if rate < target else (low, gain)
    return gain
