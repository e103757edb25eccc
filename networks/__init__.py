"""Populations, connections, the network graph, its schedule, readouts, losses and files."""

from .dense import Dense
from .files import load_network, network_spec, save_network
from .losses import firing_rates, rate_loss
from .network import Network, NetworkState, Node, Result
from .readout import READOUTS
from .schedule import Stage

__all__ = [
    "READOUTS",
    "Dense",
    "Network",
    "NetworkState",
    "Node",
    "Result",
    "Stage",
    "firing_rates",
    "load_network",
    "network_spec",
    "rate_loss",
    "save_network",
]
