"""Every model under every transform against an independent loop, closed forms, finite differences, and the Neuron
contract.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ranvier.errors import ConfigError, TraceError
from ranvier.neurons import (
    ALIF,
    LIF,
    AdLIF,
    Cell,
    CuBaLIF,
    FastSigmoid,
    Integrator,
    Izhikevich,
    Neuron,
    Parameter,
    State,
    Surrogate,
    Trace,
    fire,
    run_eager,
    use_surrogate,
)

T, B, N = 24, 2, 3


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def run(neuron: Neuron, current: Tensor, dt: float = 1.0, state: dict[str, Tensor] | None = None) -> Trace:
    program, values = neuron.program(dt), neuron.values(dt)
    batch = current.shape[1]
    if state is None:
        state = {
            name: (values[start] if isinstance(start, str) else torch.tensor(float(start))).expand(batch, neuron.size)
            for name, start in program.initial.items()
        }
    history = {"h": current.new_zeros(0, batch, neuron.size)}
    return run_eager([Cell("h", program, values)], [], {"h": current}, {"h": state}, history, keep_states=True)["h"]


# -- the independent loop
# ------------------------------------------------------------------------------------------------------


class Step(torch.autograd.Function):
    """A spike with the fast sigmoid of slope 10 behind it, written apart from the library's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0, 1.0, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / (1 + 10 * torch.abs(x)) ** 2


def loop(
    model: type[Neuron],
    c: dict[str, Tensor],
    currents: Tensor,
    kind: str,
    delayed: bool,
    detach: bool,
    rest: int,
    dt: float,
    integrator: str,
) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """The published equations with reset and refractoriness as one writes them by hand; ``c`` are the parameters."""

    def keep(tau: Tensor) -> Tensor:
        return 1 - dt / tau if integrator == "euler" else torch.exp(-dt / tau)

    zero = torch.zeros_like(currents[0])
    v = zero + (c["v_start"] if model is Izhikevich else 0.0)
    other = zero + (c["u_start"] if model is Izhikevich else 0.0)
    before, left = zero, torch.zeros(zero.shape, dtype=torch.long)
    target = c["c"] if model is Izhikevich else c["v_reset"]
    names = {CuBaLIF: "i_syn", AdLIF: "w", ALIF: "a", Izhikevich: "u"}
    spikes: list[Tensor] = []
    states: dict[str, list[Tensor]] = {"v": [], **({names[model]: []} if model in names else {})}

    def drop(v: Tensor, s: Tensor) -> Tensor:
        s = s.detach() if detach else s
        if kind == "subtract":
            return v - s * c["threshold"]
        return v + s * (target - v) if kind == "to_value" else v

    for current in currents.unbind(0):
        old = v
        if model is CuBaLIF:
            other = keep(c["tau_syn"]) * other + current
            new = keep(c["tau_mem"]) * v + other
        elif model is AdLIF:
            new = keep(c["tau_mem"]) * v + (1 - keep(c["tau_mem"])) * (current - other)
        elif model is Izhikevich:
            parts = 2 if integrator == "izh2003" else 1
            new = v
            for _ in range(parts):
                new = new + dt / parts * (c["k2"] * new**2 + c["k1"] * new + c["k0"] - other + current)
        else:
            new = keep(c["tau_mem"]) * v + current
        new = torch.where(left > 0, v, new)
        if delayed:
            new = drop(new, before)
        level = c["v_peak"] if model is Izhikevich else c["threshold"] + (c["beta"] * other if model is ALIF else 0.0)
        spike = Step.apply(new - level) * (left == 0)
        v = new if delayed else drop(new, spike)
        if model is AdLIF:
            d = keep(c["tau_w"])
            other = d * other + (1 - d) * c["q"] * (c["a"] * v + c["b"] * spike)
        elif model is ALIF:
            d = keep(c["tau_adapt"])
            other = d * other + (1 - d) * spike
        elif model is Izhikevich:
            other = other + dt * c["a"] * (c["b"] * (old if integrator == "euler" else new) - other) + c["d"] * spike
        before, left = spike, torch.where(spike > 0, rest, torch.clamp(left - 1, min=0))
        spikes.append(spike)
        states["v"].append(v)
        if model in names:
            states[names[model]].append(other)
    return spikes, states


MODELS: dict[type[Neuron], tuple[dict[str, Any], float, float]] = {  # parameters, mean and spread of the current
    LIF: ({"tau_mem": [5.0, 8.0, 20.0], "threshold": 0.9, "v_reset": -0.2}, 0.3, 0.5),
    CuBaLIF: ({"tau_syn": 3.0, "tau_mem": [5.0, 8.0, 20.0], "threshold": 1.1, "v_reset": 0.1}, 0.2, 0.3),
    AdLIF: (
        {"tau_mem": 5.0, "tau_w": [20.0, 30.0, 40.0], "a": 0.3, "b": 0.7, "q": 1.5, "threshold": 0.8, "v_reset": -0.1},
        2.0,
        2.5,
    ),
    ALIF: ({"tau_mem": 8.0, "tau_adapt": 30.0, "beta": [0.5, 1.0, 1.8], "threshold": 0.7, "v_reset": 0.05}, 0.3, 0.5),
    Izhikevich: ({"a": 0.1, "b": [0.2, 0.22, 0.25], "c": -60.0, "d": 3.0}, 30.0, 25.0),
}
CASES = [
    (model, kind, delayed, detach, rest, integrator)
    for model in MODELS
    for kind, delayed, detach, rest in itertools.product(
        ["subtract", "to_value", "none"], [False, True], [False, True], [0, 3]
    )
    for integrator in (model.integrators)
    if (model is not Izhikevich or kind != "subtract")
    and not (kind == "none" and (delayed or detach))
    and not (
        model is Izhikevich and (kind == "none" or (detach and integrator != "izh2004"))
    )  # v explodes without its reset
]


@pytest.mark.parametrize(("model", "kind", "delayed", "detach", "rest", "integrator"), CASES)
def test_program_equals_the_independent_loop(
    model: type[Neuron], kind: str, delayed: bool, detach: bool, rest: int, integrator: str
) -> None:
    given, mean, spread = MODELS[model]
    dt = 0.5
    neuron = model(
        N,
        reset=kind,
        reset_delayed=delayed,
        detach_reset=detach,
        refractory=rest * dt,
        integrator=integrator,
        learn=True,
        surrogate=FastSigmoid(0.1),
        **given,
    )
    generator = torch.Generator().manual_seed(3)
    current = (mean + spread * torch.randn(T, B, N, generator=generator)).requires_grad_()
    trace = run(neuron, current, dt)

    c = {
        n: torch.tensor(np.atleast_1d(given.get(n, p.default)), dtype=torch.float64)
        for n, p in neuron.parameters_declared().items()
    }
    for n, value in c.items():
        c[n] = value.requires_grad_()
    again = current.detach().clone().requires_grad_()
    spikes, states = loop(model, c, again, kind, delayed, detach, rest, dt, integrator)

    assert torch.equal(trace.output, torch.stack(spikes))
    assert 3 <= trace.output.sum() < trace.output.numel()
    for name, values in states.items():
        torch.testing.assert_close(trace.states[name], torch.stack(values), rtol=1e-12, atol=1e-12)

    weight = torch.randn(T, B, N, generator=generator)
    for output, state in ((trace.output, trace.states), (torch.stack(spikes), states)):
        loss = (output * weight).sum() + sum((state[n][-1] * weight[0]).sum() for n in states)
        loss.backward()
    assert current.grad is not None and again.grad is not None
    torch.testing.assert_close(current.grad, again.grad, rtol=1e-9, atol=1e-11)
    for name, parameter in neuron.parameters_declared().items():
        raw, value = getattr(neuron, f"raw_{name}"), c[name]
        if value.grad is None:
            assert raw.grad is None or not raw.grad.any(), name
            continue
        if parameter.bounds is not None:
            low, high = parameter.bounds
            chain = (value - low) * (high - value) / (high - low)
        else:
            chain = value if parameter.positive else torch.ones(1)
        torch.testing.assert_close(
            raw.grad, value.grad * chain.detach(), rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


# -- the smooth twin against finite differences
# --------------------------------------------------------------------------------


class Smooth(Surrogate):
    """A spike that is its own sigmoid, forward and backward: the network becomes differentiable."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x / self.width)


@pytest.mark.parametrize("model", [*MODELS, Integrator])
@pytest.mark.parametrize("delayed", [False, True])
def test_gradients_of_the_smooth_twin_match_finite_differences(model: type[Neuron], delayed: bool) -> None:
    given, mean, spread = MODELS.get(model, ({}, 0.3, 0.5))
    neuron = model(N, learn=True, reset_delayed=delayed, surrogate=Smooth(5.0 if model is Izhikevich else 0.3), **given)
    generator = torch.Generator().manual_seed(4)
    current = (mean + spread * torch.randn(6, B, N, generator=generator)) * (0.2 if model is Izhikevich else 1.0)
    weight = torch.randn(6, B, N, generator=generator)

    def loss() -> Tensor:
        trace = run(neuron, current, 0.5)
        return (trace.output * weight).sum() + sum((states[-1] * weight[1]).sum() for states in trace.states.values())

    loss().backward()
    checked = 0
    for raw in neuron.parameters():
        for i in range(raw.numel()):
            with torch.no_grad():
                ends, step = [], 1e-6
                for sign in (1, -1):
                    raw.view(-1)[i] += sign * step
                    ends.append(float(loss()))
                    raw.view(-1)[i] -= sign * step
            numeric = (ends[0] - ends[1]) / (2 * step)
            analytic = 0.0 if raw.grad is None else float(raw.grad.view(-1)[i])
            assert analytic == pytest.approx(numeric, rel=2e-5, abs=1e-6)
            checked += abs(numeric) > 1e-4
    assert checked >= (3 if model is not Integrator else 1)


# -- closed forms
# --------------------------------------------------------------------------------------------------------------


def pulse(size: int, at: float = 1.0, steps: int = 30) -> Tensor:
    current = torch.zeros(steps, 1, size)
    current[0] = at
    return current


@pytest.mark.parametrize("dt", [0.1, 1.0, 2.5])
def test_lif_answers_one_input_by_an_exponential(dt: float) -> None:
    trace = run(LIF(1, tau_mem=20.0), pulse(1, 0.9), dt)
    k = torch.arange(30)
    torch.testing.assert_close(trace.states["v"].flatten(), 0.9 * torch.exp(-k * dt / 20.0), rtol=1e-12, atol=0)


def test_euler_decay_is_linear_in_dt() -> None:
    trace = run(LIF(1, tau_mem=20.0, integrator="euler"), pulse(1, 0.9), 2.0)
    torch.testing.assert_close(trace.states["v"].flatten(), 0.9 * 0.9 ** torch.arange(30), rtol=1e-12, atol=0)


def test_cubalif_answers_one_input_by_a_difference_of_exponentials() -> None:
    dt, tau_syn, tau_mem = 0.5, 5.0, 20.0
    trace = run(CuBaLIF(1, tau_syn=tau_syn, tau_mem=tau_mem, threshold=100.0), pulse(1), dt)
    s, m = math.exp(-dt / tau_syn), math.exp(-dt / tau_mem)
    k = torch.arange(30)
    torch.testing.assert_close(trace.states["v"].flatten(), (m ** (k + 1) - s ** (k + 1)) / (m - s), rtol=1e-11, atol=0)


def test_lif_under_constant_input_fires_with_the_period_of_its_closed_form() -> None:
    current, tau, dt = 0.07, 20.0, 1.0
    d = math.exp(-dt / tau)
    # v after n steps from 0 is I (1 - d^n) / (1 - d); the first n above the threshold is the period under a reset to 0
    period = math.ceil(math.log(1 - (1 - d) / current) / math.log(d))
    spikes = (
        run(LIF(1, tau_mem=tau, reset="to_value"), torch.full((300, 1, 1), current), dt)
        .output.flatten()
        .nonzero()
        .flatten()
    )
    assert spikes[0] == period - 1
    assert set((spikes[1:] - spikes[:-1]).tolist()) == {period}


def test_adlif_settles_where_its_equations_say() -> None:
    # below threshold: v = I - w and w = q a v, so v = I / (1 + q a)
    trace = run(AdLIF(1, tau_mem=5.0, tau_w=30.0, a=0.5, q=2.0), torch.full((600, 1, 1), 0.9), 1.0)
    assert trace.output.sum() == 0
    assert float(trace.states["v"][-1]) == pytest.approx(0.45, rel=1e-6)
    assert float(trace.states["w"][-1]) == pytest.approx(0.45, rel=1e-6)


def test_alif_threshold_rises_and_spacing_grows() -> None:
    spikes = (
        run(ALIF(1, tau_adapt=200.0, beta=20.0), torch.full((400, 1, 1), 0.15)).output.flatten().nonzero().flatten()
    )
    gaps = spikes[1:] - spikes[:-1]
    assert gaps[-1] >= 1.5 * gaps[0]


def test_an_integrator_without_leak_sums() -> None:
    current = torch.randn(40, 2, 3)
    torch.testing.assert_close(
        run(Integrator(3, tau_mem=math.inf), current).output, current.cumsum(0), rtol=1e-12, atol=1e-12
    )


def test_a_spike_needs_more_than_the_threshold() -> None:
    current = torch.tensor([1.0, math.nextafter(1.0, 2.0)]).reshape(1, 1, 2)
    assert run(LIF(2), current).output.flatten().tolist() == [0.0, 1.0]


def test_reset_to_value_gives_the_value_exactly() -> None:
    trace = run(LIF(1, reset="to_value", v_reset=0.1), torch.full((1, 1, 1), 1e12))
    assert float(trace.states["v"][0]) == 0.1


# -- refractoriness
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("kind", ["subtract", "to_value", "none"])
def test_refractory_is_exact(steps: int, kind: str) -> None:
    """Driven to fire in every step, a neuron fires in every (steps + 1)th; v holds between and the synaptic current
    goes on.
    """
    neuron = CuBaLIF(1, reset=kind, refractory=steps * 0.5, v_reset=0.25)
    trace = run(neuron, torch.full((20, 1, 1), 5.0), 0.5)
    expected = [1.0 if k % (steps + 1) == 0 else 0.0 for k in range(20)]
    assert trace.output.flatten().tolist() == expected
    v, i_syn = trace.states["v"], trace.states["i_syn"]
    for k in range(1, 20):
        if expected[k] == 0:
            assert torch.equal(v[k], v[k - 1])
        assert i_syn[k] > i_syn[k - 1]
    assert [int(x) for x in trace.states["refractory_left"][: steps + 1]] == list(range(steps, -1, -1))


@pytest.mark.parametrize(
    ("refractory", "dt", "steps"), [(2.5, 1.0, 3), (0.15, 0.1, 2), (1.4, 1.0, 1), (0.5, 1.0, 1), (0.3, 0.1, 3)]
)
def test_refractory_rounds_to_the_nearest_step(refractory: float, dt: float, steps: int) -> None:
    assert float(LIF(1, refractory=refractory).values(dt)["refractory_steps"]) == steps


def test_refractory_below_half_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than half of dt"):
        LIF(1, refractory=0.4).values(1.0)


def test_refractory_of_a_neuron_that_never_fires_is_refused() -> None:
    with pytest.raises(ConfigError, match="never fires"):
        Integrator(2, refractory=2.0).program(1.0)


def test_refractory_without_a_reset_state_silences_only() -> None:
    class Bare(Neuron):
        x = State(0.0)

        def step(self, x: Any, current: Any, p: Any) -> Any:
            x = x + current
            return x, fire(x - 0.5)

    trace = run(Bare(1, refractory=2.0), torch.ones(7, 1, 1))
    assert trace.output.flatten().tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert trace.states["x"].flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]


# -- detach
# ----------------------------------------------------------------------------------------------------------------------


def test_detach_changes_gradients_and_no_value() -> None:
    grads = []
    for detach in (False, True):
        current = torch.full((6, 1, 1), 0.6, requires_grad=True)
        trace = run(LIF(1, detach_reset=detach), current)
        trace.output.sum().backward()
        grads.append((trace.output.detach(), current.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert not torch.allclose(grads[0][1], grads[1][1])


def test_detach_spares_the_spike_in_the_adaptation() -> None:
    current = torch.full((2, 1, 1), 1.2, requires_grad=True)
    trace = run(ALIF(1, detach_reset=True), current)
    trace.states["a"][0].sum().backward()
    assert current.grad is not None and current.grad[0] != 0


# -- parameters
# -------------------------------------------------------------------------------------------------------------------


def test_parameters_read_back_what_was_given() -> None:
    neuron = AdLIF(3, learn=True, per_neuron=("a",), tau_w=[100.0, 150.0, 200.0], a=0.25)
    assert neuron.tau_w.tolist() == pytest.approx([100.0, 150.0, 200.0], rel=1e-9)
    assert neuron.a.tolist() == pytest.approx([0.25] * 3, rel=1e-9)
    assert neuron.tau_mem.shape == (1,)
    assert {n for n, _ in neuron.named_parameters()} == {f"raw_{n}" for n in neuron.parameters_declared()}
    assert not list(AdLIF(3).parameters())


@pytest.mark.parametrize("value", [0.1, 0.1001, 0.5, 999.9, 1000.0])
def test_a_learned_value_near_its_bound_stays(value: float) -> None:
    neuron = AdLIF(1, learn="tau_mem", tau_mem=value)
    assert neuron.tau_mem.item() == pytest.approx(value, abs=2e-3)  # a millionth of the range
    assert torch.isfinite(neuron.raw_tau_mem).all()


def test_no_optimiser_step_leaves_the_range() -> None:
    torch.manual_seed(0)  # such steps also make what has no bounds infinite, with some inputs
    neuron = AdLIF(4, learn=True, per_neuron=True)
    optimiser = torch.optim.SGD(neuron.parameters(), lr=50.0)
    for _ in range(3):
        optimiser.zero_grad()
        run(neuron, torch.randn(10, 2, 4) * 4).states["v"][-1].sum().backward()
        optimiser.step()
    for name, parameter in neuron.parameters_declared().items():
        low, high = parameter.bounds or ((0.0, math.inf) if parameter.positive else (-math.inf, math.inf))
        value = getattr(neuron, name)
        assert ((value >= low) & (value <= high)).all(), name


def test_setting_a_parameter_changes_the_values() -> None:
    neuron = LIF(3, learn=("tau_mem",), per_neuron=("threshold",))
    before = neuron.program(1.0)
    neuron.tau_mem = 5.0
    neuron.threshold = [0.5, 1.0, 1.5]
    assert neuron.values(1.0)["decay_mem"].item() == pytest.approx(math.exp(-0.2))
    assert neuron.values(1.0)["threshold"].tolist() == [0.5, 1.0, 1.5]
    assert neuron.program(1.0) is before
    assert isinstance(neuron.raw_tau_mem, torch.nn.Parameter)
    with pytest.raises(ConfigError, match=r"LIF\.tau_mem must be positive \(ms\), got -1"):
        neuron.tau_mem = -1.0
    with pytest.raises(ConfigError, match="holds one number for all neurons; make it per_neuron"):
        neuron.tau_mem = [1.0, 2.0, 3.0]


def test_functional_calls_with_plain_tensors_see_the_same_value() -> None:
    neuron = LIF(1, learn="tau_mem")
    raw = neuron.raw_tau_mem.detach().clone()
    del neuron._parameters["raw_tau_mem"]
    neuron.raw_tau_mem = raw  # what torch.func.functional_call does
    assert neuron.tau_mem.item() == pytest.approx(20.0)


BAD: dict[str, tuple[Any, str]] = {
    "size 0": (lambda: LIF(0), "size must be a positive whole number"),
    "size text": (lambda: LIF("3"), "size must be a positive whole number"),  # type: ignore[arg-type]
    "size fraction": (lambda: LIF(2.5), "size must be a positive whole number"),  # type: ignore[arg-type]
    "size bool": (lambda: LIF(True), "size must be a positive whole number"),
    "unknown parameter": (lambda: LIF(3, tau=3.0), r"LIF has no parameter 'tau'; it has v_reset, tau_mem, threshold"),
    "unknown learned": (lambda: LIF(3, learn=("tau",)), "no parameter 'tau'"),
    "unknown per neuron": (lambda: LIF(3, per_neuron=("tau",)), "no parameter 'tau'"),
    "one name as text": (lambda: LIF(3, learn="tau"), "no parameter 'tau'"),
    "zero tau": (lambda: LIF(3, tau_mem=0.0), r"LIF\.tau_mem must be positive \(ms\), got 0"),
    "nan": (lambda: LIF(3, threshold=math.nan), "threshold must be a number, got nan"),
    "out of bounds": (lambda: AdLIF(3, a=1.5), r"AdLIF\.a must be between 0 and 1, got 1.5"),
    "one bad of many": (lambda: LIF(2, tau_mem=[3.0, -3.0]), "got -3"),
    "wrong shape": (lambda: LIF(3, tau_mem=[1.0, 2.0]), r"one value per neuron \(3\), got shape \(2,\)"),
    "text": (lambda: LIF(3, tau_mem="slow"), "must be a number or have one value per neuron"),
    "ragged": (lambda: LIF(3, tau_mem=[[1.0], [1.0, 2.0]]), "must be a number or have one value per neuron"),
    "learned infinity": (lambda: Integrator(3, tau_mem=math.inf, learn=True), "infinite and cannot be learned"),
    "reset": (lambda: LIF(3, reset="hard"), "reset must be one of subtract, to_value, none, got 'hard'"),
    "reset of none": (lambda: Integrator(3, reset="subtract"), "no State with reset=True"),
    "reset not offered": (lambda: Izhikevich(3, reset="subtract"), "reset='subtract' is not possible"),
    "integrator": (lambda: LIF(3, integrator="rk4"), "integrator must be one of exact, euler, got 'rk4'"),
    "refractory": (lambda: LIF(3, refractory=-1.0), "refractory must be a time in ms"),
    "refractory text": (lambda: LIF(3, refractory="2ms"), "refractory must be a time in ms"),  # type: ignore[arg-type]
    "refractory infinite": (lambda: LIF(3, refractory=math.inf), "refractory must be a time in ms"),
    "surrogate": (lambda: LIF(3, surrogate="atan"), "surrogate must be a Surrogate"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_refused(name: str) -> None:
    make, why = BAD[name]
    with pytest.raises(ConfigError, match=why):
        make()


def test_two_reset_states_are_refused_and_wrong_derive_shapes_too() -> None:
    class Two(LIF):
        w = State(0.0, reset=True)

    class Wide(LIF):
        def derive(self, dt: float) -> dict[str, Tensor]:
            return {"decay_mem": torch.ones(7)}

    with pytest.raises(ConfigError, match="only one State may have reset=True, found v, w"):
        Two(3)
    with pytest.raises(ConfigError, match=r"derive: decay_mem must have 1 or 3 values, got shape \(7,\)"):
        Wide(3).program(1.0)


def test_numpy_sizes_and_values_are_taken() -> None:
    assert LIF(np.int64(4), tau_mem=np.array([1, 2, 3, 4])).tau_mem.tolist() == [1.0, 2.0, 3.0, 4.0]  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_values_may_be_tensors_of_any_dtype(dtype: torch.dtype) -> None:
    assert LIF(3, tau_mem=torch.tensor([2, 4, 8], dtype=dtype)).tau_mem.tolist() == [2.0, 4.0, 8.0]


def test_an_initial_value_may_be_a_parameter_and_must_exist() -> None:
    trace = run(Izhikevich(2, v_start=[-70.0, -60.0], u_start=-14.0), torch.zeros(1, 1, 2), 1e-9)
    assert trace.states["v"][0].flatten().tolist() == pytest.approx([-70.0, -60.0], abs=1e-5)

    class Lost(LIF):
        v = State("v_star", reset=True)

    with pytest.raises(TraceError, match="'v_star' is not defined"):
        Lost(2).program(1.0)


# -- a model of one's own, modules, dtypes
# --------------------------------------------------------------------------------------


class Threefold(Neuron):
    """Three states, a coupling of all of them, and a per-neuron parameter."""

    k = Parameter(0.5)
    threshold = Parameter(1.0)
    v = State(0.0, reset=True)
    x = State(0.25)
    y = State(0.0)

    def step(self, v: Any, x: Any, y: Any, current: Any, p: Any) -> Any:
        v = v * 0.9 + current + x * 0.1
        spike = fire(v - p.threshold)
        x = torch.where(v > 0.5, x * p.k, x + 0.1) + y
        y = torch.tanh(y + spike) * 0.5
        return v, x, y, spike


def test_a_neuron_of_ones_own_runs_as_written() -> None:
    neuron = Threefold(3, k=[0.2, 0.5, 0.7], reset="none")
    current = torch.randn(T, B, N) * 0.7
    trace = run(neuron, current)
    v, x, y = (torch.zeros(B, N), torch.full((B, N), 0.25), torch.zeros(B, N))
    names = type("P", (), {"k": neuron.k, "threshold": neuron.threshold})
    for k in range(T):
        with use_surrogate(neuron.surrogate):
            v, x, y, spike = neuron.step(v, x, y, current[k], names)
        assert torch.equal(trace.output[k], spike)
        for name, value in (("v", v), ("x", x), ("y", y)):
            torch.testing.assert_close(trace.states[name][k], value, rtol=1e-12, atol=1e-14)


def test_a_neuron_is_an_ordinary_module() -> None:
    neuron = AdLIF(3, learn=("a",), tau_mem=[5.0, 10.0, 15.0])
    other = AdLIF(3, learn=("a",), tau_mem=[1.0, 1.0, 1.0], a=0.9)
    other.load_state_dict(neuron.state_dict())
    twin = copy.deepcopy(neuron)
    current = torch.randn(T, B, N) * 3
    want = run(neuron, current).output
    assert torch.equal(run(other, current).output, want) and torch.equal(run(twin, current).output, want)
    with torch.no_grad():
        twin.raw_a.add_(1.0)
    assert torch.equal(run(neuron, current).output, want)
    assert "3, reset='to_value'" in repr(neuron)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", [*MODELS, Integrator])
def test_one_dtype_throughout(model: type[Neuron], dtype: torch.dtype) -> None:
    options = {} if model is Integrator else {"refractory": 2.0}
    neuron = model(3, **options).to(dtype)
    assert {v.dtype for v in neuron.values(1.0).values()} == {dtype}
    trace = run(
        neuron,
        torch.randn(3, 1, 3, dtype=dtype),
        state={n: torch.zeros(1, 3, dtype=dtype) for n in neuron.program(1.0).states},
    )
    assert trace.output.dtype == dtype
    assert {s.dtype for states in trace.states.values() for s in states} == {dtype}


def test_parameters_are_exact_in_the_default_dtype() -> None:
    assert Izhikevich(1).a.item() == 0.02
    torch.set_default_dtype(torch.float32)
    neuron = Izhikevich(1).double()
    assert neuron.a.item() != 0.02
    neuron.a = 0.02
    assert neuron.a.item() == 0.02


def test_the_same_input_gives_the_same_output_twice() -> None:
    current = torch.randn(T, B, N) * 2
    neuron = AdLIF(3)
    assert torch.equal(run(neuron, current).output, run(neuron, current).output)
