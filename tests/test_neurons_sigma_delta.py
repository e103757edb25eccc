"""SigmaDelta: its signed spikes add up to its input, in every engine alike, and average to it over staggered copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ranvier as rv
from ranvier.networks import load_network, save_network
from ranvier.neurons import staggered

SLOW = torch.sin(torch.arange(200) / 9.0)[:, None, None] * torch.tensor([0.9, 0.3, 0.1])


def encoder(size: int, engine: str = "eager", **options: object) -> rv.Network:
    net = rv.Network(engine=engine)
    x, s = net.input(size), net.population(rv.SigmaDelta(size, **options), name="s")
    net.connect(x, s, rv.Dense(weight=torch.eye(size), learn=False))
    return net.eval()


@pytest.mark.parametrize("engine", ["eager", "numba"])
def test_spikes_add_up_to_the_input(engine: str) -> None:
    s = encoder(3, engine)(SLOW, record=["s", "s.v"]).recorded
    assert set(s["s"].unique().tolist()) == {-1.0, 0.0, 1.0}
    left = SLOW.cumsum(0) - s["s"].cumsum(0)
    assert left.abs().max() <= 0.5 + 1e-5
    torch.testing.assert_close(left, s["s.v"], atol=1e-4, rtol=0)
    assert (SLOW.cumsum(0).abs().amax(0) > 1).all()  # there was something to add up


def test_staggered_copies_average_to_the_input() -> None:
    """The mean of n copies is within one n-th of the input, of what was left over included."""
    n = 16
    x = SLOW[..., :1].expand(-1, -1, n)
    mean = encoder(n, v_start=staggered(n))(x).output.mean(-1)
    assert (mean - x[..., 0]).abs().max() < 2 / n
    together = encoder(n)(x).output.mean(-1)
    assert (together - x[..., 0]).abs().max() > 0.3


def test_leak_and_threshold() -> None:
    """By hand, in numpy: decay, both signs, strict threshold, reset by twice the threshold."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 1)).astype(np.float32)
    net = encoder(1, tau_mem=5.0, threshold=0.75, v_start=0.25)
    v, out = 0.25, []
    for now in x[:, 0].astype(float):
        v = v * np.exp(-1 / 5.0) + now
        out.append(float(v > 0.75) - float(v < -0.75))
        v -= 1.5 * out[-1]
    got = net(torch.from_numpy(x)[:, None]).output[:, 0, 0]
    assert got.tolist() == out
    assert {-1.0, 0.0, 1.0} == set(out)


@pytest.mark.parametrize("back", [False, True])
def test_engines_agree_in_loops_with_gradients(back: bool) -> None:
    """Signed spikes through a recurrent product: numba's spikes are the plain loop's, and so are all gradients."""
    results = []
    for engine in ("eager", "numba"):
        torch.manual_seed(1)
        net = rv.Network(engine=engine)
        x, s = net.input(4), net.population(rv.SigmaDelta(6, tau_mem=8.0, learn=["tau_mem", "threshold"]), name="s")
        net.connect(x, s, rv.Dense(weight=torch.randint(-4, 5, (6, 4)) / 8))
        if back:
            net.connect(s, s, rv.Dense(weight=torch.randint(-4, 5, (6, 6)) / 8))
        x = torch.randint(-2, 3, (40, 3, 4), generator=torch.Generator().manual_seed(2)) / 2
        out = net(x).output
        (out * torch.linspace(-1, 1, 40)[:, None, None]).sum().backward()
        results.append((out.detach(), [p.grad for p in net.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    assert (results[0][0] < 0).any()
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        assert one.abs().max() > 0


def test_gradient_is_the_linear_systems() -> None:
    """Straight through, without leak, the output's gradient is the input's: nothing is left over backward."""
    net, x = encoder(3), SLOW.clone().requires_grad_()
    (net(x).output * torch.arange(200)[:, None, None]).sum().backward()
    torch.testing.assert_close(x.grad, torch.arange(200.0)[:, None, None].expand(-1, 1, 3))


def test_file(tmp_path) -> None:
    net = encoder(3, v_start=staggered(3))
    save_network(net, tmp_path)
    assert torch.equal(load_network(tmp_path)(SLOW).output, net(SLOW).output)


def test_gradients_end_where_a_loop_saturates() -> None:
    """A neuron that hears itself four times over sends one spike a step, whatever its input is: moving the input by a
    little moves nothing, and the gradient says so. The line that ignores the limit gives one that grows with every
    step.
    """

    def gradient(**options: object) -> tuple[float, float]:
        net = rv.Network()
        x, s = net.input(1), net.population(rv.SigmaDelta(1, **options), name="s")
        net.connect(x, s, rv.Dense(weight=torch.eye(1), learn=False))
        net.connect(s, s, rv.Dense(weight=4 * torch.eye(1), learn=False))
        drive = torch.full((20, 1, 1), 2.0, requires_grad=True)
        sent = net(drive).output
        sent.sum().backward()
        assert drive.grad is not None
        moved = (net(drive.detach() + 0.01).output - sent.detach()).sum()
        return float(moved), float(drive.grad.abs().max())

    assert gradient() == (0.0, 0.0)
    assert gradient(surrogate=rv.StraightThrough())[1] > 1e6
