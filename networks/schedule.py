"""From the network graph to an order of work: feed-forward parts run over all T at once, loops are stepped."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from ..errors import GraphError


@dataclass(frozen=True)
class Stage:
    """Populations run together over T, in their order within a step, and the keys of the connections among them.

    A feed-forward population is a stage of its own without connections inside; a strongly connected component is one
    stage.
    """

    populations: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def is_loop(self) -> bool:
        return bool(self.links)


def make_schedule(graph: nx.MultiDiGraph) -> tuple[Stage, ...]:
    """Stages in an order in which every input of a stage is known before it runs.

    ``graph`` has nodes with ``kind`` and ``index`` (declaration order) and edges with a key and ``delay`` in steps.
    Raises :class:`GraphError` for a cycle of total delay 0, naming its path.
    """
    index = nx.get_node_attributes(graph, "index")
    populations = graph.subgraph([n for n, kind in graph.nodes(data="kind") if kind == "population"])
    condensed = nx.condensation(nx.DiGraph(populations))
    members = nx.get_node_attributes(condensed, "members")
    stages = []
    for part in nx.lexicographical_topological_sort(condensed, key=lambda c: min(index[n] for n in members[c])):
        inside = populations.subgraph(members[part])
        stages.append(Stage(_order(inside, index), tuple(sorted(key for _, _, key in inside.edges(keys=True)))))
    return tuple(stages)


def _order(inside: nx.MultiDiGraph, index: dict[str, int]) -> tuple[str, ...]:
    instant = nx.DiGraph()
    instant.add_nodes_from(inside.nodes)
    instant.add_edges_from((a, b) for a, b, delay in inside.edges(data="delay") if delay == 0)
    try:
        return tuple(nx.lexicographical_topological_sort(instant, key=lambda n: index[n]))
    except nx.NetworkXUnfeasible:
        cycle = [a for a, _ in nx.find_cycle(instant)]
        path = " -> ".join([*cycle, cycle[0]])
        raise GraphError(
            f"the cycle {path} has a total delay of 0; give one of its connections a delay of at least one step"
        ) from None
