from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError, GraphError
from ..neurons import Taps, is_silent, sequence_delayed, sequence_product
from .delay import Delay, delays_of


class Dense(nn.Module):
    """All-to-all connection: I = W s, with optional bias, batch norm and dropout of the source.

    Args:
        bias: add a learnable constant current per target neuron.
        batch_norm: normalise W s over batch and unpadded steps; feed-forward connections only (refused inside a loop),
            folded into the weights at export.
        dropout: probability of silencing a source neuron for a whole sample, in training, drawn once per forward; the
            others are scaled by 1 / (1 - dropout).
        init: ``auto`` (normal for feed-forward, orthogonal for a connection back), ``normal`` (standard deviation gain
            / sqrt(N_source)), ``orthogonal``, or ``zeros``.
        gain: scale of the initial weights, finite and not negative.
        weight: initial weights [N_target, N_source], instead of ``init``; with ``Delay(taps=k)`` k times as wide.
        learn: whether the weights (and bias) are learned.
        delay: a :class:`Delay`, for delays of its own per source, target or pair, or two, an axonal and a dendritic
            one, whose delays add up; otherwise ``connect`` gives one.

    Attributes:
        delays: the :class:`Delay` objects: none, one, or an axonal and a dendritic one in this order.

    Raises:
        ConfigError: for a dropout outside [0, 1), an unknown init, weights of the wrong shape or not finite, or delays
            of two kinds that do not go together.
    """

    weight: nn.Parameter
    kind = "dense"

    def __init__(
        self,
        bias: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.0,
        init: str = "auto",
        gain: float = 1.0,
        weight: Tensor | np.ndarray | None = None,
        learn: bool = True,
        delay: Delay | Sequence[Delay] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(dropout, Real) or not 0 <= dropout < 1:
            raise ConfigError(f"Dense: dropout must be at least 0 and below 1, got {dropout!r}")
        if not isinstance(gain, Real) or not (math.isfinite(gain) and gain >= 0):
            raise ConfigError(f"Dense: gain must be a finite number, 0 or more, got {gain!r}")
        if init not in ("auto", "normal", "orthogonal", "zeros"):
            raise ConfigError(f"Dense: init must be auto, normal, orthogonal or zeros, got {init!r}")
        self.dropout = float(dropout)
        self._options: dict[str, Any] = {
            "bias": bias,
            "batch_norm": batch_norm,
            "init": init,
            "gain": gain,
            "weight": weight,
            "learn": learn,
        }
        self.delays = nn.ModuleList(_checked(delay))
        self.bias: nn.Parameter | None = None
        self.norm: nn.BatchNorm1d | None = None
        self.built = False

    @property
    def delay(self) -> Delay | None:
        """The connection's only :class:`Delay`, or None. Raises :class:`GraphError` if it has two; see ``delays``."""
        if len(self.delays) > 1:
            raise GraphError("the connection has an axonal and a dendritic Delay; read both from its 'delays'")
        return next(iter(delays_of(self)), None)

    @property
    def parts(self) -> int:
        """How many weights, each with a delay of its own, every pair has: ``Delay(taps=...)``."""
        return max((delay.parts for delay in delays_of(self)), default=1)

    def whole_delays(self) -> Tensor:
        """The delay of each weight in whole steps, int64, of the weights' shape [N_target, taps N_source]: of a source
        and a target together, where both have one. Zeros for a connection without a :class:`Delay`.
        """
        total = torch.zeros_like(self.weight, dtype=torch.int64)
        for delay in delays_of(self):
            whole = delay.whole()
            total = total + (whole.unsqueeze(1) if delay.kind == "dendritic" else whole)
        return total

    def taps(self) -> tuple[Taps, ...]:
        """What the connection reads now, of each of its delays."""
        return tuple(delay.taps() for delay in delays_of(self))

    def shared(self) -> tuple[Tensor, tuple[int, int]]:
        """The weights and how many targets and sources in turn have the same, as in :class:`Link`: ``(weight, (1, 1))``
        where every pair has its own.
        """
        return self.weight, (1, 1)

    def build(self, n_source: int, n_target: int, loop: bool, label: str) -> None:
        """Allocate the weights; called by ``Network.connect``. Raises :class:`GraphError` if this object is already
        connected.
        """
        if self.built:
            raise GraphError(f"{label}: this Dense object is already connected; use a new one for each connection")
        options = self._options
        columns = self.parts * n_source
        weight = torch.empty(n_target, columns)
        if options["weight"] is not None:
            try:
                given = torch.as_tensor(options["weight"]).detach().to(weight.dtype)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"{label}: weight must be a tensor or array [N_target, N_source] of numbers ({error})"
                ) from error
            if given.shape != weight.shape:
                raise ConfigError(
                    f"{label}: weight must be [N_target, {'taps ' if self.parts > 1 else ''}N_source] = "
                    f"{tuple(weight.shape)}, got {tuple(given.shape)}"
                )
            if not torch.isfinite(given).all():
                raise ConfigError(f"{label}: weight has values that are not finite")
            weight.copy_(given)
        elif options["init"] == "zeros":
            weight.zero_()
        elif options["init"] == "orthogonal" or (options["init"] == "auto" and loop):
            nn.init.orthogonal_(weight, gain=options["gain"])
        else:
            nn.init.normal_(weight, std=options["gain"] / columns**0.5)
        self.weight = nn.Parameter(weight, requires_grad=options["learn"])
        if options["bias"]:
            self.bias = nn.Parameter(torch.zeros(n_target), requires_grad=options["learn"])
        if options["batch_norm"]:
            self.norm = nn.BatchNorm1d(n_target)
        self._options = {}
        self.built = True

    def source_mask(self, batch: int) -> Tensor | None:
        """A dropout mask [B, N_source] for one forward, or None when there is nothing to drop."""
        if not self.training or self.dropout == 0:
            return None
        keep = 1.0 - self.dropout
        return torch.bernoulli(self.weight.new_full((batch, self.weight.shape[1] // self.parts), keep)) / keep

    def forward(
        self, source: Tensor, valid: Tensor | None = None, engine: str = "eager", history: Tensor | None = None
    ) -> Tensor:
        """The current of a whole sequence: ``source`` [T, B, N_source] to [T, B, N_target]. ``valid`` [T, B] marks
        unpadded steps; ``engine`` is the network's; ``history`` [D, B, N_source] is what was sent before, for a
        connection with delays of its own.

        Raises:
            DataError: in training with batch norm, for a single unpadded step, of which there are no statistics.
        """
        mask = self.source_mask(source.shape[1])
        sent = source if mask is None else source * mask
        if len(self.delays):
            past = None
            # what is 0 is not sent along: a copy of the whole sequence would have to be made for it
            if history is not None and not is_silent(history):
                past = history.to(source) if mask is None else history.to(source) * mask
            current = sequence_delayed(engine, sent, self.weight, self.bias, self.taps(), past)
        else:
            current = sequence_product(engine, sent, self.weight, self.bias)
        if self.norm is None:
            return current
        if self.training and (current.shape[0] * current.shape[1] if valid is None else int(valid.sum())) < 2:
            raise DataError("batch norm needs at least two unpadded steps in a training batch")
        if valid is None:
            return self.norm(current.flatten(0, 1)).view_as(current)
        normed = torch.zeros_like(current)
        normed[valid] = self.norm(current[valid]).to(normed.dtype)
        return normed

    def spec(self) -> dict[str, Any]:
        """What ``graph.json`` says of the connection, beside its ends and delay."""
        return {
            "kind": self.kind,
            "bias": self.bias is not None,
            "batch_norm": self.norm is not None,
            "dropout": self.dropout,
            **({"delays": [delay.spec() for delay in delays_of(self)]} if len(self.delays) else {}),
        }


def _checked(delay: Any) -> list[Delay]:
    given = [] if delay is None else [delay] if isinstance(delay, Delay) else delay
    if not isinstance(given, list | tuple) or not all(isinstance(d, Delay) for d in given):
        raise ConfigError(
            "Dense: delay must be a Delay such as Delay(max=20.0), or an axonal and a dendritic one, got "
            f"{type(delay).__name__}"
        )
    kinds = sorted(d.kind for d in given)
    if len(given) > 1 and kinds != ["axonal", "dendritic"]:
        raise ConfigError(f"Dense: an axonal and a dendritic Delay go together, got {' and '.join(kinds)}")
    return sorted(given, key=lambda d: d.kind)
