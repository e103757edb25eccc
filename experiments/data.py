"""The data of a run: which samples are trained on, validated on and tested on, and batches of counts from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets import BinnedDataset, Binning, Joined, SpikeFile
from ..datasets.binning import LARGEST_COUNT
from ..datasets.digits import DATA_FOLDER
from ..errors import ConfigError, DataError
from .augmentation import augmented
from .config import AugmentConfig, Config


@dataclass(frozen=True)
class Batch:
    """``counts`` [T, B, C] uint8, ``targets`` [B, classes] (rows sum to 1), ``lengths`` [B] steps or None where none
    is padded.
    """

    counts: Tensor
    targets: Tensor
    lengths: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        lengths = None if self.lengths is None else self.lengths.to(device)
        return Batch(self.counts.to(device, non_blocking=True), self.targets.to(device, non_blocking=True), lengths)

    def share(self, rank: int, world: int) -> Batch:
        """Every ``world``-th sample from ``rank`` on."""
        rows = torch.arange(rank, self.targets.shape[0], world) % self.targets.shape[0]
        rows = rows if len(rows) else torch.zeros(1, dtype=torch.long)
        return Batch(self.counts[:, rows], self.targets[rows], None if self.lengths is None else self.lengths[rows])


@dataclass(frozen=True)
class Split:
    """Labelled samples of a run, as batches of counts. ``max_count`` saturates them, ``padded`` gives the batches lengths."""

    data: BinnedDataset
    max_count: int = 255
    padded: bool = False

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

    def take(self, chosen: np.ndarray) -> Split:
        """The samples ``chosen``: indices, or a mask [N]."""
        return replace(self, data=self.data.subset(chosen))

    def batch(
        self, rows: np.ndarray, rng: np.random.Generator | None = None, augment: AugmentConfig | None = None
    ) -> Batch:
        """The samples ``rows`` [B], changed as ``augment`` says with draws from ``rng`` where both are given."""
        drawn = self.data.batch(rows)
        counts, lengths = drawn.x, drawn.lengths
        targets = torch.nn.functional.one_hot(drawn.y, len(self.classes)).float()
        if rng is not None and augment is not None:
            counts, targets, lengths = augmented(counts, targets, lengths, rng, augment, self.data.binning)
        if self.max_count < LARGEST_COUNT:
            counts = counts.clamp(max=self.max_count)
        return Batch(counts, targets, lengths if self.padded else None)


def _open(paths: Sequence[str], config: Config) -> Split:
    d = config.data
    files = [SpikeFile(Path(p), channels=d.channels) for p in paths]
    steps = max(1, round(d.window / d.dt))
    binning = Binning(d.dt, d.window, d.channel_factor, steps if d.relative else None)
    data = BinnedDataset.open(files[0] if len(files) == 1 else Joined(*files), binning)
    if not len(data):
        raise DataError(f"{', '.join(paths)}: no samples")
    return Split(data, d.max_count, d.lengths)


def _files(config: Config, which: str) -> list[str]:
    d = config.data
    if d.source == "digits":
        return [str(DATA_FOLDER / f"ranvier_digits_{which}.h5")]
    paths = d.train if which == "train" else d.test
    if not paths:
        raise ConfigError(f"data.{which} names no file; data.source=files needs some in SHD's layout")
    return paths


def _pool(config: Config) -> list[str]:
    return list(
        dict.fromkeys(
            [*_files(config, "train"), *(config.data.test if config.data.source == "files" else _files(config, "test"))]
        )
    )


def load_test(config: Config) -> Split:
    """The test samples. Raises :class:`DataError` if there are none."""
    speakers = config.data.test_speakers
    if not speakers:
        return _open(_files(config, "test"), config)
    whole = _open(_pool(config), config)
    missing = sorted(set(speakers) - set(whole.speakers.tolist()))
    if missing:
        raise DataError(f"data.test_speakers has {missing}, but the speakers are {np.unique(whole.speakers).tolist()}")
    return whole.take(np.isin(whole.speakers, speakers))


def load_training(config: Config) -> tuple[Split, Split | None]:
    """Training and validation samples; validation speakers are drawn from the training speakers by the seed.

    Raises:
        ConfigError: if no training speaker would be left.
    """
    if config.data.test_speakers:
        whole = _open(_pool(config), config)
        whole = whole.take(~np.isin(whole.speakers, config.data.test_speakers))
    else:
        whole = _open(_files(config, "train"), config)
    wanted = config.data.validation_speakers
    if not wanted:
        return whole, None
    speakers = np.unique(whole.speakers)
    if wanted >= len(speakers):
        raise ConfigError(f"data.validation_speakers is {wanted}, but there are only {len(speakers)} training speakers")
    held = np.random.default_rng([config.training.seed, 1]).permutation(speakers)[:wanted]
    mask = np.isin(whole.speakers, held)
    return whole.take(~mask), whole.take(mask)
