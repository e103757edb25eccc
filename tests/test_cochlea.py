"""The inner-ear model against its equations, against independent draws, and against the reference implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from scipy.integrate import quad
from scipy.stats import chi2

from ranvier.datasets import cochlea as module
from ranvier.datasets.cochlea import Cochlea, transfer
from ranvier.datasets.hair_cell import fibre_counts, new_states, release_probability, run_places
from ranvier.errors import ConfigError, DataError

FEW = 20
RATE = 24000.0


def noise(seconds: float, rate: int = 48000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(seconds * rate))


# --- basilar membrane -------------------------------------------------------------------------------------------------


def test_the_closed_phase_integral_is_the_integral_of_the_wave_number() -> None:
    for frequency in (100.0, 1000.0, 7000.0):
        w = np.array([2 * np.pi * frequency])
        start = complex(module._phase_integral(w, 0.0)[0])
        assert start == pytest.approx(complex(2 * module._wave_number(w, 0.0)[0] / 3), rel=1e-9)
        for place in (0.4, 1.5, 3.5):
            real = quad(lambda c, w=w: module._wave_number(w, c)[0].real, 0, place, limit=400)[0]
            imaginary = quad(lambda c, w=w: module._wave_number(w, c)[0].imag, 0, place, limit=400)[0]
            whole = complex(module._phase_integral(w, place)[0])
            assert whole - start == pytest.approx(complex(real, imaginary), rel=1e-5)


def test_low_tones_travel_farther() -> None:
    best = [
        max(np.linspace(0, 3.5, 71), key=lambda place, f=f: abs(transfer(np.array([f]), float(place))[0]))
        for f in (8000.0, 4000.0, 2000.0, 1000.0, 500.0, 250.0)
    ]
    assert np.all(np.diff(best) > 0.2)


def test_the_folded_truncated_transform_is_the_published_one() -> None:
    """Without padding: spectrum times V at frequencies from 1 Hz, complex inverse of half the bins, real part."""
    ear = Cochlea(channels=FEW)
    sound = noise(0.5)
    bins = len(sound) // 2
    prepared = sound * 0.3 / np.sqrt(np.mean(sound**2)) * np.hanning(len(sound))
    spectrum = np.fft.fft(prepared)[:bins]
    frequency = np.linspace(1, 24000, bins + 1)[:bins]
    ours = ear.membrane(sound, 48000)
    assert ours.shape == (bins, FEW)
    for channel in (0, 1, 9, FEW - 1):
        published = np.fft.ifft(spectrum * transfer(frequency, 3.5 * channel / (FEW - 1))).real
        assert np.abs(ours[:, channel] - published).max() < 2e-6 * np.abs(published).max()


def test_padding_and_cutting_into_blocks_change_nothing() -> None:
    sound = noise(0.9, seed=1)
    whole = Cochlea(channels=FEW).membrane(sound, 48000)  # padded to one block of a second
    ear = Cochlea(channels=FEW)
    ear._bins = ear._bins[:1]  # blocks of half a second
    in_blocks = ear.membrane(sound, 48000)
    for channel in range(FEW):
        size = np.sqrt(np.mean(whole[:, channel] ** 2))
        # The published frequency grid starts at 1 Hz whatever the length: the very base, which passes DC, feels that.
        bound = 0.01 if channel == 0 else 1e-3
        assert np.sqrt(np.mean((whole[:, channel] - in_blocks[:, channel]) ** 2)) < bound * size


def test_a_damaged_table_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANVIER_CACHE", str(tmp_path))
    sound = noise(0.3)
    expected = Cochlea(channels=4)(sound, 48000, 1)
    (table,) = tmp_path.glob("*.npy")
    for damage in (table.read_bytes()[:5000], b"", b"\x93NUMPY nonsense"):
        table.write_bytes(damage)
        again = Cochlea(channels=4)(sound, 48000, 1)
        np.testing.assert_array_equal(again.times, expected.times)
    kept = Cochlea(channels=4)(sound, 48000, 1)  # and from an undamaged one
    np.testing.assert_array_equal(kept.units, expected.units)


# --- hair cell, fibres, bushy cell ------------------------------------------------------------------------------------


def meddis(velocity: np.ndarray, fs: float) -> np.ndarray:
    """Meddis' equations, one scalar step after another in double precision."""
    y, g, l, r, x, a, b, h = 5.05, 2000.0, 2500.0, 6580.0, 66.3, 5.0, 300.0, 50000.0  # noqa: E741
    k0 = g * a / (a + b)
    c = y * k0 / (l * k0 + y * (l + r))
    q, w = c * (l + r) / k0, c * r / x
    out = []
    for v in velocity.astype(float):
        k = g * (v + a) / (v + a + b) / fs if v + a > 0 else 0.0
        free = q + max(y * (1 - q) / fs, 0) - k * q + x * w / fs
        cleft = c + k * q - (l + r) * c / fs
        store = w + r * c / fs - x * w / fs
        q, c, w = max(free, 0), max(cleft, 0), max(store, 0)
        out.append(h * c / fs)
    return np.array(out)


def test_hair_cells_follow_the_equations() -> None:
    steps = np.arange(5000)
    velocity = np.stack(
        [gain * np.sin(steps / 7) * np.hanning(5000) for gain in (0.1, 3, 30, 300, 1e5)] + [np.zeros(5000)] * 13
    ).astype(np.float32)  # 18 rows: a full group and a part of one
    ours = release_probability(velocity, RATE)
    for row in (0, 1, 2, 3, 4, 17):
        np.testing.assert_allclose(ours[row], meddis(velocity[row], RATE), rtol=2e-4)
    np.testing.assert_allclose(ours[17], ours[17, 0], rtol=1e-4)  # it starts at rest and stays there


def by_fibre(probability: np.ndarray, dead: int, seed: int) -> np.ndarray:
    """40 fibres, each a Bernoulli trial in every step in which it is not dead: the plain way."""
    draw = np.random.default_rng(seed)
    free_from = np.zeros(40, int)
    counts = np.zeros(len(probability), int)
    for step, p in enumerate(probability):
        fires = (free_from <= step) & (draw.random(40) < p)
        free_from[fires] = step + dead
        counts[step] = fires.sum()
    return counts


@pytest.mark.parametrize("level", [0.0005, 0.003, 0.04, 0.4])
def test_fibres_fire_as_40_bernoulli_fibres_do(level: float) -> None:
    steps, dead = 40000, 24
    probability = level * (1 + 0.5 * np.sin(np.arange(steps) / 11))
    ours = fibre_counts(probability, RATE, seed=3)
    plain = by_fibre(probability, dead, seed=4)
    # blocks longer than the dead time are nearly independent, which the two-sample chi-square test asks for
    blocks = [one[: steps // 200 * 200].reshape(-1, 200).sum(1) for one in (ours, plain)]
    spread = np.sqrt(blocks[0].var() / len(blocks[0]) + blocks[1].var() / len(blocks[1]))
    assert abs(blocks[0].mean() - blocks[1].mean()) < 4 * spread
    assert 0.7 < blocks[0].var() / blocks[1].var() < 1.4
    thin = slice(None, None, 30)
    histogram = np.array([np.bincount(one[thin], minlength=41) for one in (ours, plain)])
    seen = histogram[:, histogram.sum(0) >= 10]
    expected = seen.sum(0) / 2 * np.ones((2, 1))
    statistic = ((seen - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.9999, seen.shape[1])
    for lag in (1, 5, 24, 25):  # the dead time shows in the lagged products
        products = [float(np.mean(one[lag:] * one[:-lag])) for one in (ours, plain)]
        assert products[0] == pytest.approx(products[1], rel=0.1, abs=0.02)


def test_bushy_cells_follow_the_equations() -> None:
    velocity = (80 * np.sin(np.arange(48000) / 20) * np.sin(np.arange(48000) / 700)).astype(np.float32)[None]
    steps, _ = run_places(velocity, RATE, new_states(5, 77, 1))
    hits = fibre_counts(release_probability(velocity, RATE)[0], RATE, seed=5, place=77)
    current = voltage = 0.0
    silent_until, expected = 0, []
    for step, fired in enumerate(hits):
        current = current * np.exp(-1 / (0.5e-3 * RATE)) + fired
        if step < silent_until:
            continue
        voltage = voltage * np.exp(-1 / (1e-3 * RATE)) + 13000 / 40 * current / RATE
        if voltage >= 1:
            expected.append(step)
            voltage, silent_until = 0.0, step + 1 + 24
    assert len(expected) > 100
    assert steps.tolist() == expected


def test_places_have_generators_of_their_own() -> None:
    tone = 25 * np.sin(np.arange(72000) / 2)  # equal drive everywhere: only chance differs
    velocity = np.tile(tone.astype(np.float32), (16, 1))
    found = []
    for first in (0, 16, 32):
        step, place = run_places(velocity, RATE, new_states(9, first, 16))
        found += [np.bincount(step[place == i] // 240, minlength=300) for i in range(16)]
    correlation = np.corrcoef(np.array(found)[:, 20:])[np.triu_indices(48, 1)]
    assert np.abs(correlation).max() < 0.35  # 6 standard errors of 280 windows
    assert abs(correlation.mean()) < 0.01


# --- the whole model --------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_spikes_on_any_number_of_threads() -> None:
    sound = noise(0.4, seed=2)
    one, again, three = (Cochlea(channels=50, threads=n)(sound, 48000, 7) for n in (1, 1, 3))
    for other in (again, three):
        np.testing.assert_array_equal(one.times, other.times)
        np.testing.assert_array_equal(one.units, other.units)
    different = Cochlea(channels=50)(sound, 48000, 8)
    assert len(one.times) != len(different.times) or not np.array_equal(one.times, different.times)
    assert (one.times.dtype, one.units.dtype) == (np.float32, np.uint16)
    assert np.all(np.diff(one.times) >= 0)
    assert one.units.max() < 50
    assert one.times.max() <= 0.4
    order = np.lexsort((one.times, one.units))
    gaps = np.diff(one.times[order].astype(float))[np.diff(one.units[order].astype(int)) == 0]
    assert gaps.min() > 0.99e-3  # refractory


def test_scale_and_integer_samples_do_not_matter() -> None:
    ear = Cochlea(channels=FEW)
    sound = np.round(noise(0.3) * 3000).astype(np.int16)
    whole = ear(sound, 48000, 1)
    scaled = ear(sound / 32768, 48000, 1)
    np.testing.assert_array_equal(whole.times, scaled.times)


def test_other_rates_give_about_the_same_spikes() -> None:
    """The model's spike count depends on its rate, so everything is resampled to 48 kHz first."""
    ear = Cochlea(channels=50)
    time = np.arange(int(0.3 * 96000)) / 96000
    sound = sum(np.sin(2 * np.pi * f * time) / (1 + i) for i, f in enumerate((210, 700, 1500, 2900)))
    counts = {rate: len(ear(sound[:: 96000 // rate], rate, 1).times) for rate in (8000, 16000, 24000, 48000, 96000)}
    assert max(counts.values()) < 1.05 * min(counts.values()), counts


def test_long_recordings_are_cut_into_blocks() -> None:
    spikes = Cochlea(channels=FEW)(noise(4.6), 48000, 1)
    early, late = np.histogram(spikes.times, [0.5, 2.3, 4.1])[0]  # the taper is symmetric
    assert early > 50
    assert 0.6 < early / late < 1.7


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(0), 48000, "0 samples"),
        (np.ones(100), 48000, "at least 10 ms"),
        (np.zeros(4800), 48000, "silent"),
        (np.r_[np.ones(4800), np.nan], 48000, "sample 4800 is nan"),
        (np.r_[np.ones(4800), -np.inf], 48000, "sample 4800 is -inf"),
        (np.ones((4800, 2)), 48000, "one channel"),
        (np.ones(4800, complex), 48000, "complex128 are not audio"),
        (np.array(["a"] * 4800), 48000, "not audio"),
        (np.ones(4800), 0, "sampling rate is 0"),
        (np.ones(4800), 44100.5, "sampling rate is 44100.5"),
        (np.ones(4800), float("nan"), "sampling rate is nan"),
    ],
)
def test_bad_audio_is_refused_by_name(audio: np.ndarray, rate: float, message: str) -> None:
    with pytest.raises(DataError, match=f"word7.*{message}"):
        Cochlea(channels=1)(audio, rate, 0, name="word7")  # type: ignore[arg-type]


def test_bad_settings_are_refused() -> None:
    for wrong in ({"channels": 0}, {"channels": 70000}, {"sample_rate": 16000}, {"sample_rate": 48001}, {"threads": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Cochlea(**wrong)
    with pytest.raises(ConfigError, match="seed"):
        Cochlea(channels=1)(noise(0.1), 48000, -1)


# --- the reference implementation -------------------------------------------------------------------------------------

REFERENCE = Path(__file__).parent / "data" / "lauscher_spoken_digit.json"


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two histograms."""
    return float(np.abs(np.cumsum(one) / one.sum() - np.cumsum(other) / other.sum()).max())


def test_spikes_agree_with_the_reference_implementation(shared_data: Callable[[str], Path]) -> None:
    """20 seeds against 4 runs of lauscher 1.0.1 on a recording of the Heidelberg Digits."""
    reference = json.loads(REFERENCE.read_text("utf-8"))
    recording = shared_data("hd_sample/spoken_digit.flac")
    sound, rate = soundfile.read(recording)
    ear = Cochlea()
    per_channel, intervals = [], []
    for seed in range(20):
        spikes = ear(sound, rate, seed)
        per_channel.append(np.bincount(spikes.units, minlength=700))
        order = np.lexsort((spikes.times, spikes.units))
        step = np.rint(spikes.times[order].astype(float) * RATE).astype(int)
        gaps = np.diff(step)[np.diff(spikes.units[order].astype(int)) == 0]
        intervals.append(np.bincount(np.minimum(gaps, 2400), minlength=2401))
    theirs = np.array([run["per_channel"] for run in reference["runs"]])
    their_intervals = np.array([run["intervals"] for run in reference["runs"]])
    ours = np.array(per_channel)

    assert abs(ours.sum(1).mean() / theirs.sum(1).mean() - 1) < 0.03
    assert np.corrcoef(ours.mean(0), theirs.mean(0))[0, 1] > 0.98
    # The yardstick is how far single runs of the reference lie from the rest of its own runs.
    yardstick = max(distance(run, their_intervals.sum(0) - run) for run in their_intervals)
    assert distance(np.sum(intervals, axis=0), their_intervals.sum(0)) < yardstick
    active = (ours > 0).sum(1).mean()
    assert abs(active - (theirs > 0).sum(1).mean()) < 10


def test_spikes_agree_with_files_made_by_the_reference_model(shared_data: Callable[[str], Path]) -> None:
    """12 recordings of the Free Spoken Digit Dataset at 8 kHz that others converted, one run each: counts only."""
    with np.load(shared_data("fsdd/fsdd_8k_int16.npz")) as archive:
        arrays = {name: archive[name] for name in ("x", "offsets", "digit", "speaker", "index")}
    ear, ours, theirs = Cochlea(), [], []
    with h5py.File(shared_data("fsdd/fsdd_spikes_train.h5")) as file:
        for i in range(0, len(file["labels"]), len(file["labels"]) // 12):
            same = arrays["digit"] == file["labels"][i]
            same &= arrays["speaker"] == file["extra/speaker"][i]
            same &= arrays["index"] == file["extra/recording_index"][i]
            (k,) = np.flatnonzero(same)
            spikes = ear(arrays["x"][arrays["offsets"][k] : arrays["offsets"][k + 1]], 8000, i)
            ours.append(np.bincount(spikes.units, minlength=700))
            theirs.append(np.bincount(file["spikes/units"][i], minlength=700))
    totals = np.sum(ours, 1) / np.sum(theirs, 1)
    assert abs(np.mean(totals) - 1) < 0.01
    assert np.abs(totals - 1).max() < 0.1
    assert np.corrcoef(np.sum(ours, 0), np.sum(theirs, 0))[0, 1] > 0.99
