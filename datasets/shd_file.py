"""An event file as it lies on the disk: opened once per process, its structure checked, its samples as they are stored.

What h5py raises on a damaged file becomes an error that names file, dataset and sample. Whether the samples themselves
keep to the layout is ``shd_check.py``'s question; ``shd.py`` makes events of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .cache_keys import file_state
from .shd_layout import SpikeFileError

_CHUNK = 512  # samples read at once: a few ten megabytes of events
_READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError)  # all that h5py raises on a damaged file


class LayoutFile:
    """A file in SHD's layout, without transforms and with its samples unchecked; ``SpikeFile`` is the data set.

    Args:
        path: the HDF5 file.
        channels: units must be below this number.
        sort: whether unsorted samples are to be sorted instead of refused.

    Raises:
        SpikeFileError: the file is missing, not HDF5, truncated, lacks a dataset, or has one of a wrong type or length.

    Attributes:
        labels, speakers: int64 [samples]. classes: the names that labels index.
    """

    def __init__(self, path: str | os.PathLike[str], *, channels: int, sort: bool) -> None:
        self.path = Path(path).expanduser().absolute()
        self.channels = channels
        self.sort = sort
        self._handle: h5py.File | None = None
        self._lock = threading.RLock()
        _open_files.add(self)
        self._read_structure()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> list[list[Any]]:
        """Absolute path, size and time of last change of the file, and whether events are sorted on reading."""
        return [[*file_state(self.path), self.channels, self.sort]]

    def extra(self, name: str) -> NDArray[Any]:
        """A whole dataset of the ``extra`` group, for example ``extra("meta_info/gender")``."""
        return self._read_whole(f"extra/{name}")

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the file's root."""
        with self._lock:
            return dict(self._file().attrs)

    # -- the handle -----------------------------------------------------------------------------------------------

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

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handle", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handle, self._lock = None, threading.RLock()
        _open_files.add(self)

    # -- the datasets ---------------------------------------------------------------------------------------------

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

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """All samples in order, as (start, stop) of what to read at once."""
        for start in range(0, len(self), _CHUNK):
            yield start, min(start + _CHUNK, len(self))

    def _read_raw(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Times and units of samples start..stop-1, an array for each sample, as they are stored."""
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


# -- files across processes ---------------------------------------------------------------------------------------

_open_files: weakref.WeakSet[LayoutFile] = weakref.WeakSet()


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
