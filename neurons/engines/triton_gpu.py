"""The triton engine: printed kernels on a GPU, or in triton's interpreter where TRITON_INTERPRET=1 says so.

Three ways to run a stage. A cell without links is one kernel over the flattened [B, N] and all steps. Linked cells that
are small enough are one kernel with the products inside (:mod:`.triton_loop`). Larger ones, float64 and links with a
delay for every pair are run by turns of products and cells (:mod:`.triton_turns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...errors import EngineError
from .plan import LinkPlan, Plan, read_plan
from .stage import FUSED_DTYPES
from .triton_launch import interpreted, launch, load, within
from .triton_loop import ROWS, SHARED, Loop, padded
from .triton_loop_source import loop_source
from .triton_turns import backward_by_turns, cell_backward, forward_by_turns, gains_gradient


def unavailable() -> str:
    """Why this machine cannot run the engine, or "" if it can."""
    if not find_spec("triton"):
        return "triton is not installed (it comes with torch for Linux and NVIDIA GPUs)"
    if interpreted() or torch.cuda.is_available():
        return ""
    return "there is no GPU that torch can use"


def check_tensors(engine: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raises :class:`EngineError` where the engine cannot run tensors of this device and type."""
    if reason := unavailable():
        raise EngineError(f"engine {engine!r} cannot run here: {reason}; choose engine 'auto', 'numba' or 'eager'")
    if device.type != "cuda" and not interpreted():
        raise EngineError(
            f"engine {engine!r} runs on a GPU, but the network's tensors are on {device}; move them with "
            "net.cuda(), or choose engine 'auto'"
        )
    if dtype not in FUSED_DTYPES:
        raise EngineError(f"engine {engine!r} takes float32 or float64, got {dtype}; choose engine 'eager'")


# -- modules ----------------------------------------------------------------------------------------


def loop_of(plan: Plan, sizes: Sequence[int], dtype: torch.dtype, shared: int = SHARED[80]) -> Loop | None:
    """How one kernel runs a stage of these sizes with so many bytes of shared memory, or None if none can."""
    if not plan.links or dtype != torch.float32:
        return None
    part = "float32" if interpreted() else "bfloat16"
    loop = Loop(plan, tuple(sizes), plan.engine != "triton-bf16", part, shared)
    return loop if loop.fits else None


@lru_cache(maxsize=256)
def _loop(plan: str, sizes: tuple[int, ...], shared: int) -> ModuleType:
    loop = loop_of(read_plan(plan), sizes, torch.float32, shared)
    assert loop is not None
    return load(loop_source(loop))


@lru_cache(maxsize=64)
def _shared(device: torch.device) -> int:
    """Bytes of shared memory that a program may have; 0 for a GPU whose tensor cores take no bfloat16."""
    if device.type != "cuda":
        return SHARED[80]
    properties: Any = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return 64 * 1024
    if properties.major < 8:
        return 0
    return getattr(properties, "shared_memory_per_block_optin", min(SHARED.values()))


_TOO_LARGE: set[tuple[str, bool, torch.device]] = set()
"""Loops that a GPU would not take, by source and direction: what fits is an estimate, and not of every GPU."""


def _run_loop(plan: Plan, loop: Loop, backward: bool, named: Mapping[str, Tensor], steps: int, batch: int) -> bool:
    """Run a loop's kernel; False if it is too large for the GPU, which says so before anything runs."""
    from triton.runtime.errors import OutOfResources

    module = _loop(plan.text, loop.sizes, loop.shared)
    key = (module.__name__, backward, named["values0" if "values0" in named else "weight0"].device)
    if key in _TOO_LARGE:
        return False
    kernel, names = (module.backward, loop.backward_names()) if backward else (module.forward, loop.forward_names())
    taps = [len(named[("offsets" if n[0] == "K" else "lags") + n[1:]]) for n in loop.numbers()]
    numbers, tensors = (steps, batch, *taps), [named[n] for n in names]
    try:
        launch(kernel, -(-batch // ROWS), numbers, tensors, **loop_options(loop, backward))
    except OutOfResources:
        _TOO_LARGE.add(key)
        return False
    return True


def loop_options(loop: Loop, backward: bool) -> dict[str, Any]:
    """What a loop's kernels are compiled with beside :data:`OPTIONS`."""
    options: dict[str, Any] = {"num_warps": loop.warps}
    if loop.resident(backward) and not torch.version.hip:
        # else ptxas may spill to leave room for a second program per processor, whose weights would have none;
        # where weights are streamed, this would let it unroll until it spills
        options["maxnreg"] = 255
    return options


# -- forward ----------------------------------------------------------------------------------------


def forward(plan: Plan, tensors: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> None:
    """Fill ``results``, contiguous, from ``tensors``; both by the names of :class:`Plan`."""
    given = {n: t.detach().contiguous() for n, t in tensors.items()}
    sizes = [given[f"current{i}"].shape[2] for i in range(len(plan.cells))]
    like = given["current0"]
    loop = loop_of(plan, sizes, like.dtype, _shared(like.device)) if like.numel() else None
    if loop is None or not _forward_loop(plan, loop, given, results):
        forward_by_turns(plan, given, results)


def _forward_loop(plan: Plan, loop: Loop, given: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> bool:
    like = given["current0"]
    steps, batch, _ = like.shape
    programs = -(-batch // ROWS)
    named = {n.replace(".", "_"): t for n, t in {**given, **results, **_packed(loop, given)}.items()}
    for j, link in enumerate(plan.links):
        named[f"weight{j}"] = _laid_out(given[f"weight{j}"].t(), loop)
        if j in loop.rings(backward=False):
            ring = _ring(loop, link, link.source, programs, given[f"weight{j}"])
            if link.delay and not link.delayed:
                past = given[f"history{link.source}"]
                past = past[len(past) - link.delay :]
                # step -1 is in the last slot
                ring[-link.delay :, :batch, : past.shape[2]] = past * given[f"mask{j}"] if link.masked else past
            named[f"ring{j}"] = ring
    named |= _delays(loop, given, steps)
    named |= {n: like.new_empty(steps, batch, loop.sizes[i]) for n, i in loop.sequences(backward=False).items()}
    return _run_loop(plan, loop, False, named, steps, batch)


# -- backward ---------------------------------------------------------------------------------------


def backward(plan: Plan, tensors: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by name: ``d_current0`` [T, B, N], ``d_state0.v`` [B, N], ``d_value0.x`` [N].

    ``tensors`` has the values, weights and masks and what the forward pass kept; ``grads`` those of the outputs and
    states, ``d_output0``, ``d_states0.v``.
    """
    given = {n: t.detach().contiguous() for n, t in {**tensors, **grads}.items()}
    like = given["d_output0"]
    sizes = [given[f"d_output{i}"].shape[2] for i in range(len(plan.cells))]
    out: dict[str, Tensor] = {}
    for i, cell in enumerate(plan.cells):
        shape = given[f"d_output{i}"].shape
        out[f"d_current{i}"] = like.new_empty(shape)
        for s in cell.program.states:
            last = torch.zeros_like(given[f"d_output{i}"][0]) if plan.keep_states else given[f"d_states{i}.{s}"][0]
            out[f"d_state{i}.{s}"] = last.clone()
        out |= {f"d_value{i}.{p}": like.new_zeros(shape[1:]) for p in cell.learned}
    loop = loop_of(plan, sizes, like.dtype, _shared(like.device)) if like.numel() else None
    if loop is None or not _backward_loop(plan, loop, given, out):
        backward_by_turns(plan, given, out)
    return {n: t.sum(0) if n.startswith("d_value") else t for n, t in out.items()}


def _backward_loop(plan: Plan, loop: Loop, given: Mapping[str, Tensor], out: dict[str, Tensor]) -> bool:
    like = given["d_output0"]
    steps, batch, _ = like.shape
    programs = -(-batch // ROWS)
    scratch: dict[str, Tensor] = {}
    for i, cell in enumerate(plan.cells):
        if cell.learned:  # its second pass starts from the same gradients of the last states
            scratch |= {f"d_state{i}.{s}": torch.empty_like(out[f"d_state{i}.{s}"]) for s in cell.program.states}
    named = {n.replace(".", "_"): t for n, t in {**given, **out, **scratch, **_packed(loop, given)}.items()}
    for j, link in enumerate(plan.links):
        named[f"weight{j}"] = _laid_out(given[f"weight{j}"], loop)
        if j in loop.rings(backward=True):
            named[f"ring{j}"] = _ring(loop, link, link.target, programs, given[f"weight{j}"])
    made = {n: like.new_empty(steps, batch, loop.sizes[i]) for n, i in loop.sequences(backward=True).items()}
    if not _run_loop(plan, loop, True, {**named, **_delays(loop, given, steps), **made}, steps, batch):
        return False
    out |= {n: t for n, t in made.items() if n.startswith("d_product")}
    for i, cell in enumerate(plan.cells):
        if cell.learned:
            cell_backward(plan, i, out[f"d_current{i}"], given, out, slice(0, steps))
    for j, link in enumerate(plan.links):
        if link.timed or link.retimed:
            gains_gradient(j, link, given, out, made[f"line{j}"] if link.timed else None)
    return True


# -- weights ----------------------------------------------------------------------------------------


def pieces(values: Tensor, count: int) -> Tensor:
    """``values``, float32, as a sum of ``count`` of 8 significant bits each, [count, ...]: 3 exactly, 1 rounded."""
    if count == 1:
        return values.bfloat16().to(values.dtype)[None]
    parts = []
    for _ in range(count):
        top = (values.view(torch.int32) & -65536).view(torch.float32)
        parts.append(top)
        values = values - top
    return torch.stack(parts)


def _laid_out(weight: Tensor, loop: Loop) -> Tensor:
    """``weight`` [from, to] in its pieces, [pieces, from, to], padded with zeros, as a kernel reads it."""
    cut = pieces(weight.contiguous(), loop.weight_pieces)
    wide = cut.new_zeros(len(cut), padded(weight.shape[0]), padded(weight.shape[1]), dtype=getattr(torch, loop.part))
    wide[:, : weight.shape[0], : weight.shape[1]] = cut.to(wide.dtype)
    return wide


def _ring(loop: Loop, link: LinkPlan, sender: int, programs: int, like: Tensor) -> Tensor:
    return like.new_zeros(loop.slots(link), programs * ROWS, loop.wide[sender])


def _delays(loop: Loop, given: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Delays as kernels take them: in int32."""
    return {n: within(given[n], steps) for n in loop.forward_names() if n.startswith(("offsets", "lags"))}


def _packed(loop: Loop, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of each cell in one tensor, [parameters, N], padded with zeros."""
    packed: dict[str, Tensor] = {}
    for i, cell in enumerate(loop.plan.cells):
        if cell.program.params:
            values = torch.stack([given[f"value{i}.{p}"] for p in cell.program.params])
            packed[f"values{i}"] = pad(values, (0, loop.wide[i] - loop.sizes[i]))
    return packed
