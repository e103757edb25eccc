"""A network as files: ``graph.json`` (nodes, connections, step programs) and ``model.safetensors`` (weights and
values).

Nothing in them is code: a network reads back, evaluates and exports without the class that defined its neurons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ConfigError, RanvierError, RunError
from ..files import atomic_path
from ..neurons import ProgramNeuron, StepProgram
from .compression import Compressed
from .delay import Delay, delays_of
from .dense import Dense
from .network import Network
from .per_channel import Copies, PerChannel

FORMAT = 1
GRAPH_FILE = "graph.json"
WEIGHTS_FILE = "model.safetensors"


def network_spec(net: Network) -> dict[str, Any]:
    """The graph and its step programs as JSON data. Raises :class:`ConfigError` for a surrogate that could not be read
    back.
    """
    nodes = []
    for name, data in net.graph.nodes(data=True):
        node: dict[str, Any] = {"name": name, "kind": data["kind"], "size": data["size"]}
        if data["kind"] == "input":
            node["port"] = data["port"]
        else:
            neuron = net.neuron(name)
            node["model"] = getattr(neuron, "label", type(neuron).__name__)
            node["program"] = neuron.program(net.dt).to_json()
        nodes.append(node)
    edges = [
        {"name": key, "source": a, "target": b, "delay_steps": delay, **net.connection(key).spec()}
        for a, b, key, delay in net.graph.edges(keys=True, data="delay")
    ]
    readout = None if net.readout_of is None else {"population": net.readout_of[0], "kind": net.readout_of[1]}
    return {"format": FORMAT, "dt": net.dt, "nodes": nodes, "connections": edges, "readout": readout}


def save_network(net: Network, folder: str | Path) -> None:
    """Write ``graph.json`` and ``model.safetensors`` into ``folder``, each atomically."""
    folder = Path(folder)
    spec = network_spec(net)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in net.populations:
            for value, tensor in net.neuron(name).values(net.dt).items():
                tensors[f"populations.{name}.{value}"] = tensor
        for key in net.connections:
            connection = net.connection(key)
            parts = connection.state_dict()
            if "weight" in parts:
                parts["weight"] = connection.weight  # as it is used, where the network is compressed
            if isinstance(connection, Compressed):
                parts |= connection.thinned()
            tensors |= {f"connections.{key}.{part}": tensor for part, tensor in parts.items()}
            for i, delay in enumerate(delays_of(connection)):
                tensors[f"connections.{key}.delays.{i}.steps"] = delay.whole().to(delay.steps)
    with atomic_path(folder / WEIGHTS_FILE) as path:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)
    with atomic_path(folder / GRAPH_FILE) as path:
        path.write_text(json.dumps(spec, indent=1), encoding="utf-8")


def load_network(folder: str | Path) -> Network:
    """Read what :func:`save_network` wrote. Raises :class:`RunError`, naming the file, for anything missing, damaged or
    of another format.
    """
    folder = Path(folder)
    graph_path, weights_path = folder / GRAPH_FILE, folder / WEIGHTS_FILE
    for path in (graph_path, weights_path):
        if not path.is_file():
            raise RunError(
                f"{path} does not exist; a run folder holds {GRAPH_FILE} and {WEIGHTS_FILE} once training has "
                "finished its first epoch"
            )
    try:
        spec = json.loads(graph_path.read_text(encoding="utf-8"))
        version = spec["format"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise RunError(f"{graph_path} is not a network graph ({error})") from error
    if version != FORMAT or isinstance(version, bool):
        raise RunError(
            f"{graph_path} has format {version!r}; this release reads format {FORMAT}. Use the release that wrote it"
        )
    try:
        tensors = load_file(weights_path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{weights_path} cannot be read ({error})") from error
    try:
        return _build(spec, tensors)
    except RanvierError as error:
        raise RunError(f"{folder}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise RunError(f"{folder}: {GRAPH_FILE} and {WEIGHTS_FILE} do not describe a network ({error!r})") from error


def _build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    net = Network(dt=spec["dt"])
    for node in spec["nodes"]:
        if node["kind"] == "input":
            net.input(node["size"], name=node["name"], kind=node["port"])
            continue
        if node["kind"] != "population":
            raise ConfigError(f"node {node['name']!r} is of the unknown kind {node['kind']!r}")
        program = StepProgram.from_json(node["program"])
        values = _part(tensors, f"populations.{node['name']}.")
        net.population(ProgramNeuron(node["size"], program, values, net.dt, str(node["model"])), name=node["name"])
    for edge in spec["connections"]:
        if edge["kind"] not in (Dense.kind, PerChannel.kind, Copies.kind):
            raise ConfigError(f"connection {edge['name']!r} is of the unknown kind {edge['kind']!r}")
        own = _part(tensors, f"connections.{edge['name']}.")
        # the shape is compared before anything of the size that the file claims is allocated
        delays = [_delay(spec, own[f"delays.{i}.steps"], net.dt) for i, spec in enumerate(edge.get("delays", ()))]
        sizes = [net.graph.nodes[edge[end]]["size"] for end in ("target", "source")]
        shape = (sizes[0], sizes[1] * (delays[0].parts if delays else 1))
        shared = edge["kind"] != Dense.kind  # its shape is compared when it is connected
        if not shared and tuple(own["weight"].shape) != shape:
            raise ConfigError(
                f"connection {edge['name']!r} needs weights {shape}, the file has {tuple(own['weight'].shape)}"
            )
        if not all(torch.isfinite(tensor).all() for tensor in own.values()):
            raise ConfigError(f"connection {edge['name']!r} has values that are not finite")
        connection = (
            _from_matrix(edge, own["matrix"])
            if shared
            else Dense(
                bias=edge["bias"] is True,
                batch_norm=edge["batch_norm"] is True,
                dropout=edge["dropout"],
                init="zeros",
                delay=delays,
            )
        )
        if not isinstance(edge["delay_steps"], int):
            raise ConfigError(
                f"connection {edge['name']!r}: delay_steps must be a whole number, got {edge['delay_steps']!r}"
            )
        fixed = None if delays else edge["delay_steps"] * net.dt
        net.connect(edge["source"], edge["target"], connection, delay=fixed, name=edge["name"])
        connection.load_state_dict(own, assign=True)  # keeps the file's dtype
    if spec["readout"] is not None:
        net.readout(spec["readout"]["population"], spec["readout"]["kind"])
    net.schedule()
    return net.eval()


def _from_matrix(edge: Mapping[str, Any], matrix: Tensor) -> PerChannel | Copies:
    bias, dropout = edge["bias"] is True, edge["dropout"]
    learn = edge.get("learn", edge["kind"] == Copies.kind) is True  # older files do not say
    if edge["kind"] == PerChannel.kind:
        return PerChannel(matrix, learn, bias=bias, dropout=dropout)
    targets, sources = edge["copies"]
    return Copies(matrix, targets, sources, learn, bias, dropout)


def _delay(spec: Mapping[str, Any], steps: Tensor, dt: float) -> Delay:
    """The whole steps of a connection's delays; their bounds, shape and values are checked when it is connected."""
    low, high, taps = spec["low"], spec["high"], spec["taps"]
    if not isinstance(low, int) or not isinstance(high, int):
        raise ConfigError("the bounds of a delay must be whole numbers of steps")
    return Delay(max=high * dt, min=low * dt, kind=str(spec["kind"]), init=steps.double() * dt, learn=False, taps=taps)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
