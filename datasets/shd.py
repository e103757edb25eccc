"""Event files in SHD's layout as data sets of ``(events, label)``, in tonic's record and with its transforms."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .events import EVENT_DTYPE, Spikes, make_events, to_microseconds
from .shd_check import checked
from .shd_file import LayoutFile
from .shd_layout import CHANNELS, end_to_end


class SpikeFile(LayoutFile):
    """An event file in SHD's layout, as a data set of ``(events, label)``.

    The file is opened once per process and never shared across a fork; a copy sent to another process opens its own. It
    is checked as a whole on first use and the outcome is remembered by (path, size, time of change), so a damaged file
    fails here and not in the middle of a training.

    Args:
        path: the HDF5 file.
        channels: units must be below this number.
        transform: applied to the events of a sample, for example any tonic transform.
        target_transform: applied to the label.
        sort: put the events of each sample in order of time instead of refusing unsorted samples.

    Raises:
        SpikeFileError: the file is missing, not HDF5, truncated, lacks a dataset, or a sample breaks the layout.

    Attributes:
        labels, speakers: int64 [samples]. classes: the names that labels index. summary: what the check counted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        channels: int = CHANNELS,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        sort: bool = False,
    ) -> None:
        super().__init__(path, channels=channels, sort=sort)
        self.transform = transform
        self.target_transform = target_transform
        self.summary = checked(self)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Sample ``index``: its events (``EVENT_DTYPE``, then ``transform``) and label (then ``target_transform``)."""
        position = range(len(self))[index]  # negative indices and IndexError as for a list
        spikes = self.read(position, position + 1)
        events: Any = make_events(spikes.t, spikes.x)
        label: Any = int(self.labels[position])
        if self.transform is not None:
            events = self.transform(events)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return events, label

    @property
    def sensor_size(self) -> tuple[int, int, int]:
        """tonic's description of the sensor: (channels, 1, 1)."""
        return self.channels, 1, 1

    @property
    def ordering(self) -> tuple[str, ...]:
        """The fields of an event, as tonic names them."""
        return EVENT_DTYPE.names or ()

    def read(self, start: int, stop: int) -> Spikes:
        """The events of samples start..stop-1, unchecked, joined end to end."""
        seconds, x, counts = end_to_end(*self._read_raw(start, stop))
        t = to_microseconds(seconds)
        if self.sort and len(t):
            order = np.lexsort((t, np.repeat(np.arange(len(counts)), counts)))
            t, x = t[order], x[order]
        return Spikes(t, x, counts)

    def chunks(self) -> Iterator[Spikes]:
        """All samples in order, 512 at a time."""
        for start, stop in self._pieces():
            yield self.read(start, stop)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} samples, {len(self.classes)} classes)"
