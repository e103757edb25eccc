"""Where a training begins: with a new network, or with that of a finished run, to be compressed."""

from __future__ import annotations

import torch

from ..errors import ConfigError
from ..networks import Network, activity_masks, compress, load_network, magnitude_masks
from .batch import Split
from .config import Config
from .evaluation import evaluate
from .model import build_network
from .runs import find_run


def begin(config: Config, training: Split) -> Network:
    """The network that ``config`` trains: a new one, or that of ``compression.start``, whose weights, biases and batch
    norms are trained further while its neurons stay as they are. With its rounding and its masks in place.

    Raises:
        RunError: there is no such run.
        ConfigError: its network does not fit the data.
    """
    c = config.compression
    if not c.start:
        net = build_network(config, training.channels, len(training.classes))
    else:
        folder = find_run(c.start)
        net = load_network(folder)
        net.engine = config.training.engine
        sizes = [net.graph.nodes[n]["size"] for n in net.inputs]
        if sizes != [training.channels] or net.readout_of is None:
            raise ConfigError(f"the network of {folder} takes {sizes} channels; the data have {training.channels}")
    if c.bits or c.prune or c.prune_neurons:
        masks = magnitude_masks(net, c.prune) if c.prune else {}
        if c.prune_neurons:
            compress(net, 0, masks)
            rates = {n: torch.from_numpy(r) for n, r in evaluate(net, training).rates.items()}
            compress(net)
            for key, mask in activity_masks(net, rates, c.prune_neurons).items():
                masks[key] = mask * masks[key] if key in masks else mask
        compress(net, c.bits, masks)
    return net
