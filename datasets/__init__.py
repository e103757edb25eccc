"""Event files, sensors, and audio turned into spikes."""

from __future__ import annotations

from .augment import (
    Blend,
    ChannelFade,
    ChannelGain,
    ChannelMask,
    ChannelShift,
    ChannelWarp,
    CutMix,
    EventDrop,
    Examples,
    TimeMask,
    TimeShift,
    TimeStretch,
    augmented,
    generator,
)
from .binned import Batch, BinnedDataset, collate
from .binning import Binning, bin_events, bin_spikes
from .events import EVENT_DTYPE, make_events
from .published import SHD, SSC, RanvierDigits
from .ridge import ridge_accuracy, ridge_folds
from .shd import EventSource, Joined, SpikeFile, SpikeFileError, write_shd
from .splits import hold_out, leave_one_speaker_out, refuse_overlap, split_speakers

__all__ = [
    "EVENT_DTYPE",
    "SHD",
    "SSC",
    "Batch",
    "BinnedDataset",
    "Binning",
    "Blend",
    "ChannelFade",
    "ChannelGain",
    "ChannelMask",
    "ChannelShift",
    "ChannelWarp",
    "CutMix",
    "EventDrop",
    "EventSource",
    "Examples",
    "Joined",
    "RanvierDigits",
    "SpikeFile",
    "SpikeFileError",
    "TimeMask",
    "TimeShift",
    "TimeStretch",
    "augmented",
    "bin_events",
    "bin_spikes",
    "collate",
    "generator",
    "hold_out",
    "leave_one_speaker_out",
    "make_events",
    "refuse_overlap",
    "ridge_accuracy",
    "ridge_folds",
    "split_speakers",
    "write_shd",
]
