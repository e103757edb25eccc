"""Loops with delays of their own in the triton engine: in its interpreter against the plain loop and finite
differences, compiled for GPUs that need not be there. It takes the marks of ``test_engine_triton.py``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import ranvier as rv
from ranvier.networks import delays_of
from ranvier.neurons import Cell, Link, run_stage
from ranvier.neurons.engines import triton_ahead, triton_gpu, triton_loop
from ranvier.neurons.engines.plan import plan_of


def beside(name: str) -> ModuleType:
    """Another test module."""
    spec = importlib.util.spec_from_file_location(f"{name}_beside", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


base, twins, delayed = beside("test_engine_triton"), beside("test_smooth_twin"), beside("test_networks_delay")
interpreted, compiled, way, FORMS = base.interpreted, base.compiled, base.way, delayed.FORMS
IN_A_KERNEL = ("axonal", "dendritic", "axonal+dendritic")
"""The forms that one kernel runs, if the stage fits; a delay for every pair is always run by turns."""


@compiled
@base.needs_triton
@base.interpreter_counts
def test_in_the_interpreter() -> None:
    base.run_in_the_interpreter(__file__)


# -- in the interpreter -----------------------------------------------------------------------------


@interpreted
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_gradients_are_the_finite_differences(dtype: torch.dtype) -> None:
    """All kinds in one loop, weights and delays, with kernels of two and of more taps."""
    problem = twins.all_kinds()
    slopes = problem.slopes(every=7)
    assert sum(n.endswith("steps") for n in slopes) == 6
    twins.agree(problem.gradients("triton", dtype), slopes, 1e-5 if dtype == torch.float64 else 1e-3)


@interpreted
@pytest.mark.parametrize("form", IN_A_KERNEL)
def test_gradients_in_one_kernel_are_the_finite_differences(way: str, form: str) -> None:
    options = {"kernel": "gaussian", "width": 0.8} if form == "axonal" else {}
    problem = twins.Problem(twins.network(form, recurrent=True, **options))
    twins.agree(problem.gradients("triton", torch.float32), problem.slopes(), 1e-3)


@interpreted
@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_feed_forward_delays_are_the_finite_differences(form: str) -> None:
    problem = twins.Problem(twins.network(form, recurrent=False))
    twins.agree(problem.gradients("triton", torch.float32), problem.slopes(), 1e-3)


def grid_net(form: str, high: float = 5.0, low: float | None = None) -> rv.Network:
    """A loop of two populations whose weights, delays and decays lie on a dyadic grid, so that sums are exact."""
    g = torch.Generator().manual_seed(2)

    def weight(targets: int, sources: int) -> Tensor:
        return torch.randint(-16, 25, (targets, sources), generator=g) / 32.0

    net, parts = rv.Network(), 3 if form == "three-taps" else 1
    x = net.input(4)
    h = net.population(rv.LIF(6, tau_mem=2.0, integrator="euler", threshold=0.5), name="h")
    y = net.population(rv.LIF(5, tau_mem=2.0, integrator="euler", threshold=0.5), name="y")
    net.connect(x, h, rv.Dense(weight=weight(6, 4)))
    net.connect(h, y, rv.Dense(weight=weight(5, 6)))
    delay = delayed.delays_as(form, high, min=low)
    net.connect(y, h, rv.Dense(weight=weight(6, 5 * parts), delay=delay), name="back")
    for own in delays_of(net):
        own.steps.data.mul_(4).round_().div_(4)
    return net.train()


def masked(net: rv.Network) -> rv.Network:
    """With a mask as dropout has one, but the same in every type."""
    mask = torch.tensor([[2.0, 0.0, 2.0, 1.0, 0.5]]).expand(3, 5)
    net.connection("back").source_mask = lambda batch: mask[:batch].to(net.connection("back").weight)
    return net


def alike(net: rv.Network, chunks: list[int], engine: str = "triton", batch: int = 3) -> None:
    """In float32 the spikes of the plain loop, and its gradients in float64 (weights, delays, input, and what a chunk
    passes to the one before it).
    """
    g = torch.Generator().manual_seed(4)
    spikes = (torch.rand(sum(chunks), batch, 4, generator=g) < 0.4).double()
    found = []
    for each, dtype in (("eager", torch.float64), ("eager", torch.float32), (engine, torch.float32)):
        net, sequence = net.to(dtype), spikes.to(dtype).requires_grad_()
        net.engine = each
        outputs, state, loss = [], None, torch.zeros((), dtype=dtype)
        for chunk in sequence.split(chunks):
            result = net(chunk, state=state, record=("h.v",))
            outputs.append(result.output)
            state = result.state
            loss = loss + result.recorded["h.v"].sum()
        out = torch.cat(outputs)
        loss = loss + (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum()
        wanted = {"input": sequence, **{n: p for n, p in net.named_parameters() if p.requires_grad}}
        found.append((out.detach(), dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))))
    (truth, right), (same, _), (got, ours) = found
    assert torch.equal(got, same) and torch.equal(same.double(), truth) and 0.1 < truth.mean() < 0.9
    for name, value in right.items():
        assert value.abs().sum() > 0, name
        torch.testing.assert_close(ours[name].double(), value, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@interpreted
@pytest.mark.parametrize("form", IN_A_KERNEL)
def test_spikes_and_gradients_in_one_kernel(way: str, form: str) -> None:
    net = grid_net(form)
    net.connect("h", "y", rv.Dense(weight=torch.eye(6)[:5], delay=delayed.delays_as(form, 3.0, min=0.0, init=0.5)))
    alike(masked(net), [3, 6])
    net.connection("back").weight.requires_grad_(False)
    alike(net, [4])


@interpreted
@pytest.mark.parametrize("form", FORMS)
def test_spikes_and_gradients_by_phase(form: str) -> None:
    net = grid_net(form)
    alike(masked(net), [5, 7])
    for delay in delays_of(net):
        delay.set_phase("rounded")
    net.connection("back").weight.requires_grad_(False)
    alike(net, [8])
    net.connection("back").weight.requires_grad_(True)
    for delay in delays_of(net):  # what is not learned has no gradient
        delay.set_phase("frozen")
    alike(net, [8])


@interpreted
@pytest.mark.parametrize("form", FORMS)
def test_long_least_delays_advance_in_blocks(form: str) -> None:
    """Of 3 steps of which the last is not whole; and delays beyond the sequence and its chunks."""
    alike(grid_net(form, high=16.0, low=3.0 if form != "axonal+dendritic" else 1.5), [10, 1, 4])


@interpreted
@pytest.mark.parametrize("kind", delayed.KINDS)
def test_a_delay_of_d_steps_moves_a_spike_by_exactly_d_steps(kind: str) -> None:
    x = torch.zeros(15, 1, 3)
    x[1] = 1.0
    delays = torch.tensor([0.5, 1.5, 6.0])  # ms: 1, 3 and 12 steps
    loop = delayed.relay(kind, delays.expand(3, 3) if kind == "synaptic" else delays, recurrent=True)
    loop.engine = "triton"
    times = loop(x).output[:, 0].nonzero().tolist()
    assert [[t for t, n in times if n == k] for k in range(3)] == [list(range(1, 15)), [1, 4, 7, 10, 13], [1, 13]]


@interpreted
@pytest.mark.parametrize("form", ["axonal", "three-taps"])
def test_rounded_weights_are_rounded_before_the_first_step_too(form: str) -> None:
    """Chunks join, and the plain loop with rounded weights gives the same."""
    net = grid_net(form).eval()
    with torch.no_grad():
        for p in (p for n, p in net.named_parameters() if n.endswith("weight")):
            p.mul_(1.0009765625)
    x = (torch.rand(12, 2, 4, generator=torch.Generator().manual_seed(5)) < 0.5).float()
    found = []
    for engine in ("triton-bf16", "triton", "eager"):
        net.engine = engine
        first = net(x[:5], record=("h.v",))
        second = net(x[5:], state=first.state, record=("h.v",))
        whole = net(x, record=("h.v",)).recorded["h.v"]
        torch.testing.assert_close(torch.cat([first.recorded["h.v"], second.recorded["h.v"]]), whole)
        found.append(whole)
        if engine == "triton":
            with torch.no_grad():
                back = net.connection("back").weight
                back.copy_(back.bfloat16())
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[1], found[2], atol=1e-5)  # or rounding would not have been seen


@interpreted
def test_a_step_at_a_time_and_nothing_to_run() -> None:
    net = grid_net("axonal+dendritic")
    alike(net, [1, 1, 1, 7])
    net.engine = "triton"
    parameters = [p for p in net.parameters() if p.requires_grad]
    cells, link = stage(net)
    start = {c.name: {"v": torch.ones(2, net.neuron(c.name).size)} for c in cells}
    currents = {n: torch.ones(0, *s["v"].shape, requires_grad=True) for n, s in start.items()}
    past = {n: torch.ones(6, *s["v"].shape) for n, s in start.items()}
    traces = run_stage("triton", cells, [link], currents, start, past)
    assert traces["h"].output.shape == (0, 2, 6) and torch.equal(traces["h"].states["v"][0], start["h"]["v"])
    grads = torch.autograd.grad(traces["h"].states["v"].sum() + traces["h"].output.sum(), parameters, allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


def stage(net: rv.Network) -> tuple[list[Cell], Link]:
    """The two populations of :func:`grid_net` and the connection back."""
    back = net.connection("back")
    cells = [Cell(n, net.neuron(n).program(1.0), net.neuron(n).values(1.0)) for n in ("y", "h")]
    return cells, Link("y", "h", back.weight, 1, None, back.taps())


# -- compiled ahead of time -------------------------------------------------------------------------


@compiled
@base.needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_and_spill_no_register(capability: int) -> None:
    cells, link = stage(grid_net("axonal+dendritic"))
    kernels = triton_ahead.compile_stage(plan_of("triton", cells, [link], False, True, False), [5, 6], capability)
    ends = {"before", "after"}
    assert set(kernels) == {
        *(f"{what} {w}" for what in ("cell0", "cell1", "loop") for w in ("forward", "backward")),
        *(f"{kind} {w}" for kind in ("taps", "pairs") for w in (*ends, "gradient")),
        *(f"taps {w} onto" for w in ends),
    }
    assert all(k.spills == 0 for k in kernels.values()), kernels


@compiled
def test_a_delay_for_every_pair_is_run_by_turns() -> None:
    for form in FORMS:
        cells, link = stage(grid_net(form))
        loop = triton_gpu.loop_of(plan_of("triton", cells, [link], False, True, False), [5, 6], torch.float32)
        assert (loop is not None) == (form in IN_A_KERNEL)


@compiled
@base.needs_triton
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("form", IN_A_KERNEL)
def test_a_loop_of_128_neurons_compiles_and_spills_no_register(
    form: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = rv.Network()
    h = net.population(rv.LIF(128))
    connection = net.connection(net.connect(h, h, rv.Dense(delay=delayed.delays_as(form, 25.0))))
    cell = Cell("h", net.neuron("population").program(1.0), net.neuron("population").values(1.0))
    link = Link("h", "h", connection.weight, 1, None, connection.taps())
    monkeypatch.setattr(triton_ahead, "_compile_delays", lambda capability: {})
    if not resident:
        monkeypatch.setattr(triton_loop, "RESIDENT", 0)
    found = triton_ahead.compile_stage(plan_of("triton", [cell], [link], False, True, False), [128], 90)
    assert all(k.spills == 0 for k in found.values()) and found["loop forward"].tensor_core > 0, found
