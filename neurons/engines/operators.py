"""The fused engines as torch operators, so that autograd, autocast, torch.compile and DDP see them as one node.

``ranvier::stage`` runs a stage over all steps and ``ranvier::stage_backward`` gives its gradients; what they are about
is in the :class:`Plan` that they take as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import EngineError
from .plan import Plan, read_plan
from .register import operator

Kernel = Callable[[Plan, Mapping[str, Tensor], Mapping[str, Tensor]], Any]


def _kernels(engine: str) -> tuple[Kernel, Kernel]:
    if engine == "numba":
        from . import numba_cpu as module  # numba takes half a second to import
    elif engine.startswith("triton"):
        from . import triton_gpu as module
    else:
        raise EngineError(f"there is no fused engine {engine!r}")
    return module.forward, module.backward


def _results(plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    for name in plan.results:
        number = int(name.partition(".")[0].lstrip("abcdefghijklmnopqrstuvwxyz"))
        if name.startswith("passed"):
            number = plan.links[number].source
        elif name.startswith("product"):
            number = plan.links[number].target
        current = tensors[f"current{number}"]
        steps = 1 if name.startswith("states") and not plan.keep_states else current.shape[0]
        results[name] = current.new_empty(steps, *current.shape[1:])
    return results


def _through_link(plan: Plan, i: int, given: Mapping[str, Tensor], out: dict[str, Tensor]) -> None:
    """Add to the gradient of the history of link ``i``'s source what its first steps send back."""
    link = plan.links[i]
    history = given[f"history{link.source}"]
    name = f"d_history{link.source}"
    out.setdefault(name, torch.zeros_like(history))
    reached = min(link.delay, len(out[f"d_current{link.target}"]))
    if reached:
        back = copy_sums(out[f"d_current{link.target}"][:reached], link.targets) @ given[f"weight{i}"]
        back = back if link.sources == 1 else back.repeat_interleave(link.sources, 2)
        first = len(history) - link.delay
        out[name][first : first + reached] += back * given[f"mask{i}"] if link.masked else back


def _weight_gradient(engine: str, d_current: Tensor, sent: Tensor) -> Tensor:
    """``sum_t,b d_current[t, b] sent[t, b]^T``, [N_target, N_source], of [T, B, N_target] and [T, B, N_source]."""
    if engine == "numba":
        from .sparse import outer_sum

        return outer_sum(d_current.flatten(0, 1), sent.flatten(0, 1))
    return d_current.flatten(0, 1).t() @ sent.flatten(0, 1)


def copy_sums(values: Tensor, copies: int) -> Tensor:
    """The sums of every ``copies`` values in turn, [T, B, N / copies] of [T, B, N]."""
    if copies == 1:
        return values
    from .products import sums_of
    from .sparse import array

    sums = values.new_empty(*values.shape[:2], values.shape[2] // copies)
    sums_of(copies)(array(sums.flatten(0, 1)), 0, array(values.flatten(0, 1)))
    return sums


def _link_gradient(plan: Plan, i: int, given: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
    """The gradient of link ``i``'s weight."""
    link = plan.links[i]
    grad = out[f"d_product{i}"] if link.dendritic else out[f"d_current{link.target}"]
    if link.axonal:
        return _weight_gradient(plan.engine, grad, given[f"passed{i}"])
    source, history = given[f"output{link.source}"], given[f"history{link.source}"]
    steps = len(grad)
    grad = copy_sums(grad, link.targets)
    late = max(0, steps - link.delay)
    sent = [history[len(history) - link.delay :][: min(link.delay, steps)], source[:late]]
    if link.masked:
        sent = [s * given[f"mask{i}"] for s in sent]
    sent = [copy_sums(s, link.sources) for s in sent]
    # one product over all steps and samples; the history has its own, since it is another tensor
    total = _weight_gradient(plan.engine, grad[steps - late :], sent[1])
    if len(sent[0]) and not link.delayed:
        total = total + _weight_gradient(plan.engine, grad[: len(sent[0])], sent[0])
    return total


def _amounts_gradient(plan: Plan, i: int, given: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
    """The gradient of what the pairs of link ``i`` receive after each of their delays."""
    if plan.engine == "numba":
        from .delayed import amounts_gradient
    else:
        from .triton_delays import amounts_gradient

    link = plan.links[i]
    sent = given[f"output{link.source}"]
    sent = sent * given[f"mask{i}"] if link.masked else sent
    return amounts_gradient(sent, out[f"d_current{link.target}"], given[f"offsets{i}"])


def _gradient_names(plan: Plan) -> tuple[str, ...]:
    sources = {k.source for k in plan.links if not k.delayed} if plan.past else set()
    names: list[str] = []
    for i, cell in enumerate(plan.cells):
        names += [f"d_current{i}", *(f"d_state{i}.{s}" for s in cell.program.states)]
        names += [f"d_history{i}"] if i in sources else []
        names += [f"d_value{i}.{p}" for p in cell.learned]
    for i, link in enumerate(plan.links):
        names += [f"d_amounts{i}" if link.pairs else f"d_weight{i}"] if link.learned else []
        names += [f"d_gains{i}"] if link.timed else []
        names += [f"d_shares{i}"] if link.retimed else []
    return tuple(names)


def _setup_context(ctx: Any, inputs: tuple[Sequence[Tensor], str], output: list[Tensor]) -> None:
    tensors, text = inputs
    plan = read_plan(text)
    given = {**dict(zip(plan.inputs, tensors, strict=True)), **dict(zip(plan.results, output, strict=True))}
    ctx.plan = text
    ctx.save_for_backward(*(given[n] for n in plan.kept))
    ctx.shapes = [given[n].shape for n in plan.differentiable]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[list[Tensor | None], None]:
    plan = read_plan(ctx.plan)
    kept = ctx.saved_tensors
    like = next((g for g in grads if g is not None), None)
    if like is None:
        return [None] * len(plan.inputs), None
    arrived = [
        like.new_zeros(shape) if grad is None else grad
        for grad, shape in zip(grads, ctx.shapes, strict=False)  # the values kept for this pass come after them
    ]
    names = _gradient_names(plan)
    found = dict(zip(names, stage_backward(list(kept), arrived, ctx.plan), strict=True))
    return [found.get(f"d_{n}") for n in plan.inputs], None


def _no_second(ctx: Any, *grads: Any) -> Any:
    raise EngineError("the fused engines give first derivatives only; for a gradient of a gradient use engine='eager'")


def _fake_stage(tensors: Sequence[Tensor], plan: str) -> list[Tensor]:
    read = read_plan(plan)
    return list(_results(read, dict(zip(read.inputs, tensors, strict=True))).values())


def _fake_backward(tensors: Sequence[Tensor], grads: Sequence[Tensor], plan: str) -> list[Tensor]:
    read = read_plan(plan)
    given = dict(zip(read.kept, tensors, strict=True))
    out: dict[str, Tensor] = {}
    for i, cell in enumerate(read.cells):
        output = grads[read.differentiable.index(f"output{i}")]
        out[f"d_current{i}"] = torch.empty_like(output)
        out |= {f"d_state{i}.{s}": output.new_empty(output.shape[1:]) for s in cell.program.states}
        out |= {f"d_value{i}.{p}": output.new_empty(output.shape[2]) for p in cell.learned}
        out[f"d_history{i}"] = torch.empty_like(given[f"history{i}"])
    learned = ("weight", "amounts", "gains", "shares")
    out |= {f"d_{n}": torch.empty_like(t) for n, t in given.items() if n.startswith(learned)}
    return [out[n] for n in _gradient_names(read)]


@operator("stage_backward(Tensor[] tensors, Tensor[] grads, str plan) -> Tensor[]", _fake_backward, _no_second)
def stage_backward(tensors: Sequence[Tensor], grads: Sequence[Tensor], plan: str) -> list[Tensor]:
    """The gradients of a stage's inputs, in the order of :func:`_gradient_names`.

    ``tensors`` are those of :attr:`Plan.kept`, ``grads`` those of :attr:`Plan.differentiable`.
    """
    read = read_plan(plan)
    given = dict(zip(read.kept, tensors, strict=True))
    arrived = {f"d_{n}": g for n, g in zip(read.differentiable, grads, strict=True)}
    out = _kernels(read.engine)[1](read, given, arrived)
    given |= {n: t for n, t in out.items() if n.startswith("output")}
    for i, link in enumerate(read.links):
        if read.past and not link.delayed:
            _through_link(read, i, given, out)
        if link.learned and link.pairs:
            out[f"d_amounts{i}"] = _amounts_gradient(read, i, given, out)
        elif link.learned:
            out[f"d_weight{i}"] = _link_gradient(read, i, given, out)
    return [out[n] for n in _gradient_names(read)]


@operator(
    "stage(Tensor[] tensors, str plan) -> Tensor[]",
    _fake_stage,
    _backward,
    _setup_context,
    autocast=("cpu", "cuda"),  # states are float32, whatever the products before were computed in
)
def stage(tensors: Sequence[Tensor], plan: str) -> list[Tensor]:
    """The results of a stage, in the order of :attr:`Plan.results`, from ``tensors`` in that of :attr:`Plan.inputs`."""
    read = read_plan(plan)
    given = dict(zip(read.inputs, tensors, strict=True))
    results = _results(read, given)
    _kernels(read.engine)[0](read, given, results)
    return list(results.values())
