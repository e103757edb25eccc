"""What a training reads: batches of labelled samples, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .config import AugmentConfig


@dataclass(frozen=True)
class Batch:
    """``counts`` [T, B, C] uint8, ``targets`` [B, classes] (rows sum to 1), ``lengths`` [B] steps or None where none
    is padded.
    """

    counts: Tensor
    targets: Tensor
    lengths: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        lengths = None if self.lengths is None else self.lengths.to(device)
        return Batch(self.counts.to(device, non_blocking=True), self.targets.to(device, non_blocking=True), lengths)

    def share(self, rank: int, world: int) -> Batch:
        """Every ``world``-th sample from ``rank`` on."""
        rows = torch.arange(rank, self.targets.shape[0], world) % self.targets.shape[0]
        rows = rows if len(rows) else torch.zeros(1, dtype=torch.long)
        return Batch(self.counts[:, rows], self.targets[rows], None if self.lengths is None else self.lengths[rows])


class Split(Protocol):
    """Labelled samples of a run, as batches: of counts (``counts.CountSplit``) or of sensor values (``har_data``)."""

    def __len__(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def speakers(self) -> np.ndarray:
        """Who each sample is from."""
        ...

    @property
    def padded(self) -> bool:
        """Whether batches have lengths."""
        ...

    def take(self, chosen: np.ndarray) -> Split:
        """The samples ``chosen``: indices, or a mask [N]."""
        ...

    def batch(
        self, rows: np.ndarray, rng: torch.Generator | None = None, augment: AugmentConfig | None = None
    ) -> Batch:
        """The samples ``rows`` [B], changed as ``augment`` says with draws from ``rng`` where both are given."""
        ...
