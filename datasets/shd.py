"""The file layout of the Spiking Heidelberg Digits, read strictly and written atomically.

One HDF5 file holds ``spikes/times`` (variable-length float16, seconds) and ``spikes/units`` (variable-length integers,
the channel), ``labels``, ``extra/speaker`` and ``extra/keys`` (the class names). [Cramer, Stradmann, Schemmel & Zenke
2020, The Heidelberg Spiking Data Sets, IEEE TNNLS; https://zenkelab.org/datasets/]
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError
from ..files import atomic_path, cache_folder
from ._heap import blank_object
from .events import EVENT_DTYPE, Spikes, make_events, to_microseconds

CHANNELS = 700
LONGEST = 1e6  # seconds, eleven days: more than that is another unit taken for seconds
_CHUNK = 512  # samples read at once: a few ten megabytes of events
_CHECK_VERSION = 1
_READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError)  # all that h5py raises on a damaged file


class SpikeFileError(DataError):
    """An event file is missing, damaged, or breaks its layout.

    Attributes:
        path: the file.
        dataset: the HDF5 dataset that is wrong, or None where it is the file itself.
        sample: the index of the sample that is wrong, or None where it is the whole dataset.
    """

    def __init__(self, path: Path, problem: str, dataset: str | None = None, sample: int | None = None) -> None:
        where = str(path) + (f": {dataset}" if dataset else "") + (f", sample {sample}" if sample is not None else "")
        super().__init__(f"{where}: {problem}")
        self.path, self.dataset, self.sample = path, dataset, sample
        self._arguments = (path, problem, dataset, sample)

    def __reduce__(self) -> tuple[Any, ...]:  # so that it comes whole out of a DataLoader worker
        return type(self), self._arguments


class Summary(NamedTuple):
    """What the whole-file check found.

    Attributes:
        events: all events.
        empty: samples without any event (legal).
        last_us: the time of the latest event, microseconds.
    """

    events: int
    empty: int
    last_us: int


@runtime_checkable
class EventSource(Protocol):
    """Labelled event samples on a disk: what binning reads. ``SpikeFile`` and ``Joined`` are two."""

    channels: int
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    @property
    def identity(self) -> list[list[Any]]:
        """Per file: absolute path, size in bytes, time of last change in ns. Changes whenever the content may have."""
        ...

    def chunks(self) -> Iterator[Spikes]:
        """All samples in order, some hundred at a time."""
        ...


class SpikeFile:
    """An event file in SHD's layout, as a data set of ``(events, label)``.

    The file is opened once per process and never shared across a fork; a copy sent to another process opens its own. It
    is checked as a whole on first use and the outcome is remembered by (path, size, time of change), so a damaged file
    fails here and not in the middle of a training.

    Args:
        path: the HDF5 file.
        channels: units must be below this number.
        transform: applied to the events of a sample, for example any tonic transform.
        target_transform: applied to the label.
        sort: put the events of each sample in order of time instead of refusing unsorted samples.

    Raises:
        SpikeFileError: the file is missing, not HDF5, truncated, lacks a dataset, or a sample breaks the layout.

    Attributes:
        labels, speakers: int64 [samples]. classes: the names that labels index. summary: what the check counted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        channels: int = CHANNELS,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        sort: bool = False,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self.channels = channels
        self.transform = transform
        self.target_transform = target_transform
        self.sort = sort
        self._handle: h5py.File | None = None
        self._lock = threading.RLock()
        _open_files.add(self)
        self._read_structure()
        self.summary = _checked(self)

    # -- a data set -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Sample ``index``: its events (``EVENT_DTYPE``, then ``transform``) and label (then ``target_transform``)."""
        position = range(len(self))[index]  # negative indices and IndexError as for a list
        spikes = self.read(position, position + 1)
        events: Any = make_events(spikes.t, spikes.x)
        label: Any = int(self.labels[position])
        if self.transform is not None:
            events = self.transform(events)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return events, label

    @property
    def sensor_size(self) -> tuple[int, int, int]:
        """tonic's description of the sensor: (channels, 1, 1)."""
        return self.channels, 1, 1

    @property
    def ordering(self) -> tuple[str, ...]:
        """The fields of an event, as tonic names them."""
        return EVENT_DTYPE.names or ()

    @property
    def identity(self) -> list[list[Any]]:
        """Absolute path, size and time of last change of the file, and whether events are sorted on reading."""
        status = self.path.stat()
        return [[str(self.path), status.st_size, status.st_mtime_ns, self.channels, self.sort]]

    # -- bulk reading ---------------------------------------------------------------------------------------------

    def read(self, start: int, stop: int) -> Spikes:
        """The events of samples start..stop-1, unchecked, joined end to end."""
        times, units = self._read_raw(start, stop)
        counts = np.array([len(one) for one in times], np.int64)
        t = to_microseconds(_join(times, np.float64))
        x = _join(units, np.int64)
        if self.sort and len(t):
            order = np.lexsort((t, np.repeat(np.arange(len(counts)), counts)))
            t, x = t[order], x[order]
        return Spikes(t, x, counts)

    def chunks(self) -> Iterator[Spikes]:
        """All samples in order, 512 at a time."""
        for start in range(0, len(self), _CHUNK):
            yield self.read(start, min(start + _CHUNK, len(self)))

    def extra(self, name: str) -> NDArray[Any]:
        """A whole dataset of the ``extra`` group, for example ``extra("meta_info/gender")``."""
        return self._read_whole(f"extra/{name}")

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the file's root."""
        with self._lock:
            return dict(self._file().attrs)

    # -- the inside -----------------------------------------------------------------------------------------------

    def _file(self) -> h5py.File:
        with self._lock:
            if self._handle is None:
                self._handle = _open(self.path)
            return self._handle

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _dataset(self, name: str) -> h5py.Dataset:
        try:
            item = self._file()[name]
        except _READ_ERRORS as error:
            if name in str(error) or "doesn't exist" in str(error) or "not found" in str(error):
                raise self._error("no such dataset; a file in SHD's layout has one", name) from error
            raise self._error(f"cannot be read ({error}); the file is damaged", name) from error
        if not isinstance(item, h5py.Dataset):
            raise self._error("is a group, but SHD's layout has a dataset of this name", name)
        if item.ndim != 1:
            raise self._error(f"has shape {item.shape}, but one entry per sample is needed", name)
        return item

    def _read_whole(self, name: str) -> NDArray[Any]:
        with self._lock:
            dataset = self._dataset(name)
            try:
                return np.asarray(dataset[()])
            except _READ_ERRORS as error:
                raise self._error(f"cannot be read ({error}); the file is damaged or truncated", name) from error

    def _read_raw(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        found = []
        with self._lock:
            for name in ("spikes/times", "spikes/units"):
                dataset = self._dataset(name)
                try:
                    found.append(dataset[start:stop])
                except _READ_ERRORS as error:
                    sample = start if stop - start == 1 else None
                    where = "" if sample is not None else f" between samples {start} and {stop - 1}"
                    problem = f"cannot be read{where} ({error}); the file is damaged or truncated"
                    raise self._error(problem, name, sample) from error
        return found[0], found[1]

    def _error(self, problem: str, dataset: str | None = None, sample: int | None = None) -> SpikeFileError:
        return SpikeFileError(self.path, problem, dataset, sample)

    def _read_structure(self) -> None:
        """Read everything but the events, and check shapes, types and labels."""
        keys = self._read_whole("extra/keys")
        try:
            self.classes = tuple(k.decode("utf-8") if isinstance(k, bytes) else str(k) for k in keys.tolist())
        except UnicodeDecodeError as error:
            raise self._error(f"a class name is not UTF-8 ({error})", "extra/keys") from error
        self.labels = self._integers("labels")
        self.speakers = self._integers("extra/speaker")
        for name, kinds in (("spikes/times", "f"), ("spikes/units", "iu")):
            dataset = self._dataset(name)
            element = h5py.check_vlen_dtype(dataset.dtype)
            if element is None or np.dtype(element).kind not in kinds:
                wanted = "floating-point seconds" if kinds == "f" else "integer channels"
                raise self._error(f"holds {dataset.dtype}, but must hold variable-length {wanted}", name)
            if len(dataset) != len(self.labels):
                raise self._error(f"has {len(dataset)} samples, but there are {len(self.labels)} labels", name)
        if len(self.speakers) != len(self.labels):
            problem = f"has {len(self.speakers)} entries, but there are {len(self.labels)} labels"
            raise self._error(problem, "extra/speaker")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(wrong):
            sample = int(wrong[0])
            problem = f"label {self.labels[sample]} has no key: extra/keys names {len(self.classes)} classes"
            raise self._error(problem, "labels", sample)

    def _integers(self, name: str) -> NDArray[np.int64]:
        values = self._read_whole(name)
        if values.dtype.kind not in "iu":
            raise self._error(f"holds {values.dtype}, but must hold integers", name)
        return values.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handle", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handle, self._lock = None, threading.RLock()
        _open_files.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} samples, {len(self.classes)} classes)"


class Joined:
    """Several event sources one after the other, as one: ``Joined(train, test)`` for folds over all speakers.

    Raises:
        DataError: the sources name different classes or have different numbers of channels.
    """

    def __init__(self, *sources: EventSource) -> None:
        if not sources:
            raise ConfigError("Joined needs at least one source")
        first = sources[0]
        for other in sources[1:]:
            if other.classes != first.classes or other.channels != first.channels:
                raise DataError(f"cannot join {other!r} to {first!r}: they differ in class names or channels")
        self.sources = sources
        self.channels, self.classes = first.channels, first.classes
        self.labels = np.concatenate([s.labels for s in sources])
        self.speakers = np.concatenate([s.speakers for s in sources])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> list[list[Any]]:
        """The identities of all files, in order."""
        return [entry for source in self.sources for entry in source.identity]

    def chunks(self) -> Iterator[Spikes]:
        """All samples of all sources in order."""
        for source in self.sources:
            yield from source.chunks()


# -- files across processes ---------------------------------------------------------------------------------------

_open_files: weakref.WeakSet[SpikeFile] = weakref.WeakSet()


def _close_all() -> None:
    for file in list(_open_files):
        file.close()


def _renew_locks() -> None:
    for file in list(_open_files):
        file._handle, file._lock = None, threading.RLock()


# A forked process would share the file position with its parent, and two readers would then move it under each other;
# and a lock that another thread held at that moment would stay locked in it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all, after_in_child=_renew_locks)


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise SpikeFileError(path, "no such file")
    if path.is_dir():
        raise SpikeFileError(path, "is a folder, not an HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise SpikeFileError(path, f"the file is truncated ({error}); copy or download it again") from error
        try:
            readable = h5py.is_hdf5(path)
        except OSError:
            readable = False
        if not readable and os.access(path, os.R_OK):
            raise SpikeFileError(path, "is not an HDF5 file (or its first bytes are lost)") from error
        raise SpikeFileError(path, f"cannot be opened ({error})") from error


# -- the whole-file check -----------------------------------------------------------------------------------------

_checks: dict[str, Summary] = {}


def _checked(file: SpikeFile) -> Summary:
    key = hashlib.sha256(json.dumps([_CHECK_VERSION, file.identity]).encode()).hexdigest()[:32]
    if key not in _checks:
        record = cache_folder() / "checked" / f"{key}.json"
        try:
            found = json.loads(record.read_text("utf-8"))
            _checks[key] = Summary(int(found["events"]), int(found["empty"]), int(found["last_us"]))
        except (OSError, ValueError, KeyError, TypeError):
            _checks[key] = check(file)
            try:
                with atomic_path(record) as temporary:
                    temporary.write_text(json.dumps(_checks[key]._asdict() | {"path": str(file.path)}), "utf-8")
            except OSError:  # nowhere to remember it: the next process checks again
                pass
    return _checks[key]


def check(file: SpikeFile) -> Summary:
    """Check every sample of a file: as many times as units, finite times >= 0 in order, units in range.

    Raises:
        SpikeFileError: names the first sample that is wrong, and what is wrong with it.
    """
    if (place := blank_object(file.path)) is not None:
        problem = f"is damaged: zeros at byte {place}, where events must be; copy or download the file again"
        raise SpikeFileError(file.path, problem)
    events = empty = last_us = 0
    for start in range(0, len(file), _CHUNK):
        times, units = file._read_raw(start, min(start + _CHUNK, len(file)))
        for offset, (t, x) in enumerate(zip(times, units, strict=True)):
            if len(t) != len(x):
                problem = f"has {len(x)} units but {len(t)} times"
                raise SpikeFileError(file.path, problem, "spikes/units", start + offset)
        counts = np.array([len(one) for one in times], np.int64)
        t, x = _join(times, np.float64), _join(units, np.int64)
        fault = find_fault(t, x, counts, file.channels, ordered=not file.sort)
        if fault:
            raise SpikeFileError(file.path, fault.problem, fault.dataset, start + fault.sample)
        events += len(t)
        empty += int((counts == 0).sum())
        last_us = max(last_us, int(to_microseconds(t.max())) if len(t) else 0)
    return Summary(events, empty, last_us)


class Fault(NamedTuple):
    """The first event that breaks the layout: which sample, in which dataset, and how."""

    sample: int
    dataset: str
    problem: str


def find_fault(
    t: NDArray[np.float64], x: NDArray[np.int64], counts: NDArray[np.int64], channels: int, *, ordered: bool = True
) -> Fault | None:
    """The first fault in samples joined end to end, or None. ``t`` in seconds [events], ``counts`` [samples]."""
    first = np.cumsum(counts) - counts

    def at(wrong: NDArray[np.bool_]) -> tuple[int, int] | None:
        places = np.flatnonzero(wrong)
        if not len(places):
            return None
        sample = int(np.searchsorted(first, places[0], side="right")) - 1
        return sample, int(places[0] - first[sample])

    if place := at(~np.isfinite(t)):
        return Fault(place[0], "spikes/times", f"time {place[1]} is not a finite number ({_value(t, first, place)})")
    if place := at(t < 0):
        return Fault(place[0], "spikes/times", f"time {place[1]} is negative ({_value(t, first, place)} s)")
    if place := at(t >= LONGEST):
        problem = f"time {place[1]} is {_value(t, first, place):g} s; times are in seconds, below {LONGEST:g}"
        return Fault(place[0], "spikes/times", problem)
    if place := at((x < 0) | (x >= channels)):
        value = _value(x, first, place)
        return Fault(place[0], "spikes/units", f"unit {place[1]} is {value}, outside 0..{channels - 1}")
    if ordered and len(t):
        back = np.zeros(len(t), np.bool_)
        back[1:] = t[1:] < t[:-1]
        starts = first[(counts > 0)]
        back[starts] = False  # a new sample starts over
        if place := at(back):
            problem = f"time {place[1]} is before the one in front of it (sort=True sorts on reading)"
            return Fault(place[0], "spikes/times", problem)
    return None


def _value(values: NDArray[Any], first: NDArray[np.int64], place: tuple[int, int]) -> Any:
    return values[first[place[0]] + place[1]].item()


def _join(arrays: NDArray[Any] | Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    if not len(arrays):
        return np.zeros(0, dtype)
    return np.concatenate(list(arrays)).astype(dtype, copy=False)


# -- writing ------------------------------------------------------------------------------------------------------


def write_shd(
    path: str | os.PathLike[str],
    times: Sequence[ArrayLike],
    units: Sequence[ArrayLike],
    labels: ArrayLike,
    speakers: ArrayLike,
    keys: Sequence[str],
    meta: Mapping[str, Any] | None = None,
    *,
    channels: int = CHANNELS,
    time_dtype: Any = np.float16,
) -> Path:
    """Write samples in SHD's layout; the file appears whole or not at all, and the same input gives the same bytes.

    Args:
        path: the file to write or replace.
        times: per sample, seconds in ascending order. Stored as ``time_dtype``, float16 as published: that is 0.24 ms
            apart at 0.3 s and 0.98 ms above 1 s.
        units: per sample, channels 0..channels-1, as many as times.
        labels: [samples], indices into ``keys``.
        speakers: [samples], non-negative integers.
        keys: the class names.
        meta: what else to keep: text and numbers become attributes of the file, lists and arrays become datasets
            ``extra/NAME`` (NAME may hold ``/``).

    Returns:
        The path.

    Raises:
        SpikeFileError: a sample or label breaks the layout; nothing is written.
    """
    target = Path(path)
    t = [np.asarray(one, np.float64).reshape(-1) for one in times]
    x = [np.asarray(one).reshape(-1) for one in units]
    label, speaker = np.asarray(labels), np.asarray(speakers)
    for name, length in (("spikes/units", len(x)), ("labels", len(label)), ("extra/speaker", len(speaker))):
        if length != len(t):
            raise SpikeFileError(target, f"{length} entries given for {len(t)} samples", name)
    for sample, (one_t, one_x) in enumerate(zip(t, x, strict=True)):
        if len(one_t) != len(one_x):
            raise SpikeFileError(target, f"{len(one_x)} units for {len(one_t)} times", "spikes/units", sample)
        if len(one_x) and one_x.dtype.kind not in "iu":
            raise SpikeFileError(target, f"units are {one_x.dtype}, not integers", "spikes/units", sample)
    counts = np.array([len(one) for one in t], np.int64)
    stored = [one.astype(time_dtype) for one in t]
    joined_t, joined_x = _join(t, np.float64), _join(x, np.int64)
    fault = find_fault(joined_t, joined_x, counts, channels) or find_fault(
        _join(stored, np.float64), joined_x, counts, channels
    )  # the second finds times that the narrow type cannot hold
    if fault:
        raise SpikeFileError(target, fault.problem, fault.dataset, fault.sample)
    for name, values, limit in (("labels", label, len(keys)), ("extra/speaker", speaker, 2**16)):
        fits = (values >= 0) & (values < limit) if values.dtype.kind in "iu" else np.zeros(len(values), np.bool_)
        wrong = np.flatnonzero(~fits)
        if len(wrong):
            sample = int(wrong[0])
            raise SpikeFileError(target, f"{values[sample]!r} is not an integer in 0..{limit - 1}", name, sample)
    with atomic_path(target) as temporary, h5py.File(temporary, "w") as file:
        _write_ragged(file, "spikes/times", stored, np.dtype(time_dtype))
        _write_ragged(file, "spikes/units", x, np.dtype(np.uint16))
        file["labels"] = label.astype(np.uint16)
        file["extra/speaker"] = speaker.astype(np.uint16)
        file["extra/keys"] = _as_stored(list(keys))
        for name, value in (meta or {}).items():
            if isinstance(value, (str, int, float, bool)):
                file.attrs[name] = value
            else:
                file[f"extra/{name}"] = _as_stored(value)
    return target


def _write_ragged(file: h5py.File, name: str, arrays: list[NDArray[Any]], element: np.dtype[Any]) -> None:
    dataset = file.create_dataset(name, (len(arrays),), h5py.vlen_dtype(element))
    for index, array in enumerate(arrays):
        if len(array):
            dataset[index] = array.astype(element)


def _as_stored(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind in "UO":  # text as fixed-length UTF-8 bytes, as SHD's own keys
        return np.array([str(one).encode("utf-8") for one in array.tolist()], dtype="S")
    return array
