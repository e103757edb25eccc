"""Event files, sensors, and audio turned into spikes."""

from __future__ import annotations

from .binned import Batch, BinnedDataset, collate
from .binning import Binning, bin_events, bin_spikes
from .events import EVENT_DTYPE, make_events
from .shd import EventSource, Joined, SpikeFile, SpikeFileError, write_shd

__all__ = [
    "EVENT_DTYPE",
    "Batch",
    "BinnedDataset",
    "Binning",
    "EventSource",
    "Joined",
    "SpikeFile",
    "SpikeFileError",
    "bin_events",
    "bin_spikes",
    "collate",
    "make_events",
    "write_shd",
]
