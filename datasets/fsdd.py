"""The Free Spoken Digit Dataset as spikes: 2,000 recordings of 4 people, converted once and kept.

The recordings (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0) come as one NumPy archive: ``x`` int16,
all samples joined, recording i is ``x[offsets[i]:offsets[i + 1]]``; ``digit``, ``speaker``, ``index`` [recordings];
``speaker_names`` and ``sample_rate``.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DataError
from .audio import Recording, convert, key_seed, write_trains
from .cochlea import MODEL_VERSION, SHD_RATE
from .digits import ENGLISH
from .known_files import digest

_ARRAYS = ("x", "offsets", "digit", "speaker", "index", "speaker_names", "sample_rate")


def read_fsdd(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The archive's arrays by name.

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not an archive of the recordings ({error}); it needs {', '.join(_ARRAYS)}") from error
    count = len(arrays["digit"])
    offsets = arrays["offsets"]
    if offsets.shape != (count + 1,) or np.any(np.diff(offsets) < 0) or offsets[-1] > len(arrays["x"]):
        raise DataError(f"{file}: offsets do not cut {len(arrays['x'])} samples into {count} recordings")
    for name in ("speaker", "index"):
        if len(arrays[name]) != count:
            raise DataError(f"{file}: {name} has {len(arrays[name])} entries for {count} recordings")
    return arrays


def convert_fsdd(
    npz: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    limit: int | None = None,
) -> Path:
    """Write all recordings as spikes in SHD's layout, in the archive's order; a file already made from them is kept.

    ``labels`` are the digits, ``extra/speaker`` the archive's speakers, ``extra/speaker_names`` their names and
    ``extra/index`` the take.

    Args:
        npz: the archive.
        out: the HDF5 file.
        seed: 0 to 2^64 - 1.
        workers: processes; by default one per CPU.
        progress: show a progress bar on stderr.
        limit: convert only the first so many recordings.

    Returns:
        ``out`` as a path.

    Raises:
        DataError: the archive is missing or damaged, or a recording cannot be used (named).
    """
    source, target = Path(npz), Path(out)
    arrays = read_fsdd(source)
    made_from = f"{digest(source, 'sha256')} seed {seed} limit {limit} model {MODEL_VERSION} rate {SHD_RATE}"
    if _made_from(target) == made_from:
        return target
    rate = int(arrays["sample_rate"])
    names = [str(name) for name in arrays["speaker_names"]]
    labels, speakers, takes = (arrays[name][:limit].astype(int).tolist() for name in ("digit", "speaker", "index"))
    jobs = []
    for i, (digit, speaker, take) in enumerate(zip(labels, speakers, takes, strict=True)):
        key = f"{digit}_{names[speaker]}_{take}"
        samples = arrays["x"][arrays["offsets"][i] : arrays["offsets"][i + 1]]
        jobs.append(Recording(samples, rate, key, key_seed(seed, key)))
    trains = convert(_same, jobs, workers=workers, progress=progress, title="spikes of FSDD")
    meta = {"speaker_names": names, "index": takes, "made_from": made_from, "licence": "CC-BY-SA-4.0"}
    return write_trains(target, trains, labels=labels, speakers=speakers, keys=ENGLISH, meta=meta).path


def _same(recording: Recording) -> Recording:
    return recording


def _made_from(path: Path) -> str | None:
    try:
        with h5py.File(path) as file:
            return str(file.attrs.get("made_from"))
    except OSError:
        return None
