from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, GraphError
from .dense import Dense


class PerChannel(Dense):
    """One matrix for all channels: each channel's targets receive ``matrix`` times the same channel's sources.

    The neurons of a (channels, n) population are numbered channel by channel, so that the connection is ``Dense`` with
    weights kron(1, matrix); whatever runs, saves or exports a Dense connection handles it so, and only the entries of
    the matrix are parameters. As the memory of a Legendre memory unit needs: ``PerChannel(a)`` from (channels, order)
    to itself, ``PerChannel(b)`` into it.

    Args:
        matrix: [targets per channel, sources per channel]; the sizes of the two populations give the channels.
        learn: whether the matrix (and bias) are learned.
        bias: add a learnable constant current per target neuron.
        dropout: probability of silencing a source neuron for a whole sample, as for :class:`Dense`.

    Raises:
        ConfigError: for a matrix that is not two-dimensional or not finite, and, when connected, one that does not
            divide both populations into the same number of channels.
    """

    kind = "per_channel"

    def __init__(
        self, matrix: Tensor | np.ndarray, learn: bool = False, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(bias=bias, dropout=dropout, learn=learn)
        try:
            given = torch.as_tensor(matrix).detach().to(torch.get_default_dtype()).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"PerChannel: matrix must be a tensor or array of numbers ({error})") from error
        if given.ndim != 2 or 0 in given.shape or not torch.isfinite(given).all():
            raise ConfigError(
                f"PerChannel: matrix must be finite numbers [targets, sources] per channel, got {tuple(given.shape)}"
            )
        self.matrix = nn.Parameter(given, requires_grad=learn)
        self.channels = 0

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights of the equal Dense connection, [N_target, N_source]; gradients pass to the matrix."""
        if not self.built:
            raise GraphError("PerChannel: its weights are known once it is connected")
        return torch.block_diag(*[self.matrix] * self.channels)

    def build(self, n_source: int, n_target: int, loop: bool, label: str) -> None:
        """Fix the number of channels; called by ``Network.connect``."""
        if self.built:
            raise GraphError(f"{label}: this PerChannel object is already connected; use a new one for each connection")
        targets, sources = self.matrix.shape
        channels = n_target // targets
        if channels * targets != n_target or channels * sources != n_source:
            raise ConfigError(
                f"{label}: a matrix {(targets, sources)} needs populations of channels x {targets} and channels x "
                f"{sources} neurons; they have {n_target} and {n_source}"
            )
        self.channels = channels
        if self._options["bias"]:
            self.bias = nn.Parameter(torch.zeros(n_target), requires_grad=self.matrix.requires_grad)
        self._options = {}
        self.built = True

    def extra_repr(self) -> str:
        return f"{self.channels} channels, matrix {tuple(self.matrix.shape)}, learn={self.matrix.requires_grad}"
