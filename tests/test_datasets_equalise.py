"""Equal mean counts: whole numbers, the wanted gain, and what has to stay as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ranvier.datasets.equalise import LARGEST_GAIN, equalised
from ranvier.errors import ConfigError
from ranvier.experiments import Config, override
from ranvier.experiments.counts import CountSplit
from ranvier.experiments.data import load_training


def by_hand(word: np.ndarray, strength: float) -> np.ndarray:
    """One word [T, C], channel by channel."""
    steps, channels = word.shape
    half = (max(1, round(0.2 * channels)) | 1) // 2
    out = np.zeros_like(word)
    whole = word.sum() / word.size
    for c in range(channels):
        around = word[:, max(0, c - half) : c + half + 1].mean()
        gain = min(max(whole / max(around, 1e-6), 0.25), 4.0) ** strength
        for t in range(steps):
            out[t, c] = min(round(float(np.float32(word[t, c]) * np.float32(gain))), 255)
    return out


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("channels", [70, 35, 3])
def test_against_a_loop(strength: float, channels: int) -> None:
    rng = np.random.default_rng(channels)
    slope = np.linspace(0.5, 30, channels)
    x = rng.poisson(slope, (15, 6, channels)).astype(np.uint8)
    got = equalised(torch.from_numpy(x), strength)
    assert got.dtype == torch.uint8
    wanted = np.stack([by_hand(x[:, b], strength) for b in range(6)], 1)
    difference = np.abs(got.numpy().astype(int) - wanted.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # a half may fall to either side in float32
    assert (got.numpy() != x).mean() > 0.2


def test_a_tilt_is_taken_away() -> None:
    rng = np.random.default_rng(0)
    flat = rng.poisson(20, (15, 4, 70))
    tilted = torch.from_numpy((flat * np.linspace(0.4, 1.6, 70)).astype(np.uint8))
    slope = [float(np.polyfit(np.arange(70), equalised(tilted, s).float().mean((0, 1)), 1)[0]) for s in (0, 0.5, 1)]
    assert slope[0] > 0.3 and slope[1] == pytest.approx(slope[0] / 2, rel=0.25) and abs(slope[2]) < 0.1 * slope[0]


def test_what_stays() -> None:
    x = torch.randint(0, 256, (15, 3, 70), dtype=torch.uint8)
    assert equalised(x, 0.0) is x
    assert not equalised(torch.zeros_like(x), 1.0).any()
    one = torch.zeros((15, 1, 70), dtype=torch.uint8)
    one[:, :, 60:] = 3
    alone = one.clone()
    alone[0, 0, 5] = 1  # a single event far from all others is not blown up
    assert int(equalised(alone, 1.0)[0, 0, 5]) <= LARGEST_GAIN
    together = equalised(x, 0.7)
    assert torch.equal(equalised(x[:, 1:2], 0.7), together[:, 1:2])  # a word does not depend on its batch


def test_as_a_setting() -> None:
    config = override(Config(), ["data.equalise=0.5", "validation_speakers=0", "data.max_count=6"])
    training, _ = load_training(config)
    assert training.equalise == 0.5
    rows = np.arange(4)
    plain = CountSplit(training.data).batch(rows).counts
    assert torch.equal(training.batch(rows).counts, equalised(plain, 0.5).clamp(max=6))  # and only then saturated
    assert not torch.equal(training.batch(rows).counts, plain.clamp(max=6))
    assert torch.equal(training.take(rows).batch(rows).counts, training.batch(rows).counts)
    with pytest.raises(ConfigError, match="equalise must be between 0 and 1"):
        override(Config(), ["data.equalise=1.5"])
