"""What has been sent in a loop and has yet to arrive, for connections with delays per target or per pair.

Compiled with numba, called by the printed time loops. Of pairs, each sample has a ring [L, N_target] of the steps
ahead, L a power of two, in which step t has the place t modulo L. Forward it holds sums of currents, into which every
spike adds its weights; backward the gradients of the target's current, which every source reads where its spike would
have arrived. So the work follows the spikes, or the open gates, and not the longest delay.
"""

from __future__ import annotations

from typing import Any

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
    last = length - 1
    for b in range(batch):
        row, flat = values[offset + b], ring[b].reshape(-1)
        for k in range(row.shape[0]):
            value = row[k]
            if value != 0:
                for m in range(amounts.shape[1]):
                    amount, steps = amounts[k, m], ahead[k, m]
                    for n in range(size):
                        flat[((t + steps[n]) & last) * size + n] += value * amount[n]


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
def put_ring(ring: Any, values: Any, t: int) -> None:
    """Put ``values`` [B, N] at the place of step ``t``."""
    place = t & (ring.shape[1] - 1)
    for b in range(ring.shape[0]):
        here, row = ring[b, place], values[b]
        for n in range(here.shape[0]):
            here[n] = row[n]


@kernel(fastmath={"contract", "reassoc", "nsz"})
def read_pairs(rows: Any, gate: Any, offset: int, ring: Any, t: int, amounts: Any, ahead: Any) -> None:
    """``rows[offset + b, k] += sum over m and n of amounts[k, m, n] ring[b, t + ahead[k, m, n], n]`` where ``gate``
    [R, K] is not 0: :func:`send_pairs` reversed.
    """
    batch, length, size = ring.shape
    last = length - 1
    for b in range(batch):
        out, open_, flat = rows[offset + b], gate[offset + b], ring[b].reshape(-1)
        for k in range(out.shape[0]):
            if open_[k] != 0:
                total = flat[0] - flat[0]
                for m in range(amounts.shape[1]):
                    amount, steps = amounts[k, m], ahead[k, m]
                    for n in range(size):
                        total += amount[n] * flat[((t + steps[n]) & last) * size + n]
                out[k] += total


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
