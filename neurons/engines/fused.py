"""Running a stage through the fused operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .delayed import sparse_delayed
from .operators import stage
from .plan import plan_of, tensors_of
from .stage import Cell, Link, Trace
from .taps import delayed_product, is_silent


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
    if engine == "triton-bf16":
        links = [_rounded(link) if link.taps else link for link in links]
    product = delayed_product if engine.startswith("triton") else sparse_delayed
    for link in links:
        if link.taps:
            currents[link.target] = _with_past(currents[link.target], link, history[link.source], product)
    tensors = tensors_of(cells, links, currents, states, history)
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype) if tensor.is_floating_point() else dtype
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    past = gradients and any(history[k.source].requires_grad for k in links if not k.taps)
    plan = plan_of(engine, cells, links, keep_states, gradients, past)
    results = dict(
        zip(plan.results, stage([t.to(dtype) if t.is_floating_point() else t for t in tensors], plan.text), strict=True)
    )
    return {
        c.name: Trace(results[f"output{i}"], {s: results[f"states{i}.{s}"] for s in c.program.states})
        for i, c in enumerate(cells)
    }


def _rounded(link: Link) -> Link:
    """With the weight rounded to bfloat16, through which gradients pass as they are."""
    weight = link.weight
    return replace(link, weight=weight + (weight.bfloat16().to(weight.dtype) - weight).detach())


def _with_past(current: Tensor, link: Link, history: Tensor, product: Callable[..., Tensor]) -> Tensor:
    """``current`` with what still arrives over a link with delays of the outputs before the first step; the kernels see
    only those after it.
    """
    reached = min(sum(t.high for t in link.taps), len(current))
    if not reached or is_silent(history):
        return current
    past = history.to(link.weight)
    past = past if link.mask is None else past * link.mask
    late = past.new_zeros(reached, *past.shape[1:])
    arriving = product(late, link.weight, None, link.taps, past)
    return torch.cat([current[:reached] + arriving, current[reached:]])
