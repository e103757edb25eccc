"""The inner-ear model that made SHD and SSC: a waveform becomes the spikes of 700 bushy cells.

The chain of Cramer, Stradmann, Schemmel and Zenke (2020), "The Heidelberg Spiking Data Sets for the Systematic
Evaluation of Spiking Neural Networks": level and taper -> basilar membrane (shallow-water model of Sieroka, Dosch and
Rupp 2006) -> one inner hair cell per place (Meddis 1986, 1988) -> 40 auditory nerve fibres -> one bushy cell, a leaky
integrate-and-fire neuron. This file holds the chain and its first half; ``hair_cell.py`` the compiled second half.

What makes it fast: the transfer function depends only on the padded length and is kept, each place only up to the
frequency where it has faded below single precision; the real part of the inverse transform is taken as a real
transform of half the work; hair cells are computed 16 places at a time; the fibres' Bernoulli trials are drawn by
jumping from one success to the next.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import resample_poly
from scipy.special import hankel1e, jv, yv

from ..errors import ConfigError, DataError
from ..files import atomic_path, cache_folder
from .hair_cell import LANES, new_states, run_places

#: Goes up when equal audio and seed no longer give equal spikes; derived files carry it.
MODEL_VERSION = 1
SHD_CHANNELS = 700
SHD_RATE = 48000
RMS_LEVEL = 0.3
LENGTH_CM = 3.5
# Clips are padded to one of these lengths, so that a handful of tables serves every recording.
_BLOCK_SECONDS = (0.5, 1.0, 2.0)
# A longer clip is cut into blocks that leave this much room for the response (its slowest place rings down in 0.018 s).
_RING_DOWN_SECONDS = 0.25
# Below this rate the explicit hair-cell step would empty the cleft in one step and the release saturates.
_LOWEST_RATE = 44100
_FADED = 1e-7

_STIFFNESS = 1e9
_STIFFNESS_OFFSET = 3500.0
_DECAY = 3.0
_DENSITY = 1.0
_HEIGHT = 0.1
_MASS = 0.05
_DAMPING = 0.15 * np.sqrt(_STIFFNESS * _MASS)

FloatArray = npt.NDArray[Any]
ComplexArray = npt.NDArray[Any]


class SpikeTrain(NamedTuple):
    """Events of one recording: ``times`` float32 [events] in seconds, sorted; ``units`` uint16 [events], the place."""

    times: npt.NDArray[np.float32]
    units: npt.NDArray[np.uint16]


def _impedance(w: FloatArray, c: float) -> ComplexArray:
    stiffness = _STIFFNESS * np.exp(-_DECAY * c) - _STIFFNESS_OFFSET
    return stiffness - _MASS * w**2 - 1j * w * _DAMPING * np.exp(-_DECAY * c / 2)


def _wave_number(w: FloatArray, c: float) -> ComplexArray:
    return w * np.sqrt(_DENSITY / (_HEIGHT * _impedance(w, c)))


def _phase_integral(w: FloatArray, c: float) -> ComplexArray:
    """The integral of the wave number from the base to ``c``, plus its start value at the base, in closed form."""
    root = np.sqrt(_STIFFNESS_OFFSET + _MASS * w**2)
    damping = _DAMPING * np.exp(-_DECAY * c / 2)
    base = -_DECAY * np.sqrt(_impedance(w, 0.0)) + 0.5j * _DECAY / root * (
        2 * _STIFFNESS_OFFSET + w * (2 * _MASS * w + 1j * _DAMPING)
    )
    place = -2 * np.sqrt(_impedance(w, c)) + 1j / root * (2 * _STIFFNESS_OFFSET + w * (2 * _MASS * w + 1j * damping))
    place = place * (_DECAY / 2) * np.exp(_DECAY * c / 2)
    factor = 2j * np.sqrt(2) * w / (_DECAY * np.sqrt(2 * _HEIGHT) * root)
    return 2 * _wave_number(w, 0.0) / _DECAY - factor * np.log(base / place)


def _pressure(w: FloatArray, c: float) -> ComplexArray:
    phase = _phase_integral(w, c)
    return np.sqrt(phase / _wave_number(w, c)) * hankel1e(0, phase) * np.exp(1j * phase)


def _input_impedance(w: FloatArray) -> ComplexArray:
    q = 2 * w / _DECAY * np.sqrt(2 / (_HEIGHT * _STIFFNESS))
    return np.sqrt(2 * _STIFFNESS / _HEIGHT) * (1j * jv(0, q) + yv(0, q)) / (jv(1, q) - 1j * yv(1, q))


def transfer(frequency: FloatArray, place: float) -> ComplexArray:
    """Velocity of the basilar membrane at ``place`` per unit of sound (Sieroka, Dosch and Rupp 2006).

    Args:
        frequency: [F] in Hz, above 0.
        place: cm from the base, 0 to 3.5.

    Returns:
        complex128 [F].
    """
    w = 2 * np.pi * np.asarray(frequency, np.float64)
    return 2 * w / _impedance(w, place) * _pressure(w, place) * _input_impedance(w) / _pressure(w, 0.0)


class _Table(NamedTuple):
    """The transfer functions of all places for one block length; place i owns values[start[i]:start[i + 1]]."""

    bins: int
    start: npt.NDArray[np.int64]
    values: npt.NDArray[np.complex64]


def _make_table(channels: int, rate: int, bins: int) -> _Table:
    frequency = np.linspace(1.0, rate / 2, bins + 1)[:bins]
    sparse = np.geomspace(1.0, frequency[-1], 400)
    rows = []
    for place in np.linspace(0.0, LENGTH_CM, channels):
        level = np.abs(transfer(sparse, float(place)))
        faded = min(int(np.flatnonzero(level > _FADED * level.max())[-1]) + 1, len(sparse) - 1)
        kept = int(np.searchsorted(frequency, sparse[faded], side="right"))
        rows.append(transfer(frequency[:kept], float(place)).astype(np.complex64))
    start = np.cumsum([0] + [len(row) for row in rows])
    return _Table(bins, start, np.concatenate(rows))


def _load_table(channels: int, rate: int, bins: int) -> _Table:
    """The table from the user's cache folder; made, and kept there if the folder can be written, when it is missing."""
    path = cache_folder() / f"cochlea-{MODEL_VERSION}-{channels}-{rate}-{bins}.npy"
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        start = np.real(stored[: channels + 1]).astype(np.int64)
        start = np.cumsum(start)  # of lengths below 2^24, which complex64 holds exactly; a foreign file fails here
        if stored.dtype == np.complex64 and len(stored) == channels + 1 + start[-1]:
            return _Table(bins, start, stored[channels + 1 :])
    except (OSError, ValueError, EOFError):
        pass
    table = _make_table(channels, rate, bins)
    lengths = np.diff(table.start, prepend=0).astype(np.complex64)
    try:
        with atomic_path(path) as temporary:
            np.save(temporary, np.concatenate([lengths, table.values]))
    except OSError:
        pass  # a read-only home costs the seconds of making the table again, nothing else
    return table


def resample(audio: FloatArray, rate: int, target: int = SHD_RATE) -> FloatArray:
    """Resample ``audio`` [samples] from ``rate`` to ``target`` Hz with a polyphase filter; float32."""
    ratio = Fraction(target, rate)
    if ratio == 1:
        return np.asarray(audio, np.float32)
    return resample_poly(np.asarray(audio, np.float32), ratio.numerator, ratio.denominator).astype(np.float32)


def check_audio(audio: npt.ArrayLike, rate: float, name: str = "audio") -> FloatArray:
    """Return ``audio`` as float32 [samples], or say what is wrong with it.

    Args:
        audio: one-dimensional, integer or floating point; the scale does not matter.
        rate: Hz, a whole number from 1,000 to 768,000.
        name: how messages call it, usually the file.

    Raises:
        DataError: not one-dimensional numbers, empty, shorter than 10 ms, not finite, silent, or an impossible rate.
    """
    if isinstance(rate, bool) or not 1000 <= rate <= 768000 or rate != int(rate):
        raise DataError(f"{name}: the sampling rate is {rate!r} Hz; give a whole number from 1000 to 768000")
    samples = np.asarray(audio)
    if samples.dtype.kind not in "iuf":
        raise DataError(
            f"{name}: samples of type {samples.dtype} are not audio; give integers or floating-point numbers"
        )
    if samples.ndim != 1:
        raise DataError(
            f"{name}: audio of shape {samples.shape}; give one channel, [samples] (average the channels first)"
        )
    if samples.size < rate / 100:
        raise DataError(f"{name}: {samples.size} samples at {rate} Hz; at least 10 ms are needed")
    values = samples.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(
            f"{name}: sample {bad[0]} is {values[bad[0]]} ({bad.size} such samples); the recording is damaged"
        )
    peak = np.abs(values).max()
    if peak == 0:
        raise DataError(f"{name}: every sample is 0; a silent recording has no level to bring to {RMS_LEVEL}")
    return (values / peak).astype(np.float32)


class Cochlea:
    """The inner-ear model: ``spikes = Cochlea()(audio, rate, seed)``.

    Equal audio and seed give equal spikes, whatever ``threads`` is: every place has its own random generator, seeded by
    (seed, place). The first use of a block length makes its table (seconds) and keeps it in the user's cache folder
    (``RANVIER_CACHE``, else ``XDG_CACHE_HOME/ranvier``, else ``~/.cache/ranvier``; 18 to 75 MB each).

    Args:
        channels: places along the membrane, 0 to 3.5 cm; SHD has 700.
        sample_rate: Hz to which audio is resampled first. The spike count depends on it; SHD used 48,000.
        threads: threads of one call. Spikes do not depend on it.

    Raises:
        ConfigError: a channel count outside 1..65535, a rate below 44,100 Hz (the hair cell's explicit steps would
            saturate), or fewer than one thread.
    """

    def __init__(self, channels: int = SHD_CHANNELS, sample_rate: int = SHD_RATE, threads: int = 1) -> None:
        if not 1 <= channels <= 65535:
            raise ConfigError(f"channels is {channels}; units are 16-bit, so give 1 to 65535")
        if sample_rate < _LOWEST_RATE or sample_rate % 2:
            raise ConfigError(f"sample_rate is {sample_rate} Hz; give an even rate of at least {_LOWEST_RATE}")
        if threads < 1:
            raise ConfigError(f"threads is {threads}; give at least 1")
        self.channels = channels
        self.sample_rate = sample_rate
        self.threads = threads
        self._bins = [2 * cast(int, next_fast_len(round(s * sample_rate / 4), real=True)) for s in _BLOCK_SECONDS]
        self._tables: dict[int, _Table] = {}

    def __call__(self, audio: npt.ArrayLike, rate: int, seed: int, name: str = "audio") -> SpikeTrain:
        """Turn one recording into spikes.

        Args:
            audio: [samples], any scale (it is brought to root-mean-square 0.3).
            rate: Hz.
            seed: 0 to 2^64 - 1.
            name: how error messages call the recording.

        Returns:
            ``SpikeTrain``: times in seconds, sorted (equal times by unit), and units.

        Raises:
            DataError: the audio is empty, silent, not finite, not mono, or the rate is impossible.
            ConfigError: the seed is out of range.
        """
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed is {seed}; give 0 to 2^64 - 1")
        samples = self._prepare(audio, rate, name)
        steps = (len(samples) + 1) // 2
        spectra, starts, bins = self._spectra(samples)
        table = self._table(bins)

        def run(first: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
            velocity = self._velocity(first, table, spectra, starts, steps)
            step, place = run_places(velocity, self.sample_rate / 2, new_states(seed, first, len(velocity)))
            return step, (place + first).astype(np.uint16)

        blocks = range(0, self.channels, LANES)
        if self.threads == 1:
            found = [run(first) for first in blocks]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                found = list(pool.map(run, blocks))
        when = np.concatenate([step for step, _ in found])
        units = np.concatenate([unit for _, unit in found])
        order = np.argsort(when, kind="stable")  # places come in order, so equal times stay ordered by unit
        times = (when[order] / (self.sample_rate / 2)).astype(np.float32)
        return SpikeTrain(times, units[order])

    def membrane(self, audio: npt.ArrayLike, rate: int) -> FloatArray:
        """The membrane's velocity, float32 [steps, channels] at half the model's rate, to look at."""
        samples = self._prepare(audio, rate, "audio")
        spectra, starts, bins = self._spectra(samples)
        table = self._table(bins)
        steps = (len(samples) + 1) // 2
        blocks = range(0, self.channels, LANES)
        return np.concatenate([self._velocity(first, table, spectra, starts, steps) for first in blocks]).T

    def _prepare(self, audio: npt.ArrayLike, rate: int, name: str) -> FloatArray:
        """Check, resample, bring to the level and taper: float32 [samples at the model's rate]."""
        samples = resample(check_audio(audio, rate, name), int(rate), self.sample_rate)
        level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
        if level == 0:
            raise DataError(f"{name}: nothing is left after resampling from {rate} to {self.sample_rate} Hz")
        return (samples * (RMS_LEVEL / level) * np.hanning(len(samples)).astype(np.float32)).astype(np.float32)

    def _table(self, bins: int) -> _Table:
        if bins not in self._tables:
            self._tables[bins] = _load_table(self.channels, self.sample_rate, bins)
        return self._tables[bins]

    def _spectra(self, samples: FloatArray) -> tuple[list[ComplexArray], list[int], int]:
        """Cut into blocks that fit a table: their spectra, without the Nyquist bin, and their first output steps."""
        bins = next((b for b in self._bins if len(samples) <= 2 * b), self._bins[-1])
        if len(samples) <= 2 * bins:
            return [np.asarray(rfft(samples, 2 * bins))[:bins]], [0], bins
        # Half the room lies before the block: the published filter takes the real part of a one-sided spectrum, so a
        # little of its response comes before the sound and would wrap to the end of the block.
        room = int(_RING_DOWN_SECONDS * self.sample_rate / 2)
        hop = 2 * (bins - room)
        at = range(0, len(samples), hop)
        lead = room // 2
        blocks = [np.pad(samples[i : i + hop], (2 * lead, 0)) for i in at]
        return [np.asarray(rfft(block, 2 * bins))[:bins] for block in blocks], [i // 2 - lead for i in at], bins

    def _velocity(
        self, first: int, table: _Table, spectra: list[ComplexArray], starts: list[int], steps: int
    ) -> FloatArray:
        """Membrane velocity of the places first .. first + LANES, float32 [places, steps]."""
        places = range(first, min(first + LANES, self.channels))
        velocity = np.zeros((len(places), steps), np.float32)
        half = table.bins // 2
        folded = np.zeros((len(places), half + 1), np.complex64)
        for spectrum, start in zip(spectra, starts, strict=True):
            folded[:] = 0
            for row, place in enumerate(places):
                values = table.values[table.start[place] : table.start[place + 1]]
                product = spectrum[: len(values)] * values
                # Re(ifft(z)) is the real transform of (z[k] + conj z[-k]) / 2; bins 0 and n/2 are their own mirror
                low = product[: half + 1]
                folded[row, : len(low)] = 0.5 * low
                folded[row, 0] *= 2
                if len(product) > half:
                    folded[row, half] *= 2
                    folded[row, table.bins - len(product) + 1 : half] += 0.5 * product[half + 1 :][::-1].conj()
            block = np.asarray(irfft(folded, table.bins, axis=1))
            begin, end = max(start, 0), min(start + table.bins, steps)
            velocity[:, begin:end] += block[:, begin - start : end - start]
        return velocity
