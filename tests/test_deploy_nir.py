"""NIR: networks there and back, graphs from elsewhere, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ranvier as rv
from ranvier import from_nir, to_nir, write_nir
from ranvier.errors import ConfigError, DataError, ExportError, GraphError

nir = pytest.importorskip("nir", reason="the package nir is not installed (pip install -e .[interop])")

STEPS, BATCH = 60, 4


def dyadic(*shape: int, seed: int = 0, scale: float = 1.0, bits: int = 3) -> Tensor:
    """Numbers that float32 adds and multiplies without rounding."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(scale * rng.integers(-(1 << bits), (1 << bits) + 1, shape) / (1 << bits)).float()


def stimulus(channels: int, seed: int = 1, steps: int = STEPS) -> Tensor:
    return (torch.rand(steps, BATCH, channels, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def tau(decay: float, integrator: str = "euler", dt: float = 1.0) -> float:
    return dt / (1 - decay) if integrator == "euler" else -dt / float(np.log(decay))


def network(make: Callable[[int], rv.Neuron], *, recurrent: bool = True, reads: bool = True) -> rv.Network:
    """Five inputs, seven neurons, and three that read them."""
    net = rv.Network(dt=1.0, engine="eager")
    x, h = net.input(5), net.population(make(7), name="h")
    net.connect(x, h, rv.Dense(weight=dyadic(7, 5), bias=True))
    if recurrent:
        net.connect(h, h, rv.Dense(weight=dyadic(7, 7, seed=1, scale=0.5)))
    net.readout(h, "sum")
    if reads:
        y = net.population(rv.Integrator(3, tau_mem=4.0, integrator="euler"), name="y")
        net.connect(h, y, rv.Dense(weight=dyadic(3, 7, seed=2)))
        net.readout(y, "sum")
    with torch.no_grad():
        net.connection("input_to_h").bias.copy_(dyadic(7, seed=3, scale=0.25))
    return net.eval()


def spikes(net: rv.Network, x: Tensor, population: str = "h") -> Tensor:
    with torch.no_grad():
        return net.eval()(x, record=(population,)).recorded[population]


def assert_same(a: rv.Network, b: rv.Network, population: str = "h", steps: int = STEPS) -> None:
    x = stimulus(next(a.graph.nodes[n]["size"] for n in a.inputs), steps=steps)
    one, two = spikes(a, x, population), spikes(b, x, population)
    assert 0.01 < float(one.mean()) < 0.9
    assert torch.equal(one, two)
    with torch.no_grad():
        torch.testing.assert_close(a(x).output, b(x).output, rtol=1e-5, atol=1e-5)


NEURONS: dict[str, Callable[[int], rv.Neuron]] = {
    "LIF to 0": lambda n: rv.LIF(n, tau_mem=8.0, integrator="euler", reset="to_value"),
    "LIF to -0.25": lambda n: rv.LIF(n, tau_mem=8.0, integrator="euler", reset="to_value", v_reset=-0.25),
    "LIF subtract": lambda n: rv.LIF(n, tau_mem=8.0, integrator="euler"),
    "LIF no reset": lambda n: rv.LIF(n, tau_mem=2.0, integrator="euler", reset="none"),
    "LIF detached": lambda n: rv.LIF(n, tau_mem=8.0, integrator="euler", detach_reset=True),
    "IF": lambda n: rv.LIF(n, tau_mem=float("inf"), reset="to_value"),
    "IF subtract": lambda n: rv.LIF(n, tau_mem=float("inf")),
    "CuBaLIF to 0": lambda n: rv.CuBaLIF(n, tau_mem=4.0, tau_syn=2.0, integrator="euler", reset="to_value"),
    "CuBaLIF subtract": lambda n: rv.CuBaLIF(n, tau_mem=4.0, tau_syn=2.0, integrator="euler"),
    "own parameters": lambda n: rv.LIF(
        n, tau_mem=np.array([2.0, 4, 8, 16, 2, 4, 8]), threshold=np.array([0.5, 1, 1.5, 1, 0.5, 1, 1]),
        integrator="euler", reset="to_value",
    ),
}  # fmt: skip


@pytest.mark.parametrize("gain", ["node", "weights"])
@pytest.mark.parametrize("name", NEURONS)
def test_there_and_back(name: str, gain: str, tmp_path: Path) -> None:
    net = network(NEURONS[name])
    path = write_nir(net, tmp_path / "net.nir", gain=gain)
    back = from_nir(path)
    assert back.dt == net.dt and list(back.populations) == list(net.populations) and back.readout_of == net.readout_of
    assert back.neuron("h").program(1.0).states == net.neuron("h").program(1.0).states
    assert_same(net, back)


@pytest.mark.parametrize("options", [{"unit": "ms"}, {"step": 1e-4}, {"integrator": "exact"}, {"reset": "note"}])
def test_however_times_are_written(options: dict[str, Any]) -> None:
    net = network(lambda n: rv.LIF(n, tau_mem=tau(0.75), integrator="euler"))
    graph = to_nir(net, **options)
    assert_same(net, from_nir(graph))
    if options == {"reset": "note"}:
        assert isinstance(graph.nodes["h"], nir.LIF)
    else:
        assert [type(graph.nodes[n]).__name__ for n in ("h.v", "h", "h.reset")] == ["LI", "Threshold", "Scale"]


def test_an_exact_leak_is_written_for_the_reader() -> None:
    net = network(lambda n: rv.LIF(n, tau_mem=5.0, reset="to_value"))
    euler, exact = to_nir(net, unit="ms").nodes["h"], to_nir(net, unit="ms", integrator="exact").nodes["h"]
    np.testing.assert_allclose(exact.tau, 5.0, rtol=1e-6)
    np.testing.assert_allclose(1 - 1 / euler.tau, np.exp(-1 / 5.0), rtol=1e-6)
    np.testing.assert_allclose(euler.r, 1 / (1 - np.exp(-1 / 5.0)), rtol=1e-6)


DELAYS: dict[str, Callable[[], Any]] = {
    "uniform": lambda: rv.Delay(max=6.0, init=3.0),
    "axonal": lambda: rv.Delay(max=6.0, init=np.array([1.0, 2, 3, 4, 5, 6, 2])),
    "dendritic": lambda: rv.Delay(max=6.0, kind="dendritic", init=np.array([6.0, 2, 3, 4, 5, 1, 2])),
    "synaptic": lambda: rv.Delay(max=6.0, kind="synaptic"),
    "two taps": lambda: rv.Delay(max=6.0, kind="synaptic", taps=2),
    "both": lambda: (rv.Delay(max=3.0), rv.Delay(max=4.0, kind="dendritic")),
}


@pytest.mark.parametrize("where", ["forward", "loop"])
@pytest.mark.parametrize("kind", DELAYS)
def test_delays(kind: str, where: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = rv.Network(dt=1.0, engine="eager")
    x, h = net.input(7), net.population(rv.LIF(7, tau_mem=8.0, integrator="euler", reset="to_value"), name="h")
    delay, columns = DELAYS[kind](), 14 if kind == "two taps" else 7
    net.connect(
        x,
        h,
        rv.Dense(
            weight=dyadic(7, columns if where == "forward" else 7),
            delay=delay if where == "forward" else None,
            bias=True,
        ),
    )
    if where == "loop":
        net.connect(h, h, rv.Dense(weight=dyadic(7, columns, seed=2, scale=0.5), delay=delay))
    with torch.no_grad():
        net.connection("input_to_h").bias.fill_(0.125)
    back = from_nir(write_nir(net, tmp_path / "net.nir"))
    assert_same(net, back)
    if kind != "two taps":
        assert len(back.connections) == len(net.connections)


def test_a_delay_of_a_step_and_loops_of_two_populations() -> None:
    net = rv.Network(dt=2.0, engine="eager")
    x = net.input(5)
    a, b = (net.population(rv.LIF(6, tau_mem=16.0, integrator="euler", reset="to_value"), name=n) for n in ("a", "b"))
    net.connect(x, a, rv.Dense(weight=dyadic(6, 5)), delay=2.0)
    net.connect(a, b, rv.Dense(weight=dyadic(6, 6, seed=1)), delay=4.0)
    net.connect(b, a, rv.Dense(weight=dyadic(6, 6, seed=2, scale=0.5)), delay=6.0)
    net.connect(b, b, rv.Dense(weight=dyadic(6, 6, seed=3, scale=0.5)))
    net.readout(b, "sum")
    back = from_nir(to_nir(net))
    assert_same(net, back, "a")
    assert_same(net, back, "b")


def test_batch_norm_is_folded_and_what_is_read_trains_and_exports(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = rv.Network(dt=1.0)
    x, h = net.input(5), net.population(rv.LIF(7, reset="to_value"), name="h")
    y = net.population(rv.Integrator(3), name="y")
    net.connect(x, h, rv.Dense(batch_norm=True))
    net.connect(h, y, rv.Dense())
    net.readout(y, "mean")
    net(stimulus(5))
    back = from_nir(to_nir(net.eval()))
    with torch.no_grad():
        torch.testing.assert_close(net(stimulus(5)).output, back(stimulus(5)).output, rtol=1e-4, atol=1e-4)
    back.train()(stimulus(5)).output.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in back.parameters() if p.ndim == 2)
    integer = rv.quantize(back, stimulus(5))
    rv.TARGETS["c"].export(integer, tmp_path, "net")
    assert rv.verify(rv.TARGETS["c"], integer, tmp_path, "net", stimulus(5).numpy()).differing_spikes == 0


# -- what others may write, and what is refused -----------------------------------------------------------------------


def graph_of(nodes: dict[str, Any], edges: list[tuple[str, str]]) -> Any:
    ends = {"input": nir.Input({"input": np.array([2])}), "output": nir.Output({"output": np.array([2])})}
    return nir.NIRGraph(nodes={**ends, **nodes}, edges=edges, type_check=False)


def lif(**changes: float) -> Any:
    values = {"tau": 8e-3, "r": 8.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.LIF(**{k: np.full(2, v) for k, v in values.items()})


CHAIN = [("input", "w"), ("w", "h"), ("h", "output")]
EYE = np.eye(2, dtype=np.float32)
POOL = nir.SumPool2d(np.ones(2), np.ones(2), np.zeros(2))


def test_wires_of_every_kind_become_one_connection() -> None:
    weight = np.array([[1.0, 0.5], [0.25, -1.0]])
    nodes = {
        "flat": nir.Flatten({"input": np.array([2])}, 0, -1),
        "late": nir.Delay(np.array([2e-3, 0.0])),
        "w": nir.Affine(weight, np.array([0.5, 0.25])),
        "s": nir.Scale(np.array([2.0, 1.0])),
        "h": lif(r=4.0, v_leak=1.0),
    }
    order = ["input", "flat", "late", "w", "s", "h", "output"]
    net = from_nir(graph_of(nodes, list(pairwise(order))), dt=1.0)
    (link,) = (net.connection(k) for k in net.connections)
    gain, constant = 4.0 / 8, 1.0 / 8
    torch.testing.assert_close(link.weight, torch.tensor(gain * np.diag([2.0, 1]) @ weight).float())
    torch.testing.assert_close(link.bias, torch.tensor([gain * 2 * 0.5 + constant, gain * 0.25 + constant]))
    assert link.delay is not None and link.delay.kind == "axonal" and link.delay.whole().tolist() == [2, 0]
    assert not link.delay.steps.requires_grad


def test_an_output_behind_wires_gets_a_population() -> None:
    nodes = {"w": nir.Linear(8 * EYE), "h": lif(r=1.0), "out": nir.Linear(np.array([[1.0, 2], [3, 4]]))}
    net = from_nir(
        graph_of(nodes, [("input", "w"), ("w", "h"), ("h", "out"), ("out", "output")]), dt=1.0, readout="sum"
    )
    x = stimulus(2)
    out = spikes(net, x, "output")
    assert net.readout_of == ("output", "sum") and float(out.abs().max()) > 0
    torch.testing.assert_close(out, spikes(net, x) @ torch.tensor([[1.0, 2], [3, 4]]).T)


def test_names_that_a_network_cannot_have_are_changed() -> None:
    nodes = {"0": nir.Linear(8 * EYE), "train": lif(r=1.0), "lif.w": nir.Linear(8 * EYE), "class": lif(r=1.0)}
    order = ["input", "0", "train", "lif.w", "class", "output"]
    net = from_nir(graph_of(nodes, list(pairwise(order))), dt=1.0)
    assert list(net.populations) == ["train_", "class"] and net.inputs == ["input"]


def test_a_second_scale_that_takes_as_much_is_not_lost() -> None:
    """One is the reset, the other a connection, which takes the threshold once more."""
    nodes = {"v": nir.LI(np.full(2, 8e-3), np.full(2, 8.0), np.zeros(2)), "h": nir.Threshold(np.ones(2))}
    nodes |= {name: nir.Scale(np.full(2, -0.875)) for name in ("one", "two")}
    edges = [("input", "v"), ("v", "h"), ("h", "output")]
    edges += [edge for name in ("one", "two") for edge in (("h", name), (name, "v"))]
    net = from_nir(graph_of(nodes, edges), dt=1.0)
    assert list(net.populations) == ["h"] and len(net.connections) == 2
    torch.testing.assert_close(net.connection("h_to_h").weight, -0.875 * torch.eye(2))
    once = from_nir(
        graph_of({n: v for n, v in nodes.items() if n != "two"}, [e for e in edges if "two" not in e]), dt=1.0
    )
    assert len(once.connections) == 1
    assert float(spikes(net, stimulus(2)).sum()) < float(spikes(once, stimulus(2)).sum())


@pytest.mark.parametrize(
    ("neuron", "named"),
    [
        (lambda: rv.AdLIF(7), "AdLIF"),
        (lambda: rv.LIF(7, refractory=2.0), "refractoriness"),
        (lambda: rv.LIF(7, reset_delayed=True), "delayed reset"),
        (lambda: rv.SigmaDelta(7), "SigmaDelta"),
        (lambda: rv.LIF(7, tau_mem=np.array([8.0] * 6 + [np.inf])), "some of its neurons leak"),
    ],
)
def test_neurons_that_nir_has_no_words_for(neuron: Callable[[], rv.Neuron], named: str, tmp_path: Path) -> None:
    net = rv.Network()
    net.connect(net.input(2), net.population(neuron(), name="h"), rv.Dense())
    with pytest.raises(ExportError, match=rf"'h'.*{named}"):
        write_nir(net, tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())


def test_options_that_do_not_exist() -> None:
    net = network(NEURONS["LIF to 0"])
    for options in ({"unit": "h"}, {"reset": "hard"}, {"gain": "threshold"}, {"integrator": "rk4"}, {"step": 0.0}):
        with pytest.raises(ConfigError, match="NIR"):
            to_nir(net, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "edges", "options", "error", "match"),
    [
        ({"w": nir.Linear(EYE), "h": lif()}, CHAIN, {}, ConfigError, "dt in ms"),
        ({"w": nir.Linear(EYE), "h": lif(tau=5e-4)}, CHAIN, {"dt": 1.0}, ConfigError, "'h': tau is 0.0005"),
        ({"w": nir.Delay(np.full(2, 1.5e-3)), "h": lif()}, CHAIN, {"dt": 1.0}, ConfigError, "'w': a delay of 0.0015"),
        ({"w": POOL, "h": lif()}, CHAIN, {"dt": 1.0}, GraphError, "'w': SumPool2d"),
        ({"w": nir.Linear(EYE), "h": nir.Threshold(np.ones(2))}, CHAIN, {"dt": 1.0}, GraphError, "'h': a Threshold"),
        ({"h": lif(), "k": lif()}, [("input", "h"), ("h", "output")], {"dt": 1.0}, GraphError, "'k' receives nothing"),
        ({"w": nir.Linear(EYE), "h": nir.Linear(EYE)}, CHAIN, {"dt": 1.0}, GraphError, "no neuron"),
        ({"w": nir.Linear(EYE), "h": lif()}, [*CHAIN, ("w", "w")], {"dt": 1.0}, GraphError, "circle"),
        ({"w": nir.Linear(np.ones((3, 2))), "h": lif()}, CHAIN, {"dt": 1.0}, GraphError, "'input' of 2 meets 'h' of 2"),
        ({"w": nir.Linear(EYE), "h": lif()}, CHAIN, {"dt": 1.0, "reset": "soft"}, ConfigError, "reset must be"),
    ],
)  # fmt: skip
def test_graphs_that_cannot_be_read(
    nodes: dict[str, Any], edges: list[tuple[str, str]], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        from_nir(graph_of(nodes, edges), **options)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        from_nir(tmp_path / "missing.nir", dt=1.0)
    path = write_nir(network(NEURONS["LIF to 0"]), tmp_path / "net.nir")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="no readable NIR file"):
        from_nir(path)
    with pytest.raises(DataError, match="a graph or the path"):
        from_nir(7)
    graph = to_nir(network(NEURONS["LIF to 0"]))
    about = json.loads(graph.metadata["ranvier"])
    for damage in ({"dt_ms": "soon"}, {"readout": ["y"]}, {"readout": 7}, {"inputs": None}):
        graph.metadata["ranvier"] = json.dumps(about | damage)
        with pytest.raises(DataError, match="metadata"):
            from_nir(graph)
