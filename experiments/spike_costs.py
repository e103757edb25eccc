"""What a run of a network costs, counted as NeuroBench 2 does: synaptic operations, sparsity, footprint.

A synaptic operation is a product of a weight and an input, per sample. ``dense`` counts all; an effective one has
neither factor 0. It is an accumulate (AC) if all inputs of the connection are -1, 0 or 1 in that call (here: that
step), else a multiply-accumulate (MAC). Biases are not counted. Activation sparsity is the share of zeros among the
outputs of spiking populations. [Yik et al. 2025, "The neurobench framework", Nature Communications 16, 1545]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..networks import Network


@dataclass(frozen=True)
class SpikeCosts:
    """Per sample, but for the last three.

    Attributes:
        effective_macs, effective_acs, dense: synaptic operations.
        spikes: nonzero outputs of spiking populations.
        activation_sparsity: share of zeros among these outputs, 0 to 1.
        connection_sparsity: share of zero weights.
        footprint: bytes of parameters and of the buffers that evaluation needs.
    """

    effective_macs: float
    effective_acs: float
    dense: float
    spikes: float
    activation_sparsity: float
    connection_sparsity: float
    footprint: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def spike_costs(net: Network, x: Tensor | Mapping[str, Tensor]) -> SpikeCosts:
    """Run ``net`` in evaluation on ``x`` [T, B, N] from its initial state and count.

    A connection multiplies in each step what its source sent as many steps before as the delay; a connection with
    delays of its own per synapse is counted as if they were 0, which changes the count by what is still under way at
    the end of a sample.
    """
    net.eval()
    names = [*net.inputs, *net.populations]
    with torch.no_grad():
        sent = net(x, record=names).recorded
    spiking = [n for n in net.populations if _is_spiking(sent[n])]
    steps, batch = next(iter(sent.values())).shape[:2]
    macs = acs = dense = 0.0
    weights = zeros = 0
    for source, _, key, delay in net.graph.edges(keys=True, data="delay"):
        connection = net.connection(key)
        weight = connection.weight.detach()
        shift = 0 if connection.delay is not None else int(delay)
        given = sent[source][: steps - shift] if shift else sent[source]
        used = (weight != 0).sum(0).to(torch.float64)
        effective = (given != 0).to(torch.float64) @ used  # [T, B]
        whole = ((given == 0) | (given.abs() == 1)).flatten(1).all(1)
        acs += float(effective[whole].sum())
        macs += float(effective[~whole].sum())
        dense += float(weight.numel()) * steps * batch
        weights, zeros = weights + weight.numel(), zeros + int((weight == 0).sum())
    outputs = sum(sent[n].numel() for n in spiking)
    fired = sum(int((sent[n] != 0).sum()) for n in spiking)
    buffers = [b for name, b in net.named_buffers() if not name.endswith("num_batches_tracked")]
    return SpikeCosts(
        effective_macs=macs / batch,
        effective_acs=acs / batch,
        dense=dense / batch,
        spikes=fired / batch,
        activation_sparsity=1 - fired / outputs if outputs else 0.0,
        connection_sparsity=zeros / weights if weights else 0.0,
        footprint=sum(t.numel() * t.element_size() for t in (*net.parameters(), *buffers)),
    )


def _is_spiking(sent: Tensor) -> bool:
    return bool(((sent == 0) | (sent.abs() == 1)).all())
