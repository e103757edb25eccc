"""Wrong arguments to networks: always a typed error that says what and where, never a crash later."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.errors import ConfigError, DataError, GraphError, RanvierError
from ranvier.networks import Dense, Network
from ranvier.neurons import LIF, Integrator


def small() -> Network:
    net = Network()
    net.input(3, name="x")
    net.population(LIF(4), name="h")
    net.population(Integrator(2), name="y")
    net.connect("x", "h", Dense())
    net.connect("h", "h", Dense(), delay=2)
    net.connect("h", "y", Dense())
    return net


used = Dense()
used.build(1, 1, False, "used")
shared = LIF(4)

BUILD: dict[str, tuple[Any, type[RanvierError], str]] = {
    "dt 0": (lambda n: Network(0.0), ConfigError, "dt must be a positive time in ms, got 0"),
    "dt nan": (lambda n: Network(math.nan), ConfigError, "dt must be a positive"),
    "dt text": (lambda n: Network("1"), ConfigError, "dt must be a positive"),
    "input size": (lambda n: n.input(0), ConfigError, "input size must be a positive whole"),
    "input size fraction": (lambda n: n.input(2.5), ConfigError, "input size must be a positive whole"),
    "input kind": (lambda n: n.input(2, kind="spikes"), ConfigError, "one of events, counts, samples, got 'spikes'"),
    "input name taken": (lambda n: n.input(2, name="h"), GraphError, "'h' is taken"),
    "input name dotted": (lambda n: n.input(2, name="a.b"), GraphError, "'a.b' is taken, reserved, or not"),
    "name in Greek": (lambda n: n.population(LIF(2), name="η"), GraphError, "ASCII"),
    "name not text": (lambda n: n.population(LIF(2), name=3), GraphError, "the name 3"),
    "name of a method": (lambda n: n.population(LIF(2), name="keys"), GraphError, "'keys' is taken, reserved"),
    "connection of a method": (
        lambda n: n.connect("x", "h", Dense(), name="items"),
        GraphError,
        "'items' is taken, reserved",
    ),
    "connection name": (lambda n: n.connect("x", "h", Dense(), name="a b"), GraphError, "'a b'"),
    "connection taken": (lambda n: n.connect("x", "h", Dense(), name="x_to_h"), GraphError, "'x_to_h' is taken"),
    "not a neuron": (
        lambda n: n.population(torch.nn.Linear(2, 2)),
        ConfigError,
        "takes a Neuron such as LIF.256., got Linear",
    ),
    "neuron twice": (lambda n: (n.population(shared), n.population(shared)), GraphError, "already a population"),
    "not a connection": (
        lambda n: n.connect("x", "h", torch.nn.Linear(3, 4)),
        ConfigError,
        "takes a connection such as Dense.., got Linear",
    ),
    "connection twice": (lambda n: n.connect("x", "h", used), GraphError, "already connected; use a new one"),
    "unknown node": (
        lambda n: n.connect("x", "z", Dense()),
        GraphError,
        "'z' is not a node of this network; it has x, h, y",
    ),
    "node of a net": (lambda n: n.connect(Network().input(7, name="x"), "h", Dense()), GraphError, "'x' is not a node"),
    "node not a name": (lambda n: n.connect(None, "h", Dense()), GraphError, "None is not a node"),
    "into an input": (
        lambda n: n.connect("h", "x", Dense()),
        GraphError,
        "cannot connect h to x: an input receives nothing",
    ),
    "delay negative": (lambda n: n.connect("x", "h", Dense(), delay=-1.0), ConfigError, "x -> h: delay must be"),
    "delay fraction": (
        lambda n: n.connect("x", "h", Dense(), delay=0.5),
        ConfigError,
        "whole number of steps of 1.0 ms",
    ),
    "delay infinite": (lambda n: n.connect("x", "h", Dense(), delay=math.inf), ConfigError, "got inf ms"),
    "delay endless": (lambda n: n.connect("x", "h", Dense(), delay=1e9), ConfigError, "more than 100000"),
    "delay text": (lambda n: n.connect("x", "h", Dense(), delay="1"), ConfigError, "delay must be"),
    "readout kind": (
        lambda n: n.readout("y", "argmax"),
        ConfigError,
        "readout must be one of sum, sum_softmax, mean, max, last",
    ),
    "readout of an input": (lambda n: n.readout("x"), GraphError, "'x' is not a population"),
    "readout of nothing": (lambda n: n.readout("z"), GraphError, "'z' is not a node"),
    "dropout 1": (lambda n: Dense(dropout=1.0), ConfigError, "dropout must be at least 0 and below 1, got 1"),
    "dropout nan": (lambda n: Dense(dropout=math.nan), ConfigError, "dropout must be"),
    "dropout text": (lambda n: Dense(dropout="0.5"), ConfigError, "dropout must be"),
    "init": (
        lambda n: Dense(init="xavier"),
        ConfigError,
        "init must be auto, normal, orthogonal or zeros, got 'xavier'",
    ),
    "gain": (lambda n: Dense(gain=math.inf), ConfigError, "gain must be a finite number, 0 or more, got inf"),
    "weight shape": (
        lambda n: n.connect("x", "h", Dense(weight=torch.ones(3, 4))),
        ConfigError,
        r"= \(4, 3\), got \(3, 4\)",
    ),
    "weight nan": (
        lambda n: n.connect("x", "h", Dense(weight=torch.full((4, 3), math.nan))),
        ConfigError,
        "not finite",
    ),
    "weight text": (
        lambda n: n.connect("x", "h", Dense(weight="ones")),
        ConfigError,
        "weight must be a tensor or array",
    ),
    "no population": (lambda n: Network()(torch.ones(1, 1, 1)), GraphError, "has no population"),
}


@pytest.mark.parametrize("name", BUILD)
def test_wrong_building_is_refused(name: str) -> None:
    make, error, why = BUILD[name]
    with pytest.raises(error, match=why):
        make(small())


def test_a_refused_part_leaves_the_network_as_it_was() -> None:
    net = small()
    before = (list(net.graph.edges(keys=True)), list(net.graph), list(net.connections), list(net.populations))
    for name in (
        "name of a method",
        "connection of a method",
        "weight shape",
        "delay fraction",
        "not a neuron",
        "neuron twice",
    ):
        if name == "neuron twice":
            continue
        with pytest.raises(RanvierError):
            BUILD[name][0](net)
    assert before == (list(net.graph.edges(keys=True)), list(net.graph), list(net.connections), list(net.populations))


def test_a_network_without_input_says_so() -> None:
    net = Network()
    net.population(LIF(2))
    with pytest.raises(GraphError, match=r"has no input; add one with net\.input"):
        net(torch.ones(1, 1, 2))


X = torch.ones(5, 2, 3)


def holed(value: float) -> torch.Tensor:
    x = X.clone()
    x[3, 1, 2] = value
    return x


RUN: dict[str, tuple[Any, type[RanvierError], str]] = {
    "two dimensions": (
        lambda n: n(X[0]),
        DataError,
        r"input 'x' must be \[T, B, 3\] with T and B at least 1, got \(2, 3\)",
    ),
    "channels": (lambda n: n(X[..., :2]), DataError, r"got \(5, 2, 2\)"),
    "no steps": (lambda n: n(X[:0]), DataError, r"got \(0, 2, 3\)"),
    "no samples": (lambda n: n(X[:, :0]), DataError, r"got \(5, 0, 3\)"),
    "nan": (lambda n: n(holed(math.nan)), DataError, "not finite at step 3, sample 1, channel 2"),
    "infinite": (lambda n: n(holed(math.inf)), DataError, "not finite at step 3, sample 1, channel 2"),
    "numpy": (lambda n: n(X.numpy()), DataError, "must be a tensor of numbers, got float32"),
    "complex": (lambda n: n(X.to(torch.complex64)), DataError, "must be a tensor of numbers, got torch.complex64"),
    "a list": (lambda n: n([[[1.0, 2.0, 3.0]]]), DataError, "must be a tensor of numbers, got list"),
    "input missing": (lambda n: n({}), DataError, "has the inputs x; got"),
    "input unknown": (lambda n: n({"x": X, "z": X}), DataError, "has the inputs x; got x, z"),
    "lengths number": (lambda n: n(X, lengths=[1, 2, 3]), DataError, "lengths must be 2 whole numbers"),
    "lengths zero": (lambda n: n(X, lengths=[0, 3]), DataError, r"between 1 and T = 5, got \[0, 3\]"),
    "lengths long": (lambda n: n(X, lengths=[6, 3]), DataError, "between 1 and T = 5"),
    "lengths float": (lambda n: n(X, lengths=[2.5, 3.0]), DataError, "whole numbers"),
    "lengths bool": (lambda n: n(X, lengths=[True, True]), DataError, "whole numbers"),
    "lengths text": (lambda n: n(X, lengths="ab"), DataError, "whole numbers"),
    "record unknown": (lambda n: n(X, record=("z",)), ConfigError, "cannot record 'z'; populations: h, y"),
    "record state": (lambda n: n(X, record=("h.w",)), ConfigError, "cannot record 'h.w'"),
    "record input state": (lambda n: n(X, record=("x.v",)), ConfigError, "cannot record 'x.v'"),
    "record number": (lambda n: n(X, record=(3,)), ConfigError, "cannot record 3"),
    "state empty": (lambda n: n(X, state={}), DataError, "state of 'h' must hold"),
    "state batch": (lambda n: n(X, state=n.initial_state(3)), DataError, "another network or batch size"),
    "state extra": (lambda n: n(X, state={**n.initial_state(2), "z": {}}), DataError, "state of 'z'"),
    "state history": (
        lambda n: n(X, state={**n.initial_state(2), "h": {"v": torch.zeros(2, 4)}}),
        DataError,
        "state of 'h'",
    ),
}


@pytest.mark.parametrize("name", RUN)
def test_wrong_runs_are_refused(name: str) -> None:
    run, error, why = RUN[name]
    with pytest.raises(error, match=why):
        run(small())


def test_what_is_right_is_taken() -> None:
    net = small()
    by_name = net({"x": X}, record="h", lengths=(5, 2))
    assert list(by_name.recorded) == ["h"]
    node = net.input(2, name="other")
    net.connect(node, "y", Dense(weight=np.zeros((2, 2))))
    out = net({"x": X, "other": torch.zeros(5, 2, 2)}, record=[node, "h.v"])
    assert set(out.recorded) == {"other", "h.v"} and out.recorded["h.v"].shape == (5, 2, 4)
    with pytest.raises(DataError, match="inputs differ in steps or batch"):
        net({"x": X, "other": torch.zeros(4, 2, 2)})
    with pytest.raises(DataError, match="has the inputs x, other; got x"):
        net(X)


anything: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-1, 3), max_size=3),
    st.sampled_from(["x", "h", "y", "h.v", "sum", "events", "normal"]),
    st.sampled_from(
        [torch.ones(5, 2, 3), torch.ones(5, 2, 3, dtype=torch.uint8), torch.zeros(0), torch.tensor([2, 3])]
    ),
    st.sampled_from([{}, {"x": torch.ones(5, 2, 3)}, {"h": {}}]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            "x",
            "state",
            "lengths",
            "record",
            "delay",
            "name",
            "source",
            "size",
            "kind",
            "dropout",
            "gain",
            "weight",
            "dt",
        ]
    ),
    anything,
)
def test_any_argument_works_or_raises_a_typed_error(which: str, value: Any) -> None:
    net = small()
    try:
        if which in ("x", "state", "lengths", "record"):
            arguments: dict[str, Any] = {"x": torch.ones(5, 2, 3), which: value}
            if which == "record" and not isinstance(value, list | str):
                return
            net(**arguments)
        elif which in ("delay", "name"):
            net.connect("x", "h", Dense(), **{which: value})
            assert net(torch.ones(5, 2, 3)).output.shape == (5, 2, 2)
        elif which == "source":
            net.connect(value, "y", Dense())
        elif which in ("size", "kind"):
            net.input(**{"size": 2, which: value})
        elif which == "dt":
            Network(value)
        else:
            net.connect("x", "h", Dense(**{which: value}))
    except RanvierError as error:
        assert len(str(error)) > 10
