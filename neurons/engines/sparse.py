"""Products over whole sequences that go by the spikes where they are few, for the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import products
from .numba_cpu import DTYPES, run_tasks

OUTER_BELOW = 0.15
"""Fraction of values that are not 0 below which a gradient of weights is summed over them, one by one: measured, see
``python -m benchmarks.crossover``."""


def density(values: Tensor) -> float:
    """The fraction of ``values`` that are not 0."""
    return int(torch.count_nonzero(values)) / max(1, values.numel())


def outer_sum(grads: Tensor, values: Tensor) -> Tensor:
    """``grads^T @ values``, [N, K], of [M, N] and [M, K]."""
    rows, columns = grads.shape
    if values.dtype not in DTYPES or not rows or density(values) >= OUTER_BELOW:
        return grads.t() @ values
    total = grads.new_zeros(values.shape[1], columns)
    arrays = [t.detach().contiguous().numpy() for t in (total, values, grads)]
    parts = max(1, min(torch.get_num_threads(), columns // 32))
    width = -(-columns // parts)
    tasks = [
        (*arrays, first, min(first + width, columns), np.empty(values.shape[1], np.int64))
        for first in range(0, columns, width)
    ]
    run_tasks(products.add_outer, tasks)
    return total.t()
