"""Signed spikes on every target."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch

from ranvier.deploy import CTarget, IntegerNetwork, OnnxTarget, Target, VerilogTarget, agreement, quantize, verify
from ranvier.errors import ExportError
from ranvier.networks import Delay, Dense, Network
from ranvier.neurons import LIF, Integrator, Neuron, SigmaDelta, State, fire

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
ENDS = np.array([40, 1, 17, 40, 30, 9])


def waves(seed: int, steps: int = 40, batch: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k = np.arange(steps)[:, None, None]
    period, phase = rng.uniform(6, 30, (batch, 6)), rng.uniform(0, 6.3, (batch, 6))
    return np.sin(6.28 * k / period + phase) + rng.normal(0, 0.2, (steps, batch, 6))


def network(delay: Delay | None = None) -> Network:
    """Samples to signed spikes that hear themselves and the plain spikes they drive."""
    torch.manual_seed(1)
    net = Network(dt=1.0)
    x = net.input(6, name="x", kind="samples")
    u = net.population(SigmaDelta(7, v_start=torch.linspace(-0.4, 0.4, 7)), name="u")
    h, y = net.population(LIF(8, tau_mem=5.0), name="h"), net.population(Integrator(4, tau_mem=10.0), name="y")
    net.connect(x, u, Dense(gain=0.5))
    net.connect(u, u, Dense(gain=0.3, delay=delay))
    net.connect(h, u, Dense(gain=0.3))
    net.connect(u, h, Dense(gain=1.5, bias=True))
    net.connect(h, y, Dense())
    net.readout(y, "sum")
    return net.eval()


def check(target: Target, inet: IntegerNetwork, folder: Path, x: Any) -> None:
    target.export(inet, folder, "net")
    found = verify(target, inet, folder, "net", x, ENDS)
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0) and found.passed, found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [None, "axonal", "synaptic"])
def test_nothing_differs(kind: str | None, target: Target, tmp_path: Path) -> None:
    net = network(Delay(max=6.0, kind=kind) if kind else None)
    inet = quantize(net, waves(0))
    outputs = inet.run(waves(3)).outputs["u"]
    assert outputs.dtype == np.int8 and set(np.unique(outputs)) == {-1, 0, 1}
    check(target, inet, tmp_path, waves(3))


def test_integers_follow_float() -> None:
    net = network()
    found = agreement(net, quantize(net, waves(0, batch=20)), waves(5, batch=40))
    assert found.within and found.same_class > 0.9 and found.float_spikes["u"] > 1000, found


def test_a_sign_that_is_lost_is_found(tmp_path: Path) -> None:
    inet, target = quantize(network(), waves(0)), CTarget()
    target.export(inet, tmp_path, "net")
    source = tmp_path / "net.c"
    good = source.read_text()
    bad = re.sub(r"(send_u_to_u.*?)\(int32_t\)source\[j\]", r"\g<1>(source[j] != 0)", good, count=1, flags=re.DOTALL)
    assert bad != good
    source.write_text(bad)
    assert (verify(target, inet, tmp_path, "net", waves(3)).differing_spikes or 0) > 0


class Loose(Neuron):
    """Says signed, sends more."""

    output = "signed"
    v = State(0.0)

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v * 0.5 + current
        return v, fire(v - 1.0) * 2.0


def test_files_round_trip_and_what_is_not_signed_is_refused(tmp_path: Path) -> None:
    inet = quantize(network(), waves(0))
    inet.save(tmp_path)
    again = IntegerNetwork.load(tmp_path)
    assert again.population("u").program.signed and not again.population("h").program.signed
    assert np.array_equal(again.run(waves(3)).outputs["u"], inet.run(waves(3)).outputs["u"])
    net = network()
    loose = net.population(Loose(2), name="loose")
    net.connect("h", loose, Dense())
    with pytest.raises(ExportError, match=r"declared signed but .* is not provably -1, 0 or 1"):
        quantize(net, waves(0))
