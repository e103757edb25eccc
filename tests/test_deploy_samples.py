"""Sensor samples on a device: 16-bit numbers in the sensor's own units, training's normalisation folded in."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch

from ranvier.deploy import (
    CTarget,
    IntegerNetwork,
    OnnxTarget,
    Sensor,
    Target,
    VerilogTarget,
    agreement,
    quantize,
    verify,
)
from ranvier.errors import ConfigError, DataError, ExportError
from ranvier.networks import Delay, Dense, Network, load_network, save_network
from ranvier.neurons import LIF, AdLIF, CuBaLIF, Integrator, Neuron

TARGETS: list[Any] = [
    pytest.param(CTarget(), id="c", marks=pytest.mark.skipif(not which("gcc"), reason="needs gcc")),
    pytest.param(
        OnnxTarget(),
        id="onnx",
        marks=pytest.mark.skipif(OnnxTarget().unavailable() is not None, reason="needs onnx and onnxruntime"),
    ),
    pytest.param(
        VerilogTarget("iverilog", stall=True),
        id="icarus",
        marks=pytest.mark.skipif(not which("iverilog"), reason="needs iverilog"),
    ),
]
LSB = np.array([1 / 16384, 1 / 16384, 1 / 16384, 1 / 131, 1 / 131, 1.0])
MEAN, DEVIATION = np.array([0.1, -0.9, 0.3, 3.0, -8.0, 9000.0]), np.array([0.3, 0.05, 0.4, 90.0, 20.0, 800.0])
WATCH = Sensor(unit=LSB / DEVIATION, offset=-MEAN / DEVIATION)
"""A watch: acceleration in g, turning in degrees per second, a pressure; normalised to deviation 1 in training."""


def waves(seed: int, steps: int = 40, batch: int = 6) -> np.ndarray:
    """Normalised signals [T, B, 6] of deviation about 1."""
    rng = np.random.default_rng(seed)
    k = np.arange(steps)[:, None, None]
    period, phase = rng.uniform(6, 30, (batch, 6)), rng.uniform(0, 6.3, (batch, 6))
    return 1.3 * np.sin(6.28 * k / period + phase) + rng.normal(0, 0.3, (steps, batch, 6))


def raw(x: np.ndarray) -> np.ndarray:
    """What the watch gives for normalised signals."""
    return np.clip(np.round((x * DEVIATION + MEAN) / LSB), -(1 << 15), (1 << 15) - 1).astype(np.int16)


def network(neuron: Neuron | None = None, delay: Delay | None = None, steps: float | None = None) -> Network:
    torch.manual_seed(1)
    net = Network(dt=1.0)
    x, h = net.input(6, name="x", kind="samples"), net.population(neuron or LIF(7, tau_mem=5.0), name="h")
    y = net.population(Integrator(4, tau_mem=10.0), name="y")
    net.connect(x, h, Dense(gain=1.5, bias=True, batch_norm=True, delay=delay), delay=steps)
    net.connect(h, h, Dense(gain=0.5))
    net.connect(h, y, Dense())
    net.readout(y, "sum")
    norm = net.connection("x_to_h").norm
    assert norm is not None
    with torch.no_grad():
        norm.weight.uniform_(0.8, 1.5)
        norm.bias.uniform_(0.0, 0.4)
    return net.eval()


def check(target: Target, inet: IntegerNetwork, folder: Path, x: Any, lengths: np.ndarray | None = None) -> None:
    target.export(inet, folder, "net")
    found = verify(target, inet, folder, "net", x, lengths)
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0) and found.firing["h"] > 0.01, found


def test_numbers_stand_for_unit_times_number_plus_offset() -> None:
    inet = quantize(network(), waves(0), sensors={"x": WATCH})
    numbers = raw(waves(3))
    port = inet.inputs[0]
    np.testing.assert_allclose(port.real(numbers), (numbers * LSB - MEAN) / DEVIATION)
    assert np.array_equal(inet.stimuli(port.real(numbers))["x"], numbers)  # real numbers find back
    assert inet.stimuli(numbers)["x"].dtype == np.int16
    far = np.full((1, 1, 6), 1e9)
    assert inet.stimuli(far)["x"].ravel().tolist() == [32767] * 6
    assert inet.stimuli(-far.astype(np.int64))["x"].ravel().tolist() == [-32768] * 6
    plain = quantize(network(), waves(0)).inputs[0]  # a unit is a power of two with room for twice the largest
    reach = np.abs(waves(0)).max()
    assert plain.units == (2.0**-12,) * 6 and 2 * reach <= 32767 * plain.units[0] < 4 * reach


@pytest.mark.parametrize("neuron", [lambda: LIF(7, tau_mem=5.0), lambda: AdLIF(7, tau_mem=5.0, threshold=0.3)])
def test_integers_follow_float_in_any_units(neuron: Any) -> None:
    net = network(neuron())
    x = waves(5, steps=60, batch=40)
    far = Sensor(unit=0.01, offset=150.0)  # its numbers are all about -15000
    for sensors in (None, {"x": far}, {"x": WATCH}):
        inet = quantize(net, waves(0, batch=20), sensors=sensors)
        found = agreement(net, inet, x)
        assert found.within and found.same_class >= 0.9 and found.differing["h"] < 0.1, found
        assert found.float_spikes["h"] > 1000
    assert max(inet.inputs[0].shifts) == 4  # each unit keeps its weights' bits
    numbers = raw(x)
    assert np.array_equal(inet.run(numbers).outputs["h"], inet.run(inet.inputs[0].real(numbers)).outputs["h"])


def test_the_accumulator_is_what_the_contract_says() -> None:
    inet = quantize(
        network(delay=Delay(max=5.0, kind="synaptic")), waves(0), sensors={"x": Sensor(unit=[1e-4] * 5 + [3e-2])}
    )
    h, port = inet.population("h"), inet.inputs[0]
    assert h.connections[1].shift >= 8 and port.shifts == (0, 0, 0, 0, 0, 8)
    x = waves(3, batch=2) * [1, 1, 1, 1, 1, 100]
    sent = {"x": inet.stimuli(x)["x"].astype(np.int64) * 2 ** np.array(port.shifts)}
    found = inet.run(x).outputs["h"]
    sent["h"] = found.astype(np.int64)
    state = {s: np.tile(h.start(s), (2, 1)) for s in h.initial}
    for k in range(len(x)):
        acc = np.zeros((2, 7), np.int64)
        for c in h.connections:
            for i, j in np.ndindex(c.weights.shape):
                at = {"uniform": 0, "axonal": j, "dendritic": i, "synaptic": (i, j)}
                late = c.delay + sum(int(steps[at[kind]]) for kind, steps in c.delays.items())
                if late <= k:
                    acc[:, i] += int(c.weights[i, j]) * 2**c.shift * sent[c.source][k - late, :, j]
        state, spikes = h.program.run(state, acc, {t: h.table(t) for t in h.tables})
        assert np.array_equal(spikes, found[k]), k
    assert found.sum() > 20


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sensor", [None, WATCH], ids=["auto", "watch"])
@pytest.mark.parametrize("neuron", [LIF, partial(AdLIF, tau_mem=4.0, threshold=0.3), CuBaLIF])
def test_nothing_differs(neuron: Any, sensor: Sensor | None, target: Target, tmp_path: Path) -> None:
    inet = quantize(network(neuron(7)), waves(0), sensors=sensor and {"x": sensor})
    check(target, inet, tmp_path, waves(3), np.array([40, 1, 17, 40, 30, 9]))
    if neuron is LIF:
        check(target, inet, tmp_path, 30 * waves(4))  # beyond 16 bits


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["one", "three", "axonal", "dendritic", "synaptic"])
def test_delayed_samples(kind: str, target: Target, tmp_path: Path) -> None:
    steps = {"one": 1.0, "three": 3.0}.get(kind)
    net = network(delay=None if steps else Delay(max=6.0, kind=kind), steps=steps)
    inet = quantize(net, waves(0), sensors={"x": Sensor(unit=LSB / DEVIATION)})
    assert agreement(net, inet, waves(5, batch=30)).within
    check(target, inet, tmp_path, waves(3), np.array([40, 1, 17, 40, 30, 9]))


@pytest.mark.parametrize("target", TARGETS)
def test_ports_of_all_kinds_together(target: Target, tmp_path: Path) -> None:
    torch.manual_seed(2)
    net = Network(dt=1.0)
    a, b = net.input(3, name="a", kind="counts"), net.input(6, name="b", kind="samples")
    c, h = net.input(5, name="c", kind="events"), net.population(LIF(5, tau_mem=5.0), name="h")
    net.connect(a, h, Dense(gain=0.3))
    net.connect(b, h, Dense(gain=0.5))
    net.connect(c, h, Dense(gain=1.0), delay=2.0)
    net.connect(h, h, Dense(gain=0.5))
    net.readout(h, "max")
    rng = np.random.default_rng(0)

    def given(seed: int) -> dict[str, np.ndarray]:
        return {"a": rng.integers(0, 400, (40, 6, 3)) // 200, "b": waves(seed), "c": rng.random((40, 6, 5)) < 0.2}

    inet = quantize(net.eval(), given(0), sensors={"b": WATCH})
    assert agreement(net, inet, given(1)).within
    check(target, inet, tmp_path, given(2))


def test_a_changed_shift_or_weight_is_found(tmp_path: Path) -> None:
    inet, target = quantize(network(), waves(0), sensors={"x": WATCH}), CTarget()
    target.export(inet, tmp_path, "net")
    source = tmp_path / "net.c"
    good = source.read_text()
    assert verify(target, inet, tmp_path, "net", waves(3)).passed
    shift = inet.population("h").connections[1].shift
    for pattern, replacement in (
        (r"(shift_x\[6\] = \{\s*)\d+", r"\g<1>15"),
        (rf"value = {1 << shift};", f"value = {1 << (shift - 1)};"),
        (r"(w_x_to_h\[\d+\] = \{\s*)-?\d+", r"\g<1>1"),
    ):
        bad = re.sub(pattern, replacement, good, count=1)
        assert bad != good
        source.write_text(bad)
        assert not verify(target, inet, tmp_path, "net", waves(3)).passed


def test_c_is_clean_and_tests_itself(tmp_path: Path) -> None:
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-fsanitize=undefined"]
    for delay in (None, Delay(max=5.0, kind="synaptic")):
        sensor = WATCH if delay is None else Sensor(unit=LSB / DEVIATION)
        inet = quantize(network(delay=delay), waves(0), sensors={"x": sensor})
        CTarget().export(inet, tmp_path, "net", waves(8, batch=2))
        build = ["gcc", *strict, "-fno-sanitize-recover=all", "net.c", "net_test.c", "-o", "selftest"]
        subprocess.run(build, cwd=tmp_path, check=True)
        assert subprocess.run(["./selftest"], cwd=tmp_path, check=False).returncode == 0
        assert "int16_t x[6]; /* samples: -32768 to 32767 */" in (tmp_path / "net.h").read_text()
    assert "channel 3: q stands for" in (tmp_path / "net_contract.txt").read_text()


def test_files_round_trip(tmp_path: Path) -> None:
    net = network()
    save_network(net, tmp_path)
    again = load_network(tmp_path)
    assert again.graph.nodes["x"]["port"] == "samples"
    inet = quantize(again, waves(0), sensors={"x": WATCH})
    inet.save(tmp_path)
    other = IntegerNetwork.load(tmp_path)
    assert other.inputs == inet.inputs
    assert np.array_equal(other.run(waves(3)).outputs["h"], inet.run(waves(3)).outputs["h"])
    text = (tmp_path / "integer.json").read_text()
    (tmp_path / "integer.json").write_text(text.replace('"samples"', '"smells"'))
    with pytest.raises(ExportError, match="input 'x' receives 'smells'"):
        IntegerNetwork.load(tmp_path)


def test_what_cannot_be_is_refused_by_name() -> None:
    x = waves(0)
    for sensor, message in (
        (Sensor(unit=0.0), "above 0"),
        (Sensor(unit=[1.0, 2.0]), r"'x': unit and offset must be numbers or \[6\]"),
        (Sensor(offset=float("nan")), "finite"),
        (Sensor(unit=[1.0] * 5 + [1e9]), r"differ by more than 2\^15"),
    ):
        with pytest.raises(ConfigError, match=message):
            quantize(network(), x, sensors={"x": sensor})
    with pytest.raises(ConfigError, match="'h' is no input of kind 'samples'"):
        quantize(network(), x, sensors={"h": Sensor()})
    with pytest.raises(ExportError, match="'x_to_h' delays the samples of 'x', whose sensor has an offset"):
        quantize(network(steps=1.0), x, sensors={"x": WATCH})
    with pytest.raises(ExportError, match="samples in units too fine"):
        quantize(network(), x, sensors={"x": Sensor(unit=1e-9)})
    broken = x.copy()
    broken[3, 2, 1] = np.nan
    with pytest.raises(DataError, match="'x': samples must be finite"):
        quantize(network(), x).run(broken)
