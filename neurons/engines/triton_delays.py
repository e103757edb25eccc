"""Connections with delays of their own on a GPU: kernels that read what was sent some steps before, or what comes back
from some steps after. They take the whole sequence as it lies in memory, so that nothing is kept beside it.

Fixed kernels, of float32 or float64, unlike those that are printed; their arguments are triton's, which reads a type
beside one as code. Importing this module imports triton.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .triton_launch import launch, within

BLOCK = 128
"""Values of the flattened [B, N] in one program."""
SAMPLES, CELLS = 32, 4
"""Samples, which lie side by side, and neurons in one program where every pair has delays."""
PAIRS = 8
"""Pairs in one program that takes the gradients of their weights."""


@triton.jit(do_not_specialize=["T", "S", "N", "K", "first"])
def read_taps(
    T, S, N, K, first, rows, onto, values, offsets, gains, AFTER: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """``rows[t] = sum over k of gains[k, n] values[first + t - offsets[k, n]]``, or + offsets with ``AFTER``, on top of
    ``onto[t]`` with ``ADD``; ``values`` [T, S], S being samples times N, are 0 outside of it.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    t = tl.program_id(1)
    live = at < S
    n = at % N
    row = t.to(tl.int64) * S + at
    total = tl.load(onto + row, mask=live, other=0.0) if ADD else tl.zeros((BLOCK,), rows.dtype.element_ty)
    for k in range(K):
        away = tl.load(offsets + k * N + n, mask=live, other=0)
        gain = tl.load(gains + k * N + n, mask=live, other=0.0)
        step = first + t + away if AFTER else first + t - away
        there = live & (step >= 0) & (step < T)
        total += gain * tl.load(values + step.to(tl.int64) * S + at, mask=there, other=0.0)
    tl.store(rows + row, total, mask=live)


@triton.jit(do_not_specialize=["T", "S", "N", "K"])
def of_taps(T, S, N, K, total, values, grad, offsets, BLOCK: tl.constexpr) -> None:
    """``total[k, at] = sum over t of values[t, at] grad[t + offsets[k, n], at]``, of [T, S] each: the gradient of the
    gains, by sample.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = tl.program_id(1)
    live = at < S
    away = tl.load(offsets + k * N + at % N, mask=live, other=0)
    found = tl.zeros((BLOCK,), total.dtype.element_ty)
    for t in range(T):
        row = tl.cast(t, tl.int64) * S + at
        there = live & (t + away < T)
        value = tl.load(values + row, mask=there, other=0.0)
        found += value * tl.load(grad + row + away.to(tl.int64) * S, mask=there, other=0.0)
    tl.store(total + k.to(tl.int64) * S + at, found, mask=live)


@triton.jit(do_not_specialize=["T", "B", "N", "J", "M", "first"])
def read_pairs(
    T,
    B,
    N,
    J,
    M,
    first,
    rows,
    onto,
    values,
    offsets,
    amounts,
    AFTER: tl.constexpr,
    SAMPLES: tl.constexpr,
    CELLS: tl.constexpr,
) -> None:
    """``rows[t, b, n] = onto[t, b, n] + sum over j of amounts[n, j] values[first + t - offsets[n, j], j // M, b]``, or
    + offsets with ``AFTER``; ``values`` [T, J / M, B] are 0 outside of it.
    """
    b = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)[:, None]
    n = tl.program_id(1) * CELLS + tl.arange(0, CELLS)[None, :]
    t = tl.program_id(2)
    live = (b < B) & (n < N)
    start = n.to(tl.int64) * J
    row = (t.to(tl.int64) * B + b) * N + n
    total = tl.load(onto + row, mask=live, other=0.0)
    for j in range(J):
        away = tl.load(offsets + start + j, mask=n < N, other=0)
        amount = tl.load(amounts + start + j, mask=n < N, other=0.0)
        step = first + t + away if AFTER else first + t - away
        there = live & (step >= 0) & (step < T)
        place = (step.to(tl.int64) * (J // M) + j // M) * B + b
        total += amount * tl.load(values + place, mask=there, other=0.0)
    tl.store(rows + row, total, mask=live)


@triton.jit(do_not_specialize=["T", "B", "N", "J", "M"])
def of_pairs(T, B, N, J, M, total, grad, values, offsets, PAIRS: tl.constexpr, SAMPLES: tl.constexpr) -> None:
    """``total[n, j] = sum over t and b of grad[t, n, b] values[t - offsets[n, j], j // M, b]``."""
    n = tl.program_id(0)
    j = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)[:, None]
    live = j < J
    start = n.to(tl.int64) * J
    away = tl.load(offsets + start + j, mask=live, other=0)
    found = tl.zeros((PAIRS, SAMPLES), total.dtype.element_ty)
    for t in range(T):
        step = t - away
        here = grad + (tl.cast(t, tl.int64) * N + n) * B
        there = values + (step.to(tl.int64) * (J // M) + j // M) * B
        for first in range(0, B, SAMPLES):
            b = first + tl.arange(0, SAMPLES)[None, :]
            value = tl.load(there + b, mask=live & (step >= 0) & (b < B), other=0.0)
            found += tl.load(here + b, mask=b < B, other=0.0) * value
    tl.store(total + start + j, tl.sum(found, 1, keep_dims=True), mask=live)


class Taps:
    """Delays of each source or target: ``offsets`` and ``gains`` [K, N], over a sequence of ``steps``."""

    def __init__(self, offsets: Tensor, gains: Tensor, steps: int) -> None:
        self.offsets, self.gains, self.steps = within(offsets, steps), gains.contiguous(), steps

    def read(self, rows: Tensor, values: Tensor, first: int, after: bool = False, onto: Tensor | None = None) -> Tensor:
        """Fill ``rows`` [S, B, N] with the sums of what ``values`` [T, B, N] were so many steps before those from
        ``first`` on, or are so many ``after``, on top of ``onto``, which may be ``rows``.
        """
        _, batch, size = values.shape
        numbers = (self.steps, batch * size, size, len(self.offsets), first)
        tensors = (rows, rows if onto is None else onto, values, self.offsets, self.gains)
        grid = (-(-batch * size // BLOCK), len(rows))
        launch(read_taps, grid, numbers, tensors, AFTER=after, ADD=onto is not None, BLOCK=BLOCK)
        return rows

    def of_gains(self, values: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the gains [K, N], where ``grad`` [T, B, N] is that of what :meth:`read` made of
        ``values``.
        """
        _, batch, size = values.shape
        total = values.new_zeros(len(self.offsets), batch, size)
        numbers = (self.steps, batch * size, size, len(self.offsets))
        grid = (-(-batch * size // BLOCK), len(self.offsets))
        launch(of_taps, grid, numbers, (total, values, grad, self.offsets), BLOCK=BLOCK)
        return total.sum(1)


class Pairs:
    """Delays of each pair: ``amounts`` and ``offsets`` [M, N, K], over a sequence of ``steps``, read from the targets'
    side or, ``after``, from the sources'. What is read is turned, [T, K, B], so that the samples, which share a pair's
    delay, lie side by side.
    """

    def __init__(self, amounts: Tensor, offsets: Tensor, steps: int, after: bool) -> None:
        order = (2, 1, 0) if after else (1, 2, 0)  # what a target or a source goes through lies together
        self.amounts = amounts.permute(order).contiguous()
        self.offsets = within(offsets, steps).permute(order).contiguous()
        self.steps, self.after = steps, after

    def read(self, rows: Tensor, turned: Tensor, first: int, onto: Tensor) -> Tensor:
        """Fill ``rows``, from step ``first`` on: [S, B, N] with what the pairs bring of what was sent, ``turned``
        [T, K, B]; or [S, B, K] with what comes back of the gradients, ``turned`` [T, N, B]; on top of ``onto``.
        """
        size, others, delays = self.amounts.shape
        batch = turned.shape[2]
        numbers = (self.steps, batch, size, others * delays, delays, first)
        grid = (-(-batch // SAMPLES), -(-size // CELLS), len(rows))
        options = {"AFTER": self.after, "SAMPLES": SAMPLES, "CELLS": CELLS}
        launch(read_pairs, grid, numbers, (rows, onto, turned, self.offsets, self.amounts), **options)
        return rows


def amounts_gradient(values: Tensor, grad: Tensor, offsets: Tensor) -> Tensor:
    """The gradient of the amounts [M, N, K] of pairs, from all that was sent, ``values`` [T, B, K], and the gradient of
    what arrived, ``grad`` [T, B, N].
    """
    delays, size, others = offsets.shape
    steps, batch, _ = grad.shape
    total = grad.new_zeros(size, others, delays)
    turned = [x.transpose(1, 2).contiguous() for x in (grad, values)]
    away = within(offsets, steps).permute(1, 2, 0).contiguous()
    numbers = (steps, batch, size, others * delays, delays)
    grid = (size, -(-others * delays // PAIRS))
    launch(of_pairs, grid, numbers, (total, *turned, away), PAIRS=PAIRS, SAMPLES=SAMPLES)
    return total.permute(2, 0, 1).contiguous()
