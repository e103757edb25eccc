"""Neurons of a NIR graph as Ranvier's: plain nodes, and the circuits that stand for a reset by subtraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ..errors import ConfigError, GraphError
from ..neurons import LIF, CuBaLIF, Integrator, Neuron
from .nir_time import Reading, Reals

LEAKS = ("I", "LI")
NEURONS = ("IF", "LIF", "CubaLIF", *LEAKS)


@dataclass(frozen=True)
class Circuit:
    """Leaks in a row and a Threshold, of which a Scale may lead back: a neuron in parts."""

    leaks: tuple[Any, ...]
    threshold: Any
    reset: str


@dataclass(frozen=True)
class Reads:
    """A population. An input of 1 to its node adds ``gain`` [N] to what the neuron takes; ``constant`` [N] is added in
    every step.
    """

    neuron: Neuron
    gain: Reals
    constant: Reals


def kind_of(node: Any) -> str:
    return type(node).__name__


def numbers(value: Any) -> Reals:
    return np.atleast_1d(np.asarray(value, np.float64)).reshape(-1)


def join_circuits(nodes: dict[str, Any], graph: nx.DiGraph, reading: Reading) -> None:
    """Put a :class:`Circuit`, under the Threshold's name, in the place of each Threshold and of what belongs to it."""
    for name in [n for n in nodes if kind_of(nodes[n]) == "Threshold"]:
        before = list(graph.predecessors(name))
        if len(before) != 1 or kind_of(nodes[before[0]]) not in LEAKS or list(graph.successors(before[0])) != [name]:
            raise GraphError(f"NIR node {name!r}: a Threshold is read only behind an LI or I node of its own")
        v = before[0]
        gain, keep = leak(v, nodes[v], reading)
        taken = -keep * numbers(nodes[name].threshold)
        back = [n for n in graph.successors(name) if _between(n, name, v, nodes, graph)]
        back = [n for n in back if np.allclose(gain * numbers(nodes[n].scale), taken, rtol=1e-5)][:1]
        chain = [v]
        above = [n for n in graph.predecessors(v) if n not in back]
        if len(above) == 1 and kind_of(nodes[above[0]]) in LEAKS and list(graph.successors(above[0])) == [v]:
            chain = [above[0], v]
        circuit = Circuit(tuple(nodes[n] for n in chain), nodes[name], "subtract" if back else "none")
        into = list(graph.predecessors(chain[0]))
        for n in (*chain, *back):
            graph.remove_node(n)
            del nodes[n]
        nodes[name] = circuit
        graph.add_edges_from((n, name) for n in into if n in graph)


def _between(name: str, source: str, target: str, nodes: dict[str, Any], graph: nx.DiGraph) -> bool:
    """Whether a node is a Scale that leads from one node to another and nowhere else."""
    ends = ([source], [target])
    return kind_of(nodes[name]) == "Scale" and (list(graph.predecessors(name)), list(graph.successors(name))) == ends


def leak(name: str, node: Any, reading: Reading) -> tuple[Reals, Reals]:
    """What an input of 1 adds to a leaking or plain integrator, and the share that is left after a step."""
    if kind_of(node) in ("I", "IF"):
        r = numbers(node.r)
        return reading.step * r, np.ones_like(r)
    keep = kept(name, "tau", node.tau, reading)
    return (1 - keep) * numbers(node.r), keep


def kept(name: str, what: str, tau: Any, reading: Reading) -> Reals:
    share = reading.kept(numbers(tau))
    if not np.all((share >= 0) & (share < 1)):
        worst = numbers(tau)[np.argmin(np.where(np.isfinite(share), share, -np.inf))]
        raise ConfigError(
            f"NIR node {name!r}: {what} is {worst:g}, which a step of {reading.step:g} does not allow; are dt and unit "
            "those of the file?"
        )
    return share


def read_neuron(name: str, node: Any, reading: Reading, dt: float, reset: str, delayed: bool, arriving: int) -> Reads:
    """The population of a node; times in ms, ``dt`` being a step. ``arriving``: how many neurons its inputs reach.

    Errors as for ``from_nir``.
    """
    circuit, stock = (node, None) if isinstance(node, Circuit) else (None, node)
    leaks: tuple[Any, ...] = circuit.leaks if circuit else (stock,)
    fields = (*leaks, circuit.threshold) if circuit else leaks
    given = {len(numbers(value)) for field in fields for value in vars(field).values() if hasattr(value, "shape")}
    size = arriving if given <= {1} else max(given)
    if not given <= {1, size}:
        raise GraphError(f"NIR node {name!r}: its parameters are of {', '.join(map(str, sorted(given)))} neurons")

    def time(tau: Any) -> Any:
        return shared(numbers(tau) * dt / reading.step)

    if stock is not None and kind_of(stock) == "CubaLIF":
        syn = kept(name, "tau_syn", stock.tau_syn, reading)
        mem = kept(name, "tau_mem", stock.tau_mem, reading)
        gain, constant = (1 - mem) * numbers(stock.r) * (1 - syn) * numbers(stock.w_in), _constant(stock, mem)
        taus = [time(stock.tau_syn), time(stock.tau_mem)]
    else:
        parts = [leak(name, part, reading) for part in leaks]
        gain = np.prod([g for g, _ in parts], axis=0)
        constant = np.sum([_constant(part, keep) for part, (_, keep) in zip(leaks, parts, strict=True)], axis=0)
        taus = [time(part.tau) if hasattr(part, "tau") else np.inf for part in leaks]
    if len(taus) > 1 and np.any(constant):
        raise GraphError(f"NIR node {name!r}: two leaks in a row with v_leak other than 0 have no counterpart")
    options: dict[str, Any] = {"integrator": reading.integrator, "tau_mem": taus[-1]}
    kind: type[Neuron] = LIF
    if len(taus) > 1:
        kind, options["tau_syn"] = CuBaLIF, taus[0]
    if circuit:
        options |= {"reset": circuit.reset, "threshold": shared(numbers(circuit.threshold.threshold))}
    elif kind_of(stock) in LEAKS:
        kind = Integrator
    elif stock is not None:
        options |= {"reset": reset, "reset_delayed": delayed, "threshold": shared(numbers(stock.v_threshold))}
        if reset == "to_value" and np.any(numbers(stock.v_reset)):
            options["v_reset"] = shared(numbers(stock.v_reset))
    whole = (np.broadcast_to(value, size).copy() for value in (gain, constant))
    return Reads(kind(size, **options), *whole)


def _constant(node: Any, keep: Reals) -> Reals:
    """What a resting potential other than 0 adds in a step."""
    return (1 - keep) * numbers(node.v_leak) if hasattr(node, "v_leak") else 0 * keep


def shared(values: Reals) -> Any:
    """One number where all are equal."""
    return float(values[0]) if np.all(values == values[0]) else values
