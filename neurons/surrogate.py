"""Surrogate gradients: spikes are a step forward, and have one of these derivatives backward.

Each is a frozen dataclass with one number, ``width``, in units of the membrane potential (larger = wider).
``derivative(x)`` with ``x = v - threshold`` is written with traceable operations only, so that a fused kernel can print
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ConfigError


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(x), None


@dataclass(frozen=True)
class Surrogate:
    """Base: ``surrogate(x)`` is 1 where x > 0 else 0, with ``derivative(x)`` in the backward pass."""

    width: float = 1.0
    kind: ClassVar[str] = ""
    compact: ClassVar[bool] = False
    """Whether the derivative is 0 beyond some distance, so that engines may skip what is multiplied with it."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if (
                not isinstance(value, int | float)
                or isinstance(value, bool)
                or not (math.isfinite(value) and value > 0)
            ):
                raise ConfigError(f"{type(self).__name__}: {item.name} must be a positive number, got {value!r}")

    def derivative(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no derivative(x)")

    def antiderivative(self, x: Tensor) -> Tensor:
        """The smooth function with this derivative that is 0 at 0: what a network's smooth twin sends instead of
        spikes.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no antiderivative(x)")

    def __call__(self, x: Tensor) -> Tensor:
        return _Fire.apply(x, self)  # type: ignore[return-value]

    def spec(self) -> dict[str, Any]:
        """Name and numbers, for JSON; :func:`surrogate_from_spec` reads it.

        Raises:
            ConfigError: for a class of your own that is not in ``SURROGATES``; what it wrote could not be read back.
        """
        if SURROGATES.get(self.kind) is not type(self):
            raise ConfigError(
                f"{type(self).__name__} cannot be saved: give it a kind of its own and set "
                f"SURROGATES[{type(self).__name__}.kind] to it"
            )
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in fields(self)}}


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """1 / (1 + |x| / width)^2. Zenke & Ganguli 2018 (SuperSpike), with slope 1 / width."""

    width: float = 0.1
    kind: ClassVar[str] = "fast_sigmoid"

    def derivative(self, x: Tensor) -> Tensor:
        y = abs(x) * (1.0 / self.width) + 1.0
        return 1.0 / (y * y)

    def antiderivative(self, x: Tensor) -> Tensor:
        return x / (abs(x) * (1.0 / self.width) + 1.0)


@dataclass(frozen=True)
class ATan(Surrogate):
    """1 / (1 + (x / width)^2), with peak 1. Fang et al. 2021 (PLIF), whose alpha is 2 / (pi width) and whose peak is
    alpha / 2.
    """

    width: float = 0.3
    kind: ClassVar[str] = "atan"

    def derivative(self, x: Tensor) -> Tensor:
        y = x * (1.0 / self.width)
        return 1.0 / (y * y + 1.0)

    def antiderivative(self, x: Tensor) -> Tensor:
        return torch.atan(x * (1.0 / self.width)) * self.width


@dataclass(frozen=True)
class Triangle(Surrogate):
    """max(0, 1 - |x| / width). Esser et al. 2016; Bellec et al. 2018 (there damped by 0.3). Zero beyond ``width``."""

    width: float = 1.0
    kind: ClassVar[str] = "triangle"
    compact: ClassVar[bool] = True

    def derivative(self, x: Tensor) -> Tensor:
        return torch.maximum(1.0 - abs(x) * (1.0 / self.width), torch.zeros_like(x))

    def antiderivative(self, x: Tensor) -> Tensor:
        y = torch.clamp(x, -self.width, self.width)
        return y - y * abs(y) * (0.5 / self.width)


@dataclass(frozen=True)
class Boxcar(Surrogate):
    """1 / (2 width) where |x| < width, else 0. Kaiser et al. 2020 (DECOLLE)."""

    width: float = 0.5
    kind: ClassVar[str] = "boxcar"
    compact: ClassVar[bool] = True

    def derivative(self, x: Tensor) -> Tensor:
        return torch.where(abs(x) < self.width, torch.ones_like(x), torch.zeros_like(x)) * (0.5 / self.width)

    def antiderivative(self, x: Tensor) -> Tensor:
        return torch.clamp(x, -self.width, self.width) * (0.5 / self.width)


@dataclass(frozen=True)
class Gaussian(Surrogate):
    """exp(-x^2 / (2 width^2)) / (width sqrt(2 pi)). Yin et al. 2021."""

    width: float = 0.5
    kind: ClassVar[str] = "gaussian"

    def derivative(self, x: Tensor) -> Tensor:
        return torch.exp(x * x * (-0.5 / self.width**2)) * (1.0 / (self.width * math.sqrt(2 * math.pi)))

    def antiderivative(self, x: Tensor) -> Tensor:
        return torch.erf(x * (1.0 / (self.width * math.sqrt(2.0)))) * 0.5


@dataclass(frozen=True)
class SlayerExp(Surrogate):
    """scale exp(-|x| / width). Shrestha & Orchard 2018 (SLAYER); SE-adLIF uses scale 0.4 and width 1 / 5."""

    width: float = 0.2
    scale: float = 0.4
    kind: ClassVar[str] = "slayer_exp"

    def derivative(self, x: Tensor) -> Tensor:
        return torch.exp(abs(x) * (-1.0 / self.width)) * self.scale

    def antiderivative(self, x: Tensor) -> Tensor:
        y = 1.0 - torch.exp(abs(x) * (-1.0 / self.width))
        return torch.where(x > 0, y, -y) * (self.scale * self.width)


@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """1 everywhere, divided by ``width``. Bengio et al. 2013."""

    kind: ClassVar[str] = "straight_through"

    def derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x) * (1.0 / self.width)

    def antiderivative(self, x: Tensor) -> Tensor:
        return x * (1.0 / self.width)


@dataclass(frozen=True)
class ClippedStraightThrough(Surrogate):
    """1 / width up to x = ``width``, 0 beyond, where a neuron that sends at most one spike a step can send no more.

    Without the clip, loops of saturated neurons amplify gradients that have no counterpart in what is sent. [The
    estimator of Courbariaux, Hubara, Soudry, El-Yaniv, Bengio 2016, "Binarized neural networks", on the side of firing]
    """

    kind: ClassVar[str] = "clipped_straight_through"

    def derivative(self, x: Tensor) -> Tensor:
        return torch.where(x <= self.width, torch.ones_like(x), torch.zeros_like(x)) * (1.0 / self.width)

    def antiderivative(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.width) * (1.0 / self.width)


SURROGATES: dict[str, type[Surrogate]] = {
    cls.kind: cls
    for cls in (
        FastSigmoid,
        ATan,
        Triangle,
        Boxcar,
        Gaussian,
        SlayerExp,
        StraightThrough,
        ClippedStraightThrough,
    )
}


def surrogate_from_spec(spec: Mapping[str, Any]) -> Surrogate:
    """Build a surrogate from ``{"kind": "triangle", "width": 1.0}``. Raises :class:`ConfigError` for an unknown kind or
    field.
    """
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in SURROGATES:
        raise ConfigError(f"surrogate: unknown kind {kind!r}; known: {', '.join(SURROGATES)}")
    try:
        return SURROGATES[kind](**{k: v for k, v in spec.items() if k != "kind"})
    except TypeError as error:
        raise ConfigError(f"surrogate {kind}: {error}") from error
