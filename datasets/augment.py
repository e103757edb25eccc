"""Changes made to batches of counts in training: what a voice and a tempo change, and what a word keeps.

A list of augmentations is a pipeline: ``augmented(examples, [ChannelShift(8), TimeStretch(0.2)], generator(seed, epoch,
batch))``. A generator keyed by seed, epoch and batch makes a resumed training draw what an uninterrupted one draws.
``to_config`` and ``from_config`` turn a pipeline into names and numbers and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError
from .augment_channels import ChannelMask, ChannelShift, ChannelWarp
from .augment_events import ChannelFade, ChannelGain, EventDrop
from .augment_mix import Blend, CutMix
from .augment_time import TimeMask, TimeShift, TimeStretch
from .augmentation import Augmentation, Examples
from .binned import Batch

AUGMENTATIONS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ChannelShift,
        ChannelWarp,
        ChannelMask,
        ChannelFade,
        ChannelGain,
        TimeShift,
        TimeStretch,
        TimeMask,
        EventDrop,
        Blend,
        CutMix,
    )
}


def examples(batch: Batch, classes: int) -> Examples:
    """A batch with its labels as one-hot targets."""
    return Examples(batch.x, torch.nn.functional.one_hot(batch.y, classes).float(), batch.lengths)


def generator(seed: int, epoch: int, batch: int) -> torch.Generator:
    """The random generator of one batch of one epoch: the same numbers give the same draws in any process."""
    word = np.random.SeedSequence([seed, epoch, batch]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


def augmented(batch: Examples, augmentations: Iterable[Augmentation], rng: torch.Generator) -> Examples:
    """Apply augmentations in order.

    Raises:
        ConfigError: the counts are not uint8 [T, B, C] on the CPU, where batches are made.
    """
    if batch.x.dtype != torch.uint8 or batch.x.ndim != 3 or batch.x.device.type != "cpu":
        raise ConfigError(
            f"augmentation works on uint8 counts [T, B, C] on the CPU, not {batch.x.dtype} {list(batch.x.shape)} "
            f"on {batch.x.device}"
        )
    for one in augmentations:
        batch = one(batch, rng)
    return batch


def to_config(augmentations: Sequence[Augmentation]) -> list[dict[str, Any]]:
    """Names and numbers, for a run's configuration: ``[{"name": "ChannelShift", "largest": 8}]``."""
    return [{"name": type(one).__name__, **asdict(one)} for one in augmentations]  # pyright: ignore[reportArgumentType]


def from_config(config: Iterable[Mapping[str, Any]]) -> list[Augmentation]:
    """The way back from ``to_config``.

    Raises:
        ConfigError: an unknown name or parameter, or a value out of its range.
    """
    made = []
    for entry in config:
        numbers = dict(entry)
        name = numbers.pop("name", None)
        kind = AUGMENTATIONS.get(str(name))
        if kind is None:
            raise ConfigError(f"unknown augmentation {name!r}; there are {', '.join(AUGMENTATIONS)}")
        known = [f.name for f in fields(kind)]
        if unknown := sorted(set(numbers) - set(known)):
            raise ConfigError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
        try:
            made.append(kind(**numbers))
        except TypeError as error:
            raise ConfigError(f"{name}: {error}") from error
    return made
