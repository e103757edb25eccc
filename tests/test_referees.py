"""snnTorch and Norse with the same parameters give the same spikes over 1,000 random steps.

docs/semantics.md, section 13, says how to translate."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from ranvier.networks import Dense, Network, Result
from ranvier.neurons import LIF, CuBaLIF, Neuron

T, B, C, N = 1000, 2, 7, 12
DT, TAU_MEM, TAU_SYN, THRESHOLD = (
    1.0,
    12.0,
    5.0,
    0.875,
)  # snnTorch holds its threshold and spikes in float32: exact there
BETA, ALPHA = math.exp(-DT / TAU_MEM), math.exp(-DT / TAU_SYN)


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input spikes [T, B, C], input weights [N, C], recurrent weights [N, N] and a recurrent bias [N], in float64."""
    g = torch.Generator().manual_seed(17)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    x = (torch.rand(T, B, C, generator=g, dtype=torch.float64) < 0.2).double()
    return x, draw(N, C) * 0.4 + 0.12, draw(N, N) * 0.25, draw(N) * 0.02


def ours(neuron: Neuron, x: Tensor, w: Tensor, recurrent: Tensor | None = None, bias: Tensor | None = None) -> Result:
    net = Network(dt=DT)
    net.input(C, name="x")
    net.population(neuron, name="h")
    net.connect("x", "h", Dense(weight=w))
    if recurrent is not None:
        net.connect("h", "h", Dense(weight=recurrent, bias=bias is not None), name="loop")
    net.double()
    with torch.no_grad():
        # the numbers again: they were held in float32 until double() was called
        net.connection("x_to_h").weight.copy_(w)
        for name in ("tau_mem", "tau_syn", "threshold"):
            if name in neuron.parameters_declared():
                setattr(neuron, name, {"tau_mem": TAU_MEM, "tau_syn": TAU_SYN, "threshold": THRESHOLD}[name])
        if recurrent is not None:
            net.connection("loop").weight.copy_(recurrent)
        if bias is not None:
            net.connection("loop").bias.copy_(bias)  # type: ignore[union-attr]
        return net(x, record=("h", *(f"h.{s}" for s in neuron.program(DT).states)))


def assert_same_spikes(result: Result, spikes: Tensor) -> None:
    ours = result.recorded["h"]
    assert 0.01 < ours.mean() < 0.6, "spikes in a sensible range"
    assert (ours.sum((0, 1)) > 0).sum() > N / 2
    differing = int((ours != spikes).sum())
    assert differing == 0, f"{differing} of {int(ours.sum())} spikes differ"


# -- snnTorch ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def snn() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("snntorch", reason="snnTorch is not installed (pip install -e .[interop])")


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def run_leaky(cell: Any, current: Tensor) -> tuple[Tensor, Tensor]:
    mem, spikes, mems = torch.zeros(B, N, dtype=torch.float64), [], []
    with torch.no_grad():
        for step in current.unbind(0):
            spike, mem = cell(step, mem)
            spikes.append(spike)
            mems.append(mem)
    return torch.stack(spikes), torch.stack(mems)


def test_snntorch_leaky_subtract(snn: Any, data: tuple[Tensor, ...]) -> None:
    x, w, _, _ = data
    spikes, mem = run_leaky(snn.Leaky(beta=number(BETA), threshold=THRESHOLD, reset_mechanism="subtract"), x @ w.T)
    result = ours(LIF(N, reset_delayed=True), x, w)
    assert_same_spikes(result, spikes)
    torch.testing.assert_close(result.recorded["h.v"], mem, rtol=1e-9, atol=1e-9)


def test_snntorch_leaky_subtract_at_once(snn: Any, data: tuple[Tensor, ...]) -> None:
    """``reset_delay=False`` is our default, as long as no membrane stays above the threshold after its reset."""
    x, w, _, _ = data
    w = w * 0.3
    spikes, mem = run_leaky(snn.Leaky(beta=number(BETA), threshold=THRESHOLD, reset_delay=False), x @ w.T)
    result = ours(LIF(N), x, w)
    assert result.recorded["h.v"].max() < THRESHOLD
    assert_same_spikes(result, spikes)
    torch.testing.assert_close(result.recorded["h.v"], mem, rtol=1e-9, atol=1e-9)


def test_snntorch_leaky_zero(snn: Any, data: tuple[Tensor, ...]) -> None:
    """Leaky's zero reset empties the membrane before the next input arrives: the same spikes as a reset at once."""
    x, w, _, _ = data
    spikes, mem = run_leaky(snn.Leaky(beta=number(BETA), threshold=THRESHOLD, reset_mechanism="zero"), x @ w.T)
    result = ours(LIF(N, reset="to_value"), x, w)
    assert_same_spikes(result, spikes)
    torch.testing.assert_close(result.recorded["h.v"], mem * (1 - spikes), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("mechanism", "reset"), [("subtract", "subtract"), ("zero", "to_value")])
def test_snntorch_synaptic(snn: Any, data: tuple[Tensor, ...], mechanism: str, reset: str) -> None:
    x, w, _, _ = data
    w = w * 0.35
    cell = snn.Synaptic(alpha=number(ALPHA), beta=number(BETA), threshold=THRESHOLD, reset_mechanism=mechanism)
    syn = mem = torch.zeros(B, N, dtype=torch.float64)
    spikes, syns, mems = [], [], []
    with torch.no_grad():
        for step in (x @ w.T).unbind(0):
            spike, syn, mem = cell(step, syn, mem)
            spikes.append(spike)
            syns.append(syn.clone())
            mems.append(mem.clone())
    result = ours(CuBaLIF(N, reset=reset, reset_delayed=True), x, w)
    assert_same_spikes(result, torch.stack(spikes))
    torch.testing.assert_close(result.recorded["h.v"], torch.stack(mems), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(result.recorded["h.i_syn"], torch.stack(syns), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("mechanism", "reset"), [("subtract", "subtract"), ("zero", "to_value")])
def test_snntorch_rleaky(snn: Any, data: tuple[Tensor, ...], mechanism: str, reset: str) -> None:
    x, w, recurrent, bias = data
    cell = snn.RLeaky(beta=number(BETA), linear_features=N, threshold=THRESHOLD, reset_mechanism=mechanism).double()
    with torch.no_grad():
        cell.recurrent.weight.copy_(recurrent)
        cell.recurrent.bias.copy_(bias)
        spike = mem = torch.zeros(B, N, dtype=torch.float64)
        spikes, mems = [], []
        for step in (x @ w.T).unbind(0):
            spike, mem = cell(step, spike.double(), mem)
            spikes.append(spike)
            mems.append(mem)
    result = ours(LIF(N, reset=reset, reset_delayed=True), x, w, recurrent, bias)
    assert_same_spikes(result, torch.stack(spikes))
    torch.testing.assert_close(result.recorded["h.v"], torch.stack(mems), rtol=1e-9, atol=1e-9)


def test_the_reset_convention_matters(snn: Any, data: tuple[Tensor, ...]) -> None:
    """The comparison can fail: with the reset at once, spikes differ from snnTorch's default."""
    x, w, _, _ = data
    spikes, _ = run_leaky(snn.Leaky(beta=number(BETA), threshold=THRESHOLD), x @ w.T)
    with pytest.raises(AssertionError, match="spikes differ"):
        assert_same_spikes(ours(LIF(N), x, w), spikes)


# -- Norse ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lif() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "norse.torch.functional.lif", reason="Norse is not installed (pip install -e .[interop])"
        )


SECOND = 1000.0  # Norse counts in seconds
GAIN = DT / TAU_MEM  # what Norse multiplies the synaptic current by, on its way to the membrane


def parameters(lif: Any) -> Any:
    return lif.LIFParameters(
        tau_syn_inv=number(SECOND / TAU_SYN),
        tau_mem_inv=number(SECOND / TAU_MEM),
        v_th=number(THRESHOLD),
        v_reset=number(0.0),
        v_leak=number(0.0),
    )


def cubalif() -> CuBaLIF:
    return CuBaLIF(N, reset="to_value", integrator="euler")


def test_norse_lif(lif: Any, data: tuple[Tensor, ...]) -> None:
    x, w, _, _ = data
    w = w * 4
    state = lif.LIFFeedForwardState(v=torch.zeros(B, N).double(), i=torch.zeros(B, N).double())
    spikes, vs, currents = [], [], []
    for step in (x @ w.T).unbind(0):
        spike, state = lif.lif_feed_forward_step(step, state, parameters(lif), dt=DT / SECOND)
        spikes.append(spike)
        vs.append(state.v)
        currents.append(state.i)
    result = ours(cubalif(), x, w * GAIN)
    assert_same_spikes(result, torch.stack(spikes))
    torch.testing.assert_close(result.recorded["h.v"], torch.stack(vs), rtol=1e-9, atol=1e-9)
    # Norse keeps its current after the decay, in its own unit
    torch.testing.assert_close(
        result.recorded["h.i_syn"] / GAIN * (1 - DT / TAU_SYN), torch.stack(currents), rtol=1e-9, atol=1e-9
    )


def test_norse_recurrent_lif(lif: Any, data: tuple[Tensor, ...]) -> None:
    x, w, recurrent, _ = data
    w, recurrent = w * 4, recurrent * 4
    zero = torch.zeros(B, N).double()
    state, spikes = lif.LIFState(z=zero, v=zero, i=zero), []
    for step in x.unbind(0):
        spike, state = lif.lif_step(step, state, w, recurrent, parameters(lif), dt=DT / SECOND)
        spikes.append(spike)
    assert_same_spikes(ours(cubalif(), x, w * GAIN, recurrent * GAIN), torch.stack(spikes))


def test_norse_recurrent_module_has_no_autapses(lif: Any, data: tuple[Tensor, ...]) -> None:
    """``LIFRecurrent`` clears the diagonal of its recurrent weights unless asked not to."""
    module = pytest.importorskip("norse.torch.module.lif")
    x, w, recurrent, _ = data
    w, recurrent = w * 4, recurrent * 4
    layer = module.LIFRecurrent(
        C, N, p=parameters(lif), input_weights=w, recurrent_weights=recurrent.clone(), dt=DT / SECOND
    )
    zero = torch.zeros(B, N).double()
    with torch.no_grad():
        spikes, _ = layer(x, lif.LIFState(z=zero, v=zero, i=zero))
    cleared = recurrent.clone().fill_diagonal_(0.0)
    assert_same_spikes(ours(cubalif(), x, w * GAIN, cleared * GAIN), spikes)
