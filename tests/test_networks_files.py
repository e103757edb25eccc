"""Saving and loading: equal without the user's class, and a typed error for a damaged or hostile folder."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ranvier.errors import ConfigError, RanvierError, RunError
from ranvier.networks import Dense, Network, load_network, network_spec, save_network
from ranvier.neurons import (
    ALIF,
    LIF,
    CuBaLIF,
    Integrator,
    Izhikevich,
    Neuron,
    Parameter,
    ProgramNeuron,
    State,
    Surrogate,
    fire,
)


class Mine(Neuron):
    """A neuron that only these tests know."""

    gain = Parameter(0.7)
    threshold = Parameter(0.5)
    v = State("gain", reset=True)
    w = State(0.0)

    def step(self, v: Any, w: Any, current: Any, p: Any) -> Any:
        v = v * p.gain + current - w
        spike = fire(v - p.threshold)
        return v, w * 0.9 + spike * 0.1, spike


def build() -> Network:
    torch.manual_seed(11)
    net = Network(dt=0.7)
    net.input(4, name="x", kind="events")
    for name, neuron in {
        "a": Mine(5, learn=True, per_neuron=("threshold",), refractory=1.4),
        "b": CuBaLIF(3, reset_delayed=True, threshold=0.4),
        "c": Izhikevich(2, k0=150.0),
        "d": ALIF(3, threshold=[0.2, 0.3, 0.4]),
        "y": Integrator(3),
    }.items():
        net.population(neuron, name=name)
    net.connect("x", "a", Dense(batch_norm=True, gain=3.0), delay=1.4)
    net.connect("a", "b", Dense(dropout=0.25, bias=True, gain=2.0))
    net.connect("b", "a", Dense())
    net.connect("b", "c", Dense(weight=torch.full((2, 3), 30.0)))
    net.connect("a", "d", Dense(gain=2.0), name="skip")
    net.connect("d", "y", Dense())
    net.readout("y", "mean")
    net.train()
    with torch.no_grad():
        net.connection("a_to_b").bias.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
        net((torch.rand(20, 6, 4) > 0.5).float())  # moves the running statistics
    return net.eval()


X = (torch.rand(25, 3, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
RECORD = ("a", "a.w", "a.refractory_left", "b", "b.i_syn", "c", "c.u", "d", "y")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_network(build(), folder)
    return folder


@pytest.fixture
def run_folder(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_network_equals_the_saved_one(dtype: torch.dtype, tmp_path: Path) -> None:
    net = build().to(dtype)
    save_network(net, tmp_path / "deep" / "run")
    loaded = load_network(tmp_path / "deep" / "run")
    assert network_spec(loaded) == network_spec(net)
    assert not loaded.training
    x = X.to(dtype)
    a, b = net(x, lengths=[25, 4, 9], record=RECORD), loaded(x, lengths=[25, 4, 9], record=RECORD)
    assert all(a.recorded[n].sum() > 0 for n in "abc")
    assert torch.equal(a.output, b.output) and b.output.dtype == dtype
    for name in RECORD:
        assert torch.equal(a.recorded[name], b.recorded[name]), name
    for population, own in a.state.items():
        for name, value in own.items():
            assert torch.equal(value, b.state[population][name]), (population, name)


def test_a_loaded_network_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    save_network(load_network(saved), tmp_path)
    assert json.loads((tmp_path / "graph.json").read_text()) == json.loads((saved / "graph.json").read_text())
    first, second = load_file(saved / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["graph.json", "model.safetensors"]


def test_a_process_without_the_class_reads_the_same(saved: Path) -> None:
    code = (
        "import sys, torch; from ranvier.networks import load_network\n"
        "net = load_network(sys.argv[1])\n"
        "x = (torch.rand(25, 3, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()\n"
        "print(repr(net(x).output.tolist()), net.neuron('a').label)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{build()(X).output.tolist()!r} Mine"


def test_a_loaded_neuron_refuses_another_dt(saved: Path) -> None:
    neuron = load_network(saved).neuron("a")
    assert isinstance(neuron, ProgramNeuron)
    with pytest.raises(ConfigError, match=r"Mine was saved for dt 0\.7 ms and cannot run at 1\.0 ms"):
        neuron.program(1.0)


def test_a_loaded_network_is_an_ordinary_module(saved: Path) -> None:
    net = load_network(saved)
    twin = copy.deepcopy(net)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(X).output, net(X).output)
    assert {p.dtype for p in net.double().parameters()} == {torch.float64}
    assert net(X).output.dtype == torch.float64


def test_a_surrogate_that_could_not_be_read_back_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    class Odd(Surrogate):
        def derivative(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x)

    net = Network()
    net.input(1)
    net.population(LIF(1, surrogate=Odd()))
    with pytest.raises(ConfigError, match="Odd cannot be saved"):
        save_network(net, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["graph.json", "model.safetensors"])
def test_a_missing_file_is_named(run_folder: Path, name: str) -> None:
    (run_folder / name).unlink()
    with pytest.raises(RunError, match=rf"{name} does not exist"):
        load_network(run_folder)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["graph.json", "model.safetensors"])
def test_a_truncated_file_is_named(run_folder: Path, name: str, part: float) -> None:
    data = (run_folder / name).read_bytes()
    (run_folder / name).write_bytes(data[: int(len(data) * part)])
    with pytest.raises(RunError, match=name):
        load_network(run_folder)


@pytest.mark.parametrize("name", ["graph.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"\x80\x04\x95", b"\xff" * 64, b"[" * 100_000, b"{}", b"null", b"[1, 2]"])
def test_other_content_is_refused(run_folder: Path, name: str, content: bytes) -> None:
    (run_folder / name).write_bytes(content)
    with pytest.raises(RunError, match=name):
        load_network(run_folder)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_format_is_refused(run_folder: Path, version: Any) -> None:
    change(run_folder, lambda spec: spec.update(format=version))
    with pytest.raises(RunError, match=rf"has format {version!r}; this release reads format 1"):
        load_network(run_folder)


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    spec = json.loads((folder / "graph.json").read_text())
    edit(spec)
    (folder / "graph.json").write_text(json.dumps(spec))


def node(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(n for n in spec["nodes"] if n["name"] == name)


def edge(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in spec["connections"] if e["name"] == name)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "dt": (lambda s: s.update(dt=0), "dt must be a positive time"),
    "dt huge": (lambda s: s.update(dt=10**400), "do not describe a network"),
    "nodes missing": (lambda s: s.pop("nodes"), "do not describe a network"),
    "nodes a number": (lambda s: s.update(nodes=3), "do not describe a network"),
    "node kind": (lambda s: node(s, "a").update(kind="reservoir"), "unknown kind 'reservoir'"),
    "node twice": (lambda s: s["nodes"].append(node(s, "a")), "'a' is taken"),
    "node name": (lambda s: node(s, "a").update(name="../a"), "lacks values|ASCII"),
    "node of a method": (lambda s: node(s, "x").update(name="keys"), "'keys' is taken, reserved"),
    "input size": (lambda s: node(s, "x").update(size=-4), "input size"),
    "input larger": (lambda s: node(s, "x").update(size=10**12), r"needs weights \(5, 1000000000000\)"),
    "population larger": (lambda s: node(s, "c").update(size=10**12), r"needs weights \(1000000000000, 3\)"),
    "population fraction": (lambda s: node(s, "c").update(size=2.5), "size must be a positive whole number"),
    "population smaller": (lambda s: node(s, "d").update(size=2), "threshold must be 1 or 2 floating-point numbers"),
    "program": (lambda s: node(s, "a").update(program=[]), "malformed"),
    "program op": (lambda s: node(s, "a")["program"]["ops"][0].__setitem__(1, "eval"), "unknown operation 'eval'"),
    "program value": (
        lambda s: node(s, "a")["program"]["params"].append("more"),
        "Mine: the file lacks values for more",
    ),
    "surrogate": (lambda s: node(s, "a")["program"]["surrogate"].update(kind="os.system"), "unknown kind 'os.system'"),
    "edge kind": (lambda s: edge(s, "skip").update(kind="sparse"), "'skip' is of the unknown kind 'sparse'"),
    "edge source": (lambda s: edge(s, "skip").update(source="z"), "do not describe a network"),
    "edge into the input": (lambda s: edge(s, "b_to_a").update(target="x"), "needs weights"),
    "edge swapped": (lambda s: edge(s, "skip").update(source="d", target="a"), "needs weights"),
    "edge renamed": (lambda s: edge(s, "skip").update(name="jump"), "do not describe a network"),
    "edge twice": (lambda s: s["connections"].append(edge(s, "skip")), "'skip' is taken"),
    "edge without delay": (lambda s: edge(s, "b_to_a").update(delay_steps=0), "total delay of 0"),
    "delay negative": (lambda s: edge(s, "skip").update(delay_steps=-1), "delay must be"),
    "delay fraction": (
        lambda s: edge(s, "skip").update(delay_steps=0.5),
        "delay_steps must be a whole number, got 0.5",
    ),
    "bias appears": (lambda s: edge(s, "skip").update(bias=True), "do not describe a network"),
    "bias vanishes": (lambda s: edge(s, "a_to_b").update(bias=False), "do not describe a network"),
    "norm vanishes": (lambda s: edge(s, "x_to_a").update(batch_norm=False), "do not describe a network"),
    "norm in a loop": (lambda s: edge(s, "a_to_b").update(batch_norm=True), "do not describe a network"),
    "dropout": (lambda s: edge(s, "a_to_b").update(dropout=2), "dropout must be"),
    "readout": (lambda s: s["readout"].update(kind="argmin"), "readout must be one of"),
    "readout of an input": (lambda s: s["readout"].update(population="x"), "is not a population"),
    "readout missing": (lambda s: s.pop("readout"), "do not describe a network"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_that_is_no_network_is_refused(run_folder: Path, name: str) -> None:
    edit, why = HOSTILE[name]
    change(run_folder, edit)
    with pytest.raises(RunError, match=why) as caught:
        load_network(run_folder)
    assert str(run_folder) in str(caught.value)


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "weight missing": (lambda t: t.pop("connections.skip.weight"), "do not describe a network"),
    "bias missing": (lambda t: t.pop("connections.a_to_b.bias"), "bias"),
    "statistics missing": (lambda t: t.pop("connections.x_to_a.norm.running_var"), "running_var"),
    "value missing": (lambda t: t.pop("populations.b.decay_mem"), "CuBaLIF: the file lacks values for decay_mem"),
    "weight shape": (
        lambda t: t.update({"connections.skip.weight": torch.ones(3, 6)}),
        r"needs weights \(3, 5\), the file has \(3, 6\)",
    ),
    "bias shape": (lambda t: t.update({"connections.a_to_b.bias": torch.ones(7)}), "size mismatch"),
    "value shape": (lambda t: t.update({"populations.b.decay_mem": torch.ones(2)}), "decay_mem must be 1 or 3"),
    "value whole": (
        lambda t: t.update({"populations.b.decay_mem": torch.ones(1, dtype=torch.int64)}),
        "floating-point",
    ),
    "value nan": (lambda t: t.update({"populations.b.decay_mem": torch.full((1,), torch.nan)}), "decay_mem must be"),
    "weight whole": (
        lambda t: t.update({"connections.skip.weight": torch.ones(3, 5, dtype=torch.int8)}),
        "do not describe",
    ),
    "weight infinite": (
        lambda t: t.update({"connections.skip.weight": torch.full((3, 5), torch.inf)}),
        "'skip' has values that are not finite",
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_wrong_tensors_are_refused(run_folder: Path, name: str) -> None:
    edit, why = TENSORS[name]
    tensors = load_file(run_folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, run_folder / "model.safetensors")
    with pytest.raises(RunError, match=why):
        load_network(run_folder)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([10**15, 10**400])
    | st.floats()
    | st.text(max_size=4)
)
scalars |= st.sampled_from(["x", "a", "b", "y", "input", "population", "dense", "sum"])
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3), max_leaves=5
)


def mutate(data: Any, path: list[int], new: Any) -> Any:
    if not path or not isinstance(data, dict | list) or not data:
        return new
    key = list(data)[path[0] % len(data)] if isinstance(data, dict) else path[0] % len(data)
    changed = dict(data) if isinstance(data, dict) else list(data)
    changed[key] = mutate(data[key], path[1:], new)
    return changed


@settings(max_examples=120, deadline=None)
@given(path=st.lists(st.integers(0, 30), max_size=5), new=values)
def test_fuzzed_graphs_load_or_raise_a_run_error(
    path: list[int], new: Any, saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (folder / "graph.json").write_text(json.dumps(mutate(json.loads((saved / "graph.json").read_text()), path, new)))
    try:
        net = load_network(folder)
    except RunError:
        return
    if net.inputs == ["x"] and sum(d for _, _, d in net.graph.edges(data="delay")) < 50:
        with suppress(RanvierError):
            net(torch.ones(3, 2, net.graph.nodes["x"]["size"]))
