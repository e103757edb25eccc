"""One time step of a network as ONNX nodes, and the two models made of it: a whole window (a Scan over the step), and a
single step for streams, whose states are inputs and outputs.

What is the same for integers and for real numbers is here: which outputs a connection reads, what has to be remembered
of them, and the readout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .onnx_graph import Graph, Port, model_bytes

READOUT, STEPS, RESET, CLASS = "readout", "steps", "reset", "class"


@dataclass(frozen=True)
class Link:
    """A connection: ``weights`` [N_target, N_source] times the source's output, ``back`` steps ago: one number, or an
    array like ``weights``. ``late`` says that the source runs after its target, so that ``back`` is at least 1.
    """

    name: str
    source: str
    weights: np.ndarray
    back: np.ndarray
    late: bool

    @property
    def reach(self) -> int:
        return int(self.back.max())


@dataclass(frozen=True)
class Slot:
    """What the network remembers from step to step, [B, ``len(start)``], and its value before the first step."""

    name: str
    start: np.ndarray
    dtype: Any

    def port(self, prefix: str) -> Port:
        return Port(f"{prefix}.{self.name}", self.dtype, ("B", len(self.start)))


@dataclass(frozen=True)
class Part:
    """An input or a population: its size, the type of what it sends, and of a population its connections and the states
    it starts with.
    """

    name: str
    size: int
    dtype: Any
    links: tuple[Link, ...] = ()
    states: Mapping[str, np.ndarray] = field(default_factory=dict)


class StepPrinter(ABC):
    """Prints the step of one network. Subclasses know its arithmetic; populations come in their order within a step."""

    state_dtype: Any
    readout_dtype: Any
    kind: str
    """``integer`` or ``float``."""

    def __init__(
        self, inputs: Sequence[Part], populations: Sequence[Part], readout: tuple[str, str], lowest: float, about: str
    ) -> None:
        self.inputs, self.populations, self.readout, self.about = tuple(inputs), tuple(populations), readout, about
        self.parts = {p.name: p for p in (*inputs, *populations)}
        self.depth = dict.fromkeys(self.parts, 0)
        for link in (c for p in populations for c in p.links):
            self.depth[link.source] = max(self.depth[link.source], link.reach)
        self.slots = [
            Slot(f"{p.name}.{s}", np.asarray(v), self.state_dtype) for p in populations for s, v in p.states.items()
        ]
        self.slots += [
            Slot(f"{p.name}.sent", np.zeros(self.depth[p.name] * p.size), p.dtype)
            for p in self.parts.values()
            if self.depth[p.name]
        ]
        first = np.full(self.parts[readout[0]].size, lowest if readout[1] == "max" else 0)
        self.slots.append(Slot(READOUT, first, self.readout_dtype))
        if readout[1] == "mean":
            self.slots.append(Slot(STEPS, np.zeros(1), self.readout_dtype))

    # -- arithmetic -----------------------------------------------------------------------

    @abstractmethod
    def product(self, g: Graph, value: str, source: Part, weights: np.ndarray, out: str) -> str:
        """``value`` [B, K] times ``weights`` [K, N]."""

    @abstractmethod
    def update(
        self, g: Graph, part: Part, arrived: Sequence[str], state: Mapping[str, str], batch: str
    ) -> tuple[dict[str, str], str]:
        """From what arrived over each connection and the states to the next states and the output, all [B, N];
        ``batch`` is [1], the number of samples.
        """

    # -- one step -------------------------------------------------------------------------

    def step(
        self, g: Graph, ports: Mapping[str, str], state: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """From inputs and slots, by name, to the next slots and the outputs of the populations."""
        now, after = dict(ports), {}
        batch = g.op("Shape", [next(iter(ports.values()))], "batch", start=0, end=1)
        windows: dict[str, str] = {}
        for part in self.populations:
            arrived = [a for c in part.links if (a := self.arrival(g, c, now, state, windows)) is not None]
            own = {s: state[f"{part.name}.{s}"] for s in part.states}
            following, now[part.name] = self.update(g, part, arrived, own, batch)
            after |= {f"{part.name}.{s}": v for s, v in following.items()}
        for name, depth in self.depth.items():
            if depth:
                after[f"{name}.sent"] = self.remembered(g, name, depth, now, state, windows)
        out, total, kind = now[self.readout[0]], state[READOUT], self.readout[1]
        value = g.cast(out, self.readout_dtype, "readout value")
        if kind in ("sum", "mean"):
            value = g.op("Add", [total, value], "readout total")
        elif kind == "max":
            value = g.op("Max", [total, value], "readout largest")
        after[READOUT] = value
        if STEPS in state:
            after[STEPS] = g.op("Add", [state[STEPS], g.number(1, self.readout_dtype)], "steps so far")
        return after, {p.name: now[p.name] for p in self.populations}

    def arrival(
        self, g: Graph, link: Link, now: Mapping[str, str], state: Mapping[str, str], windows: dict[str, str]
    ) -> str | None:
        """What comes over a connection in this step, [B, N_target]; None where all its weights are 0."""
        source, w = self.parts[link.source], link.weights
        if not np.any(w):
            return None
        name = f"{link.name} arrives"
        sent = state.get(f"{source.name}.sent", "")
        if link.back.size == 1:
            steps = link.reach
            if steps == 0:
                value = now[source.name]
            elif self.depth[source.name] == 1:
                value = sent
            else:
                ends = [g.sizes(n * source.size) for n in (steps - 1, steps)]
                value = g.op("Slice", [sent, *ends, g.sizes(1)], f"{link.name} reads")
            return self.product(g, value, source, w.T, name)
        # every pair of a delay and a source that some synapse reads is one column of what is multiplied
        first = 1 if link.late else 0
        column = (np.broadcast_to(link.back, w.shape) - first) * source.size + np.arange(source.size)
        target, j = np.nonzero(w)
        used, at = np.unique(column[target, j], return_inverse=True)
        matrix = np.zeros((len(used), w.shape[0]), w.dtype)
        matrix[at, target] = w[target, j]
        flat = sent if link.late else self.window(g, source, now, state, windows)
        value = g.op("Gather", [flat, g.constant(f"{link.name} columns", used)], f"{link.name} reads", axis=1)
        return self.product(g, value, source, matrix, name)

    def window(
        self, g: Graph, part: Part, now: Mapping[str, str], state: Mapping[str, str], windows: dict[str, str]
    ) -> str:
        """This step's output of a part and those before it, the latest first, [B, (depth + 1) N]."""
        if part.name not in windows:
            both = [now[part.name], state[f"{part.name}.sent"]]
            windows[part.name] = g.op("Concat", both, f"{part.name} until now", axis=1)
        return windows[part.name]

    def remembered(
        self,
        g: Graph,
        name: str,
        depth: int,
        now: Mapping[str, str],
        state: Mapping[str, str],
        windows: dict[str, str],
    ) -> str:
        part = self.parts[name]
        if depth == 1:
            return now[name]
        flat = self.window(g, part, now, state, windows)
        return g.op("Slice", [flat, g.sizes(0), g.sizes(depth * part.size), g.sizes(1)], f"{name} remembered")

    def answer(self, g: Graph, state: Mapping[str, str]) -> tuple[str, str]:
        """The readout and the class, the lowest of equals, of the slots after a step."""
        readout = state[READOUT]
        if STEPS in state:
            readout = g.op("Div", [readout, state[STEPS]], "readout mean")
        return readout, g.op("ArgMax", [readout], "best", axis=1, keepdims=0)

    # -- models ---------------------------------------------------------------------------

    def models(self, name: str, dt: float) -> dict[str, bytes]:
        """``NAME.onnx``, the whole window, and ``NAME_step.onnx``, one step."""
        about = {"contract": self.about, "time_step_ms": f"{dt:g}", "arithmetic": self.kind}
        return {
            f"{name}.onnx": model_bytes(self.whole_window(name), self.about, about),
            f"{name}_step.onnx": model_bytes(self.single_step(f"{name}_step"), self.about, about),
        }

    def whole_window(self, name: str) -> Any:
        """``in.PORT`` [T, B, N] to ``class`` [B], ``readout`` [B, classes], ``out.POPULATION`` [T, B, N], and the last
        ``state.*``.
        """
        g = Graph()
        ins = [Port(f"in.{p.name}", p.dtype, ("T", "B", p.size)) for p in self.inputs]
        batch = g.op("Shape", [ins[0].name], "samples", start=1, end=2)
        starts = [self.start(g, slot, batch) for slot in self.slots]
        body = Graph(g)
        before = [slot.port("before") for slot in self.slots]
        heard = [Port(f"now.{p.name}", p.dtype, ("B", p.size)) for p in self.inputs]
        for port in (*ins, *before, *heard):
            g.name(port.name)
        after, outputs = self.step(
            body,
            {p.name: port.name for p, port in zip(self.inputs, heard, strict=True)},
            {s.name: port.name for s, port in zip(self.slots, before, strict=True)},
        )
        carried = [slot.port("after") for slot in self.slots]
        sent = [Port(f"now.{p.name}", p.dtype, ("B", p.size)) for p in self.populations]
        values = [*(after[s.name] for s in self.slots), *(outputs[p.name] for p in self.populations)]
        for port, value in zip((*carried, *sent), values, strict=True):
            body.add("Identity", [value], [port.name])
        last = [slot.port("state") for slot in self.slots]
        outs = [Port(f"out.{p.name}", p.dtype, ("T", "B", p.size)) for p in self.populations]
        g.add(
            "Scan",
            [*starts, *(p.name for p in ins)],
            [p.name for p in (*last, *outs)],
            body=body.proto("one step", [*before, *heard], [*carried, *sent]),
            num_scan_inputs=len(ins),
        )
        answers = self.answered(g, {s.name: port.name for s, port in zip(self.slots, last, strict=True)})
        return g.proto(name, ins, [*answers, *outs, *last])

    def single_step(self, name: str) -> Any:
        """``in.PORT`` [B, N], ``state.*`` and ``reset`` [1] (true: forget the states and start anew) to ``class``,
        ``readout``, ``out.POPULATION`` [B, N] and ``next.*``, which are the states of the next call.
        """
        g = Graph()
        ins = [Port(f"in.{p.name}", p.dtype, ("B", p.size)) for p in self.inputs]
        given = [slot.port("state") for slot in self.slots]
        reset = Port(RESET, np.bool_, (1,))
        for port in (*ins, *given, reset):
            g.name(port.name)
        state = {}
        for slot, port in zip(self.slots, given, strict=True):
            start = g.constant(f"{slot.name} start", slot.start[None].astype(slot.dtype))
            state[slot.name] = g.op("Where", [RESET, start, port.name], f"{slot.name} before")
        after, outputs = self.step(g, {p.name: port.name for p, port in zip(self.inputs, ins, strict=True)}, state)
        following = [slot.port("next") for slot in self.slots]
        outs = [Port(f"out.{p.name}", p.dtype, ("B", p.size)) for p in self.populations]
        values = [*(after[s.name] for s in self.slots), *(outputs[p.name] for p in self.populations)]
        for port, value in zip((*following, *outs), values, strict=True):
            g.add("Identity", [value], [port.name])
        answers = self.answered(g, after)
        return g.proto(name, [*ins, *given, reset], [*answers, *outs, *following])

    def answered(self, g: Graph, state: Mapping[str, str]) -> list[Port]:
        readout, best = self.answer(g, state)
        ports = [
            Port(CLASS, np.int64, ("B",)),
            Port(READOUT, self.readout_dtype, ("B", self.parts[self.readout[0]].size)),
        ]
        g.add("Identity", [best], [CLASS])
        g.add("Identity", [readout], [READOUT])
        return ports

    def start(self, g: Graph, slot: Slot, batch: str) -> str:
        row = g.constant(f"{slot.name} start", slot.start[None].astype(slot.dtype))
        shape = g.op("Concat", [batch, g.sizes(len(slot.start))], f"{slot.name} shape", axis=0)
        return g.op("Expand", [row, shape], f"{slot.name} at first")
