"""Events to counts: which time bin and which channel bin each event falls into, exactly and vectorised.

Times are whole microseconds and so is ``dt``, therefore ``floor(t / dt)`` is computed in integers and an event on an
edge belongs to the bin that begins there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .events import MICROSECONDS_PER_MS, Spikes

LARGEST_COUNT = 255
_CELLS_AT_ONCE = 1 << 23  # 64 MB of int64 while counting
_MOST_STEPS = 1_000_000  # of one sample: more is a wrong unit or a missing window, and would not fit a batch


@dataclass(frozen=True)
class Binning:
    """How events become counts.

    Attributes:
        dt: bin width in ms, a whole number of microseconds.
        window: how much of a sample to keep, ms; every sample then has ``ceil(window / dt)`` bins and events at or
            after the end of the last bin are dropped (and counted). None keeps each sample's natural length.
        channel_factor: how many neighbouring channels are summed; 5 makes 140 of 700. Must divide the channels.
        relative: if given, dt and window are unused: each sample's own duration, from its first to its last event, is
            cut into this many equal bins, so that slow and fast words line up.

    Raises:
        ConfigError: a value is out of its range.
    """

    dt: float = 4.0
    window: float | None = None
    channel_factor: int = 5
    relative: int | None = None

    def __post_init__(self) -> None:
        microseconds = self.dt * MICROSECONDS_PER_MS
        if not microseconds >= 1 or abs(microseconds - round(microseconds)) > 1e-6:
            raise ConfigError(f"dt must be a whole number of microseconds, at least 0.001 ms; got {self.dt} ms")
        if self.window is not None and not 0 < self.window < float("inf"):
            raise ConfigError(f"window must be positive milliseconds or None; got {self.window}")
        if self.channel_factor < 1:
            raise ConfigError(f"channel_factor must be at least 1; got {self.channel_factor}")
        if self.relative is not None and self.relative < 1:
            raise ConfigError(f"relative must be at least 1 bin or None; got {self.relative}")

    @property
    def dt_us(self) -> int:
        """The bin width in microseconds."""
        return round(self.dt * MICROSECONDS_PER_MS)

    @property
    def steps(self) -> int | None:
        """How many bins every sample has, or None where that is up to the sample."""
        if self.relative is not None:
            return self.relative
        if self.window is None:
            return None
        return -(-round(self.window * MICROSECONDS_PER_MS) // self.dt_us)

    def bins_of(self, channels: int) -> int:
        """How many channel bins ``channels`` channels make.

        Raises:
            ConfigError: ``channel_factor`` does not divide them.
        """
        if channels % self.channel_factor:
            raise ConfigError(f"channel_factor {self.channel_factor} does not divide {channels} channels")
        return channels // self.channel_factor

    def to_config(self) -> dict[str, Any]:
        """Plain numbers, for a run's configuration; ``Binning(**config)`` is the way back."""
        return asdict(self)


class Counts(NamedTuple):
    """Binned samples, joined end to end along time.

    Attributes:
        rows: uint8 [sum of lengths, channel bins], counts that stop at 255.
        lengths: int64 [samples], how many bins each sample reaches into (at least 1; at most ``binning.steps``). What
            follows up to ``binning.steps`` is silence and not stored.
        saturated: bins that held more than 255 events.
        dropped: events beyond the window.
    """

    rows: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    saturated: int
    dropped: int


def bin_spikes(spikes: Spikes, binning: Binning, channels: int) -> Counts:
    """Count the events of some samples per time bin and channel bin.

    Args:
        spikes: samples joined end to end; channels in 0..channels-1.
        binning: how.
        channels: channels of the sensor.

    Raises:
        ConfigError: the channel factor does not divide the channels.
        DataError: a sample is longer than a million bins.
    """
    parts = [_bin_some(part, binning, channels) for part in _split(spikes, binning, channels)]
    if len(parts) == 1:
        return parts[0]
    width = binning.bins_of(channels)
    return Counts(
        np.concatenate([p.rows for p in parts]) if parts else np.zeros((0, width), np.uint8),
        np.concatenate([p.lengths for p in parts]) if parts else np.zeros(0, np.int64),
        sum(p.saturated for p in parts),
        sum(p.dropped for p in parts),
    )


def bin_events(events: NDArray[np.void], binning: Binning, channels: int) -> NDArray[np.uint8]:
    """Count one sample's events (tonic's record array, any order): uint8 [T, channel bins]."""
    spikes = Spikes(events["t"].astype(np.int64), events["x"].astype(np.int64), np.array([len(events)]))
    counts = bin_spikes(spikes, binning, channels)
    steps = binning.steps or int(counts.lengths[0])
    padded = np.zeros((steps, counts.rows.shape[1]), np.uint8)
    padded[: len(counts.rows)] = counts.rows
    return padded


def _spans(spikes: Spikes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The times of each sample's first and last event, microseconds; 0 and -1 for an empty sample."""
    first, last = np.zeros(len(spikes.counts), np.int64), np.full(len(spikes.counts), -1, np.int64)
    filled = np.flatnonzero(spikes.counts)
    if len(filled):
        starts = (np.cumsum(spikes.counts) - spikes.counts)[filled]
        first[filled] = np.minimum.reduceat(spikes.t, starts)
        last[filled] = np.maximum.reduceat(spikes.t, starts)
    return first, last


def _lengths(last: NDArray[np.int64], binning: Binning) -> NDArray[np.int64]:
    if binning.relative is not None:
        return np.full(len(last), binning.relative, np.int64)
    lengths = np.maximum(last // binning.dt_us + 1, 1)
    return lengths if binning.steps is None else np.minimum(lengths, binning.steps)


def _split(spikes: Spikes, binning: Binning, channels: int) -> Iterator[Spikes]:
    """The samples in groups small enough to count at once."""
    lengths = _lengths(_spans(spikes)[1], binning)
    if len(lengths) and (longest := int(lengths.max())) > _MOST_STEPS:
        raise DataError(f"a sample reaches into {longest} bins of {binning.dt} ms; give a window or a larger dt")
    cells = lengths * binning.bins_of(channels)
    group = (np.cumsum(cells) - cells) // _CELLS_AT_ONCE
    ends = np.cumsum(spikes.counts)
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        start, stop = ends[members[0]] - spikes.counts[members[0]], ends[members[-1]]
        yield Spikes(spikes.t[start:stop], spikes.x[start:stop], spikes.counts[members])


def _bin_some(spikes: Spikes, binning: Binning, channels: int) -> Counts:
    width = binning.bins_of(channels)
    first, last = _spans(spikes)
    lengths = _lengths(last, binning)
    start = np.cumsum(lengths) - lengths
    sample = np.repeat(np.arange(len(lengths)), spikes.counts)
    if binning.relative is not None:
        # one microsecond more than the span, so that the last event falls into the last bin
        step = (spikes.t - first[sample]) * binning.relative // (last - first + 1)[sample]
    else:
        step = spikes.t // binning.dt_us
    kept = step < lengths[sample]
    cell = (start[sample] + step) * width + spikes.x // binning.channel_factor
    counts = np.bincount(cell[kept], minlength=int(lengths.sum()) * width)
    rows = np.minimum(counts, LARGEST_COUNT).astype(np.uint8).reshape(-1, width)
    return Counts(rows, lengths, int((counts > LARGEST_COUNT).sum()), int((~kept).sum()))
