"""L2MU: the published equations in a numpy loop, every engine, export, the repaired memory, and what is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ranvier as rv
from ranvier.deploy import TARGETS
from ranvier.errors import ConfigError, GraphError
from ranvier.networks import legendre_at, legendre_matrices, load_network, memory_matrices, save_network

INPUTS, CHANNELS, ORDER, HIDDEN, OUTPUTS, STEPS, BATCH = 3, 4, 3, 6, 2, 40, 2
X = (torch.rand(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(4)) > 0.5).double()
RECORD = ("l2mu_u", "l2mu_m", "l2mu_h", "l2mu_o")


def build(seed: int = 0, engine: str = "eager", **options: Any) -> rv.Network:
    """A small block whose weights from m into u are not zero, so that every connection matters."""
    torch.manual_seed(seed)
    net = rv.Network(engine=engine)
    x = net.input(INPUTS, kind="events")
    settings = {"threshold": 0.3, "tau_mem": 4.0, "tau_syn": 2.0, "theta": 6.0, "outputs": OUTPUTS, **options}
    block = rv.L2MU(net, x, channels=CHANNELS, order=ORDER, hidden=HIDDEN, **settings)
    with torch.no_grad():
        c = net.connection("l2mu_m_to_l2mu_u")
        (c.weight if isinstance(c.weight, torch.nn.Parameter) else c.matrix).normal_(0, 0.3)
    net.readout(block.output, "sum")
    return net.eval()


def weights(net: rv.Network, source: str, target: str) -> np.ndarray:
    return net.connection(f"{source}_to_{target}").weight.detach().double().numpy()


class LIFs:
    """One population, by the equations: a synapse where alpha is not 0, both kinds of reset."""

    def __init__(self, size: int, beta: float, threshold: float, alpha: float, delayed: bool) -> None:
        self.i, self.v, self.s = (np.zeros((BATCH, size)) for _ in range(3))
        self.beta, self.threshold, self.alpha, self.delayed = beta, threshold, alpha, delayed

    def step(self, current: np.ndarray) -> np.ndarray:
        self.i = self.alpha * self.i + current
        self.v = self.beta * self.v + self.i - (self.s * self.threshold if self.delayed else 0.0)
        self.s = (self.v > self.threshold).astype(float)
        self.v -= 0.0 if self.delayed else self.s * self.threshold
        return self.s


class Signed:
    """Sigma-delta neurons, ``copies`` of each value."""

    def __init__(self, values: int, copies: int) -> None:
        self.v = np.tile((np.arange(copies) + 0.5) / copies - 0.5, (BATCH, values))

    def step(self, current: np.ndarray) -> np.ndarray:
        self.v = self.v + current
        spikes = np.sign(self.v) * (np.abs(self.v) > 0.5)
        self.v -= spikes
        return spikes


@pytest.mark.parametrize("neuron", ["lif", "cubalif"])
@pytest.mark.parametrize(("transpose", "method", "delayed"), [(True, "zoh", True), (False, "euler", False)])
def test_the_published_equations(neuron: str, transpose: bool, method: str, delayed: bool) -> None:
    """u, m, h and o, spike by spike, of a numpy loop over the published order of steps."""
    theta = 20.0 if method == "euler" else 6.0
    net = build(
        memory="spiking", neuron=neuron, transpose=transpose, method=method, reset_delayed=delayed, theta=theta
    ).double()
    a, b = (t.numpy() for t in legendre_matrices(ORDER, theta, method=method, transpose=transpose))
    bias = net.connection("l2mu_h_to_l2mu_o").bias.detach().numpy()
    for c, value in (("l2mu_m_to_l2mu_m", a), ("l2mu_u_to_l2mu_m", b)):
        np.testing.assert_allclose(net.connection(c).matrix.detach(), value, atol=1e-7)
        net.connection(c).matrix.data = torch.from_numpy(value)  # in float64
    alpha = np.exp(-1 / 2.0) if neuron == "cubalif" else 0.0
    beta, threshold = np.exp(-1 / 4.0), float(np.float32(0.3))
    sizes = {"u": CHANNELS, "m": CHANNELS * ORDER, "h": HIDDEN, "o": OUTPUTS}
    cells = {n: LIFs(size, beta, threshold, alpha, delayed) for n, size in sizes.items()}
    u_in = [weights(net, s, "l2mu_u").T for s in ("input", "l2mu_h", "l2mu_m")]
    h_in = [weights(net, s, "l2mu_h").T for s in ("input", "l2mu_h", "l2mu_m")]
    spikes: dict[str, list[np.ndarray]] = {n: [] for n in sizes}
    m, h = np.zeros((BATCH, CHANNELS * ORDER)), np.zeros((BATCH, HIDDEN))
    for x in X.numpy():
        u = cells["u"].step(x @ u_in[0] + h @ u_in[1] + m @ u_in[2])
        into = np.einsum("ij,bcj->bci", a, m.reshape(BATCH, CHANNELS, ORDER)) + u[..., None] * b[:, 0]
        m = cells["m"].step(into.reshape(BATCH, -1))
        h = cells["h"].step(x @ h_in[0] + h @ h_in[1] + m @ h_in[2])
        o = cells["o"].step(h @ weights(net, "l2mu_h", "l2mu_o").T + bias)
        for n, s in zip("umho", (u, m, h, o), strict=True):
            spikes[n].append(s)
    recorded = net(X, record=RECORD).recorded
    for n, s in spikes.items():
        assert np.array_equal(recorded[f"l2mu_{n}"].detach().numpy(), np.stack(s)), n
        assert 0.01 < np.mean(s) < 0.99, n


@pytest.mark.parametrize("copies", [1, 5])
def test_the_repaired_memory_by_hand(copies: int) -> None:
    """The same loop with signed copies, their means in place of single spikes, and scaled A and B."""
    net = build(copies=copies).double()
    a, b = (t.numpy() for t in memory_matrices(ORDER, 6.0))
    for c, value in (("l2mu_m_to_l2mu_m", a), ("l2mu_u_to_l2mu_m", b)):
        alike = np.kron(np.eye(CHANNELS), np.kron(value, np.full((copies, copies), 1 / copies)))
        np.testing.assert_allclose(net.connection(c).weight.detach(), alike, atol=1e-7)
        shared = value if copies == 1 else np.kron(np.eye(CHANNELS), value)
        net.connection(c).matrix.data = torch.from_numpy(shared)
    for n, values in (("l2mu_u", CHANNELS), ("l2mu_m", CHANNELS * ORDER)):
        start = (np.arange(copies) + 0.5) / copies - 0.5
        net.neuron(n).v_start.data.copy_(torch.from_numpy(np.tile(start, values)))
    u_cell, m_cell = Signed(CHANNELS, copies), Signed(CHANNELS * ORDER, copies)
    h_cell = LIFs(HIDDEN, np.exp(-1 / 4.0), float(np.float32(0.3)), 0.0, False)
    small = {
        k: getattr(net.connection(k), "matrix", net.connection(k).weight).detach().double().numpy()
        for k in ("input_to_l2mu_u", "l2mu_h_to_l2mu_u", "l2mu_m_to_l2mu_u", "l2mu_m_to_l2mu_h", "input_to_l2mu_h",
                  "l2mu_h_to_l2mu_h")
    }  # fmt: skip
    m, h = np.zeros((BATCH, CHANNELS * ORDER)), np.zeros((BATCH, HIDDEN))
    spikes: dict[str, list[np.ndarray]] = {"u": [], "m": [], "h": []}
    for x in X.numpy():
        drive = x @ small["input_to_l2mu_u"].T + h @ small["l2mu_h_to_l2mu_u"].T + m @ small["l2mu_m_to_l2mu_u"].T
        us = u_cell.step(drive.repeat(copies, 1))
        u = us.reshape(BATCH, CHANNELS, copies).mean(-1)
        into = np.einsum("ij,bcj->bci", a, m.reshape(BATCH, CHANNELS, ORDER)) + u[..., None] * b[:, 0]
        ms = m_cell.step(into.reshape(BATCH, -1).repeat(copies, 1))
        m = ms.reshape(BATCH, CHANNELS * ORDER, copies).mean(-1)
        h = h_cell.step(
            x @ small["input_to_l2mu_h"].T + h @ small["l2mu_h_to_l2mu_h"].T + m @ small["l2mu_m_to_l2mu_h"].T
        )
        for n, s in zip("umh", (us, ms, h), strict=True):
            spikes[n].append(s)
    recorded = net(X, record=RECORD).recorded
    for n, s in spikes.items():
        assert np.array_equal(recorded[f"l2mu_{n}"].detach().numpy(), np.stack(s)), n
        assert np.any(s), n
    assert set(np.unique(spikes["m"])) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("options", [{"copies": 3, "neuron": "cubalif"}], ids=str)
def test_engines_agree(options: dict[str, Any]) -> None:
    """Spikes of the plain loop and of the fused one, and the gradients of everything that is learned."""
    results = []
    for engine in ("eager", "numba"):
        net = build(engine=engine, learn=["tau_mem"], **options).double().train()
        out = net(X, record=RECORD)
        (out.output * torch.arange(1.0, OUTPUTS + 1)).sum().backward()
        results.append((out.recorded, {n: p.grad for n, p in net.named_parameters() if p.requires_grad}))
    for n in RECORD:
        assert torch.equal(results[0][0][n], results[1][0][n]), n
    assert len(results[0][1]) >= 9
    for n, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][n], rtol=1e-6, atol=1e-9)
    assert results[0][1]["connections.input_to_l2mu_u." + ("matrix" if "copies" in options else "weight")].any()


def test_the_loop_is_one_stage_and_files_keep_it(tmp_path: Path) -> None:
    net = build(copies=2)
    assert [s.populations for s in net.schedule()] == [("l2mu_u", "l2mu_m", "l2mu_h"), ("l2mu_o",)]
    save_network(net, tmp_path)
    assert torch.equal(load_network(tmp_path)(X.float()).output, net(X.float()).output)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    "options", [{"memory": "spiking"}, {"memory": "spiking", "neuron": "cubalif"}, {"copies": 3}], ids=str
)
def test_exports_without_a_differing_spike(options: dict[str, Any], tmp_path: Path) -> None:
    net = build(**options)
    inet = rv.quantize(net, X.float())
    target = TARGETS["c"]
    target.export(inet, tmp_path, "block")
    found = rv.verify(target, inet, tmp_path, "block", X.numpy().astype(np.uint8))
    assert (found.differing_spikes, found.differing_readouts, found.differing_states) == (0, 0, 0), found
    assert min(found.firing.values()) > 0.01
    signed = inet.run(X.numpy().astype(np.uint8)).outputs["l2mu_m"].astype(int)
    assert (signed.min() < 0) == ("copies" in options)


def test_published_sets() -> None:
    """Sizes, decays and thresholds of the reference page; 489,787 parameters with 24 inputs and 27 classes."""
    net = rv.Network(dt=5.0)
    x = net.input(24)
    block = rv.L2MU(net, x, **rv.published_l2mu("braille_27", dt=5.0))
    assert (block.memory.size, block.hidden.size, block.output.size) == (1000, 160, 27)
    assert net.count_parameters() == 489_787
    neuron = net.neuron("l2mu_m")
    assert float(neuron.values(5.0)["decay_mem"]) == pytest.approx(0.35)
    assert float(neuron.threshold) == pytest.approx(0.4)
    assert neuron.rule.delayed
    a, _ = legendre_matrices(4, 7.0)
    torch.testing.assert_close(net.connection("l2mu_m_to_l2mu_m").matrix.double(), a.T, atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="there are braille_27, braille_7"):
        rv.published_l2mu("har")


@pytest.mark.parametrize("theta", [5.0, 20.0, 60.0, 200.0])
def test_the_repaired_memory_is_never_silent(theta: float) -> None:
    """Every coefficient fires, and the polynomials read the window back, for short and long windows."""
    copies, order, skip = 16, 6, int(3 * theta)
    net = rv.Network(engine="eager")
    x = net.input(1)
    block = rv.L2MU(net, x, channels=1, order=order, theta=theta, hidden=1, copies=copies)
    with torch.no_grad():
        for n in ("input_to_l2mu_u", "l2mu_h_to_l2mu_u"):
            net.connection(n).matrix.fill_(float(n.startswith("input")))
    steps = max(300, int(12 * theta))
    t = torch.arange(steps) / theta
    u = 0.3 * (torch.sin(2.3 * t) + torch.sin(5.1 * t + 1) + torch.sin(9.7 * t + 2))
    noise = torch.randn(steps, generator=torch.Generator().manual_seed(1)) * 0.4
    for k in range(1, steps):  # as fast as the memory can hold
        noise[k] = np.exp(-order / theta) * noise[k - 1] + np.sqrt(1 - np.exp(-2 * order / theta)) * noise[k]
    with torch.no_grad():
        m = net(torch.stack([u, noise], 1).unsqueeze(-1), record=[block.memory]).recorded["l2mu_m"]
    rates = m[:, 1].reshape(steps, order, copies).abs().mean((0, 2))
    assert (rates > 0.02).all(), rates
    m = m[:, 0].reshape(steps, order, copies)
    a, b = legendre_matrices(order, theta)
    scaled, into = memory_matrices(order, theta)
    scale = (b / into)[:, 0]
    torch.testing.assert_close(scaled * scale.unsqueeze(1) / scale, a)  # a change of scales and no more
    lags = torch.arange(int(theta) + 1)
    read = m.mean(-1).double() * scale @ legendre_at(order, lags / theta).T
    wanted = torch.stack([u[skip - d : steps - d] for d in lags.tolist()], 1).double()
    error = (read[skip:] - wanted).square().mean(0) / u.var()
    assert theta < order or error.mean() < 0.15  # six polynomials over five steps are no reading


def test_without_feedback_the_memory_is_a_loop_of_its_own() -> None:
    net = rv.Network()
    rv.L2MU(net, net.input(2), channels=2, order=3, theta=9.0, hidden=4, feedback=False)
    assert [s.populations for s in net.schedule()] == [("l2mu_u",), ("l2mu_m",), ("l2mu_h",)]


def test_scale_is_twice_the_deviation_of_the_coefficients() -> None:
    """Driven by noise of the stated correlation and unit variance, every coefficient's deviation is one half."""
    for correlation in (1.0, 10.0):
        a, b = (t.numpy() for t in memory_matrices(4, 30.0, correlation=correlation))
        rng, keep = np.random.default_rng(0), np.exp(-1 / correlation)
        u, m, seen = rng.normal(size=500), np.zeros((4, 500)), []
        for _ in range(600):
            u = keep * u + np.sqrt(1 - keep**2) * rng.normal(size=500)
            m = a @ m + b * u
            seen.append(m)
        np.testing.assert_allclose(np.std(seen[100:], axis=(0, 2)), 0.5, rtol=0.03)


def test_sensor_input() -> None:
    """Every axis drives its own neurons only; the stacked form has three layers; parameters are per neuron."""
    net = rv.Network()
    x = net.input(6, kind="counts")
    last = rv.sensor_input(net, x, per_axis=4, stacked=(10, 7))
    assert [(n, p.size) for n, p in net.populations.items()] == [("sensor", 24), ("sensor_2", 10), ("sensor_3", 7)]
    assert last.name == "sensor_3"
    assert net.neuron("sensor").tau_mem.shape == (24,)
    block = rv.L2MU(net, last, channels=3, order=2, theta=9.0, hidden=5, outputs=4)
    net.readout(block.output, "sum")
    signal = torch.randn(30, 2, 6) * 3
    spikes = net(signal, record=["sensor"]).recorded["sensor"]
    moved = signal.clone()
    moved[..., 2] += 5
    other = net(moved, record=["sensor"]).recorded["sensor"]
    differs = (spikes != other).flatten(0, 1).any(0).reshape(6, 4).any(1)
    assert differs.tolist() == [i == 2 for i in range(6)]
    net(signal).output.sum().backward()
    assert net.connection("input_to_sensor").matrix.grad.abs().amin() > 0
    single = rv.Network()
    assert rv.sensor_input(single, single.input(3), per_axis=5, neuron="cubalif").size == 15


def test_errors() -> None:
    def block(**options: Any) -> None:
        net = rv.Network()
        rv.L2MU(net, net.input(2), **{"channels": 2, "order": 3, "theta": 9.0, "hidden": 4, **options})

    block()
    for options, message in (
        ({"order": 0}, "order must be a whole number"),
        ({"theta": 0.0}, "theta, the window in ms, must be a finite time above 0"),
        ({"theta": -3}, "theta, the window"),
        ({"channels": 0}, "channels must be a whole number"),
        ({"outputs": 0}, "outputs must be a whole number"),
        ({"memory": "perfect"}, "memory must be one of sigma_delta, spiking"),
        ({"memory": "spiking", "copies": 2}, "copies of a value are for memory='sigma_delta'"),
        ({"learn_memory": True}, "learn_memory needs copies=1"),
        ({"correlation": 0.0}, "correlation must be a finite time in ms above 0"),
        ({"method": "euler", "theta": 2.0}, "unstable with method 'euler'.*use 'zoh'"),
        ({"neuron": "lif2"}, "the neuron of hidden must be 'lif', 'cubalif' or a function"),
        ({"tau_mem": {"hiden": 3.0}}, "tau_mem is for memory_input, memory, hidden, output; got 'hiden'"),
        ({"threshold": {"output": 3.0}}, "threshold of hidden must be a number, got None"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            block(**options)
    net = rv.Network()
    with pytest.raises(GraphError, match="'watch' is not a node of this network"):
        rv.L2MU(net, "watch", channels=2, order=3, theta=9.0, hidden=4)
    with pytest.raises(ConfigError, match="neuron of hidden"):
        rv.L2MU(net, net.input(2), channels=2, order=3, theta=9.0, hidden=4, neuron="none")
    assert not net.populations  # nothing half made
    with pytest.raises(ConfigError, match="sizes of 1 or more"):
        net = rv.Network()
        rv.sensor_input(net, net.input(2), per_axis=0)


PAGE = Path(__file__).resolve().parents[1] / "docs" / "l2mu.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the docs are in the checkout only")
def test_the_example_in_the_docs_learns(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    seeded = code.replace("import ranvier as rv\n", "import ranvier as rv\ntorch.manual_seed(0)\n", 1)
    seeded = seeded.replace("dt=50.0)", 'dt=50.0, engine="eager")', 1)  # compiling would take longer than running
    assert "manual_seed" in seeded and '"eager"' in seeded
    done = subprocess.run([sys.executable, "-c", seeded], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.7  # of three classes guessed: 1.1
