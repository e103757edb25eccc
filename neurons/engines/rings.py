"""What has been sent in a loop and has yet to arrive, for connections with delays per target or per pair.

Compiled with numba, called by the printed time loops. Of pairs there is a ring of the steps ahead, whose length L is a
power of two and in which step t has the place t modulo L. Forward, [B, L, N_target], it holds sums of currents, into
which every spike adds its weights; so the work follows the spikes and not the longest delay. Backward,
[L, N_target, B], it holds the gradients of the target's current, which every source reads where its spike would have
arrived, for eight samples at a time: they share the delays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import kernel


@kernel()
def ring_length(ahead: Any, tile: int) -> int:
    """Places for delays up to the longest of ``ahead`` while ``tile`` steps are run at a time."""
    longest = tile + ahead.max()
    length = 1
    while length < longest:
        length *= 2
    return length


@kernel(fastmath={"contract"})
def send_pairs(ring: Any, values: Any, offset: int, t: int, amounts: Any, ahead: Any) -> None:
    """Add to ``ring`` [B, L, N] what the ``values`` [R, K] that are not 0 in the rows from ``offset`` bring of step
    ``t``: ``amounts[k, m, n]`` after ``ahead[k, m, n]`` steps.
    """
    batch, length, size = ring.shape
    # indices without a sign need not be looked at before they are used
    now, last, wide = np.uint64(t), np.uint64(length - 1), np.uint64(size)
    for b in range(batch):
        row, flat = values[offset + b], ring[b].reshape(-1)
        for k in range(row.shape[0]):
            value = row[k]
            if value != 0:
                for m in range(amounts.shape[1]):
                    amount, steps = amounts[k, m], ahead[k, m]
                    for n in range(size):
                        flat[((now + steps[n]) & last) * wide + np.uint64(n)] += value * amount[n]


@kernel()
def take_ring(rows: Any, offset: int, ring: Any, t: int) -> None:
    """Add what arrives at step ``t`` to ``rows`` from ``offset``, and make the place free."""
    place = t & (ring.shape[1] - 1)
    for b in range(ring.shape[0]):
        out, here = rows[offset + b], ring[b, place]
        for n in range(here.shape[0]):
            out[n] += here[n]
            here[n] = 0


@kernel()
def ring_samples(count: int) -> int:
    """Samples that a ring of gradients has room for, as :func:`read_pairs` takes them."""
    return count if count < 3 else (count + 7) // 8 * 8


@kernel()
def put_ring(ring: Any, values: Any, t: int) -> None:
    """Put ``values`` [B, N] at the place of step ``t`` of ``ring`` [L, N, B or more]."""
    here = ring[t & (ring.shape[0] - 1)]
    for b in range(values.shape[0]):
        row = values[b]
        for n in range(row.shape[0]):
            here[n, b] = row[n]


@kernel(fastmath={"contract"})
def read_pairs(rows: Any, gate: Any, offset: int, count: int, ring: Any, t: int, amounts: Any, ahead: Any) -> None:
    """``rows[offset + b, k] += sum over m and n of amounts[k, m, n] ring[t + ahead[k, m, n], n, b]`` for ``count``
    samples, where ``gate`` [R, K] is not 0, and anything elsewhere: :func:`send_pairs` reversed.
    """
    length, size, room = ring.shape
    flat = ring.reshape(-1)
    now, last, wide, deep = np.uint64(t), np.uint64(length - 1), np.uint64(size), np.uint64(room)
    sources, taps, _ = amounts.shape
    zero = flat[0] - flat[0]
    sums = np.empty(8, rows.dtype)
    for first in range(0, count, 8):
        end = min(first + 8, count)
        for k in range(sources):
            wanted = 0
            for b in range(first, end):
                wanted += gate[offset + b, k] != 0
            if wanted <= 2:  # as fast one by one
                for b in range(first, end):
                    if gate[offset + b, k] != 0:
                        total, place = zero, np.uint64(b)
                        for m in range(taps):
                            amount, steps = amounts[k, m], ahead[k, m]
                            for n in range(size):
                                total += (
                                    amount[n] * flat[(((now + steps[n]) & last) * wide + np.uint64(n)) * deep + place]
                                )
                        rows[offset + b, k] += total
                continue
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
            for m in range(taps):
                amount, steps = amounts[k, m], ahead[k, m]
                for n in range(size):
                    at = (((now + steps[n]) & last) * wide + np.uint64(n)) * deep + np.uint64(first)
                    a = amount[n]
                    s0 += a * flat[at]
                    s1 += a * flat[at + np.uint64(1)]
                    s2 += a * flat[at + np.uint64(2)]
                    s3 += a * flat[at + np.uint64(3)]
                    s4 += a * flat[at + np.uint64(4)]
                    s5 += a * flat[at + np.uint64(5)]
                    s6 += a * flat[at + np.uint64(6)]
                    s7 += a * flat[at + np.uint64(7)]
            sums[0], sums[1], sums[2], sums[3] = s0, s1, s2, s3
            sums[4], sums[5], sums[6], sums[7] = s4, s5, s6, s7
            for b in range(first, end):
                rows[offset + b, k] += sums[b - first]


@kernel()
def pull_taps(rows: Any, offset: int, values: Any, t: int, first: int, last: int, offsets: Any, gains: Any) -> None:
    """``rows[offset + b, n] += sum_k gains[k, n] values[t - offsets[k, n], b, n]`` for samples ``first`` to ``last``.

    ``values`` [T, B, N], ``offsets`` and ``gains`` [K, N]; nothing before step 0.
    """
    for b in range(first, last):
        row = rows[offset + b - first]
        for k in range(offsets.shape[0]):
            for n in range(row.shape[0]):
                source = t - offsets[k, n]
                if source >= 0:
                    row[n] += gains[k, n] * values[source, b, n]


@kernel()
def push_taps(rows: Any, offset: int, values: Any, t: int, first: int, last: int, offsets: Any, gains: Any) -> None:
    """``rows[offset + b, n] += sum_k gains[k, n] values[t + offsets[k, n], b, n]``: :func:`pull_taps` reversed."""
    steps = values.shape[0]
    for b in range(first, last):
        row = rows[offset + b - first]
        for k in range(offsets.shape[0]):
            for n in range(row.shape[0]):
                target = t + offsets[k, n]
                if target < steps:
                    row[n] += gains[k, n] * values[target, b, n]


@kernel()
def add_gains(d_gains: Any, d_values: Any, values: Any, t: int, first: int, last: int, offsets: Any) -> None:
    """``d_gains[k, n] += sum_b d_values[t + offsets[k, n], b, n] values[t, b, n]`` for samples ``first`` to ``last``:
    the gradient of the gains of :func:`pull_taps`.
    """
    steps = d_values.shape[0]
    for b in range(first, last):
        row = values[t, b]
        for k in range(offsets.shape[0]):
            for n in range(row.shape[0]):
                target = t + offsets[k, n]
                if row[n] != 0 and target < steps:
                    d_gains[k, n] += d_values[target, b, n] * row[n]


@kernel()
def clear(rows: Any) -> None:
    """Set all of ``rows`` [R, K] to 0."""
    for r in range(rows.shape[0]):
        row = rows[r]
        for n in range(row.shape[0]):
            row[n] = 0
