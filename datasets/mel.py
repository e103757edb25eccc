"""Log-mel spectra as bytes: sound for networks that shall run where no inner-ear model fits.

A byte is the level of a band in whole decibels above a floor of -80, so that a difference of one is the same ratio
everywhere, and a microcontroller can make the same numbers with a Fourier transform and a table.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import ConfigError

FLOOR_DB = -80.0
LOWEST_HZ = 20.0
_NOISE_BANDWIDTH = 1.5  # of a Hann window, in bins: what a sine's power is spread over


def log_mel(
    audio: npt.ArrayLike, rate: int, bands: int = 40, dt: float = 10.0, window: float = 25.0
) -> npt.NDArray[np.uint8]:
    """Levels of ``bands`` mel bands every ``dt`` ms: uint8 [ceil(samples / step), bands].

    Row k sees the ``window`` ms that end with step k and nothing later, so that it can be made as sound comes in. The
    bands are triangles, evenly spaced from 20 Hz to half the rate on the mel scale 2595 log10(1 + f / 700), of the
    power spectrum under a Hann window. A full-scale sine gives about 80. [O'Shaughnessy 1987, "Speech Communication"]

    Args:
        audio: [samples], 1.0 is full scale.
        rate: Hz.

    Raises:
        ConfigError: fewer than one band, a step that is no whole number of samples, or a window shorter than a step.
    """
    hop, width = round(rate * dt / 1000), round(rate * window / 1000)
    if bands < 1 or hop < 1 or abs(hop - rate * dt / 1000) > 1e-6 or width < hop:
        raise ConfigError(
            f"log_mel: needs a band or more, steps of a whole number of samples and a window no shorter than a step; "
            f"got {bands} bands, steps of {dt:g} ms and a window of {window:g} ms at {rate} Hz"
        )
    samples = np.asarray(audio, np.float32)
    steps = -(-len(samples) // hop)
    padded = np.zeros(width - hop + steps * hop, np.float32)
    padded[width - hop : width - hop + len(samples)] = samples
    shape, filters = _tables(int(rate), bands, width)
    frames = sliding_window_view(padded, width)[::hop] * shape
    power = np.abs(np.fft.rfft(frames, 2 * (filters.shape[1] - 1))) ** 2
    level = 10.0 * np.log10(power @ filters.T + 1e-12)
    return np.clip(np.rint(level - FLOOR_DB), 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _tables(rate: int, bands: int, width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The window [width], scaled for a full-scale sine of power 1, and the triangles [bands, bins]."""
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (LOWEST_HZ, rate / 2))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, bands + 2) / 2595.0) - 1.0)
    # bins fine enough that the narrowest triangle has some
    length = 1 << int(np.ceil(np.log2(max(width, 2.0 * rate / np.diff(edges).min()))))
    frequency = np.fft.rfftfreq(length, 1.0 / rate)
    lower, centre, upper = (edges[i : bands + i, None] for i in range(3))
    filters = np.minimum((frequency - lower) / (centre - lower), (upper - frequency) / (upper - centre))
    shape = np.hanning(width + 1)[:-1]
    shape *= 2.0 / shape.sum() / np.sqrt(_NOISE_BANDWIDTH * length / width)
    return shape.astype(np.float32), np.maximum(filters, 0.0).astype(np.float32)
