"""Log-mel levels against SciPy's spectrum, and their promises: decibels, bands, causality."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from ranvier.datasets import log_mel
from ranvier.errors import ConfigError

RATE = 16_000


def tone(frequency: float, amplitude: float, seconds: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def centres(bands: int) -> np.ndarray:
    low, high = (2595 * np.log10(1 + f / 700) for f in (20.0, RATE / 2))
    return 700 * (10 ** (np.linspace(low, high, bands + 2)[1:-1] / 2595) - 1)


@pytest.mark.parametrize("bands", [40, 140])
def test_against_scipys_spectrum(bands: int) -> None:
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.05, RATE // 2) + tone(1000, 0.3) + tone(3100, 0.02)
    found = log_mel(sound, RATE, bands)
    edges = np.concatenate([[20.0], centres(bands), [RATE / 2]])
    for row in (5, 20, 49):
        frame = sound[(row + 1) * 160 - 400 : (row + 1) * 160]
        frequency, power = scipy.signal.periodogram(
            frame, RATE, "hann", nfft=1 << 15, detrend=False, scaling="spectrum"
        )
        power *= 2 * 400 / (1.5 * (1 << 15))  # a sine's mean square is half its amplitude's; bins overlap
        for band in range(bands):
            shape = np.interp(frequency, edges[band : band + 3], [0.0, 1.0, 0.0])
            level = 80 + 10 * np.log10(shape @ power)
            assert abs(found[row, band] - level) < 1.3, (row, band)  # rounding, and the finer bins of the referee


def test_a_count_is_a_decibel_and_a_tone_is_in_its_band() -> None:
    for band in (3, 12, 30):
        frequency = float(centres(40)[band])
        loud, soft = (log_mel(tone(frequency, a), RATE)[10:-5] for a in (1.0, 0.1))
        assert set(loud.argmax(1)) == {band}
        assert np.all(loud[:, band].astype(int) - soft[:, band] == 20)
    assert 75 <= log_mel(tone(float(centres(40)[30]), 1.0), RATE)[20].max() <= 80


def test_nothing_later_is_seen_and_silence_is_0() -> None:
    sound = tone(700, 0.5)
    cut = sound.copy()
    cut[3200:] = 0  # from step 20 on
    whole, begun = log_mel(sound, RATE), log_mel(cut, RATE)
    np.testing.assert_array_equal(whole[:20], begun[:20])
    assert not begun[23:].any() and whole[23:].any()
    np.testing.assert_array_equal(log_mel(sound[:3200], RATE), whole[:20])
    assert log_mel(np.zeros(161), RATE).shape == (2, 40)


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"dt": 0.0}, {"dt": 0.1}, {"window": 5.0}])
def test_wrong_arguments(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="log_mel: needs a band or more"):
        log_mel(np.zeros(1600), RATE, **wrong)  # type: ignore[arg-type]
