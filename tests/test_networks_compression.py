"""Compressed networks: training sees the numbers that the export makes, and what is taken out stays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ranvier.deploy import quantize, without_unread
from ranvier.errors import ConfigError
from ranvier.networks import (
    L2MU,
    Dense,
    Network,
    PerChannel,
    activity_masks,
    compress,
    load_network,
    magnitude_masks,
    save_network,
)
from ranvier.neurons import LIF, Integrator


def network(seed: int = 0, engine: str = "auto") -> Network:
    torch.manual_seed(seed)
    net = Network(dt=1.0, engine=engine)
    x, h = net.input(9, name="x"), net.population(LIF(12), name="h")
    m = net.population(LIF(8), name="m")
    y = net.population(Integrator(4, tau_mem=10.0), name="y")
    net.connect(x, h, Dense(gain=2.0, batch_norm=True))
    net.connect(h, h, Dense(gain=0.7))
    net.connect(h, m, Dense(gain=2.0, bias=True))
    net.connect(m, m, PerChannel(torch.tensor([[0.5, -0.3], [0.2, 0.4]]), learn=True))
    net.connect(m, y, Dense(bias=True))
    net.readout(y, "sum")
    norm = net.connection("x_to_h").norm
    assert norm is not None
    with torch.no_grad():
        norm.weight.uniform_(-1.5, 1.5)
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return net


def counts(seed: int = 0, steps: int = 20, batch: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, batch, 9, generator=generator) < 0.3).float() * 2


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_training_sees_what_the_export_makes(bits: int, tmp_path: Path) -> None:
    net = network().eval()
    plain = quantize(net, counts(), weight_bits=bits)
    before = net(counts()).output
    compress(net, bits)
    rounded = quantize(net, counts(), weight_bits=bits)
    save_network(net, tmp_path)
    back = load_network(tmp_path).eval()
    read = quantize(back, counts(), weight_bits=bits)
    for name in ("h", "m", "y"):
        for one, two, three in zip(*(i.population(name).connections for i in (plain, rounded, read)), strict=True):
            assert np.array_equal(one.weights, two.weights) and np.array_equal(one.weights, three.weights), one.name
    for key in set(net.connections) - {"m_to_m"}:  # one matrix for all channels is rounded by the export only
        assert torch.equal(net.connection(key).weight, back.connection(key).weight), key
    assert not torch.equal(net(counts()).output, before)
    # what a row holds are whole multiples of one number, over all connections into the neuron
    norm = net.connection("x_to_h").norm
    assert norm is not None
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).unsqueeze(1)  # type: ignore[operator]
    both = torch.cat([net.connection("x_to_h").weight * gain, net.connection("h_to_h").weight], 1).detach()
    unit = both.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert torch.allclose((both / unit).round(), both / unit, atol=1e-3)
    compress(net)
    assert torch.equal(net(counts()).output, before)
    assert type(net.connection("h_to_h")) is Dense


def test_gradients_pass_straight_through() -> None:
    net = network(engine="eager")
    compress(net, 3)
    connection = net.connection("m_to_y")
    behind = dict(connection.named_parameters())["weight"]
    seen = connection.weight
    assert not torch.equal(seen, behind)
    (seen * torch.arange(32.0).view(4, 8)).sum().backward()
    assert torch.equal(behind.grad, torch.arange(32.0).view(4, 8))
    net.zero_grad()
    net(counts()).output.square().sum().backward()
    for name, parameter in net.named_parameters():
        if "weight" in name or "matrix" in name:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def learned(net: Network) -> set[str]:
    """Connections whose weights are learned."""
    return {n.split(".")[1] for n, p in net.named_parameters() if p.requires_grad and "connections" in n}


def unit(engine: str = "auto") -> Network:
    """A Legendre memory unit of signed neurons in copies, every connection of which matters."""
    torch.manual_seed(0)
    net = Network(dt=50.0, engine=engine)
    x = net.input(9, name="x")
    block = L2MU(net, x, channels=3, order=4, theta=1000.0, hidden=12, copies=4, tau_mem=200.0, threshold=0.5)
    net.connect(block.hidden, net.population(Integrator(4, tau_mem=100.0), name="y"), Dense())
    net.readout("y", "mean")
    with torch.no_grad():
        net.connection("l2mu_m_to_l2mu_u").matrix.normal_(0, 0.2)
    return net


@pytest.mark.parametrize("bits", [8, 4])
def test_a_legendre_memory_unit(bits: int, tmp_path: Path) -> None:
    """Rounded and thinned: as its file, as its integer model and as its training say; copies stay copies, and the
    memory whole.
    """
    x = counts(steps=40)
    save_network(unit("eager"), tmp_path / "first")
    net = load_network(tmp_path / "first")  # what was learned before is still learned
    assert learned(net) == learned(unit()) and "l2mu_m_to_l2mu_m" not in learned(net)
    net.engine = "eager"
    masks = magnitude_masks(net, 0.5)
    assert set(masks) == set(net.connections) - {"l2mu_m_to_l2mu_m", "l2mu_u_to_l2mu_m"}
    idle = activity_masks(net, {n: torch.arange(net.neuron(n).size) for n in ("l2mu_u", "l2mu_m", "l2mu_h")}, 0.25)
    assert "x_to_l2mu_u" not in idle  # of the memory and its input no neuron goes
    gone = [i for i in range(12) if not idle["l2mu_h_to_y"][:, i].any()]
    assert len(gone) == 3 and not idle["l2mu_m_to_l2mu_h"][gone].any() and not idle["l2mu_h_to_l2mu_u"][:, gone].any()
    for key, mask in idle.items():
        masks[key] = masks[key] * mask
    compress(net, bits, masks)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(2):
        net(x).output.square().sum().backward()
        optimizer.step()
    net.eval()
    for key, mask in masks.items():
        assert not net.connection(key).weight[mask == 0].any(), key
    save_network(net, tmp_path)
    back = load_network(tmp_path).eval()
    first, second = (quantize(n, x, weight_bits=bits) for n in (net, back))
    for a, b in zip(first.populations, second.populations, strict=True):
        read = {d.name: d for d in b.connections}
        for c in a.connections:
            d = read[c.name]
            assert np.array_equal(c.weights, d.weights), c.name
            assert c.name not in masks or not d.weights[masks[c.name].numpy() == 0].any(), c.name
    less = without_unread(second)
    assert less.population("l2mu_h").size == 9 and less.population("l2mu_m").size == 48
    assert np.array_equal(less.run(x.numpy()).readout, second.run(x.numpy()).readout)
    uneven = torch.ones_like(masks["x_to_l2mu_u"])
    uneven[1] = 0
    with pytest.raises(ConfigError, match="the same for all copies"):
        compress(net, bits, {"x_to_l2mu_u": uneven})


def test_what_is_taken_out_stays_out(tmp_path: Path) -> None:
    net = network()
    masks = magnitude_masks(net, 0.75)
    assert set(masks) == {"x_to_h", "h_to_h", "h_to_m", "m_to_y"}
    for key, mask in masks.items():
        assert float(mask.mean()) == 0.25, key
    compress(net, 4, masks)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(3):
        net(counts()).output.square().sum().backward()
        optimizer.step()
    for key, mask in masks.items():
        assert not net.connection(key).weight[mask == 0].any(), key
    assert net.connection("h_to_m").weight[masks["h_to_m"] == 1].any()
    save_network(net, tmp_path)
    whole = {c.name: c.weights for p in quantize(load_network(tmp_path), counts()).populations for c in p.connections}
    for key, mask in masks.items():
        assert not whole[key][mask.numpy() == 0].any(), key


def test_the_smallest_are_those_that_are_small_on_the_device() -> None:
    net = network()
    norm = net.connection("x_to_h").norm
    assert norm is not None
    with torch.no_grad():
        norm.weight.fill_(1.0)
        norm.weight[3] = 1e-3
    assert not magnitude_masks(net, 0.1)["x_to_h"][3].any()


def test_neurons_that_send_least_lose_all_connections() -> None:
    net = network()
    rate = torch.arange(12.0)
    with torch.no_grad():
        net.connection("h_to_h").weight[:, 11] = 0.0  # the busiest, but nothing hears it
        net.connection("h_to_m").weight[:, 11] = 0.0
    masks = activity_masks(net, {"h": rate}, 0.25)
    assert set(masks) == {"x_to_h", "h_to_h", "h_to_m"}
    gone = [i for i in range(12) if not masks["x_to_h"][i].any()]
    assert len(gone) == 3 and {0, 11} <= set(gone)
    assert not masks["h_to_m"][:, gone].any() and not masks["h_to_h"][:, gone].any()
    assert not masks["h_to_h"][gone].any()
    assert masks["h_to_m"][:, 10].all()


def test_refused() -> None:
    net = network()
    with pytest.raises(ConfigError, match="bits must be 2 to 8"):
        compress(net, 9)
    with pytest.raises(ConfigError, match="no connection 'no'"):
        compress(net, 0, {"no": torch.ones(1)})
    with pytest.raises(ConfigError, match=r"zeros and ones \(12, 12\)"):
        compress(net, 0, {"h_to_h": torch.ones(3, 3)})
    with pytest.raises(ConfigError, match="repeats one matrix"):
        compress(net, 0, {"m_to_m": torch.ones(8, 8)})
    with pytest.raises(ConfigError, match="below 1"):
        magnitude_masks(net, 1.0)
    with pytest.raises(ConfigError, match="'y' is not a population that may lose neurons"):
        activity_masks(net, {"y": torch.ones(4)}, 0.5)
