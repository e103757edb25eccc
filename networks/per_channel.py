"""Connections whose weights follow from a smaller matrix. All else handles them as the Dense they equal."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, GraphError
from ..neurons import repeated
from .dense import Dense


class _FromMatrix(Dense):
    """Dense whose ``weight`` is computed from ``matrix``, the only thing learned beside the bias."""

    dimensions: tuple[int, ...] = (2,)

    def __init__(self, matrix: Tensor | np.ndarray, learn: bool, bias: bool, dropout: float) -> None:
        super().__init__(bias=bias, dropout=dropout, learn=learn)
        owner = type(self).__name__
        try:
            given = torch.as_tensor(matrix).detach().to(torch.get_default_dtype()).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{owner}: matrix must be a tensor or array of numbers ({error})") from error
        if given.ndim not in self.dimensions or 0 in given.shape or not torch.isfinite(given).all():
            raise ConfigError(
                f"{owner}: matrix must be finite numbers in {' or '.join(map(str, self.dimensions))} dimensions, got "
                f"{tuple(given.shape)}"
            )
        self.matrix = nn.Parameter(given, requires_grad=learn)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights of the equal Dense connection, [N_target, N_source]; gradients pass to the matrix."""
        if not self.built:
            raise GraphError(f"{type(self).__name__}: its weights are known once it is connected")
        return self.expanded()

    def expanded(self) -> Tensor:
        raise NotImplementedError

    def fit(self, n_source: int, n_target: int, label: str) -> None:
        """Take the sizes of the populations; raises :class:`ConfigError` where the matrix does not fit."""
        raise NotImplementedError

    def build(self, n_source: int, n_target: int, loop: bool, label: str) -> None:
        """Take the sizes; called by ``Network.connect``. Raises :class:`GraphError` if already connected."""
        if self.built:
            owner = type(self).__name__
            raise GraphError(f"{label}: this {owner} object is already connected; use a new one for each connection")
        self.fit(n_source, n_target, label)
        if self._options["bias"]:
            self.bias = nn.Parameter(torch.zeros(n_target), requires_grad=self.matrix.requires_grad)
        self._options = {}
        self.built = True

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "learn": self.matrix.requires_grad}

    def extra_repr(self) -> str:
        return f"matrix {tuple(self.matrix.shape)}, learn={self.matrix.requires_grad}"


class PerChannel(_FromMatrix):
    """One matrix for all channels: each channel's targets receive ``matrix`` times the same channel's sources.

    The neurons of a (channels, n) population are numbered channel by channel, so that the connection is ``Dense`` with
    weights kron(1, matrix); whatever runs, saves or exports a Dense connection handles it so, and only the entries of
    the matrix are parameters. As the memory of a Legendre memory unit needs: ``PerChannel(a)`` from (channels, order)
    to itself, ``PerChannel(b)`` into it.

    Args:
        matrix: [targets per channel, sources per channel]; the sizes of the two populations give the channels. Or
            [channels, targets, sources], where every channel has a matrix of its own.
        learn: whether the matrix (and bias) are learned.
        bias: add a learnable constant current per target neuron.
        dropout: probability of silencing a source neuron for a whole sample, as for :class:`Dense`.

    Raises:
        ConfigError: for a matrix of other dimensions or not finite, and, when connected, one that does not divide both
            populations into the same number of channels.
    """

    kind = "per_channel"
    dimensions = (2, 3)

    def __init__(
        self, matrix: Tensor | np.ndarray, learn: bool = False, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(matrix, learn, bias, dropout)
        self.channels = len(self.matrix) if self.matrix.ndim == 3 else 0

    def fit(self, n_source: int, n_target: int, label: str) -> None:
        targets, sources = self.matrix.shape[-2:]
        channels = self.channels or n_target // targets
        if channels * targets != n_target or channels * sources != n_source:
            raise ConfigError(
                f"{label}: a matrix {tuple(self.matrix.shape)} needs populations of {self.channels or 'channels'} x "
                f"{targets} and {self.channels or 'channels'} x {sources} neurons; they have {n_target} and {n_source}"
            )
        self.channels = channels

    def expanded(self) -> Tensor:
        if self.matrix.ndim == 3:
            return torch.block_diag(*self.matrix.unbind())
        return torch.block_diag(*[self.matrix] * self.channels)


class Copies(_FromMatrix):
    """Dense between values that are each carried by several neurons: the ``sources`` neurons of a value are averaged,
    the ``targets`` neurons of a value all receive the same.

    The copies of a value are numbered one after the other, so that the connection is ``Dense`` with weights
    kron(matrix, 1 / sources).

    Args:
        matrix: [target values, source values].
        targets, sources: copies of each value, 1 or more.
        learn: whether the matrix (and bias) are learned.
        bias: add a learnable constant current per target neuron.
        dropout: probability of silencing a source neuron for a whole sample, as for :class:`Dense`.

    Raises:
        ConfigError: for a matrix that is not two-dimensional or not finite, copies below 1, and, when connected,
            populations of other sizes.
    """

    kind = "copies"

    def __init__(
        self,
        matrix: Tensor | np.ndarray,
        targets: int = 1,
        sources: int = 1,
        learn: bool = True,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(matrix, learn, bias, dropout)
        for name, value in (("targets", targets), ("sources", sources)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"Copies: {name} must be a whole number of copies, 1 or more, got {value!r}")
        self.targets, self.sources = int(targets), int(sources)

    def fit(self, n_source: int, n_target: int, label: str) -> None:
        wanted = (self.matrix.shape[0] * self.targets, self.matrix.shape[1] * self.sources)
        if wanted != (n_target, n_source):
            raise ConfigError(
                f"{label}: a matrix {tuple(self.matrix.shape)} with {self.targets} and {self.sources} copies needs "
                f"populations of {wanted[0]} and {wanted[1]} neurons; they have {n_target} and {n_source}"
            )

    def expanded(self) -> Tensor:
        return repeated(self.matrix / self.sources, self.targets, self.sources)

    def shared(self) -> tuple[Tensor, tuple[int, int]]:
        return self.matrix / self.sources, (self.targets, self.sources)

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "copies": [self.targets, self.sources]}
