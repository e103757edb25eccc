"""The contestants of ``benchmarks.delays``: one connection with delays each, in the layout that it likes best."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import peers
from .contestants import Skipped, timed
from .peers import DECAY, DT, PEERS_PATH, TAU_MEM, THRESHOLD, Absent, needs
from .workload import Workload, tune, tuning_cell

SEED = 7
LONGEST_SHARE = 3.0  # a step may take this many times what measure_cell allows: there are few contestants


@dataclass
class Task:
    """``run`` gives the output, whose product with ``upstream`` is summed for the loss; gradients are taken of
    ``wanted``, by name. ``as_output`` and ``as_grads`` bring results into the common form: [T, B, H], and gradients of
    ``weight``, ``delay`` (in steps) and, where wanted, ``input`` [T, B, C].
    """

    run: Callable[[], Tensor]
    upstream: Tensor
    wanted: dict[str, Tensor]
    as_output: Callable[[Tensor], Tensor] = lambda output: output
    as_grads: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def step(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        output = self.run()
        loss = torch.dot(output.flatten(), self.upstream.flatten())
        return output, torch.autograd.grad(loss, list(self.wanted.values()))

    def common(self) -> dict[str, Tensor]:
        """Output and gradients in the common form."""
        output, grads = self.step()
        found = {name: self.as_grads.get(name, lambda g: g)(g) for name, g in zip(self.wanted, grads, strict=True)}
        return {"output": self.as_output(output.detach()), **found}


def draw_delays(work: Workload, shape: tuple[int, ...] = ()) -> Tensor:
    """In steps, the same for everyone: [H, C] from 0 to taps - 1, or in a loop [H] or ``shape`` from 1 to taps."""
    cell: Any = work.cell
    shape, first = (shape or (cell.H,), 1.0) if cell.form == "loop" else ((cell.H, cell.C), 0.0)
    return first + (cell.taps - 1) * torch.rand(shape, generator=torch.Generator().manual_seed(SEED))


def _input(work: Workload) -> Tensor:
    cell: Any = work.cell
    return torch.from_numpy(work.x).clone().requires_grad_(cell.form == "input")


def _with_input(wanted: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    return {**wanted, "input": x} if x.requires_grad else wanted


# -- feed-forward ------------------------------------------------------------------------------------------------------


def connection(work: Workload, engine: str) -> Task:
    """``rv.Dense`` with a synaptic delay: by spikes or shifted rows in ``numba``, torch's conv1d in ``eager``."""
    import ranvier as rv

    cell: Any = work.cell
    delay = rv.Delay(max=(cell.taps - 1) * DT, kind="synaptic", init=draw_delays(work) * DT)
    dense = rv.Dense(weight=work.w_in, delay=delay)
    dense.build(cell.C, cell.H, False, "connection")
    delay.build(cell.C, cell.H, DT, False, "connection")
    dense.train()
    x = _input(work)
    wanted = _with_input({"weight": dense.weight, "delay": delay.steps}, x)
    return Task(lambda: dense(x, engine=engine), torch.from_numpy(work.upstream), wanted)


def dcls(work: Workload) -> Task:
    """DCLS of K. Ismail, ``version="v1"``: linear interpolation, up to 1e-7. Its input [B, C, T] comes in that layout.
    A position p is the delay taps - 1 - taps // 2 - p.
    """
    install = f"pip install --no-deps --target {PEERS_PATH} dcls==0.1.1"
    modules = needs("DCLS.construct.modules", install)
    cell: Any = work.cell
    layer = modules.Dcls1d(cell.C, cell.H, 1, dilated_kernel_size=cell.taps, bias=False, version="v1")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(work.w_in).unsqueeze(-1))
        layer.P.copy_((cell.taps - 1 - cell.taps // 2 - draw_delays(work))[None, :, :, None])
    x = torch.from_numpy(work.x).permute(1, 2, 0).contiguous().requires_grad_(cell.form == "input")
    return Task(
        lambda: layer(nn.functional.pad(x, (cell.taps - 1, 0))),
        torch.from_numpy(work.upstream).permute(1, 2, 0).contiguous(),
        _with_input({"weight": layer.weight, "delay": layer.P}, x),
        lambda output: output.permute(2, 0, 1),
        {"weight": lambda g: g[..., 0], "delay": lambda g: -g[0, ..., 0], "input": lambda g: g.permute(2, 0, 1)},
    )


# -- loops -------------------------------------------------------------------------------------------------------------


def tuned(work: Workload) -> Tensor:
    """The input weights at which the neurons, without delays, fire at the cell's rate."""
    small, w_in, w_rec = tuning_cell(work.cell), torch.from_numpy(work.w_in), torch.from_numpy(work.w_rec)
    piece = torch.from_numpy(work.x)[: small.T, : small.B].contiguous()
    return w_in * tune(lambda gain: float(peers.plain_loop(piece, w_in * gain, w_rec).mean()), work.cell.rate)


def ranvier_loop(work: Workload, engine: str, delayed: str) -> Task:
    """LIF neurons whose spikes come back with axonal delays (``taps``: two, of linear interpolation; ``one``: frozen at
    whole steps, so that delays need no gradient), with ``dendritic`` or ``synaptic`` ones (two taps), or after one step
    (``none``).
    """
    import ranvier as rv
    from ranvier.errors import EngineError
    from ranvier.networks import DelayWarning

    warnings.filterwarnings("ignore", category=DelayWarning)  # delays may be longer than these sequences

    cell: Any = work.cell
    net = rv.Network(dt=DT, engine=engine)
    x, h = net.input(cell.C), net.population(rv.LIF(cell.H, tau_mem=TAU_MEM, threshold=THRESHOLD))
    delay = None
    if delayed != "none":
        kind = delayed if delayed in ("dendritic", "synaptic") else "axonal"
        init = draw_delays(work, (cell.H, cell.H)) if kind == "synaptic" else draw_delays(work)
        delay = rv.Delay(max=cell.taps * DT, kind=kind, init=init * DT)
    w_in = net.connection(net.connect(x, h, rv.Dense(weight=tuned(work)))).weight
    w_rec = net.connection(net.connect(h, h, rv.Dense(weight=work.w_rec, delay=delay))).weight
    wanted: dict[str, Tensor] = {"w_in": w_in, "weight": w_rec}
    if delay is not None and delayed != "one":
        wanted["delay"] = delay.steps
    elif delay is not None:
        delay.set_phase("frozen")
    sequence = _input(work)
    net.train()

    def run() -> Tensor:
        try:
            return net(sequence).output
        except EngineError as error:
            raise Absent(str(error)) from error

    return Task(run, torch.from_numpy(work.upstream), wanted)


def scatter_loop(work: Workload) -> Task:
    """Each step sends its spikes, through weights and kernel, to every step ahead at which they arrive: a circular
    buffer [B, N, L] of currents, as DelRec does it, and the same neuron. A delay d is read linearly.
    """
    cell: Any = work.cell
    w_in, w_rec = tuned(work).requires_grad_(), torch.from_numpy(work.w_rec.copy()).requires_grad_()
    delay, x = draw_delays(work).requires_grad_(), _input(work)
    length = cell.taps + 1  # from this step, where nothing arrives, to the last
    ahead = torch.arange(length)
    others = [(ahead != slot).to(w_in.dtype) for slot in range(length)]

    def run() -> Tensor:
        spread = torch.relu(1.0 - (ahead - delay[:, None]).abs())  # [N, L]
        buffer = torch.zeros(cell.B, cell.H, length)
        v, spikes = torch.zeros(cell.B, cell.H), []
        for t, current in enumerate(nn.functional.linear(x, w_in).unbind(0)):
            slot = t % length
            v = (current + buffer[..., slot]).add(v, alpha=DECAY)
            s = peers._Spike.apply(v - THRESHOLD)
            assert isinstance(s, Tensor)
            v = v.sub(s, alpha=THRESHOLD)
            spikes.append(s)
            sent = w_rec @ (s[..., None] * spread.roll(slot, 1))
            buffer = buffer * others[slot] + sent
        return torch.stack(spikes)

    return Task(run, torch.from_numpy(work.upstream), {"w_in": w_in, "weight": w_rec, "delay": delay})


TASKS: dict[str, Callable[[Workload], Task]] = {
    "ranvier-numba": lambda w: ranvier_loop(w, "numba", "taps") if _loops(w) else connection(w, "numba"),
    "dcls": dcls,
    "conv1d": lambda w: connection(w, "eager"),
    "ranvier-numba-one-tap": lambda w: ranvier_loop(w, "numba", "one"),
    "ranvier-numba-no-delay": lambda w: ranvier_loop(w, "numba", "none"),
    "ranvier-numba-dendritic": lambda w: ranvier_loop(w, "numba", "dendritic"),
    "ranvier-numba-synaptic": lambda w: ranvier_loop(w, "numba", "synaptic"),
    "ranvier-eager": lambda w: ranvier_loop(w, "eager", "taps"),
    "ranvier-eager-one-tap": lambda w: ranvier_loop(w, "eager", "one"),
    "ranvier-eager-no-delay": lambda w: ranvier_loop(w, "eager", "none"),
    "scatter-loop": scatter_loop,
}


def _loops(work: Workload) -> bool:
    cell: Any = work.cell
    return cell.form == "loop"


class TaskContestant:
    """A :class:`Task` as :func:`benchmarks.measure.measure_cell` times it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: dict[str, Callable[[], object]] = {}

    def prepare(self, work: Workload, limit_s: float) -> float | None:
        try:
            task = TASKS[self.name](work)
            task.step()
            seconds = timed(task.step, 1)
            rate = float(task.run().detach().mean()) if _loops(work) else None
        except Absent as absent:
            raise Skipped(str(absent)) from absent
        except Exception as error:  # said where it is seen, and the others go on
            raise Skipped(f"failed: {type(error).__name__}: {error}") from error
        if seconds > LONGEST_SHARE * limit_s:
            raise Skipped(f"left out: {seconds:.0f} s per step (--budget raises the limit)")
        self.calls = {"forward": task.run, "step": task.step}
        return rate

    def time(self, kind: str, number: int) -> float:
        return timed(self.calls[kind], number)

    def release(self) -> None:
        self.calls = {}


def versions() -> dict[str, str]:
    """Versions of what these contestants are made of."""
    found = {name: v for name, v in peers.versions().items() if name in ("python", "torch", "numba", "numpy")}
    for info in PEERS_PATH.glob("dcls-*.dist-info"):
        found["dcls"] = info.name.split("-")[1].removesuffix(".dist")
    return found
