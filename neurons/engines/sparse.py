"""Products over whole sequences that go by the spikes where they are few, for the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import products
from .register import operator
from .stage import FUSED_DTYPES, WORTH_SPARSE
from .threads import run_tasks

SPARSE_BELOW = 0.15
"""Fraction of values that are not 0 below which products over a sequence go by them: measured, see ``python -m
benchmarks.crossover``."""
WORTH_A_THREAD = 2**21
"""Multiplications from which another thread is worth waiting for; on a busy machine it may not run at once."""
_CHUNK = 128  # rows that are sorted together in a gradient of weights: they stay in a core's cache


def density(values: Tensor) -> float:
    """The fraction of ``values`` that are not 0."""
    flat = array(values.reshape(1, -1) if values.ndim < 2 else values.reshape(len(values), -1))
    ranges = _rows(len(flat), flat.size)
    counts = np.zeros(len(ranges), np.int64)
    run_tasks(products.count_into, [(counts, i, flat[a:b]) for i, (a, b) in enumerate(ranges)])
    return int(counts.sum()) / max(1, flat.size)


def _share(values: Tensor, columns: int) -> float | None:
    """The fraction of ``values`` that are not 0, if it pays to go by them in a product with ``columns`` columns."""
    large = values.numel() * columns >= WORTH_SPARSE and values.dtype in FUSED_DTYPES and values.device.type == "cpu"
    share = density(values) if large else 1.0
    return share if share < SPARSE_BELOW else None


def _rows(count: int, work: float) -> list[tuple[int, int]]:
    """Equal ranges of ``count`` rows, one for each of torch's threads that ``work`` is enough for."""
    threads = min(torch.get_num_threads(), count, int(work / WORTH_A_THREAD))
    size = -(-count // max(1, threads))
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def array(tensor: Tensor) -> np.ndarray:
    """A contiguous array of a tensor's memory."""
    return tensor.detach().contiguous().numpy()


def outer_sum(grads: Tensor, values: Tensor) -> Tensor:
    """``grads^T @ values``, [N, K], of [M, N] and [M, K]."""
    share = _share(values, grads.shape[1])
    if share is None:
        return grads.t() @ values
    ranges, terms = _rows(len(grads), share * values.numel() * grads.shape[1]), values.shape[1]
    total = grads.new_zeros(len(ranges), terms, grads.shape[1])
    out, sent, d = array(total), array(values), array(grads)
    tasks = [
        (out[i], sent, d, a, b, np.empty(terms + 1, np.int64), np.empty(_CHUNK * terms, np.int32))
        for i, (a, b) in enumerate(ranges)
    ]
    run_tasks(products.add_outer, tasks)
    return total.sum(0).t()


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    values, weight, bias = inputs
    ctx.save_for_backward(values, weight)
    ctx.biased = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    values, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        grad @ weight if wanted[0] else None,
        sparse_linear_backward(values, grad) if wanted[1] else None,
        grad.flatten(0, -2).sum(0) if ctx.biased and wanted[2] else None,
    )


def _fake(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return values.new_empty(*values.shape[:-1], len(weight))


def _fake_backward(values: Tensor, grad: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[-1], values.shape[-1])


@operator("sparse_linear_backward(Tensor values, Tensor grad) -> Tensor", _fake_backward)
def sparse_linear_backward(values: Tensor, grad: Tensor) -> Tensor:
    """The gradient of :func:`sparse_linear`'s weight."""
    return outer_sum(grad.reshape(-1, grad.shape[-1]), values.reshape(-1, values.shape[-1])).contiguous()


@operator(
    "sparse_linear(Tensor values, Tensor weight, Tensor? bias) -> Tensor",
    _fake,
    _backward,
    _setup_context,
    autocast=("cpu",),
)
def sparse_linear(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``values @ weight^T + bias``, [..., N], of [..., K], [N, K] and [N]; by the values that are not 0 where few."""
    rows = values.reshape(-1, values.shape[-1])
    share = _share(values, len(weight))
    if share is None:
        return torch.nn.functional.linear(values, weight, bias).clone()
    total = values.new_empty(len(rows), len(weight))
    ranges = _rows(len(rows), share * rows.numel() * len(weight))
    matrix, start = array(weight.t()), array(values.new_zeros(len(weight)) if bias is None else bias)
    out, sent = array(total), array(rows)
    tasks = [(out, sent, matrix, start, a, b, np.empty(rows.shape[1], np.int64)) for a, b in ranges]
    run_tasks(products.fill_sparse, tasks)
    return total.view(*values.shape[:-1], len(weight))
