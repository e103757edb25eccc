"""Augmentations of place on the channel axis: what another voice changes. Counts are moved, not shared out: the rate at
a moved place is that of where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .augment_counts import moved
from .augment_draws import bands, integers, log_factors, uniform
from .augmentation import Examples, require


@dataclass(frozen=True)
class ChannelShift:
    """Move each sample up or down by a whole number of channel bins: a higher or lower voice.

    Attributes:
        largest: bins; the shift is uniform in -largest..largest. What leaves the range is lost. [40 of
            700 channels on SHD in Nowotny, Turner & Knight 2025]
    """

    largest: int

    def __post_init__(self) -> None:
        require(self, "largest", 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        shift = integers(-self.largest, self.largest, examples.x.shape[1], rng)
        source = torch.arange(examples.x.shape[2]) - shift[:, None]
        return examples._replace(x=moved(examples.x, channels=source))


@dataclass(frozen=True)
class ChannelWarp:
    """Stretch each sample's channel axis about a random channel, as another length of the vocal tract would.

    Attributes:
        largest: 0.1 for a stretch uniform (in its logarithm) between 1/1.1 and 1.1. The fixed channel is uniform.
        bend: largest shift of the middle of the axis against its ends, as a share of the channels; a smooth bow that
            stretches one half while it squeezes the other. Below 0.25 the order of channels is kept.
    """

    largest: float
    bend: float = 0.0

    def __post_init__(self) -> None:
        require(self, "largest", 0)
        require(self, "bend", 0, 0.25)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        _, size, channels = examples.x.shape
        factor = torch.exp(log_factors(self.largest, size, rng))[:, None]
        centre = uniform(0, channels, size, rng)[:, None]
        bow = uniform(-1, 1, size, rng)[:, None] * self.bend * channels
        place = torch.arange(channels) + 0.5
        source = centre + (place - centre) / factor + bow * 4 * place * (channels - place) / channels**2
        return examples._replace(x=moved(examples.x, channels=source.floor().long()))


@dataclass(frozen=True)
class ChannelMask:
    """Silence a band of neighbouring channel bins in each sample.

    Attributes:
        largest: bins; the width of a band is uniform in 0..largest. number: bands per sample.
    """

    largest: int
    number: int = 1

    def __post_init__(self) -> None:
        require(self, "largest", 0)
        require(self, "number", 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        _, size, channels = examples.x.shape
        keep = ~bands(self.largest, self.number, channels, torch.full((size,), channels), rng)
        return examples._replace(x=examples.x * keep.to(torch.uint8))
