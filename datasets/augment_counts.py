"""What augmentations do to counts: move them, thin them, find where they lie. The loops are in ``_kernels.py``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def moved(x: Tensor, times: Tensor | None = None, channels: Tensor | None = None) -> Tensor:
    """``x[times[t, b], b, channels[b, c]]``, and silence where a source is out of range.

    x uint8 [T, B, C]; times int64 [T, B], by default each step itself; channels int64 [B, C], likewise.
    """
    from . import _kernels

    steps, size, bins = x.shape
    times = torch.arange(steps)[:, None].expand(steps, size) if times is None else times
    channels = torch.arange(bins).expand(size, bins) if channels is None else channels
    out = np.empty(x.shape, np.uint8)
    _kernels.gather(x.contiguous().numpy(), times.contiguous().numpy(), channels.contiguous().numpy(), out)
    return torch.from_numpy(out)


def thinned(x: Tensor, keep: Tensor, rng: torch.Generator) -> Tensor:
    """Binomial draws of ``x`` trials with probabilities ``keep`` [B, 1] or [B, C]."""
    from . import _kernels

    seed = int(torch.randint(0, 2**62, (1,), generator=rng))
    limits = (keep.double().clamp(0, 1) * 2**32).round().to(torch.int64).expand(x.shape[1:]).contiguous().numpy()
    out = np.empty(x.shape, np.uint8)
    _kernels.thin(x.contiguous().numpy(), limits, seed, out)
    return torch.from_numpy(out)


def centres(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each sample's events (int64 [B]), and their mean step and mean channel bin (float64 [B]; 0 for silence)."""
    from . import _kernels

    sums = np.zeros((x.shape[1], 3), np.int64)
    _kernels.moments(x.contiguous().numpy(), sums)
    events, time, place = torch.from_numpy(sums).unbind(1)
    return events, time / events.clamp(min=1).double(), place / events.clamp(min=1).double()
