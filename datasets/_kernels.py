"""The inner loops of augmentation over uint8 counts [T, B, C], compiled with numba.

torch takes some ten times longer for these: its advanced indexing and its binomial are made for large floats, and
counts are small and mostly 0. Import this module where it is used, not at the top: numba takes its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def _compiled(function: Callable[..., Any]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code
        return numba.njit(nogil=True)(function)


@_compiled
def gather(x, times, channels, out):
    """``out[t, b, c] = x[times[t, b], b, channels[b, c]]``, and 0 where either is out of range."""
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            source = times[t, b]
            if source < 0 or source >= x.shape[0]:
                out[t, b] = 0
                continue
            row = x[source, b]
            for c in range(x.shape[2]):
                channel = channels[b, c]
                out[t, b, c] = row[channel] if 0 <= channel < x.shape[2] else 0


@_compiled
def thin(x, limits, seed, out):
    """Keep each event with probability ``limits[b, c] / 2**32``; splitmix64 draws [Steele, Lea & Flood 2014]."""
    state = np.uint64(seed)
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            for c in range(x.shape[2]):
                limit, kept = np.uint64(limits[b, c]), 0
                for _ in range(x[t, b, c]):
                    state += np.uint64(0x9E3779B97F4A7C15)
                    z = state
                    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    z ^= z >> np.uint64(31)
                    if (z >> np.uint64(32)) < limit:
                        kept += 1
                out[t, b, c] = kept


@_compiled
def moments(x, out):
    """Per sample: events, sum of their steps, sum of their channels. ``out`` int64 [B, 3], zero on entry."""
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            events, places = 0, 0
            for c in range(x.shape[2]):
                events += x[t, b, c]
                places += c * x[t, b, c]
            out[b, 0] += events
            out[b, 1] += t * events
            out[b, 2] += places
