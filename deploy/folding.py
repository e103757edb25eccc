"""Connections as an artefact has them: batch norm folded into weights and bias, one entry for each tap, delays in whole
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from ..errors import ExportError
from ..networks import Network, delays_of
from .arrivals import lowered_delays


@dataclass(frozen=True)
class Folded:
    """``weights`` float64 [N_target, N_source], and ``delay`` and ``delays`` of an :class:`IntConnection`."""

    name: str
    source: str
    weights: np.ndarray
    delay: int
    delays: Mapping[str, np.ndarray] = field(default_factory=dict)


def fold(net: Network, name: str, label: str) -> tuple[tuple[Folded, ...], np.ndarray]:
    """All connections into population ``name``, and its bias [N], float64.

    Raises:
        ExportError: for weights that are not finite; ``label`` names the population.
    """
    size = net.neuron(name).size
    order = [n for stage in net.schedule() for n in stage.populations]
    earlier = {*net.inputs, *order[: order.index(name)]}
    bias = np.zeros(size)
    result = []
    for source, _, key, delay in net.graph.in_edges(name, keys=True, data="delay"):
        c = net.connection(key)
        w, b = _numbers(c.weight), np.zeros(size) if c.bias is None else _numbers(c.bias)
        if c.norm is not None:
            mean, var, gamma, beta = (_numbers(t) for t in norm_parts(c.norm))
            gain = gamma / np.sqrt(var + c.norm.eps)
            w, b = w * gain[:, None], (b - mean) * gain + beta
        if not np.all(np.isfinite(w)) or not np.all(np.isfinite(b)):
            raise ExportError(f"{label}: connection {key!r} has weights that are not finite")
        bias += b
        own = {d.kind: d.whole().cpu().numpy() for d in delays_of(c)}
        for tap, part in enumerate(np.split(w, c.parts, axis=1)):
            called = key if tap == 0 else f"{key}#{tap + 1}"
            tables = {kind: np.split(d, c.parts, axis=1)[tap] if kind == "synaptic" else d for kind, d in own.items()}
            first, later = lowered_delays(0 if own else delay, tables, source in earlier, called)
            result.append(Folded(called, source, part, first, later))
    return tuple(result), bias


def norm_parts(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Running mean and variance, scale and shift."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def _numbers(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().astype(np.float64)
