"""Google Speech Commands v0.02: 105,829 recordings of 35 words, one second each, at 16 kHz.

CC BY 4.0. The published lists say which recordings validate and test; a speaker's recordings all fall into one split.
[Warden 2018, arXiv 1804.03209]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ..errors import DataError
from ..files import atomic_path, cache_folder
from .audio import read_audio
from .binned import BinnedDataset
from .binning import Binning
from .cache_keys import cache_key, file_state
from .known_files import digest, download_known
from .mel import log_mel
from .splits import refuse_overlap

URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
MD5 = "6b74f3901214cb2c2934e98196829835"
RATE = 16_000
RECORDINGS = 105_829
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
SPLITS = ("train", *LISTS)
_FOLDERS = ("", "speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02")
_FORMAT = 1  # of the kept levels


@dataclass(frozen=True)
class SpeechCommands:
    """One split: what is recorded, by whom, and where it lies.

    Attributes:
        files: the recordings. labels, speakers: int64 [N]. classes: the words, in alphabetical order.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @classmethod
    def read(cls, root: str | os.PathLike[str], *, download: bool = True) -> dict[str, SpeechCommands]:
        """The three splits ``train``, ``valid`` and ``test`` as published; speakers are numbered over all of them.

        Args:
            root: the unpacked archive (one folder a word, and two lists), the folder it lies in (also as torchaudio
                puts it there), or where to download it to.
            download: whether to fetch the archive (2.4 GB) where it is not there.

        Raises:
            DataError: files are missing and cannot be fetched (named, with where they come from), not all recordings
                are there, a name without a speaker, or a speaker in two splits.
        """
        folder = _find(Path(root).expanduser(), download)
        words = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "_.")
        of: dict[str, str] = {f"{w}/{p.name}": "train" for w in words for p in sorted((folder / w).glob("*.wav"))}
        for split, name in LISTS.items():
            for line in (folder / name).read_text("utf-8").split():
                if line not in of:
                    raise DataError(f"{folder / line}: {name} lists it, but it is not there; unpack {URL} again")
                of[line] = split
        if len(of) != RECORDINGS:
            raise DataError(f"{folder}: {len(of)} recordings, but v0.02 has {RECORDINGS:,}; unpack {URL} again")
        people = {name: _speaker(folder / name) for name in of}
        numbers = {speaker: i for i, speaker in enumerate(sorted(set(people.values())))}
        found: dict[str, SpeechCommands] = {}
        for split in SPLITS:
            names = [name for name, own in of.items() if own == split]
            if not names:
                raise DataError(f"{folder}: no recording to {'train on' if split == 'train' else split}")
            labels = np.array([words.index(name.partition("/")[0]) for name in names], np.int64)
            speakers = np.array([numbers[people[name]] for name in names], np.int64)
            found[split] = cls(tuple(folder / name for name in names), labels, speakers, tuple(words))
        refuse_overlap(**{split: one.speakers for split, one in found.items()})
        return found

    def levels(self, bands: int = 40, dt: float = 10.0, window: float = 1000.0, progress: bool = True) -> BinnedDataset:
        """The recordings as log-mel levels (see :func:`ranvier.datasets.mel.log_mel`), [T, ``bands``] each; made once,
        then kept in ``mel`` in the cache folder.

        Args:
            dt: step in ms. window: ms that are kept of each recording. progress: show a progress bar on stderr.

        Raises:
            DataError: a recording is damaged or not at 16 kHz. ConfigError: as for ``log_mel``.
        """
        binning = Binning(dt, window, 1)
        steps = binning.steps or 1
        key = cache_key([_FORMAT, bands, dt, window, [file_state(file) for file in self.files]])
        rows_at, lengths_at = (cache_folder() / "mel" / f"{key}-{name}.npy" for name in ("rows", "lengths"))
        kept = _kept(rows_at, lengths_at, len(self), bands)
        if kept is None:
            made = _levels(self.files, bands, dt, steps, progress)
            rows = np.concatenate([np.zeros((1, bands), np.uint8), *made])
            kept = rows, np.array([len(one) for one in made], np.int64)
            with contextlib.suppress(OSError):  # a cache that cannot be written costs the making, nothing else
                for path, values in zip((rows_at, lengths_at), kept, strict=True):
                    with atomic_path(path) as temporary:
                        np.save(temporary, values)
        return BinnedDataset(*kept, self.labels, self.speakers, self.classes, binning)


def _levels(files: Sequence[Path], bands: int, dt: float, steps: int, progress: bool) -> list[NDArray[np.uint8]]:
    console = Console(stderr=True, quiet=not progress)
    found = []
    for file in track(files, "log-mel levels", console=console, transient=True):
        found.append(log_mel(read_audio(file, RATE)[0], RATE, bands, dt)[:steps])
    return found


def _kept(rows: Path, lengths: Path, samples: int, bands: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """What the cache has, or None where it is missing or damaged. The lengths are written last."""
    try:
        levels, ends = np.load(rows, mmap_mode="r"), np.load(lengths)
    except (OSError, ValueError, EOFError):
        return None
    whole = levels.dtype == np.uint8 and len(ends) == samples and levels.shape == (1 + int(ends.sum()), bands)
    return (levels, ends) if whole else None


def _find(root: Path, download: bool) -> Path:
    for name in _FOLDERS:
        if all((root / name / one).is_file() for one in LISTS.values()):
            return root / name
    target = root / _FOLDERS[1]
    archive = root / Path(URL).name
    if not archive.is_file():
        _download(root, archive, download)
    if (found := digest(archive, "md5")) != MD5:
        raise DataError(f"{archive}: md5 is {found}, not {MD5}; download it again")
    beside = root / f".{target.name}.unpacking"  # what was half unpacked must not look whole
    try:
        shutil.rmtree(beside, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(beside, filter="data")
        beside.rename(target)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{archive}: cannot be unpacked to {target} ({error})") from error
    return target


def _download(root: Path, archive: Path, download: bool) -> None:
    problem = "data.download=true fetches it"
    if download:
        try:
            download_known(URL, root, MD5)
            return
        except (OSError, RuntimeError) as error:
            problem = f"it cannot be downloaded: {error}"
    raise DataError(
        f"{root}: neither Speech Commands ({', '.join(LISTS.values())} and a folder for each word) nor {archive.name}; "
        f"put that archive there, from {URL} ({problem})"
    )


def _speaker(file: Path) -> str:
    speaker, middle, _ = file.name.partition("_nohash_")
    if not (speaker and middle):
        raise DataError(f"{file}: its name says no speaker; Speech Commands are named SPEAKER_nohash_TAKE.wav")
    return speaker
