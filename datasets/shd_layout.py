"""The file layout of the Spiking Heidelberg Digits, and what breaks it.

One HDF5 file holds ``spikes/times`` (variable-length float16, seconds) and ``spikes/units`` (variable-length integers,
the channel), ``labels``, ``extra/speaker`` and ``extra/keys`` (the class names). [Cramer, Stradmann, Schemmel & Zenke
2020, The Heidelberg Spiking Data Sets, IEEE TNNLS; https://zenkelab.org/datasets/] Reader, check and writer refuse by
the same rules, and say what is wrong by the same error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

CHANNELS = 700
LONGEST = 1e6  # seconds, eleven days: more than that is another unit taken for seconds


class SpikeFileError(DataError):
    """An event file is missing, damaged, or breaks its layout.

    Attributes:
        path: the file.
        dataset: the HDF5 dataset that is wrong, or None where it is the file itself.
        sample: the index of the sample that is wrong, or None where it is the whole dataset.
    """

    def __init__(self, path: Path, problem: str, dataset: str | None = None, sample: int | None = None) -> None:
        where = str(path) + (f": {dataset}" if dataset else "") + (f", sample {sample}" if sample is not None else "")
        super().__init__(f"{where}: {problem}")
        self.path, self.dataset, self.sample = path, dataset, sample
        self._arguments = (path, problem, dataset, sample)

    def __reduce__(self) -> tuple[Any, ...]:  # so that it comes whole out of a DataLoader worker
        return type(self), self._arguments


class Fault(NamedTuple):
    """The first event that breaks the layout: which sample, in which dataset, and how."""

    sample: int
    dataset: str
    problem: str


def find_fault(
    t: NDArray[np.float64], x: NDArray[np.int64], counts: NDArray[np.int64], channels: int, *, ordered: bool = True
) -> Fault | None:
    """The first fault in samples joined end to end, or None. ``t`` in seconds [events], ``counts`` [samples]."""
    first = np.cumsum(counts) - counts

    def at(wrong: NDArray[np.bool_]) -> tuple[int, int] | None:
        places = np.flatnonzero(wrong)
        if not len(places):
            return None
        sample = int(np.searchsorted(first, places[0], side="right")) - 1
        return sample, int(places[0] - first[sample])

    if place := at(~np.isfinite(t)):
        return Fault(place[0], "spikes/times", f"time {place[1]} is not a finite number ({_value(t, first, place)})")
    if place := at(t < 0):
        return Fault(place[0], "spikes/times", f"time {place[1]} is negative ({_value(t, first, place)} s)")
    if place := at(t >= LONGEST):
        problem = f"time {place[1]} is {_value(t, first, place):g} s; times are in seconds, below {LONGEST:g}"
        return Fault(place[0], "spikes/times", problem)
    if place := at((x < 0) | (x >= channels)):
        value = _value(x, first, place)
        return Fault(place[0], "spikes/units", f"unit {place[1]} is {value}, outside 0..{channels - 1}")
    if ordered and len(t):
        back = np.zeros(len(t), np.bool_)
        back[1:] = t[1:] < t[:-1]
        starts = first[(counts > 0)]
        back[starts] = False  # a new sample starts over
        if place := at(back):
            problem = f"time {place[1]} is before the one in front of it (sort=True sorts on reading)"
            return Fault(place[0], "spikes/times", problem)
    return None


def _value(values: NDArray[Any], first: NDArray[np.int64], place: tuple[int, int]) -> Any:
    return values[first[place[0]] + place[1]].item()


def end_to_end(
    times: NDArray[Any] | Sequence[NDArray[Any]], units: NDArray[Any] | Sequence[NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Samples as they are stored, joined: seconds [events], widened; channels [events]; events of each [samples]."""
    return _join(times, np.float64), _join(units, np.int64), np.array([len(one) for one in times], np.int64)


def _join(arrays: NDArray[Any] | Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    if not len(arrays):
        return np.zeros(0, dtype)
    return np.concatenate(list(arrays)).astype(dtype, copy=False)
