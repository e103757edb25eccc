"""The network: a graph of inputs, populations and connections, and its forward pass over time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor, nn

from ..errors import ConfigError, GraphError
from ..neurons import Cell, Link, Neuron, check_engine, run_stage
from .arguments import NetworkState, check_record, check_state, checked_inputs, checked_lengths
from .delay import DelayWarning, delays_of
from .dense import Dense
from .readout import READOUTS, read_out
from .schedule import Stage, make_schedule

HISTORY = "history"
INPUT_KINDS = ("events", "counts", "samples")
LONGEST_DELAY = 100_000
"""In steps. A delayed connection keeps that many outputs; a longer delay is a mistake in units."""


@dataclass(frozen=True)
class Node:
    """A handle to an input or population of one network."""

    name: str
    size: int


class Result(NamedTuple):
    """What a forward pass gives.

    ``output`` is the readout [B, N], or, without one, the last population's output [T, B, N]. ``state`` continues the
    run. ``recorded`` maps each requested name to its sequence [T, B, N].
    """

    output: Tensor
    state: NetworkState
    recorded: dict[str, Tensor]


class Network(nn.Module):
    """Populations and connections, run with a time step of ``dt`` ms.

    ``engine`` says what runs it over time: ``eager`` (a plain torch loop), ``numba`` and ``triton`` (fused kernels for
    CPU and GPU), or ``auto``, which takes the fastest tried one that the machine and the tensors allow. All give the
    same spikes and gradients; it may be set at any time as ``net.engine``.

    >>> net = Network(dt=1.0)
    >>> x, h, y = net.input(700), net.population(LIF(256)), net.population(Integrator(20))
    >>> for a, b in ((x, h), (h, h), (h, y)): net.connect(a, b, Dense())
    >>> net.readout(y, "sum")

    Raises:
        ConfigError: if ``dt`` is not a positive time, or for an engine that does not exist.
    """

    def __init__(self, dt: float = 1.0, engine: str = "auto") -> None:
        super().__init__()
        if not isinstance(dt, Real) or not (math.isfinite(dt) and dt > 0):
            raise ConfigError(f"Network: dt must be a positive time in ms, got {dt!r}")
        self.dt = float(dt)
        self.engine = check_engine(engine)
        self.graph = nx.MultiDiGraph()
        self.populations = nn.ModuleDict()
        self.connections = nn.ModuleDict()
        self.readout_of: tuple[str, str] | None = None
        self._stages: tuple[Stage, ...] | None = None
        self._warned = False

    # -- building ------------------------------------------------------------------------

    def input(self, size: int, name: str | None = None, kind: str = "counts") -> Node:
        """Add an input port of ``size`` channels. ``kind`` is what a device will receive: ``events`` (0 or 1),
        ``counts`` (0 to 255) or ``samples`` (a sensor's numbers, 16 bits with a sign).

        Raises:
            ConfigError: for a size or kind that does not exist.
            GraphError: for a name that is taken or no identifier.
        """
        if kind not in INPUT_KINDS:
            raise ConfigError(f"input kind must be one of {', '.join(INPUT_KINDS)}, got {kind!r}")
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ConfigError(f"input size must be a positive whole number of channels, got {size!r}")
        return self._add(self._free("input") if name is None else name, int(size), kind="input", port=kind)

    def population(self, neuron: Neuron, name: str | None = None) -> Node:
        """Add a population; ``neuron`` holds its model, size and parameters.

        Raises:
            ConfigError: for something else than a neuron.
            GraphError: for a name that is taken or no identifier, or a neuron object that is already in the network.
            TraceError: for a neuron whose step has no program.
        """
        if not isinstance(neuron, Neuron):
            raise ConfigError(f"population takes a Neuron such as LIF(256), got {type(neuron).__name__}")
        if any(neuron is other for other in self.populations.values()):
            raise GraphError("this neuron object is already a population of the network; make a new one")
        if HISTORY in neuron.program(self.dt).states:
            raise ConfigError(f"a neuron's state may not be called {HISTORY!r}")
        node = self._add(self._free("population") if name is None else name, neuron.size, kind="population")
        self.populations[node.name] = neuron
        return node

    def connect(
        self,
        source: Node | str,
        target: Node | str,
        connection: Dense,
        delay: float | None = None,
        name: str | None = None,
    ) -> str:
        """Connect two nodes; returns the connection's name.

        ``delay`` is in ms, a whole number of steps. By default it is 0 for a connection to a population added later
        than its source, and one step for a connection back (or from a population to itself).

        Raises:
            ConfigError: for a delay that is not a whole number of steps, or something else than a connection.
            GraphError: for an unknown node, a connection into an input, a name that is taken, or a connection object
                used before.
        """
        if not isinstance(connection, Dense):
            raise ConfigError(f"connect takes a connection such as Dense(), got {type(connection).__name__}")
        a, b = self._node(source), self._node(target)
        if self.graph.nodes[b.name]["kind"] != "population":
            raise GraphError(f"cannot connect {a.name} to {b.name}: an input receives nothing")
        back = self.graph.nodes[a.name]["index"] >= self.graph.nodes[b.name]["index"]
        if len(connection.delays) and delay is not None:
            raise ConfigError(f"{a.name} -> {b.name}: the connection has a Delay; leave out connect(delay=...)")
        steps = self._steps(delay, f"{a.name} -> {b.name}") if delay is not None else int(back)
        key = self._free(f"{a.name}_to_{b.name}", taken=self.connections) if name is None else name
        self._check_name(key, self.connections)
        reach = steps
        if len(connection.delays):
            for i, own in enumerate(delays_of(connection)):
                own.build(a.size, b.size, self.dt, back and i == 0, key)  # one of two keeps a connection back from 0
            steps, reach = (sum(getattr(d, end) for d in delays_of(connection)) for end in ("low", "high"))
            if reach > LONGEST_DELAY:
                raise ConfigError(
                    f"{key}: the longest delay is {reach} steps of {self.dt} ms, more than {LONGEST_DELAY}"
                )
        connection.build(a.size, b.size, loop=back, label=key)
        self.connections[key] = connection
        self.graph.add_edge(a.name, b.name, key=key, delay=steps, reach=reach)
        self._stages = None
        return key

    def readout(self, population: Node | str, kind: str = "sum") -> None:
        """Make the output one vector per sample: ``sum``, ``sum_softmax``, ``mean``, ``max`` or ``last`` of the
        population's output over time.
        """
        node = self._node(population)
        if kind not in READOUTS:
            raise ConfigError(f"readout must be one of {', '.join(READOUTS)}, got {kind!r}")
        if node.name not in self.populations:
            raise GraphError(f"readout: {node.name!r} is not a population")
        self.readout_of = (node.name, kind)

    def _add(self, name: str, size: int, **attributes: object) -> Node:
        self._check_name(name, self.populations)
        self.graph.add_node(name, size=size, index=len(self.graph), **attributes)
        self._stages = None
        return Node(name, size)

    def _check_name(self, name: str, modules: nn.ModuleDict) -> None:
        # names are printed into C and Verilog, and a ModuleDict refuses those of its own methods, such as "keys"
        plain = isinstance(name, str) and name.isascii() and name.isidentifier()
        if not plain or hasattr(modules, name) or (modules is self.populations and name in self.graph):
            raise GraphError(
                f"the name {name!r} is taken, reserved, or not made of ASCII letters, digits and underscores"
            )

    def _node(self, node: Node | str) -> Node:
        name = node.name if isinstance(node, Node) else node
        if (
            not isinstance(name, str)
            or name not in self.graph
            or (isinstance(node, Node) and self.graph.nodes[name]["size"] != node.size)
        ):
            raise GraphError(f"{name!r} is not a node of this network; it has {', '.join(self.graph) or 'none'}")
        return Node(name, self.graph.nodes[name]["size"])

    def _free(self, base: str, taken: Iterable[str] | None = None) -> str:
        used = set(self.graph if taken is None else taken)
        return next(n for n in (base, *(f"{base}_{i}" for i in range(2, len(used) + 3))) if n not in used)

    def _steps(self, delay: float, label: str) -> int:
        steps = round(delay / self.dt) if isinstance(delay, Real) and math.isfinite(delay) else -1
        if steps < 0 or abs(steps * self.dt - delay) > 1e-6 * max(1.0, abs(delay)):
            raise ConfigError(
                f"{label}: delay must be a finite time of a whole number of steps of {self.dt} ms, 0 or more; got "
                f"{delay} ms"
            )
        if steps > LONGEST_DELAY:
            raise ConfigError(
                f"{label}: delay is {steps} steps of {self.dt} ms, more than {LONGEST_DELAY}; got {delay} ms"
            )
        return steps

    # -- running -------------------------------------------------------------------------

    @property
    def inputs(self) -> list[str]:
        return [n for n, kind in self.graph.nodes(data="kind") if kind == "input"]

    def schedule(self) -> tuple[Stage, ...]:
        """The stages in their order. Raises :class:`GraphError` for a cycle of total delay 0 or a batch norm inside a
        loop.
        """
        if self._stages is None:
            stages = make_schedule(self.graph)
            for key in (k for stage in stages for k in stage.links):
                if self.connection(key).norm is not None:
                    raise GraphError(
                        f"connection {key!r} lies inside a loop, where batch norm is not possible; use it on "
                        "feed-forward connections"
                    )
            self._stages = stages
        return self._stages

    def connection(self, key: str) -> Dense:
        return self.connections[key]  # type: ignore[return-value]

    def neuron(self, name: str) -> Neuron:
        return self.populations[name]  # type: ignore[return-value]

    def longest_delay(self, name: str) -> int:
        """The longest delay, in steps, of the connections from a node."""
        return max((d for _, _, d in self.graph.out_edges(name, data="reach")), default=0)

    def initial_state(self, batch: int) -> NetworkState:
        """The state before the first step, for ``batch`` samples."""
        state = self._silence(batch)
        for own in (own for own in state.values() if HISTORY in own):
            own[HISTORY] = own[HISTORY].clone(memory_format=torch.contiguous_format)
        return state

    def _silence(self, batch: int) -> NetworkState:
        """:meth:`initial_state` in which nothing was sent without a place in memory for it."""
        like = self._like()
        state: NetworkState = {}
        for name, data in self.graph.nodes(data=True):
            own: dict[str, Tensor] = {}
            if name in self.populations:
                neuron = self.neuron(name)
                values = neuron.values(self.dt)
                for s, start in neuron.program(self.dt).initial.items():
                    value = values[start] if isinstance(start, str) else like.new_tensor(start)
                    own[s] = value.to(like.dtype).expand(batch, neuron.size)
            depth = self.longest_delay(name)
            if depth:
                own[HISTORY] = like.new_zeros(()).expand(depth, batch, data["size"])
            if own:
                state[name] = own
        return state

    def forward(
        self,
        x: Tensor | Mapping[str, Tensor],
        state: NetworkState | None = None,
        lengths: Tensor | None = None,
        record: Iterable[str] = (),
    ) -> Result:
        """Run over a batch of sequences.

        Args:
            x: [T, B, N] of the input, or a mapping from input names to such tensors.
            state: where to continue; by default :meth:`initial_state`. Running in chunks equals running at once (in
                evaluation: dropout masks and batch statistics are drawn anew by every forward). Gradients flow through
                it; detach its tensors to cut them.
            lengths: [B], unpadded steps of each sample; masks readouts, batch statistics and the final state.
            record: names of populations (their output) or ``population.state``.

        Raises:
            ConfigError: for something unknown in ``record``.
            DataError: for wrong shapes, zero-sized or non-finite input, a state of another network or batch, lengths
                outside 1 to T.
            GraphError: for a network that cannot run.

        Warns:
            DelayWarning: once per network, for delays as long as a sequence that starts without ``state``.
        """
        if not self.populations:
            raise GraphError("the network has no population")
        if not self.inputs:
            raise GraphError("the network has no input; add one with net.input(channels)")
        sizes = {name: self.graph.nodes[name]["size"] for name in self.inputs}
        sequences = checked_inputs(x, sizes, self._like().dtype)
        steps, batch = next(iter(sequences.values())).shape[:2]
        device = next(iter(sequences.values())).device
        lengths, valid = checked_lengths(lengths, steps, batch, device)
        start = self._silence(batch)
        if state is None:
            self._warn_of_long_delays(steps)
        else:
            check_state(state, start)
            start = state
        asked = [n.name if isinstance(n, Node) else n for n in ([record] if isinstance(record, str | Node) else record)]
        check_record(asked, self.graph, {n: self.neuron(n).program(self.dt).states for n in self.populations})
        final: NetworkState = {}
        recorded: dict[str, Tensor] = {}
        for name in self.inputs:
            self._close(name, sequences[name], start, final, lengths)
        for stage in self.schedule():
            cells = [
                Cell(n, self.neuron(n).program(self.dt), self.neuron(n).values(self.dt)) for n in stage.populations
            ]
            links, currents = self._stage_inputs(stage, sequences, start, valid, steps, batch)
            wanted = any("." in n and n.split(".")[0] in stage.populations for n in asked)
            own = {n: {k: v for k, v in start.get(n, {}).items() if k != HISTORY} for n in stage.populations}
            history = {n: start.get(n, {}).get(HISTORY, currents[n][:0]) for n in stage.populations}
            traces = run_stage(self.engine, cells, links, currents, own, history, wanted or lengths is not None)
            for name, trace in traces.items():
                sequences[name] = trace.output
                if trace.states:
                    final[name] = {s: self._at_end(v, lengths) for s, v in trace.states.items()}
                self._close(name, trace.output, start, final, lengths)
                for item in asked:
                    population, _, which = item.partition(".")
                    if population == name:
                        recorded[item] = trace.states[which] if which else trace.output
        for item in asked:
            if item in self.inputs:
                recorded[item] = sequences[item]
        if self.readout_of is None:
            output = sequences[list(self.populations)[-1]]
        else:
            output = read_out(self.readout_of[1], sequences[self.readout_of[0]], valid, lengths, self.training)
        return Result(output, final, recorded)

    def _warn_of_long_delays(self, steps: int) -> None:
        """Say once which connections bring nothing within ``steps``, since their delays are longer."""
        if self._warned or steps == 1:  # a single step is one of a stream
            return
        long = []
        for a, b, key, data in self.graph.edges(keys=True, data=True):
            own = self.connection(key)
            if data["reach"] >= steps:  # a bound; the delays themselves are read only where it may matter
                longest = int(own.whole_delays().max()) if len(own.delays) else data["delay"]
                long += [f"{key} ({a} -> {b}) {longest}"] if longest >= steps else []
        if long:
            self._warned = True
            warnings.warn(
                f"a sequence of {steps} steps is no longer than the longest delay, in steps, of {', '.join(long)}: "
                "what these send arrives after its end, or in the next chunk if the state is handed on",
                DelayWarning,
                stacklevel=5,  # past the frames of torch.nn.Module
            )

    def _stage_inputs(
        self,
        stage: Stage,
        sequences: Mapping[str, Tensor],
        start: NetworkState,
        valid: Tensor | None,
        steps: int,
        batch: int,
    ) -> tuple[list[Link], dict[str, Tensor]]:
        links: list[Link] = []
        currents: dict[str, Tensor] = {}
        for target in stage.populations:
            parts = []
            for source, _, key, delay in self.graph.in_edges(target, keys=True, data="delay"):
                connection = self.connection(key)
                if key in stage.links:
                    mask = connection.source_mask(batch)
                    weight, copies = connection.shared()
                    links.append(Link(source, target, weight, delay, mask, connection.taps(), copies))
                    if connection.bias is not None:
                        parts.append(connection.bias.expand(steps, batch, -1))
                elif len(connection.delays):
                    past = start[source].get(HISTORY) if source in start else None
                    parts.append(connection(sequences[source], valid, self.engine, past))
                else:
                    sent = sequences[source]
                    if delay:
                        sent = torch.cat([start[source][HISTORY][-delay:].to(sent), sent])[:steps]
                    parts.append(connection(sent, valid, self.engine))
            first = next(iter(sequences.values()))
            currents[target] = (
                sum(parts[1:], parts[0]) if parts else first.new_zeros(steps, batch, self.neuron(target).size)
            )
        return links, currents

    def _close(
        self, name: str, sequence: Tensor, start: NetworkState, final: NetworkState, lengths: Tensor | None
    ) -> None:
        """Keep the last outputs of ``name`` that delayed connections will still need."""
        depth = self.longest_delay(name)
        if not depth:
            return
        if lengths is None and depth <= len(sequence):
            final.setdefault(name, {})[HISTORY] = sequence[-depth:].clone()  # a view would keep the whole sequence
            return
        before = start[name][HISTORY].to(sequence)
        if lengths is None:
            final.setdefault(name, {})[HISTORY] = torch.cat([before[len(sequence) :], sequence])
        else:
            whole = torch.cat([before, sequence])
            at = lengths + torch.arange(depth, device=lengths.device).unsqueeze(1)
            final.setdefault(name, {})[HISTORY] = whole[at, torch.arange(len(lengths), device=lengths.device)]

    @staticmethod
    def _at_end(values: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return values[-1]
        return values[lengths - 1, torch.arange(len(lengths), device=lengths.device)]

    def _like(self) -> Tensor:
        """A tensor of the network's dtype and device."""
        return next((t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()), torch.zeros(()))

    def count_parameters(self) -> int:
        """Number of learnable values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
