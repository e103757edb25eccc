"""Delays as taps: from how many steps before a connection reads, and with what gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, linear


@dataclass(frozen=True)
class Taps:
    """``offsets`` in steps, int64, and ``gains``: [K, N_source] (``axonal``), [K, N_target] (``dendritic``) or
    [K, N_target, parts N_source] (``synaptic``), all offsets between ``low`` and ``high``. With several ``parts`` a
    pair has as many weights, each with a delay of its own.
    """

    kind: str
    offsets: Tensor
    gains: Tensor
    low: int
    high: int
    parts: int = 1

    def dense(self) -> Tensor:
        """The gain at each offset from ``low`` to ``high``: [L, ...]. Gradients pass."""
        return self._at_offsets(self.gains, self.offsets)

    def by_pair(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Of synaptic taps what arrives, ``weight`` [N_target, parts N_source] times gain, and after how many steps:
        [parts K, N_target, N_source] each.
        """
        return self._stacked(weight * self.gains), self._stacked(self.offsets)

    def dense_weight(self, weight: Tensor) -> Tensor:
        """The weight at each offset from ``low`` to ``high`` of synaptic taps: [L, N_target, N_source]."""
        return self._at_offsets(*self.by_pair(weight))

    def _at_offsets(self, values: Tensor, offsets: Tensor) -> Tensor:
        empty = values.new_zeros(self.high - self.low + 1, *values.shape[1:])
        return empty.scatter_add(0, offsets - self.low, values)

    def _stacked(self, values: Tensor) -> Tensor:
        return values.unflatten(2, (self.parts, -1)).movedim(2, 1).flatten(0, 1)


def is_silent(past: Tensor) -> bool:
    """Whether nothing was sent in ``past`` and no gradient goes there; of what is expanded only one is looked at."""
    once = past[tuple(slice(0, 1) if step == 0 else slice(None) for step in past.stride())]
    return not (past.requires_grad or bool(once.any()))


def delayed_product(
    sent: Tensor, weight: Tensor, bias: Tensor | None, taps: Sequence[Taps], past: Tensor | None = None
) -> Tensor:
    """The current [T, B, N_target] that ``sent`` [T, B, N_source], and ``past`` [D, B, N_source] before it, bring over
    a connection with ``taps``: synaptic ones, or axonal ones, dendritic ones or both. Without ``past`` nothing was sent
    before; else D is at least the longest delay.

    Plain torch: the specification of the delayed connection for a whole sequence.
    """
    high = sum(t.high for t in taps)
    values = torch.cat([sent.new_zeros(high, *sent.shape[1:]) if past is None else past[len(past) - high :], sent])
    of_kind = {t.kind: t for t in taps}
    if synaptic := of_kind.get("synaptic"):
        # as a correlation over time: the longest delay comes first
        spread = synaptic.dense_weight(weight).flip(0).permute(1, 2, 0)
        current = conv1d(values[: len(values) - synaptic.low].permute(1, 2, 0), spread).permute(2, 0, 1)
    else:
        filtered = _filtered(values, of_kind["axonal"]) if "axonal" in of_kind else values
        current = linear(filtered, weight)
        current = _filtered(current, of_kind["dendritic"]) if "dendritic" in of_kind else current
    return current if bias is None else current + bias


def _filtered(values: Tensor, taps: Taps) -> Tensor:
    """Each row of [high + T, B, N] through its kernel: [T, B, N]."""
    steps = len(values) - taps.high
    total = torch.zeros_like(values[:steps])
    for k, gain in enumerate(taps.dense().unbind(0), taps.low):
        total = total + gain * values[taps.high - k :][:steps]
    return total
