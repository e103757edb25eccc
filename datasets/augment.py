"""Changes made to batches of counts in training: what a voice and a tempo change, and what a word keeps.

Each augmentation is a small frozen dataclass that takes ``Examples`` and a random generator and returns ``Examples``. A
list of them is a pipeline: ``augmented(examples, [ChannelShift(8), TimeStretch(0.2)], generator(seed, epoch, batch))``.
A generator keyed by seed, epoch and batch makes a resumed training draw what an uninterrupted one draws.

Counts stay whole numbers 0..255. T stays what it is: what is moved beyond the window is cut, so use a window with some
room. Warps and stretches move the counts of a bin, they do not share them out: the rate at a moved place is that of
where it came from, as a slower word fires at the same rate for longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .binned import Batch
from .binning import LARGEST_COUNT


class Examples(NamedTuple):
    """Samples with soft targets.

    Attributes:
        x: uint8 [T, B, C], counts.
        targets: float32 [B, classes], rows sum to 1.
        lengths: int64 [B], steps up to and with the last event.
    """

    x: Tensor
    targets: Tensor
    lengths: Tensor


@runtime_checkable
class Augmentation(Protocol):
    """What all augmentations are: a frozen dataclass of numbers that can be called."""

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples: ...


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


# -- along the channels -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelShift:
    """Move each sample up or down by a whole number of channel bins: a higher or lower voice.

    Attributes:
        largest: bins; the shift is uniform in -largest..largest. What leaves the range is lost. [40 of
            700 channels on SHD in Nowotny, Turner & Knight 2025]
    """

    largest: int

    def __post_init__(self) -> None:
        _require(self, "largest", self.largest, 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        shift = _integers(-self.largest, self.largest, examples.x.shape[1], rng)
        source = torch.arange(examples.x.shape[2]) - shift[:, None]
        return examples._replace(x=_moved(examples.x, channels=source))


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
        _require(self, "largest", self.largest, 0)
        _require(self, "bend", self.bend, 0, 0.25)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        _, size, channels = examples.x.shape
        factor = torch.exp(_uniform(-1, 1, size, rng) * math.log1p(self.largest))[:, None]
        centre = _uniform(0, channels, size, rng)[:, None]
        bow = _uniform(-1, 1, size, rng)[:, None] * self.bend * channels
        place = torch.arange(channels) + 0.5
        source = centre + (place - centre) / factor + bow * 4 * place * (channels - place) / channels**2
        return examples._replace(x=_moved(examples.x, channels=source.floor().long()))


@dataclass(frozen=True)
class ChannelMask:
    """Silence a band of neighbouring channel bins in each sample.

    Attributes:
        largest: bins; the width of a band is uniform in 0..largest. number: bands per sample.
    """

    largest: int
    number: int = 1

    def __post_init__(self) -> None:
        _require(self, "largest", self.largest, 0)
        _require(self, "number", self.number, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        _, size, channels = examples.x.shape
        keep = ~_bands(self.largest, self.number, channels, torch.full((size,), channels), rng)
        return examples._replace(x=examples.x * keep.to(torch.uint8))


# -- along time ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimeShift:
    """Let each sample begin later or earlier.

    Attributes:
        later, earlier: steps; the shift is uniform in -earlier..later. What leaves the window is lost.
    """

    later: int
    earlier: int = 0

    def __post_init__(self) -> None:
        _require(self, "later", self.later, 0)
        _require(self, "earlier", self.earlier, 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        steps, size, _ = examples.x.shape
        shift = _integers(-self.earlier, self.later, size, rng)
        x = _moved(examples.x, torch.arange(steps)[:, None] - shift)
        return examples._replace(x=x, lengths=(examples.lengths + shift).clamp(1, steps))


@dataclass(frozen=True)
class TimeStretch:
    """Let each sample run slower or faster, at the same firing rates.

    Attributes:
        largest: 0.2 for a duration uniform (in its logarithm) between 1/1.2 and 1.2 of the original.
    """

    largest: float

    def __post_init__(self) -> None:
        _require(self, "largest", self.largest, 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        steps, size, _ = examples.x.shape
        factor = torch.exp(_uniform(-1, 1, size, rng) * math.log1p(self.largest))
        source = ((torch.arange(steps)[:, None] + 0.5) / factor).floor().long()
        lengths = (examples.lengths * factor).ceil().long().clamp(1, steps)
        return examples._replace(x=_moved(examples.x, source), lengths=lengths)


@dataclass(frozen=True)
class TimeMask:
    """Silence a stretch of time within each sample's length.

    Attributes:
        largest: steps; the length of a stretch is uniform in 0..largest. number: stretches per sample.
    """

    largest: int
    number: int = 1

    def __post_init__(self) -> None:
        _require(self, "largest", self.largest, 0)
        _require(self, "number", self.number, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        keep = ~_bands(self.largest, self.number, len(examples.x), examples.lengths, rng)
        return examples._replace(x=examples.x * keep.T[:, :, None].to(torch.uint8))


# -- events and samples -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EventDrop:
    """Delete each event with a probability drawn per sample; what is left of a count is binomial.

    Attributes:
        largest: the probability is uniform in 0..largest.
    """

    largest: float

    def __post_init__(self) -> None:
        _require(self, "largest", self.largest, 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        keep = 1 - _uniform(0, self.largest, examples.x.shape[1], rng)
        return examples._replace(x=_thinned(examples.x, keep[:, None], rng))


@dataclass(frozen=True)
class ChannelFade:
    """Delete events with a probability that varies smoothly along the channels, as another timbre or microphone would.

    Attributes:
        largest: the highest probability is uniform in 0..largest for each sample; along the channels it follows a
            raised cosine of random phase and of 0 to 1.5 periods.
    """

    largest: float

    def __post_init__(self) -> None:
        _require(self, "largest", self.largest, 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        _, size, channels = examples.x.shape
        phase, periods = _uniform(0, 1, size, rng)[:, None], _uniform(0, 1.5, size, rng)[:, None]
        wave = 0.5 + 0.5 * torch.sin(2 * math.pi * (phase + periods * torch.arange(channels) / channels))
        drop = _uniform(0, self.largest, size, rng)[:, None] * wave
        return examples._replace(x=_thinned(examples.x, 1 - drop, rng))


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
        _require(self, "level", self.level, 0)
        _require(self, "tilt", self.tilt, 0)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        if not self.level and not self.tilt:
            return examples
        _, size, channels = examples.x.shape
        level = _uniform(-1, 1, size, rng)[:, None] * math.log1p(self.level)
        height = _uniform(-1, 1, size, rng)[:, None] * math.log1p(self.tilt)
        phase, periods = _uniform(0, 1, size, rng)[:, None], _uniform(0, 1.5, size, rng)[:, None]
        wave = torch.sin(2 * math.pi * (phase + periods * torch.arange(channels) / channels))
        louder = examples.x * torch.exp(level + height * wave) + torch.rand(examples.x.shape, generator=rng)
        return examples._replace(x=louder.floor_().clamp_(max=LARGEST_COUNT).to(torch.uint8))


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
        _require(self, "probability", self.probability, 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        x, targets, lengths = examples
        steps, size, channels = x.shape
        same = (targets @ targets.T) > 1 - 1e-6  # both surely of one class
        same.fill_diagonal_(False)
        score = torch.rand((size, size), generator=rng).masked_fill(~same, -1)
        partner = score.argmax(1)
        events, time, place = _centres(x)
        chosen = (torch.rand(size, generator=rng) < self.probability) & same.any(1)
        chosen &= (events > 0) & (events[partner] > 0)  # silence has no centre
        mine = chosen.nonzero().squeeze(1)
        if not len(mine):
            return examples
        other = partner[mine]
        later = (time[mine] - time[other]).round().long()
        higher = (place[mine] - place[other]).round().long() * int(self.channels)
        moved = _moved(x[:, other], torch.arange(steps)[:, None] - later, torch.arange(channels) - higher[:, None])
        half = torch.full((len(mine), 1), 0.5)
        both = _thinned(x[:, mine], half, rng).short() + _thinned(moved, half, rng)
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
        _require(self, "probability", self.probability, 0, 1)
        _require(self, "largest", self.largest, 0, 1)

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples:
        x, targets, lengths = examples
        steps, size, _ = x.shape
        partner = (torch.arange(size) + _integers(1, max(size - 1, 1), 1, rng)) % size
        chosen = torch.rand(size, generator=rng) < self.probability
        width = (_uniform(0, self.largest, size, rng) * steps).round().long() * chosen
        start = (torch.rand(size, generator=rng) * (steps - width + 1)).long().clamp(max=steps)
        now = torch.arange(steps)[:, None]
        inside = (now >= start) & (now < start + width)  # [T, B]
        cut = inside[:, :, None].to(torch.uint8)
        foreign, own = x[:, partner] * cut, x * (1 - cut)
        theirs, mine = _centres(foreign)[0], _centres(own)[0]
        share = torch.where(theirs > 0, mine / (mine + theirs).clamp(min=1), 1.0)[:, None].to(targets.dtype)
        reach = torch.maximum(lengths, torch.minimum(start + width, lengths[partner]))
        return Examples(
            own + foreign,
            share * targets + (1 - share) * targets[partner],
            torch.where(theirs > 0, reach, lengths),
        )


# -- configuration ------------------------------------------------------------------------------------------------

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


# -- the inside ---------------------------------------------------------------------------------------------------


def _require(owner: Any, name: str, value: Any, low: float, high: float = math.inf) -> None:
    whole = next(f.type for f in fields(owner) if f.name == name) == "int"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ConfigError(f"{type(owner).__name__}: {name} must be {kind}, {limits}; got {value!r}")


def _uniform(low: float, high: float, size: int, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=rng)


def _integers(low: int, high: int, size: int, rng: torch.Generator) -> Tensor:
    return torch.randint(low, high + 1, (size,), generator=rng)


def _moved(x: Tensor, times: Tensor | None = None, channels: Tensor | None = None) -> Tensor:
    """``x[times[t, b], b, channels[b, c]]``, and silence where a source is out of range.

    x uint8 [T, B, C]; times int64 [T, B], by default each step itself; channels int64 [B, C], likewise.
    """
    from . import _kernels

    steps, size, bins = x.shape
    times = torch.arange(steps)[:, None].expand(steps, size) if times is None else times
    channels = torch.arange(bins).expand(size, bins) if channels is None else channels
    out = np.empty(x.shape, np.uint8)
    _kernels.gather(x.contiguous().numpy(), times.contiguous().numpy(), channels.contiguous().numpy(), out)
    return torch.from_numpy(out)


def _thinned(x: Tensor, keep: Tensor, rng: torch.Generator) -> Tensor:
    """Binomial draws of ``x`` trials with probabilities ``keep`` [B, 1] or [B, C]."""
    from . import _kernels

    seed = int(torch.randint(0, 2**62, (1,), generator=rng))
    limits = (keep.double().clamp(0, 1) * 2**32).round().to(torch.int64).expand(x.shape[1:]).contiguous().numpy()
    out = np.empty(x.shape, np.uint8)
    _kernels.thin(x.contiguous().numpy(), limits, seed, out)
    return torch.from_numpy(out)


def _bands(largest: int, number: int, size: int, limits: Tensor, rng: torch.Generator) -> Tensor:
    """True in random bands of 0..largest neighbours within 0..limit-1 of each row: bool [B, size]."""
    inside = torch.zeros((len(limits), size), dtype=torch.bool)
    place = torch.arange(size)
    for _ in range(number):
        width = torch.minimum(_integers(0, largest, len(limits), rng), limits)
        start = (torch.rand(len(limits), generator=rng) * (limits - width + 1)).long()
        inside |= (place >= start[:, None]) & (place < (start + width)[:, None])
    return inside


def _centres(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each sample's events (int64 [B]), and their mean step and mean channel bin (float64 [B]; 0 for silence)."""
    from . import _kernels

    sums = np.zeros((x.shape[1], 3), np.int64)
    _kernels.moments(x.contiguous().numpy(), sums)
    events, time, place = torch.from_numpy(sums).unbind(1)
    return events, time / events.clamp(min=1).double(), place / events.clamp(min=1).double()
