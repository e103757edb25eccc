"""The data of a run: which samples are trained on, validated on and tested on, wherever they come from."""

from __future__ import annotations

from . import counts, har_data, published_data
from .batch import Split
from .config import PUBLISHED_SOURCES, SENSOR_SOURCES, Config


def load_training(config: Config) -> tuple[Split, Split | None]:
    """Training and validation samples; validation speakers (or subjects) are drawn from the training ones by the seed.

    Raises:
        DataError: a file is missing or damaged, or no training speaker would be left.
    """
    return _room(config).load_training(config)


def load_test(config: Config) -> Split:
    """The test samples: those of ``data.test``, or of the speakers ``data.test_speakers`` of all files together.

    Raises:
        DataError: a file is missing or damaged, or a test speaker has no sample.
    """
    return _room(config).load_test(config)


def _room(config: Config):
    if config.data.source in SENSOR_SOURCES:
        return har_data
    return published_data if config.data.source in PUBLISHED_SOURCES else counts
