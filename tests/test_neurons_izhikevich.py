"""The twenty firing patterns of Izhikevich 2004, figure 1, spike for spike in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ranvier.neurons import Cell, Izhikevich, Trace, fire, run_eager


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Accommodation(Izhikevich):
    """Pattern R: u' = a b (v + 65), with the new v."""

    def step(self, v: Any, u: Any, current: Any, p: Any) -> Any:
        v = v + p.dt * (p.k2 * v * v + p.k1 * v + p.k0 - u + current)
        spike = fire(v - p.v_peak)
        return v, u + p.dt_a * (p.b * (v + 65.0)) + spike * p.d, spike


T1 = 100 / 11
K_PULSES = ((40, 44), (60, 64), (280, 284), (320, 324))
L_PULSES = ((T1, T1 + 2), (T1 + 5, T1 + 7), (70, 72), (80, 82))
CURRENTS: dict[str, Callable[[float], float]] = {
    "A": lambda t: 14 if t > 10 else 0,
    "B": lambda t: 0.5 if t > 20 else 0,
    "C": lambda t: 15 if t > 22 else 0,
    "D": lambda t: 0.6 if t > 20 else 0,
    "E": lambda t: 10 if t > 16 else 0,
    "F": lambda t: 30 if t > 8.5 else 0,
    "G": lambda t: 0.075 * (t - 30) if t > 30 else 0,
    "H": lambda t: -0.5 + 0.015 * (t - 30) if t > 30 else -0.5,
    "I": lambda t: 7.04 if 10 < t < 13 else 0,
    "J": lambda t: 2 if 20 < t < 25 else 0,
    "K": lambda t: 0.65 if any(a < t < b for a, b in K_PULSES) else 0,
    "L": lambda t: 9 if any(a < t < b for a, b in L_PULSES) else 0,
    "M": lambda t: -15 if 20 < t < 25 else 0,
    "N": lambda t: -15 if 20 < t < 25 else 0,
    "O": lambda t: 1 if 10 < t < 15 or 80 < t < 85 else -6 if 70 < t < 75 else 0,
    "P": lambda t: 1.24 if 37.5 < t < 42.5 or 216 < t < 221 else 0.24,
    "Q": lambda t: 20 if abs(t - 10) < 1 else 0,
    "R": lambda t: t / 25 if t < 200 else 0 if t < 300 else 4 * (t - 300) / 12.5 if t < 312.5 else 0,
    "S": lambda t: 80 if t < 50 or t > 250 else 75,
    "T": lambda t: 80 if t < 50 or t > 250 else 75,
}


def simulate(neuron: Izhikevich, current: Callable[[float], float], dt: float, end: float) -> tuple[list[float], Trace]:
    steps = round(end / dt) + 1
    currents = torch.tensor([float(current(k * dt)) for k in range(steps)]).reshape(-1, 1, 1)
    program, values = neuron.program(dt), neuron.values(dt)
    state = {n: values[str(start)].expand(1, 1) for n, start in program.initial.items()}
    trace = run_eager(
        [Cell("h", program, values)], [], {"h": currents}, {"h": state}, {"h": currents[:0]}, keep_states=True
    )["h"]
    return [k * dt for k in trace.output.flatten().nonzero().flatten().tolist()], trace


def build(a: float, b: float, c: float, d: float, v0: float, integrator: str = "izh2004", **more: float) -> Izhikevich:
    return Izhikevich(1, integrator=integrator, a=a, b=b, c=c, d=d, v_start=v0, u_start=more.pop("u0", b * v0), **more)


@pytest.mark.parametrize("letter", CURRENTS)
def test_golden_pattern(letter: str, shared_data: Callable[[str], Path]) -> None:
    golden = json.loads(shared_data("../reference/izhikevich2004_golden.json").read_text())["patterns"][letter]
    k2, k1, k0 = golden["quad"]
    model = Accommodation if letter == "R" else Izhikevich
    named = {n: golden[n] for n in "abcd"} | {
        "k2": k2,
        "k1": k1,
        "k0": k0,
        "v_start": golden["v0"],
        "u_start": golden["u0"],
    }
    times, trace = simulate(model(1, **named), CURRENTS[letter], golden["dt"], golden["t_end"])
    assert times == pytest.approx(golden["spike_times_ms"], abs=1e-9)
    assert len(times) == len(golden["spike_times_ms"])
    assert float(trace.states["v"][-1]) == pytest.approx(golden["v_end"], abs=1e-9)
    assert float(trace.states["u"][-1]) == pytest.approx(golden["u_end"], abs=1e-9)


FACTS: dict[str, tuple[Izhikevich | Callable[[], Izhikevich], float, float, list[float]]] = {
    "A": (lambda: build(0.02, 0.2, -65, 6, -70), 0.25, 100, [13.0, 17.0, 31.5, 59.25, 86.75]),
    "B": (lambda: build(0.02, 0.25, -65, 6, -64), 0.25, 200, [43.75]),
    "L": (lambda: build(0.02, -0.1, -55, 6, -60, k1=4.1, k0=108.0), 0.25, 100, [20.0]),
    "N": (lambda: build(0.03, 0.25, -52, 0, -64), 0.2, 200, [68.0, 71.0, 74.2, 77.8, 81.8, 86.4, 92.2]),
    "R": (lambda: Accommodation(1, a=0.02, b=1.0, c=-55.0, d=4.0, v_start=-65.0, u_start=-16.0), 0.5, 400, [311.5]),
    "S": (lambda: build(-0.02, -1.0, -60, 8, -63.8), 0.5, 350, [94.5, 166.0, 236.0]),
}


@pytest.mark.parametrize("letter", FACTS)
def test_known_spike_times(letter: str) -> None:
    """The same facts for some patterns, for machines without the reference file."""
    make, dt, end, expected = FACTS[letter]
    times, _ = simulate(make(), CURRENTS[letter], dt, end)  # type: ignore[operator]
    assert times == pytest.approx(expected, abs=1e-9)


def by_hand(
    order: str, currents: list[float], dt: float, a: float, b: float, c: float, d: float, v: float
) -> list[int]:
    """Plain floats: ``net`` is the order of net.m (2003), ``euler`` the simultaneous one."""
    u, spikes = b * v, []
    for k, current in enumerate(currents):
        slope = lambda v: 0.04 * v * v + 5 * v + 140 - u + current  # noqa: B023, E731
        if order == "net":
            half = v + dt / 2 * slope(v)
            new = half + dt / 2 * slope(half)
            u = u + dt * a * (b * new - u)
        else:
            new = v + dt * slope(v)
            u = u + dt * a * (b * v - u)
        v = new
        if v > 30:
            spikes.append(k)
            v, u = c, u + d
    return spikes


@pytest.mark.parametrize(("integrator", "order", "count"), [("izh2003", "net", None), ("euler", "euler", 29)])
def test_the_other_two_orders(integrator: str, order: str, count: int | None) -> None:
    times, _ = simulate(build(0.02, 0.2, -50, 2, -70, integrator), CURRENTS["C"], 0.25, 220)
    currents = [float(CURRENTS["C"](0.25 * k)) for k in range(881)]
    assert [round(t / 0.25) for t in times] == by_hand(order, currents, 0.25, 0.02, 0.2, -50.0, 2.0, -70.0)
    assert count is None or len(times) == count  # the published count of pattern C under simultaneous Euler
    assert times != simulate(build(0.02, 0.2, -50, 2, -70), CURRENTS["C"], 0.25, 220)[0]


def test_current_is_scaled_by_dt() -> None:
    """Halving dt keeps the number of spikes (about): the input is a current, not a jump."""
    coarse, _ = simulate(build(0.02, 0.2, -65, 6, -70), CURRENTS["A"], 0.25, 100)
    fine, _ = simulate(build(0.02, 0.2, -65, 6, -70), CURRENTS["A"], 0.05, 100)
    assert len(coarse) == len(fine) == 5
