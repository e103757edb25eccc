"""Data that come as event files: which samples are trained on, validated on and tested on, and batches of counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..datasets import (
    BinnedDataset,
    Binning,
    Blend,
    ChannelFade,
    ChannelGain,
    ChannelMask,
    ChannelShift,
    ChannelWarp,
    CutMix,
    EventDrop,
    EventSource,
    Examples,
    Joined,
    SpikeFile,
    TimeMask,
    TimeShift,
    TimeStretch,
)
from ..datasets.augment import augmented as apply
from ..datasets.augment import examples
from ..datasets.augmentation import Augmentation
from ..datasets.binning import LARGEST_COUNT
from ..datasets.compress import compressed
from ..datasets.digits import DATA_FOLDER
from ..datasets.equalise import equalised
from ..datasets.splits import hold_out, refuse_overlap, split_speakers
from ..errors import ConfigError, DataError
from .batch import Batch, Split
from .config import AugmentConfig, Config


@dataclass(frozen=True)
class CountSplit:
    """Labelled samples of a run, as batches of counts.

    ``equalise``, ``compress`` and then ``max_count`` change the counts, after augmentation; ``padded`` gives the
    batches lengths.
    """

    data: BinnedDataset
    max_count: int = 255
    padded: bool = False
    equalise: float = 0.0
    compress: float = 0.0

    def __len__(self) -> int:
        return len(self.data)

    @property
    def channels(self) -> int:
        return self.data.channels

    @property
    def steps(self) -> int:
        return self.data.steps

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def labels(self) -> np.ndarray:
        return self.data.labels

    @property
    def speakers(self) -> np.ndarray:
        return self.data.speakers

    def take(self, chosen: np.ndarray) -> CountSplit:
        """The samples ``chosen``: indices, or a mask [N]."""
        return replace(self, data=self.data.subset(chosen))

    def batch(
        self, rows: np.ndarray, rng: torch.Generator | None = None, augment: AugmentConfig | None = None
    ) -> Batch:
        """The samples ``rows`` [B], changed as ``augment`` says with draws from ``rng`` where both are given."""
        counts, targets, lengths = examples(self.data.batch(rows), len(self.classes))
        if rng is not None and augment is not None:
            # a relative step lasts as long as the window's share of it, whatever the sample's own duration
            pipeline = augmentations(augment, self.data.binning.dt)
            counts, targets, lengths = apply(Examples(counts, targets, lengths), pipeline, rng)
        counts = compressed(equalised(counts, self.equalise), self.compress)
        if self.max_count < LARGEST_COUNT:
            counts = counts.clamp(max=self.max_count)
        return Batch(counts, targets, lengths if self.padded else None)


def augmentations(augment: AugmentConfig, dt: float) -> list[Augmentation]:
    """The augmentations that are switched on, in their order; ``dt`` in ms turns times into steps."""
    a = augment
    made: list[tuple[bool, Augmentation]] = [
        (a.blend > 0, Blend(a.blend)),
        (a.cutmix > 0, CutMix(a.cutmix)),
        (a.channel_warp > 0 or a.channel_bend > 0, ChannelWarp(a.channel_warp, a.channel_bend)),
        (a.channel_shift > 0, ChannelShift(a.channel_shift)),
        (a.time_stretch > 0, TimeStretch(a.time_stretch)),
        (a.time_later > 0 or a.time_earlier > 0, TimeShift(round(a.time_later / dt), round(a.time_earlier / dt))),
        (a.gain > 0 or a.channel_tilt > 0, ChannelGain(a.gain, a.channel_tilt)),
        (a.drop > 0, EventDrop(a.drop)),
        (a.channel_fade > 0, ChannelFade(a.channel_fade)),
        (a.channel_mask > 0, ChannelMask(a.channel_mask)),
        (a.time_mask > 0, TimeMask(round(a.time_mask / dt))),
    ]
    return [one for used, one in made if used]


def source(config: Config, which: str) -> EventSource:
    """The files of ``train``, ``test``, or both (``all``) as one source of events."""
    d = config.data
    if d.source == "digits":
        paths = {part: [str(DATA_FOLDER / f"ranvier_digits_{part}.h5")] for part in ("train", "test")}
    else:
        paths = {"train": d.train, "test": d.test}
    wanted = list(dict.fromkeys(paths["train"] + paths["test"] if which == "all" else paths[which]))
    if not wanted:
        raise ConfigError(f"data.{which} names no file; data.source=files needs files in SHD's layout")
    files = [SpikeFile(Path(p), channels=d.channels) for p in wanted]
    return files[0] if len(files) == 1 else Joined(*files)


def _open(config: Config, which: str) -> Split:
    return split_of(config, source(config, which))


def split_of(config: Config, events: EventSource) -> Split:
    """All samples of a source of events, binned as the settings say. Raises :class:`DataError` if there are none."""
    d = config.data
    if not len(events):
        raise DataError(f"{events!r} has no samples")
    binning = Binning(d.dt, d.window, d.channel_factor, max(1, round(d.window / d.dt)) if d.relative else None)
    return CountSplit(BinnedDataset.open(events, binning), d.max_count, d.lengths, d.equalise, d.compress)


def load_test(config: Config) -> Split:
    """The test samples: those of ``data.test``, or of the speakers ``data.test_speakers`` of all files together.

    Raises:
        DataError: a file is missing or damaged, or a test speaker has no sample.
    """
    if not config.data.test_speakers:
        return _open(config, "test")
    whole = _open(config, "all")
    return whole.take(split_speakers(whole.speakers, config.data.test_speakers).test)


def load_training(config: Config) -> tuple[Split, Split | None]:
    """Training and validation samples; validation speakers are drawn from the training speakers by the seed.

    Raises:
        DataError: a file is missing or damaged, or no training speaker would be left.
    """
    if config.data.test_speakers:
        whole = _open(config, "all")
        whole = whole.take(split_speakers(whole.speakers, config.data.test_speakers).train)
    else:
        whole = _open(config, "train")
    return held_out(config, whole)


def held_out(config: Config, whole: Split) -> tuple[Split, Split | None]:
    """``whole`` without the validation speakers, who are drawn by the seed, and their samples (None for 0 speakers).

    Raises:
        DataError: no speaker would be left to train on.
    """
    if not config.data.validation_speakers:
        return whole, None
    parts = hold_out(whole.speakers, config.data.validation_speakers, config.training.seed)
    training, validation = whole.take(parts.train), whole.take(parts.test)
    refuse_overlap(training=training.speakers, validation=validation.speakers)
    return training, validation
