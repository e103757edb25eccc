"""Augmentations of how many events there are, alike everywhere or smoothly along the channels: loudness and timbre."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .augment_counts import thinned
from .augment_draws import log_factors, uniform, waves
from .augmentation import Examples, require
from .binning import LARGEST_COUNT


@dataclass(frozen=True)
class EventDrop:
    """Delete each event with a probability drawn per sample; what is left of a count is binomial.

    Attributes:
        largest: the probability is uniform in 0..largest.
    """

    largest: float

    def __post_init__(self) -> None:
        require(self, "largest", 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        keep = 1 - uniform(0, self.largest, examples.x.shape[1], rng)
        return examples._replace(x=thinned(examples.x, keep[:, None], rng))


@dataclass(frozen=True)
class ChannelFade:
    """Delete events with a probability that varies smoothly along the channels, as another timbre or microphone would.

    Attributes:
        largest: the highest probability is uniform in 0..largest for each sample; along the channels it follows a
            raised cosine of random phase and of 0 to 1.5 periods.
    """

    largest: float

    def __post_init__(self) -> None:
        require(self, "largest", 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        _, size, channels = examples.x.shape
        wave = 0.5 + 0.5 * waves(size, channels, rng)
        drop = uniform(0, self.largest, size, rng)[:, None] * wave
        return examples._replace(x=thinned(examples.x, 1 - drop, rng))


@dataclass(frozen=True)
class ChannelGain:
    """Let each sample be louder or softer, as a whole and smoothly along the channels: loudness and timbre.

    Where events are only ever deleted in training, a word louder than all of training is unknown ground; this goes both
    ways. Counts are scaled, and rounded up or down at random so that their mean is kept.

    Attributes:
        level: 0.5 for a gain of the whole sample uniform (in its logarithm) between 1/1.5 and 1.5.
        tilt: as ``level``, for the largest gain of a sine along the channels, of random sign, phase and 0 to 1.5
            periods.
    """

    level: float
    tilt: float = 0.0

    def __post_init__(self) -> None:
        require(self, "level", 0)
        require(self, "tilt", 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        if not self.level and not self.tilt:
            return examples
        _, size, channels = examples.x.shape
        level = log_factors(self.level, size, rng)[:, None]
        height = log_factors(self.tilt, size, rng)[:, None]
        gain = torch.exp(level + height * waves(size, channels, rng))
        louder = examples.x * gain + torch.rand(examples.x.shape, generator=rng)
        return examples._replace(x=louder.floor_().clamp_(max=LARGEST_COUNT).to(torch.uint8))
