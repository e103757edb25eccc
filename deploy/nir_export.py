"""A network as a NIR graph, for other simulators and neuromorphic chips: stock nodes only, so that any reader takes it.

What NIR has no node for is put together from those that it has, where that is exact; what cannot be is refused. NIR
does not say what a loop costs: here, as in most readers, what goes back over a loop is read one step later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, ExportError
from ..files import atomic_path
from ..networks import Network
from ..neurons import CuBaLIF, Integrator, Neuron
from .folding import Folded, fold
from .nir_time import METADATA, UNITS, Reading, Reals, nir_package, recognised

RESETS = ("circuit", "note")
GAINS = ("node", "weights")
CONTRACT = (
    "One step: every population adds up what arrives, updates its states, compares (spike where v > threshold) and "
    "resets. Populations go in the order of the graph; what comes from one that goes later, or from itself, is what it "
    "sent a step before. A Delay node delays by its time and no more. All states begin at 0."
)


@dataclass
class _Part:
    """The nodes of one population or connection: where signals enter and leave, the nodes, and the edges among them.
    ``gain`` [N]: what the weights into a population are multiplied with.
    """

    enter: str
    leave: str
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    gain: Reals | float = 1.0


def to_nir(
    net: Network,
    *,
    unit: str = "s",
    step: float | None = None,
    integrator: str = "euler",
    reset: str = "circuit",
    gain: str = "node",
) -> Any:
    """``net`` as a ``nir.NIRGraph``: batch norm folded into the weights, dropout gone, delays whole.

    LIF, current-based LIF and integrators have nodes of their own. NIR knows only resets to a value. A reset that
    subtracts the threshold is a circuit: an LI node, a Threshold, and a Scale back that takes away what is left of the
    threshold a step later. Delays are Delay nodes, for those of pairs one for each of their values.

    Args:
        unit: of all times in the graph, ``s`` or ``ms``.
        step: what a step takes there; by default ``net.dt``. snnTorch reads every file with steps of 1e-4.
        integrator: how the reader will integrate: ``euler`` (snnTorch, Norse) or ``exact``. Time constants are
            written so that this reader has the network's decays.
        reset: ``circuit``, which any reader runs alike; or ``note``: plain LIF and CubaLIF nodes as chips want them,
            which a reader has to be told to reset by subtraction (the graph's metadata says so).
        gain: where it stands that an input of 1 adds 1: in the ``node``'s resistance, or in the ``weights`` before
            it, for readers that ignore the resistance (Norse).

    Raises:
        ExportError: naming a population that NIR has no words for.
        ConfigError: an unknown unit, integrator, reset or gain, a step that is no positive time.
        ToolError: the package nir is not installed.
    """
    if unit not in UNITS:
        raise ConfigError(f"NIR: unit must be one of {', '.join(UNITS)}, got {unit!r}")
    if reset not in RESETS:
        raise ConfigError(f"NIR: reset must be one of {', '.join(RESETS)}, got {reset!r}")
    if gain not in GAINS:
        raise ConfigError(f"NIR: gain must be one of {', '.join(GAINS)}, got {gain!r}")
    reading = Reading(net.dt / UNITS[unit] if step is None else step, integrator)
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            return _Writer(net, unit, reading, reset, gain).graph()
    finally:
        net.train(training)


def write_nir(net: Network, path: str | Path, **options: Any) -> Path:
    """Write :func:`to_nir`'s graph to the file ``path`` (HDF5), whole or not at all; ``options`` as there."""
    graph = to_nir(net, **options)
    with atomic_path(Path(path)) as place:
        nir_package().write(str(place), graph)
    return Path(path)


class _Writer:
    def __init__(self, net: Network, unit: str, reading: Reading, reset: str, gain: str) -> None:
        self.net, self.unit, self.reading, self.reset, self.gain = net, unit, reading, reset, gain
        self.nir = nir_package()
        self.notes: dict[str, str] = {}

    def graph(self) -> Any:
        net = self.net
        order = [n for stage in net.schedule() for n in stage.populations]
        read = net.readout_of[0] if net.readout_of else order[-1]
        parts = {
            n: _Part(n, n, {n: self.nir.Input({"input": np.array([net.graph.nodes[n]["size"]])})}) for n in net.inputs
        }
        nodes = {n: node for part in parts.values() for n, node in part.nodes.items()}
        edges: list[tuple[str, str]] = []
        populations = {name: self.population(name) for name in order}
        parts |= populations
        for i, name in enumerate(order):
            for link in self.links(name, {*net.inputs, *order[:i]}, parts[name].gain):
                nodes |= link.nodes
                edges += [
                    *link.edges,
                    (parts[link.enter].leave, next(iter(link.nodes))),
                    (link.leave, parts[name].enter),
                ]
            nodes |= parts[name].nodes
            edges += parts[name].edges
        out = next(n for n in ("output", *(f"output_{i}" for i in range(2, len(nodes) + 3))) if n not in nodes)
        nodes[out] = self.nir.Output({"output": np.array([net.neuron(read).size])})
        edges.append((parts[read].leave, out))
        about = {
            "dt_ms": net.dt,
            "unit": self.unit,
            "step": self.reading.step,
            "integrator": self.reading.integrator,
            "reset": self.notes,
            "inputs": {n: net.graph.nodes[n]["port"] for n in net.inputs},
            "readout": list(net.readout_of) if net.readout_of else None,
            "contract": CONTRACT,
        }
        return self.nir.NIRGraph(nodes=nodes, edges=edges, metadata={METADATA: json.dumps(about)})

    # -- populations --------------------------------------------------------------------------------------------------

    def population(self, name: str) -> _Part:
        neuron = self.net.neuron(name)
        known = recognised(neuron.program(self.net.dt))
        if known is None:
            label = getattr(neuron, "label", type(neuron).__name__)
            raise ExportError(
                f"population {name!r}: NIR has no node for {label} as it is here, only for LIF, CuBaLIF and Integrator "
                "without refractoriness or a delayed reset; export it to c, verilog or onnx"
            )
        values = {n: self.number(neuron, n) for n in neuron.values(self.net.dt)}
        keep = values["decay_mem"]
        if known.kind is Integrator:
            node, gain = self.leak(name, keep)
            return _Part(name, name, {name: node}, gain=gain)
        self.notes[name] = known.reset if self.reset == "note" or known.reset == "to_value" else "circuit"
        if self.notes[name] == "circuit":
            return self.circuit(name, known.kind, known.reset, values)
        spiking = {"v_threshold": values["threshold"], "v_reset": values.get("v_reset", 0.0 * values["threshold"])}
        node, gain = self.leak(name, keep)
        if known.kind is CuBaLIF:
            syn, gain_syn = self.leak(name, values["decay_syn"])
            if not (hasattr(node, "tau") and hasattr(syn, "tau")):
                raise ExportError(
                    f"population {name!r}: NIR's CubaLIF cannot be without a leak; give it a finite tau_mem and tau_syn"
                )
            spiking |= {"tau_syn": syn.tau, "tau_mem": node.tau, "w_in": syn.r, "v_leak": node.v_leak}
            return _Part(name, name, {name: self.nir.CubaLIF(r=node.r, **spiking)}, gain=gain * gain_syn)
        if hasattr(node, "tau"):
            spiking |= {"tau": node.tau, "v_leak": node.v_leak}
        kind = self.nir.LIF if hasattr(node, "tau") else self.nir.IF
        return _Part(name, name, {name: kind(r=node.r, **spiking)}, gain=gain)

    def circuit(self, name: str, kind: type[Neuron], reset: str, values: dict[str, Reals]) -> _Part:
        """Leaks, a Threshold, and what a spike takes back: the threshold less one step's decay, one step later."""
        chain = {f"{name}.i_syn": values["decay_syn"]} if kind is CuBaLIF else {}
        chain[f"{name}.v"] = values["decay_mem"]
        leaks = {n: self.leak(name, keep) for n, keep in chain.items()}
        gain = leaks[f"{name}.v"][1]
        nodes = {n: node for n, (node, _) in leaks.items()} | {name: self.nir.Threshold(threshold=values["threshold"])}
        edges = list(pairwise(nodes))
        if reset == "subtract":
            back = f"{name}.reset"
            nodes[back] = self.nir.Scale(scale=-gain * values["decay_mem"] * values["threshold"])
            edges += [(name, back), (back, f"{name}.v")]
        whole = np.prod([g for _, g in leaks.values()], axis=0)
        return _Part(next(iter(chain)), name, nodes, edges, whole)

    def leak(self, name: str, keep: Reals) -> tuple[Any, Reals]:
        """An integrator that keeps ``keep`` of itself, and what an input of 1 has to be multiplied with to add 1."""
        endless = self.endless(name, keep)
        r = np.full_like(keep, 1 / self.reading.step) if endless else 1 / (1 - keep)
        r, gain = (r, np.ones_like(r)) if self.gain == "node" else (np.ones_like(r), r)
        return self.nir.I(r=r) if endless else self.nir.LI(tau=self.reading.tau(keep), r=r, v_leak=0.0 * keep), gain

    def endless(self, name: str, keep: Reals) -> bool:
        """Whether nothing leaks. Raises for neurons of both kinds, and for decays that the integrator cannot give."""
        if np.any(keep < 0) or (self.reading.integrator == "exact" and np.any(keep == 0)):
            raise ExportError(f"population {name!r}: a decay of {keep.min():g} a step has no time constant")
        if np.any(keep >= 1) and np.any(keep < 1):
            raise ExportError(
                f"population {name!r}: some of its neurons leak and some do not; NIR has no node for both"
            )
        return bool(np.all(keep >= 1))

    def number(self, neuron: Neuron, name: str) -> Reals:
        value = neuron.values(self.net.dt)[name].detach().cpu().numpy().astype(np.float64)
        return np.broadcast_to(value, (neuron.size,)).copy()

    # -- connections --------------------------------------------------------------------------------------------------

    def links(self, name: str, earlier: set[str], gain: Reals | float) -> Iterator[_Part]:
        """What leads into a population, its weights times ``gain`` [N]; ``enter`` is the source."""
        folded, bias = fold(self.net, name, f"population {name!r}")
        gain = np.broadcast_to(gain, bias.shape)
        left = gain * bias if np.any(bias) else None
        for c in (replace(c, weights=gain[:, None] * c.weights) for c in folded):
            late = c.source not in earlier
            for part, takes in self.link(c, c.delay - int(late), left):
                left = None if takes else left
                yield part
        if left is not None:  # every connection is delayed after its weights, and a bias is not
            source = folded[0].source
            nothing = np.zeros_like(folded[0].weights, np.float32)
            key = f"{name}.bias"
            yield _Part(source, key, {key: self.nir.Affine(nothing, left.astype(np.float32))})

    def link(self, c: Folded, steps: int, bias: Reals | None) -> Iterator[tuple[_Part, bool]]:
        """One connection, delayed by ``steps`` beside its own delays; and whether ``bias`` went in."""
        n_target, n_source = c.weights.shape
        before = np.full(n_source, steps) + c.delays.get("uniform", 0) + c.delays.get("axonal", 0)
        after = np.zeros(n_target, np.int64) + c.delays.get("dendritic", 0)
        pairs = c.delays.get("synaptic", np.zeros((1, 1), np.int64)).astype(np.int64)
        for number, k in enumerate(np.unique(pairs)):
            weights = np.where(pairs == k, c.weights, 0.0).astype(np.float32)
            key = c.name if number == 0 else f"{c.name}.{int(k)}"
            chain: dict[str, Any] = {}
            if np.any(before + k):
                chain[f"{key}.delay"] = self.delay(before + k)
            takes = bias is not None and not np.any(after)
            chain[key] = (
                self.nir.Affine(weights, bias.astype(np.float32))
                if bias is not None and takes
                else self.nir.Linear(weights)
            )
            bias = None if takes else bias
            if np.any(after):
                chain[f"{key}.delay_dendritic"] = self.delay(after)
            names = list(chain)
            yield _Part(c.source, names[-1], chain, list(pairwise(names))), takes

    def delay(self, steps: np.ndarray) -> Any:
        return self.nir.Delay(steps.astype(np.float64) * self.reading.step)
