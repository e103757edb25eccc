"""What an event is: tonic's record (t in microseconds, x = channel, p = polarity), so that tonic's transforms apply."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: tonic's event record: time in whole microseconds, channel, polarity (always 1 for a cochlea).
EVENT_DTYPE = np.dtype([("t", np.int64), ("x", np.int64), ("p", np.int64)])

MICROSECONDS_PER_SECOND = 1e6
MICROSECONDS_PER_MS = 1000


class Spikes(NamedTuple):
    """The events of several samples, joined end to end.

    Attributes:
        t: int64 [events], microseconds from the start of the sample the event belongs to.
        x: int64 [events], channel.
        counts: int64 [samples], how many events each sample has.
    """

    t: NDArray[np.int64]
    x: NDArray[np.int64]
    counts: NDArray[np.int64]


def to_microseconds(seconds: ArrayLike) -> NDArray[np.int64]:
    """Whole microseconds (rounded down, as tonic does) of times in seconds of any float type.

    SHD stores float16, whose largest number is 65504: scaling before widening gives inf for everything after 65 ms
    (NumPy 2 keeps the narrow type; NumPy 1 widened it), so the times are widened first.
    """
    return (np.asarray(seconds).astype(np.float64) * MICROSECONDS_PER_SECOND).astype(np.int64)


def make_events(t: ArrayLike, x: ArrayLike) -> NDArray[np.void]:
    """A structured array of ``EVENT_DTYPE`` from times in microseconds and channels, both [events]; polarity is 1."""
    times = np.asarray(t)
    events = np.empty(len(times), EVENT_DTYPE)
    events["t"], events["x"], events["p"] = times, x, 1
    return events
