"""Binned samples, cached on the disk and mapped into memory: a batch is one gather, without Python per event."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import ConfigError, DataError
from ..files import atomic_path, cache_folder
from .binning import LARGEST_COUNT, Binning, Counts, bin_spikes
from .cache_keys import cache_key
from .sources import EventSource

_FORMAT = 1  # of the cache; a change of the binning's rules must raise it


class Batch(NamedTuple):
    """Some samples, time first, ready for a network.

    Attributes:
        x: [T, B, C], uint8 counts (float after augmentation or conversion). Steps beyond a sample's length are 0.
        y: int64 [B], labels.
        lengths: int64 [B], steps up to and with the last event; T itself where a window is fixed and full.
        speakers: int64 [B].
    """

    x: Tensor
    y: Tensor
    lengths: Tensor
    speakers: Tensor


@dataclass(frozen=True, eq=False)
class BinnedDataset:
    """Binned samples with their labels; usually made by ``BinnedDataset.open``.

    Indexing gives ``(counts uint8 [T_i, C], label)``, so it also serves as a torch data set (with ``collate``);
    ``batch(indices)`` is the fast way.

    Attributes:
        rows: uint8 [1 + sum of lengths, C]; row 0 is silence, then the samples end to end. Usually a memory map.
        lengths, labels, speakers: int64 [samples].
        classes: the names that labels index.
        binning: how the counts were made.
        saturated: bins that held more than 255 events and were cut to 255 (of the whole source, also in a subset).
        dropped: events beyond the window (of the whole source).
        starts: int64 [samples], the first row of each sample.
    """

    rows: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    classes: tuple[str, ...]
    binning: Binning
    saturated: int = 0
    dropped: int = 0
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if len(self.starts) != len(self.lengths):  # not given: the samples lie end to end
            object.__setattr__(self, "starts", 1 + np.cumsum(self.lengths) - self.lengths)

    @classmethod
    def open(
        cls, source: EventSource, binning: Binning, cache: str | os.PathLike[str] | None = None, *, keep: bool = True
    ) -> BinnedDataset:
        """The binned form of an event source, from the cache if it is there and whole, else made and cached.

        The cache key is the source's files with their size and time of change, and the binning. A damaged entry is made
        again. Any number of processes may do this at once. Where the cache cannot be written, the counts are kept in
        memory with a warning.

        Args:
            source: a ``SpikeFile`` or several ``Joined``.
            binning: how to bin.
            cache: the folder, by default ``binned`` in ``RANVIER_CACHE`` or ``~/.cache/ranvier``.
            keep: False neither reads nor writes the cache.
        """
        binning.bins_of(source.channels)
        folder = Path(cache) if cache is not None else cache_folder() / "binned"
        entry = _Entry.of(source, binning, folder)
        rows, record = entry.load() if keep else (None, {})
        if rows is None and keep:
            try:
                entry.store(source, binning)
                rows, record = entry.load()
            except OSError as error:
                warnings.warn(f"no cache in {folder}, counts are kept in memory ({error})", stacklevel=2)
        if rows is None:
            made = list(_bin_all(source, binning))
            rows = np.concatenate([np.zeros((1, binning.bins_of(source.channels)), np.uint8), *(m.rows for m in made)])
            record = _summary(made)
        if record["saturated"]:
            warnings.warn(
                f"{record['saturated']} bins of {source!r} hold more than {LARGEST_COUNT} events and were cut; "
                "use a smaller dt or channel_factor",
                stacklevel=2,
            )
        lengths = np.asarray(record["lengths"], np.int64)
        return cls(
            rows,
            lengths,
            source.labels,
            source.speakers,
            source.classes,
            binning,
            record["saturated"],
            record["dropped"],
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Channel bins, the C of [T, B, C]."""
        return self.rows.shape[1]

    @property
    def steps(self) -> int:
        """The T that holds every sample: the window, or the longest sample."""
        return self.binning.steps or int(self.lengths.max(initial=1))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Sample ``index`` as (counts uint8 [T_i, C], label)."""
        position = range(len(self))[index]
        start, length = self.starts[position], self.lengths[position]
        counts = np.zeros((self.binning.steps or int(length), self.channels), np.uint8)
        counts[:length] = self.rows[start : start + length]
        return torch.from_numpy(counts), int(self.labels[position])

    def batch(self, indices: ArrayLike, *, dtype: torch.dtype = torch.uint8) -> Batch:
        """The samples ``indices`` [B] as one ``Batch``; T is the window, or the longest of these samples."""
        chosen = np.asarray(indices, np.int64)
        lengths = self.lengths[chosen]
        steps = np.arange(self.binning.steps or int(lengths.max(initial=1)))[:, None]
        rows = np.where(steps < lengths, self.starts[chosen] + steps, 0)  # [T, B]; row 0 is silence
        return Batch(
            torch.from_numpy(np.take(self.rows, rows, axis=0)).to(dtype),
            torch.from_numpy(self.labels[chosen]),
            torch.from_numpy(lengths),
            torch.from_numpy(self.speakers[chosen]),
        )

    def subset(self, indices: ArrayLike) -> BinnedDataset:
        """Only these samples, in this order; the counts are shared, not copied.

        Args:
            indices: int [samples], or bool [len(self)].
        """
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_:
            if len(chosen) != len(self):
                raise ConfigError(f"a mask of {len(chosen)} entries cannot choose from {len(self)} samples")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        return BinnedDataset(
            self.rows,
            self.lengths[chosen],
            self.labels[chosen],
            self.speakers[chosen],
            self.classes,
            self.binning,
            self.saturated,
            self.dropped,
            self.starts[chosen],
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(self.rows, np.memmap) and self.rows.filename is not None:
            state["rows"] = (str(self.rows.filename), self.rows.shape)  # a memory map would be pickled as its content
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["rows"], tuple):
            path, shape = state["rows"]
            state["rows"] = np.memmap(path, np.uint8, "r", shape=shape)
        self.__dict__.update(state)


def collate(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Join ``(counts [T_i, C], label)`` pairs for a DataLoader: (x [T, B, C] padded with 0, y [B], lengths [B])."""
    lengths = torch.tensor([len(x) for x, _ in samples])
    x = torch.nn.utils.rnn.pad_sequence([x for x, _ in samples])
    return x, torch.tensor([y for _, y in samples]), lengths


# -- the cache ----------------------------------------------------------------------------------------------------


def _bin_all(source: EventSource, binning: Binning) -> Iterator[Counts]:
    for spikes in source.chunks():
        yield bin_spikes(spikes, binning, source.channels)


def _summary(made: Sequence[Counts]) -> dict[str, Any]:
    return {
        "lengths": [int(n) for m in made for n in m.lengths],
        "saturated": sum(m.saturated for m in made),
        "dropped": sum(m.dropped for m in made),
    }


@dataclass(frozen=True)
class _Entry:
    """One entry of the cache: the counts as raw bytes, and a JSON record that describes and checks them."""

    counts: Path
    record: Path
    parameters: dict[str, Any]

    @classmethod
    def of(cls, source: EventSource, binning: Binning, folder: Path) -> _Entry:
        parameters = {"format": _FORMAT, "source": source.identity, "binning": binning.to_config()}
        parameters["channels"] = binning.bins_of(source.channels)
        parameters["samples"] = len(source)
        key = cache_key(parameters)
        return cls(folder / f"{key}.u8", folder / f"{key}.json", parameters)

    def load(self) -> tuple[NDArray[np.uint8] | None, dict[str, Any]]:
        """The counts and the record, or (None, {}) where either is missing or damaged."""
        try:
            record = json.loads(self.record.read_text("utf-8"))
            lengths = record["lengths"]
            shape = (1 + sum(lengths), self.parameters["channels"])
            if record["parameters"] != self.parameters or len(lengths) != self.parameters["samples"]:
                return None, {}
            if self.counts.stat().st_size != shape[0] * shape[1] or record["crc32_record"] != _record_crc(record):
                return None, {}
            rows = np.memmap(self.counts, np.uint8, "r", shape=shape)
            if zlib.crc32(rows.data) != record["crc32"]:
                return None, {}
        except (OSError, ValueError, KeyError, TypeError):
            return None, {}
        return rows, record

    def store(self, source: EventSource, binning: Binning) -> None:
        """Make the entry. Counts first, then the record: without its record the entry does not exist."""
        made: list[Counts] = []
        with atomic_path(self.counts) as temporary:
            silence = bytes(self.parameters["channels"])
            crc = zlib.crc32(silence)
            with temporary.open("wb") as file:
                file.write(silence)
                for counts in _bin_all(source, binning):
                    file.write(counts.rows.data)
                    crc = zlib.crc32(counts.rows.data, crc)
                    made.append(counts._replace(rows=counts.rows[:0]))
            if source.identity != self.parameters["source"]:
                raise DataError(f"{source!r} changed while it was being read; run again when nothing writes to it")
        record = {"parameters": self.parameters, **_summary(made), "crc32": crc}
        record["crc32_record"] = _record_crc(record)
        with atomic_path(self.record) as temporary:
            temporary.write_text(json.dumps(record), "utf-8")


def _record_crc(record: dict[str, Any]) -> int:
    rest = {k: v for k, v in record.items() if k != "crc32_record"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())
