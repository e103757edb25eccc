"""Networks for sensor windows: a spiking Legendre memory unit, or a recurrent network of as many parameters."""

from __future__ import annotations

import copy

import torch

from ..errors import ConfigError
from ..networks import Dense, Network
from ..networks.l2mu import L2MU, sensor_input
from ..neurons import Integrator
from ..neurons.surrogate import SURROGATES
from .config import Config
from .model import INPUT, READOUT, build_network, input_kind, make_hidden


def build_har(config: Config, channels: int, classes: int) -> Network:
    """The network of ``config.model`` for values [T, B, ``channels``].

    ``block=recurrent`` is :func:`build_network`'s. ``block=l2mu`` is a :class:`L2MU` whose hidden neurons (``neuron``,
    ``hidden``) are read by an integrator; it reads the axes themselves, or ``sensor`` spiking neurons for each axis.

    Raises:
        ConfigError: more than one hidden size for l2mu, or what L2MU refuses.
    """
    m = config.model
    if m.block == "recurrent":
        return build_network(config, channels, classes)
    if len(m.hidden) != 1:
        raise ConfigError(f"model.block=l2mu has one hidden population; model.hidden has {len(m.hidden)} sizes")
    net = Network(dt=config.data.dt, engine=config.training.engine)
    surrogate = SURROGATES[m.surrogate](width=m.surrogate_width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        source = net.input(channels, name=INPUT, kind=input_kind(config))
        if m.sensor:
            source = sensor_input(net, source, m.sensor, tau_mem=m.tau_mem[0], surrogate=surrogate)
        block = L2MU(
            net,
            source,
            channels=m.channels,
            order=m.order,
            theta=m.theta,
            hidden=m.hidden[0],
            memory=m.memory,
            feedback=m.feedback,
            copies=m.copies if m.memory == "sigma_delta" else 1,
            neuron={"hidden": lambda size: make_hidden(m, size), "memory_input": "lif", "memory": "lif"},
            tau_mem=config.data.dt,
            threshold=0.4,
            surrogate=surrogate,
            name="l2mu",
        )
        learn = ("tau_mem",) if m.learn_tau_readout else ()
        out = net.population(Integrator(classes, tau_mem=m.tau_readout, learn=learn, per_neuron=learn), name=READOUT)
        net.connect(
            block.hidden, out, Dense(bias=m.readout_bias, dropout=m.dropout, init="normal", gain=m.readout_gain)
        )
        net.readout(out, m.readout)
    return net


def recurrent_twin(config: Config, channels: int, classes: int) -> Config:
    """The same settings with ``block=recurrent`` and as many hidden neurons as bring its parameters nearest to those of
    ``config``'s network.
    """
    wanted = build_har(config, channels, classes).count_parameters()
    twin = copy.deepcopy(config)
    twin.model.block = "recurrent"

    def count(size: int) -> int:
        twin.model.hidden = [size]
        return build_har(twin, channels, classes).count_parameters()

    low, high = 1, 2
    while count(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    best = min((low, high), key=lambda size: abs(count(size) - wanted))
    twin.model.hidden = [best]
    return twin
