"""Connections with a delay for every pair, over whole sequences, by the spikes: for the CPU.

Each spike adds its weights at the steps at which they arrive, so the work follows the number of spikes and not the
longest delay; the gradients of weights and gains are read at the same places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import kernel
from .sparse import DTYPES, array, density
from .taps import Taps, delayed_product
from .threads import run_tasks

SPIKES_BELOW = 0.15
"""Fraction of values that are not 0 below which a delayed product goes by them: see ``python -m benchmarks.delays``."""


@kernel()
def scatter_spikes(out: Any, values: Any, amounts: Any, places: Any, first: int, last: int, high: int) -> None:
    """``out[t, b] += amounts[i, k] values[t', b, i]`` at ``t = t' + offset - high``, for samples ``first`` to ``last``.

    ``out`` [T, B, N], ``values`` [high + T, B, K_source]; ``amounts`` and ``places`` [K_source, taps, N], a place being
    ``offset N + n``.
    """
    steps, size = out.shape[0], out.shape[2]
    rows = values.shape[0]
    taps = amounts.shape[1]
    buffer = np.zeros((rows + high) * size, out.dtype)
    for b in range(first, last):
        buffer[:] = 0
        for t in range(rows):
            start = t * size
            for i in range(values.shape[2]):
                value = values[t, b, i]
                if value != 0:
                    for k in range(taps):
                        amount, place = amounts[i, k], places[i, k]
                        for n in range(size):
                            buffer[start + place[n]] += value * amount[n]
        for t in range(steps):
            row, start = out[t, b], (t + high) * size
            for n in range(size):
                row[n] = buffer[start + n]


@kernel(fastmath={"contract", "reassoc", "nsz"})
def gather_spikes(total: Any, values: Any, grads: Any, places: Any, first: int, last: int) -> None:
    """``total[i, k] += values[t', b, i] grads[b, t' + offset]`` for the sources ``first`` to ``last``.

    ``grads`` [B, (T + 2 high) N] holds each sample's gradient with ``high`` steps of 0 before and after; the others are
    as in :func:`scatter_spikes`.
    """
    rows, taps, size = values.shape[0], total.shape[1], total.shape[2]
    for b in range(values.shape[1]):
        grad = grads[b]
        for t in range(rows):
            start = t * size
            for i in range(first, last):
                value = values[t, b, i]
                if value != 0:
                    for k in range(taps):
                        out, place = total[i, k], places[i, k]
                        for n in range(size):
                            out[n] += value * grad[start + place[n]]


def _places(offsets: Tensor) -> Tensor:
    """``offset N + n`` of offsets [taps, N, K_source], as [K_source, taps, N]."""
    size = offsets.shape[1]
    return (offsets.permute(2, 0, 1) * size + torch.arange(size)).to(torch.int32)


def _ranges(count: int) -> list[tuple[int, int]]:
    size = -(-count // max(1, min(torch.get_num_threads(), count)))
    return [(first, min(first + size, count)) for first in range(0, count, size)]


@torch.library.custom_op("ranvier::delayed_spikes", mutates_args=())
def delayed_spikes(values: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    """The current [T, B, N] of ``values`` [high + T, B, K_source]; ``amounts`` (weight times gain) and ``offsets``
    [taps, N, K_source].
    """
    steps, batch, size = len(values) - high, values.shape[1], amounts.shape[1]
    out = values.new_empty(steps, batch, size)
    given = (array(out), array(values), array(amounts.permute(2, 0, 1)), array(_places(offsets)))
    run_tasks(scatter_spikes, [(*given, a, b, high) for a, b in _ranges(batch)])
    return out


@delayed_spikes.register_fake
def _(values: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    return values.new_empty(len(values) - high, values.shape[1], amounts.shape[1])


@torch.library.custom_op("ranvier::delayed_spikes_backward", mutates_args=())
def delayed_spikes_backward(values: Tensor, grad: Tensor, offsets: Tensor, high: int) -> Tensor:
    """The gradient of ``amounts``, [taps, N, K_source]."""
    steps, batch, size = grad.shape
    padded = grad.new_zeros(batch, steps + 2 * high, size)
    padded[:, high : high + steps] = grad.transpose(0, 1)
    total = grad.new_zeros(values.shape[2], len(offsets), size)
    given = (array(total), array(values), array(padded.flatten(1)), array(_places(offsets)))
    run_tasks(gather_spikes, [(*given, a, b) for a, b in _ranges(values.shape[2])])
    return total.permute(1, 2, 0).contiguous()


@delayed_spikes_backward.register_fake
def _(values: Tensor, grad: Tensor, offsets: Tensor, high: int) -> Tensor:
    return grad.new_empty(len(offsets), grad.shape[2], values.shape[2])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    values, _, offsets, ctx.high = inputs
    ctx.save_for_backward(values, offsets)


def _backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
    values, offsets = ctx.saved_tensors
    return None, delayed_spikes_backward(values, grad, offsets, ctx.high), None, None


delayed_spikes.register_autograd(_backward, setup_context=_setup_context)
torch.library.register_autocast("ranvier::delayed_spikes", "cpu", torch.float32)


def sparse_delayed(sent: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps, steps: int) -> Tensor:
    """As :func:`delayed_product`; by the spikes where they are few, every pair has a delay of its own, and the input
    needs no gradient (which is dense).
    """
    few = taps.kind == "synaptic" and sent.dtype in DTYPES and not sent.requires_grad and density(sent) < SPIKES_BELOW
    if not few:
        return delayed_product(sent, weight, bias, taps, steps)
    current = delayed_spikes(sent[len(sent) - steps - taps.high :], weight * taps.gains, taps.offsets, taps.high)
    return current if bias is None else current + bias
