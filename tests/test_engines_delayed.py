"""Products over connections with a delay for every pair, by spikes and by shifted rows, against the dense ones."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from ranvier.networks import Delay
from ranvier.neurons.engines import delayed
from ranvier.neurons.engines.taps import delayed_product


@pytest.fixture(params=["spikes", "shifts"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(delayed, "SPIKES_BELOW", 2.0 if request.param == "spikes" else 0.0)
    monkeypatch.setattr(delayed, "SHIFTS_FROM", 0.0)
    monkeypatch.setattr(delayed, "delayed_product", None)  # the dense form is not called
    return str(request.param)


def delays(high: int, sources: int, targets: int, kernel: str, low: int = 0, taps: int = 1) -> Delay:
    made = Delay(max=float(high), min=float(low), kind="synaptic", kernel=kernel, width=1.2, taps=taps)
    made.build(sources, targets, 1.0, False, "d")
    return made.double().train()


def compare(delay: Delay, sent: Tensor, targets: int, steps: int) -> None:
    weight = torch.randn(targets, delay.parts * sent.shape[2], dtype=torch.float64, requires_grad=True)
    bias = torch.randn(targets, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(steps, sent.shape[1], targets, dtype=torch.float64)
    sent.requires_grad_()
    found: list[Iterable[Tensor]] = []
    for product in (delayed.sparse_delayed, delayed_product):
        past = sent[:-steps] if len(sent) > steps else None
        out = product(sent[len(sent) - steps :], weight, bias, (delay.taps(),), past)
        found.append([out.detach(), *torch.autograd.grad((out * seed).sum(), [weight, bias, delay.steps, sent])])
    for name, ours, dense in zip(("output", "weight", "bias", "delay", "input"), *found, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        assert dense.abs().sum() > 0, name


@pytest.mark.parametrize("kernel", ["linear", "triangle", "gaussian"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (7, 3, 5, 9, 3), (40, 2, 33, 35, 30)])
def test_products_and_all_gradients(form: str, shape: tuple[int, int, int, int, int], kernel: str) -> None:
    """More targets than a block of rows, sequences shorter than the longest delay, more history than is read."""
    steps, batch, sources, targets, high = shape
    torch.manual_seed(2)
    extra = 4
    sent = (torch.rand(extra + high + steps, batch, sources) < 0.5).double() * 3
    sent[-1] = 1.0
    compare(delays(high, sources, targets, kernel), sent, targets, steps)


@pytest.mark.parametrize("steps", [6, 40])
@pytest.mark.parametrize("taps", [1, 3])
def test_nothing_sent_before_and_several_taps_for_each_pair(form: str, taps: int, steps: int) -> None:
    torch.manual_seed(3)
    compare(delays(12, 5, 19, "linear", low=1, taps=taps), torch.randn(steps, 3, 5, dtype=torch.float64), 19, steps)


@pytest.mark.parametrize("phase", ["soft", "rounded"])
def test_taps_without_gain_keep_their_gradient(form: str, phase: str) -> None:
    """Rounded delays have one tap of gain 1 and one of gain 0, by which the delay still has a gradient."""
    torch.manual_seed(4)
    delay = delays(9, 6, 5, "linear", low=2)
    delay.set_phase(phase)
    compare(delay, torch.randn(9 + 20, 2, 6, dtype=torch.float64), 5, 20)


def test_whole_steps_have_one_tap(form: str) -> None:
    delay = delays(9, 6, 5, "linear").eval()
    sent, weight = (torch.rand(29, 2, 6) < 0.3).double(), torch.randn(5, 6, dtype=torch.float64)
    given = (sent[9:], weight, None, (delay.taps(),), sent[:9])
    torch.testing.assert_close(delayed.sparse_delayed(*given), delayed_product(*given), rtol=1e-12, atol=1e-12)


def test_the_operators_are_torchs(form: str) -> None:
    delay = delays(6, 7, 4, "linear")
    operator = {"spikes": delayed.delayed_spikes, "shifts": delayed.delayed_shifts}[form]
    amounts = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    sent = torch.rand(16, 3, 7, dtype=torch.float64, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (sent, amounts, delay.taps().offsets, 6, 4), test_utils=checks)


def test_the_form_follows_spikes_and_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for name in ("delayed_spikes", "delayed_shifts", "delayed_product"):
        original = getattr(delayed, name)
        monkeypatch.setattr(delayed, name, lambda *a, n=name, f=original: seen.append(n) or f(*a))
    few, many = (torch.rand(60, 2, 9) < 0.02).double(), torch.rand(60, 2, 9, dtype=torch.float64)
    weight = torch.randn(4, 9, dtype=torch.float64)
    for sent, high in ((few, 30), (few, 2), (many, 30), (many, 2)):
        delayed.sparse_delayed(sent[30:], weight, None, (delays(high, 9, 4, "linear").taps(),), sent[:30])
    assert seen == ["delayed_spikes", "delayed_spikes", "delayed_shifts", "delayed_product"]
