"""Recordings to spikes: reading WAV and FLAC, and turning a folder of classes into one file in SHD's layout."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import soundfile
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import ConfigError, DataError
from .cochlea import SHD_CHANNELS, SHD_RATE, Cochlea, SpikeTrain
from .shd_write import write_shd

SUFFIXES = (".wav", ".flac")
# A WAV header that was written to a pipe cannot know the length; writers put a number near 2^31 or 2^32 there.
_UNKNOWN_LENGTH = 0x7FFFF000

Job = TypeVar("Job")


class Recording(NamedTuple):
    """One channel of sound: ``samples`` [samples], ``rate`` in Hz, ``name`` for messages, ``seed`` of its spikes."""

    samples: npt.NDArray[np.floating]
    rate: int
    name: str
    seed: int


class Written(NamedTuple):
    """What a conversion wrote: the file, and how many samples, classes, speakers and spikes it holds."""

    path: Path
    samples: int
    classes: int
    speakers: int
    spikes: int


def key_seed(seed: int, key: str) -> int:
    """A 64-bit seed from the run's seed and a sample's key, so that order and number of samples do not matter."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "little")


def read_audio(path: str | os.PathLike[str], rate: int | None = None) -> tuple[npt.NDArray[np.float32], int]:
    """Read one WAV or FLAC file and average its channels.

    Args:
        path: the file.
        rate: if given, the rate in Hz that the file must have.

    Returns:
        (samples float32 [samples], rate in Hz).

    Raises:
        DataError: the file is missing, not audio, damaged, shorter than its header says, empty, or at another rate.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        with soundfile.SoundFile(file) as sound:
            promised, actual_rate, found = sound.frames, sound.samplerate, sound.format
            samples = sound.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise DataError(f"{file}: cannot be read as audio ({error}); it is damaged or not WAV or FLAC") from error
    missing = _missing_bytes(file) if found.startswith("WAV") else promised - len(samples)
    if missing > 0:
        unit = "bytes" if found.startswith("WAV") else "samples"
        raise DataError(f"{file}: truncated: the last {missing} {unit} that its header promises are not there")
    if rate is not None and actual_rate != rate:
        raise DataError(
            f"{file}: sampled at {actual_rate} Hz where {rate} Hz is asked for; resample it, or ask for no rate"
        )
    if not len(samples):
        raise DataError(f"{file}: holds no samples")
    return samples.mean(axis=1), int(actual_rate)


def _missing_bytes(file: Path) -> int:
    """How many bytes of a WAV file's data chunk are not there; libsndfile reads on without a word."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(4) != b"RIFF":
            return 0
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            name, length = struct.unpack("<4sI", stream.read(8))
            if name == b"data":
                return 0 if length >= _UNKNOWN_LENGTH else max(position + 8 + length - size, 0)
            position += 8 + length + length % 2
    return 0


def from_audio(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    speaker_pattern: str | None = None,
    rate: int | None = None,
    channels: int = SHD_CHANNELS,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Written:
    """Turn your own recordings into spikes: one folder a class, WAV and FLAC of any rate, written in SHD's layout.

    A recording's spikes depend on its path below ``folder`` and on ``seed``, not on what else is there.

    Args:
        folder: holds one folder a class; classes are numbered in the order of their names. Other files are passed over,
            and so is whatever begins with a dot.
        out: the HDF5 file to write; it appears whole or not at all.
        speaker_pattern: a regular expression searched in each file's path below ``folder``; its group ``speaker``
            (or its first group) names the speaker. ``r"_(?P<speaker>[a-z]+)_"`` finds jackson in ``3/3_jackson_0.wav``.
            Without it every sample has speaker 0. Names are kept in ``extra/speaker_names``.
        rate: if given, the rate every file must have (for collections in which another rate means a mistake).
        channels: places of the inner-ear model.
        seed: 0 to 2^64 - 1.
        workers: processes; by default one per CPU.
        progress: show a progress bar on stderr.

    Raises:
        DataError: no folder, no classes, a class without recordings, or a recording that cannot be used (named).
        ConfigError: ``speaker_pattern`` is not a regular expression with a group.
    """
    root = Path(folder)
    classes, files = _find(root)
    keys = [file.relative_to(root).as_posix() for _, file in files]
    names = _speakers(keys, speaker_pattern)
    speaker_names = sorted(set(names))
    jobs = [(str(file), key_seed(seed, key), rate) for (_, file), key in zip(files, keys, strict=True)]
    trains = convert(
        _load_file, jobs, channels=channels, workers=workers, progress=progress, title=f"spikes of {root.name}"
    )
    return write_trains(
        out,
        trains,
        labels=[label for label, _ in files],
        speakers=[speaker_names.index(name) for name in names],
        keys=classes,
        meta={"speaker_names": speaker_names, "source": keys, "seed": seed, "sample_rate": SHD_RATE},
        channels=channels,
    )


def _find(root: Path) -> tuple[list[str], list[tuple[int, Path]]]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: holds no folders; put the recordings of each class into a folder of its own")
    files: list[tuple[int, Path]] = []
    for label, entry in enumerate(folders):
        found = sorted(
            file
            for file in entry.rglob("*")
            if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not found:
            raise DataError(f"{entry}: holds no {' or '.join(SUFFIXES)} file; add recordings or remove the folder")
        files.extend((label, file) for file in found)
    return [entry.name for entry in folders], files


def _speakers(keys: Sequence[str], pattern: str | None) -> list[str]:
    if pattern is None:
        return [""] * len(keys)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"speaker_pattern {pattern!r} is not a regular expression: {error}") from error
    if not expression.groups:
        raise ConfigError(
            f"speaker_pattern {pattern!r} has no group; put the part that names the speaker in parentheses"
        )
    group = "speaker" if "speaker" in expression.groupindex else 1
    names = []
    for key in keys:
        match = expression.search(key)
        if match is None or match[group] is None:
            raise DataError(
                f"{key}: speaker_pattern {pattern!r} does not match; correct the pattern or rename the file"
            )
        names.append(match[group])
    return names


def _load_file(job: tuple[str, int, int | None]) -> Recording:
    path, seed, rate = job
    samples, actual = read_audio(path, rate)
    return Recording(samples, actual, path, seed)


def write_trains(
    out: str | os.PathLike[str],
    trains: Sequence[SpikeTrain],
    *,
    labels: Sequence[int],
    speakers: Sequence[int],
    keys: Sequence[str],
    meta: dict[str, Any],
    channels: int = SHD_CHANNELS,
) -> Written:
    """Write spike trains in SHD's layout and say what was written; see :func:`ranvier.datasets.write_shd`."""
    times, units = [train.times for train in trains], [train.units for train in trains]
    path = write_shd(out, times, units, np.asarray(labels), np.asarray(speakers), keys, meta, channels=channels)
    spikes = sum(len(one) for one in times)
    return Written(path, len(trains), len(keys), len(set(speakers)), spikes)


_cochlea: Cochlea | None = None


def _start_worker(channels: int) -> None:
    global _cochlea
    _cochlea = Cochlea(channels)
    if parent := parent_process():
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """A worker does not notice that its parent was killed, and would wait for work for ever."""
    parent.join()
    os._exit(1)


def _convert_one(load: Callable[[Job], Recording], job: Job) -> SpikeTrain:
    assert _cochlea is not None
    recording = load(job)
    return _cochlea(recording.samples, recording.rate, recording.seed, recording.name)


def convert(
    load: Callable[[Job], Recording],
    jobs: Sequence[Job],
    *,
    channels: int = SHD_CHANNELS,
    workers: int | None = None,
    progress: bool = True,
    title: str = "spikes",
) -> list[SpikeTrain]:
    """Load and convert recordings in several processes; the result is in the order of ``jobs`` whatever their number.

    Args:
        load: a function of a module, called in a worker with one job.
        jobs: what to load.
        channels: places of the inner-ear model.
        workers: processes; 1 works in this process; by default one per CPU.
        progress: show a progress bar on stderr.
        title: the bar's title.

    Raises:
        RanvierError: whatever ``load`` or the model raises; the other jobs are given up.
    """
    count = min(workers if workers is not None else os.cpu_count() or 1, len(jobs))
    if count < 1 and jobs:
        raise ConfigError(f"workers is {workers}; give at least 1")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    trains: list[SpikeTrain] = []
    # spawn: a forked child of a process that runs threads (torch, numba) may hang
    pool = ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (channels,)) if count > 1 else None
    with bar, pool or nullcontext():
        task = bar.add_task(title, total=len(jobs))
        if pool is None:
            _start_worker(channels)
            for job in jobs:
                trains.append(_convert_one(load, job))
                bar.advance(task)
        else:
            futures = [pool.submit(_convert_one, load, job) for job in jobs]
            try:
                for future in futures:
                    trains.append(future.result())
                    bar.advance(task)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return trains
