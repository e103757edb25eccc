"""Training with weights as a device will have them: rounded to few bits, some of them taken out.

The rounding is that of the export: all connections into a neuron share one scale, the largest of their absolute
weights (batch norm folded in) over the largest whole number. Forward runs see rounded weights, gradients pass straight
through to the weights behind them. [Bengio, Léonard, Courville 2013, the straight-through estimator; Jacob et al. 2018]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .dense import Dense
from .network import Network
from .per_channel import Copies


class _Straight(torch.autograd.Function):
    """The second argument, with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


class Compressed:
    """What a connection of a compressed network is beside its own class; its ``weight`` is the one that is used."""

    own: type[Dense]
    mask: Tensor | None
    bits: int
    siblings: list[Dense]

    def thinned(self) -> dict[str, Tensor]:
        """What a file holds of a matrix that is repeated."""
        matrix = getattr(self, "matrix", None)
        return {} if matrix is None or self.mask is None else {"matrix": matrix * _once(self, self.mask)}


_KINDS: dict[type[Dense], type[Dense]] = {}


def compress(net: Network, bits: int = 0, masks: Mapping[str, Tensor] | None = None) -> None:
    """From now on run ``net`` with compressed weights, in training and in evaluation.

    What is learned are the weights behind them; ``save_network`` writes the weights as they are used, so that what is
    read back is an ordinary network, and ``quantize`` with the same ``weight_bits`` rounds it to the very numbers that
    training saw (a matrix that is repeated is written without the weights that are out, and rounded only then). Calling
    it again replaces what was asked before; without arguments it ends.

    Args:
        bits: 2 to 8; 0: not rounded.
        masks: by connection [N_target, N_source], 1 where a weight stays and 0 where it is out; of ``Copies`` the same
            for all copies.

    Raises:
        ConfigError: for other bits, or masks that do not fit.
    """
    if bits != 0 and not 2 <= bits <= 8:
        raise ConfigError(f"compress: bits must be 2 to 8, or 0 for weights that are not rounded, got {bits!r}")
    masks = masks or {}
    for key, mask in masks.items():
        if key not in net.connections:
            raise ConfigError(f"compress: there is no connection {key!r}; there are {', '.join(net.connections)}")
        weight = net.connection(key).weight
        if mask.shape != weight.shape or not bool(((mask == 0) | (mask == 1)).all()):
            raise ConfigError(f"compress: the mask of {key!r} must be zeros and ones {tuple(weight.shape)}")
        if not _own_weights(net.connection(key)):
            raise ConfigError(f"compress: {key!r} repeats one matrix; its weights cannot be taken out one by one")
        connection = net.connection(key)
        if not torch.equal(_every(connection, _once(connection, mask)), mask):
            raise ConfigError(f"compress: the mask of {key!r} must be the same for all copies")
    for name in net.populations:
        into = [net.connection(key) for _, _, key in net.graph.in_edges(name, keys=True)]
        for connection in into:
            if isinstance(connection, Compressed):
                connection.__class__ = connection.own  # pyright: ignore[reportAttributeAccessIssue]
    for name in net.populations:
        keys = [key for _, _, key in net.graph.in_edges(name, keys=True)]
        for key in keys if bits or masks else ():
            connection = net.connection(key)
            mask = masks.get(key)
            connection.register_buffer("mask", None if mask is None else mask.to(connection.weight), persistent=False)
            own = type(connection)
            connection.__dict__ |= {"own": own, "bits": bits, "siblings": [net.connection(k) for k in keys]}
            if own not in _KINDS:
                # also where an engine asks for the smaller matrix behind the weights
                used = {"weight": property(_used), "shared": lambda c: (_used(c), (1, 1))}
                _KINDS[own] = type(f"Compressed{own.__name__}", (Compressed, own), used)
            connection.__class__ = _KINDS[own]


def _used(connection: Any) -> Tensor:
    weight = _masked(connection)
    if not connection.bits:
        return weight
    with torch.no_grad():
        top = (1 << (connection.bits - 1)) - 1
        peaks = [(_masked(c) * _gain(c)).abs().amax(1) for c in connection.siblings]
        peak = torch.stack(peaks).amax(0).double()
        scale = torch.where(peak > 0, peak, peak.max().clamp(min=torch.finfo(torch.float32).tiny)).unsqueeze(1) / top
        gain = _gain(connection)
        folded = weight * gain
        whole = (folded / scale).round().clamp(-top, top)
        rounded = torch.where(gain == 0, weight.double(), whole * scale / gain).to(weight)
    return _Straight.apply(weight, rounded)  # type: ignore[return-value]


def _masked(connection: Any) -> Tensor:
    # past this property, to where the weights lie
    own = connection._parameters.get("weight")
    weight = connection.own.weight.fget(connection) if own is None else own
    return weight if connection.mask is None else weight * connection.mask


def _gain(connection: Any) -> Tensor:
    """What batch norm multiplies each row with in evaluation, float64 [N_target, 1] or [1, 1]."""
    norm = connection.norm
    if norm is None:
        return torch.ones(1, 1, dtype=torch.float64, device=next(connection.parameters()).device)
    return (norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()).unsqueeze(1)


def magnitude_masks(net: Network, share: float) -> dict[str, Tensor]:
    """Masks that take out the ``share`` of the weights of each connection that are smallest, batch norm folded in.

    Of copies all or none. Weights that channels share (``PerChannel``) and fixed ones stay. Raises :class:`ConfigError`
    for a share outside [0, 1).
    """
    _check_share(share)
    masks = {}
    for key in net.connections:
        connection = net.connection(key)
        if _own_weights(connection):
            size = _once(connection, (connection.weight.detach() * _gain(connection)).abs())
            mask = torch.ones_like(size).flatten()
            mask[size.flatten().argsort()[: round(share * len(mask))]] = 0.0
            masks[key] = _every(connection, mask.view_as(size))
    return masks


def activity_masks(net: Network, spikes: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks that take out the ``share`` of the neurons of each population that send least: their ``spikes`` [N] times
    the absolute weights that they reach. All connections from and to such a neuron go; nothing then reads it, and the
    export leaves it out.

    Args:
        spikes: mean spikes of each neuron, by population; others are not pruned, nor are those whose neurons are copies
            or share a matrix, as a Legendre memory's. The population that is read out must not be among them.

    Raises:
        ConfigError: for a share outside [0, 1), an unknown population, or the one that is read out.
    """
    _check_share(share)
    out: dict[str, Tensor] = {}
    for name, rate in spikes.items():
        if name not in net.populations or (net.readout_of and net.readout_of[0] == name):
            raise ConfigError(f"activity_masks: {name!r} is not a population that may lose neurons")
        into = [net.connection(key) for _, _, key in net.graph.in_edges(name, keys=True)]
        beyond = [net.connection(key) for _, _, key in net.graph.out_edges(name, keys=True)]
        alone = [_copies(c)[0] == 1 for c in into] + [_copies(c)[1] == 1 for c in beyond]
        if not all(alone) or not all(map(_own_weights, into + beyond)):
            continue
        reach = torch.zeros(net.neuron(name).size)
        for _, _, key in net.graph.out_edges(name, keys=True):
            weight = (net.connection(key).weight.detach() * _gain(net.connection(key))).abs().sum(0)
            reach += weight.view(-1, len(reach)).sum(0).to(reach)
        keep = torch.ones(len(reach))
        keep[(rate.to(reach) * reach).argsort()[: round(share * len(reach))]] = 0.0
        out[name] = keep
    masks = {}
    for a, b, key in net.graph.edges(keys=True):
        connection = net.connection(key)
        if _own_weights(connection) and (a in out or b in out):
            mask = torch.ones_like(connection.weight.detach())
            if b in out:
                mask *= out[b].to(mask).unsqueeze(1)
            if a in out:
                mask *= out[a].to(mask).repeat(connection.parts)
            masks[key] = mask
    return masks


def _own_weights(connection: Dense) -> bool:
    """Whether weights can be taken out one by one, all copies of one together."""
    learned = {name for name, p in connection.named_parameters() if p.requires_grad}
    return "weight" in dict(connection.named_parameters()) or (isinstance(connection, Copies) and "matrix" in learned)


def _copies(connection: Any) -> tuple[int, int]:
    return (connection.targets, connection.sources) if isinstance(connection, Copies) else (1, 1)


def _once(connection: Any, values: Tensor) -> Tensor:
    """Of ``values`` [N_target, N_source] one for all copies."""
    targets, sources = _copies(connection)
    return values[::targets, ::sources]


def _every(connection: Any, values: Tensor) -> Tensor:
    targets, sources = _copies(connection)
    return values.repeat_interleave(targets, 0).repeat_interleave(sources, 1)


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(f"the share that is taken out must be at least 0 and below 1, got {share!r}")
