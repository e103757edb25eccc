from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError, GraphError
from ..neurons import sequence_delayed, sequence_product
from .delay import Delay


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
        weight: initial weights [N_target, N_source], instead of ``init``.
        learn: whether the weights (and bias) are learned.
        delay: a :class:`Delay`, for delays of its own per source, target or pair; otherwise ``connect`` gives one.

    Raises:
        ConfigError: for a dropout outside [0, 1), an unknown init, weights of the wrong shape or not finite.
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
        delay: Delay | None = None,
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
        if delay is not None and not isinstance(delay, Delay):
            raise ConfigError(f"Dense: delay must be a Delay such as Delay(max=20.0), got {type(delay).__name__}")
        self.delay = delay
        self.bias: nn.Parameter | None = None
        self.norm: nn.BatchNorm1d | None = None
        self.built = False

    def build(self, n_source: int, n_target: int, loop: bool, label: str) -> None:
        """Allocate the weights; called by ``Network.connect``. Raises :class:`GraphError` if this object is already
        connected.
        """
        if self.built:
            raise GraphError(f"{label}: this Dense object is already connected; use a new one for each connection")
        options = self._options
        weight = torch.empty(n_target, n_source)
        if options["weight"] is not None:
            try:
                given = torch.as_tensor(options["weight"]).detach().to(weight.dtype)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"{label}: weight must be a tensor or array [N_target, N_source] of numbers ({error})"
                ) from error
            if given.shape != weight.shape:
                raise ConfigError(
                    f"{label}: weight must be [N_target, N_source] = {tuple(weight.shape)}, got {tuple(given.shape)}"
                )
            if not torch.isfinite(given).all():
                raise ConfigError(f"{label}: weight has values that are not finite")
            weight.copy_(given)
        elif options["init"] == "zeros":
            weight.zero_()
        elif options["init"] == "orthogonal" or (options["init"] == "auto" and loop):
            nn.init.orthogonal_(weight, gain=options["gain"])
        else:
            nn.init.normal_(weight, std=options["gain"] / n_source**0.5)
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
        return torch.bernoulli(self.weight.new_full((batch, self.weight.shape[1]), keep)) / keep

    def forward(
        self, source: Tensor, valid: Tensor | None = None, engine: str = "eager", history: Tensor | None = None
    ) -> Tensor:
        """The current of a whole sequence: ``source`` [T, B, N_source] to [T, B, N_target]. ``valid`` [T, B] marks
        unpadded steps; ``engine`` is the network's; ``history`` [D, B, N_source] is what was sent before, for a
        connection with a :class:`Delay`.

        Raises:
            DataError: in training with batch norm, for a single unpadded step, of which there are no statistics.
        """
        mask = self.source_mask(source.shape[1])
        sent = source if mask is None else source * mask
        if self.delay is None:
            current = sequence_product(engine, sent, self.weight, self.bias)
        else:
            past = source.new_zeros(self.delay.high, *source.shape[1:]) if history is None else history.to(source)
            past = past[len(past) - self.delay.high :]
            whole = torch.cat([past if mask is None else past * mask, sent])
            current = sequence_delayed(engine, whole, self.weight, self.bias, self.delay.taps(), len(source))
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
            **({} if self.delay is None else {"delay": self.delay.spec()}),
        }
