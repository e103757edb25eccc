"""Loud and soft on one scale: square roots of counts, in whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from .binning import LARGEST_COUNT

_COUNTS = torch.arange(LARGEST_COUNT + 1, dtype=torch.float64)


def compressed(counts: Tensor, scale: float) -> Tensor:
    """Counts n become round(``scale`` * sqrt(n)), halves upwards.

    The square root brings the noise of a Poisson count to one size wherever the count lies [Anscombe 1948], so a loud
    channel does not outweigh the others by its loudness alone.

    Args:
        counts: uint8 [T, B, C].
        scale: 0: nothing changes; 2 keeps 0, 1 and 2 apart and takes 25 to 10.

    Returns:
        uint8 [T, B, C], at most 255; 0 stays 0.
    """
    if scale == 0:
        return counts
    table = (scale * _COUNTS.sqrt() + 0.5).floor().clamp(max=LARGEST_COUNT).to(torch.uint8)
    return table[counts.int()]
