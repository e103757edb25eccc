"""Networks as ONNX: the integer models run in ONNX Runtime with nothing differing, the float ones as closely as sums of
floats allow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.deploy import IntegerNetwork, OnnxTarget, export_float_onnx, float_agreement, quantize, verify
from ranvier.errors import ExportError, ToolError
from ranvier.networks import Delay, Dense, Network, PerChannel
from ranvier.neurons import ALIF, LIF, AdLIF, CuBaLIF, Integrator, Izhikevich, Neuron

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

TARGET = OnnxTarget()
ENDS = np.array([30, 1, 17, 30, 22])
NEURONS: dict[str, Any] = {
    "lif": lambda n: LIF(n, tau_mem=torch.linspace(5, 50, n), threshold=torch.linspace(0.5, 1.3, n)),
    "lif-delayed-refractory": lambda n: LIF(n, reset_delayed=True, refractory=2.0),
    "cubalif-to-value": lambda n: CuBaLIF(n, tau_syn=4.0, reset="to_value", v_reset=-0.25, integrator="euler"),
    "alif": lambda n: ALIF(n, tau_adapt=torch.linspace(20, 200, n)),
    "adlif": lambda n: AdLIF(n, tau_mem=4.0, threshold=0.3),
    "izhikevich": lambda n: Izhikevich(n),
}
DELAYS: dict[str, Any] = {
    "axonal": lambda least: Delay(max=6.0, min=least),
    "dendritic": lambda least: Delay(max=6.0, min=least, kind="dendritic"),
    "synaptic": lambda least: Delay(max=6.0, min=least, kind="synaptic"),
    "taps": lambda least: Delay(max=6.0, min=least, kind="synaptic", taps=3),
    "both": lambda least: (Delay(max=3.0, min=least), Delay(max=3.0, kind="dendritic")),
}


def spikes(seed: int, steps: int = 30, batch: int = 5, channels: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (steps, batch, channels)
    return ((rng.random(shape) < 0.25) * rng.integers(1, 4, shape)).astype(np.uint8)


def network(neuron: Neuron, readout: str = "sum", port: str = "counts", ahead: Any = None, back: Any = None) -> Network:
    torch.manual_seed(1)
    net = Network(dt=1.0)
    x, h = net.input(9, name="x", kind=port), net.population(neuron, name="h")
    y = net.population(Integrator(4, tau_mem=10.0), name="readout")
    net.connect(x, h, Dense(gain=2.0, batch_norm=True, delay=ahead))
    net.connect(h, h, Dense(gain=0.7, delay=back))
    net.connect(h, y, Dense(bias=True))
    net.readout(y, readout)
    norm = net.connection("x_to_h").norm
    assert norm is not None
    strength = 12.0 if isinstance(neuron, Izhikevich) else 1.0
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5).mul_(strength)
        norm.bias.uniform_(-0.2, 0.6).mul_(strength).add_(10.0 * (strength > 1))
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        net.connection("h_to_readout").bias.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    return net.eval()


def check(inet: IntegerNetwork, folder: Path, x: Any, lengths: np.ndarray | None = None) -> None:
    TARGET.export(inet, folder, "net")
    found = verify(TARGET, inet, folder, "net", x, lengths)
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0), found


@pytest.mark.parametrize("kind", NEURONS)
def test_every_neuron_runs_the_same_bits(kind: str, tmp_path: Path) -> None:
    net = network(NEURONS[kind](6))
    inet = quantize(net, spikes(0))
    TARGET.export(inet, tmp_path, "net")
    found = verify(TARGET, inet, tmp_path, "net", spikes(3), ENDS)
    assert found.passed and found.firing["h"] > 0.01, found
    assert found.bytes == (tmp_path / "net.onnx").stat().st_size
    export_float_onnx(net, tmp_path, "net")
    real = float_agreement(net, tmp_path, "net", spikes(3), ENDS)
    assert real.differing_spikes == real.stream_differing == 0 and real.error < 1e-5 and real.spikes > 20, real


@pytest.mark.parametrize("kind", DELAYS)
def test_delays_arrive_when_they_should(kind: str, tmp_path: Path) -> None:
    net = network(LIF(6), ahead=DELAYS[kind](0.0), back=DELAYS[kind](1.0))
    inet = quantize(net, spikes(0))
    assert inet.population("h").depth > 4
    check(inet, tmp_path, spikes(3), ENDS)
    export_float_onnx(net, tmp_path, "net")
    real = float_agreement(net, tmp_path, "net", spikes(3), ENDS)
    assert real.differing_spikes == real.stream_differing == 0 and real.error < 1e-5, real


@pytest.mark.parametrize("readout", ["sum_softmax", "mean", "max", "last"])
def test_readouts(readout: str, tmp_path: Path) -> None:
    net = network(LIF(6), readout, "events")
    x = np.minimum(spikes(4), 1)
    check(quantize(net, x), tmp_path, x, ENDS)
    export_float_onnx(net, tmp_path, "net")
    step = _session(tmp_path / "net_float_step.onnx")
    state = {i.name: np.zeros((5, i.shape[1]), np.float32) for i in step.get_inputs() if i.name.startswith("state.")}
    names, got = [o.name for o in step.get_outputs()], dict[str, np.ndarray]()
    for k in range(30):
        given = {"in.x": x[k].astype(np.float32), "reset": np.array([k == 0]), **state}
        got = dict(zip(names, step.run(names, given), strict=True))
        state = {n: got[n.replace("state.", "next.")] for n in state}
    wanted = net(torch.from_numpy(x).float()).output.detach().numpy()
    assert np.allclose(got["readout"], wanted, rtol=1e-5, atol=1e-5)
    assert np.array_equal(got["class"], wanted.argmax(1))


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_networks_and_saturating_inputs(tmp_path: Path, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Network(dt=1.0)
    ports = int(rng.integers(1, 3))
    nodes = [net.input(int(rng.integers(1, 5)), kind=str(rng.choice(["events", "counts"]))) for _ in range(ports)]
    for _ in range(int(rng.integers(1, 4))):
        nodes.append(net.population(NEURONS[data.draw(st.sampled_from(sorted(NEURONS)))](int(rng.integers(1, 6)))))
    for j in range(ports, len(nodes)):
        for i in range(len(nodes)):
            if i == 0 or rng.random() < 0.5:
                delay = float(rng.integers(int(i >= j), 4))
                wires = Dense(gain=float(10 ** rng.uniform(-1, 2)), bias=bool(rng.random() < 0.5))
                net.connect(nodes[i], nodes[j], wires, delay=delay)
    net.readout(nodes[-1], str(rng.choice(["sum", "max", "last"])))

    def stimuli(top: int) -> dict[str, np.ndarray]:
        return {n.name: rng.integers(0, top, (12, 3, n.size)) for n in nodes[:ports]}

    bits = {"weight_bits": int(rng.integers(2, 9)), "state_bits": int(rng.integers(6, 20))}
    inet = quantize(net, stimuli(3), **bits)
    check(inet, tmp_path, stimuli(1000))  # far beyond what calibration saw: states and counts saturate


def test_a_connection_whose_weights_round_to_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Network(dt=1.0)
    x, h = net.input(4, name="x"), net.population(LIF(4), name="h")
    net.connect(x, h, PerChannel(torch.eye(2)))
    net.connect(h, h, Dense(weight=torch.full((4, 4), 1e-6)))
    net.readout(h, "sum")
    inet = quantize(net, spikes(0, channels=4))
    assert not inet.population("h").connections[1].weights.any()
    check(inet, tmp_path, spikes(1, channels=4))


def test_float_spikes_are_the_same_where_every_sum_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    net = Network(dt=1.0)
    x, h = net.input(40, name="x"), net.population(LIF(64, tau_mem=4.0, integrator="euler"), name="h")
    y = net.population(Integrator(5, tau_mem=8.0, integrator="euler"), name="y")
    for a, b, scale in ((x, h, 16), (h, h, 16), (h, y, 8)):
        net.connect(a, b, Dense(weight=rng.integers(-8, 9, (b.size, a.size)) / scale))
    net.readout(y, "sum")
    counts = spikes(5, steps=60, batch=20, channels=40)
    export_float_onnx(net, tmp_path, "net")
    found = float_agreement(net, tmp_path, "net", counts)
    assert found.differing_spikes == 0 and found.same_spikes == found.same_class == 1.0, found
    assert found.spikes > 5000 and found.error == 0.0


def test_flipped_spikes_are_counted_and_errors_stop_at_the_first(tmp_path: Path) -> None:
    net = network(LIF(6))
    export_float_onnx(net, tmp_path, "net")
    with torch.no_grad():
        net.connection("h_to_h").weight.add_(
            0.05
        )  # no longer the exported network, but the same before the first spike
    found = float_agreement(net, tmp_path, "net", spikes(3), ENDS)
    assert found.differing_spikes > 0 and found.same_spikes < 1 and found.error < 1e-5, found
    assert found.flip_rate == found.differing_spikes / found.spikes


def test_another_runtime_agrees(tmp_path: Path) -> None:
    """onnx's own evaluator, in plain NumPy, knows nothing of ONNX Runtime."""
    pytest.importorskip("onnx", minversion="1.23", reason="older evaluators lose the states of a Scan")
    from onnx.reference import ReferenceEvaluator

    inet = quantize(network(AdLIF(6, tau_mem=4.0, threshold=0.3), ahead=Delay(max=3.0)), spikes(0))
    TARGET.export(inet, tmp_path, "net")
    model, x = ReferenceEvaluator(str(tmp_path / "net.onnx")), spikes(3)
    got = dict(zip(model.output_names, model.run(None, {"in.x": x}), strict=True))
    wanted = inet.run(x)
    assert np.array_equal(got["class"], wanted.classes) and np.array_equal(got["readout"], wanted.readout)
    assert np.array_equal(got["out.h"], wanted.outputs["h"]) and wanted.outputs["h"].any()


@pytest.fixture(scope="module")
def small() -> IntegerNetwork:
    return quantize(network(LIF(6)), spikes(0))


@pytest.mark.parametrize("damage", ["weight", "rounding", "start of the stream"])
def test_the_verifier_sees_one_changed_number(damage: str, small: IntegerNetwork, tmp_path: Path) -> None:
    TARGET.export(small, tmp_path, "net")
    path = tmp_path / ("net_step.onnx" if "stream" in damage else "net.onnx")
    model = onnx.load(path)
    name = {"weight": "h_to_h weights", "start of the stream": "h.v start"}.get(damage)
    if name is None:  # a rounding constant: half of what is shifted away
        body = next(a.g for n in model.graph.node if n.op_type == "Scan" for a in n.attribute if a.name == "body")
        raised = next(n for n in body.node if n.output[0].startswith("h.") and n.output[0].endswith(", raised"))
        name = raised.input[1]
    constant = next(c for c in model.graph.initializer if c.name == name)
    value = onnx.numpy_helper.to_array(constant).copy()
    value.flat[np.argmax(np.abs(value.astype(np.int64) - 128))] += 1 if damage == "weight" else 1 << 12
    constant.CopyFrom(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, path)
    found = verify(TARGET, small, tmp_path, "net", spikes(3, batch=20))
    assert not found.passed and found.differing_spikes, found


def test_what_a_file_says_of_itself(small: IntegerNetwork, tmp_path: Path) -> None:
    written = TARGET.export(small, tmp_path, "net")
    assert [p.name for p in written] == ["net.onnx", "net_step.onnx", "net_contract.txt"]
    for path in written[:2]:
        model = onnx.load(path)
        props = {p.key: p.value for p in model.metadata_props}
        assert "Execution contract" in props["contract"] and props["arithmetic"] == "integer"
        assert props["time_step_ms"] == "1" and "0BSD" in props["licence"] and model.producer_name == "ranvier"
        assert {i.name for i in model.graph.input} >= {"in.x"}
        assert {o.name for o in model.graph.output} >= {"class", "readout", "out.h", "out.readout"}
    first = (tmp_path / "net.onnx").read_bytes()
    TARGET.export(small, tmp_path, "net")
    assert (tmp_path / "net.onnx").read_bytes() == first


def test_refused_before_a_file_is_written(small: IntegerNetwork, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot name an artefact"):
        TARGET.export(small, tmp_path / "a", "no name")
    net = network(LIF(6))
    net.readout_of = None
    with pytest.raises(ExportError, match="no readout"):
        export_float_onnx(net, tmp_path / "a", "net")
    assert not (tmp_path / "a").exists()


def test_files_of_another_network_are_refused(small: IntegerNetwork, tmp_path: Path) -> None:
    other = quantize(network(LIF(7)), spikes(0))
    TARGET.export(other, tmp_path, "net")
    with pytest.raises(ToolError, match="does not belong to this network"):
        verify(TARGET, small, tmp_path, "net", spikes(3))
    (tmp_path / "net.onnx").write_bytes(b"damaged")
    with pytest.raises(ToolError, match=r"does not run .*net\.onnx"):
        verify(TARGET, small, tmp_path, "net", spikes(3))


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_packages(
    missing: str, small: IntegerNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "onnx":
        with pytest.raises(ToolError, match=r"pip install 'ranvier\[onnx\]'"):
            TARGET.export(small, tmp_path, "net")
    found = verify(TARGET, small, tmp_path, "net", spikes(3))
    assert found.differing_spikes is None and not found.passed
    assert found.reason is not None and "pip install 'ranvier[onnx]'" in found.reason
