"""Connections with a delay for every pair, over whole sequences, for the CPU: by the spikes, or by shifted rows.

Both go pair by pair through rows of time, so that what a pair reads and writes stays in a core's nearest cache and the
work does not depend on the longest delay. By the spikes, each one adds its weight at the steps at which it arrives; by
shifted rows, a source's whole sequence is added, moved by the delay. Gradients are read at the same places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import kernel
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
_ROWS = 16  # targets whose rows of time are made together: a cache line of the result at each step


@kernel()
def count_spikes(counts: Any, values: Any, first: int, last: int) -> None:
    """``counts[b, i]`` becomes the number of ``values[:, b, i]`` [T, B, K] that are not 0, samples ``first`` to
    ``last``.
    """
    for b in range(first, last):
        row = counts[b]
        row[:] = 0
        for t in range(values.shape[0]):
            value = values[t, b]
            for i in range(len(row)):
                row[i] += value[i] != 0


@kernel()
def list_spikes(when: Any, amount: Any, starts: Any, values: Any, first: int, last: int) -> None:
    """Steps and values of what is not 0 in ``values[:, b, i]``, from ``starts[b, i]`` on."""
    for b in range(first, last):
        free = starts[b].copy()
        for t in range(values.shape[0]):
            value = values[t, b]
            for i in range(values.shape[2]):
                if value[i] != 0:
                    at = free[i]
                    when[at], amount[at] = t, value[i]
                    free[i] = at + np.uint64(1)


@kernel()
def add_spikes(
    out: Any, starts: Any, when: Any, values: Any, amounts: Any, offsets: Any, first: int, last: int, high: int
) -> None:
    """``out[t, b, n] = sum of amounts[n, i, k] value`` over the spikes of ``i`` at ``t + high - offsets[n, i, k]``, for
    the targets ``first`` to ``last``.

    ``out`` [T, B, N]; spikes as :func:`list_spikes` leaves them, their steps counted from ``high`` before the first of
    ``out``; ``amounts`` and ``offsets`` [N, K_source, taps].
    """
    steps, sources, taps = out.shape[0], amounts.shape[1], amounts.shape[2]
    length = steps + 2 * high
    rows = np.empty((_ROWS, length + 24), out.dtype)
    for block in range(first, last, _ROWS):
        width = min(_ROWS, last - block)
        for b in range(out.shape[1]):
            for j in range(width):
                row, n = rows[j], block + j
                row[:length] = 0
                for i in range(sources):
                    begin, end = starts[b, i], starts[b, i + 1]
                    if begin == end:
                        continue
                    k = 0
                    while k < taps:
                        one, at = amounts[n, i, k], offsets[n, i, k]
                        if k + 1 < taps and amounts[n, i, k + 1] != 0:
                            two, there = amounts[n, i, k + 1], offsets[n, i, k + 1]
                            for s in range(begin, end):
                                t, value = when[s], values[s]
                                row[t + at] += value * one
                                row[t + there] += value * two
                        elif one != 0:
                            for s in range(begin, end):
                                row[when[s] + at] += values[s] * one
                        k += 2
            for t in range(steps):
                for j in range(width):
                    out[t, b, block + j] = rows[j, t + high]


@kernel(fastmath={"contract", "reassoc", "nsz"})
def read_spikes(
    total: Any, starts: Any, when: Any, values: Any, grad: Any, offsets: Any, first: int, last: int, high: int
) -> None:
    """``total[n, i, k] = sum of grad[t, b, n] value`` over the spikes that :func:`add_spikes` brings there."""
    steps, sources, taps = grad.shape[0], offsets.shape[1], offsets.shape[2]
    rows = np.zeros((_ROWS, steps + 2 * high + 24), grad.dtype)
    zero = rows[0, -1]
    for block in range(first, last, _ROWS):
        width = min(_ROWS, last - block)
        total[block : block + width] = 0
        for b in range(grad.shape[1]):
            for t in range(steps):
                for j in range(width):
                    rows[j, t + high] = grad[t, b, block + j]
            for j in range(width):
                row, n = rows[j], block + j
                for i in range(sources):
                    begin, end = starts[b, i], starts[b, i + 1]
                    if begin == end:
                        continue
                    k = 0
                    while k + 1 < taps:
                        at, there = offsets[n, i, k], offsets[n, i, k + 1]
                        one = two = zero
                        for s in range(begin, end):
                            t, value = when[s], values[s]
                            one += value * row[t + at]
                            two += value * row[t + there]
                        total[n, i, k] += one
                        total[n, i, k + 1] += two
                        k += 2
                    if k < taps:
                        at, one = offsets[n, i, k], zero
                        for s in range(begin, end):
                            one += values[s] * row[when[s] + at]
                        total[n, i, k] += one


@kernel(fastmath={"contract"})
def add_shifted(out: Any, values: Any, starts: Any, amounts: Any, first: int, last: int) -> None:
    """``out[t, b, n] = sum over m of amounts[n, m] values[b, starts[n, m] + t]``, for ``n`` from ``first`` to ``last``.

    ``out`` [T, B, N], ``values`` [B, ...] flat, ``starts`` and ``amounts`` [N, M]. Amounts of 0 are left out.
    """
    steps, terms = out.shape[0], starts.shape[1]
    rows = np.empty((_ROWS, steps + 24), out.dtype)
    begin, gain = np.zeros((_ROWS, terms + 3), np.int64), np.zeros((_ROWS, terms + 3), out.dtype)
    count = np.empty(_ROWS, np.int64)
    for block in range(first, last, _ROWS):
        width = min(_ROWS, last - block)
        for j in range(width):
            c = 0
            for m in range(terms):
                if amounts[block + j, m] != 0:
                    begin[j, c], gain[j, c] = starts[block + j, m], amounts[block + j, m]
                    c += 1
            gain[j, c : c + 3] = 0  # up to a multiple of four
            begin[j, c : c + 3] = 0
            count[j] = c
        for b in range(out.shape[1]):
            value = values[b]
            for j in range(width):
                row = rows[j, :steps]
                row[:] = 0
                for m in range(0, count[j], 4):
                    g0, g1, g2, g3 = gain[j, m], gain[j, m + 1], gain[j, m + 2], gain[j, m + 3]
                    v0 = value[begin[j, m] : begin[j, m] + steps]
                    v1 = value[begin[j, m + 1] : begin[j, m + 1] + steps]
                    v2 = value[begin[j, m + 2] : begin[j, m + 2] + steps]
                    v3 = value[begin[j, m + 3] : begin[j, m + 3] + steps]
                    for t in range(steps):
                        row[t] += g0 * v0[t] + g1 * v1[t] + g2 * v2[t] + g3 * v3[t]
            for t in range(steps):
                for j in range(width):
                    out[t, b, block + j] = rows[j, t]


@kernel(fastmath={"contract", "reassoc", "nsz"})
def read_shifted(total: Any, values: Any, starts: Any, grad: Any, first: int, last: int) -> None:
    """``total[n, m] = sum over t and b of grad[t, b, n] values[b, starts[n, m] + t]``: as :func:`add_shifted`."""
    steps, terms = grad.shape[0], starts.shape[1]
    rows = np.zeros((_ROWS, steps + 24), grad.dtype)
    zero = rows[0, -1]
    for block in range(first, last, _ROWS):
        width = min(_ROWS, last - block)
        total[block : block + width] = 0
        for b in range(grad.shape[1]):
            for t in range(steps):
                for j in range(width):
                    rows[j, t] = grad[t, b, block + j]
            value = values[b]
            for j in range(width):
                row, begin, into = rows[j, :steps], starts[block + j], total[block + j]
                whole = terms - terms % 4
                for m in range(0, whole, 4):
                    v0 = value[begin[m] : begin[m] + steps]
                    v1 = value[begin[m + 1] : begin[m + 1] + steps]
                    v2 = value[begin[m + 2] : begin[m + 2] + steps]
                    v3 = value[begin[m + 3] : begin[m + 3] + steps]
                    s0 = s1 = s2 = s3 = zero
                    for t in range(steps):
                        s0 += row[t] * v0[t]
                        s1 += row[t] * v1[t]
                        s2 += row[t] * v2[t]
                        s3 += row[t] * v3[t]
                    into[m] += s0
                    into[m + 1] += s1
                    into[m + 2] += s2
                    into[m + 3] += s3
                for m in range(whole, terms):
                    v0 = value[begin[m] : begin[m] + steps]
                    s0 = zero
                    for t in range(steps):
                        s0 += row[t] * v0[t]
                    into[m] += s0


# -- operators ---------------------------------------------------------------------------------------------------------


def _ranges(count: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Ranges of ``count`` for torch's threads, several for each, since they may not all be equally free."""
    size = -(-count // (4 * torch.get_num_threads()))
    size = -(-size // multiple) * multiple
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def _spikes(values: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where those of each sample and source start [B, K + 1], and all their steps and values."""
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
    run_tasks(list_spikes, [(when, amount, starts, sent, a, b) for a, b in ranges])
    return starts, when, amount


def _by_pair(taps: Tensor) -> np.ndarray:
    """[taps, N, K_source] as [N, K_source, taps]."""
    return array(taps.permute(1, 2, 0))


def _starts(offsets: Tensor, rows: int, high: int) -> np.ndarray:
    """Where the row that each tap reads starts among rows of time of the sources: [N, K_source taps]."""
    return array((torch.arange(offsets.shape[2])[:, None] * rows + high - offsets.permute(1, 2, 0)).flatten(1))


def _by_source(values: Tensor) -> np.ndarray:
    """[T, B, K] as rows of time, [B, K T]."""
    return array(values.permute(1, 2, 0).flatten(1))


def _total(grad: Tensor, offsets: Tensor) -> Tensor:
    return grad.new_empty(offsets.shape[1], offsets.shape[2], len(offsets))


def _fake_current(values: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    return values.new_empty(len(values) - high, values.shape[1], amounts.shape[1])


def _fake_amounts(values: Tensor, grad: Tensor, offsets: Tensor, high: int) -> Tensor:
    return grad.new_empty(offsets.shape)


def _fake_values(grad: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    return grad.new_empty(high + len(grad), grad.shape[1], offsets.shape[2])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    values, amounts, offsets, ctx.high = inputs
    ctx.save_for_backward(values, amounts, offsets)


def _backward_with(of_amounts: Callable[..., Tensor]) -> Callable[..., Any]:
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        values, amounts, offsets = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            delayed_input_backward(grad, amounts, offsets, ctx.high) if wanted[0] else None,
            of_amounts(values, grad, offsets, ctx.high) if wanted[1] else None,
            None,
            None,
        )

    return backward


@operator("delayed_input_backward(Tensor grad, Tensor amounts, Tensor offsets, int high) -> Tensor", _fake_values)
def delayed_input_backward(grad: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    """The gradient of ``values``: what :func:`add_shifted` makes of ``grad``, with targets and sources exchanged."""
    steps, batch, size = grad.shape
    total = grad.new_empty(high + steps, batch, offsets.shape[2])
    padded = grad.new_zeros(batch, size, steps + 2 * high)
    padded[:, :, high : high + steps] = grad.permute(1, 2, 0)
    at = torch.arange(size)[:, None] * padded.shape[2] + offsets.permute(2, 1, 0)
    given = (array(total), array(padded.flatten(1)), array(at.flatten(1)), array(amounts.permute(2, 1, 0).flatten(1)))
    run_tasks(add_shifted, [(*given, a, b) for a, b in _ranges(total.shape[2], _ROWS)])
    return total


@operator("delayed_spikes_backward(Tensor values, Tensor grad, Tensor offsets, int high) -> Tensor", _fake_amounts)
def delayed_spikes_backward(values: Tensor, grad: Tensor, offsets: Tensor, high: int) -> Tensor:
    """The gradient of ``amounts``, [taps, N, K_source]."""
    total = _total(grad, offsets)
    given = (array(total), *_spikes(values), array(grad), _by_pair(offsets).astype(np.uint32))
    run_tasks(read_spikes, [(*given, a, b, high) for a, b in _ranges(len(total), _ROWS)])
    return total.permute(2, 0, 1).contiguous()


@operator("delayed_shifts_backward(Tensor values, Tensor grad, Tensor offsets, int high) -> Tensor", _fake_amounts)
def delayed_shifts_backward(values: Tensor, grad: Tensor, offsets: Tensor, high: int) -> Tensor:
    """As :func:`delayed_spikes_backward`, whatever the values."""
    total = _total(grad, offsets)
    given = (array(total).reshape(len(total), -1), _by_source(values), _starts(offsets, len(values), high), array(grad))
    run_tasks(read_shifted, [(*given, a, b) for a, b in _ranges(len(total), _ROWS)])
    return total.permute(2, 0, 1).contiguous()


@operator(
    "delayed_spikes(Tensor values, Tensor amounts, Tensor offsets, int high) -> Tensor",
    _fake_current,
    _backward_with(delayed_spikes_backward),
    _setup_context,
    autocast=("cpu",),
)
def delayed_spikes(values: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    """The current [T, B, N] of ``values`` [high + T, B, K_source]; ``amounts`` (weight times gain) and ``offsets``
    [taps, N, K_source].
    """
    out = values.new_empty(len(values) - high, values.shape[1], amounts.shape[1])
    given = (array(out), *_spikes(values), _by_pair(amounts), _by_pair(offsets).astype(np.uint32))
    run_tasks(add_spikes, [(*given, a, b, high) for a, b in _ranges(out.shape[2], _ROWS)])
    return out


@operator(
    "delayed_shifts(Tensor values, Tensor amounts, Tensor offsets, int high) -> Tensor",
    _fake_current,
    _backward_with(delayed_shifts_backward),
    _setup_context,
    autocast=("cpu",),
)
def delayed_shifts(values: Tensor, amounts: Tensor, offsets: Tensor, high: int) -> Tensor:
    """As :func:`delayed_spikes`, whatever the values."""
    out = values.new_empty(len(values) - high, values.shape[1], amounts.shape[1])
    starts = _starts(offsets, len(values), high)
    given = (array(out), _by_source(values), starts, _by_pair(amounts).reshape(starts.shape))
    run_tasks(add_shifted, [(*given, a, b) for a, b in _ranges(out.shape[2], _ROWS)])
    return out


def sparse_delayed(sent: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps, steps: int) -> Tensor:
    """As :func:`delayed_product`; where every pair has a delay of its own, by the spikes if they are few, and by
    shifted rows if the taps of a pair are few for its longest delay.
    """
    if taps.kind != "synaptic" or sent.dtype not in FUSED_DTYPES or weight.dtype != sent.dtype:
        return delayed_product(sent, weight, bias, taps, steps)
    sent = sent[len(sent) - steps - taps.high :]
    if density(sent) < SPIKES_BELOW:
        product = delayed_spikes
    elif taps.high - taps.low + 1 >= SHIFTS_FROM * len(taps.offsets):
        product = delayed_shifts
    else:
        return delayed_product(sent, weight, bias, taps, steps)
    current = product(sent, weight * taps.gains, taps.offsets, taps.high)
    return current if bias is None else current + bias
