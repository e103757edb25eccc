"""The contestants that run in this process: one recurrent layer each, written as a user of the library would write it
well.

Each gets the input product hoisted over all T where its interface allows it, sequences unbound once (indexing ``x[t]``
of a sequence that needs a gradient makes the backward quadratic in T), no gradient of the input, and no bias. What
differs is the neuron, where a library has only its own: each function says which.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .workload import DECAY, DT, SLOPE, TAU_MEM, TAU_SYN, THRESHOLD, Workload

ROOT = Path(__file__).resolve().parents[1]
PEERS_PATH = Path(os.environ.get("RANVIER_BENCH_PEERS", ROOT / "build" / "peers"))


class Absent(Exception):
    """A contestant that cannot run here; the message says why and what to do."""


@dataclass
class Layer:
    """``run`` maps x [T, B, C] to the output [T, B, H]; ``parameters`` are what gradients are taken of. ``w_in`` is
    what the tuned gain multiplies, None for peers that do not spike.
    """

    run: Callable[[Tensor], Tensor]
    parameters: list[Tensor]
    w_in: Tensor | None = None


def needs(module: str, install: str) -> ModuleType:
    """Import ``module``, also from the folder of peers, or raise :class:`Absent` with the way to install it."""
    if PEERS_PATH.is_dir() and str(PEERS_PATH) not in sys.path:
        sys.path.append(str(PEERS_PATH))  # last, so that it shadows nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except Exception as error:  # a peer that does not import, for whatever reason, is a peer that is not there
        raise Absent(f"{module} does not import ({type(error).__name__}: {error}); {install}") from error


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        y = x.abs() * SLOPE + 1.0
        return grads[0] / (y * y)


def plain_loop(x: Tensor, w_in: Tensor, w_rec: Tensor) -> Tensor:
    """Ranvier's LIF (reset by subtraction, in the same step, with its gradient) as a plain torch loop."""
    currents = nn.functional.linear(x, w_in).unbind(0)
    weight = w_rec.t()
    v = s = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        v = torch.addmm(current, s, weight).add(v, alpha=DECAY)
        s = _Spike.apply(v - THRESHOLD)
        assert isinstance(s, Tensor)
        v = v.sub(s, alpha=THRESHOLD)
        spikes.append(s)
    return torch.stack(spikes)


def torch_loop(work: Workload) -> Layer:
    w_in, w_rec = _weight(work.w_in), _weight(work.w_rec)
    return Layer(lambda x: plain_loop(x, w_in, w_rec), [w_in, w_rec], w_in)


def ranvier(work: Workload, engine: str = "numba") -> Layer:
    import ranvier as rv

    make: Any = rv.Network
    try:
        net = make(dt=DT, engine=engine)
    except Exception as error:
        raise Absent(f"ranvier has no engine {engine!r} here ({type(error).__name__}: {error})") from error
    x = net.input(work.cell.C)
    h = net.population(rv.LIF(work.cell.H, tau_mem=TAU_MEM, threshold=THRESHOLD))
    w_in = net.connection(net.connect(x, h, rv.Dense(weight=work.w_in))).weight
    w_rec = net.connection(net.connect(h, h, rv.Dense(weight=work.w_rec))).weight
    return Layer(lambda sequence: net(sequence).output, [w_in, w_rec], w_in)


def torch_rnn(work: Workload) -> Layer:
    """Elman network with ReLU: the same products, and almost nothing else."""
    rnn = nn.RNN(work.cell.C, work.cell.H, nonlinearity="relu", bias=False)
    return Layer(lambda x: rnn(x)[0], list(rnn.parameters()))


def torch_lstm(work: Workload) -> Layer:
    """LSTM: four times the products."""
    lstm = nn.LSTM(work.cell.C, work.cell.H, bias=False)
    return Layer(lambda x: lstm(x)[0], list(lstm.parameters()))


def snntorch(work: Workload) -> Layer:
    """RLeaky: LIF, reset by subtraction one step later; the same surrogate. Its recurrent bias is 0 and fixed."""
    snn = needs("snntorch", "pip install -e .[interop]")
    surrogate = needs("snntorch.surrogate", "pip install -e .[interop]")
    w_in = _weight(work.w_in)
    cell = snn.RLeaky(
        beta=DECAY, linear_features=work.cell.H, threshold=THRESHOLD, spike_grad=surrogate.fast_sigmoid(slope=SLOPE)
    )
    with torch.no_grad():
        cell.recurrent.weight.copy_(torch.from_numpy(work.w_rec))
        cell.recurrent.bias.zero_()
    cell.recurrent.bias.requires_grad_(False)

    def run(x: Tensor) -> Tensor:
        currents = nn.functional.linear(x, w_in).unbind(0)
        spk = mem = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            spk, mem = cell(current, spk, mem)
            spikes.append(spk)
        return torch.stack(spikes)

    return Layer(run, [w_in, cell.recurrent.weight], w_in)


def norse(work: Workload) -> Layer:
    """LIFRecurrent: a synaptic current before the membrane, Euler, reset to 0 without gradient; its default surrogate,
    ten times narrower (with ours its gradients explode). Its weights are scaled so that a spike moves as much charge.
    """
    lif = needs("norse.torch.module.lif", "pip install -e .[interop]")
    functional = needs("norse.torch.functional.lif", "pip install -e .[interop]")
    scale = TAU_MEM / TAU_SYN
    w_in, w_rec = _weight(work.w_in * scale), _weight(work.w_rec * scale)
    number = torch.as_tensor
    p = functional.LIFParameters(
        tau_syn_inv=number(1000.0 / TAU_SYN),
        tau_mem_inv=number(1000.0 / TAU_MEM),
        v_th=number(THRESHOLD),
        v_reset=number(0.0),
    )
    layer = lif.LIFRecurrent(
        work.cell.C, work.cell.H, p=p, input_weights=w_in, recurrent_weights=w_rec, autapses=True, dt=DT / 1000.0
    )
    return Layer(lambda x: layer(x)[0], [w_in, w_rec], w_in)


def spikingjelly(work: Workload) -> Layer:
    """LinearRecurrentContainer around LIFNode, one step at a time: Ranvier's LIF exactly. The container multiplies
    [input, last spikes] with one matrix; with the identity in its input half it receives hoisted currents.
    """
    install = f"pip install --no-deps --target {PEERS_PATH} spikingjelly==2.0.0 loguru"
    needs("spikingjelly", install)
    neuron = needs("spikingjelly.activation_based.neuron", install)
    layer = needs("spikingjelly.activation_based.layer", install)
    functional = needs("spikingjelly.activation_based.functional", install)
    surrogate = needs("spikingjelly.activation_based.surrogate", install)
    size = work.cell.H
    w_in = _weight(work.w_in)
    node = neuron.LIFNode(
        tau=1.0 / (1.0 - DECAY),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=None,
        surrogate_function=surrogate.SoftSign(alpha=2.0),  # peak 1
    )
    container = layer.LinearRecurrentContainer(node, in_features=size, out_features=size, bias=False)
    with torch.no_grad():
        container.rc.weight.copy_(torch.cat([torch.eye(size), torch.from_numpy(work.w_rec)], 1))

    def run(x: Tensor) -> Tensor:
        functional.reset_net(container)
        return torch.stack([container(current) for current in nn.functional.linear(x, w_in).unbind(0)])

    return Layer(run, [w_in, container.rc.weight], w_in)


class MatmulFloor:
    """The matrix products of a step alone, without autograd: input product and its weight gradient, T recurrent
    products forward and T backward, the recurrent weight gradient in one product. Results go into buffers made before.
    """

    def __init__(self, work: Workload) -> None:
        steps, batch, size = work.upstream.shape
        self.x = torch.from_numpy(work.x).flatten(0, 1)
        self.w_in, self.w_rec = torch.from_numpy(work.w_in), torch.from_numpy(work.w_rec)
        self.w_rec_t = self.w_rec.t().contiguous()
        self.upstream = torch.from_numpy(work.upstream)
        self.currents = torch.empty(steps * batch, size)
        self.row = torch.empty(batch, size)
        self.w_in_grad, self.w_rec_grad = torch.empty_like(self.w_in), torch.empty_like(self.w_rec)

    def forward(self) -> None:
        torch.mm(self.x, self.w_in.t(), out=self.currents)
        for s in self.upstream.unbind(0):  # any numbers: a dense product's time does not depend on them
            torch.mm(s, self.w_rec_t, out=self.row)

    def step(self) -> None:
        self.forward()
        for g in self.upstream.unbind(0):
            torch.mm(g, self.w_rec, out=self.row)
        grad = self.upstream.flatten(0, 1)
        torch.mm(grad.t(), self.x, out=self.w_in_grad)
        torch.mm(grad.t(), grad, out=self.w_rec_grad)


LAYERS: dict[str, Callable[[Workload], Layer]] = {
    "ranvier-numba": ranvier,
    "torch-loop": torch_loop,
    "torch-rnn": torch_rnn,
    "torch-lstm": torch_lstm,
    "norse": norse,
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
}
PACKAGES = ("torch", "numba", "numpy", "norse", "snntorch")


def versions() -> dict[str, str]:
    """Versions of what is installed in this environment, SpikingJelly from its own folder."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for info in PEERS_PATH.glob("spikingjelly-*.dist-info"):
        found["spikingjelly"] = info.name.split("-")[1].removesuffix(".dist")
    return found


def _weight(values: Any) -> Tensor:
    return torch.from_numpy(values.copy()).requires_grad_()
