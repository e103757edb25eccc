"""The data of a run: which samples are trained on, validated on and tested on, and batches of counts from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.digits import DATA_FOLDER
from ..datasets.shd import Joined, SpikeFile
from ..errors import ConfigError, DataError
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
    """Samples as counts [N, T, C] uint8, with labels [N] and speakers [N]."""

    counts: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self.counts.shape[2]

    def take(self, rows: np.ndarray) -> Split:
        return replace(self, counts=self.counts[rows], labels=self.labels[rows], speakers=self.speakers[rows])

    def batch(
        self, rows: np.ndarray, rng: np.random.Generator | None = None, augment: AugmentConfig | None = None
    ) -> Batch:
        counts = torch.from_numpy(np.ascontiguousarray(self.counts[rows].transpose(1, 0, 2)))
        targets = torch.nn.functional.one_hot(torch.from_numpy(self.labels[rows]), len(self.classes)).float()
        return Batch(counts, targets)


def _read(paths: Sequence[str], config: Config) -> Split:
    d = config.data
    source = Joined(*(SpikeFile(Path(p), channels=d.channels) for p in paths))
    steps, channels = round(d.window / d.dt), -(-source.channels // d.channel_factor)
    parts = []
    for t, x, n in source.chunks():
        step = (t / (d.dt * 1000)).astype(np.int64)
        keep = step < steps
        where = (np.repeat(np.arange(len(n)), n)[keep] * steps + step[keep]) * channels + x[keep] // d.channel_factor
        parts.append(
            np.minimum(np.bincount(where, minlength=len(n) * steps * channels), d.max_count)
            .astype(np.uint8)
            .reshape(len(n), steps, channels)
        )
    return Split(np.concatenate(parts), source.labels, source.speakers, source.classes)


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
        return _read(_files(config, "test"), config)
    whole = _read(_pool(config), config)
    rows = np.flatnonzero(np.isin(whole.speakers, speakers))
    missing = sorted(set(speakers) - set(whole.speakers.tolist()))
    if missing:
        raise DataError(f"data.test_speakers has {missing}, but the speakers are {np.unique(whole.speakers).tolist()}")
    return whole.take(rows)


def load_training(config: Config) -> tuple[Split, Split | None]:
    """Training and validation samples; validation speakers are drawn from the training speakers by the seed.

    Raises:
        ConfigError: if no training speaker would be left.
    """
    if config.data.test_speakers:
        whole = _read(_pool(config), config)
        whole = whole.take(np.flatnonzero(~np.isin(whole.speakers, config.data.test_speakers)))
    else:
        whole = _read(_files(config, "train"), config)
    wanted = config.data.validation_speakers
    if not wanted:
        return whole, None
    speakers = np.unique(whole.speakers)
    if wanted >= len(speakers):
        raise ConfigError(f"data.validation_speakers is {wanted}, but there are only {len(speakers)} training speakers")
    held = np.random.default_rng([config.training.seed, 1]).permutation(speakers)[:wanted]
    mask = np.isin(whole.speakers, held)
    return whole.take(np.flatnonzero(~mask)), whole.take(np.flatnonzero(mask))
