"""What has been sent in a loop and has yet to arrive, for connections with delays of their own.

Compiled with numba, called by the printed time loops. A ring holds the steps ahead or behind: its length L is a power
of two, and step t has the place t modulo L. Where spikes are sent ahead, from every source or to every pair, it is
[B, L, N] and holds sums, to which each spike adds; so the work follows the spikes and not the longest delay. Others are
[L, N, B], so that the samples of a neuron, which share its delay, lie together: backward, a source reads there the
gradients of what its spikes would have arrived at, where every pair has a delay for eight samples at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import kernel


@kernel()
def ring_length(ahead: Any, tile: int) -> int:
    """Places for delays up to the longest of ``ahead`` while ``tile`` steps are run at a time. Delays longer than the
    sequence may be given as long as it: their places are those of steps before the first or after the last.
    """
    longest = tile + ahead.max()
    length = 1
    while length < longest:
        length *= 2
    return length


@kernel()
def which_are_not_0(row: Any, index: Any) -> int:
    """Write into ``index`` which values of a row are not 0, and return how many: without a branch to foretell."""
    count = 0
    for n in range(row.shape[0]):
        index[count] = n
        count += row[n] != 0
    return count


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


@kernel(fastmath={"contract"})
def send_taps(ring: Any, values: Any, t: int, steps: int, offsets: Any, gains: Any) -> None:
    """Add to ``ring`` [B, L, N] what the ``values`` [B, N] that are not 0 bring of step ``t``: ``gains[k, n]`` after
    ``offsets[k, n]`` steps, before step ``steps``.
    """
    last = ring.shape[1] - 1
    index = np.empty(values.shape[1], np.int64)
    for b in range(values.shape[0]):
        row, ahead = values[b], ring[b]
        for i in range(which_are_not_0(row, index)):
            n = index[i]
            for k in range(offsets.shape[0]):
                gain, at = gains[k, n], t + offsets[k, n]
                if gain != 0 and at < steps:
                    ahead[at & last, n] += gain * row[n]


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
def move_ring(rows: Any, offset: int, ring: Any, t: int) -> None:
    """As :func:`take_ring`, but over what the rows held."""
    place = t & (ring.shape[1] - 1)
    for b in range(ring.shape[0]):
        out, here = rows[offset + b], ring[b, place]
        for n in range(here.shape[0]):
            out[n] = here[n]
            here[n] = 0


@kernel()
def ring_samples(count: int) -> int:
    """Samples that a ring of gradients has room for, as :func:`read_pairs` takes them."""
    return count if count < 3 else (count + 7) // 8 * 8


@kernel()
def put_ring(ring: Any, values: Any, t: int) -> None:
    """Put ``values`` [B, N] at the place of step ``t`` of ``ring`` [L, N, B or more]."""
    here = ring[t & (ring.shape[0] - 1)]
    samples, size = values.shape
    for n in range(size):  # the ring is the one that lies far away: a line of it at a time
        line = here[n]
        for b in range(samples):
            line[b] = values[b, n]


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
def read_ring(
    rows: Any, offset: int, lines: Any, ring: Any, t: int, steps: int, sign: int, offsets: Any, gains: Any
) -> None:
    """``rows[offset + b, n] += sum_k gains[k, n] ring[t + sign offsets[k, n], n, b]``: with -1 what was sent so many
    steps ago, with 1 the gradient of what arrives so many steps later; nothing before step 0 and from step ``steps``
    on. ``lines`` [N, B] is scratch.
    """
    last = ring.shape[0] - 1
    size, count = lines.shape
    for n in range(size):  # first the reading alone, so that the processor waits for many lines at once
        line = lines[n]
        for b in range(count):
            line[b] = 0
        for k in range(offsets.shape[0]):
            gain, at = gains[k, n], t + sign * offsets[k, n]
            if gain != 0 and at >= 0 and at < steps:
                here = ring[at & last, n]
                for b in range(count):
                    line[b] += gain * here[b]
    for b in range(count):
        row = rows[offset + b]
        for n in range(size):
            row[n] += lines[n, b]


@kernel()
def add_gains(d_gains: Any, ring: Any, values: Any, t: int, steps: int, offsets: Any) -> None:
    """``d_gains[k, n] += sum_b ring[t + offsets[k, n], n, b] values[b, n]``: the gradient of the gains of
    :func:`read_ring`, of what was sent at step ``t``, ``values`` [B, N].
    """
    last = ring.shape[0] - 1
    index = np.empty(values.shape[1], np.int64)
    for b in range(values.shape[0]):
        row = values[b]
        for i in range(which_are_not_0(row, index)):
            n = index[i]
            for k in range(offsets.shape[0]):
                at = t + offsets[k, n]
                if at < steps:
                    d_gains[k, n] += ring[at & last, n, b] * row[n]


@kernel()
def clear(rows: Any) -> None:
    """Set all of ``rows`` [R, K] to 0."""
    for r in range(rows.shape[0]):
        row = rows[r]
        for n in range(row.shape[0]):
            row[n] = 0
