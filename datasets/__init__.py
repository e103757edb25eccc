"""Event files, sensors, and audio turned into spikes."""

from __future__ import annotations

from .augment import augmented, generator
from .augment_channels import ChannelMask, ChannelShift, ChannelWarp
from .augment_events import ChannelFade, ChannelGain, EventDrop
from .augment_mix import Blend, CutMix
from .augment_time import TimeMask, TimeShift, TimeStretch
from .augmentation import Examples
from .binned import Batch, BinnedDataset, collate
from .binning import Binning, bin_events, bin_spikes
from .events import EVENT_DTYPE, make_events
from .har_readers import read_seglearn, read_sensors, read_spsw, read_uci_har, read_wisdm
from .mel import log_mel
from .published import SHD, SSC, RanvierDigits
from .ridge import ridge_accuracy, ridge_folds
from .sensors import (
    Normalizer,
    SensorData,
    SensorError,
    SensorRecording,
    SensorWindows,
    cut_windows,
    normalised,
    resampled,
    train_test,
)
from .sequential_digits import SequentialDigits, permutation, sequential_digits
from .shd import SpikeFile
from .shd_layout import SpikeFileError
from .shd_write import write_shd
from .sources import EventSource, Joined
from .speech_commands import SpeechCommands
from .splits import hold_out, leave_groups_out, leave_one_speaker_out, refuse_overlap, split_speakers

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
    "Normalizer",
    "RanvierDigits",
    "SensorData",
    "SensorError",
    "SensorRecording",
    "SensorWindows",
    "SequentialDigits",
    "SpeechCommands",
    "SpikeFile",
    "SpikeFileError",
    "TimeMask",
    "TimeShift",
    "TimeStretch",
    "augmented",
    "bin_events",
    "bin_spikes",
    "collate",
    "cut_windows",
    "generator",
    "hold_out",
    "leave_groups_out",
    "leave_one_speaker_out",
    "log_mel",
    "make_events",
    "normalised",
    "permutation",
    "read_seglearn",
    "read_sensors",
    "read_spsw",
    "read_uci_har",
    "read_wisdm",
    "refuse_overlap",
    "resampled",
    "ridge_accuracy",
    "ridge_folds",
    "sequential_digits",
    "split_speakers",
    "train_test",
    "write_shd",
]
