"""Continuous-valued memories of a signal's past: the Legendre memory unit and HiPPO. They do not spike; they are what a
spiking memory is measured against, and where its matrices come from.
"""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError

DISCRETISATIONS = ("zoh", "euler", "bilinear")


def check_memory(order: int, theta: float, owner: str = "memory") -> None:
    """Raises :class:`ConfigError` for an order below 1 or a window ``theta`` (ms) that is not a positive time."""
    if not isinstance(order, Integral) or isinstance(order, bool) or order < 1:
        raise ConfigError(f"{owner}: order must be a whole number of coefficients, 1 or more, got {order!r}")
    if not isinstance(theta, Real) or isinstance(theta, bool) or not (math.isfinite(theta) and theta > 0):
        raise ConfigError(f"{owner}: theta, the window in ms, must be a finite time above 0, got {theta!r}")


def legendre_system(order: int, theta: float, orthonormal: bool = False) -> tuple[Tensor, Tensor]:
    """A [order, order] and B [order, 1] of dm/dt = A m + B u, per ms, in float64: the past ``theta`` ms of u as
    coefficients of shifted Legendre polynomials.

    A_ij = (2i+1)/theta (-1 if i < j else (-1)^(i-j+1)), B_i = (2i+1)/theta (-1)^i, and u(t - r theta) is about the sum
    of m_i P_i(2r - 1). With ``orthonormal`` the polynomials are scaled by sqrt(2i+1) instead (HiPPO's LegT), so that
    white noise moves all coefficients alike. [Voelker, Kajic, Eliasmith 2019, equations 1 and 2; Gu et al. 2020, LegT]
    """
    check_memory(order, theta)
    i = torch.arange(order, dtype=torch.float64)
    row, column = i.unsqueeze(1), i.unsqueeze(0)
    sign = torch.where(row < column, -1.0, torch.where((row - column) % 2 == 0, -1.0, 1.0).double())
    a = (2 * row + 1) / theta * sign
    b = (2 * row + 1) / theta * torch.where(row % 2 == 0, 1.0, -1.0).double()
    if orthonormal:  # m_i / sqrt(2i + 1)
        root = torch.sqrt(2 * i + 1)
        a, b = a / root.unsqueeze(1) * root.unsqueeze(0), b / root.unsqueeze(1)
    return a, b


def discretise(a: Tensor, b: Tensor, dt: float, method: str = "zoh") -> tuple[Tensor, Tensor]:
    """A and B of m[k] = A m[k-1] + B u[k] from those of dm/dt = A m + B u, for steps of ``dt`` ms.

    ``zoh`` holds the input over a step and is exact then; ``euler`` is 1 + dt A; ``bilinear`` averages both ends.

    Raises:
        ConfigError: for an unknown method.
    """
    n, one = a.shape[0], torch.eye(a.shape[0], dtype=a.dtype)
    if method == "zoh":  # the exponential of [[A, B], [0, 0]] holds both
        block = torch.zeros(n + b.shape[1], n + b.shape[1], dtype=a.dtype)
        block[:n, :n], block[:n, n:] = a * dt, b * dt
        both = torch.linalg.matrix_exp(block)
        return both[:n, :n].contiguous(), both[:n, n:].contiguous()
    if method == "euler":
        return one + dt * a, dt * b
    if method == "bilinear":
        left = one - dt / 2 * a
        return torch.linalg.solve(left, one + dt / 2 * a), torch.linalg.solve(left, dt * b)
    raise ConfigError(f"discretise: method must be one of {', '.join(DISCRETISATIONS)}, got {method!r}")


def legendre_matrices(
    order: int,
    theta: float,
    dt: float = 1.0,
    method: str = "zoh",
    transpose: bool = False,
    orthonormal: bool = False,
) -> tuple[Tensor, Tensor]:
    """A [order, order] and B [order, 1] of the Legendre memory m[k] = A m[k-1] + B u[k], in float64.

    Args:
        order: number of coefficients.
        theta: window in ms.
        dt: step in ms.
        method: ``zoh``, ``euler`` or ``bilinear``. Euler is unstable for a window of fewer than some 4 x order steps.
        transpose: m[k] = A^T m[k-1] + B u[k], which the published code of the L2MU computes. It is no memory of a
            window; it is here so that those networks can be rebuilt.
        orthonormal: as in :func:`legendre_system`.

    Raises:
        ConfigError: for an order below 1, a theta or dt not above 0, an unknown method.
    """
    if not isinstance(dt, Real) or not (math.isfinite(dt) and dt > 0):
        raise ConfigError(f"dt must be a positive time in ms, got {dt!r}")
    a, b = discretise(*legendre_system(order, theta, orthonormal), dt, method)
    return (a.T.contiguous() if transpose else a), b


def legendre_at(order: int, lags: Tensor, orthonormal: bool = False) -> Tensor:
    """P_i(2r - 1) for lags r in windows (0 is now, 1 is theta ago): [len(lags), order]. Times the coefficients it is
    the signal as the memory holds it.
    """
    x = 2 * lags.double() - 1
    p = [torch.ones_like(x), x]
    for n in range(1, order - 1):
        p.append(((2 * n + 1) * x * p[n] - n * p[n - 1]) / (n + 1))
    values = torch.stack(p[:order], 1)
    return values * torch.sqrt(2 * torch.arange(order).double() + 1) if orthonormal else values


def _checked(u: Tensor, owner: str) -> Tensor:
    if not isinstance(u, Tensor) or u.ndim != 3 or not u.is_floating_point():
        raise DataError(f"{owner}: the input must be a tensor of numbers [T, B, channels], got {_shape(u)}")
    return u


def _shape(u: object) -> object:
    return tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__


class LegendreMemory(nn.Module):
    """The linear memory of the LMU (HiPPO's LegT) over the last ``theta`` ms, for each channel by itself.

    m[k] = A m[k-1] + B u[k]; arguments as :func:`legendre_matrices`. A and B are held in torch's default type.

    Raises:
        ConfigError: for an order below 1, a theta or dt not above 0, an unknown method.
    """

    a: Tensor
    b: Tensor

    def __init__(
        self,
        order: int,
        theta: float,
        dt: float = 1.0,
        method: str = "zoh",
        transpose: bool = False,
        orthonormal: bool = False,
    ) -> None:
        super().__init__()
        a, b = legendre_matrices(order, theta, dt, method, transpose, orthonormal)
        self.order = int(order)
        self.register_buffer("a", a.to(torch.get_default_dtype()))
        self.register_buffer("b", b.to(torch.get_default_dtype()))

    def step(self, m: Tensor, u: Tensor) -> Tensor:
        """``m`` [B, channels, order] and ``u`` [B, channels] to the next m."""
        return m @ self.a.T + u.unsqueeze(-1) @ self.b.T

    def forward(self, u: Tensor, m: Tensor | None = None) -> Tensor:
        """``u`` [T, B, channels] to the coefficients of every step [T, B, channels, order], from ``m`` (default 0)."""
        u = _checked(u, "LegendreMemory").to(self.a)
        m = u.new_zeros(*u.shape[1:], self.order) if m is None else m
        out = []
        for now in u.unbind():
            m = self.step(m, now)
            out.append(m)
        return torch.stack(out) if out else u.new_zeros(*u.shape, self.order)


class HiPPOLegS(nn.Module):
    """The memory of the whole past, scaled: at every step the coefficients of all that came so far.

    c[k] = (1 + A/2k)^-1 ((1 - A/2k) c[k-1] + B/k u[k]) with A_ij = sqrt((2i+1)(2j+1)) below the diagonal, i + 1 on it,
    and B_i = sqrt(2i+1); k counts from 1. The signal so far is about the sum of c_i sqrt(2i+1) P_i(2 t/T - 1). It has
    no time constant: a signal played at half speed leaves nearly the same coefficients. [Gu, Dao, Ermon, Rudra, Re
    2020, HiPPO, equation 3, bilinear]

    Raises:
        ConfigError: for an order below 1.
    """

    a: Tensor
    b: Tensor

    def __init__(self, order: int) -> None:
        super().__init__()
        check_memory(order, 1.0, "HiPPOLegS")
        self.order = int(order)
        i = torch.arange(order, dtype=torch.float64)
        root = torch.sqrt(2 * i + 1)
        a = torch.tril(root.unsqueeze(1) * root.unsqueeze(0), -1) + torch.diag(i + 1)
        self.register_buffer("a", a)
        self.register_buffer("b", root.unsqueeze(1))

    def forward(self, u: Tensor) -> Tensor:
        """``u`` [T, B, channels] to the coefficients of every step [T, B, channels, order]."""
        u = _checked(u, "HiPPOLegS")
        one = torch.eye(self.order, dtype=self.a.dtype, device=self.a.device)
        c = u.new_zeros(*u.shape[1:], self.order).to(self.a)
        out = []
        for k, now in enumerate(u.unbind(), 1):
            right = c @ (one - self.a / (2 * k)).T + now.unsqueeze(-1).to(self.a) @ self.b.T / k
            # (1 + A/2k) is lower triangular
            flat = torch.linalg.solve_triangular(one + self.a / (2 * k), right.flatten(0, -2).T, upper=False)
            c = flat.T.reshape(right.shape)
            out.append(c)
        return torch.stack(out).to(u) if out else u.new_zeros(*u.shape, self.order)


class LMU(nn.Module):
    """The Legendre memory unit with real values.

    u[k] = E_x x[k] + E_h h[k-1] + E_m m[k-1]; m[k] = A m[k-1] + B u[k] for each channel of u; h[k] = tanh(W_x x[k] +
    W_h h[k-1] + W_m m[k] + b). [Voelker, Kajic, Eliasmith 2019, equations 5 to 7]

    Args:
        inputs, channels, hidden: sizes of x, u and h.
        order, theta, dt, method, transpose: of the memory, as :func:`legendre_matrices`.

    Raises:
        ConfigError: for a size or order below 1, a theta or dt not above 0, an unknown method.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        hidden: int,
        order: int,
        theta: float,
        dt: float = 1.0,
        method: str = "zoh",
        transpose: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("inputs", inputs), ("channels", channels), ("hidden", hidden)):
            if not isinstance(size, Integral) or size < 1:
                raise ConfigError(f"LMU: {name} must be a whole number, 1 or more, got {size!r}")
        self.memory = LegendreMemory(order, theta, dt, method, transpose)
        states = channels * order
        self.e_x, self.e_h = nn.Linear(inputs, channels, bias=False), nn.Linear(hidden, channels, bias=False)
        self.e_m = nn.Linear(states, channels, bias=False)
        self.w_x, self.w_h = nn.Linear(inputs, hidden, bias=True), nn.Linear(hidden, hidden, bias=False)
        self.w_m = nn.Linear(states, hidden, bias=False)
        for e in (self.e_x, self.e_h):  # LeCun's uniform
            nn.init.uniform_(e.weight, -math.sqrt(3 / e.in_features), math.sqrt(3 / e.in_features))
        nn.init.zeros_(self.e_m.weight)
        for w in (self.w_x, self.w_h, self.w_m):
            nn.init.xavier_normal_(w.weight)
        nn.init.zeros_(self.w_x.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``x`` [T, B, inputs] to h of every step [T, B, hidden], and the last (h [B, hidden], m [B, channels, order])
        to go on from.
        """
        x = _checked(x, "LMU")
        channels, hidden = self.e_x.out_features, self.w_h.out_features
        h, m = state or (x.new_zeros(x.shape[1], hidden), x.new_zeros(x.shape[1], channels, self.memory.order))
        out = []
        for now in x.unbind():
            u = self.e_x(now) + self.e_h(h) + self.e_m(m.flatten(1))
            m = self.memory.step(m, u)
            h = torch.tanh(self.w_x(now) + self.w_h(h) + self.w_m(m.flatten(1)))
            out.append(h)
        return (torch.stack(out) if out else x.new_zeros(0, x.shape[1], hidden)), (h, m)
