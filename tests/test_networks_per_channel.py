"""PerChannel is Dense with kron(1, matrix): in every engine, in gradients, in files; and says what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ranvier as rv
from ranvier.errors import ConfigError, GraphError, RunError
from ranvier.networks import load_network, network_spec, save_network

CHANNELS, ORDER = 4, 3
LOOP = torch.randn(ORDER, ORDER, generator=torch.Generator().manual_seed(1)) * 0.7
INTO = torch.randn(ORDER, 1, generator=torch.Generator().manual_seed(2)) + 0.5


def build(shared: bool, learn: bool = True, engine: str = "eager") -> rv.Network:
    torch.manual_seed(0)
    net = rv.Network(engine=engine)
    x, m = net.input(CHANNELS), net.population(rv.LIF(CHANNELS * ORDER, tau_mem=5.0, threshold=0.4), name="m")
    if shared:
        net.connect(x, m, rv.PerChannel(INTO, learn=learn, bias=True), name="into")
        net.connect(m, m, rv.PerChannel(LOOP, learn=learn, dropout=0.3), name="loop")
    else:
        one = torch.eye(CHANNELS)
        net.connect(x, m, rv.Dense(weight=torch.kron(one, INTO), bias=True, learn=learn), name="into")
        net.connect(m, m, rv.Dense(weight=torch.kron(one, LOOP), dropout=0.3, learn=learn), name="loop")
    y = net.population(rv.Integrator(2), name="y")
    net.connect(m, y, rv.Dense())
    net.readout(y, "sum")
    return net


X = (torch.rand(30, 5, CHANNELS, generator=torch.Generator().manual_seed(3)) > 0.6).float()


@pytest.mark.parametrize("engine", ["eager", "numba"])
def test_equals_dense_with_a_block_diagonal(engine: str) -> None:
    """Spikes in evaluation and, with the same dropout masks, gradients: the matrix's is the sum over channels."""
    nets = [build(shared, engine=engine) for shared in (True, False)]
    for net in nets:
        net.eval()
    spikes = [net(X, record=["m"]).recorded["m"] for net in nets]
    assert torch.equal(*spikes)
    assert 0.02 < float(spikes[0].detach().mean()) < 0.9
    for net in nets:
        torch.manual_seed(5)
        net.train()
        net(X).output.square().sum().backward()
    for name in ("into", "loop"):
        matrix, dense = nets[0].connection(name).matrix.grad, nets[1].connection(name).weight.grad
        rows, columns = matrix.shape
        blocks = dense.reshape(CHANNELS, rows, CHANNELS, columns).diagonal(dim1=0, dim2=2)
        torch.testing.assert_close(matrix, blocks.sum(-1), rtol=1e-4, atol=1e-5)
        assert matrix.abs().min() > 0
    torch.testing.assert_close(nets[0].connection("into").bias.grad, nets[1].connection("into").bias.grad)


def test_fixed_by_default_and_counted_once() -> None:
    assert build(True).count_parameters() - build(True, learn=False).count_parameters() == (
        LOOP.numel() + INTO.numel() + CHANNELS * ORDER
    )
    assert not rv.PerChannel(LOOP).matrix.requires_grad


def test_files(tmp_path: Path) -> None:
    net = build(True).eval()
    save_network(net, tmp_path)
    loaded = load_network(tmp_path)
    assert network_spec(loaded) == network_spec(net)
    assert loaded.connection("loop").matrix.shape == LOOP.shape
    assert torch.equal(loaded(X).output, net(X).output)
    graph = tmp_path / "graph.json"
    graph.write_text(graph.read_text().replace('"per_channel"', '"per_channels"'))
    with pytest.raises(RunError, match="'into' is of the unknown kind 'per_channels'"):
        load_network(tmp_path)


def test_a_file_whose_matrix_does_not_fit(tmp_path: Path) -> None:
    net = build(True)
    net.connection("loop").matrix = torch.nn.Parameter(torch.zeros(5, 5))
    save_network(net, tmp_path)
    with pytest.raises(RunError, match=r"a matrix \(5, 5\) needs populations of channels x 5"):
        load_network(tmp_path)


def test_exports() -> None:
    """The integer network's spikes are those of the Dense network's integer network."""
    nets = [build(shared).eval() for shared in (True, False)]
    spikes = [rv.quantize(net, X).run(X.numpy().astype("uint8")).outputs["m"] for net in nets]
    assert (spikes[0] == spikes[1]).all()
    assert spikes[0].any()


def test_a_matrix_for_every_channel() -> None:
    own = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(5))
    net = rv.Network()
    x, y = net.input(12), net.population(rv.Integrator(6))
    net.connect(x, y, rv.PerChannel(own), name="c")
    assert torch.equal(net.connection("c").weight, torch.block_diag(*own))
    with pytest.raises(ConfigError, match="needs populations of 3 x 2 and 3 x 4 neurons; they have 6 and 6"):
        net.connect(y, y, rv.PerChannel(own))


def test_copies_average_and_share(tmp_path: Path) -> None:
    """Three copies of each of two sources, two of each of four targets: the mean goes to all, and to files."""
    matrix = torch.randn(4, 2, generator=torch.Generator().manual_seed(6))
    net = rv.Network()
    x, y = net.input(6), net.population(rv.Integrator(8, tau_mem=1e-3), name="y")
    net.connect(x, y, rv.Copies(matrix, targets=2, sources=3), name="c")
    net.readout(y, "last")
    sent = torch.rand(1, 1, 6)
    out = net(sent).output[0]
    torch.testing.assert_close(out[::2], out[1::2], rtol=0, atol=0)
    torch.testing.assert_close(out[::2], matrix @ sent[0, 0].reshape(2, 3).mean(1))
    assert net.count_parameters() == 8
    save_network(net, tmp_path)
    assert network_spec(load_network(tmp_path)) == network_spec(net)
    assert torch.equal(load_network(tmp_path)(sent).output[0], out)
    with pytest.raises(
        ConfigError, match="with 2 and 2 copies needs populations of 8 and 4 neurons; they have 8 and 6"
    ):
        net.connect(x, y, rv.Copies(matrix, targets=2, sources=2))
    with pytest.raises(ConfigError, match="sources must be a whole number of copies"):
        rv.Copies(matrix, sources=0)


def test_errors() -> None:
    for wrong in (torch.zeros(3), torch.zeros(0, 2), torch.full((2, 2), float("nan"))):
        with pytest.raises(ConfigError, match="matrix must be finite numbers"):
            rv.PerChannel(wrong)
    with pytest.raises(ConfigError, match="tensor or array of numbers"):
        rv.PerChannel([["a"]])  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="once it is connected"):
        _ = rv.PerChannel(LOOP).weight
    net = rv.Network()
    a, b = net.input(4), net.population(rv.LIF(12))
    for matrix in (torch.ones(5, 1), torch.ones(3, 2), torch.ones(6, 1)):
        with pytest.raises(ConfigError, match=r"needs populations of channels x .* they have 12 and 4"):
            net.connect(a, b, rv.PerChannel(matrix))
    used = rv.PerChannel(torch.ones(3, 1))
    net.connect(a, b, used)
    with pytest.raises(GraphError, match="already connected"):
        net.connect(a, b, used)
