"""Augmentation: what may change and what may not, for every augmentation; and what each one means."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.datasets import (
    Blend,
    ChannelFade,
    ChannelGain,
    ChannelMask,
    ChannelShift,
    ChannelWarp,
    CutMix,
    EventDrop,
    Examples,
    TimeMask,
    TimeShift,
    TimeStretch,
    augmented,
    generator,
)
from ranvier.datasets.augment import AUGMENTATIONS, examples, from_config, to_config
from ranvier.datasets.binned import Batch
from ranvier.errors import ConfigError

ALL = [
    ChannelShift(3),
    ChannelWarp(0.3),
    ChannelWarp(0.1, bend=0.2),
    ChannelMask(4, 2),
    TimeShift(5, 2),
    TimeStretch(0.4),
    TimeMask(6),
    EventDrop(0.8),
    ChannelFade(0.8),
    ChannelGain(1.0, tilt=1.0),
    Blend(0.9),
    Blend(0.9, channels=False),
    CutMix(0.9, 0.8),
]
NONE = [
    ChannelShift(0),
    ChannelWarp(0.0),
    ChannelMask(0),
    TimeShift(0),
    TimeStretch(0.0),
    TimeMask(0),
    EventDrop(0.0),
    ChannelFade(0.0),
    ChannelGain(0.0),
    Blend(0.0),
    CutMix(0.0),
]


def made(seed: int, steps: int = 20, size: int = 8, channels: int = 14, top: int = 4) -> Examples:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, steps + 1, size)
    x = rng.integers(0, top + 1, (steps, size, channels)).astype(np.uint8)
    x[np.arange(steps)[:, None] >= lengths] = 0
    y = torch.from_numpy(rng.integers(0, 3, size))
    batch = Batch(torch.from_numpy(x), y, torch.from_numpy(lengths), torch.zeros(size, dtype=torch.int64))
    return examples(batch, 3)


@pytest.mark.parametrize("one", ALL, ids=repr)
@given(
    seed=st.integers(0, 10_000),
    steps=st.sampled_from([1, 2, 17]),
    size=st.sampled_from([1, 2, 9]),
    channels=st.sampled_from([1, 7, 14]),
    top=st.sampled_from([0, 1, 255]),
)
@settings(max_examples=25, deadline=None)
def test_what_every_augmentation_keeps(one: Any, seed: int, steps: int, size: int, channels: int, top: int) -> None:
    before = made(seed, steps, size, channels, top)
    copy = before.x.clone()
    after = augmented(before, [one], generator(seed, 1, 2))
    assert torch.equal(before.x, copy)  # the batch that was given stays
    assert after.x.dtype == torch.uint8
    assert after.x.shape == before.x.shape
    assert torch.allclose(after.targets.sum(1), torch.ones(size))
    assert (after.targets >= 0).all()
    assert ((after.lengths >= 1) & (after.lengths <= steps)).all()
    silent = torch.arange(steps)[:, None] >= after.lengths
    assert not after.x[silent].any()  # nothing sounds beyond a sample's length
    if not isinstance(one, (Blend, ChannelGain)):
        assert after.x.max() <= before.x.max()
    again = augmented(before, [one], generator(seed, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True))


@pytest.mark.parametrize("one", NONE, ids=repr)
def test_a_strength_of_zero_changes_nothing(one: Any) -> None:
    before = made(3)
    after = augmented(before, [one], generator(0, 0, 0))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("one", ALL, ids=repr)
def test_the_key_decides(one: Any) -> None:
    before = made(5, size=16)
    draws = [augmented(before, [one], generator(*key)).x for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert not torch.equal(a, b)


def test_the_generator_is_the_same_in_every_process_and_release() -> None:
    assert generator(1, 2, 3).initial_seed() == 6498626229777268288


def bars(steps: int, size: int, channels: int, at: tuple[int, int]) -> Examples:
    x = torch.zeros((steps, size, channels), dtype=torch.uint8)
    x[at[0], :, at[1]] = 9
    return Examples(x, torch.eye(2)[torch.zeros(size, dtype=torch.int64)], torch.full((size,), at[0] + 1))


def places(x: torch.Tensor, axis: int) -> list[int]:
    """Per sample the only step (axis 0) or channel (axis 2) with events; -1 for none."""
    total = x.sum(2 - axis, dtype=torch.int64).T if axis == 0 else x.sum(0, dtype=torch.int64)
    return [int(row.argmax()) if row.any() else -1 for row in total]


def test_channel_shift_moves_whole_samples() -> None:
    after = augmented(bars(4, 400, 11, (1, 5)), [ChannelShift(6)], generator(0, 0, 0))
    found = np.bincount(np.array(places(after.x, 2)) + 1, minlength=12)
    assert set(places(after.x, 0)) == {1, -1} or set(places(after.x, 0)) == {0, 1}
    assert found[0] > 30  # two of thirteen shifts leave the range
    assert (found[1:] > 15).all()  # every other place is reached


def test_time_shift_moves_later_and_earlier() -> None:
    after = augmented(bars(10, 300, 3, (4, 1)), [TimeShift(later=2, earlier=1)], generator(0, 0, 0))
    assert set(places(after.x, 0)) == {3, 4, 5, 6}
    assert [p + 1 for p in places(after.x, 0)] == after.lengths.tolist()


def test_time_stretch_keeps_rates_and_scales_lengths() -> None:
    x = torch.zeros((100, 200, 2), dtype=torch.uint8)
    x[:50] = 3
    before = Examples(x, torch.ones((200, 1)), torch.full((200,), 50))
    after = augmented(before, [TimeStretch(0.25)], generator(0, 0, 0))
    assert set(after.x.unique().tolist()) == {0, 3}
    length = (after.x[:, :, 0] > 0).sum(0)
    assert ((after.lengths - length).abs() <= 1).all()
    assert 39 <= int(length.min()) <= 42
    assert 60 <= int(length.max()) <= 63


def test_channel_warp_is_monotone_and_about_one_channel() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(1, 300, 100).contiguous()
    before = Examples(ramp, torch.ones((300, 1)), torch.ones(300, dtype=torch.int64))
    for one in (ChannelWarp(0.2), ChannelWarp(0.0, bend=0.24)):
        after = augmented(before, [one], generator(0, 0, 0)).x[0].long()
        inside = after[:, 1:] > 0
        step = after[:, 1:] - after[:, :-1]
        assert (step[inside & (after[:, :-1] > 0)] >= 0).all()
        assert (after != ramp[0].long()).any(1).float().mean() > 0.9
    stretched = augmented(before, [ChannelWarp(0.2)], generator(0, 0, 0)).x[0].long()
    still = (stretched - torch.arange(100)).abs().amin(1)
    assert (still <= 1).all()  # a channel that stays where it was


def test_event_drop_is_binomial() -> None:
    x = torch.full((50, 1, 40), 20, dtype=torch.uint8)
    before = Examples(x, torch.ones((1, 1)), torch.tensor([50]))
    rng = generator(4, 0, 0)
    share = float(torch.rand(1, generator=generator(4, 0, 0))) * 0.6
    after = augmented(before, [EventDrop(0.6)], rng).x.double()
    mean, variance = 20 * (1 - share), 20 * share * (1 - share)
    assert abs(float(after.mean()) - mean) < 4 * (variance / 2000) ** 0.5
    assert 0.85 < float(after.var()) / variance < 1.15
    assert (augmented(before, [EventDrop(0.6)], generator(5, 0, 0)).x <= x).all()


def test_channel_fade_is_smooth_along_the_channels() -> None:
    x = torch.full((200, 60, 50), 20, dtype=torch.uint8)
    before = Examples(x, torch.ones((60, 1)), torch.full((60,), 200))
    kept = augmented(before, [ChannelFade(0.8)], generator(0, 0, 0)).x.double().mean(0) / 20  # [B, C], sd below 0.008
    assert 0.19 < float(kept.min()) < 0.5
    assert float(kept.max()) > 0.99
    assert float((kept[:, 1:] - kept[:, :-1]).abs().max()) < 0.4 * torch.pi * 1.5 / 50 * 2 + 0.05
    assert float(kept.std(1).max()) > 0.15


def test_channel_gain_goes_both_ways_and_keeps_the_mean() -> None:
    x = torch.full((400, 60, 50), 10, dtype=torch.uint8)
    before = Examples(x, torch.ones((60, 1)), torch.full((60,), 400))
    level = augmented(before, [ChannelGain(0.5)], generator(0, 0, 0)).x.double().mean(0) / 10  # [B, C], sd below 0.003
    assert float(level.std(1).max()) < 0.01  # one gain for all channels
    logs = level.mean(1).log() / torch.tensor(1.5).log()
    assert float(logs.min()) < -0.8 and float(logs.max()) > 0.8
    assert float(logs.abs().max()) < 1.01
    assert abs(float(logs.mean())) < 4 * 3**-0.5 / 60**0.5  # as often softer as louder
    tilt = augmented(before, [ChannelGain(0.0, 0.5)], generator(0, 0, 0)).x.double().mean(0) / 10
    assert float(tilt.log().abs().max()) < 1.01 * float(torch.tensor(1.5).log())
    assert float(tilt.std(1).max()) > 0.15
    assert float((tilt[:, 1:] - tilt[:, :-1]).abs().max()) < 1.5 * 0.406 * 2 * torch.pi * 1.5 / 50 + 0.02  # smooth


def test_blend_joins_halves_of_one_class_with_centres_aligned() -> None:
    x = torch.zeros((30, 2, 20), dtype=torch.uint8)
    x[4, 0, 3] = 200
    x[20, 1, 15] = 200
    before = Examples(x, torch.tensor([[1.0, 0], [1.0, 0]]), torch.tensor([5, 21]))
    after = augmented(before, [Blend(1.0)], generator(0, 0, 0))
    assert places(after.x, 0) == [4, 20]
    assert places(after.x, 2) == [3, 15]
    assert after.x[4, 0, 3] != 200  # two thinned halves
    assert 150 < int(after.x[4, 0, 3]) < 250
    assert after.lengths.tolist() == [5, 21]
    alone = Examples(x, torch.eye(2), torch.tensor([5, 21]))
    assert torch.equal(augmented(alone, [Blend(1.0)], generator(0, 0, 0)).x, x)


def test_cutmix_mixes_targets_as_events() -> None:
    x = torch.zeros((40, 2, 3), dtype=torch.uint8)
    x[:, 0, 0], x[:, 1, 1] = 2, 5
    before = Examples(x, torch.eye(2), torch.tensor([40, 40]))
    after = augmented(before, [CutMix(1.0, 1.0)], generator(7, 0, 0))
    for sample in (0, 1):
        events = after.x[:, sample].sum(0, dtype=torch.int64).double()
        share = float(events[sample] / events.sum())
        assert 0 < share < 1
        assert float(after.targets[sample, sample]) == pytest.approx(share, abs=1e-6)


def test_masks_are_bands() -> None:
    x = torch.ones((30, 200, 12), dtype=torch.uint8)
    before = Examples(x, torch.ones((200, 1)), torch.full((200,), 30))
    channels = (augmented(before, [ChannelMask(5)], generator(0, 0, 0)).x == 0).all(0)
    time = (augmented(before, [TimeMask(9)], generator(0, 0, 0)).x == 0).all(2).T
    for masks, largest in ((channels, 5), (time, 9)):
        assert set(masks.sum(1).tolist()) == set(range(largest + 1))
        ends = (masks[:, 1:] != masks[:, :-1]).sum(1)
        assert int(ends.max()) <= 2  # one band


def test_configuration_there_and_back() -> None:
    assert from_config(json.loads(json.dumps(to_config(ALL)))) == ALL
    assert {type(one).__name__ for one in ALL} == set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "Reverb"}, "unknown augmentation 'Reverb'; there are ChannelShift"),
        ({"largest": 3}, "unknown augmentation None"),
        ({"name": "ChannelShift", "most": 3}, "no parameter 'most'; it has largest"),
        ({"name": "ChannelShift"}, "largest"),
        ({"name": "ChannelShift", "largest": 1.5}, "largest must be a whole number, at least 0; got 1.5"),
        ({"name": "EventDrop", "largest": 1.5}, "between 0 and 1"),
        ({"name": "EventDrop", "largest": float("nan")}, "between 0 and 1"),
        ({"name": "TimeShift", "later": -1}, "later"),
        ({"name": "Blend", "probability": True}, "probability"),
    ],
)
def test_what_a_configuration_may_not_say(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_config([entry])


def test_what_cannot_be_augmented() -> None:
    before = made(0)
    with pytest.raises(ConfigError, match=r"uint8 counts \[T, B, C\]"):
        augmented(before._replace(x=before.x.float()), [ChannelShift(1)], generator(0, 0, 0))
