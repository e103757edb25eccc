"""Populations, connections, the network graph, its schedule, readouts, losses and files."""

from .compression import activity_masks, compress, magnitude_masks
from .delay import Delay, DelayWarning, delay_schedule, delays_of
from .dense import Dense
from .files import load_network, network_spec, save_network
from .l2mu import L2MU, memory_matrices, published_l2mu, sensor_input, sigma_delta_memory
from .losses import firing_rates, rate_loss
from .memory import LMU, HiPPOLegS, LegendreMemory, legendre_at, legendre_matrices, legendre_system
from .network import Network, NetworkState, Node, Result
from .per_channel import Copies, PerChannel
from .readout import READOUTS
from .schedule import Stage
from .twin import smooth_twin

__all__ = [
    "L2MU",
    "LMU",
    "READOUTS",
    "Copies",
    "Delay",
    "DelayWarning",
    "Dense",
    "HiPPOLegS",
    "LegendreMemory",
    "Network",
    "NetworkState",
    "Node",
    "PerChannel",
    "Result",
    "Stage",
    "activity_masks",
    "compress",
    "delay_schedule",
    "delays_of",
    "firing_rates",
    "legendre_at",
    "legendre_matrices",
    "legendre_system",
    "load_network",
    "magnitude_masks",
    "memory_matrices",
    "network_spec",
    "published_l2mu",
    "rate_loss",
    "save_network",
    "sensor_input",
    "sigma_delta_memory",
    "smooth_twin",
]
