"""Writing event files in SHD's layout: what the reader would refuse is refused, and a file appears whole or not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import atomic_path
from .shd_layout import CHANNELS, SpikeFileError, end_to_end, find_fault


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
    stored = [one.astype(time_dtype) for one in t]
    for kept in (t, stored):  # the second finds times that the narrow type cannot hold
        if fault := find_fault(*end_to_end(kept, x), channels):
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
