"""What augmentations draw at random: a number, a wave or a band for each sample of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform(low: float, high: float, size: int, rng: torch.Generator) -> Tensor:
    """Numbers of low..high: float32 [size]."""
    return low + (high - low) * torch.rand(size, generator=rng)


def integers(low: int, high: int, size: int, rng: torch.Generator) -> Tensor:
    """Whole numbers of low..high, both included: int64 [size]."""
    return torch.randint(low, high + 1, (size,), generator=rng)


def log_factors(largest: float, size: int, rng: torch.Generator) -> Tensor:
    """Logarithms of factors between 1 / (1 + largest) and 1 + largest, uniform: float32 [size]."""
    return uniform(-1, 1, size, rng) * math.log1p(largest)


def waves(size: int, channels: int, rng: torch.Generator) -> Tensor:
    """Sines along the channels, of random phase and of 0 to 1.5 periods: float32 [size, channels]."""
    phase, periods = uniform(0, 1, size, rng)[:, None], uniform(0, 1.5, size, rng)[:, None]
    return torch.sin(2 * math.pi * (phase + periods * torch.arange(channels) / channels))


def bands(largest: int, number: int, size: int, limits: Tensor, rng: torch.Generator) -> Tensor:
    """True in random bands of 0..largest neighbours within 0..limit-1 of each row: bool [B, size]."""
    inside = torch.zeros((len(limits), size), dtype=torch.bool)
    place = torch.arange(size)
    for _ in range(number):
        width = torch.minimum(integers(0, largest, len(limits), rng), limits)
        start = (torch.rand(len(limits), generator=rng) * (limits - width + 1)).long()
        inside |= (place >= start[:, None]) & (place < (start + width)[:, None])
    return inside
