"""Data sets by name: the Spiking Heidelberg Digits, the Spiking Speech Commands, and Ranvier Digits, which is packaged.

SHD and SSC are CC BY 4.0, from https://zenkelab.org/datasets/. They are downloaded through tonic on first use, checked
against their published md5, and unpacked so that an interruption leaves nothing half done.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import atomic_path
from .known_files import digest, download_known
from .shd import SpikeFile
from .shd_layout import SpikeFileError

BASE_URL = "https://zenkelab.org/datasets/"


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        file: its name, unpacked. md5: of ``file + ".zip"``. samples: how many it holds.
    """

    file: str
    md5: str
    samples: int

    @property
    def url(self) -> str:
        """Where the archive is."""
        return f"{BASE_URL}{self.file}.zip"


SHD_FILES = {
    "train": Published("shd_train.h5", "f3252aeb598ac776c1b526422d90eecb", 8156),
    "test": Published("shd_test.h5", "1503a5064faa34311c398fb0a1ed0a6f", 2264),
}
SSC_FILES = {
    "train": Published("ssc_train.h5", "d102be95e7144fcc0553d1f45ba94170", 75_466),
    "valid": Published("ssc_valid.h5", "b4eee3516a4a90dd0c71a6ac23a8ae43", 9_981),
    "test": Published("ssc_test.h5", "a35ff1e9cffdd02a20eb850c17c37748", 20_382),
}


class _Published(SpikeFile):
    files: dict[str, Published]

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        download: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        sort: bool = False,
    ) -> None:
        published = _choose(type(self).__name__, self.files, split)
        path = fetch(published, root, download=download)
        super().__init__(path, transform=transform, target_transform=target_transform, sort=sort)
        self.split = split
        if len(self) != published.samples:
            problem = f"has {len(self)} samples, but the published file has {published.samples}; is it an old release?"
            raise SpikeFileError(self.path, problem, "labels")


class SHD(_Published):
    """The Spiking Heidelberg Digits: 20 classes, 12 speakers; ``train`` 8,156 and ``test`` 2,264 samples.

    There is no validation split, and four of five test samples are of speakers that are not in ``train``: choose by
    held-out training speakers (``ranvier.datasets.hold_out``), never by the test. [Cramer et al. 2020]

    Args:
        root: a folder that holds the file (or its .zip), or where to download it to; tonic's sub-folder ``SHD`` too.
        split: ``train`` or ``test``.
        download: whether to fetch a file that is not there.
        transform, target_transform, sort: as for ``SpikeFile``.

    Raises:
        ConfigError: no such split.
        DataError: the file is not there and cannot be downloaded, or its md5 is wrong.
        SpikeFileError: the file is damaged or not the published one.
    """

    files = SHD_FILES


class SSC(_Published):
    """The Spiking Speech Commands: 35 classes; ``train`` 75,466, ``valid`` 9,981 and ``test`` 20,382 samples.

    Arguments and errors as for ``SHD``. [Cramer et al. 2020]
    """

    files = SSC_FILES


class RanvierDigits(SpikeFile):
    """Ranvier Digits, packaged: spoken digits in English and German (20 classes as in SHD) by synthetic voices.

    ``test`` has other voices than ``train``. The files are checked against their packaged SHA-256.

    Args:
        split: ``train`` or ``test``.
        transform, target_transform: as for ``SpikeFile``.

    Raises:
        ConfigError: no such split.
        DataError: the packaged file is missing or damaged; install Ranvier again.
    """

    folder = Path(__file__).parent / "data"

    def __init__(
        self,
        split: str = "train",
        *,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        names = {name: f"ranvier_digits_{name}.h5" for name in ("train", "test")}
        path = self.folder / _choose("RanvierDigits", names, split)
        try:
            self.about: dict[str, Any] = json.loads((self.folder / "ranvier_digits.json").read_text("utf-8"))
            expected = self.about["files"][path.name]["sha256"]
            found = digest(path, "sha256")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: the packaged data is incomplete ({error}); install Ranvier again") from error
        if found != expected:
            raise DataError(f"{path}: SHA-256 is {found}, not {expected}; the file was changed, install Ranvier again")
        self.split = split
        super().__init__(path, transform=transform, target_transform=target_transform)


def fetch(published: Published, root: str | os.PathLike[str], *, download: bool = True) -> Path:
    """The unpacked file, found in ``root`` or tonic's sub-folder, unpacked from an archive there, or downloaded.

    Raises:
        DataError: it is not there and may not or cannot be downloaded, or an archive has the wrong md5.
    """
    folder = Path(root).expanduser()
    homes = [folder, folder / published.file[:3].upper()]
    for home in homes:
        if (home / published.file).is_file():
            return home / published.file
    for home in homes:
        archive = home / f"{published.file}.zip"
        if archive.is_file() and digest(archive, "md5") == published.md5:
            return _unpack(archive, home / published.file)
    if not download:
        raise DataError(f"{folder}: no {published.file}; allow the download or put {published.url} there")
    return _unpack(_download(published, folder), folder / published.file)


def fetch_all(files: Iterable[Published], root: str | os.PathLike[str], *, download: bool = True) -> list[Path]:
    """Several files by :func:`fetch`, so that what is missing is known before the work begins.

    Raises:
        DataError: names every file that is not there, where it comes from and why it could not be fetched.
    """
    found, missing = list[Path](), list[Published]()
    why = ""
    for one in files:
        try:
            found.append(fetch(one, root, download=download and not missing))
        except DataError as error:
            missing.append(one)
            why = why or str(error)
    if missing:
        names = ", ".join(one.file for one in missing)
        raise DataError(
            f"{Path(root).expanduser()}: {names} not found; put them or their .zip there, from "
            f"{' and '.join(one.url for one in missing)} ({why})"
        )
    return found


def _download(published: Published, folder: Path) -> Path:
    try:
        download_known(published.url, folder, published.md5)
    except RuntimeError as error:  # how tonic says that the md5 is wrong
        archive = folder / f"{published.file}.zip"
        found = digest(archive, "md5") if archive.is_file() else "missing"
        raise DataError(f"{archive}: md5 is {found}, not {published.md5}; download it again") from error
    except OSError as error:
        raise DataError(
            f"cannot download {published.url} ({error}); with a network, fetch it yourself and put the .zip or "
            f"{published.file} into {folder}"
        ) from error
    return folder / f"{published.file}.zip"


def _unpack(archive: Path, target: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as packed:
            member = next(name for name in packed.namelist() if Path(name).name == target.name)
            with atomic_path(target) as temporary, packed.open(member) as source, temporary.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, StopIteration, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked to {target} ({error or 'no such file in it'})") from error
    return target


def _choose(name: str, table: dict[str, Any], split: str) -> Any:
    if split not in table:
        raise ConfigError(f"{name} has no split {split!r}; it has {', '.join(table)}")
    return table[split]
