"""Learned delays of a connection: real-valued in training, whole steps in evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, GraphError
from ..neurons import Taps

KINDS = ("axonal", "dendritic", "synaptic")
KERNELS = ("linear", "triangle", "gaussian")
PHASES = ("soft", "rounded", "frozen")


class DelayWarning(UserWarning):
    """A network has a delay as long as the sequence that it runs over, so that what is sent there never arrives."""


class Delay(nn.Module):
    """The delays of one connection: per source neuron (``axonal``), per target neuron (``dendritic``) or per pair
    (``synaptic``, with one or several taps).

    ``connect(h, h, Dense(delay=Delay(max=60.0)))``; an axonal and a dendritic one together, whose delays add up, as
    ``Dense(delay=(Delay(max=40.0), Delay(max=20.0, kind="dendritic")))``.

    In training a delay is a real number of steps, read through a kernel over the steps around it, so that it has a
    gradient; in evaluation, in files and in what is reported it is rounded to a whole number of steps with a single
    tap. Between the two, training passes through three phases (:meth:`set_phase`): ``soft`` (the kernel, whose
    ``width`` a schedule shrinks), ``rounded`` (one tap at the rounded delay forward, the gradient of linear
    interpolation backward) and ``frozen`` (whole steps, no gradient: the weights adapt to them).

    Bounds are kept by clamping, since a reparameterisation would flatten the gradient near them, where many delays
    belong; a gradient that points further out is dropped there, so that a delay never sticks outside. Taps outside the
    bounds are cut and the kernel normalised again. One bound for all, so that no outlier lengthens the history.
    [Hammouamri, Khalfaoui-Hassani, Masquelier 2024, "Learning Delays in SNNs using Dilated Convolutions with Learnable
    Spacings"; the phases are ours]

    Args:
        max: longest delay in ms.
        kind: ``axonal``, ``dendritic`` or ``synaptic``.
        min: shortest delay in ms; by default 0, and one step for a connection back.
        init: ``uniform`` between the bounds, or delays in ms: a number or an array of the kind's shape ([N_source],
            [N_target] or, one for each weight, [N_target, taps N_source]).
        learn: whether they are learned; otherwise they stay as they are, rounded.
        kernel: ``linear`` (two taps), ``triangle`` or ``gaussian`` of ``width``.
        width: ms; half-width of the triangle beyond one step, or standard deviation of the Gaussian.
        taps: how many delays, each with a weight of its own, a pair has (``synaptic``). The connection then has
            weights [N_target, taps N_source]: those of its first taps, then those of its second, ...

    Raises:
        ConfigError: for an unknown kind or kernel, a bound below the minimum, a delay not finite or out of bounds.
    """

    steps: nn.Parameter
    width: Tensor

    def __init__(
        self,
        max: float,
        kind: str = "axonal",
        min: float | None = None,
        init: str | float | Iterable[float] | np.ndarray | Tensor = "uniform",
        learn: bool = True,
        kernel: str = "linear",
        width: float = 0.0,
        taps: int = 1,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"Delay: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if kernel not in KERNELS:
            raise ConfigError(f"Delay: kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        for name, value in (("max", max), ("min", 0.0 if min is None else min), ("width", width)):
            if not isinstance(value, Real) or isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"Delay: {name} must be a finite time in ms, 0 or more, got {value!r}")
        if kernel == "gaussian" and width == 0:
            raise ConfigError("Delay: a gaussian kernel needs a width above 0 ms")
        if not isinstance(taps, Integral) or isinstance(taps, bool) or taps < 1:
            raise ConfigError(f"Delay: taps must be a whole number of delays for each pair, 1 or more, got {taps!r}")
        if taps > 1 and kind != "synaptic":
            raise ConfigError(f"Delay: several taps belong to a pair: kind='synaptic', got taps={taps} with {kind!r}")
        self.parts = int(taps)
        self.kind, self.kernel, self.learn = kind, kernel, bool(learn)
        self.min_ms, self.max_ms, self.width_ms = min, float(max), float(width)
        self._init = init
        self.phase = "soft"
        self.low = self.high = -1
        self.dt = 0.0
        self.label = "Delay"

    def build(self, n_source: int, n_target: int, dt: float, back: bool, label: str) -> None:
        """Allocate the delays; called by ``Network.connect``.

        Raises:
            ConfigError: for bounds without a whole step between, and initial delays of a wrong shape or out of bounds.
        """
        if self.low >= 0:
            raise GraphError(f"{label}: this Delay object is already in use; make a new one for each connection")
        self.label = label
        low_ms = (dt if back else 0.0) if self.min_ms is None else self.min_ms
        self.low, self.high, self.dt = math.ceil(low_ms / dt - 1e-6), math.floor(self.max_ms / dt + 1e-6), dt
        if self.high < self.low:
            raise ConfigError(
                f"{label}: delays from {low_ms:g} to {self.max_ms:g} ms leave no whole number of steps of {dt:g} ms; "
                "raise Delay(max=...)"
            )
        shapes = {"axonal": (n_source,), "dendritic": (n_target,), "synaptic": (n_target, self.parts * n_source)}
        shape = shapes[self.kind]
        if isinstance(self._init, str):
            if self._init != "uniform":
                raise ConfigError(f"{label}: Delay init must be 'uniform' or delays in ms, got {self._init!r}")
            steps = self.low + (self.high - self.low) * torch.rand(shape)
        else:
            try:
                given = torch.as_tensor(np.asarray(self._init, dtype=np.float64)) / dt
                steps = given.expand(shape).to(torch.get_default_dtype()).clone()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"{label}: Delay init must be a number or an array {shape} of ms ({error})"
                ) from error
            if not torch.isfinite(steps).all():
                raise ConfigError(f"{label}: Delay init has values that are not finite")
            if (steps < self.low - 1e-4).any() or (steps > self.high + 1e-4).any():
                raise ConfigError(
                    f"{label}: Delay init must lie between {self.low * dt:g} and {self.high * dt:g} ms, got "
                    f"{float(steps.min()) * dt:g} to {float(steps.max()) * dt:g}"
                )
        self.steps = nn.Parameter(steps, requires_grad=self.learn)
        self.register_buffer("width", torch.tensor(self.width_ms / dt))
        self._init = ""

    def set_phase(self, phase: str, width: float | None = None) -> None:
        """Enter ``soft``, ``rounded`` or ``frozen``; ``width`` in ms changes the soft kernel's.

        Raises:
            ConfigError: for an unknown phase.
        """
        if phase not in PHASES:
            raise ConfigError(f"Delay: phase must be one of {', '.join(PHASES)}, got {phase!r}")
        self.phase = phase
        self.steps.requires_grad_(self.learn and phase != "frozen")
        if width is not None:
            self.width.fill_(width / self.dt)

    def whole(self) -> Tensor:
        """The delays in whole steps, int64, [N_source], [N_target] or [N_target, taps N_source]: what evaluation uses.

        Raises:
            ConfigError: for a delay that is not finite, as training may leave it.
        """
        self._check()
        return self.steps.detach().clamp(self.low, self.high).round().long()

    def taps(self) -> Taps:
        """What the connection reads now: offsets in steps and gains, [K, ...] each; gradients pass where wanted."""
        if not self.training or self.phase == "frozen" or not self.learn:
            whole = self.whole().unsqueeze(0)
            return Taps(
                self.kind, whole, torch.ones_like(whole, dtype=self.steps.dtype), self.low, self.high, self.parts
            )
        self._check()
        at = _Clamp.apply(self.steps, self.low, self.high)
        # on the upper bound too there is a tap below, or the delay would have no gradient there
        below = at.detach().floor().clamp_(max=max(self.low, self.high - 1))
        width = float(self.width)
        linear = self.kernel == "linear" or self.phase == "rounded"
        reach = 1 if linear else _reach(self.kernel, width)
        ahead = torch.arange(1 - reach, reach + 1, device=at.device)
        offsets = below.long() + ahead.reshape(-1, *(1,) * at.ndim)
        if linear:
            upper = at - below
            gains = torch.stack([1.0 - upper, upper])
        else:
            distance = (offsets - at) / (width if self.kernel == "gaussian" else 1.0 + width)
            outside = (offsets < self.low) | (offsets > self.high)
            if self.kernel == "gaussian":  # as a softmax, which a narrow Gaussian does not underflow
                gains = torch.softmax((-0.5 * distance**2).masked_fill(outside, -math.inf), 0)
            else:
                gains = torch.relu(1.0 - distance.abs()).masked_fill(outside, 0.0)
                gains = gains / gains.sum(0, keepdim=True)
        if self.phase == "rounded":
            gains = gains + ((offsets == at.detach().round()).to(gains) - gains).detach()
        return Taps(self.kind, offsets.clamp_(self.low, self.high), gains, self.low, self.high, self.parts)

    def _check(self) -> None:
        if not torch.isfinite(self.steps).all():
            raise ConfigError(
                f"{self.label}: a delay is not finite; a training that went wrong has left it so (look at the loss and "
                "the learning rate)"
            )

    def spec(self) -> dict[str, object]:
        """What ``graph.json`` says of the delays; their values are in the file of weights, as whole steps."""
        return {"kind": self.kind, "low": self.low, "high": self.high, "taps": self.parts}

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.low} to {self.high} steps, kernel={self.kernel!r}, learn={self.learn}"


class _Clamp(torch.autograd.Function):
    """Clamp whose gradient is dropped only where it points further out."""

    @staticmethod
    def forward(ctx: object, steps: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(steps)  # type: ignore[attr-defined]
        ctx.bounds = low, high  # type: ignore[attr-defined]
        return steps.clamp(low, high)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None, None]:
        (steps,) = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.bounds  # type: ignore[attr-defined]
        (grad,) = grads
        outward = ((steps <= low) & (grad > 0)) | ((steps >= high) & (grad < 0))  # descent goes against the gradient
        return torch.where(outward, torch.zeros_like(grad), grad), None, None


def _reach(kernel: str, width: float) -> int:
    """Steps on each side that a kernel of ``width`` steps reaches."""
    return max(1, math.ceil(1.0 + width if kernel == "triangle" else 3.0 * width))


def delays_of(net: nn.Module) -> list[Delay]:
    """All :class:`Delay` objects in a network."""
    return [m for m in net.modules() if isinstance(m, Delay)]


def delay_schedule(net: nn.Module, progress: float, start: float | None = None) -> None:
    """Put the delays of ``net`` into the phase that belongs to ``progress``, the share of training that is done.

    The first half is soft: the width shrinks exponentially from its initial value to a tenth of a step in the first
    quarter (as in DCLS) and stays there. Up to three quarters the delays are rounded with a straight-through gradient;
    then they are frozen and the weights adapt to the whole steps that evaluation uses.

    Raises:
        ConfigError: for a progress outside 0 to 1.
    """
    if not isinstance(progress, Real) or not 0 <= progress <= 1:
        raise ConfigError(f"delay_schedule: progress must be between 0 and 1, got {progress!r}")
    for delay in delays_of(net):
        if progress >= 0.75:
            delay.set_phase("frozen")
        elif progress >= 0.5:
            delay.set_phase("rounded")
        else:
            first = (delay.width_ms if start is None else start) / delay.dt
            shrunk = first * (0.1 / first) ** min(1.0, 4.0 * progress) if first > 0.1 else first
            delay.set_phase("soft", shrunk * delay.dt)
