"""The continuous memories against keras-lmu's own numbers, closed forms, and what their papers say of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import cont2discrete
from scipy.special import eval_legendre

from ranvier.errors import ConfigError, DataError
from ranvier.networks import LMU, HiPPOLegS, LegendreMemory, legendre_at, legendre_matrices, legendre_system

GOLDEN = json.loads((Path(__file__).parent / "data" / "keras_lmu.json").read_text())["runs"]


@pytest.mark.parametrize("run", GOLDEN, ids=lambda r: f"{r['method']}-{r['theta']}")
def test_lmu_equals_keras_lmu(run: dict) -> None:
    """Matrices, hidden states and last memory of keras-lmu's LMUCell with all its connections, in float64."""
    a, b = legendre_matrices(6, run["theta"], method=run["method"])
    np.testing.assert_allclose(a, run["a"], atol=1e-12)
    np.testing.assert_allclose(b, run["b"], atol=1e-12)
    kernel, recurrent, hidden_in, hidden_back, bias = (torch.tensor(w).double() for w in run["weights"].values())
    x = torch.tensor(run["x"]).double()
    lmu = LMU(x.shape[2], kernel.shape[1], hidden_back.shape[0], 6, run["theta"], method=run["method"]).double()
    lmu.memory.a, lmu.memory.b = a, b
    inputs, states = x.shape[2], recurrent.shape[0]
    with torch.no_grad():
        for layer, value in (
            (lmu.e_x, kernel[:inputs]),
            (lmu.e_h, kernel[inputs:]),
            (lmu.e_m, recurrent),
            (lmu.w_m, hidden_in[:states]),
            (lmu.w_x, hidden_in[states:]),
            (lmu.w_h, hidden_back),
        ):
            assert layer.weight.shape == value.T.shape
            layer.weight.copy_(value.T)
        lmu.w_x.bias.copy_(bias)
        h, (_, m) = lmu(x)
    assert np.abs(h.numpy() - run["h"]).max() < 1e-6
    assert np.abs(m.numpy() - run["m"]).max() < 1e-6
    assert np.abs(run["m"]).max() > 0.1


def test_lmu_in_chunks() -> None:
    torch.manual_seed(0)
    lmu, x = LMU(2, 3, 4, 5, 10.0), torch.randn(9, 2, 2)
    whole, (h, m) = lmu(x)
    first, state = lmu(x[:4])
    second, (h2, m2) = lmu(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close((h2, m2), (h, m))


@pytest.mark.parametrize("order", [1, 2, 7])
@pytest.mark.parametrize(("method", "scipy_name"), [("zoh", "zoh"), ("euler", "euler"), ("bilinear", "bilinear")])
def test_discretisations_are_scipys(order: int, method: str, scipy_name: str) -> None:
    a, b = (t.numpy() for t in legendre_system(order, 30.0))
    ours = legendre_matrices(order, 30.0, dt=2.0, method=method)
    theirs = cont2discrete((a, b, np.eye(order), np.zeros((order, 1))), 2.0, scipy_name)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-12)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-12)


def test_orthonormal_and_transpose() -> None:
    """A change of basis changes neither eigenvalues nor what is read; the transpose is another system."""
    a, b = legendre_matrices(6, 20.0)
    n, nb = legendre_matrices(6, 20.0, orthonormal=True)
    root = np.sqrt(2 * np.arange(6) + 1)
    np.testing.assert_allclose(n, np.diag(1 / root) @ a.numpy() @ np.diag(root), atol=1e-12)
    np.testing.assert_allclose(nb[:, 0], b[:, 0].numpy() / root, atol=1e-12)
    turned, same = legendre_matrices(6, 20.0, transpose=True)
    assert torch.equal(turned, a.T)
    assert torch.equal(same, b)


def test_polynomials() -> None:
    lags = torch.linspace(0, 1, 11)
    expected = np.stack([eval_legendre(i, 2 * lags.numpy() - 1) for i in range(6)], 1)
    np.testing.assert_allclose(legendre_at(6, lags), expected, atol=1e-6)
    assert legendre_at(1, lags).shape == (11, 1)


def test_memory_holds_the_window() -> None:
    """A slow sine is read back anywhere in the window by the polynomials, and not by the transposed system."""
    t = torch.arange(400).double()
    u = torch.sin(2 * math.pi * t / 60).reshape(-1, 1, 1)
    lags = torch.tensor([0, 5, 10, 20])
    errors = {}
    for transpose in (False, True):
        memory = LegendreMemory(8, 20.0, transpose=transpose).double()
        m = memory(u)[100:, 0, 0]
        read = m @ legendre_at(8, lags / 20.0).T
        wanted = torch.stack([u[100 - d : 400 - d, 0, 0] for d in lags.tolist()], 1)
        errors[transpose] = float((read - wanted).abs().max())
    assert errors[False] < 0.1  # zero-order hold shifts by half a step: .05
    assert errors[True] > 1


def _dilated(steps: int) -> torch.Tensor:
    t = torch.arange(steps).double() / steps
    rng = np.random.default_rng(3)
    phases, sizes = rng.uniform(0, 2 * np.pi, 6), rng.normal(size=6)
    wave = sum(s * torch.sin(2 * math.pi * (n + 1) * t + p) for n, (s, p) in enumerate(zip(sizes, phases, strict=True)))
    return torch.as_tensor(wave).reshape(-1, 1, 1)


def test_legs_is_timescale_invariant_and_legt_is_not() -> None:
    """Played at half speed, a signal leaves the same LegS coefficients (change < 2 %) but other LegT ones (> 100 %)."""
    legs, legt = HiPPOLegS(16).double(), LegendreMemory(16, 300.0, orthonormal=True, method="bilinear").double()
    change = {}
    for name, memory in (("legs", legs), ("legt", legt)):
        normal, slow = (memory(_dilated(steps))[-1] for steps in (1000, 2000))
        change[name] = float((slow - normal).norm() / normal.norm())
    assert change["legs"] < 0.02
    assert change["legt"] > 1.0


def test_legs_holds_the_whole_past() -> None:
    """Relative error of the whole signal, read from the last coefficients, falls with the order."""
    u = _dilated(1000)
    errors = []
    for order in (8, 16, 32):
        c = HiPPOLegS(order)(u)[-1, 0, 0]
        x = (torch.arange(1000).double() + 0.5) / 1000
        read = legendre_at(order, x, orthonormal=True) @ c
        errors.append(float((read - u[:, 0, 0]).norm() / u.norm()))
    assert errors[1] < 0.3
    assert errors[2] < 0.03


def test_errors() -> None:
    for order in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="order must be a whole number"):
            LegendreMemory(order, 20.0)
    with pytest.raises(ConfigError, match="order"):
        HiPPOLegS(0)
    for theta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="theta, the window in ms, must be a finite time above 0"):
            LMU(1, 1, 1, 4, theta)
    with pytest.raises(ConfigError, match="method must be one of zoh, euler, bilinear"):
        LegendreMemory(4, 20.0, method="tustin")
    with pytest.raises(ConfigError, match="dt must be a positive time"):
        LegendreMemory(4, 20.0, dt=0.0)
    with pytest.raises(ConfigError, match="channels must be a whole number"):
        LMU(1, 0, 1, 4, 20.0)
    for memory in (LegendreMemory(4, 20.0), HiPPOLegS(4), LMU(1, 1, 1, 4, 20.0)):
        with pytest.raises(DataError, match=r"\[T, B, channels\]"):
            memory(torch.zeros(3, 4))
