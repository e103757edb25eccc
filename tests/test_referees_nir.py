"""Other libraries as readers and writers of the same NIR files: nirtorch, snnTorch and Norse give the same spikes. The
networks are those of ``test_deploy_nir.py``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ranvier as rv
from ranvier import from_nir, to_nir

nir = pytest.importorskip("nir", reason="the package nir is not installed (pip install -e .[interop])")

_spec = importlib.util.spec_from_file_location("nir_networks", Path(__file__).with_name("test_deploy_nir.py"))
assert _spec is not None and _spec.loader is not None
networks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(networks)
BATCH, NEURONS, DELAYS = networks.BATCH, networks.NEURONS, networks.DELAYS
dyadic, network, spikes, stimulus = networks.dyadic, networks.network, networks.spikes, networks.stimulus


class Leaks(torch.nn.Module):
    """LI, LIF, CubaLIF or I as NIR's equations say, by forward Euler with steps of 1e-3; for nirtorch's interpreter."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.node = node
        self.number = lambda name: torch.from_numpy(np.asarray(getattr(node, name))).double()

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        i, v = state if state is not None else (torch.zeros_like(x), torch.zeros_like(x))
        if hasattr(self.node, "tau_syn"):
            i = i + 1e-3 / self.number("tau_syn") * (-i + self.number("w_in") * x)
            v = v + 1e-3 / self.number("tau_mem") * (-v + self.number("r") * i)
        elif hasattr(self.node, "tau"):
            v = v + 1e-3 / self.number("tau") * (self.number("v_leak") - v + self.number("r") * x)
        else:
            v = v + 1e-3 * self.number("r") * x
        if not hasattr(self.node, "v_threshold"):
            return v, (i, v)
        z = (v > self.number("v_threshold")).double()
        return z, (i, torch.where(z > 0, self.number("v_reset"), v))


class Later(torch.nn.Module):
    """NIR's Delay in steps of 1e-3."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.steps = torch.from_numpy(np.rint(node.delay / 1e-3).astype(np.int64))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        past = [*(state or [])[-int(self.steps.max()) :], x]
        zero = torch.zeros_like(x)
        rows = [past[-1 - int(d)] if int(d) < len(past) else zero for d in self.steps]
        return torch.stack([r[..., j] for j, r in enumerate(rows)], -1), past


def by_nirtorch(graph: Any, x: Tensor) -> Tensor:
    nirtorch = pytest.importorskip("nirtorch", reason="nirtorch is not installed (pip install -e .[interop])")

    def product(node: Any) -> torch.nn.Module:
        layer = torch.nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=hasattr(node, "bias"))
        layer.weight.data = torch.from_numpy(node.weight)
        if hasattr(node, "bias"):
            layer.bias.data = torch.from_numpy(node.bias)
        return layer

    class Elementwise(torch.nn.Module):
        def __init__(self, function: Callable[[Tensor, Tensor], Tensor], value: np.ndarray) -> None:
            super().__init__()
            self.function, self.value = function, torch.from_numpy(value)

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x, self.value)

    kinds = dict.fromkeys((nir.LI, nir.LIF, nir.I, nir.IF, nir.CubaLIF), Leaks) | {
        nir.Delay: Later,
        nir.Linear: product,
        nir.Affine: product,
        nir.Scale: lambda n: Elementwise(torch.mul, n.scale),
        nir.Threshold: lambda n: Elementwise(lambda x, t: (x > t).double(), n.threshold),
    }
    module = nirtorch.nir_to_torch(graph, kinds, dtype=torch.float64)
    state, out = None, []
    for row in x.double():
        value, state = module(row, state)
        out.append(value)
    return torch.stack(out)


@pytest.mark.parametrize("name", NEURONS)
def test_nirtorch_wires_the_same_network(name: str) -> None:
    """Referee: nirtorch's interpreter, with NIR's equations written out here."""
    net, x = network(NEURONS[name], reads=False), stimulus(5)
    got = by_nirtorch(to_nir(net), x)
    own = spikes(net, x)
    assert 0.01 < float(own.mean()) < 0.9
    assert torch.equal(got.float(), own)


@pytest.mark.parametrize("where", ["forward", "loop"])
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic", "both"])
def test_nirtorch_delays_as_much(kind: str, where: str) -> None:
    torch.manual_seed(1)
    net, x = rv.Network(dt=1.0, engine="eager"), stimulus(7)
    source, h = net.input(7), net.population(rv.LIF(7, tau_mem=8.0, integrator="euler"), name="h")
    net.connect(source, h, rv.Dense(weight=dyadic(7, 7), delay=DELAYS[kind]() if where == "forward" else None))
    if where == "loop":
        net.connect(h, h, rv.Dense(weight=dyadic(7, 7, seed=2, scale=0.5), delay=DELAYS[kind]()))
    own = spikes(net, x)
    assert 0.01 < float(own.mean()) < 0.9
    assert torch.equal(by_nirtorch(to_nir(net), x).float(), own)


@pytest.mark.parametrize("name", ["LIF to 0", "CuBaLIF to 0"])
def test_snntorch_reads_the_same_spikes(name: str) -> None:
    """snnTorch resets to 0 and has steps of 1e-4. Loops are left out: it sends their input through the recurrent
    weights, so that its own recurrent files do not run as they ran either.
    """
    pytest.importorskip("snntorch", reason="snnTorch is not installed (pip install -e .[interop])")
    from snntorch.import_nir import import_from_nir

    net, x = network(NEURONS[name], recurrent=False, reads=False), stimulus(5)
    module, state, out = import_from_nir(to_nir(net, step=1e-4)), None, []
    for row in x:
        value, state = module(row, state)
        out.append((value[0] if isinstance(value, tuple) else value).detach())
    own = spikes(net, x)
    assert 0.01 < float(own.mean()) < 0.9
    assert torch.equal(torch.stack(out).float(), own)


def test_norse_reads_the_same_spikes() -> None:
    norse = pytest.importorskip("norse.torch", reason="Norse is not installed (pip install -e .[interop])")
    net, x = network(NEURONS["LIF to 0"], recurrent=False, reads=False), stimulus(5)
    module, state, out = norse.from_nir(to_nir(net, gain="weights"), dt=1e-3), None, []
    for row in x:
        value, state = module(row, state)
        out.append(value.detach())
    own = spikes(net, x)
    assert 0.01 < float(own.mean()) < 0.9
    assert torch.equal(torch.stack(out).float(), own)


def run_cell(cell: Any, currents: Tensor, states: int) -> Tensor:
    """snnTorch's cell over time: the spikes. Recurrent cells take them back."""
    state, out = [torch.zeros(BATCH, 7)] * states, []
    with torch.no_grad():
        for current in currents:
            spike, *rest = cell(current, *state)
            state = [spike, *rest] if hasattr(cell, "recurrent") else rest
            out.append(spike)
    return torch.stack(out)


@pytest.mark.parametrize(
    ("kind", "mechanism", "delay", "reset", "reset_delayed"),
    [
        ("Leaky", "zero", True, "to_value", False),  # its zero reset empties the membrane before the next input
        ("Leaky", "zero", False, "to_value", False),
        ("Leaky", "subtract", True, "subtract", True),
        ("Synaptic", "zero", False, "to_value", False),
        ("Synaptic", "subtract", True, "subtract", True),
        ("RLeaky", "zero", False, "to_value", False),
        ("RLeaky", "subtract", True, "subtract", True),
        ("RSynaptic", "zero", True, "to_value", True),
        ("RSynaptic", "subtract", True, "subtract", True),
    ],
)
def test_what_snntorch_wrote_runs_as_it_ran(
    kind: str, mechanism: str, delay: bool, reset: str, reset_delayed: bool
) -> None:
    snn = pytest.importorskip("snntorch", reason="snnTorch is not installed (pip install -e .[interop])")
    from snntorch.export_nir import export_to_nir

    recurrent = kind.startswith("R")
    options: dict[str, Any] = {"reset_mechanism": mechanism, "reset_delay": delay, "beta": 0.875}
    options |= {"alpha": 0.5} if kind.endswith("Synaptic") else {}
    if recurrent:
        options["linear_features"] = 7
    else:  # it writes one number for all in a shape that NIR refuses
        options |= {"threshold": torch.ones(7)} | {
            k: torch.full((7,), options[k]) for k in ("alpha", "beta") if k in options
        }
    if kind == "RSynaptic":
        del options["reset_delay"]  # it has none, and delays
    cell, hidden = (getattr(snn, kind)(init_hidden=own, **options) for own in (False, True))
    first = torch.nn.Linear(5, 7, bias=False)
    with torch.no_grad():
        first.weight.copy_(dyadic(7, 5, scale=0.5))
        for one in (cell, hidden) if recurrent else ():
            one.recurrent.weight.copy_(dyadic(7, 7, seed=1, scale=0.25))
            one.recurrent.bias.copy_(dyadic(7, seed=2, scale=0.25))
    x = stimulus(5)
    wanted = run_cell(cell, x @ first.weight.T, int(recurrent) + (2 if kind.endswith("Synaptic") else 1))
    graph = export_to_nir(torch.nn.Sequential(first, hidden), torch.zeros(BATCH, 5), ignore_dims=[0])
    net = from_nir(graph, dt=0.1, reset=reset, reset_delayed=reset_delayed)
    got = spikes(net, x, next(iter(net.populations)))
    assert 0.01 < float(wanted.mean()) < 0.9
    assert torch.equal(got, wanted)


def test_what_norse_wrote_runs_as_it_ran() -> None:
    norse = pytest.importorskip("norse.torch", reason="Norse is not installed (pip install -e .[interop])")
    parameters = norse.LIFBoxParameters(tau_mem_inv=torch.full((7,), 125.0), v_th=torch.ones(7), v_leak=torch.zeros(7))
    first, cell = torch.nn.Linear(5, 7), norse.LIFBoxCell(parameters, dt=1e-3)
    with torch.no_grad():
        first.weight.copy_(dyadic(7, 5, scale=8.0))
        first.bias.copy_(dyadic(7, seed=2))
    x, state, out = stimulus(5), None, []
    with torch.no_grad():
        for row in x:
            value, state = cell(first(row), state)
            out.append(value)
    graph = norse.to_nir(norse.SequentialState(first, cell), torch.zeros(1, 5))
    net = from_nir(graph, dt=1.0, step=1e-6)
    got = spikes(net, x, next(iter(net.populations)))
    assert 0.01 < float(torch.stack(out).mean()) < 0.9
    assert torch.equal(got, torch.stack(out))
