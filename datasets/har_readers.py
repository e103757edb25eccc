"""Human activity recognition: readers of data sets as they are published. Each gives a ``SensorData``.

sp-sw-har: smartwatch, 18 people, 5 activities (Matey-Sanz, Casteleyn, Granell, Data in Brief 2023, 109809; CC BY 4.0).
seglearn's watch data: shoulder exercises, 10 people, 7 exercises (Burns et al. 2018, arXiv 1802.01489; BSD).
WISDM: smartwatch, 51 people, 18 activities (Weiss, Yoneda, Hayajneh, IEEE Access 2019; UCI 507).
UCI-HAR: smartphone at the waist, 30 people, 6 activities (Anguita et al., ESANN 2013; UCI 240).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .known_files import known_bytes, packaged_file, shared_file
from .sensors import ARMS, SensorData, SensorError, SensorRecording

AXES = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")

SPSW_SHA256 = "43eeeedf55dc3d5ef34e82c6112fdf4af98793183f8e5c96745985db07a6cbc2"
SPSW_RATE = 104.0
SEGLEARN_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
SEGLEARN_RATE = 50.0
WISDM_RATE = 20.0
UCI_RATE = 50.0

#: WISDM's letters and activities, as in its activity_key.txt.
WISDM_ACTIVITIES = {
    "A": "walking",
    "B": "jogging",
    "C": "stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "teeth",
    "H": "soup",
    "I": "chips",
    "J": "pasta",
    "K": "drinking",
    "L": "sandwich",
    "M": "kicking",
    "O": "catch",
    "P": "dribbling",
    "Q": "writing",
    "R": "clapping",
    "S": "folding",
}
#: The general hand-oriented activities, a common subset for watches.
WISDM_HANDS = ("P", "O", "F", "Q", "R", "G", "S")
_WISDM_GAP_S = 1.0
UCI_ACTIVITIES = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")


def read_spsw(path: str | os.PathLike[str] | None = None) -> SensorData:
    """sp-sw-har's smartwatch as one archive ``watch_int16.npz``, accelerometer (m/s²) and gyroscope (rad/s), 104 Hz.

    Each of its executions (sit, stand up, walk, turn, walk, turn, sit down) is a recording; every sample has a label.

    Args:
        path: the archive, by default ``har_spsw/watch_int16.npz`` of the shared data.

    Raises:
        DataError: the file is missing or has another SHA-256.
    """
    content = known_bytes(shared_file("har_spsw/watch_int16.npz") if path is None else path, SPSW_SHA256)
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        values = archive["x"].astype(np.float32) * archive["scale"]
        labels, who = archive["label"].astype(np.int64), archive["subject"].astype(np.int64)
        executions, classes = archive["execution"].astype(np.int64), [str(n) for n in archive["label_names"]]
    cuts = np.flatnonzero((np.diff(who) != 0) | (np.diff(executions) != 0)) + 1
    recordings = [
        SensorRecording(values[a:b], labels[a:b], int(who[a]), SPSW_RATE, f"s{who[a]:02d}_{executions[a]:02d}")
        for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)
    ]
    return SensorData(tuple(recordings), AXES, tuple(classes))


def read_seglearn(path: str | os.PathLike[str] | None = None) -> SensorData:
    """seglearn's watch data: 140 recordings of 7 shoulder exercises at 50 Hz.

    The file is a pickle, which may run any code when it is opened; so it is opened only if it is the known one.

    Args:
        path: ``watch_dataset.npy``, by default that of the installed package, which is not imported.

    Raises:
        DataError: the package is not installed, the file is missing or has another SHA-256.
    """
    file = packaged_file("seglearn", "data/watch_dataset.npy", "har") if path is None else Path(path)
    content = known_bytes(file, SEGLEARN_SHA256)
    # numpy.load unpickles; these very bytes were just checked
    data: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    recordings = [
        SensorRecording(
            np.asarray(values, np.float32),
            np.full(len(values), int(label), np.int64),
            int(subject),
            SEGLEARN_RATE,
            f"{i}_{data['y_labels'][int(label)]}",
            ARMS[int(side)],
        )
        for i, (values, label, subject, side) in enumerate(
            zip(data["X"], data["y"], data["subject"], data["side"], strict=True)
        )
    ]
    return SensorData(tuple(recordings), AXES, tuple(str(n) for n in data["y_labels"]))


def read_wisdm(
    root: str | os.PathLike[str], activities: Sequence[str] = WISDM_HANDS, device: str = "watch"
) -> SensorData:
    """WISDM as published: ``raw/DEVICE/accel/data_ID_accel_DEVICE.txt`` and the gyroscope's, lines
    ``subject,letter,nanoseconds,x,y,z;``.

    The two sensors tick apart. For each person and activity both are brought onto one grid of 20 samples a second by
    linear interpolation over the time they share; a pause of more than a second, or a clock that goes back, starts a
    new recording.

    Args:
        root: the unpacked folder ``wisdm-dataset``, or the one that holds it.
        activities: letters; by default the hand-oriented ones.
        device: ``watch`` or ``phone``.

    Raises:
        ConfigError: an unknown letter or device.
        DataError: the folder or a person's gyroscope is missing, or a line that is not as published (named).
    """
    if device not in ("watch", "phone"):
        raise ConfigError(f"device must be watch or phone, got {device!r}")
    if unknown := [a for a in activities if a not in WISDM_ACTIVITIES]:
        raise ConfigError(f"WISDM has no activity {unknown[0]!r}; it has {', '.join(WISDM_ACTIVITIES)}")
    folder = _find(root, Path("raw") / device, "wisdm-dataset")
    files = sorted((folder / "accel").glob(f"data_*_accel_{device}.txt"))
    if not files:
        raise DataError(f"{folder}: no accel/data_*_accel_{device}.txt; unpack wisdm-dataset.zip there")
    recordings: list[SensorRecording] = []
    for file in files:
        number = file.name.split("_")[1]
        both = [_wisdm_lines(file), _wisdm_lines(folder / "gyro" / f"data_{number}_gyro_{device}.txt")]
        for label, letter in enumerate(activities):
            streams = [rows.get(letter) for rows in both]
            if streams[0] is None or streams[1] is None:
                continue  # not every person did everything
            for part, values in enumerate(_aligned(streams[0], streams[1])):
                labels = np.full(len(values), label, np.int64)
                recordings.append(SensorRecording(values, labels, int(number), WISDM_RATE, f"{number}_{letter}_{part}"))
    if not recordings:
        raise DataError(f"{folder}: nobody has both sensors for activities {', '.join(activities)}")
    return SensorData(tuple(recordings), AXES, tuple(WISDM_ACTIVITIES[a] for a in activities))


def _wisdm_lines(path: Path) -> dict[str, NDArray[np.float64]]:
    """The rows (seconds, x, y, z) of a file by activity, in the file's order."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    try:
        with path.open(encoding="ascii") as file:
            for number, line in enumerate(file, 1):
                text = line.strip().rstrip(";")
                if not text:
                    continue
                fields = text.split(",")
                try:
                    _, letter, time, x, y, z = fields
                    rows.setdefault(letter.strip(), []).append((int(time) * 1e-9, float(x), float(y), float(z)))
                except ValueError as error:
                    raise DataError(
                        f"{path}: line {number} is {text[:60]!r}; subject,letter,nanoseconds,x,y,z; is expected"
                    ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; accelerometer and gyroscope are both needed") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    made = {letter: np.array(values, np.float64) for letter, values in rows.items()}
    for letter, values in made.items():
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad):
            raise SensorError(
                "is not a number", f"{path.name}, activity {letter}", int(path.name.split("_")[1]), bad[0]
            )
    return made


def _aligned(accel: NDArray[np.float64], gyro: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """Stretches [T, 6] at 20 Hz in which both sensors have samples without a pause."""
    made: list[NDArray[np.float32]] = []
    for a in _stretches(accel):
        for g in _stretches(gyro):
            start, end = max(a[0, 0], g[0, 0]), min(a[-1, 0], g[-1, 0])
            count = int(np.floor((end - start) * WISDM_RATE)) + 1
            if end <= start or count < 2:
                continue
            at = start + np.arange(count) / WISDM_RATE
            columns = [np.interp(at, s[:, 0], s[:, axis]) for s in (a, g) for axis in (1, 2, 3)]
            made.append(np.stack(columns, 1).astype(np.float32))
    return made


def _stretches(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    step = np.diff(rows[:, 0])
    rows = rows[np.concatenate([[True], step != 0])]  # a repeated time stamp says nothing new
    step = np.diff(rows[:, 0])
    return np.split(rows, np.flatnonzero((step < 0) | (step > _WISDM_GAP_S)) + 1)


def read_uci_har(root: str | os.PathLike[str], split: str = "all") -> SensorData:
    """UCI-HAR as published: ``SPLIT/Inertial Signals/SIGNAL_SPLIT.txt`` (128 samples at 50 Hz a line),
    ``SPLIT/y_SPLIT.txt``, ``SPLIT/subject_SPLIT.txt``.

    The published windows overlap by half; each is a recording here, of total acceleration (g) and gyroscope (rad/s).

    Args:
        root: the unpacked folder ``UCI HAR Dataset``, or the one that holds it.
        split: ``train`` (21 people), ``test`` (9 others) or ``all``.

    Raises:
        ConfigError: no such split.
        DataError: a file is missing, is not a table of numbers, or the files do not fit together.
    """
    if split not in ("train", "test", "all"):
        raise ConfigError(f"UCI-HAR has no split {split!r}; it has train, test and all")
    recordings: list[SensorRecording] = []
    for part in ("train", "test") if split == "all" else (split,):
        folder = _find(root, Path(part), "UCI HAR Dataset")
        labels = _table(folder / f"y_{part}.txt").astype(np.int64)[:, 0]
        subjects = _table(folder / f"subject_{part}.txt").astype(np.int64)[:, 0]
        names = [f"{kind}_{axis}_{part}.txt" for kind in ("total_acc", "body_gyro") for axis in "xyz"]
        signals = [_table(folder / "Inertial Signals" / name) for name in names]
        sizes = {"y": labels.shape, "subject": subjects.shape} | {
            n: s.shape for n, s in zip(names, signals, strict=True)
        }
        if len({s[0] for s in sizes.values()}) != 1 or len({s.shape for s in signals}) != 1:
            raise DataError(f"{folder}: the files do not fit together: {sizes}")
        if labels.min() < 1 or labels.max() > len(UCI_ACTIVITIES):
            raise DataError(f"{folder}: labels from {labels.min()} to {labels.max()}; 1 to {len(UCI_ACTIVITIES)} exist")
        values = np.stack(signals, 2).astype(np.float32)
        for i, (rows, label, subject) in enumerate(zip(values, labels, subjects, strict=True)):
            filled = np.full(len(rows), label - 1, np.int64)
            recordings.append(SensorRecording(rows, filled, int(subject), UCI_RATE, f"{part}_{i}"))
    return SensorData(tuple(recordings), AXES, UCI_ACTIVITIES)


def _table(path: Path) -> NDArray[np.float64]:
    try:
        found = np.loadtxt(path, ndmin=2)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; unpack UCI HAR Dataset.zip") from error
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers ({error})") from error
    if not found.size:
        raise DataError(f"{path}: empty")
    return found


def _find(root: str | os.PathLike[str], inner: Path, name: str) -> Path:
    folder = Path(root).expanduser()
    for home in (folder, folder / name, folder / name / name):
        if (home / inner).is_dir():
            return home / inner
    raise DataError(f"{folder}: neither it nor {name} in it holds {inner}; give the folder where {name} was unpacked")


#: Readers by the names that experiments use; the first two need no path.
SENSOR_SETS: dict[str, Callable[..., SensorData]] = {
    "spsw": read_spsw,
    "seglearn": read_seglearn,
    "wisdm": read_wisdm,
    "uci_har": read_uci_har,
}


def read_sensors(name: str, root: str = "") -> SensorData:
    """A data set by its name, from ``root`` or (for ``spsw`` and ``seglearn``) its usual place.

    Raises:
        ConfigError: no such set, or one that needs a path. DataError: as its reader.
    """
    if name not in SENSOR_SETS:
        raise ConfigError(f"there is no sensor data {name!r}; there are {', '.join(SENSOR_SETS)}")
    if not root and name in ("wisdm", "uci_har"):
        raise ConfigError(f"{name} is not packaged: give the folder where it was unpacked (data.root=FOLDER)")
    return SENSOR_SETS[name](root) if root else SENSOR_SETS[name]()
