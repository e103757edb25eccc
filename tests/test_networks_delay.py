"""Learned delays: gradients against finite differences, spikes moved by exactly the delay, bounds, phases, files."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ranvier as rv
from ranvier.errors import ConfigError, GraphError, RunError
from ranvier.networks import Delay, DelayWarning, delay_schedule, delays_of, load_network, save_network
from ranvier.neurons import State, engines
from ranvier.neurons.engines import delayed, eager, fused
from ranvier.neurons.engines.taps import delayed_product

KINDS = ("axonal", "dendritic", "synaptic")
FORMS = (*KINDS, "axonal+dendritic", "three-taps")


def delays_as(form: str, high: float, **options: Any) -> Any:
    """What ``Dense(delay=...)`` takes for one of :data:`FORMS`, all with a longest delay of ``high`` ms in total."""
    if form == "axonal+dendritic":
        half = high // 2
        return (Delay(max=half, kind="dendritic", **options), Delay(max=high - half, kind="axonal", **options))
    if form == "three-taps":
        return Delay(max=high, kind="synaptic", taps=3, **options)
    return Delay(max=high, kind=form, **options)


class Smooth(rv.Neuron):
    """A neuron whose output is a smooth function of its membrane: finite differences of a network of them exist."""

    output = "real"
    v = State(0.0)

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v * 0.8 + current
        return v, torch.tanh(v)


def smooth(kind: str, recurrent: bool, kernel: str = "linear", width: float = 0.0, dropout: float = 0.0) -> rv.Network:
    torch.manual_seed(3)
    net = rv.Network(dt=1.0)
    x, h = net.input(3), net.population(Smooth(4), name="h")
    delay = delays_as(kind, 5.0, kernel=kernel, width=width)
    if recurrent:
        net.connect(x, h, rv.Dense())
        net.connect(h, h, rv.Dense(delay=delay, dropout=dropout), name="delayed")
    else:
        net.connect(x, h, rv.Dense(delay=delay, bias=True, dropout=dropout), name="delayed")
    return net.double().train()


@pytest.mark.parametrize("kernel", [("linear", 0.0), ("triangle", 1.5), ("gaussian", 0.8)], ids=lambda k: k[0])
@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
@pytest.mark.parametrize("kind", FORMS)
def test_gradients_of_delays_and_weights_are_the_finite_differences(
    kind: str, recurrent: bool, kernel: tuple[str, float]
) -> None:
    net = smooth(kind, recurrent, *kernel)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(9, 2, 3, generator=g, dtype=torch.float64)
    seed = torch.randn(9, 2, 4, generator=g, dtype=torch.float64)

    def loss() -> Tensor:
        return (net(x).output * seed).sum()

    parameters = dict(net.named_parameters())
    grads = dict(zip(parameters, torch.autograd.grad(loss(), list(parameters.values())), strict=True))
    assert any(n.endswith(".steps") and g.abs().max() > 1e-3 for n, g in grads.items())
    step = 1e-6
    for name, p in parameters.items():
        flat = p.data.view(-1)
        for i in range(0, flat.numel(), 3):
            kept = float(flat[i])
            flat[i] = kept + step
            up = loss().item()
            flat[i] = kept - step
            down = loss().item()
            flat[i] = kept
            slope = (up - down) / (2 * step)
            got = float(grads[name].view(-1)[i])
            assert got == pytest.approx(slope, rel=1e-5, abs=1e-7), f"{name}[{i}]"


def relay(kind: str, delays: Any, recurrent: bool = False, size: int = 3) -> rv.Network:
    """Neurons that fire when they receive one spike, connected one to one with the given delays."""
    net = rv.Network(dt=0.5)
    x, h = net.input(size), net.population(rv.LIF(size, tau_mem=1e-3, threshold=0.5), name="h")
    delay = Delay(max=6.0, kind=kind, init=delays)
    if recurrent:
        net.connect(x, h, rv.Dense(weight=torch.eye(size)))
        net.connect(h, h, rv.Dense(weight=torch.eye(size), delay=delay))
    else:
        net.connect(x, h, rv.Dense(weight=torch.eye(size), delay=delay))
    return net.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_delay_of_d_steps_moves_a_spike_by_exactly_d_steps(kind: str) -> None:
    x = torch.zeros(15, 1, 3)
    x[1] = 1.0
    delays = torch.tensor([0.0, 1.5, 5.0])  # ms: 0, 3 and 10 steps
    net = relay(kind, delays.expand(3, 3) if kind == "synaptic" else delays)
    assert net(x).output[:, 0].nonzero().tolist() == [[1, 0], [4, 1], [11, 2]]
    loop = relay(kind, torch.tensor([0.5, 1.5, 6.0]).expand(3, 3) if kind == "synaptic" else [0.5, 1.5, 6.0], True)
    times = loop(x).output[:, 0].nonzero().tolist()
    assert [t for t, n in times if n == 0] == list(range(1, 15))
    assert [t for t, n in times if n == 1] == [1, 4, 7, 10, 13]
    assert [t for t, n in times if n == 2] == [1, 13]


@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
def test_axonal_and_dendritic_delays_add_up(recurrent: bool) -> None:
    """Every pair of neurons has the sum of both, which is a synaptic network with these delays."""
    least = 0.5 if recurrent else 0.0
    axonal, dendritic = [least, 1.5, 4.0], [0.0, 1.0, 3.0]
    weight = torch.tensor([[1.0, 0.25, 0.5], [0.75, 1.0, 0.125], [0.0, 0.5, 1.0]])

    def network(delay: Any) -> rv.Network:
        net = rv.Network(dt=0.5)
        x, h = net.input(3), net.population(rv.LIF(3, tau_mem=3.0, threshold=0.9), name="h")
        if recurrent:
            net.connect(x, h, rv.Dense(weight=torch.eye(3)))
        net.connect(h if recurrent else x, h, rv.Dense(weight=weight, delay=delay), name="delayed")
        return net.eval()

    both = network((Delay(max=4.0, init=axonal), Delay(max=3.0, kind="dendritic", init=dendritic)))
    total = torch.tensor(axonal) + torch.tensor(dendritic)[:, None]
    pairs = network(Delay(max=7.0, kind="synaptic", init=total))
    assert both.connection("delayed").whole_delays().tolist() == (total / 0.5).long().tolist()
    assert torch.equal(both.connection("delayed").whole_delays(), pairs.connection("delayed").whole_delays())
    assert both.longest_delay("h" if recurrent else "input") == 14
    x = (torch.rand(40, 2, 3) < 0.4).float()
    assert torch.equal(both(x).output, pairs(x).output) and both(x).output.sum() > 10


@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
def test_several_taps_are_as_many_connections(recurrent: bool) -> None:
    torch.manual_seed(4)
    weight, steps = torch.randint(-4, 9, (5, 3 * 5)) / 4.0, torch.randint(1, 7, (5, 3 * 5)).float()
    nets = []
    for taps in (3, 1):
        net = rv.Network()
        x, h = net.input(5), net.population(rv.LIF(5, tau_mem=5.0, threshold=0.9), name="h")
        net.connect(x, h, rv.Dense(weight=torch.eye(5)))
        for w, d in zip(weight.split(5 * taps, 1), steps.split(5 * taps, 1), strict=True):
            delay = Delay(max=6.0, kind="synaptic", init=d, taps=taps)
            net.connect(h if recurrent else x, h, rv.Dense(weight=w, delay=delay))
        nets.append(net.eval())
    x = (torch.rand(40, 2, 5) < 0.3).float()
    assert torch.equal(nets[0](x).output, nets[1](x).output) and nets[0](x).output.sum() > 10
    assert nets[0].connection("h_to_h" if recurrent else "input_to_h_2").whole_delays().tolist() == steps.tolist()


@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
@pytest.mark.parametrize("kind", FORMS)
def test_chunks_join_exactly(kind: str, recurrent: bool) -> None:
    net = smooth(kind, recurrent, "triangle", 1.0)
    x = torch.randn(17, 2, 3, dtype=torch.float64)
    whole, state, parts = net(x), None, []
    for chunk in x.split([2, 1, 8, 6]):
        result = net(chunk, state=state)
        parts.append(result.output)
        state = result.state
    torch.testing.assert_close(torch.cat(parts), whole.output, rtol=1e-12, atol=1e-12)


def test_the_three_kinds_agree_where_all_delays_are_equal() -> None:
    outputs, weights = [], smooth("axonal", recurrent=True).connection("delayed").weight
    for kind in KINDS:
        net = smooth(kind, recurrent=True)
        net.connection("delayed").weight.data.copy_(weights)
        net.connection("input_to_h").weight.data.fill_(0.3)
        delays_of(net)[0].steps.data.fill_(2.3)
        outputs.append(net(torch.ones(12, 1, 3, dtype=torch.float64)).output)
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0])


def test_evaluation_has_one_tap_at_a_whole_step_whatever_the_phase() -> None:
    net = smooth("axonal", recurrent=True, kernel="gaussian", width=2.0)
    delay = delays_of(net)[0]
    delay.steps.data.copy_(torch.tensor([1.2, 2.6, 4.4, 5.0]))
    taps = net.eval() and delay.taps()
    assert taps.offsets.tolist() == [[1, 3, 4, 5]] and taps.gains.tolist() == [[1.0] * 4]
    net.train()
    soft = delay.taps()
    assert torch.allclose(soft.gains.sum(0), torch.ones(4, dtype=torch.float64))
    assert (soft.gains > 0.01).sum() > 8
    delay.set_phase("rounded")
    rounded = delay.taps()
    assert torch.equal(rounded.dense().detach(), taps.dense())
    # the last lies on the bound: there a gradient that points outward is dropped
    for sign, expected in ((1.0, [1, 1, 1, 1]), (-1.0, [-1, -1, -1, 0])):
        pull = sign * torch.arange(5.0, dtype=torch.float64).unsqueeze(1)
        (grad,) = torch.autograd.grad((delay.taps().dense() * pull).sum(), [delay.steps])
        assert grad.tolist() == pytest.approx(expected)
    delay.set_phase("frozen")
    assert not delay.steps.requires_grad and torch.equal(delay.taps().dense(), taps.dense())


def test_a_delay_beyond_its_bound_comes_back() -> None:
    delay = Delay(max=4.0)
    delay.build(2, 2, 1.0, False, "d")
    delay.steps.data.copy_(torch.tensor([7.0, -3.0]))
    assert delay.whole().tolist() == [4, 0]
    taps = delay.taps()
    at = (taps.offsets * taps.gains).sum(0)
    assert at.tolist() == [4.0, 0.0]
    (inward,) = torch.autograd.grad(delay.taps().dense()[:, 0] @ torch.arange(5.0), [delay.steps], retain_graph=True)
    assert inward[0] > 0  # descent lowers it


def test_the_schedule_shrinks_rounds_and_freezes() -> None:
    net = smooth("synaptic", recurrent=False, kernel="gaussian", width=2.0)
    delay = delays_of(net)[0]
    seen = []
    for progress in (0.0, 0.125, 0.3, 0.6, 0.8):
        delay_schedule(net, progress)
        seen.append((delay.phase, round(float(delay.width), 3)))
    assert seen == [("soft", 2.0), ("soft", 0.447), ("soft", 0.1), ("rounded", 0.1), ("frozen", 0.1)]


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_whole_steps_and_give_the_same_output(kind: str, tmp_path: Path) -> None:
    net = relay(kind, torch.tensor([0.4, 1.6, 4.9]).expand(3, 3) if kind == "synaptic" else [0.4, 1.6, 4.9])
    save_network(net, tmp_path)
    back = load_network(tmp_path)
    assert delays_of(back)[0].steps.flatten()[:3].tolist() == [1, 3, 10]
    x = (torch.rand(20, 4, 3) < 0.3).float()
    assert torch.equal(back(x).output, net(x).output) and net(x).output.sum() > 0


@pytest.mark.parametrize("form", FORMS[3:])
@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
def test_files_of_two_delays_and_of_several_taps(recurrent: bool, form: str, tmp_path: Path) -> None:
    net = smooth(form, recurrent).eval()
    save_network(net, tmp_path)
    back = load_network(tmp_path)
    ours, theirs = net.connection("delayed"), back.connection("delayed")
    assert torch.equal(theirs.whole_delays(), ours.whole_delays()) and theirs.parts == ours.parts
    assert [d.spec() for d in delays_of(back)] == [d.spec() for d in delays_of(net)]
    x = torch.randn(12, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(back(x).output, net(x).output)
    save_network(back, tmp_path / "again")
    graph = (tmp_path / "graph.json").read_text()
    assert (tmp_path / "again" / "graph.json").read_text() == graph
    for wrong in ('"taps": 0', '"taps": "3"', '"taps": 7'):
        (tmp_path / "graph.json").write_text(re.sub('"taps": [13]', wrong, graph))
        with pytest.raises(RunError, match=r"taps|needs weights|\[N"):
            load_network(tmp_path)


@pytest.mark.parametrize("high", [0, 3, 30])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (7, 3, 5, 9), (20, 2, 33, 17)])
def test_delayed_products_by_spikes_are_the_dense_ones(
    shape: tuple[int, int, int, int], high: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed, "SPIKES_BELOW", 2.0)
    steps, batch, sources, targets = shape
    torch.manual_seed(1)
    delay = Delay(max=float(high), kind="synaptic")
    delay.build(sources, targets, 1.0, False, "d")
    delay.double().train()
    weight = torch.randint(-8, 9, (targets, sources)).double().requires_grad_()
    bias = torch.randn(targets, dtype=torch.float64).requires_grad_()
    sent = (torch.rand(high + steps, batch, sources) < 0.4).double() * 3
    seed = torch.randn(steps, batch, targets, dtype=torch.float64)
    found = []
    for product in (delayed.sparse_delayed, delayed_product):
        out = product(sent[high:], weight, bias, (delay.taps(),), sent[:high])
        found.append([out.detach(), *torch.autograd.grad((out * seed).sum(), [weight, bias, delay.steps])])
    for by_spikes, dense in zip(*found, strict=True):
        torch.testing.assert_close(by_spikes, dense, rtol=1e-9, atol=1e-9)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (sent, torch.randn(2, targets, sources).double().requires_grad_(), delay.taps().offsets, high, high)
    torch.library.opcheck(delayed.delayed_spikes, arguments, test_utils=checks)


def test_a_network_takes_the_product_by_spikes_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = delayed.delayed_spikes
    monkeypatch.setattr(delayed, "delayed_spikes", lambda *a: seen.append(1) or original(*a))
    net = rv.Network()
    x, h = net.input(64), net.population(rv.LIF(64))
    net.connect(x, h, rv.Dense(delay=Delay(max=40.0, kind="synaptic"), gain=3.0))
    few = (torch.rand(60, 4, 64) < 0.05).float()
    outputs = []
    for engine in ("eager", "numba"):
        net.engine = engine
        outputs.append(net(few).output)
    assert len(seen) == 1 and outputs[0].sum() > 0
    assert (outputs[0] != outputs[1]).double().mean() < 1e-3
    net((torch.rand(60, 4, 64) < 0.5).float())
    assert len(seen) == 1  # dense input


def test_dropout_silences_a_source_over_all_its_delays() -> None:
    for recurrent in (False, True):
        net = smooth("synaptic", recurrent, dropout=0.5)
        out = net(torch.randn(6, 2, 3, dtype=torch.float64)).output
        assert torch.isfinite(out).all() and not torch.equal(out, net(torch.ones(6, 2, 3, dtype=torch.float64)).output)


def test_wrong_delays_are_named() -> None:
    with pytest.raises(ConfigError, match="kind must be one of axonal"):
        Delay(max=3.0, kind="somatic")
    with pytest.raises(ConfigError, match="max must be a finite time"):
        Delay(max=float("nan"))
    with pytest.raises(ConfigError, match="width above 0"):
        Delay(max=3.0, kernel="gaussian")
    net = rv.Network(dt=2.0)
    x, h = net.input(3), net.population(rv.LIF(4))
    with pytest.raises(ConfigError, match=r"delays from 2 to 1 ms leave no whole number of steps of 2 ms"):
        net.connect(h, h, rv.Dense(delay=Delay(max=1.0)))
    with pytest.raises(ConfigError, match="must lie between 0 and 10 ms"):
        net.connect(x, h, rv.Dense(delay=Delay(max=10.0, init=11.0)))
    with pytest.raises(ConfigError, match="not finite"):
        net.connect(x, h, rv.Dense(delay=Delay(max=10.0, init=float("inf"))))
    with pytest.raises(ConfigError, match="leave out connect"):
        net.connect(x, h, rv.Dense(delay=Delay(max=10.0)), delay=2.0)
    with pytest.raises(ConfigError, match="taps must be a whole number"):
        Delay(max=3.0, kind="synaptic", taps=0)
    with pytest.raises(ConfigError, match="several taps belong to a pair"):
        Delay(max=3.0, kind="axonal", taps=2)
    with pytest.raises(ConfigError, match="an axonal and a dendritic Delay go together, got axonal and synaptic"):
        rv.Dense(delay=(Delay(max=3.0), Delay(max=3.0, kind="synaptic")))
    with pytest.raises(ConfigError, match="or an axonal and a dendritic one, got float"):
        rv.Dense(delay=3.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"weight must be \[N_target, taps N_source\] = \(4, 6\), got \(4, 3\)"):
        net.connect(x, h, rv.Dense(weight=torch.ones(4, 3), delay=Delay(max=10.0, kind="synaptic", taps=2)))
    with pytest.raises(GraphError, match="read both from its 'delays'"):
        _ = rv.Dense(delay=[Delay(max=3.0), Delay(max=3.0, kind="dendritic")]).delay
    shared = Delay(max=10.0)
    net.connect(x, h, rv.Dense(delay=shared))
    with pytest.raises(GraphError, match="already in use"):
        net.connect(h, h, rv.Dense(delay=shared))


@pytest.mark.parametrize("form", FORMS)
def test_a_cycle_whose_delays_may_all_be_0_is_named(form: str) -> None:
    loop = rv.Network()
    loop.input(1)
    a, b = loop.population(rv.LIF(2), name="a"), loop.population(rv.LIF(3), name="b")
    loop.connect(a, b, rv.Dense(delay=delays_as(form, 4.0)))
    loop.connect(b, a, rv.Dense(delay=delays_as(form, 4.0, min=0.0)))
    with pytest.raises(GraphError, match="the cycle a -> b -> a has a total delay of 0"):
        loop.schedule()


def test_a_delay_longer_than_the_sequence_is_said_once_and_runs() -> None:
    def network() -> rv.Network:
        net = rv.Network(dt=0.5)
        x, h = net.input(3), net.population(rv.LIF(3, tau_mem=1e-3, threshold=0.5), name="h")
        net.connect(x, h, rv.Dense(weight=torch.eye(3)), delay=2.5, name="late")
        net.connect(h, h, rv.Dense(delay=Delay(max=20.0, init=1.0)), name="back")  # a bound is no delay
        net.connect(h, h, rv.Dense(delay=[Delay(max=9.0, init=3.0), Delay(max=9.0, kind="dendritic", init=1.0)]))
        return net.eval()

    net, x = network(), torch.ones(5, 2, 3)
    with pytest.warns(DelayWarning) as caught:
        out = net(x)
        net(x)
        net(x[:3])
    (warning,) = [w for w in caught if issubclass(w.category, DelayWarning)]
    assert re.search(r"of 5 steps .* of late \(input -> h\) 5, h_to_h \(h -> h\) 8:", str(warning.message))
    assert warning.filename == __file__ and not out.output.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DelayWarning)
        network()(torch.ones(9, 2, 3))
        rest = network()(x, state=out.state)  # a chunk of a longer sequence: nothing is lost
    assert rest.output[0].all()


def test_a_delay_that_training_has_spoilt_is_named() -> None:
    net = smooth("synaptic", recurrent=False)
    delays_of(net)[0].steps.data[1, 2] = float("nan")
    for training in (True, False):
        with pytest.raises(ConfigError, match="delayed: a delay is not finite"):
            net.train(training)(torch.zeros(4, 1, 3, dtype=torch.float64))


def same_in_both_engines(
    net: rv.Network, sequence: Tensor, chunks: list[int], seed: int = 1, engine: str = "numba"
) -> None:
    """Outputs, states and all gradients (weights, delays, input, and the state that a chunk starts from)."""
    names = ["output", "input", *(n for n, p in net.named_parameters() if p.requires_grad)]
    found = []
    for each in ("eager", engine):
        net.engine = each
        torch.manual_seed(seed)  # the same dropout
        outputs, state, loss = [], None, torch.zeros((), dtype=torch.float64)
        for chunk in sequence.split(chunks):
            result = net(chunk, state=state, record=("h.v",))
            outputs.append(result.output)
            state = result.state
            loss = loss + result.recorded["h.v"].sum()
        out = torch.cat(outputs)
        loss = loss + (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)).sum()
        wanted = [sequence, *(p for p in net.parameters() if p.requires_grad)]
        found.append([out.detach(), *torch.autograd.grad(loss, wanted)])
    assert found[0][0].sum() > 10
    for name, plain, ours in zip(names, *found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        assert plain.abs().sum() > 0, name


def spikes(steps: int, batch: int, size: int, rate: float) -> Tensor:
    return (torch.rand(steps, batch, size, dtype=torch.float64) < rate).double().requires_grad_()


@pytest.mark.parametrize("form", FORMS)
def test_a_loop_with_delays_in_the_fused_engine(form: str) -> None:
    torch.manual_seed(5)
    net = rv.Network()
    x, h = net.input(4), net.population(rv.AdLIF(7, tau_mem=5.0, threshold=0.3, learn="tau_mem"), name="h")
    net.connect(x, h, rv.Dense(gain=3.0))
    kernel = {"kernel": "gaussian", "width": 1.0} if form in ("axonal", "dendritic") else {}
    net.connect(h, h, rv.Dense(delay=delays_as(form, 6.0, **kernel), gain=2.0), name="back")
    same_in_both_engines(net.double().train(), sequence := spikes(23, 3, 4, 0.4), [9, 14])
    if form == "synaptic":
        for delay in delays_of(net):  # what is not learned has no gradient, and its neighbour still has
            delay.set_phase("frozen")
        same_in_both_engines(net, sequence, [9, 14])
        net.connection("back").weight.requires_grad_(False)
        delays_of(net)[0].set_phase("rounded")
        same_in_both_engines(net, sequence, [9, 14])
    net.eval()
    outputs = []
    for engine in ("eager", "numba"):
        net.engine = engine
        outputs.append(net(sequence.detach()).output)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("compact", [False, True], ids=["wide", "compact"])
def test_all_kinds_of_delay_in_one_loop_in_the_fused_engine(compact: bool) -> None:
    """Two populations; with a surrogate of compact support part of the gradients is left out."""
    torch.manual_seed(5)
    options: dict[str, Any] = {"threshold": 0.3, **({"surrogate": rv.Triangle(0.3)} if compact else {})}
    net = rv.Network()
    x, h = net.input(4), net.population(rv.LIF(7, tau_mem=5.0, **options), name="h")
    g = net.population(rv.CuBaLIF(5, tau_mem=6.0, **options), name="g")
    net.connect(x, h, rv.Dense(gain=3.0))
    net.connect(h, g, rv.Dense(delay=delays_as("axonal+dendritic", 4.0, min=0.0), gain=3.0, dropout=0.2))
    net.connect(g, h, rv.Dense(delay=delays_as("three-taps", 6.0), gain=2.0, dropout=0.3))
    net.connect(h, h, rv.Dense(delay=delays_as("dendritic", 5.0), gain=2.0, dropout=0.3))
    net.connect(h, g, rv.Dense(delay=delays_as("synaptic", 3.0, min=0.0), gain=2.0))
    net.connect(g, g, rv.Dense(delay=delays_as("axonal", 3.0), gain=0.5))
    net.connect(h, g, rv.Dense(gain=0.5, dropout=0.3))
    same_in_both_engines(net.double().train(), spikes(23, 3, 4, 0.4), [9, 14])


@pytest.mark.parametrize("forms", [("axonal+dendritic", "synaptic"), ("three-taps", "dendritic")])
def test_a_loop_with_long_least_delays_advances_in_blocks(forms: tuple[str, str]) -> None:
    """As long as a block of the fused engine and longer, with populations in either order within a block."""
    torch.manual_seed(6)
    net = rv.Network()
    x, h = net.input(4), net.population(rv.LIF(7, tau_mem=5.0, threshold=0.3), name="h")
    g = net.population(rv.LIF(6, tau_mem=5.0, threshold=0.3), name="g")
    net.connect(x, h, rv.Dense(gain=3.0))
    net.connect(h, g, rv.Dense(delay=delays_as(forms[0], 9.0, min=1.0), gain=3.0))
    net.connect(g, h, rv.Dense(delay=delays_as(forms[1], 80.0, min=20.0), gain=3.0))
    same_in_both_engines(net.double().train(), spikes(150, 2, 4, 0.2), [150])
    # most of these delays are longer than what is run at once: nothing of one chunk may be met again in another
    same_in_both_engines(net, spikes(150, 2, 4, 0.2), [37, 31, 33, 49])


def test_the_plain_loop_goes_only_through_the_delays_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its output is that of two connections with one delay each, and so is the number of its products."""
    torch.manual_seed(6)
    weight, delay = torch.randn(5, 5), torch.tensor([3.0, 31.0]).repeat(13)[:25].reshape(5, 5)
    outputs, x = [], spikes(50, 2, 4, 0.3).detach().float()
    products: list[int] = []
    monkeypatch.setattr(eager, "linear", lambda *a: products.append(0) or torch.nn.functional.linear(*a))
    for parts in ([weight], [weight * (delay == 3), weight * (delay == 31)]):
        torch.manual_seed(7)
        net = rv.Network(engine="eager")
        net.connect(net.input(4), h := net.population(rv.LIF(5, tau_mem=5.0)), rv.Dense(gain=2.0))
        for part, steps in zip(parts, (3.0, 31.0), strict=False):
            own = Delay(max=40.0, kind="synaptic", init=delay) if len(parts) == 1 else None
            net.connect(h, h, rv.Dense(weight=part, delay=own), delay=None if own else steps)
        outputs.append(net.eval()(x).output)
        products.append(1)
    assert torch.equal(*outputs)
    assert 0 < outputs[0].mean() < 1
    assert products.index(1) <= 2 * (50 + 40)


def test_auto_compiles_sooner_where_eager_has_long_delays_to_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = engines.run_eager
    monkeypatch.setattr(engines, "run_eager", lambda *a: seen.append("eager") or original(*a))
    monkeypatch.setattr(fused, "run_fused", lambda engine, *a: seen.append(engine) or original(*a))
    for high in (1.0, 40.0):
        net = rv.Network()
        x, h = net.input(4), net.population(rv.LIF(128))
        net.connect(x, h, rv.Dense())
        net.connect(h, h, rv.Dense(delay=Delay(max=high)))
        net(torch.zeros(64, 8, 4))
    assert seen == ["eager", "numba"]


@pytest.mark.parametrize("width", [1e-3, 0.04, 1.0])
def test_a_gaussian_of_any_width_has_gains_that_add_up_and_a_finite_gradient(width: float) -> None:
    delay = Delay(max=4.0, kernel="gaussian", width=width, init=[0.0, 1.5, 2.2, 4.0])
    delay.build(4, 4, 1.0, back=False, label="here")
    gains = delay.taps().gains
    assert torch.allclose(gains.sum(0), torch.ones(4))
    (grad,) = torch.autograd.grad(gains[0].sum(), delay.steps)
    assert torch.isfinite(grad).all()
