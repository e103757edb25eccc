"""Augmentations that mix samples of a batch: two of one class into a new one, or a stretch of one into another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .augment_counts import centres, moved, thinned
from .augment_draws import integers, uniform
from .augmentation import Examples, require
from .binning import LARGEST_COUNT


@dataclass(frozen=True)
class Blend:
    """Make a new sample from two of the same class: align their centres of mass, keep half the events of each.

    The partner is another sample of the batch; a sample that is alone in its class stays as it is. [Nowotny, Turner &
    Knight 2025, Loss shaping enhances exact gradient learning with EventProp]

    Attributes:
        probability: of blending a sample.
        channels: align along the channels too, and not only in time.
    """

    probability: float
    channels: bool = True

    def __post_init__(self) -> None:
        require(self, "probability", 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        x, targets, lengths = examples
        steps, size, channels = x.shape
        same = (targets @ targets.T) > 1 - 1e-6  # both surely of one class
        same.fill_diagonal_(False)
        score = torch.rand((size, size), generator=rng).masked_fill(~same, -1)
        partner = score.argmax(1)
        events, time, place = centres(x)
        chosen = (torch.rand(size, generator=rng) < self.probability) & same.any(1)
        chosen &= (events > 0) & (events[partner] > 0)  # silence has no centre
        mine = chosen.nonzero().squeeze(1)
        if not len(mine):
            return examples
        other = partner[mine]
        later = (time[mine] - time[other]).round().long()
        higher = (place[mine] - place[other]).round().long() * int(self.channels)
        shifted = moved(x[:, other], torch.arange(steps)[:, None] - later, torch.arange(channels) - higher[:, None])
        half = torch.full((len(mine), 1), 0.5)
        both = thinned(x[:, mine], half, rng).short() + thinned(shifted, half, rng)
        x, lengths = x.clone(), lengths.clone()
        x[:, mine] = both.clamp_(max=LARGEST_COUNT).to(torch.uint8)
        lengths[mine] = torch.maximum(lengths[mine], (examples.lengths[other] + later).clamp(1, steps))
        return Examples(x, targets, lengths)


@dataclass(frozen=True)
class CutMix:
    """Replace a stretch of time by that of another sample of the batch; the targets mix as the events do.

    [Yun et al. 2019, CutMix; along time as in Schoene et al. 2024, Scalable event-by-event processing]

    Attributes:
        probability: of mixing a sample. largest: the stretch is uniform in 0..largest of T.
    """

    probability: float
    largest: float = 0.5

    def __post_init__(self) -> None:
        require(self, "probability", 0, 1)
        require(self, "largest", 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        x, targets, lengths = examples
        steps, size, _ = x.shape
        partner = (torch.arange(size) + integers(1, max(size - 1, 1), 1, rng)) % size
        chosen = torch.rand(size, generator=rng) < self.probability
        width = (uniform(0, self.largest, size, rng) * steps).round().long() * chosen
        start = (torch.rand(size, generator=rng) * (steps - width + 1)).long().clamp(max=steps)
        now = torch.arange(steps)[:, None]
        inside = (now >= start) & (now < start + width)  # [T, B]
        cut = inside[:, :, None].to(torch.uint8)
        foreign, own = x[:, partner] * cut, x * (1 - cut)
        theirs, mine = centres(foreign)[0], centres(own)[0]
        share = torch.where(theirs > 0, mine / (mine + theirs).clamp(min=1), 1.0)[:, None].to(targets.dtype)
        reach = torch.maximum(lengths, torch.minimum(start + width, lengths[partner]))
        return Examples(
            own + foreign,
            share * targets + (1 - share) * targets[partner],
            torch.where(theirs > 0, reach, lengths),
        )
