"""Gradients of delays and weights against finite differences on the smooth twin of a network, in every engine.

The twin sends the antiderivative of the surrogate instead of spikes, so that what is differentiated is what is
computed. Finite differences are taken in float64 with the eager engine.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ranvier as rv
from ranvier.errors import TraceError
from ranvier.networks import delays_of, smooth_twin
from ranvier.neurons import engines, smooth_program
from ranvier.neurons.engines import delayed

FORMS = ("axonal", "dendritic", "synaptic", "axonal+dendritic", "three-taps")
NEURONS: dict[str, Any] = {
    "lif": lambda n: rv.LIF(n, tau_mem=5.0, threshold=0.4, learn="tau_mem"),
    "lif detached": lambda n: rv.LIF(n, tau_mem=5.0, threshold=0.4, detach_reset=True, surrogate=rv.SlayerExp(0.5)),
    "adlif": lambda n: rv.AdLIF(n, tau_mem=5.0, threshold=0.3, surrogate=rv.Triangle(0.8)),
    "cubalif": lambda n: rv.CuBaLIF(n, tau_mem=6.0, threshold=0.3, surrogate=rv.StraightThrough(2.0)),
}


def delays_as(form: str, high: float, **options: Any) -> Any:
    if form == "axonal+dendritic":
        half = high // 2
        return (rv.Delay(max=high - half, **options), rv.Delay(max=half, kind="dendritic", **options))
    if form == "three-taps":
        return rv.Delay(max=high, kind="synaptic", taps=3, **options)
    return rv.Delay(max=high, kind=form, **options)


def network(form: str, recurrent: bool, neuron: str = "lif", **options: Any) -> rv.Network:
    torch.manual_seed(3)
    net = rv.Network()
    x, h = net.input(3), net.population(NEURONS[neuron](4), name="h")
    delay = delays_as(form, 5.0, **options)
    if recurrent:
        net.connect(x, h, rv.Dense())
        net.connect(h, h, rv.Dense(delay=delay, gain=2.0), name="delayed")
    else:
        net.connect(x, h, rv.Dense(delay=delay, bias=True, gain=2.0), name="delayed")
    return smooth_twin(net).double().train()


class Problem:
    """A loss of a network's output, its finite differences and its gradients in an engine."""

    def __init__(self, net: rv.Network, steps: int = 9, batch: int = 2) -> None:
        g = torch.Generator().manual_seed(1)
        self.net = net
        self.x = torch.randn(steps, batch, 3, generator=g, dtype=torch.float64)
        self.seed = torch.randn(steps, batch, 4, generator=g, dtype=torch.float64)

    def slopes(self, every: int = 3, step: float = 1e-6) -> dict[str, dict[int, float]]:
        """By parameter: central differences of every third value."""
        self.net.engine = "eager"
        found: dict[str, dict[int, float]] = {}
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                found[name] = {}
                for i in range(0, p.numel(), every):
                    kept = float(p.view(-1)[i])
                    ends = []
                    for at in (kept + step, kept - step):
                        p.view(-1)[i] = at
                        ends.append(float((self.net(self.x).output * self.seed).sum()))
                    p.view(-1)[i] = kept
                    found[name][i] = (ends[0] - ends[1]) / (2 * step)
        return found

    def gradients(self, engine: str, dtype: torch.dtype) -> dict[str, Tensor]:
        net = self.net.to(dtype)
        net.engine = engine
        named = dict(net.named_parameters())
        loss = (net(self.x.to(dtype)).output * self.seed.to(dtype)).sum()
        grads = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        self.net.to(torch.float64)
        return grads


def agree(grads: dict[str, Tensor], slopes: dict[str, dict[int, float]], relative: float) -> None:
    """To ``relative`` of each value, and of a hundredth of the parameter's largest where a value is almost 0."""
    for name, expected in slopes.items():
        largest = max(abs(v) for v in expected.values())
        assert largest > 1e-3, f"{name} has no gradient"
        for i, slope in expected.items():
            got = float(grads[name].view(-1)[i])
            assert got == pytest.approx(slope, rel=relative, abs=relative * 0.01 * largest), f"{name}[{i}]"


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
@pytest.mark.parametrize("form", FORMS)
def test_eager_gradients_are_the_finite_differences(form: str, recurrent: bool, neuron: str) -> None:
    problem = Problem(network(form, recurrent, neuron))
    slopes = problem.slopes()
    assert {n.split(".")[-1] for n in slopes} >= {"weight", "steps"}
    agree(problem.gradients("eager", torch.float64), slopes, 1e-5)


def all_kinds() -> Problem:
    """All kinds of delays in one loop of two populations."""
    torch.manual_seed(3)
    net = rv.Network()
    x, h = net.input(3), net.population(NEURONS["lif"](5), name="h")
    g = net.population(NEURONS["adlif"](4), name="g")
    net.connect(x, h, rv.Dense())
    wide: dict[str, Any] = {"kernel": "gaussian", "width": 0.8}
    for form in ("axonal+dendritic", "three-taps"):
        net.connect(h, g, rv.Dense(delay=delays_as(form, 3.0, min=0.0)))
    for form, options in (("axonal", wide), ("synaptic", wide), ("dendritic", {})):
        net.connect(g, h, rv.Dense(delay=delays_as(form, 4.0, **options)))
    return Problem(smooth_twin(net).double().train())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_gradients_of_the_fused_loop_are_the_finite_differences(dtype: torch.dtype) -> None:
    """One kernel, which takes seconds to compile."""
    problem = all_kinds()
    slopes = problem.slopes(every=7)
    limit = 1e-5 if dtype == torch.float64 else 1e-3
    agree(problem.gradients("eager", torch.float64), slopes, 1e-5)
    agree(problem.gradients("numba", dtype), slopes, limit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("way", ["spikes", "shifts"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_products_over_sequences_are_the_finite_differences(
    form: str, way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(network(form, recurrent=False))
    slopes = problem.slopes()
    monkeypatch.setattr(engines, "WORTH_SPARSE", 0)
    monkeypatch.setattr(delayed, "SPIKES_BELOW", 2.0 if way == "spikes" else 0.0)
    monkeypatch.setattr(delayed, "SHIFTS_FROM", 0.0)
    agree(problem.gradients("numba", dtype), slopes, 1e-5 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("phase", ["rounded", "frozen"])
def test_weights_keep_their_gradient_when_delays_are_whole(phase: str) -> None:
    net = network("synaptic", recurrent=True)
    delays_of(net)[0].set_phase(phase)
    problem = Problem(net)
    slopes = {n: s for n, s in problem.slopes().items() if n.endswith("weight")}
    delays_of(net)[0].steps.requires_grad_(True)
    named = {n: p for n, p in net.named_parameters() if n.endswith("weight")}
    loss = (net(problem.x).output * problem.seed).sum()
    agree(dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True)), slopes, 1e-5)


def test_the_twin_is_smooth_and_leaves_the_network_alone() -> None:
    net = rv.Network()
    x, h = net.input(3), net.population(rv.LIF(4, detach_reset=True), name="h")
    net.connect(x, h, rv.Dense(gain=4.0))
    twin = smooth_twin(net)
    program = twin.neuron("h").program(net.dt)
    assert program.output_kind == "real" and not {"fire", "detach"} & {op.kind for op in program.ops}
    assert program.states == net.neuron("h").program(net.dt).states
    twin.connection("input_to_h").weight.data.zero_()
    out = net((torch.rand(9, 2, 3) < 0.5).float()).output
    assert out.any() and set(out.unique().tolist()) == {0.0, 1.0}
    for surrogate in (rv.ATan(), rv.Gaussian()):
        with pytest.raises(TraceError, match="antiderivative cannot be traced"):
            smooth_program(rv.LIF(1, surrogate=surrogate).program())
