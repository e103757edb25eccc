"""Running a stage through the fused operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .operators import stage
from .plan import plan_of, tensors_of
from .stage import Cell, Link, Trace


def run_fused(
    engine: str,
    cells: Sequence[Cell],
    links: Sequence[Link],
    currents: Mapping[str, Tensor],
    states: Mapping[str, Mapping[str, Tensor]],
    history: Mapping[str, Tensor],
    keep_states: bool = False,
) -> dict[str, Trace]:
    """As :func:`run_eager`, in one operator for the whole stage."""
    tensors = tensors_of(cells, links, currents, states, history)
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    past = gradients and any(h.requires_grad for h in history.values())
    plan = plan_of(engine, cells, links, keep_states, gradients, past)
    results = dict(zip(plan.results, stage([t.to(dtype) for t in tensors], plan.text), strict=True))
    return {
        c.name: Trace(results[f"output{i}"], {s: results[f"states{i}.{s}"] for s in c.program.states})
        for i, c in enumerate(cells)
    }
