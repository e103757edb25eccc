"""permuted-digits: the digits as they are read, equal parameters, and a run that goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ranvier.datasets.sequential_digits import permutation, sequential_digits
from ranvier.errors import ConfigError, DataError
from ranvier.experiments import permuted_digits as lab
from ranvier.experiments.runs import read_json
from ranvier.networks import Network


@pytest.fixture(scope="module", autouse=True)
def _digits() -> None:
    try:
        sequential_digits("test")
    except DataError as error:
        pytest.skip(str(error))


def test_digits_are_averaged_and_then_permuted() -> None:
    plain, found = sequential_digits("test"), lab.pooled("test", 2)
    assert found.pixels.shape == (1000, 196)
    square = plain.pixels[7].reshape(28, 28)[4:6, 10:12].mean()
    at = int(np.flatnonzero(permutation(196) == 2 * 14 + 5)[0])
    assert found.pixels[7, at] == round(square)
    assert (found.labels == plain.labels).all()
    x, labels = lab.batch(found, torch.arange(5))
    assert x.shape == (196, 5, 1)
    assert len(labels) == 5
    everything, _ = lab.batch(lab.pooled("train", 1), torch.arange(4000))
    assert abs(float(everything.mean())) < 0.02
    assert float(everything.std()) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ConfigError, match="must divide 28"):
        lab.pooled("test", 3)


def test_both_have_equally_many_parameters() -> None:
    counts = [lab.build(model, 0, 64, 196).count_parameters() for model in lab.MODELS]
    assert abs(counts[1] / counts[0] - 1) < 0.02
    assert [lab.build("recurrent", s, 64, 196).neuron("h").tau_mem.min() > 19 for s in (0, 1)] == [True, True]


def test_what_learns_in_an_l2mu_is_the_network_itself() -> None:
    """Trained on what the memory sent, as if the whole network were run: the same output and the same gradients."""
    data = _few(lab.pooled("test", 4))
    net = lab.build("l2mu", 3, 12, 49)
    x, labels = lab.batch(data, torch.arange(len(data)))
    memory = torch.from_numpy(lab.remembered(data)).permute(1, 0, 2).float() / lab.COPIES
    assert memory.abs().max() > 0.5 and memory.shape == (49, len(data), lab.ORDER)
    part, found = lab.reader(net), []
    for output in (net(x).output, part({"x": x, "m": memory}).output):
        net.zero_grad()
        torch.nn.functional.cross_entropy(output, labels).backward()
        found.append((output.detach(), {k: p.grad for k, p in net.named_parameters() if p.grad is not None}))
    (whole, expected), (short, gradients) = found
    torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-4)
    assert expected.keys() == gradients.keys() and len(gradients) == 6 and whole.abs().max() > 0.5
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)
    assert sum(p.numel() for p in part.parameters()) == net.count_parameters()


def test_a_run_is_kept_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lab.pooled
    monkeypatch.setattr(lab, "pooled", lambda split, factor: _few(whole(split, factor)))
    monkeypatch.setattr(lab, "SEEDS", 2)
    monkeypatch.setattr(lab, "Network", lambda dt: Network(dt, "eager"))
    config = lab.defaults()
    config.data.channel_factor, config.model.hidden, config.training.epochs = 7, [8], 1
    lab._run(config, tmp_path, Console(quiet=True), overwrite=False)
    runs = read_json(tmp_path / lab.RESULTS_FILE)["runs"]
    assert [(r["model"], r["seed"]) for r in runs] == [(m, s) for s in (0, 1) for m in lab.MODELS]
    assert all(r["steps"] == 16 and 0 <= r["accuracy"] <= 1 and np.isfinite(r["losses"]).all() for r in runs)
    before = (tmp_path / lab.RESULTS_FILE).read_text()
    lab._run(config, tmp_path, Console(quiet=True), overwrite=False)
    assert (tmp_path / lab.RESULTS_FILE).read_text() == before
    config.training.epochs = 2
    with pytest.raises(ConfigError, match="holds other settings"):
        lab._run(config, tmp_path, Console(quiet=True), overwrite=False)


def _few(data: lab.SequentialDigits) -> lab.SequentialDigits:
    return lab.SequentialDigits(data.pixels[::20], data.labels[::20], data.order)
