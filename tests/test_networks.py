"""Graph, schedule and forward pass against an independent recursive simulator; chunks, padding, dropout, batch
norm, gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import ranvier as rv
from ranvier.errors import DataError, GraphError
from ranvier.networks import Dense, Network, NetworkState
from ranvier.neurons import ALIF, LIF, AdLIF, CuBaLIF, FastSigmoid, Integrator, Izhikevich, Neuron


def double(net: Network) -> Network:
    return net.double().eval()


# -- an independent simulator: every value of every step by recursion over the graph ----------------------------------


def simulate(net: Network, x: Tensor) -> dict[str, Tensor]:
    """Outputs of all populations [T, B, N] and of all states (``h.v``), value by value from the definition of a step.

    It knows no schedule: what a population needs in step k is asked for, and computed then.
    """
    steps, batch = x.shape[:2]
    values = {n: net.neuron(n).values(net.dt) for n in net.populations}
    out: dict[tuple[str, int], Tensor] = {}
    state: dict[tuple[str, int], dict[str, Tensor]] = {}

    def output(name: str, k: int) -> Tensor:
        if k < 0:
            return x.new_zeros(batch, net.graph.nodes[name]["size"])
        if name == "input":
            return x[k]
        if (name, k) not in out:
            neuron = net.neuron(name)
            current = x.new_zeros(batch, neuron.size)
            for source, _, key, delay in net.graph.in_edges(name, keys=True, data="delay"):
                connection = net.connection(key)
                current = current + output(source, k - delay) @ connection.weight.T
                if connection.bias is not None:
                    current = current + connection.bias
            state[name, k], out[name, k] = neuron.program(net.dt).run(before(name, k), current, values[name])
        return out[name, k]

    def before(name: str, k: int) -> dict[str, Tensor]:
        if k > 0:
            return state[name, k - 1]
        neuron = net.neuron(name)
        initial = neuron.program(net.dt).initial
        pick = {s: values[name][i] if isinstance(i, str) else torch.tensor(float(i)) for s, i in initial.items()}
        return {s: v.to(x).expand(batch, neuron.size) for s, v in pick.items()}

    for k in range(steps):
        for name in net.populations:
            output(name, k)
    result = {n: torch.stack([out[n, k] for k in range(steps)]) for n in net.populations}
    for n in net.populations:
        for s in net.neuron(n).program(net.dt).states:
            result[f"{n}.{s}"] = torch.stack([state[n, k][s] for k in range(steps)])
    return result


def everything(net: Network) -> list[str]:
    return [*net.populations, *(f"{n}.{s}" for n in net.populations for s in net.neuron(n).program(net.dt).states)]


def assert_as_simulated(net: Network, x: Tensor) -> None:
    wanted = simulate(net, x)
    got = net(x, record=everything(net))
    for name, value in wanted.items():
        torch.testing.assert_close(got.recorded[name], value, rtol=1e-11, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
        if "." in name:
            population, state = name.split(".")
            torch.testing.assert_close(got.state[population][state], value[-1], rtol=1e-11, atol=1e-11)


def chunked(net: Network, x: Tensor, cuts: list[int], names: list[str]) -> tuple[dict[str, Tensor], NetworkState]:
    state, parts = None, []
    for chunk in torch.tensor_split(x, cuts):
        if len(chunk):
            result = net(chunk, state=state, record=names)
            state = result.state
            parts.append(result.recorded)
    assert state is not None
    return {n: torch.cat([p[n] for p in parts]) for n in names}, state


def assert_state_equal(a: NetworkState, b: NetworkState) -> None:
    assert {n: set(s) for n, s in a.items()} == {n: set(s) for n, s in b.items()}
    for population, own in a.items():
        for name, value in own.items():
            torch.testing.assert_close(
                b[population][name], value, rtol=1e-11, atol=1e-11, msg=lambda m, n=f"{population}.{name}": f"{n}: {m}"
            )


MAKERS: list[Callable[[int], Neuron]] = [
    lambda n: LIF(n, tau_mem=5.0, threshold=0.6),
    lambda n: CuBaLIF(n, tau_mem=5.0, tau_syn=2.0, threshold=0.7, refractory=2.0),
    lambda n: AdLIF(n, tau_mem=2.0, threshold=0.4),
    lambda n: ALIF(n, threshold=0.5, reset_delayed=True),
    lambda n: Integrator(n, tau_mem=4.0),
    lambda n: Izhikevich(n, k0=150.0),
]


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, bool]:
    """A random network, and whether it has a cycle of total delay 0."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    net = Network(dt=1.0)
    size = draw(st.integers(1, 3))
    net.input(size, name="input")
    count = draw(st.integers(1, 4))
    for i in range(count):
        net.population(draw(st.sampled_from(MAKERS))(draw(st.integers(1, 3))), name=f"p{i}")
    names = [f"p{i}" for i in range(count)]
    net.connect("input", draw(st.sampled_from(names)), Dense(gain=2.0), delay=draw(st.sampled_from([None, 0, 1, 3])))
    zero: dict[str, set[str]] = {n: set() for n in names}
    for _ in range(draw(st.integers(0, 6))):
        a, b = draw(st.sampled_from(["input", *names])), draw(st.sampled_from(names))
        delay = draw(st.sampled_from([None, None, 0, 1, 2, 4]))
        net.connect(a, b, Dense(bias=draw(st.booleans()), gain=1.5), delay=delay)
        if a != "input" and (delay == 0 or (delay is None and names.index(b) > names.index(a))):
            zero[a].add(b)

    def reaches(a: str, b: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(c == b or (c not in seen and reaches(c, b, seen | {c})) for c in zero[a])

    return double(net), any(reaches(n, n) for n in names)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.lists(st.integers(0, 9), max_size=3))
def test_random_networks_run_as_defined_whole_and_in_chunks(drawn: tuple[Network, bool], cuts: list[int]) -> None:
    net, instant_cycle = drawn
    x = torch.randn(9, 2, net.graph.nodes["input"]["size"], dtype=torch.float64) + 0.3
    if instant_cycle:
        with pytest.raises(GraphError, match="total delay of 0"):
            net(x)
        return
    with torch.no_grad():
        assert_as_simulated(net, x)
        names = everything(net)
        whole = net(x, record=names)
        parts, state = chunked(net, x, sorted(cuts), names)
        for name in names:
            torch.testing.assert_close(parts[name], whole.recorded[name], rtol=1e-11, atol=1e-11)
        assert_state_equal(whole.state, state)


# -- schedule ---------------------------------------------------------------------------------------------------------


def test_feed_forward_parts_are_stages_of_their_own_in_topological_order() -> None:
    net = Network()
    net.input(2)
    c, b, a = (net.population(LIF(2), name=n) for n in "cba")
    net.connect("input", "a", Dense())
    net.connect(a, b, Dense(), delay=0)
    net.connect(b, c, Dense(), delay=0)
    assert [(s.populations, s.is_loop) for s in net.schedule()] == [(("a",), False), (("b",), False), (("c",), False)]


def test_a_loop_of_two_populations_is_one_stage() -> None:
    net = Network()
    net.input(2)
    for n in ("first", "second", "out"):
        net.population(LIF(2), name=n)
    net.connect("input", "second", Dense())
    net.connect("second", "first", Dense(), delay=0, name="onward")
    net.connect("first", "second", Dense(), name="back", delay=1)
    net.connect("first", "out", Dense())
    stages = net.schedule()
    assert [s.populations for s in stages] == [("second", "first"), ("out",)]
    assert stages[0].links == ("back", "onward") and stages[0].is_loop
    assert_as_simulated(double(net), torch.randn(12, 2, 2, dtype=torch.float64) * 2)


def l2mu() -> Network:
    """Input into a scalar ``u``, a linear memory with its own loop, a spiking layer that reads it and feeds ``u``."""
    net = Network()
    net.input(3, name="input")
    u = net.population(Integrator(1, tau_mem=1e-3), name="u")
    m = net.population(Integrator(4, tau_mem=1e-3), name="m")
    h = net.population(LIF(5, tau_mem=8.0, threshold=0.5), name="h")
    y = net.population(Integrator(2), name="y")
    for a, b in ((u, m), (m, h), (h, y), ("input", u), ("input", h), (m, m), (h, h), (h, u), (m, u)):
        net.connect(a, b, Dense(gain=0.9))
    return net


def test_an_l2mu_shaped_network() -> None:
    net = double(l2mu())
    assert [s.populations for s in net.schedule()] == [("u", "m", "h"), ("y",)]
    torch.manual_seed(1)
    assert_as_simulated(net, torch.randn(15, 2, 3, dtype=torch.float64))


def test_a_cycle_without_delay_names_its_path() -> None:
    net = Network()
    net.input(2)
    for n in ("a", "b", "c"):
        net.population(LIF(2), name=n)
    net.connect("input", "a", Dense())
    net.connect("a", "b", Dense(), delay=0)
    net.connect("b", "c", Dense(), delay=0)
    net.connect("c", "b", Dense(), delay=0)
    with pytest.raises(GraphError, match=r"the cycle (b -> c -> b|c -> b -> c) has a total delay of 0; give one"):
        net.schedule()
    net.connect("a", "a", Dense(), delay=0, name="self")
    with pytest.raises(GraphError, match="total delay of 0"):
        net(torch.ones(2, 1, 2))


def test_the_schedule_follows_a_change_of_the_graph() -> None:
    net = Network()
    net.input(2)
    net.population(LIF(2), name="a")
    net.connect("input", "a", Dense())
    assert not net.schedule()[0].is_loop
    net.connect("a", "a", Dense())
    assert net.schedule()[0].is_loop


def test_default_delays() -> None:
    net = l2mu()
    delays = {(a, b): d for a, b, d in net.graph.edges(data="delay")}
    assert {e for e, d in delays.items() if d == 1} == {("m", "m"), ("h", "h"), ("h", "u"), ("m", "u")}
    assert set(delays.values()) == {0, 1}


@pytest.mark.parametrize(("delay", "steps"), [(0.3, 3), (0.1, 1), (0, 0), (12.7, 127)])
def test_delays_in_ms_become_steps(delay: float, steps: int) -> None:
    net = Network(dt=0.1)
    net.input(2)
    net.population(LIF(2), name="a")
    key = net.connect("input", "a", Dense(), delay=delay)
    assert {k: d for _, _, k, d in net.graph.edges(keys=True, data="delay")} == {key: steps}


def test_several_inputs_and_parallel_connections() -> None:
    net = Network()
    net.input(2, name="left")
    net.input(3, name="right", kind="events")
    net.population(Integrator(2, tau_mem=math.inf), name="sum")
    w = [torch.randn(2, n) for n in (2, 3, 3)]
    net.connect("left", "sum", Dense(weight=w[0]))
    net.connect("right", "sum", Dense(weight=w[1]))
    net.connect("right", "sum", Dense(weight=w[2]), delay=2)
    x = {"left": torch.randn(6, 2, 2), "right": torch.randn(6, 2, 3)}
    late = torch.cat([torch.zeros(2, 2, 3), x["right"]])[:6]
    want = (x["left"] @ w[0].T + x["right"] @ w[1].T + late @ w[2].T).cumsum(0)
    torch.testing.assert_close(net(x).output, want, rtol=1e-5, atol=1e-5)


class Relay(Neuron):
    """No state at all: what comes in goes out."""

    output = "real"

    def step(self, current: Any, p: Any) -> Any:
        return current * 2.0


def test_a_population_without_states_runs_in_and_outside_loops() -> None:
    net = Network()
    net.input(1, name="input")
    for name in ("a", "b"):
        net.population(Relay(1), name=name)
    net.connect("input", "a", Dense(weight=torch.ones(1, 1)))
    net.connect("a", "b", Dense(weight=torch.ones(1, 1)))
    x = torch.arange(1.0, 5.0).reshape(4, 1, 1)
    result = net(x)
    assert result.state == {} and torch.equal(result.output, 4 * x)
    net.connect("b", "a", Dense(weight=torch.full((1, 1), 0.25)))
    assert_as_simulated(double(net), x.double())
    parts, _ = chunked(net, x.double(), [2], ["b"])
    assert torch.equal(parts["b"], net(x.double()).output)


def test_a_population_without_input_runs_on_its_own() -> None:
    net = Network()
    net.input(1, name="input")
    net.population(Integrator(2), name="lonely")
    assert net(torch.ones(3, 2, 1)).output.shape == (3, 2, 2)
    assert net(torch.ones(3, 2, 1)).output.abs().sum() == 0


# -- chunks and state -------------------------------------------------------------------------------------------------


def recurrent(batch_norm: bool = False, dropout: float = 0.0) -> Network:
    torch.manual_seed(7)
    net = Network()
    x = net.input(6, name="input")
    h = net.population(
        AdLIF(8, tau_mem=4.0, tau_w=30.0, threshold=0.3, learn=("tau_mem", "a"), refractory=1.0), name="h"
    )
    y = net.population(Integrator(3, learn=True), name="y")
    net.connect(x, h, Dense(gain=3.0, batch_norm=batch_norm, dropout=dropout), delay=2)
    net.connect(h, h, Dense(dropout=dropout), delay=3)
    net.connect(h, y, Dense(bias=True, dropout=dropout), delay=1)
    return net


@pytest.mark.parametrize("cuts", [[1], [10], [3, 4, 5], [19]])
def test_chunks_equal_the_whole_with_delays_and_histories(cuts: list[int]) -> None:
    net = double(recurrent(batch_norm=True))
    x = torch.rand(20, 3, 6, dtype=torch.float64) * 2
    names = [*everything(net), "input"]
    whole = net(x, record=names)
    parts, state = chunked(net, x, cuts, names)
    assert whole.recorded["h"].sum() > 20
    for name in names:
        torch.testing.assert_close(parts[name], whole.recorded[name], rtol=1e-12, atol=1e-12)
    assert_state_equal(whole.state, state)
    assert whole.state["h"]["history"].shape == (3, 3, 8)
    assert whole.state["input"]["history"].shape == (2, 3, 6)


def test_gradients_flow_across_chunks() -> None:
    net = double(recurrent())
    x = torch.rand(12, 2, 6, dtype=torch.float64) * 2
    grads = []
    for cuts in ([], [5]):
        net.zero_grad()
        parts, state = chunked(net, x, cuts, ["y"])
        (parts["y"].sum() + state["h"]["w"].sum()).backward()
        grads.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_final_state_is_of_every_sample() -> None:
    net = double(recurrent())
    x = torch.rand(15, 4, 6, dtype=torch.float64) * 2
    together = net(x).state
    for i in range(4):
        alone = net(x[:, i : i + 1]).state
        for population, own in alone.items():
            for name, value in own.items():
                at = (
                    together[population][name][:, i : i + 1]
                    if name == "history"
                    else together[population][name][i : i + 1]
                )
                torch.testing.assert_close(at, value, rtol=1e-11, atol=1e-12)
    assert (together["h"]["w"].std(0) > 0).all()


def test_the_network_keeps_no_state() -> None:
    net = double(recurrent())
    x = torch.rand(10, 2, 6, dtype=torch.float64)
    first = net(x)
    net(x * 3, state=first.state)
    assert torch.equal(net(x).output, first.output)


# -- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["sum", "sum_softmax", "mean", "max", "last"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_equals_running_each_sample_alone(readout: str, training: bool) -> None:
    net = recurrent().double().train(training)
    net.readout("y", readout)
    lengths = torch.tensor([9, 1, 12, 2])
    x = torch.rand(12, 4, 6, dtype=torch.float64) * 2
    garbage = x.clone()
    for i, n in enumerate(lengths.tolist()):
        garbage[n:, i] = 1e3 * torch.rand(12 - n, 6, dtype=torch.float64)
    got = net(garbage, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone = net(x[:n, i : i + 1])
        torch.testing.assert_close(got.output[i : i + 1], alone.output, rtol=1e-11, atol=1e-12)
        for population, own in alone.state.items():
            for name, value in own.items():
                at = got.state[population][name]
                at = at[:, i : i + 1] if name == "history" else at[i : i + 1]
                torch.testing.assert_close(
                    at, value, rtol=1e-11, atol=1e-12, msg=lambda m, p=population, s=name: f"{p}.{s}: {m}"
                )


def test_padding_gets_no_gradient() -> None:
    net = double(recurrent())
    net.readout("y", "sum")
    x = (torch.rand(10, 2, 6, dtype=torch.float64) * 2).requires_grad_()
    net(x, lengths=torch.tensor([4, 10])).output.sum().backward()
    assert x.grad is not None
    assert not x.grad[4:, 0].any() and x.grad[:4, 0].any() and x.grad[4:, 1].any()


def test_batch_statistics_are_of_unpadded_steps() -> None:
    torch.manual_seed(0)
    net = Network()
    x, y = net.input(3), net.population(Integrator(2, tau_mem=1e-9), name="y")  # no memory: the output is the current
    key = net.connect(x, y, Dense(batch_norm=True))
    net.double().train()
    lengths = torch.tensor([5, 2, 7])
    data = torch.randn(7, 3, 3, dtype=torch.float64)
    valid = torch.arange(7)[:, None] < lengths
    data[~valid] = 1e6
    out = net(data, lengths=lengths).output
    rows = torch.cat([data[:n, i] for i, n in enumerate(lengths)]) @ net.connection(key).weight.T
    mean, var = rows.mean(0), rows.var(0, unbiased=False)
    want = (data[valid] @ net.connection(key).weight.T - mean) / torch.sqrt(var + 1e-5)
    torch.testing.assert_close(out[valid], want, rtol=1e-8, atol=1e-8)
    norm = net.connection(key).norm
    assert norm is not None and norm.running_mean is not None and norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0), rtol=1e-9, atol=1e-9)
    running = norm.running_mean.clone()
    net.eval()(data, lengths=lengths)
    assert torch.equal(norm.running_mean, running)


def test_batch_norm_inside_a_loop_is_refused() -> None:
    net = Network()
    net.input(2)
    net.population(LIF(2), name="h")
    net.connect("input", "h", Dense(batch_norm=True))
    net.schedule()
    net.connect("h", "h", Dense(batch_norm=True), name="loop")
    with pytest.raises(GraphError, match="'loop' lies inside a loop"):
        net(torch.ones(2, 1, 2))


def test_batch_norm_of_a_single_step_is_refused_in_training_only() -> None:
    net = Network()
    net.input(2)
    net.population(LIF(2), name="h")
    net.connect("input", "h", Dense(batch_norm=True))
    for x, lengths in ((torch.ones(1, 1, 2), None), (torch.ones(4, 1, 2), [1])):
        with pytest.raises(DataError, match="at least two unpadded steps"):
            net.train()(x, lengths=lengths)
        net.eval()(x, lengths=lengths)


# -- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [False, True])
def test_a_dropout_mask_is_constant_in_time_and_differs_between_samples(loop: bool) -> None:
    """A relay sends ones on; an integrator that forgets nothing at once receives them through one weight each."""
    torch.manual_seed(2)
    net = Network()
    x = net.input(50, name="input")
    a = net.population(Integrator(50, tau_mem=1e-9), name="a")
    b = net.population(Integrator(50, tau_mem=1e-9), name="b")
    net.connect(x, a, Dense(weight=torch.eye(50)))
    net.connect(a, b, Dense(weight=torch.eye(50), dropout=0.4))
    if loop:
        net.connect(b, a, Dense(weight=torch.zeros(50, 50)))  # makes a and b one stage, and changes nothing
    ones = torch.ones(9, 20, 50)
    out = net.train()(ones).output
    assert torch.equal(out, out[:1].expand_as(out))
    kept = torch.isclose(out[0], torch.tensor(1 / 0.6))
    assert (kept | (out[0] == 0)).all()
    assert 0.5 < kept.float().mean() < 0.7
    assert len({tuple(row.tolist()) for row in kept}) == 20
    assert not torch.equal(net(ones).output, out)
    torch.manual_seed(5)
    again = net(ones).output
    torch.manual_seed(5)
    assert torch.equal(net(ones).output, again)
    assert torch.equal(net.eval()(ones).output, torch.ones(9, 20, 50))


def test_masks_are_drawn_once_per_connection_and_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    draw = torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda p: shapes.append(tuple(p.shape)) or draw(p))
    recurrent(dropout=0.2).train()(torch.rand(30, 3, 6))
    assert sorted(shapes) == [(3, 6), (3, 8), (3, 8)]


# -- cost and gradients -----------------------------------------------------------------------------------------------


class Counting(FastSigmoid):
    calls: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(x.numel())
        return super().__call__(x)


def test_one_surrogate_call_per_neuron_and_step() -> None:
    for options in ({"reset": "to_value"}, {"reset_delayed": True}, {"refractory": 2.0}):
        Counting.calls.clear()
        net = Network()
        net.input(3)
        net.population(LIF(5, surrogate=Counting(0.1), **options), name="h")  # type: ignore[arg-type]
        net.connect("input", "h", Dense())
        net.connect("h", "h", Dense())
        net(torch.rand(11, 2, 3), lengths=[11, 4])
        assert Counting.calls == [2 * 5] * 11


class Work(TorchDispatchMode):
    """Counts the elements that operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements += sum(
            o.numel() for o in (out if isinstance(out, tuple | list) else [out]) if isinstance(o, Tensor)
        )
        return out


def backward_work(run: Callable[[Tensor], Tensor], steps: int) -> int:
    x = torch.rand(steps, 2, 6, requires_grad=True)
    loss = run(x).sum()
    with Work() as work:
        loss.backward()
    assert x.grad is not None and x.grad.any()
    return work.elements


@pytest.mark.parametrize("lengths", [False, True])
def test_backward_work_is_linear_in_time(lengths: bool) -> None:
    net = recurrent(dropout=0.1).train()
    net.readout("y", "sum")

    def run(x: Tensor) -> Tensor:
        return net(x, lengths=[len(x), len(x) // 2] if lengths else None, record=("h.v",)).output

    works = [backward_work(run, steps) for steps in (32, 64, 128)]
    assert (works[2] - works[1]) / (works[1] - works[0]) == pytest.approx(2.0, abs=0.1)


def test_the_measure_sees_a_quadratic_backward() -> None:
    def run(x: Tensor) -> Tensor:  # the trap: a slice of a tensor that requires grad, taken in every step
        v = torch.zeros(2, 6)
        for k in range(len(x)):
            v = 0.9 * v + x[k]
        return v

    works = [backward_work(run, steps) for steps in (32, 64, 128)]
    assert (works[2] - works[1]) / (works[1] - works[0]) > 3


class Smooth(FastSigmoid):
    def __call__(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x / self.width)


def test_gradients_of_a_smooth_loop_match_finite_differences() -> None:
    torch.manual_seed(3)
    net = Network()
    net.input(2, name="input")
    for name in ("a", "b"):
        net.population(LIF(2, tau_mem=4.0, learn=True, surrogate=Smooth(0.4)), name=name)
    net.connect("input", "a", Dense(), delay=1)
    net.connect("a", "b", Dense(bias=True))
    net.connect("b", "a", Dense(), delay=2)
    net.double()
    x, weight = torch.randn(7, 2, 2, dtype=torch.float64), torch.randn(7, 2, 2, dtype=torch.float64)
    loss = lambda: (net(x).output * weight).sum()  # noqa: E731
    loss().backward()
    seen = 0
    for name, p in net.named_parameters():
        for i in range(p.numel()):
            ends = []
            with torch.no_grad():
                for sign in (1, -1):
                    p.view(-1)[i] += sign * 1e-6
                    ends.append(loss().item())
                    p.view(-1)[i] -= sign * 1e-6
            analytic = 0.0 if p.grad is None else p.grad.view(-1)[i].item()
            assert analytic == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7), name
            seen += abs(analytic) > 1e-3
    assert seen >= 16


def test_every_learnable_parameter_gets_a_gradient() -> None:
    net = recurrent(batch_norm=True)
    net(torch.rand(30, 4, 6) * 3).output.square().sum().backward()
    assert {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()} == {"populations.y.raw_v_reset"}


# -- modules ----------------------------------------------------------------------------------------------------------


def test_dtypes_state_dict_and_deepcopy() -> None:
    net, other = recurrent(), recurrent()
    x = torch.rand(12, 2, 6) * 2
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5)
    assert not torch.equal(other(x).output, net(x).output)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x).output, net(x).output)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.connection("h_to_y").weight.zero_()
    assert torch.equal(other(x).output, net(x).output) and not torch.equal(twin(x).output, net(x).output)
    result = net.double()(x.double(), record=everything(net))
    tensors = [result.output, *result.recorded.values(), *(t for own in result.state.values() for t in own.values())]
    assert {t.dtype for t in tensors} == {torch.float64}
    start = net.initial_state(2)
    assert {t.dtype for own in start.values() for t in own.values()} == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_inputs_take_the_dtype_of_the_network(dtype: torch.dtype) -> None:
    net, x = recurrent().eval(), (torch.rand(8, 2, 6) > 0.5).to(dtype)
    assert torch.equal(net(x).output, net(x.float()).output)


def test_a_network_without_connections_keeps_its_dtype() -> None:
    net = Network()
    net.input(1, name="input")
    net.population(LIF(2), name="h")
    assert net.double().initial_state(1)["h"]["v"].dtype == torch.float64
    assert net(torch.ones(2, 1, 1)).output.dtype == torch.float64


def test_two_runs_are_identical() -> None:
    a, b = recurrent(), recurrent()
    x = torch.rand(20, 2, 6)
    assert torch.equal(a(x).output, b(x).output)


def test_autocast_runs() -> None:
    net = recurrent(batch_norm=True, dropout=0.1).train()
    net.readout("y", "sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(torch.rand(10, 3, 6), lengths=[10, 4, 7]).output
    out.float().sum().backward()
    assert torch.isfinite(out).all()


def test_the_front_door_offers_what_the_room_does() -> None:
    assert rv.Network is Network and rv.Dense is Dense


def test_parameters_are_counted() -> None:
    net = recurrent()
    assert net.count_parameters() == 6 * 8 + 8 * 8 + 8 * 3 + 3 + (1 + 1) + 2  # y learns tau_mem and v_reset
