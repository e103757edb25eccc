"""Running a stage by turns: torch takes the products of a block of steps, a printed kernel of each cell runs them.

Whatever does not fit into one kernel is run so, and float64, and links with delays of their own: what these bring is
read by :mod:`.triton_delays` between two cells. The whole sequence of a stage lies in memory, so that nothing needs a
ring, and each kernel ends before the next one reads what it has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from .plan import LinkPlan, Plan, read_plan
from .stage import FUSED_DTYPES
from .triton_launch import launch, load
from .triton_source import BLOCK, cell_backward_names, cell_forward_names, cell_source


@lru_cache(maxsize=256)
def _cell(plan: str, cell: int, size: int, dtype: str) -> ModuleType:
    return load(cell_source(read_plan(plan), cell, size, dtype))


def _spans(plan: Plan, steps: int) -> list[slice]:
    block = plan.block if plan.links else max(1, steps)
    return [slice(start, min(start + block, steps)) for start in range(0, steps, block)]


def _rounded(plan: Plan, given: Mapping[str, Tensor]) -> list[Tensor]:
    """The weights of the links, as the engine takes them; of pairs' what arrives, as it is."""
    weights = [given[f"amounts{j}" if k.pairs else f"weight{j}"] for j, k in enumerate(plan.links)]
    rounds = plan.engine == "triton-bf16"
    return [w.bfloat16().to(w.dtype) if rounds and not k.pairs else w for w, k in zip(weights, plan.links, strict=True)]


def _add_product(total: Tensor, sent: Tensor, weight: Tensor) -> Tensor:
    """``total + sent @ weight``, of [S, B, N] and [S, B, K], in one launch."""
    return torch.addmm(total.flatten(0, 1), sent.flatten(0, 1), weight).view_as(total)


def _put_product(rows: Tensor, sent: Tensor, weight: Tensor) -> Tensor:
    """Fill ``rows`` [S, B, N], contiguous, with ``sent @ weight``."""
    torch.mm(sent.flatten(0, 1), weight, out=rows.flatten(0, 1))
    return rows


# -- forward ----------------------------------------------------------------------------------------


def forward_by_turns(plan: Plan, given: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> None:
    """Fill ``results`` from ``given``, as :func:`.triton_gpu.forward`."""
    weights = _rounded(plan, given)
    now: dict[str, Tensor] = {}
    for i, cell in enumerate(plan.cells):
        for s in cell.program.states:
            first, last = given[f"state{i}.{s}"], results[f"states{i}.{s}"]
            # kernels change the states in place: where only the last are a result, there
            now[f"{i}.{s}"] = first.clone() if plan.keep_states else last[0].copy_(first)
    delayed = {j: _DelayedForward(plan, j, given, results, weights[j]) for j, k in enumerate(plan.links) if k.delayed}
    for span in _spans(plan, len(given["current0"])):
        for i in plan.order:
            total = given[f"current{i}"][span]
            for j, link in plan.into(i):
                if j in delayed:
                    total = delayed[j].onto(total, span)
                    continue
                output, past = results[f"output{link.source}"], given[f"history{link.source}"]
                sent = _window(past, output, span.start - link.delay, len(total))
                total = _add_product(total, sent * given[f"mask{j}"] if link.masked else sent, weights[j].t())
            cell_forward(plan, i, total, given, results, now, span)
            for j in (j for j, _ in plan.out_of(i) if j in delayed):
                delayed[j].send(span)


def cell_forward(
    plan: Plan,
    i: int,
    current: Tensor,
    given: Mapping[str, Tensor],
    results: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    span: slice,
) -> None:
    """Run cell ``i`` over the steps of ``span`` with its whole ``current``."""
    program = plan.cells[i].program
    named = {"current": current, "output": results[f"output{i}"][span]}
    named |= {f"now_{s}": now[f"{i}.{s}"] for s in program.states}
    named |= {f"value_{p}": given[f"value{i}.{p}"] for p in program.params}
    named |= {f"saved_{s}": results[f"saved{i}.{s}"][span] for s in plan.saved(i)}
    named |= {f"states_{s}": results[f"states{i}.{s}"][span] for s in program.states if plan.keep_states}
    _, batch, size = current.shape
    module = _cell(plan.text, i, size, FUSED_DTYPES[current.dtype])
    arguments = [named[n] for n in cell_forward_names(plan, i)]
    launch(module.forward, -(-batch * size // BLOCK), (len(current), batch * size), arguments)


def _window(past: Tensor, output: Tensor, first: int, count: int) -> Tensor:
    """``count`` outputs from step ``first`` on, which may be before step 0; those lie in ``past``, the latest last."""
    if first >= 0:
        return output[first : first + count]
    before = past[len(past) + first :][:count]
    return before if len(before) == count else torch.cat([before, output[: count - len(before)]])


class _DelayedForward:
    """What a link with delays of its own brings; of what was sent before the first step nothing, since that is in the
    current already.
    """

    def __init__(
        self, plan: Plan, j: int, given: Mapping[str, Tensor], results: Mapping[str, Tensor], weight: Tensor
    ) -> None:
        self.link: LinkPlan = plan.links[j]
        self.output = results[f"output{self.link.source}"]
        self.mask = given[f"mask{j}"] if self.link.masked else None
        self.weight = weight
        size = results[f"output{self.link.target}"].shape[2]
        steps, batch, sources = self.output.shape
        if self.link.pairs:
            from .triton_delays import Pairs

            self.pairs = Pairs(weight, given[f"offsets{j}"], steps, after=False)
            self.turned = self.output.new_empty(steps, sources, batch)
            return
        from .triton_delays import Taps

        if self.link.axonal:
            self.axonal = Taps(given[f"offsets{j}"], given[f"gains{j}"], steps)
            self.passed = results[f"passed{j}"] if self.link.learned else torch.empty_like(self.output)
        if self.link.dendritic:
            self.dendritic = Taps(given[f"lags{j}"], given[f"shares{j}"], steps)
            self.product = results[f"product{j}"] if self.link.retimed else self.output.new_empty(steps, batch, size)

    def onto(self, total: Tensor, span: slice) -> Tensor:
        """``total`` [S, B, N_target] and what arrives in the steps of ``span``."""
        if self.link.pairs:
            return self.pairs.read(torch.empty_like(total), self.turned, span.start, onto=total)
        if self.link.axonal:
            sent = self.axonal.read(self.passed[span], self.output, span.start)
            sent = sent if self.mask is None else sent.mul_(self.mask)
        else:
            none = self.output.new_zeros(self.link.delay, *self.output.shape[1:])
            sent = _window(none, self.output, span.start - self.link.delay, len(total))
            sent = sent if self.mask is None else sent * self.mask
        if not self.link.dendritic:
            return _add_product(total, sent, self.weight.t())
        _put_product(self.product[span], sent, self.weight.t())
        return self.dendritic.read(torch.empty_like(total), self.product, span.start, onto=total)

    def send(self, span: slice) -> None:
        """Take note of what the source has sent in the steps of ``span``."""
        if self.link.pairs:
            sent = self.output[span]
            self.turned[span] = (sent if self.mask is None else sent * self.mask).transpose(1, 2)


# -- backward ---------------------------------------------------------------------------------------


def backward_by_turns(plan: Plan, given: Mapping[str, Tensor], out: dict[str, Tensor]) -> None:
    """Fill ``out`` from ``given``, as :func:`.triton_gpu.backward`."""
    steps = len(given["d_output0"])
    weights = _rounded(plan, given)
    delayed = {j: _DelayedBackward(plan, j, given, out, weights[j]) for j, k in enumerate(plan.links) if k.delayed}
    for span in reversed(_spans(plan, steps)):
        for i in reversed(plan.order):
            total = given[f"d_output{i}"][span]
            for j, link in plan.out_of(i):
                if j in delayed:
                    total = delayed[j].onto(total, span)
                    continue
                mask = given[f"mask{j}"] if link.masked else None
                total = _add_back(total, out[f"d_current{link.target}"], weights[j], link.delay, span, mask)
            cell_backward(plan, i, total, given, out, span)
            for j in (j for j, _ in plan.into(i) if j in delayed):
                delayed[j].send(span)
    for j, link in enumerate(plan.links):
        if link.timed or link.retimed:
            gains_gradient(j, link, given, out, delayed[j].line if link.timed else None)


def _add_back(total: Tensor, grad: Tensor, weight: Tensor, delay: int, span: slice, mask: Tensor | None) -> Tensor:
    """``total`` [S, B, N_source] and what comes back through ``weight`` from ``delay`` steps after ``span``."""
    back = grad[span.start + delay : span.stop + delay] @ weight
    if not len(back):
        return total
    total = total.clone()
    total[: len(back)] += back if mask is None else back * mask
    return total


def cell_backward(
    plan: Plan, i: int, d_output: Tensor, given: Mapping[str, Tensor], out: Mapping[str, Tensor], span: slice
) -> None:
    """Go on from the whole gradient of a cell's output, which may lie where that of its current goes."""
    planned = plan.cells[i]
    program = planned.program
    named = {"d_output": d_output, "d_current": out[f"d_current{i}"][span]}
    named |= {f"carry_{s}": out[f"d_state{i}.{s}"] for s in program.states}
    named |= {f"value_{p}": given[f"value{i}.{p}"] for p in program.params}
    named |= {f"saved_{s}": given[f"saved{i}.{s}"][span] for s in plan.saved(i)}
    named |= {f"d_states_{s}": given[f"d_states{i}.{s}"][span] for s in program.states if plan.keep_states}
    named |= {f"sum_{p}": out[f"d_value{i}.{p}"] for p in planned.learned}
    _, batch, size = d_output.shape
    module = _cell(plan.text, i, size, FUSED_DTYPES[d_output.dtype])
    arguments = [named[n] for n in cell_backward_names(plan, i)]
    launch(module.backward, -(-batch * size // BLOCK), (len(d_output), batch * size), arguments)


class _DelayedBackward:
    """What comes back over a link with delays of its own."""

    def __init__(self, plan: Plan, j: int, given: Mapping[str, Tensor], out: dict[str, Tensor], weight: Tensor) -> None:
        self.j, self.link, self.given, self.out = j, plan.links[j], given, out
        self.mask = given[f"mask{j}"] if self.link.masked else None
        self.weight = weight
        self.grad = out[f"d_current{self.link.target}"]
        steps, batch, size = self.grad.shape
        if self.link.pairs:
            from .triton_delays import Pairs

            self.pairs = Pairs(weight, given[f"offsets{j}"], steps, after=True)
            self.turned = self.grad.new_empty(steps, size, batch)
            return
        from .triton_delays import Taps

        if self.link.axonal:
            self.axonal = Taps(given[f"offsets{j}"], given[f"gains{j}"], steps)
            self.line = torch.empty_like(out[f"d_current{self.link.source}"])
        if self.link.dendritic:
            self.dendritic = Taps(given[f"lags{j}"], given[f"shares{j}"], steps)
            out[f"d_product{j}"] = torch.empty_like(self.grad)

    def onto(self, total: Tensor, span: slice) -> Tensor:
        """``total`` [S, B, N_source] and what comes back to the source's outputs in the steps of ``span``."""
        if self.link.axonal:
            return self.axonal.read(torch.empty_like(total), self.line, span.start, after=True, onto=total)
        if self.link.pairs:
            start = total if self.mask is None else torch.zeros_like(total)
            back = self.pairs.read(torch.empty_like(total), self.turned, span.start, onto=start)
            return back if self.mask is None else total + back * self.mask
        return _add_back(total, self.out[f"d_product{self.j}"], self.weight, self.link.delay, span, self.mask)

    def send(self, span: slice) -> None:
        """Take note of the gradient of the target's current in the steps of ``span``."""
        if self.link.pairs:
            self.turned[span] = self.grad[span].transpose(1, 2)
            return
        grad = self.grad[span]
        if self.link.dendritic:
            grad = self.dendritic.read(self.out[f"d_product{self.j}"][span], self.grad, span.start, after=True)
        if self.link.axonal:
            back = _put_product(self.line[span], grad, self.weight)
            if self.mask is not None:
                back.mul_(self.mask)


def gains_gradient(
    j: int, link: LinkPlan, given: Mapping[str, Tensor], out: dict[str, Tensor], line: Tensor | None
) -> None:
    """Put the gradients of what the delays of link ``j`` multiply by into ``out``; ``line`` [T, B, N_source] is that of
    what axonal ones have moved.
    """
    from .triton_delays import Taps

    if line is not None:
        output = given[f"output{link.source}"]
        taps = Taps(given[f"offsets{j}"], given[f"gains{j}"], len(output))
        out[f"d_gains{j}"] = taps.of_gains(output, line)
    if link.retimed:
        product = given[f"product{j}"]
        taps = Taps(given[f"lags{j}"], given[f"shares{j}"], len(product))
        out[f"d_shares{j}"] = taps.of_gains(product, out[f"d_current{link.target}"])
