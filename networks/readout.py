"""Readouts: one vector per sample from the output sequence of a population."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _masked(y: Tensor, valid: Tensor | None) -> Tensor:
    return y if valid is None else y * valid.unsqueeze(-1).to(y.dtype)


def _sum(y: Tensor, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
    return _masked(y, valid).sum(0)


def _sum_softmax(y: Tensor, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
    return _masked(torch.softmax(y, -1), valid).sum(0)


def _mean(y: Tensor, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
    total = _masked(y, valid).sum(0)
    return total / (y.shape[0] if lengths is None else lengths.clamp(min=1).unsqueeze(-1).to(y.dtype))


def _max(y: Tensor, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
    return (y if valid is None else y.masked_fill(~valid.unsqueeze(-1), -torch.inf)).amax(0)


def _last(y: Tensor, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
    return y[-1] if lengths is None else y[lengths - 1, torch.arange(y.shape[1], device=y.device)]


READOUTS: dict[str, Callable[[Tensor, Tensor | None, Tensor | None], Tensor]] = {
    "sum": _sum,
    "sum_softmax": _sum_softmax,
    "mean": _mean,
    "max": _max,
    "last": _last,
}
"""Readouts by name. ``sum_softmax`` is used in training; evaluation and export take the plain sum of the state for it.
"""


def read_out(kind: str, y: Tensor, valid: Tensor | None, lengths: Tensor | None, training: bool) -> Tensor:
    """``y`` [T, B, N] to [B, N]; ``valid`` [T, B] marks unpadded steps of samples of ``lengths`` [B] steps."""
    return READOUTS["sum" if kind == "sum_softmax" and not training else kind](y, valid, lengths)
