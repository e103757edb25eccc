"""Connections with a delay for every pair, over whole sequences, for the CPU: by the spikes, or by shifted rows.

By the spikes, each one adds its weight at the steps at which it arrives; by shifted rows, a source's whole sequence is
added, moved by the delay. Gradients are read at the same places. The kernels are in :mod:`.delayed_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .delayed_kernels import ROWS, add_shifted, add_spikes, count_spikes, list_spikes, read_shifted, read_spikes
from .register import operator
from .sparse import WORTH_A_THREAD, array, density
from .stage import FUSED_DTYPES
from .taps import Taps, delayed_product
from .threads import run_tasks

SPIKES_BELOW = 0.1
"""Fraction of values that are not 0 below which a delayed product goes by them: measured, B16 T500 140->256."""
SHIFTS_FROM = 3.0
"""Steps between the shortest and the longest delay, for each tap of a pair, from which shifted rows are faster than a
dense convolution: measured likewise."""


def _ranges(count: int, multiple: int = 1, of_each: int = 4) -> list[tuple[int, int]]:
    """Ranges of ``count`` for torch's threads, several for each, since they may not all be equally free."""
    size = -(-count // (of_each * torch.get_num_threads()))
    size = -(-size // multiple) * multiple
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def _shares(batch: int, size: int) -> list[tuple[int, int, int, int]]:
    """Samples and targets for each task: all targets where the samples are enough for the threads."""
    if batch >= 2 * torch.get_num_threads():
        return [(a, b, 0, size) for a, b in _ranges(batch)]
    return [(b, b + 1, low, high) for b in range(batch) for low, high in _ranges(size, ROWS)]


def _spikes(values: Tensor, lead: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where those of each sample and source start [B, K + 1], and all their steps, from ``lead`` on, and values."""
    sent = array(values)
    batch, sources = sent.shape[1:]
    counts = np.empty((batch, sources), np.int32)
    ranges = _ranges(batch) if sent.size >= WORTH_A_THREAD else [(0, batch)]
    run_tasks(count_spikes, [(counts, sent, a, b) for a, b in ranges])
    ends = counts.cumsum(dtype=np.int64).reshape(batch, sources)
    starts = np.zeros((batch, sources + 1), np.uint64)
    starts[:, 1:] = ends
    starts[1:, 0] = ends[:-1, -1]
    total = int(ends[-1, -1]) if ends.size else 0
    when, amount = np.empty(total, np.uint32), np.empty(total, sent.dtype)
    run_tasks(list_spikes, [(when, amount, starts, sent, lead, a, b) for a, b in ranges])
    return starts, when, amount


def _by_pair(taps: Tensor) -> np.ndarray:
    """[taps, N, K_source] as [N, K_source, taps]; offsets in four bytes, of which there are as many as amounts."""
    found = taps.detach().permute(1, 2, 0)
    if found.is_floating_point():
        return found.contiguous().numpy()
    return _narrow(found).numpy().view(np.uint32)


def _narrow(offsets: Tensor) -> Tensor:
    return torch.empty(offsets.shape, dtype=torch.int32).copy_(offsets)


def _shifts(offsets: Tensor, steps: int, high: int, before: int) -> tuple[np.ndarray, int, int]:
    """Where the row that each tap reads starts, [N, K_source taps], the zeros before a row's values, and its length."""
    length = high + steps
    starts = torch.arange(high, high + offsets.shape[2] * length, length, dtype=torch.int32)[:, None]
    return array((starts - _narrow(offsets.permute(1, 2, 0))).flatten(1)), high - before, length


def _total(grad: Tensor, offsets: Tensor) -> Tensor:
    return grad.new_empty(offsets.shape[1], offsets.shape[2], len(offsets))


def _fake_current(values: Tensor, amounts: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    return values.new_empty(len(values) - before, values.shape[1], amounts.shape[1])


def _fake_amounts(values: Tensor, grad: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    return grad.new_empty(offsets.shape)


def _fake_values(grad: Tensor, amounts: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    return grad.new_empty(before + len(grad), grad.shape[1], offsets.shape[2])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, int], output: Tensor) -> None:
    values, amounts, offsets, *ctx.spans = inputs
    ctx.save_for_backward(values, amounts, offsets)


def _backward_with(of_amounts: Callable[..., Tensor]) -> Callable[..., Any]:
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        values, amounts, offsets = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            delayed_input_backward(grad, amounts, offsets, *ctx.spans) if wanted[0] else None,
            of_amounts(values, grad, offsets, *ctx.spans) if wanted[1] else None,
            None,
            None,
            None,
        )

    return backward


_ARGUMENTS = "Tensor offsets, int high, int before) -> Tensor"


@operator(f"delayed_input_backward(Tensor grad, Tensor amounts, {_ARGUMENTS}", _fake_values)
def delayed_input_backward(grad: Tensor, amounts: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    """The gradient of ``values``: what :func:`add_shifted` makes of ``grad``, with targets and sources exchanged."""
    steps, batch, size = grad.shape
    total = grad.new_empty(before + steps, batch, offsets.shape[2])
    length = before + steps + high
    starts = torch.arange(0, size * length, length, dtype=torch.int32)[:, None] + _narrow(offsets.permute(2, 1, 0))
    given = (array(total), array(grad), array(starts.flatten(1)), array(amounts.permute(2, 1, 0).flatten(1)))
    run_tasks(add_shifted, [(*given, before, length, *share) for share in _shares(batch, total.shape[2])])
    return total


@operator(f"delayed_spikes_backward(Tensor values, Tensor grad, {_ARGUMENTS}", _fake_amounts)
def delayed_spikes_backward(values: Tensor, grad: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    """The gradient of ``amounts``, [taps, N, K_source]."""
    total = _total(grad, offsets)
    given = (array(total), *_spikes(values, high - before), array(grad), _by_pair(offsets))
    run_tasks(read_spikes, [(*given, a, b, high) for a, b in _ranges(len(total), ROWS)])
    return total.permute(2, 0, 1).contiguous()


@operator(f"delayed_shifts_backward(Tensor values, Tensor grad, {_ARGUMENTS}", _fake_amounts)
def delayed_shifts_backward(values: Tensor, grad: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    """As :func:`delayed_spikes_backward`, whatever the values."""
    starts, lead, length = _shifts(offsets, len(grad), high, before)
    ranges = _ranges(values.shape[1], of_each=1)
    totals = np.zeros((len(ranges), *starts.shape), array(grad[:0]).dtype)
    given = (array(values), starts, array(grad), lead, length)
    run_tasks(read_shifted, [(total, *given, a, b) for total, (a, b) in zip(totals, ranges, strict=True)])
    total = torch.from_numpy(totals.sum(0)).view(offsets.shape[1], offsets.shape[2], len(offsets))
    return total.permute(2, 0, 1).contiguous()


@operator(
    f"delayed_spikes(Tensor values, Tensor amounts, {_ARGUMENTS}",
    _fake_current,
    _backward_with(delayed_spikes_backward),
    _setup_context,
    autocast=("cpu",),
)
def delayed_spikes(values: Tensor, amounts: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    """The current [T, B, N] of ``values`` [before + T, B, K_source]; ``amounts`` (weight times gain) and ``offsets``
    [taps, N, K_source], none above ``high``. Nothing was sent earlier than ``values``.
    """
    out = values.new_empty(len(values) - before, values.shape[1], amounts.shape[1])
    given = (array(out), *_spikes(values, high - before), _by_pair(amounts), _by_pair(offsets))
    run_tasks(add_spikes, [(*given, a, b, high) for a, b in _ranges(out.shape[2], ROWS)])
    return out


@operator(
    f"delayed_shifts(Tensor values, Tensor amounts, {_ARGUMENTS}",
    _fake_current,
    _backward_with(delayed_shifts_backward),
    _setup_context,
    autocast=("cpu",),
)
def delayed_shifts(values: Tensor, amounts: Tensor, offsets: Tensor, high: int, before: int) -> Tensor:
    """As :func:`delayed_spikes`, whatever the values."""
    out = values.new_empty(len(values) - before, values.shape[1], amounts.shape[1])
    starts, lead, length = _shifts(offsets, len(out), high, before)
    given = (array(out), array(values), starts, _by_pair(amounts).reshape(starts.shape), lead, length)
    run_tasks(add_shifted, [(*given, *share) for share in _shares(out.shape[1], out.shape[2])])
    return out


def amounts_gradient(values: Tensor, grad: Tensor, offsets: Tensor) -> Tensor:
    """The gradient of the amounts [M, N, K_source] of :func:`delayed_spikes`, by whichever way is faster; ``values``
    [T, B, K_source] are all that was sent.
    """
    way = delayed_spikes_backward if density(values) < SPIKES_BELOW else delayed_shifts_backward
    return way(values, grad, offsets, int(offsets.max()), 0)


def sparse_delayed(
    sent: Tensor, weight: Tensor, bias: Tensor | None, taps: Sequence[Taps], past: Tensor | None = None
) -> Tensor:
    """As :func:`delayed_product`; where every pair has a delay of its own, by the spikes if they are few, and by
    shifted rows if the taps of a pair are few for its longest delay.
    """
    pairs = taps[0]
    if pairs.kind != "synaptic" or sent.dtype not in FUSED_DTYPES or weight.dtype != sent.dtype:
        return delayed_product(sent, weight, bias, taps, past)
    values = sent if past is None or not pairs.high else torch.cat([past[len(past) - pairs.high :], sent])
    if density(values) < SPIKES_BELOW:
        product = delayed_spikes
    elif pairs.high - pairs.low + 1 >= SHIFTS_FROM * len(pairs.offsets) * pairs.parts:
        product = delayed_shifts
    else:
        return delayed_product(sent, weight, bias, taps, past)
    amounts, offsets = pairs.by_pair(weight)
    current = product(values, amounts, offsets, pairs.high, len(values) - len(sent))
    return current if bias is None else current + bias
