"""The road from a network to C and Verilog: every neuron, reset and loop goes through with nothing differing, and the
verifier can fail.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier import deploy
from ranvier.deploy import CTarget, IntegerNetwork, Target, VerilogTarget, agreement, quantize, verify
from ranvier.errors import ConfigError, DataError, ExportError, ToolError
from ranvier.networks import Dense, Network
from ranvier.neurons import ALIF, LIF, AdLIF, CuBaLIF, Integrator, Izhikevich, Neuron, Parameter, State, fire

TARGETS: list[Any] = [
    pytest.param(
        CTarget(), id="c", marks=pytest.mark.skipif(not (which("cc") or which("gcc")), reason="needs a C compiler")
    ),
    pytest.param(
        VerilogTarget("iverilog", stall=True),
        id="icarus",
        marks=pytest.mark.skipif(not which("iverilog"), reason="needs iverilog"),
    ),
]


class Chain(Neuron):
    """Three states, a division by a parameter, a root of a constant, and every comparison: known to no exporter."""

    tau = Parameter(6.0, positive=True)
    threshold = Parameter(0.6)
    cap = Parameter(2.0)
    x = State(0.0)
    y = State(0.25)
    v = State(0.0, reset=True)

    def step(self, x: Any, y: Any, v: Any, current: Any, p: Any) -> Any:
        x = x + (current - x) / p.tau
        y = torch.where(y > x, y * 0.9, torch.minimum(abs(x), p.cap)) + torch.sqrt(p.tau) * 0.01
        v = torch.minimum(torch.maximum(v * 0.8 + y - 0.3 * v * x, -p.cap), p.cap)
        return x, y, v, fire(v - p.threshold)


NEURONS: dict[str, Any] = {
    "lif": lambda n: LIF(n, tau_mem=torch.linspace(5, 50, n), threshold=torch.linspace(0.5, 1.3, n)),
    "lif-euler-zero-refractory": lambda n: LIF(n, integrator="euler", reset="to_value", v_reset=-0.25, refractory=3.0),
    "lif-delayed-refractory": lambda n: LIF(n, reset_delayed=True, refractory=2.0),
    "lif-no-reset": lambda n: LIF(n, reset="none", tau_mem=4.0),
    "cubalif": lambda n: CuBaLIF(n, tau_syn=4.0),
    "alif": lambda n: ALIF(n, tau_adapt=torch.linspace(20, 200, n)),
    "adlif": lambda n: AdLIF(n, tau_mem=4.0, threshold=0.3, detach_reset=True),
    "adlif-delayed": lambda n: AdLIF(n, tau_mem=4.0, threshold=0.3, reset_delayed=True),
    "izhikevich": lambda n: Izhikevich(n),
    "izhikevich-2003": lambda n: Izhikevich(n, integrator="izh2003"),
    "three-states": lambda n: Chain(n, tau=torch.linspace(3, 9, n)),
}


def spikes(seed: int, steps: int = 40, batch: int = 5, channels: int = 9, rate: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((rng.random((steps, batch, channels)) < rate) * rng.integers(1, 4, (steps, batch, channels))).astype(
        np.uint8
    )


def recurrent(neuron: Neuron, readout: str = "sum", kind: str = "counts") -> Network:
    torch.manual_seed(1)
    net = Network(dt=1.0)
    x, h = net.input(9, name="x", kind=kind), net.population(neuron, name="h")
    y = net.population(Integrator(4, tau_mem=10.0), name="y")
    net.connect(x, h, Dense(gain=2.0, batch_norm=True))
    net.connect(h, h, Dense(gain=0.7))
    net.connect(h, y, Dense(bias=True))
    net.readout(y, readout)
    norm = net.connection("x_to_h").norm
    assert norm is not None
    strength = 12.0 if isinstance(neuron, Izhikevich) else 1.0
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5).mul_(strength)
        norm.bias.uniform_(-0.2, 0.6).mul_(strength).add_(10.0 * (strength > 1))
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        net.connection("h_to_y").bias.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    return net.eval()


def loop() -> Network:
    """Two populations that drive each other, one of them also by the input of the step before; spikes are read out."""
    torch.manual_seed(2)
    net = Network(dt=2.0)
    x = net.input(9, name="input", kind="events")
    a, b = net.population(LIF(7, tau_mem=9.0), name="int"), net.population(ALIF(5), name="class")
    net.connect(x, a, Dense(gain=2.0, bias=True))
    net.connect(x, b, Dense(gain=2.0), delay=2.0)
    net.connect(a, b, Dense(gain=1.5))
    net.connect(b, a, Dense(gain=1.5))
    net.connect(b, b, Dense(gain=0.5))
    net.readout(b, "max")
    return net.eval()


def check(
    target: Target, inet: IntegerNetwork, folder: Path, x: Any, lengths: np.ndarray | None = None
) -> deploy.Verification:
    target.export(inet, folder, "net")
    result = verify(target, inet, folder, "net", x, lengths)
    counts = (result.differing_spikes, result.differing_readouts, result.differing_states, result.differing_classes)
    assert counts == (0, 0, 0, 0), result
    return result


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", NEURONS)
def test_every_neuron_runs_the_same_bits(kind: str, target: Target, tmp_path: Path) -> None:
    net = recurrent(NEURONS[kind](6))
    inet = quantize(net, spikes(0))
    result = check(target, inet, tmp_path, spikes(3), np.array([40, 1, 17, 40, 30]))
    assert result.passed and result.firing["h"] > 0.01, result
    assert result.samples == 5


@pytest.mark.parametrize("kind", NEURONS)
def test_integers_follow_float(kind: str) -> None:
    net = recurrent(NEURONS[kind](24))
    inet = quantize(net, spikes(0, batch=16))
    found = agreement(net, inet, spikes(5, batch=32))
    assert found.within and found.same_class >= 0.8, found
    assert found.float_spikes["h"] > 100


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("readout", ["sum_softmax", "mean", "max", "last"])
def test_readouts(readout: str, target: Target, tmp_path: Path) -> None:
    check(target, quantize(recurrent(LIF(6), readout, "events"), spikes(0)), tmp_path, spikes(4))


@pytest.mark.parametrize("target", TARGETS)
def test_two_populations_in_a_loop_with_names_that_are_keywords(target: Target, tmp_path: Path) -> None:
    net = loop()
    inet = quantize(net, spikes(0) > 0)
    assert check(target, inet, tmp_path, spikes(6) > 0).passed
    assert inet.delayed == ("input", "class")
    assert agreement(net, inet, spikes(6, batch=20) > 0).within


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_networks_and_saturating_inputs(target: Target, tmp_path: Path, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Network(dt=float(rng.choice([0.5, 1.0, 3.0])))
    nodes = [
        net.input(int(rng.integers(1, 5)), kind=str(rng.choice(["events", "counts"])))
        for _ in range(int(rng.integers(1, 3)))
    ]
    ports = len(nodes)
    for _ in range(int(rng.integers(1, 4))):
        kind = data.draw(st.sampled_from(sorted(NEURONS)))
        if "refractory" in kind and net.dt > 1.0:
            kind = "lif"
        nodes.append(net.population(NEURONS[kind](int(rng.integers(1, 6)))))
    for j in range(ports, len(nodes)):
        for i in range(len(nodes)):
            if i == 0 or rng.random() < 0.5:
                back = i >= j
                delay = net.dt * (1 if back else int(rng.integers(0, 2)))
                net.connect(
                    nodes[i],
                    nodes[j],
                    Dense(gain=float(10 ** rng.uniform(-1, 2)), bias=bool(rng.random() < 0.5)),
                    delay=delay,
                )
    net.readout(nodes[-1], str(rng.choice(["sum", "max", "last"])))
    names = net.inputs

    def stimuli(top: int) -> dict[str, np.ndarray]:
        return {n.name: rng.integers(0, top, (12, 3, n.size)) for n in nodes if n.name in names}

    inet = quantize(net, stimuli(3), weight_bits=int(rng.integers(2, 9)), state_bits=int(rng.integers(6, 20)))
    check(target, inet, tmp_path, stimuli(1000))  # far beyond what calibration saw: states and counts saturate


@pytest.fixture(scope="module")
def small() -> IntegerNetwork:
    return quantize(recurrent(LIF(6)), spikes(0))


def first_number(text: str, start: str, change: int) -> str:
    """``text`` with the largest number of the list that begins at ``start`` changed."""
    at = text.index("{", text.index(start))
    end = text.index("}", at)
    numbers = [int(n) for n in re.findall(r"-?\d+", text[at:end])]
    at_most = max(range(len(numbers)), key=lambda i: abs(numbers[i]))
    numbers[at_most] -= change if numbers[at_most] > 0 else -change
    return text[:at] + "{" + ", ".join(map(str, numbers)) + text[end:]


def test_a_changed_weight_or_rounding_constant_in_c_is_found(small: IntegerNetwork, tmp_path: Path) -> None:
    target = CTarget()
    target.export(small, tmp_path, "net")
    source = tmp_path / "net.c"
    good = source.read_text()
    assert verify(target, small, tmp_path, "net", spikes(3)).passed
    wrong_round = re.sub(r"(floor_shift_\d+\(.*\+ )\d+(, \d+\))", r"\g<1>0\g<2>", good, count=1)
    for bad in (first_number(good, "w_x_to_h[", 1), first_number(good, "w_h_to_h[", 1), wrong_round):
        assert bad != good
        source.write_text(bad)
        result = verify(target, small, tmp_path, "net", spikes(3))
        assert not result.passed
        assert (result.differing_spikes or 0) + (result.differing_states or 0) > 0


@pytest.mark.skipif(not which("iverilog"), reason="needs iverilog")
def test_a_changed_weight_or_rounding_constant_in_verilog_is_found(small: IntegerNetwork, tmp_path: Path) -> None:
    target = VerilogTarget("iverilog")
    target.export(small, tmp_path, "net")
    core, weights = tmp_path / "net.sv", tmp_path / "net_w0.hex"
    good, rows = core.read_text(), weights.read_text()
    wrong = re.sub(r"\+ \d+'sh[0-9a-f]+\) >>>", "+ 0) >>>", good, count=1)
    assert wrong != good
    core.write_text(wrong)
    assert not verify(target, small, tmp_path, "net", spikes(3)).passed
    core.write_text(good)
    lines = rows.split()
    weights.write_text("\n".join([f"{(int(lines[0], 16) + 5) % 256:02x}", *lines[1:]]) + "\n")
    assert not verify(target, small, tmp_path, "net", spikes(3)).passed
    weights.write_text(rows)
    assert verify(target, small, tmp_path, "net", spikes(3)).passed


def test_silence_proves_nothing_and_a_missing_tool_is_no_zero(small: IntegerNetwork, tmp_path: Path) -> None:
    net = recurrent(LIF(6, threshold=1e3))
    silent = quantize(net, spikes(0))
    CTarget().export(silent, tmp_path, "net")
    result = verify(CTarget(), silent, tmp_path, "net", spikes(3))
    assert result.differing_spikes == 0 and not result.passed
    assert result.reason is not None and "h fires" in result.reason

    class Absent(CTarget):
        def unavailable(self) -> str | None:
            return "not installed"

    result = verify(Absent(), small, tmp_path, "net", spikes(3))
    assert (result.differing_spikes, result.reason, result.passed) == (None, "not installed", False)


def test_c_is_clean_small_and_self_testing(small: IntegerNetwork, tmp_path: Path) -> None:
    CTarget().export(small, tmp_path, "net", spikes(8, batch=2))
    strict = [
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-pedantic",
        "-Werror",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
    ]
    build = ["gcc", *strict, "net.c", "net_test.c", "-o", "selftest"]
    subprocess.run(build, cwd=tmp_path, check=True)
    assert subprocess.run(["./selftest"], cwd=tmp_path, check=False).returncode == 0
    damaged = first_number((tmp_path / "net.c").read_text(), "w_x_to_h[", 3)
    (tmp_path / "net.c").write_text(damaged)
    subprocess.run(build, cwd=tmp_path, check=True)
    assert subprocess.run(["./selftest"], cwd=tmp_path, check=False).returncode > 0
    (tmp_path / "use.cpp").write_text(
        '#include "net.h"\nint main() { static net_state s; net_reset(&s); return net_class(&s); }\n'
    )
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", "-c", "use.cpp", "-o", "use.o"], cwd=tmp_path, check=True)
    source = (tmp_path / "net.c").read_text()
    assert re.findall(r"#include.*", source) == ['#include "net.h"'] and "0BSD" in source
    assert "malloc" not in source and "float" not in source.replace("floor", "")


def test_sizes_are_reported(small: IntegerNetwork, tmp_path: Path) -> None:
    result = check(CTarget(), small, tmp_path, spikes(3))
    h, y = small.populations
    assert result.bytes is not None and result.bytes > small.weight_count
    assert (
        result.ram == 2 * h.size + 2 * y.size + 6 + 4 * 8 + 4 * 6 + 6
    )  # states, spikes before, readout, accumulator, padding


def test_round_trip_and_chunks_of_a_batch(small: IntegerNetwork, tmp_path: Path) -> None:
    small.save(tmp_path)
    again = IntegerNetwork.load(tmp_path)
    x = spikes(9, batch=7)
    a, b = small.run(x), again.run(x[:, 3:])
    assert np.array_equal(a.readout[3:], b.readout) and np.array_equal(a.outputs["h"][:, 3:], b.outputs["h"])
    assert np.array_equal(a.states["h"]["v"][3:], b.states["h"]["v"])
    (tmp_path / "integer.npz").write_bytes(b"PK broken")
    with pytest.raises(ExportError, match="readable"):
        IntegerNetwork.load(tmp_path)


def test_calibration_widens_what_squares() -> None:
    widths = {s.name: s.bits for s in quantize(recurrent(Izhikevich(6)), spikes(0)).population("h").program.states}
    assert max(widths.values()) <= 28
    counter = quantize(recurrent(LIF(6, refractory=3.0, reset_delayed=True)), spikes(0)).population("h").program
    assert {s.name: (s.bits, s.frac) for s in counter.states if s.name != "v"} == {
        "refractory_left": (16, 0),
        "spike_before": (2, 0),
    }


class Exponential(Neuron):
    threshold = Parameter(1.0)
    v = State(0.0, reset=True)

    def step(self, v: Any, current: Any, p: Any) -> Any:
        bump = torch.exp(v - 2.0)
        v = v * 0.9 + bump * 0.01 + current
        return v, fire(v - p.threshold)


def test_what_has_no_integer_form_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"population 'h' \(Exponential\).*exp"):
        quantize(recurrent(Exponential(6)), spikes(0))
    net = loop()
    net.readout_of = None
    with pytest.raises(ExportError, match="no readout"):
        quantize(net, spikes(0) > 0)
    real = recurrent(LIF(6))
    real.connect("y", real.population(LIF(3), name="z"), Dense(), name="graded")
    with pytest.raises(ExportError, match="'graded' carries the real output of 'y'"):
        quantize(real, spikes(0))
    with pytest.raises(ConfigError, match="weight_bits"):
        quantize(loop(), spikes(0), weight_bits=9)


def test_bad_names_bad_input_and_foreign_files(small: IntegerNetwork, tmp_path: Path) -> None:
    for target in deploy.TARGETS.values():
        for name in ("1net", "a b", "int", ""):
            with pytest.raises(ExportError, match="cannot name"):
                target.export(small, tmp_path / "none", name)
        if target.name != "onnx":  # which ships no vectors
            with pytest.raises(DataError):
                target.export(small, tmp_path / "none", "net", spikes(0)[:, :, :4])
    assert not (tmp_path / "none").exists()
    for bad, what in (
        (spikes(0)[0], "must be"),
        (-spikes(0).astype(int), "0 or more"),
        (spikes(0) * 0.5, "whole numbers"),
    ):
        with pytest.raises(DataError, match=what):
            small.run(bad)
    with pytest.raises(DataError, match="lengths"):
        small.run(spikes(0), np.array([0, 1, 1, 1, 1]))
    CTarget().export(quantize(recurrent(LIF(7)), spikes(0)), tmp_path, "net")
    with pytest.raises(ToolError, match="do not belong"):
        verify(CTarget(), small, tmp_path, "net", spikes(3))
    (tmp_path / "net.c").write_text("int broken(")
    with pytest.raises(ToolError, match="failed"):
        verify(CTarget(), small, tmp_path, "net", spikes(3))


@pytest.mark.slow
@pytest.mark.skipif(VerilogTarget("verilator").tool() is None, reason="needs verilator, make, g++ and perl")
def test_verilator_agrees(small: IntegerNetwork, tmp_path: Path) -> None:
    assert check(VerilogTarget("verilator"), small, tmp_path, spikes(3)).passed


@pytest.mark.skipif(not which("yosys"), reason="needs yosys")
def test_the_core_synthesises_without_latches(tmp_path: Path) -> None:
    net = Network(dt=1.0)
    x, h = net.input(3), net.population(LIF(2))
    net.connect(x, h, Dense(gain=2.0))
    net.connect(h, h, Dense())
    net.readout(h)
    VerilogTarget().export(quantize(net, spikes(0, channels=3)), tmp_path, "net")
    script = "read_verilog -sv net.sv; synth_ice40 -top net; tee -o cells.txt stat"
    done = subprocess.run(["yosys", "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = (tmp_path / "cells.txt").read_text()
    assert "SB_LUT4" in cells and "LATCH" not in cells
