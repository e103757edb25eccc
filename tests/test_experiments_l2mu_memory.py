"""l2mu-memory: the read-out can tell memory from none, all memories are of one size, and the repaired one remembers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ranvier.experiments import l2mu_memory as lab
from ranvier.experiments.registry import find_experiment

LAGS = [0, 5, 10, 20]


def eager(name: str) -> lab.Memory:
    memory = lab.MEMORIES[name][1](lab.THETA, 3)
    memory.net.engine = "eager"
    return memory


def test_noise_is_band_limited_and_of_unit_variance() -> None:
    x = lab.noise(20.0, 30, 0)[..., 0].numpy()
    assert x.shape == (600, 30)
    assert x.std() == pytest.approx(1.0, abs=0.05)
    power = np.abs(np.fft.rfft(x * np.hanning(600)[:, None], axis=0)) ** 2
    frequency = np.fft.rfftfreq(600)
    assert power[frequency > 0.13].sum() < 1e-3 * power.sum()  # 2.4 cycles in 20 steps
    assert power[(frequency > 0.1) & (frequency < 0.12)].sum() > 0.1 * power.sum()
    assert len(lab.noise(200.0, 2, 0)) == 1800


def test_reading_back_what_is_there_and_what_is_not() -> None:
    """Delayed copies of the input are read to the end; other noise reads nothing; a leak of what is sent counts."""
    x = lab.noise(20.0, 30, 1)
    delayed = torch.cat([torch.roll(x, d, 0) for d in (0, 5, 10, 20)], -1)
    assert min(lab.read_back(delayed, x, LAGS, 60)["r2"]) > 0.999
    other = lab.read_back(torch.randn(*x.shape[:2], 30, generator=torch.Generator().manual_seed(0)), x, LAGS, 60)
    assert max(other["r2"]) < 0.02
    change = x - torch.cat([torch.zeros_like(x[:1]), 0.9048 * x[:-1]])  # a leak of 10 steps undoes it
    found = lab.read_back(change, x, [0], 60)
    assert found["leak"] == 10.0
    assert found["r2"][0] > 0.99


@pytest.mark.parametrize("name", lab.MEMORIES)
def test_every_memory_has_490_neurons_and_sends_what_it_says(name: str) -> None:
    memory = eager(name)
    assert sum(memory.net.neuron(n).size for n in memory.net.populations) == 490
    spikes = lab.sent(memory, lab.noise(20.0, 3, 5)[:150])
    assert spikes.shape == (150, 3, 420)
    assert spikes.any()
    values = set(spikes.unique().tolist())
    assert name == "graded" or values <= {-1.0, 0.0, 1.0}
    assert name != "graded" or len(values) > 10


def test_the_repaired_memory_meets_the_bar_and_plain_spikes_do_not() -> None:
    x = lab.noise(lab.THETA, 30, 3)
    ends = {n: lab.read_back(lab.sent(eager(n), x), x, LAGS, 60)["r2"][-1] for n in ("copies", "plain")}
    assert ends["copies"] >= 0.75
    assert ends["plain"] < 0.2


def test_learning_moves_a_b_and_the_encoders() -> None:
    memory = eager("learned")
    before = [p.detach().clone() for p in memory.net.parameters() if p.requires_grad]
    lab.train(memory, lab.THETA, 0, 1)
    after = [p.detach() for p in memory.net.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in before] == [(70, 1), (6, 6), (6, 1)]
    assert all((a != b).any() for a, b in zip(after, before, strict=True))


def test_picture_and_jobs(tmp_path: Path) -> None:
    assert find_experiment("l2mu-memory").name == "l2mu-memory"
    todo = lab.jobs(range(2))
    assert len(todo) == len(set(todo)) == 2 * (len(lab.MEMORIES) + 1) + 5 * 2 * (len(lab.SWEPT) + 1)
    runs = [
        {"memory": n, "theta": t, "seed": s, "lags": list(range(5)), "r2": [0.9 - 0.1 * k for k in range(5)]}
        for n, t, s in todo
    ]
    path = lab.picture(tmp_path, runs)
    assert path.read_bytes()[:4] == b"\x89PNG"
