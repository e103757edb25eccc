"""Delays as taps: from how many steps before a connection reads, and with what gain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, linear


@dataclass(frozen=True)
class Taps:
    """``offsets`` in steps, int64, and ``gains``: [K, N_source] (``axonal``), [K, N_target] (``dendritic``) or
    [K, N_target, N_source] (``synaptic``), all offsets between ``low`` and ``high``.
    """

    kind: str
    offsets: Tensor
    gains: Tensor
    low: int
    high: int

    def dense(self) -> Tensor:
        """The gain at each offset from ``low`` to ``high``: [L, ...]. Gradients pass."""
        empty = self.gains.new_zeros(self.high - self.low + 1, *self.gains.shape[1:])
        return empty.scatter_add(0, self.offsets - self.low, self.gains)


def delayed_product(sent: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps, steps: int) -> Tensor:
    """The current of the last ``steps`` steps, [steps, B, N_target], from ``sent`` [high + steps, B, N_source].

    Plain torch: the specification of the delayed connection for a whole sequence.
    """
    kernel, start = taps.dense(), taps.high
    if taps.kind == "synaptic":
        # as a correlation over time: the longest delay comes first
        spread = (weight * kernel).flip(0).permute(1, 2, 0)
        reach = sent[len(sent) - steps - taps.high : len(sent) - taps.low].permute(1, 2, 0)
        current = conv1d(reach, spread).permute(2, 0, 1)
        return current if bias is None else current + bias
    source = sent if taps.kind == "axonal" else linear(sent, weight)
    total = torch.zeros_like(source[:steps])
    for k, gain in enumerate(kernel.unbind(0)):
        first = start - taps.low - k
        total = total + gain * source[first : first + steps]
    if taps.kind == "axonal":
        return linear(total, weight, bias)
    return total if bias is None else total + bias
