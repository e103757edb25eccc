"""Running a stage through the fused operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .operators import stage
from .plan import plan_of, tensors_of
from .stage import Cell, Link, Trace
from .taps import Taps, delayed_product


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
    currents = {**currents}
    for link in links:
        if link.taps is not None:
            currents[link.target] = _with_past(currents[link.target], link, link.taps, history[link.source])
    tensors = tensors_of(cells, links, currents, states, history)
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype) if tensor.is_floating_point() else dtype
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    past = gradients and any(h.requires_grad for h in history.values())
    plan = plan_of(engine, cells, links, keep_states, gradients, past)
    results = dict(
        zip(plan.results, stage([t.to(dtype) if t.is_floating_point() else t for t in tensors], plan.text), strict=True)
    )
    return {
        c.name: Trace(results[f"output{i}"], {s: results[f"states{i}.{s}"] for s in c.program.states})
        for i, c in enumerate(cells)
    }


def _with_past(current: Tensor, link: Link, taps: Taps, history: Tensor) -> Tensor:
    """``current`` with what still arrives over a link with delays of the outputs before the first step; the kernels see
    only those after it.
    """
    reached = min(taps.high, len(current))
    if not reached or not (history.requires_grad or bool(history.any())):
        return current
    past = history[len(history) - taps.high :].to(link.weight)
    past = past if link.mask is None else past * link.mask
    late = past.new_zeros(reached, *past.shape[1:])
    arriving = delayed_product(torch.cat([past, late]), link.weight, None, taps, reached)
    return torch.cat([current[:reached] + arriving, current[reached:]])
