"""Binning against a loop over events, and the cache against everything that can happen to files."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.datasets import (
    BinnedDataset,
    Binning,
    Joined,
    SpikeFile,
    bin_events,
    bin_spikes,
    collate,
    make_events,
    write_shd,
)
from ranvier.datasets import binned as binned_module
from ranvier.datasets.binning import Counts
from ranvier.datasets.events import Spikes
from ranvier.errors import ConfigError, DataError

CHANNELS = 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANVIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loop(samples: list[list[tuple[int, int]]], binning: Binning) -> tuple[list[np.ndarray], int, int]:
    """The specification: one event after the other. Counts without trailing silence, saturated bins, dropped events."""
    found, saturated, dropped = [], 0, 0
    for events in samples:
        first, last = (min(t for t, _ in events), max(t for t, _ in events)) if events else (0, -1)
        length = binning.relative or max(last // binning.dt_us + 1, 1)
        if binning.relative is None and binning.steps is not None:
            length = min(length, binning.steps)
        counts = np.zeros((length, CHANNELS // binning.channel_factor), int)
        for t, x in events:
            if binning.relative:
                step = int((t - first) / (last - first + 1) * binning.relative)
            else:
                step = t // binning.dt_us
            if step >= length:
                dropped += 1
            else:
                counts[step, x // binning.channel_factor] += 1
        saturated += int((counts > 255).sum())
        found.append(np.minimum(counts, 255))
    return found, saturated, dropped


def joined(samples: list[list[tuple[int, int]]]) -> Spikes:
    flat = [e for s in samples for e in s]
    return Spikes(
        np.array([t for t, _ in flat], np.int64),
        np.array([x for _, x in flat], np.int64),
        np.array([len(s) for s in samples], np.int64),
    )


events = st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, CHANNELS - 1)), max_size=40)
binnings = st.builds(
    Binning,
    dt=st.sampled_from([0.5, 1.0, 4.0, 7.3]),
    window=st.one_of(st.none(), st.floats(0.5, 60)),
    channel_factor=st.sampled_from([1, 2, 5, 20]),
    relative=st.one_of(st.none(), st.integers(1, 12)),
)


@given(st.lists(events, min_size=1, max_size=5), binnings)
@settings(max_examples=150, deadline=None)
def test_binning_is_the_loop(samples: list[list[tuple[int, int]]], binning: Binning) -> None:
    counts = bin_spikes(joined(samples), binning, CHANNELS)
    expected, saturated, dropped = loop(samples, binning)
    assert counts.rows.dtype == np.uint8
    assert counts.lengths.tolist() == [len(e) for e in expected]
    assert np.array_equal(counts.rows, np.concatenate(expected))
    assert (counts.saturated, counts.dropped) == (saturated, dropped)
    if binning.window is None or binning.relative:
        assert counts.dropped == 0
    assert counts.rows.sum() + counts.dropped == sum(len(s) for s in samples)  # none is lost unsaid


def test_an_event_on_an_edge_belongs_to_the_bin_that_begins_there() -> None:
    binning = Binning(dt=4.0, window=12.0, channel_factor=5)
    counts = bin_spikes(joined([[(0, 4), (3999, 5), (4000, 9), (11_999, 19), (12_000, 0)]]), binning, CHANNELS)
    assert counts.rows.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert counts.dropped == 1


def test_a_window_that_is_no_multiple_of_dt_ends_with_its_last_bin() -> None:
    assert Binning(dt=4.0, window=10.0).steps == 3
    assert Binning(dt=5.6, window=1400.0).steps == 250
    assert bin_spikes(joined([[(11_999, 0)]]), Binning(4.0, 10.0, 1), CHANNELS).dropped == 0


def test_saturation_is_cut_and_told() -> None:
    counts = bin_spikes(joined([[(0, 0)] * 300 + [(1, 1)] * 255]), Binning(1.0, None, 1), CHANNELS)
    assert counts.rows[0, :2].tolist() == [255, 255]
    assert counts.saturated == 1


def test_relative_bins_line_up_slow_and_fast() -> None:
    word = [(1000, 0), (2000, 1), (3000, 2), (4000, 3)]
    slow = [(t * 3 + 500, x) for t, x in word]
    counts = bin_spikes(joined([word, slow]), Binning(channel_factor=1, relative=4), CHANNELS)
    assert np.array_equal(counts.rows[:4], counts.rows[4:])
    assert counts.rows[3, 3] == 1  # the last event lies in the last bin


def test_much_data_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    samples = [[(int(rng.integers(0, 9000)), int(rng.integers(0, 20))) for _ in range(50)] for _ in range(9)]
    binning = Binning(1.0, None, 1)
    whole = bin_spikes(joined(samples), binning, CHANNELS)
    monkeypatch.setattr("ranvier.datasets.binning._CELLS_AT_ONCE", 400)
    parts = bin_spikes(joined(samples), binning, CHANNELS)
    assert np.array_equal(whole.rows, parts.rows)
    assert np.array_equal(whole.lengths, parts.lengths)
    empty = bin_spikes(joined([]), binning, CHANNELS)
    assert empty.rows.shape == (0, 20)


def test_one_sample_in_any_order() -> None:
    counts = bin_events(make_events([9000, 0, 4100], [3, 0, 19]), Binning(4.0, 20.0, 5), CHANNELS)
    assert counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_sample_without_end_needs_a_window() -> None:
    endless = joined([[(0, 0)], [(7_200_000_000, 1)]])
    with pytest.raises(DataError, match=r"7200001 bins of 1\.0 ms; give a window"):
        bin_spikes(endless, Binning(1.0, None, 1), CHANNELS)
    assert bin_spikes(endless, Binning(1.0, 100.0, 1), CHANNELS).dropped == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dt": 0}, "dt"),
        ({"dt": 0.0005}, "dt"),
        ({"dt": 1.23456}, "whole number of microseconds"),
        ({"dt": float("nan")}, "dt"),
        ({"window": 0}, "window"),
        ({"window": float("inf")}, "window"),
        ({"channel_factor": 0}, "channel_factor"),
        ({"relative": 0}, "relative"),
    ],
)
def test_what_binning_refuses(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Binning(**arguments)


def test_configuration_and_channels() -> None:
    binning = Binning(2.5, 700.0, 10)
    assert Binning(**json.loads(json.dumps(binning.to_config()))) == binning
    with pytest.raises(ConfigError, match="does not divide"):
        binning.bins_of(701)


# -- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> SpikeFile:
    return SpikeFile(make(tmp_path / "words.h5"), channels=CHANNELS)


def make(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    sizes = [*rng.integers(20, 200, 3), 0, *rng.integers(20, 200, 8)]
    times = [np.sort(rng.random(n) * rng.uniform(0.02, 0.06)) for n in sizes]
    units = [rng.integers(0, CHANNELS, n) for n in sizes]
    return write_shd(path, times, units, np.arange(12) % 3, np.arange(12) % 4, ["a", "b", "c"], channels=CHANNELS)


BINNING = Binning(4.0, 50.0, 5)


def test_batches_are_the_binned_samples(source: SpikeFile) -> None:
    data = BinnedDataset.open(source, BINNING)
    indices = [7, 0, 7, 11]
    batch = data.batch(indices)
    assert batch.x.shape == (13, 4, 4)
    assert batch.x.dtype == torch.uint8
    for column, index in enumerate(indices):
        expected = bin_events(source[index][0], BINNING, CHANNELS)
        assert np.array_equal(batch.x[:, column].numpy(), expected)
        assert np.array_equal(data[index][0].numpy(), expected)
        assert not batch.x[batch.lengths[column] :, column].any()
    assert batch.y.tolist() == [1, 0, 1, 2]
    assert batch.speakers.tolist() == [3, 0, 3, 3]
    assert data.batch([1], dtype=torch.float32).x.dtype == torch.float32


def test_natural_lengths_are_padded_with_silence(source: SpikeFile) -> None:
    data = BinnedDataset.open(source, Binning(1.0, None, 5))
    batch = data.batch([0, 3, 5])
    assert batch.lengths[1] == 1  # the empty sample
    assert len(batch.x) == batch.lengths.max() <= data.steps == data.lengths.max()
    x, y, lengths = collate([data[i] for i in (0, 3, 5)])
    assert torch.equal(x, batch.x)
    assert torch.equal(y, batch.y)
    assert torch.equal(lengths, batch.lengths)
    total = sum(len(source[i][0]) for i in (0, 3, 5))
    assert int(batch.x.sum(dtype=torch.int64)) == total
    loader = torch.utils.data.DataLoader(data, batch_size=5, collate_fn=collate)  # pyright: ignore[reportArgumentType]
    assert torch.equal(torch.cat([y for _, y, _ in loader]), torch.from_numpy(data.labels))


def test_subsets_share_the_counts(source: SpikeFile) -> None:
    data = BinnedDataset.open(source, BINNING)
    part = data.subset([9, 2, 4]).subset(np.array([True, False, True]))
    assert part.rows is data.rows
    assert torch.equal(part.batch([0, 1]).x, data.batch([9, 4]).x)
    assert part.labels.tolist() == data.labels[[9, 4]].tolist()
    with pytest.raises(ConfigError, match="mask of 2"):
        data.subset(np.array([True, False]))


def _forbidden(*_: Any) -> Any:
    raise AssertionError("the events were read again")


def test_the_second_time_nothing_is_binned(source: SpikeFile, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = BinnedDataset.open(source, BINNING)
    assert isinstance(first.rows, np.memmap)
    assert len(list((own_cache / "binned").iterdir())) == 2
    monkeypatch.setattr(binned_module, "bin_spikes", _forbidden)
    second = BinnedDataset.open(source, BINNING)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.lengths, second.lengths)
    with pytest.raises(AssertionError, match="read again"):
        BinnedDataset.open(source, Binning(5.0, 50.0, 5))  # other parameters are another entry


def test_another_content_is_another_entry(tmp_path: Path, source: SpikeFile) -> None:
    before = BinnedDataset.open(source, BINNING)
    make(tmp_path / "words.h5", seed=1)
    after = BinnedDataset.open(SpikeFile(tmp_path / "words.h5", channels=CHANNELS), BINNING)
    fresh = BinnedDataset.open(SpikeFile(tmp_path / "words.h5", channels=CHANNELS), BINNING, keep=False)
    assert not np.array_equal(before.rows, after.rows)
    assert np.array_equal(after.rows, fresh.rows)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, Path], Any]] = {
    "a bit of the counts": lambda counts, record: _flip(counts),
    "counts cut": lambda counts, record: counts.write_bytes(counts.read_bytes()[:-7]),
    "counts empty": lambda counts, record: counts.write_bytes(b""),
    "counts gone": lambda counts, record: counts.unlink(),
    "record cut": lambda counts, record: record.write_bytes(record.read_bytes()[:-9]),
    "record of something else": lambda counts, record: record.write_text("[1, 2]"),
    "record not text": lambda counts, record: record.write_bytes(b"\xff\xfe"),
    "a length changed": lambda counts, record: record.write_text(
        json.dumps(json.loads(record.read_text()) | {"lengths": json.loads(record.read_text())["lengths"][::-1]})
    ),
    "record gone": lambda counts, record: record.unlink(),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_made_again(source: SpikeFile, own_cache: Path, name: str) -> None:
    expected = BinnedDataset.open(source, BINNING, keep=False)
    BinnedDataset.open(source, BINNING)
    (counts,) = (own_cache / "binned").glob("*.u8")
    DAMAGE[name](counts, counts.with_suffix(".json"))
    again = BinnedDataset.open(source, BINNING)
    assert np.array_equal(again.rows, expected.rows)
    assert np.array_equal(again.lengths, expected.lengths)
    assert len(list((own_cache / "binned").iterdir())) == 2


def _open(path: Path, barrier: Any, results: Any) -> None:
    source = SpikeFile(path, channels=CHANNELS)
    barrier.wait()
    data = BinnedDataset.open(source, BINNING)
    results.put((data.rows.tobytes(), data.lengths.tolist()))


def test_several_processes_at_once(tmp_path: Path, source: SpikeFile, own_cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open, args=(source.path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    expected = BinnedDataset.open(source, BINNING, keep=False)
    assert all(f == (expected.rows.tobytes(), expected.lengths.tolist()) for f in found)
    assert len(list((own_cache / "binned").iterdir())) == 2  # and no temporary files


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, source: SpikeFile, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bin_spikes

    def slow(*arguments: Any) -> Counts:
        made = original(*arguments)
        make(tmp_path / "words.h5", seed=2)
        return made

    monkeypatch.setattr(binned_module, "bin_spikes", slow)
    with pytest.raises(DataError, match="changed while"):
        BinnedDataset.open(source, BINNING)
    assert not list((own_cache / "binned").iterdir())


def test_no_place_for_the_cache(source: SpikeFile, tmp_path: Path) -> None:
    (tmp_path / "flat").touch()
    with pytest.warns(UserWarning, match="kept in memory"):
        data = BinnedDataset.open(source, BINNING, tmp_path / "flat")
    assert np.array_equal(data.rows, BinnedDataset.open(source, BINNING).rows)


def test_saturation_warns(tmp_path: Path) -> None:
    path = write_shd(tmp_path / "a.h5", [np.zeros(400)], [np.zeros(400, int)], [0], [0], ["a"], channels=CHANNELS)
    source = SpikeFile(path, channels=CHANNELS)
    for _ in range(2):  # made, and from the cache
        with pytest.warns(UserWarning, match="1 bins of .* hold more than 255"):
            data = BinnedDataset.open(source, BINNING)
        assert data.saturated == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BinnedDataset.open(SpikeFile(make(tmp_path / "b.h5"), channels=CHANNELS), BINNING)


def test_a_copy_for_another_process_carries_no_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times, units = [np.sort(rng.random(300)) for _ in range(50)], [rng.integers(0, CHANNELS, 300) for _ in range(50)]
    path = write_shd(tmp_path / "a.h5", times, units, np.zeros(50, int), np.zeros(50, int), ["a"], channels=CHANNELS)
    data = BinnedDataset.open(SpikeFile(path, channels=CHANNELS), Binning(1.0, 1000.0, 1))
    packed = pickle.dumps(data)
    assert len(packed) < 10_000 < data.rows.size
    assert torch.equal(pickle.loads(packed).batch([3, 4]).x, data.batch([3, 4]).x)


def test_joined_sources_are_cached_as_one(tmp_path: Path, source: SpikeFile) -> None:
    other = SpikeFile(make(tmp_path / "more.h5", seed=5), channels=CHANNELS)
    data = BinnedDataset.open(Joined(source, other), BINNING)
    assert len(data) == 24
    assert torch.equal(data.batch([13]).x, BinnedDataset.open(other, BINNING).batch([1]).x)
