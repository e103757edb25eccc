"""Augmentations of time: what another tempo changes. Counts are moved, not shared out: a slower word fires at the same
rate for longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .augment_counts import moved
from .augment_draws import bands, integers, log_factors
from .augmentation import Examples, require


@dataclass(frozen=True)
class TimeShift:
    """Let each sample begin later or earlier.

    Attributes:
        later, earlier: steps; the shift is uniform in -earlier..later. What leaves the window is lost.
    """

    later: int
    earlier: int = 0

    def __post_init__(self) -> None:
        require(self, "later", 0)
        require(self, "earlier", 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        steps, size, _ = examples.x.shape
        shift = integers(-self.earlier, self.later, size, rng)
        x = moved(examples.x, torch.arange(steps)[:, None] - shift)
        return examples._replace(x=x, lengths=(examples.lengths + shift).clamp(1, steps))


@dataclass(frozen=True)
class TimeStretch:
    """Let each sample run slower or faster, at the same firing rates.

    Attributes:
        largest: 0.2 for a duration uniform (in its logarithm) between 1/1.2 and 1.2 of the original.
    """

    largest: float

    def __post_init__(self) -> None:
        require(self, "largest", 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        steps, size, _ = examples.x.shape
        factor = torch.exp(log_factors(self.largest, size, rng))
        source = ((torch.arange(steps)[:, None] + 0.5) / factor).floor().long()
        lengths = (examples.lengths * factor).ceil().long().clamp(1, steps)
        return examples._replace(x=moved(examples.x, source), lengths=lengths)


@dataclass(frozen=True)
class TimeMask:
    """Silence a stretch of time within each sample's length.

    Attributes:
        largest: steps; the length of a stretch is uniform in 0..largest. number: stretches per sample.
    """

    largest: int
    number: int = 1

    def __post_init__(self) -> None:
        require(self, "largest", 0)
        require(self, "number", 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        keep = ~bands(self.largest, self.number, len(examples.x), examples.lengths, rng)
        return examples._replace(x=examples.x * keep.T[:, :, None].to(torch.uint8))
