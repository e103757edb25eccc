"""Kernels for connections with a delay for every pair, over whole sequences: by the spikes, or by shifted rows.

Both go pair by pair through rows of time, so that what a pair reads and writes stays in a core's nearest cache and the
work does not depend on the longest delay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import kernel

ROWS = 16
"""Targets whose rows of time are made together: a cache line of the result at each step."""


@kernel()
def turn(rows: Any, values: Any, b: int, lead: int) -> None:
    """``rows[i, lead + t] = values[t, b, i]``: rows of time of a sample of [T, B, K]."""
    for t in range(values.shape[0]):
        value = values[t, b]
        for i in range(values.shape[2]):
            rows[i, lead + t] = value[i]


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
def list_spikes(when: Any, amount: Any, starts: Any, values: Any, lead: int, first: int, last: int) -> None:
    """Steps, counted from ``lead``, and values of what is not 0 in ``values[:, b, i]``, from ``starts[b, i]`` on."""
    for b in range(first, last):
        free = starts[b].copy()
        for t in range(values.shape[0]):
            value = values[t, b]
            for i in range(values.shape[2]):
                if value[i] != 0:
                    at = free[i]
                    when[at], amount[at] = t + lead, value[i]
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
    rows = np.empty((ROWS, length + 24), out.dtype)
    for block in range(first, last, ROWS):
        width = min(ROWS, last - block)
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
    rows = np.zeros((ROWS, steps + 2 * high + 24), grad.dtype)
    zero = rows[0, -1]
    for block in range(first, last, ROWS):
        width = min(ROWS, last - block)
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
def add_shifted(
    out: Any, values: Any, starts: Any, amounts: Any, lead: int, length: int, first: int, last: int, low: int, high: int
) -> None:
    """``out[t, b, n] = sum over m of amounts[n, m] row[starts[n, m] + t]``, for the samples ``first`` to ``last`` and
    the targets ``low`` to ``high``.

    ``row`` has the rows of time of ``values`` [S, B, K] one after the other, ``length`` each: ``lead`` zeros, the
    values, zeros. ``out`` [T, B, N], ``starts`` and ``amounts`` [N, M]. Amounts of 0 are left out.
    """
    steps, terms = out.shape[0], starts.shape[1]
    turned = np.zeros((values.shape[2], length), out.dtype)
    value = turned.reshape(-1)
    rows = np.empty((ROWS, steps + 24), out.dtype)
    begin, gain = np.zeros(terms + 3, np.int64), np.zeros(terms + 3, out.dtype)
    for b in range(first, last):
        turn(turned, values, b, lead)
        for block in range(low, high, ROWS):
            width = min(ROWS, high - block)
            for j in range(width):
                count = 0
                for m in range(terms):
                    if amounts[block + j, m] != 0:
                        begin[count], gain[count] = starts[block + j, m], amounts[block + j, m]
                        count += 1
                gain[count : count + 3] = 0  # up to a multiple of four
                begin[count : count + 3] = 0
                row = rows[j, :steps]
                row[:] = 0
                for m in range(0, count, 4):
                    g0, g1, g2, g3 = gain[m], gain[m + 1], gain[m + 2], gain[m + 3]
                    v0 = value[begin[m] : begin[m] + steps]
                    v1 = value[begin[m + 1] : begin[m + 1] + steps]
                    v2 = value[begin[m + 2] : begin[m + 2] + steps]
                    v3 = value[begin[m + 3] : begin[m + 3] + steps]
                    for t in range(steps):
                        row[t] += g0 * v0[t] + g1 * v1[t] + g2 * v2[t] + g3 * v3[t]
            for t in range(steps):
                for j in range(width):
                    out[t, b, block + j] = rows[j, t]


@kernel(fastmath={"contract", "reassoc", "nsz"})
def read_shifted(
    total: Any, values: Any, starts: Any, grad: Any, lead: int, length: int, first: int, last: int
) -> None:
    """``total[n, m] += sum over t and b of grad[t, b, n] row[starts[n, m] + t]`` for the samples ``first`` to ``last``:
    as :func:`add_shifted`.
    """
    steps, size, terms = grad.shape[0], grad.shape[2], starts.shape[1]
    turned = np.zeros((values.shape[2], length), grad.dtype)
    value = turned.reshape(-1)
    rows = np.zeros((ROWS, steps + 24), grad.dtype)
    zero = rows[0, -1]
    for b in range(first, last):
        turn(turned, values, b, lead)
        for block in range(0, size, ROWS):
            width = min(ROWS, size - block)
            for t in range(steps):
                for j in range(width):
                    rows[j, t] = grad[t, b, block + j]
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
