"""The Legendre memory unit on every target: each of its forms, nothing differing from the integer model."""

from __future__ import annotations

from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch

from ranvier.deploy import (
    CTarget,
    OnnxTarget,
    Target,
    VerilogTarget,
    agreement,
    export_float_onnx,
    float_agreement,
    quantize,
    verify,
)
from ranvier.networks import L2MU, Dense, Network, load_network, save_network, sensor_input
from ranvier.neurons import Integrator


def target(made: Any, name: str) -> Any:
    return pytest.param(made, id=name, marks=pytest.mark.skipif(bool(made.unavailable()), reason=f"cannot run {name}"))


TARGETS = [
    target(CTarget(), "c"),
    target(OnnxTarget(), "onnx"),
    target(VerilogTarget("iverilog", stall=True), "icarus"),
]
VERILATOR = target(VerilogTarget("verilator"), "verilator")
"""Half a minute of C++ for all forms, so only two of them."""
FORMS: dict[str, dict[str, Any]] = {
    "sigma-delta, copies, feedback": {"copies": 3},
    "sigma-delta, no feedback": {"copies": 2, "feedback": False},
    "sigma-delta, learned memory": {"copies": 1, "learn_memory": True},
    "spiking": {"memory": "spiking"},
    "spiking, learned memory, cubalif": {"memory": "spiking", "learn_memory": True, "neuron": "cubalif"},
    "stacked sensor input": {"copies": 2, "stacked": (8, 6)},
    "outputs, counts": {"copies": 2, "outputs": 5, "port": "counts"},
}
ENDS = np.array([30, 1, 17, 30, 9])


def block(**options: Any) -> Network:
    """A block between six axes and five classes; no weight is zero, and what is learned has been moved."""
    torch.manual_seed(0)
    net = Network(dt=50.0)
    source: Any = net.input(6, name="x", kind=options.pop("port", "samples"))
    stacked = options.pop("stacked", None)
    if stacked:
        source = sensor_input(net, source, per_axis=2, stacked=stacked, tau_mem=200.0, threshold=0.3)
    part = {"memory_input": 0.3, "memory": 0.1, "hidden": 0.7, "output": 0.7}
    times = {"theta": 1000.0, "tau_mem": 200.0, "tau_syn": 80.0}
    unit = L2MU(net, source, channels=3, order=4, hidden=12, threshold=part, **times, **options)
    read = unit.output or unit.hidden
    net.connect(read, net.population(Integrator(5, tau_mem=500.0), name="y"), Dense())
    net.readout("y", "mean")
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith((f"{unit.memory.name}_to_{unit.memory_input.name}.weight", "_m_to_l2mu_u.matrix")):
                value.normal_(0, 0.2)
            elif options.get("learn_memory") and ("_m_to_l2mu_m" in name or "_u_to_l2mu_m" in name):
                value += 0.05 * torch.randn_like(value)
    return net.eval()


def signals(seed: int, port: str = "samples", steps: int = 30, batch: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k = np.arange(steps)[:, None, None]
    period, phase = rng.uniform(6, 30, (batch, 6)), rng.uniform(0, 6.3, (batch, 6))
    wave = 1.3 * np.sin(6.28 * k / period + phase) + rng.normal(0, 0.3, (steps, batch, 6))
    return wave if port == "samples" else np.clip(np.round(1.5 + wave), 0, 4).astype(np.uint8)


PAIRS = [pytest.param(f, *t.values, id=f"{t.id}-{f}", marks=t.marks) for f in FORMS for t in TARGETS] + [
    pytest.param(f, *VERILATOR.values, id=f"verilator-{f}", marks=VERILATOR.marks)
    for f in ("sigma-delta, copies, feedback", "stacked sensor input")
]


@pytest.mark.parametrize(("form", "target"), PAIRS)
def test_nothing_differs(form: str, target: Target, tmp_path: Path) -> None:
    net, port = block(**FORMS[form]), FORMS[form].get("port", "samples")
    save_network(net, tmp_path / "file")
    inet = quantize(load_network(tmp_path / "file"), signals(0, port, batch=20))
    target.export(inet, tmp_path, "net")
    found = verify(target, inet, tmp_path, "net", signals(3, port), ENDS)
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0) and found.passed, found
    assert min(found.firing.values()) > 0.01
    memory = inet.run(signals(3, port)).outputs["l2mu_m"].astype(int)
    assert (memory.min() < 0) == (FORMS[form].get("memory") != "spiking")


@pytest.mark.parametrize("form", FORMS)
def test_integers_follow_float(form: str) -> None:
    net, port = block(**FORMS[form]), FORMS[form].get("port", "samples")
    found = agreement(net, quantize(net, signals(0, port, batch=20)), signals(5, port, batch=40))
    assert found.within and found.same_class > 0.7, found


@pytest.mark.skipif(bool(OnnxTarget().unavailable()), reason="needs onnx and onnxruntime")
@pytest.mark.parametrize("form", FORMS)
def test_float_onnx(form: str, tmp_path: Path) -> None:
    net, port = block(**FORMS[form]), FORMS[form].get("port", "samples")
    export_float_onnx(net, tmp_path, "net")
    found = float_agreement(net, tmp_path, "net", signals(3, port).astype(np.float32), ENDS)
    assert found.error < 1e-4 and found.flip_rate < 2e-3 and found.stream_differing == 0 and found.spikes > 100, found


@pytest.mark.skipif(not which("gcc"), reason="needs gcc")
def test_a_broken_memory_is_found(tmp_path: Path) -> None:
    inet, c = quantize(block(copies=3), signals(0)), CTarget()
    c.export(inet, tmp_path, "net")
    source = tmp_path / "net.c"
    good = source.read_text()
    head, tail = good.split("static void send_l2mu_m_to_l2mu_m(")
    bad = f"{head}static void send_l2mu_m_to_l2mu_m({tail.replace('sum += source[i]', 'sum = source[i]', 1)}"
    assert bad != good
    source.write_text(bad)
    assert (verify(c, inet, tmp_path, "net", signals(3)).differing_spikes or 0) > 0
