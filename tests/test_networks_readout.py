"""Readouts, losses and rates against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ranvier.networks import READOUTS, Dense, Network, firing_rates, rate_loss
from ranvier.neurons import Integrator

T, B, N = 7, 3, 4


def softmax(y: np.ndarray) -> np.ndarray:
    e = np.exp(y - y.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


FORMULA: dict[str, Any] = {  # of one sample's unpadded steps [L, N]
    "sum": lambda y: y.sum(0),
    "sum_softmax": lambda y: softmax(y).sum(0),
    "mean": lambda y: y.mean(0),
    "max": lambda y: y.max(0),
    "last": lambda y: y[-1],
}


def relay(kind: str) -> Network:
    net = Network()
    net.input(N, name="x")
    net.population(Integrator(N, tau_mem=1e-9), name="y")  # its output is its input
    net.connect("x", "y", Dense(weight=torch.eye(N)))
    net.readout("y", kind)
    return net.double()


def test_all_readouts_are_tested() -> None:
    assert set(FORMULA) == set(READOUTS)


@pytest.mark.parametrize("kind", FORMULA)
@pytest.mark.parametrize("lengths", [None, [7, 7, 7], [1, 4, 7]])
def test_readout_is_its_formula(kind: str, lengths: list[int] | None) -> None:
    y = np.random.default_rng(1).normal(size=(T, B, N)) - 2.0  # a maximum below 0: padding with 0 would show
    got = relay(kind).train()(torch.from_numpy(y), lengths=lengths).output
    want = np.stack([FORMULA[kind](y[: (lengths or [T] * B)[i], i]) for i in range(B)])
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-12, atol=1e-12)


def test_sum_softmax_evaluates_as_the_sum() -> None:
    y = torch.randn(T, B, N, dtype=torch.float64)
    net = relay("sum_softmax")
    assert torch.equal(net.eval()(y).output, relay("sum")(y).output)
    assert not torch.allclose(net.train()(y).output, net.eval()(y).output)


def test_max_shares_its_gradient_among_ties() -> None:
    y = torch.zeros(4, 1, N, dtype=torch.float64)
    y[1:3, 0, 0] = 5.0
    y.requires_grad_()
    out = relay("max")(y, lengths=[3]).output
    assert out.tolist() == [[5.0, 0.0, 0.0, 0.0]]
    out[0, 0].backward()
    assert y.grad is not None
    assert y.grad[:, 0, 0].tolist() == [0.0, 0.5, 0.5, 0.0]


def test_a_tie_goes_to_the_lowest_class() -> None:
    y = torch.zeros(2, 1, N, dtype=torch.float64)
    y[0, 0, 3], y[1, 0, 1] = 2.0, 2.0
    assert relay("sum")(y).output.argmax(-1).tolist() == [1]


@pytest.mark.parametrize("lengths", [None, [2, 7, 1]])
def test_firing_rates(lengths: list[int] | None) -> None:
    spikes = (np.random.default_rng(2).random((T, B, N)) < 0.4).astype(float)
    got = firing_rates(torch.from_numpy(spikes), None if lengths is None else torch.tensor(lengths))
    want = np.stack([spikes[: (lengths or [T] * B)[i], i].mean(0) for i in range(B)])
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)


def test_rate_loss_is_the_squared_distance_from_the_band() -> None:
    spikes = torch.zeros(10, 2, 3)
    spikes[:, :, 1] = 1.0
    spikes[:2, :, 2] = 1.0  # rates 0, 1 and 0.2
    assert rate_loss(spikes, 0.1, 0.5).item() == pytest.approx((0.1**2 + 0.5**2 + 0) / 3)
    assert rate_loss(spikes).item() == 0
    assert rate_loss(spikes, 0.1, 0.5, lengths=torch.tensor([2, 2])).item() == pytest.approx(
        (0.1**2 + 0.5**2 + 0.5**2) / 3
    )
    spikes.requires_grad_()
    rate_loss(spikes, 0.1, 0.5).backward()
    assert spikes.grad is not None
    assert (spikes.grad[..., 0] < 0).all() and (spikes.grad[..., 1] > 0).all() and not spikes.grad[..., 2].any()


def test_rate_loss_of_signed_spikes_counts_both_signs() -> None:
    spikes = torch.tensor([[[1.0, -1.0, 0.0]], [[-1.0, 0.0, 0.0]]], requires_grad=True)
    loss = rate_loss(spikes, 0.0, 0.5)
    assert loss.item() == pytest.approx(0.5**2 / 3)
    loss.backward()
    assert spikes.grad is not None and (spikes.grad[:, 0, 0] * torch.tensor([1.0, -1.0]) > 0).all()
