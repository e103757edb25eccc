"""What training adds to the classification loss: regularisers of firing rates."""

from __future__ import annotations

import torch
from torch import Tensor


def firing_rates(spikes: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Spikes per neuron and step, [T, B, N] to [B, N], over the unpadded steps of each sample."""
    if lengths is None:
        return spikes.mean(0)
    valid = (torch.arange(spikes.shape[0], device=spikes.device).unsqueeze(1) < lengths).unsqueeze(-1)
    return (spikes * valid.to(spikes.dtype)).sum(0) / lengths.clamp(min=1).unsqueeze(-1).to(spikes.dtype)


def rate_loss(spikes: Tensor, low: float = 0.0, high: float = 1.0, lengths: Tensor | None = None) -> Tensor:
    """Mean squared distance of each neuron's batch-mean rate (spikes per step) from the band [``low``, ``high``].

    A positive ``low`` revives silent neurons, ``high`` below 1 quiets loud ones. Signed spikes count without their
    sign; where such a neuron is silent nothing says which it should send, and ``low`` gives it no gradient.
    """
    if bool((spikes.detach() < 0).any()):
        spikes = spikes.abs()
    rates = firing_rates(spikes, lengths).mean(0)
    return (torch.relu(low - rates) ** 2 + torch.relu(rates - high) ** 2).mean()
