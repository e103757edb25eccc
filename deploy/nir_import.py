"""A NIR graph as a network: what snnTorch, Norse and others wrote is trained, compressed and exported like any other.

Neurons become populations. What lies on the way from one to the next (Linear, Affine, Scale, Delay, Flatten) becomes
one connection. The neuron's resistance goes into its weights, since an input of Ranvier's neurons adds its weight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch

from ..errors import ConfigError, DataError, GraphError
from ..networks import Dense, Network
from ..neurons import Integrator
from .names import identifiers
from .nir_neurons import NEURONS, Reads, join_circuits, kind_of, read_neuron
from .nir_time import METADATA, UNITS, Reading, Reals, nir_package
from .nir_wires import WIRES, Way, joined

ENDS = ("Input", "Output")
RESETS = ("to_value", "subtract", "none")


def from_nir(
    source: Any,
    *,
    dt: float | None = None,
    unit: str = "s",
    step: float | None = None,
    integrator: str = "euler",
    reset: str = "to_value",
    reset_delayed: bool = False,
    readout: str | None = None,
) -> Network:
    """A network from a NIR graph or file.

    NIR says nothing of steps, integration and subtracting resets, and one file gives very different results with
    different readers. So say how the network ran where it comes from; a file that Ranvier wrote says it itself.
    Files of snnTorch: ``dt=0.1`` (its steps are 1e-4 s), ``reset="subtract"`` if its neurons do so, and
    ``reset_delayed=True`` unless they have ``reset_delay=False``. Of Norse: ``dt=1.0, step=1e-6`` (it writes its time
    constants times its step of 1e-3 s). What goes back over a loop is read one step later.

    Args:
        source: a ``nir.NIRGraph``, or the path of a file.
        dt: time step in ms.
        unit: of the times in the file, ``s`` or ``ms``.
        step: what a step takes in the file, in that unit, where that is not ``dt``.
        integrator: ``euler`` or ``exact``.
        reset: of IF, LIF and CubaLIF nodes: ``to_value`` (v_reset, as NIR says), ``subtract`` or ``none``.
        reset_delayed: one step later.
        readout: makes the output one vector per sample, see :meth:`Network.readout`.

    Raises:
        DataError: no readable NIR file.
        GraphError: naming a node that has no counterpart, or wires that are no connection.
        ConfigError: no ``dt`` for a file that does not say it, a time constant below a step, a delay that is no whole
            number of steps, an unknown unit, integrator or reset.
        ToolError: the package nir is not installed.
    """
    graph = _graph(source)
    own = _about(graph)
    if own:
        dt, unit, integrator = float(own["dt_ms"]), str(own["unit"]), str(own["integrator"])
        readout = readout or own["readout"]
    if dt is None:
        raise ConfigError("NIR: the file does not say how long a step is; give dt in ms (for snnTorch's files 0.1)")
    if unit not in UNITS:
        raise ConfigError(f"NIR: unit must be one of {', '.join(UNITS)}, got {unit!r}")
    if reset not in RESETS:
        raise ConfigError(f"NIR: reset must be one of {', '.join(RESETS)}, got {reset!r}")
    if own or step is None:
        step = float(own["step"]) if own else dt / UNITS[unit]
    reading = Reading(step, integrator)
    return _Reader(graph, dt, reading, reset, reset_delayed, own).network(readout)


def _graph(source: Any) -> Any:
    nir = nir_package()
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise DataError(f"there is no file {source}")
        try:
            source = nir.read(str(source))
        except Exception as error:  # h5py and nir raise many kinds for what is damaged
            raise DataError(f"{source} is no readable NIR file ({error!r})") from error
    if not isinstance(source, nir.NIRGraph):
        raise DataError(f"NIR: a graph or the path of a file is needed, got {type(source).__name__}")
    return source


def _about(graph: Any) -> dict[str, Any]:
    """What Ranvier wrote into a graph's metadata; nothing for a graph from elsewhere."""
    text = (graph.metadata or {}).get(METADATA)
    if text is None:
        return {}
    try:
        about = json.loads(text.decode() if isinstance(text, bytes) else str(text))
        about = {k: about[k] for k in ("dt_ms", "step", "unit", "integrator", "reset", "inputs", "readout")}
        about |= {"dt_ms": float(about["dt_ms"]), "step": float(about["step"])}
        about |= {"reset": dict(about["reset"]), "inputs": dict(about["inputs"])}
        _, about["readout"] = about["readout"] or ("", None)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"NIR: the graph's metadata {METADATA!r} is damaged ({error!r})") from error
    return about


class _Reader:
    def __init__(self, graph: Any, dt: float, reading: Reading, reset: str, delayed: bool, own: dict[str, Any]) -> None:
        self.dt, self.reading, self.reset, self.delayed, self.own = dt, reading, reset, delayed, own
        self.nodes: dict[str, Any] = {}
        self.graph = nx.DiGraph()
        self.flatten(graph, "")
        known = (*ENDS, *NEURONS, *WIRES, "Threshold")
        for name, node in self.nodes.items():
            if kind_of(node) not in known:
                raise GraphError(
                    f"NIR node {name!r}: {kind_of(node)} has no counterpart here; known are {', '.join(known)}"
                )
        join_circuits(self.nodes, self.graph, reading)

    def flatten(self, graph: Any, prefix: str) -> None:
        """Take in the nodes of a graph and of the graphs in it, whose inputs and outputs are plain wires."""
        nir = nir_package()
        for name, node in graph.nodes.items():
            if isinstance(node, nir.NIRGraph):
                self.flatten(node, f"{prefix}{name}.")
            else:
                self.nodes[prefix + name] = (
                    nir.Flatten({"input": np.array([1])}) if prefix and kind_of(node) in ENDS else node
                )
                self.graph.add_node(prefix + name)
        for a, b in graph.edges:
            ends = (self.end(graph, prefix, a, "Output"), self.end(graph, prefix, b, "Input"))
            self.graph.add_edge(*ends)

    def end(self, graph: Any, prefix: str, name: str, side: str) -> str:
        """The node that an edge at ``name`` really meets: of a graph, its Input or Output."""
        node = graph.nodes.get(name)
        if node is None:
            raise GraphError(f"NIR: an edge leads to {prefix + name!r}, which is no node")
        if kind_of(node) != "NIRGraph":
            return prefix + name
        inner = [n for n, part in node.nodes.items() if kind_of(part) == side]
        if len(inner) != 1:
            raise GraphError(f"NIR node {prefix + name!r}: a graph in the graph needs one {side}, it has {len(inner)}")
        return f"{prefix}{name}.{inner[0]}"

    def of(self, *kinds: str) -> list[str]:
        return [n for n, node in self.nodes.items() if kind_of(node) in kinds]

    # -- the whole ----------------------------------------------------------------------------------------------------

    def network(self, readout: str | None) -> Network:
        net = Network(dt=self.dt)
        arriving, order = self.ways(), self.order()
        named = identifiers([*self.of("Input"), *order, *self.of("Output")], dir(net.populations))
        for name in self.of("Input"):
            port = self.own["inputs"].get(name, "counts") if self.own else "counts"
            net.input(_size(self.nodes[name].input_type), named[name], port)
        reads: dict[str, Reads] = {}
        for name in order:
            if name not in arriving:
                raise GraphError(f"NIR node {name!r} receives nothing")
            # a file of Ranvier's names its resets; of others' files the caller does
            reset = self.own["reset"].get(name, self.reset) if self.own else self.reset
            delayed = self.delayed and not self.own and reset != "none"
            # some files have one number for a whole population, whose size is then that of what arrives
            sizes = [len(w.weights) for w in arriving[name] if w.weights is not None]
            plain = [named[w.source] for w in arriving[name] if w.plain]
            sizes += [net.graph.nodes[n]["size"] for n in plain if n in net.graph]
            reads[name] = read_neuron(
                name, self.nodes[name], self.reading, self.dt, reset, delayed, max(sizes, default=1)
            )
            net.population(reads[name].neuron, named[name])
        if not reads:
            raise GraphError("NIR: the graph has no neuron")
        for name, own in reads.items():
            for number, way in enumerate(joined(arriving[name])):
                self.connect(net, way, named, name, own.gain, own.constant if number == 0 else 0 * own.constant)
        shown = [self.output(net, name, arriving.get(name, []), named) for name in self.of("Output")]
        if readout is not None:
            net.readout(shown[0] if shown else named[list(reads)[-1]], readout)
        return net

    def order(self) -> list[str]:
        """Neurons in the order of signals; in a loop, and where they do not depend on each other, of the file."""
        place = list(self.nodes).index
        parts = nx.condensation(self.graph)
        ranked = nx.lexicographical_topological_sort(parts, key=lambda c: min(map(place, parts.nodes[c]["members"])))
        ordered = [n for c in ranked for n in sorted(parts.nodes[c]["members"], key=place)]
        return [n for n in ordered if kind_of(self.nodes[n]) in (*NEURONS, "Circuit")]

    def output(self, net: Network, name: str, ways: Sequence[Way], named: dict[str, str]) -> str:
        """The population that an Output shows: a neuron, or for wires before it one that passes its input on."""
        if len(ways) == 1 and ways[0].plain and kind_of(self.nodes[ways[0].source]) != "Input":
            return named[ways[0].source]
        size = _size(self.nodes[name].output_type)
        passes = Integrator(size, integrator="euler", tau_mem=self.dt)
        net.population(passes, named[name])
        for way in joined(ways):
            self.connect(net, way, named, name, np.ones(size), np.zeros(size))
        return named[name]

    # -- wires --------------------------------------------------------------------------------------------------------

    def ways(self) -> dict[str, list[Way]]:
        """What arrives at every neuron and output."""
        found: dict[str, list[Way]] = {}

        def follow(at: str, way: Way, passed: tuple[str, ...]) -> None:
            for after in self.graph.successors(at):
                if kind_of(self.nodes[after]) not in WIRES:
                    found.setdefault(after, []).append(way)
                elif after in passed:
                    raise GraphError(f"NIR: {', '.join(passed)} lead in a circle without a neuron")
                else:
                    follow(after, way.over(after, self.nodes[after], self.reading.step), (*passed, after))

        for name in self.nodes:
            if kind_of(self.nodes[name]) not in (*WIRES, "Output"):
                follow(name, Way(name), ())
        return found

    def connect(self, net: Network, way: Way, named: dict[str, str], target: str, gain: Reals, constant: Reals) -> None:
        """One connection, with the target's ``gain`` in its weights."""
        source, goal = named[way.source], named[target]
        n_source, size = net.graph.nodes[source]["size"], net.graph.nodes[goal]["size"]
        weights = np.eye(n_source) if way.weights is None else way.weights
        if weights.shape != (size, n_source):
            raise GraphError(
                f"NIR: {way.source!r} of {n_source} meets {target!r} of {size} over weights {weights.shape}"
            )
        back = int(net.graph.nodes[source]["index"] >= net.graph.nodes[goal]["index"])
        bias = gain * way.bias + constant
        given, uniform = way.delays(back, size, n_source, self.dt)
        scaled = torch.as_tensor(gain[:, None] * weights, dtype=torch.get_default_dtype())
        dense = Dense(bias=bool(np.any(bias)), weight=scaled, delay=given)
        key = net.connect(source, goal, dense, delay=None if given else uniform * self.dt)
        own = net.connection(key).bias
        if own is not None:
            with torch.no_grad():
                own.copy_(torch.as_tensor(bias, dtype=own.dtype))


def _size(kinds: dict[str, Any]) -> int:
    return int(np.prod(next(iter(kinds.values()))))
