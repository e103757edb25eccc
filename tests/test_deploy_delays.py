"""Delays on a device: every kind, forward and back, arrives in C and Verilog when the contract says, with nothing
differing.
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

from ranvier.deploy import (
    CTarget,
    IntConnection,
    IntegerNetwork,
    Target,
    VerilogTarget,
    agreement,
    quantize,
    target_verilog,
    verify,
)
from ranvier.errors import ExportError
from ranvier.networks import Delay, Dense, Network
from ranvier.neurons import ALIF, LIF, AdLIF, CuBaLIF, Integrator, Neuron

TARGETS: list[Any] = [
    pytest.param(CTarget(), id="c", marks=pytest.mark.skipif(not which("gcc"), reason="needs gcc")),
    pytest.param(
        VerilogTarget("iverilog", stall=True),
        id="icarus",
        marks=pytest.mark.skipif(not which("iverilog"), reason="needs iverilog"),
    ),
]
longer = pytest.mark.filterwarnings("ignore::ranvier.networks.DelayWarning")
KINDS = ("uniform", "axonal", "dendritic", "synaptic", "taps", "both")
NEURONS: dict[str, Any] = {
    "lif": lambda n: LIF(n, tau_mem=torch.linspace(5, 50, n)),
    "adlif": lambda n: AdLIF(n, tau_mem=4.0, threshold=0.3),
    "cubalif-refractory": lambda n: CuBaLIF(n, tau_syn=4.0, refractory=2.0, reset_delayed=True),
}


def delayed(kind: str, steps: int, least: int = 0) -> dict[str, Any]:
    """What ``connect`` takes for delays of up to ``steps`` steps of 1 ms: a connection's options and its own delay."""
    if kind == "uniform":
        return {"delay": float(steps)}
    if kind == "both":
        own: Any = (Delay(max=steps // 2, min=least), Delay(max=steps - steps // 2, kind="dendritic"))
    elif kind == "taps":
        own = Delay(max=steps, min=least, kind="synaptic", taps=3)
    else:
        own = Delay(max=steps, min=least, kind=kind)
    return {"own": own}


def join(net: Network, a: Any, b: Any, delays: dict[str, Any] | None = None, **options: Any) -> str:
    given = dict(delays or {})
    return net.connect(a, b, Dense(delay=given.pop("own", None), **options), **given)


def spikes(seed: int, steps: int = 40, batch: int = 5, channels: int = 9, rate: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((rng.random((steps, batch, channels)) < rate) * rng.integers(1, 4, (steps, batch, channels))).astype(
        np.uint8
    )


def network(kind: str, direction: str, neuron: Neuron | None = None, steps: int = 7, port: str = "counts") -> Network:
    torch.manual_seed(1)
    net = Network(dt=1.0)
    x, h = net.input(9, name="x", kind=port), net.population(neuron or LIF(6), name="h")
    y = net.population(Integrator(4, tau_mem=10.0), name="y")
    forward = delayed(kind, steps) if direction != "recurrent" else None
    back = delayed(kind, steps, least=1) if direction != "forward" else None
    join(net, x, h, forward, gain=2.0, batch_norm=True)
    join(net, h, h, back, gain=0.7)
    join(net, h, y, bias=True)
    net.readout(y, "sum")
    norm = net.connection("x_to_h").norm
    assert norm is not None
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.2, 0.6)
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return net.eval()


def check(target: Target, inet: IntegerNetwork, folder: Path, x: Any, lengths: np.ndarray | None = None) -> None:
    target.export(inet, folder, "net")
    found = verify(target, inet, folder, "net", x, lengths)
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0), found


def by_the_contract(inet: IntegerNetwork, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs [T, B, N] of every population, synapse by synapse from the whole history of its source: no ring."""
    steps, batch = next(iter(x.values())).shape[:2]
    most = {i.name: 1 if i.binary else 255 for i in inet.inputs}
    sent = {name: np.minimum(x[name], top).astype(np.int64) for name, top in most.items()}
    sent |= {p.name: np.zeros((steps, batch, p.size), int) for p in inet.populations}
    state = {p.name: {s: np.tile(p.start(s), (batch, 1)) for s in p.initial} for p in inet.populations}
    for k in range(steps):
        for p in inet.populations:
            acc = np.zeros((batch, p.size), np.int64)
            for c in p.connections:
                for i, j in np.ndindex(c.weights.shape):
                    at = {"uniform": 0, "axonal": j, "dendritic": i, "synaptic": (i, j)}
                    late = c.delay + sum(int(steps[at[kind]]) for kind, steps in c.delays.items())
                    if late <= k:
                        acc[:, i] += int(c.weights[i, j]) * sent[c.source][k - late, :, j]
            state[p.name], sent[p.name][k] = p.program.run(state[p.name], acc, {t: p.table(t) for t in p.tables})
    return {p.name: sent[p.name] for p in inet.populations}


@pytest.mark.parametrize("direction", ["forward", "recurrent", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_integer_model_follows_the_contract_synapse_by_synapse(kind: str, direction: str) -> None:
    inet = quantize(network(kind, direction), spikes(0))
    h = inet.population("h")
    assert 5 <= h.depth <= 8
    x = spikes(3, steps=25, batch=3)
    wanted, found = by_the_contract(inet, {"x": x}), inet.run(x).outputs
    assert wanted["h"].sum() > 20
    for name, outputs in wanted.items():
        assert np.array_equal(outputs, found[name]), name


@pytest.mark.parametrize("direction", ["forward", "recurrent"])
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_are_those_of_the_float_network_where_its_numbers_are_exact(kind: str, direction: str) -> None:
    rng = np.random.default_rng(5)
    torch.manual_seed(5)
    net = Network(dt=1.0)
    neuron = LIF(6, tau_mem=1e30, integrator="euler", threshold=2.0)  # decay 1: all numbers are whole 64ths
    x, h = net.input(9, name="x", kind="events"), net.population(neuron, name="h")
    join(net, x, h, delayed(kind, 7) if direction == "forward" else None)
    join(net, h, h, delayed(kind, 7, least=1) if direction == "recurrent" else None)
    net.readout(h)
    for key in net.connections:
        w = net.connection(key).weight
        whole = rng.integers(-127, 100, w.shape)
        whole[:, 0] = 127  # the scale of every row is then 1 / 64
        with torch.no_grad():
            w.copy_(torch.from_numpy(whole / 64))
    samples = (spikes(7, steps=60, batch=8) > 0).astype(np.uint8)
    inet = quantize(net.eval(), samples)
    found = agreement(net, inet, samples)
    assert found.differing == {"h": 0.0} and found.float_spikes["h"] > 100, found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("kind", "neuron"),
    [*((k, "lif") for k in KINDS), *((k, n) for k in ("synaptic", "both") for n in NEURONS if n != "lif")],
)
def test_nothing_differs(kind: str, neuron: str, target: Target, tmp_path: Path) -> None:
    inet = quantize(network(kind, "both", NEURONS[neuron](6)), spikes(0))
    check(target, inet, tmp_path, spikes(3), np.array([40, 1, 17, 40, 30]))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("direction", ["forward", "recurrent"])
@pytest.mark.parametrize("kind", KINDS)
def test_events_into_one_direction(kind: str, direction: str, target: Target, tmp_path: Path) -> None:
    inet = quantize(network(kind, direction, port="events"), spikes(0) > 0)
    check(target, inet, tmp_path, spikes(4) > 0, np.array([3, 40, 2, 1, 25]))


@longer
@pytest.mark.parametrize("target", TARGETS)
def test_delays_longer_than_the_sequence(target: Target, tmp_path: Path) -> None:
    inet = quantize(network("synaptic", "both", steps=300), spikes(0, rate=0.8))
    assert inet.population("h").connections[0].delays["synaptic"].dtype == np.uint16
    check(target, inet, tmp_path, spikes(3))


@pytest.mark.parametrize("target", TARGETS)
def test_different_depths_into_one_target_and_a_source_that_runs_later(target: Target, tmp_path: Path) -> None:
    torch.manual_seed(2)
    net = Network(dt=2.0)
    x = net.input(9, name="input", kind="events")
    a, b, c = (net.population(n, name=k) for k, n in (("ring", LIF(7, tau_mem=9.0)), ("slot", ALIF(5)), ("c", LIF(4))))
    join(net, x, a, {"delay": 10.0}, gain=2.0, bias=True)
    join(net, x, a, {"own": Delay(max=8.0, kind="dendritic")}, gain=2.0)
    join(net, x, a, gain=1.0)
    join(net, a, b, {"delay": 4.0}, gain=1.5)
    late = join(net, b, a, {"own": Delay(max=6.0, min=0.0, kind="axonal")}, gain=1.5)  # added later, runs earlier
    far = join(net, c, a, {"own": Delay(max=24.0, kind="synaptic")}, gain=1.5)  # runs later
    join(net, b, b, gain=0.5)
    join(net, b, c, gain=2.0)
    join(net, a, c, gain=2.0)
    net.readout(b, "max")
    inet = quantize(net.eval(), spikes(0) > 0)
    assert [p.name for p in inet.populations] == ["slot", "ring", "c"]
    links = {k.name: k for k in inet.population("ring").connections}
    assert (links[late].delay, links[far].delay) == (0, 1)
    assert [inet.population(n).depth for n in ("slot", "c")] == [2, 1] and 9 <= inet.population("ring").depth <= 12
    x_test = spikes(6, steps=30) > 0
    wanted = by_the_contract(inet, {"input": x_test})
    found = inet.run(x_test).outputs
    assert all(np.array_equal(wanted[n], found[n]) and wanted[n].sum() > 20 for n in wanted)
    check(target, inet, tmp_path, x_test)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**20))
def test_random_networks(target: Target, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Network(dt=1.0)
    nodes = [net.input(int(rng.integers(1, 5)), kind=str(rng.choice(["events", "counts"]))) for _ in range(2)]
    nodes += [net.population(NEURONS[str(rng.choice(list(NEURONS)))](int(rng.integers(1, 6)))) for _ in range(3)]
    for j in range(2, 5):
        for i in range(5):
            if i == 0 or rng.random() < 0.5:
                kind, steps = str(rng.choice([*KINDS, "none"])), int(rng.integers(2, 12))
                delays = None if kind == "none" else delayed(kind, steps, least=int(i >= j))
                join(
                    net, nodes[i], nodes[j], delays, gain=float(10 ** rng.uniform(-1, 2)), bias=bool(rng.random() < 0.5)
                )
    net.readout(nodes[-1], str(rng.choice(["sum", "max", "last"])))

    def stimuli(top: int) -> dict[str, np.ndarray]:
        return {n.name: rng.integers(0, top, (14, 3, n.size)) for n in nodes[:2]}

    inet = quantize(net, stimuli(3), weight_bits=int(rng.integers(2, 9)), state_bits=int(rng.integers(6, 20)))
    x = stimuli(1000)
    wanted, found = by_the_contract(inet, x), inet.run(x).outputs
    assert all(np.array_equal(wanted[n], found[n]) for n in wanted)
    check(target, inet, tmp_path, x, np.array([14, 2, 9]))


def relay(kind: str, delays: Any, recurrent: bool) -> Network:
    """Neurons that fire when they receive one spike, connected one to one with the given delays in ms."""
    net = Network(dt=0.5)
    x, h = net.input(3, name="x", kind="events"), net.population(LIF(3, tau_mem=1e-3, threshold=0.5), name="h")
    own = Delay(max=6.0, kind=kind, init=delays)
    net.connect(x, h, Dense(weight=torch.eye(3), delay=None if recurrent else own))
    if recurrent:
        net.connect(h, h, Dense(weight=torch.eye(3), delay=own))
    net.readout(h)
    return net.eval()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
def test_a_delay_of_d_steps_moves_a_spike_by_exactly_d_steps(kind: str, target: Target, tmp_path: Path) -> None:
    x = np.zeros((15, 1, 3), np.uint8)
    x[1] = 1

    def fired(recurrent: bool, ms: list[float]) -> list[list[int]]:
        net = relay(kind, torch.tensor(ms).expand(3, 3) if kind == "synaptic" else ms, recurrent)
        inet = quantize(net, x)
        target.export(inet, tmp_path, "net")
        result, _ = target.replay(inet, tmp_path, "net", inet.stimuli(x), np.array([15]))
        return [np.flatnonzero(result.outputs["h"][:, 0, n]).tolist() for n in range(3)]

    assert fired(False, [0.0, 1.5, 5.0]) == [[1], [4], [11]]
    assert fired(True, [0.5, 1.5, 6.0]) == [list(range(1, 15)), [1, 4, 7, 10, 13], [1, 13]]


def changed(text: str, pattern: str, replacement: str) -> str:
    found = re.sub(pattern, replacement, text, count=1)
    assert found != text, pattern
    return found


@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic", "uniform"])
def test_one_changed_delay_in_c_is_found(kind: str, tmp_path: Path) -> None:
    target, inet = CTarget(), quantize(network(kind, "both"), spikes(0))
    target.export(inet, tmp_path, "net")
    source = tmp_path / "net.c"
    good = source.read_text()
    assert verify(target, inet, tmp_path, "net", spikes(3)).passed
    for link in ("x_to_h", "h_to_h"):
        if kind == "uniform":
            bad = changed(good, rf"(send_{link}[^}}]*slot_h_r \+ )\d+", r"\g<1>3")
        else:
            at = good.index("{", good.index(f"delay_{kind}_{link}["))
            first = re.match(r"\{\s*(\d+)", good[at:])
            assert first is not None
            bad = f"{good[:at]}{{ {(int(first[1]) + 2) % 7}{good[at + first.end() :]}"
        source.write_text(bad)
        found = verify(target, inet, tmp_path, "net", spikes(3))
        assert not found.passed and (found.differing_spikes or 0) + (found.differing_states or 0) > 0


@pytest.mark.skipif(not which("iverilog"), reason="needs iverilog")
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
def test_one_changed_delay_in_verilog_is_found(kind: str, tmp_path: Path) -> None:
    target, inet = VerilogTarget("iverilog"), quantize(network(kind, "both"), spikes(0))
    target.export(inet, tmp_path, "net")
    assert verify(target, inet, tmp_path, "net", spikes(3)).passed
    memory = tmp_path / f"net_{kind[0]}1.hex"  # of h_to_h
    first, *rest = memory.read_text().split()
    memory.write_text("\n".join([f"{(int(first, 16) + 2) % 6:x}", *rest]) + "\n")
    found = verify(target, inet, tmp_path, "net", spikes(3))
    assert not found.passed and (found.differing_spikes or 0) + (found.differing_states or 0) > 0


@pytest.mark.parametrize("target", TARGETS)
def test_a_reset_empties_the_ring(target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inet = quantize(network("synaptic", "both", steps=12), spikes(0))
    x, lengths = spikes(3), np.array([2, 40, 1, 40, 5])  # short samples leave much on its way
    if target.name == "verilog":
        real = target_verilog.commands
        twice = lambda *given: real(*given).replace("3 0 0 0\n", "3 0 0 0\n3 0 0 0\n")  # noqa: E731
        monkeypatch.setattr(target_verilog, "commands", twice)
    check(target, inet, tmp_path, x, lengths)
    if target.name == "c":
        replay = tmp_path / "net_replay.c"
        replay.write_text(replay.read_text().replace("net_reset(&state);", "net_reset(&state); net_reset(&state);"))
        assert verify(target, inet, tmp_path, "net", x, lengths).passed
        source = tmp_path / "net.c"
        source.write_text(changed(source.read_text(), r"for [^}]*ring_h_r\[i\] = 0; }", ""))
    else:
        source = tmp_path / "net.sv"
        source.write_text(
            changed(
                source.read_text(),
                r"(wire write0 = \(state == INIT\)) \? [^:]* :",
                "integer z; initial for (z = 0; z < 100; z = z + 1) acc0[z] = 0;\n  \\1 ? 1'b0 :",
            )
        )
    assert (verify(target, inet, tmp_path, "net", x, lengths).differing_spikes or 0) > 0


def test_c_is_clean_and_small(tmp_path: Path) -> None:
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-fsanitize=undefined"]
    for kind in KINDS:
        inet = quantize(network(kind, "both"), spikes(0))
        CTarget().export(inet, tmp_path, "net", spikes(8, batch=2))
        build = ["gcc", *strict, "-fno-sanitize-recover=all", "net.c", "net_test.c", "-o", "selftest"]
        subprocess.run(build, cwd=tmp_path, check=True)
        assert subprocess.run(["./selftest"], cwd=tmp_path, check=False).returncode == 0
        h, y = inet.populations
        assert h.program.acc[1] > 127 * 255  # counts: its ring has 32 bits; the accumulator in y is plain
        found = verify(CTarget(), inet, tmp_path, "net", spikes(3))
        # states, spikes before, readout, ring and its slot, accumulator, and up to two paddings
        least = 2 * h.size + 2 * y.size + h.size * len(inet.delayed) + 8 * 4 + 4 * h.size * h.depth + 4 + 4 * y.size
        assert found.ram is not None and least <= found.ram <= least + 10
    few = quantize(network("synaptic", "recurrent", port="events"), spikes(0) > 0)
    CTarget().export(few, tmp_path, "net")
    assert "int16_t ring_h_r[42]" in (tmp_path / "net.h").read_text()
    assert "ring: 7 slots of 6 accumulators" in (tmp_path / "net_contract.txt").read_text()
    assert "delay 1, later synaptic 0 to 6, int8 weights 6 x 6" in (tmp_path / "net_contract.txt").read_text()


def test_delays_that_are_all_equal_cost_what_one_delay_costs() -> None:
    net = Network(dt=1.0)
    x, h = net.input(9, name="x"), net.population(LIF(6), name="h")
    net.connect(x, h, Dense(delay=Delay(max=9.0, kind="synaptic", init=4.0)), name="four")
    net.connect(x, h, Dense(delay=Delay(max=9.0, init=1.0)), name="one")
    net.connect(x, h, Dense(), delay=2.0, name="two")
    net.readout(h)
    links = {c.name: c for c in quantize(net, spikes(0)).population("h").connections}
    assert {n: (c.delay, {k: v.tolist() for k, v in c.delays.items()}) for n, c in links.items()} == {
        "four": (0, {"uniform": [4]}),
        "one": (1, {}),
        "two": (0, {"uniform": [2]}),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_files_round_trip(kind: str, tmp_path: Path) -> None:
    inet = quantize(network(kind, "both"), spikes(0))
    inet.save(tmp_path)
    again = IntegerNetwork.load(tmp_path)
    a, b = inet.run(spikes(9)), again.run(spikes(9))
    assert np.array_equal(a.outputs["h"], b.outputs["h"]) and a.outputs["h"].sum() > 20
    stored = (tmp_path / "integer.json").read_text()
    (tmp_path / "integer.json").write_text(stored.replace('"format": 2', '"format": 1'))
    with pytest.raises(ExportError, match="format 1; this release reads 2"):
        IntegerNetwork.load(tmp_path)
    (tmp_path / "integer.json").write_text(stored.replace('"uniform"', '"odd"').replace('"axonal"', '"odd"'))
    if '"axonal"' in stored or '"uniform"' in stored:
        with pytest.raises(ExportError, match="readable"):
            IntegerNetwork.load(tmp_path)


@longer
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    inet = quantize(network("axonal", "forward"), spikes(0))
    h, y = inet.populations
    link = h.connections[0]

    def rebuilt(**changes: Any) -> IntegerNetwork:
        given = {"name": link.name, "source": link.source, "delay": 0, "weights": link.weights} | changes
        own = (IntConnection(**given), *h.connections[1:])
        new = type(h)(h.name, h.size, h.model, own, h.program, h.tables, h.initial)
        return IntegerNetwork(inet.dt, inet.inputs, (new, y), inet.readout)

    small = np.zeros(9, np.uint8)
    assert rebuilt(delays={"axonal": small}).population("h").depth == 1
    for changes, message in (
        ({"delay": 2}, "'x_to_h' reads its source 2 steps ago"),
        ({"delays": {"axonal": small[:5]}}, r"'x_to_h': axonal delays must be uint8 or uint16 \[9\], got uint8 \[5\]"),
        ({"delays": {"synaptic": small}}, r"'x_to_h': synaptic delays must be .* \[6, 9\]"),
        ({"delays": {"axonal": small.astype(np.int64)}}, "must be uint8 or uint16"),
        ({"delays": {"glial": small}}, "'x_to_h': delays of the unknown kind 'glial'"),
        ({"source": "nobody"}, "comes from 'nobody'"),
        ({"source": "y", "weights": link.weights[:, :4]}, "reads this step's output of 'y', which runs after 'h'"),
    ):
        with pytest.raises(ExportError, match=message):
            rebuilt(**changes)
    late = Network(dt=1.0)
    x, big = late.input(1), late.population(LIF(400), name="h")
    late.connect(x, big, Dense(), delay=50_000.0, name="slow")
    late.readout(big)
    few = np.ones((3, 1, 1))
    with pytest.raises(ExportError, match=r"'slow' has a delay of 50000 steps.*50001 x 400.*40000800 bytes of RAM"):
        quantize(late, few)
    longer = Network(dt=1.0)
    longer.connect(longer.input(1), longer.population(LIF(1), name="h"), Dense(), delay=70_000.0, name="slow")
    longer.readout("h")
    with pytest.raises(ExportError, match="'slow' has delays of more than 65535 steps"):
        quantize(longer, few)


@pytest.mark.slow
@pytest.mark.skipif(VerilogTarget("verilator").tool() is None, reason="needs verilator, make, g++ and perl")
def test_verilator_agrees(tmp_path: Path) -> None:
    check(VerilogTarget("verilator"), quantize(network("synaptic", "both"), spikes(0)), tmp_path, spikes(3))


@longer
@pytest.mark.skipif(not which("yosys"), reason="needs yosys")
def test_the_ring_is_a_memory_when_synthesised(tmp_path: Path) -> None:
    net = Network(dt=1.0)
    x, h = net.input(3), net.population(LIF(2))
    net.connect(x, h, Dense(gain=2.0, delay=Delay(max=127.0, kind="synaptic", init="uniform")))
    net.readout(h)
    VerilogTarget().export(quantize(net, spikes(0, channels=3)), tmp_path, "net")
    script = "read_verilog -sv net.sv; synth_ice40 -top net -run begin:map_gates; tee -o cells.txt stat"
    done = subprocess.run(["yosys", "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = (tmp_path / "cells.txt").read_text()
    assert "SB_RAM40" in cells and "LATCH" not in cells
