"""Recordings of body-worn sensors, cut into sliding windows with a label and a subject each.

A recording is a sequence of samples of several axes by one person. It is resampled, cut into windows that never cross
its ends, and brought to mean 0 and deviation 1 per axis, by numbers taken from the training subjects alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.signal import resample_poly
from torch import Tensor

from ..errors import ConfigError, DataError
from .splits import Split, refuse_overlap, split_speakers

RATE = 20.0
"""Samples a second that windows have by default."""
ARMS = ("left", "right")
_LARGEST_FACTOR = 1000


class SensorError(DataError):
    """A sensor recording is not what it has to be.

    Attributes:
        recording, subject, sample: where, as far as it is known.
    """

    def __init__(
        self, problem: str, recording: str | None = None, subject: int | None = None, sample: int | None = None
    ) -> None:
        where = [
            text
            for value, text in (
                (recording, f"recording {recording}"),
                (subject, f"subject {subject}"),
                (sample, f"sample {sample}"),
            )
            if value is not None
        ]
        super().__init__(f"{', '.join(where)}: {problem}" if where else problem)
        self.recording, self.subject, self.sample = recording, subject, sample


@dataclass(frozen=True)
class SensorRecording:
    """One recording of one person.

    Attributes:
        values: float32 [T, axes], in the sensors' units.
        labels: int64 [T], what is being done at each sample.
        subject: the person's number.
        rate: samples a second.
        name: for messages.
        arm: ``left`` or ``right``, where it is known.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    subject: int
    rate: float
    name: str
    arm: str = ""


@dataclass(frozen=True)
class SensorData:
    """Recordings with the same axes and classes.

    Attributes:
        recordings: in the order of their source. axes: names of the columns. classes: names that labels index.

    Raises:
        SensorError: no recording, an empty one, missing axes, a value that is NaN or infinite (subject and sample
            named), labels that do not fit, a rate that is not positive.
    """

    recordings: tuple[SensorRecording, ...]
    axes: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.recordings:
            raise SensorError("there is no recording")
        for r in self.recordings:
            if r.values.ndim != 2 or r.values.shape[1] != len(self.axes):
                raise SensorError(
                    f"values of shape {r.values.shape}, but [samples, {len(self.axes)}] is needed for the axes "
                    f"{', '.join(self.axes)}; an axis is missing or one too many",
                    r.name,
                    r.subject,
                )
            if not len(r.values):
                raise SensorError("is empty", r.name, r.subject)
            bad = np.argwhere(~np.isfinite(r.values))
            if len(bad):
                sample, axis = (int(i) for i in bad[0])
                problem = f"{self.axes[axis]} is {r.values[sample, axis]}; leave the recording out or mend it"
                raise SensorError(problem, r.name, r.subject, sample)
            if r.labels.shape != (len(r.values),):
                raise SensorError(
                    f"{r.labels.shape} labels for {len(r.values)} samples; one each is needed", r.name, r.subject
                )
            wrong = np.flatnonzero((r.labels < 0) | (r.labels >= len(self.classes)))
            if len(wrong):
                sample = int(wrong[0])
                raise SensorError(
                    f"label {r.labels[sample]} is none of the {len(self.classes)} classes", r.name, r.subject, sample
                )
            if not (np.isfinite(r.rate) and r.rate > 0):
                raise SensorError(f"a rate of {r.rate} samples a second", r.name, r.subject)

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def subjects(self) -> NDArray[np.int64]:
        """The people in it, ascending."""
        return np.unique([r.subject for r in self.recordings]).astype(np.int64)

    def select(self, axes: Sequence[str]) -> SensorData:
        """The same recordings with these axes only, in this order.

        Raises:
            SensorError: it has no axis of such a name.
        """
        if missing := [a for a in axes if a not in self.axes]:
            raise SensorError(f"axis {missing[0]!r} is missing; there are {', '.join(self.axes)}")
        columns = [self.axes.index(a) for a in axes]
        return replace(
            self, recordings=tuple(replace(r, values=r.values[:, columns]) for r in self.recordings), axes=tuple(axes)
        )

    def on_one_arm(self, arm: str = "right") -> SensorData:
        """The same recordings, all as if made on ``arm``: those of the other are mirrored (:func:`mirror_signs`).

        Raises:
            ConfigError: an arm other than left and right, or axes that have no mirror.
            SensorError: a recording of which the arm is not known.
        """
        if arm not in ARMS:
            raise ConfigError(f"arm must be one of {', '.join(ARMS)}, got {arm!r}")
        signs = mirror_signs(self.axes)
        turned = []
        for r in self.recordings:
            if r.arm not in ARMS:
                raise SensorError("is not known to be of the left or the right arm", r.name, r.subject)
            turned.append(r if r.arm == arm else replace(r, values=r.values * signs, arm=arm))
        return replace(self, recordings=tuple(turned))


def mirror_signs(axes: Sequence[str]) -> NDArray[np.float32]:
    """1 or -1 for every axis [axes]: how it reads in a mirror across x, the forearm's axis, as on the other arm. An
    acceleration changes its sign along x; a turn about the other two.

    Raises:
        ConfigError: axes that are not called as those of an accelerometer and a gyroscope are (acc_x, gyro_x, ...).
    """
    signs = {"acc_x": -1, "acc_y": 1, "acc_z": 1, "gyro_x": 1, "gyro_y": -1, "gyro_z": -1}
    if unknown := [a for a in axes if a not in signs]:
        raise ConfigError(f"there is no mirror for the axis {unknown[0]!r}, only for {', '.join(signs)}")
    return np.array([signs[a] for a in axes], np.float32)


@dataclass(frozen=True)
class SensorWindows:
    """Windows of equal length.

    Attributes:
        x: float32 [N, T, axes].
        labels, subjects: int64 [N].
        recordings: int64 [N], which recording of the source each was cut from.
        starts: int64 [N], its first sample there, after resampling.
        axes, classes: names. rate: samples a second.
    """

    x: NDArray[np.float32]
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64]
    recordings: NDArray[np.int64]
    starts: NDArray[np.int64]
    axes: tuple[str, ...]
    classes: tuple[str, ...]
    rate: float

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: ArrayLike) -> SensorWindows:
        """Only these windows: int [N], or a mask bool [len(self)]."""
        chosen = np.asarray(rows)
        chosen = chosen if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        return replace(
            self,
            x=self.x[chosen],
            labels=self.labels[chosen],
            subjects=self.subjects[chosen],
            recordings=self.recordings[chosen],
            starts=self.starts[chosen],
        )

    def batch(self, rows: ArrayLike) -> tuple[Tensor, Tensor]:
        """The windows ``rows`` [B] as (x float32 [T, B, axes], labels int64 [B])."""
        chosen = np.asarray(rows)
        x = np.ascontiguousarray(self.x[chosen].transpose(1, 0, 2))
        return torch.from_numpy(x), torch.from_numpy(self.labels[chosen])


def resampled(recording: SensorRecording, rate: float = RATE) -> SensorRecording:
    """The recording at ``rate`` samples a second, low-pass filtered by a polyphase filter (``scipy.signal``).

    Sample k of the result lies at time k / rate, and has the label of the sample of the source that is nearest in time.

    Raises:
        ConfigError: a rate that is not positive, or no ratio of whole numbers to 1000 of the recording's.
    """
    if not (np.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate must be a positive number of samples a second, got {rate}")
    ratio = Fraction(rate / recording.rate).limit_denominator(_LARGEST_FACTOR)
    if not ratio or abs(float(ratio) * recording.rate / rate - 1) > 1e-6:
        raise ConfigError(
            f"{recording.name}: {recording.rate} to {rate} samples a second is no ratio of whole numbers up to "
            f"{_LARGEST_FACTOR}"
        )
    if ratio == 1:
        return recording
    # a straight line through the ends, so that gravity does not ring at them
    values = resample_poly(recording.values, ratio.numerator, ratio.denominator, axis=0, padtype="line")
    nearest = np.rint(np.arange(len(values)) * (recording.rate / rate)).astype(np.int64)
    return replace(
        recording,
        values=values.astype(np.float32),
        labels=recording.labels[np.minimum(nearest, len(recording.labels) - 1)],
        rate=float(rate),
    )


def cut_windows(
    data: SensorData,
    window: float = 2000.0,
    stride: float = 500.0,
    *,
    rate: float = RATE,
    purity: float = 0.0,
    skip_short: bool = False,
) -> SensorWindows:
    """Sliding windows of all recordings, each within one.

    A window's label is the one that most of its samples have (of equals the lowest).

    Args:
        window, stride: length of a window and distance of their starts, in ms; whole numbers of samples.
        rate: samples a second, see :func:`resampled`.
        purity: leave out windows of whose samples less than this share, 0 to 1, has the label.
        skip_short: leave out recordings shorter than the window instead of refusing them.

    Raises:
        ConfigError: a window or stride below one sample or no whole number of them, a purity outside 0 to 1.
        SensorError: the window is longer than a recording (named), or no window is left.
    """
    length, step = _samples(window, rate, "window"), _samples(stride, rate, "stride")
    if not 0 <= purity <= 1:
        raise ConfigError(f"purity must be between 0 and 1, got {purity}")
    rows: list[NDArray[np.float32]] = []
    about: list[tuple[int, int, int, int]] = []
    for number, source in enumerate(data.recordings):
        r = resampled(source, rate)
        if len(r.values) < length:
            if skip_short:
                continue
            raise SensorError(
                f"lasts {1000 * len(r.values) / rate:.0f} ms, shorter than the window of {window:.0f} ms; use a "
                "shorter window, or skip_short=True to leave it out",
                r.name,
                r.subject,
            )
        for start in range(0, len(r.values) - length + 1, step):
            counts = np.bincount(r.labels[start : start + length], minlength=len(data.classes))
            if counts.max() >= purity * length:
                rows.append(r.values[start : start + length])
                about.append((int(counts.argmax()), r.subject, number, start))
    if not rows:
        raise SensorError(f"no window of {window:.0f} ms with purity {purity} in {len(data)} recordings")
    labels, subjects, recordings, starts = np.array(about, np.int64).T
    return SensorWindows(np.stack(rows), labels, subjects, recordings, starts, data.axes, data.classes, float(rate))


def _samples(time: float, rate: float, name: str) -> int:
    count = round(time * rate / 1000) if np.isfinite(time) and np.isfinite(rate) else 0
    if count < 1 or abs(count - time * rate / 1000) > 1e-6 * count:
        raise ConfigError(f"{name} must be a whole number of samples, at least one, at {rate} a second; got {time} ms")
    return count


ZERO = 128
"""The byte that stands for 0 in :meth:`Normalizer.to_bytes`."""


@dataclass(frozen=True)
class Normalizer:
    """What brings each axis to mean 0 and deviation 1, and whom it was fitted on.

    Attributes:
        mean, scale: float32 [axes]; scale is 1 for an axis that never changes.
        subjects: the people whose windows gave them.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    subjects: tuple[int, ...]

    @classmethod
    def fit(cls, windows: SensorWindows) -> Normalizer:
        """From all samples of ``windows``, which should be those of training subjects.

        Raises:
            SensorError: no window.
        """
        if not len(windows):
            raise SensorError("there is no window to fit the normalisation on")
        flat = windows.x.reshape(-1, windows.x.shape[2]).astype(np.float64)
        deviation = flat.std(0)
        scale = np.where(deviation > 0, deviation, 1.0).astype(np.float32)
        return cls(flat.mean(0).astype(np.float32), scale, tuple(int(s) for s in np.unique(windows.subjects)))

    def apply(self, windows: SensorWindows) -> SensorWindows:
        """``windows`` with normalised values."""
        return replace(windows, x=((windows.x - self.mean) / self.scale).astype(np.float32))

    def to_bytes(self, x: NDArray[np.float32], levels: int) -> NDArray[np.uint8]:
        """Values [..., axes] in the sensors' units as a device reads them: a normalised z is 128 + round(levels z), cut
        to 0 to 255.

        Raises:
            ConfigError: levels outside 1 to 127.
        """
        if not 1 <= levels <= 127:
            raise ConfigError(f"levels must be between 1 and 127, got {levels}")
        return np.clip(np.rint((x - self.mean) / self.scale * levels) + ZERO, 0, 255).astype(np.uint8)


def train_test(windows: SensorWindows, test: Iterable[int]) -> tuple[SensorWindows, SensorWindows, Normalizer]:
    """Windows of all subjects but ``test``, and those of ``test``, both normalised by numbers from the first alone.

    Raises:
        DataError: a subject has no window, or a side is empty.
    """
    parts: Split = split_speakers(windows.subjects, test, who="subject")
    return normalised(windows.take(parts.train), windows.take(parts.test))


def normalised(train: SensorWindows, test: SensorWindows) -> tuple[SensorWindows, SensorWindows, Normalizer]:
    """Both sets normalised by numbers fitted on ``train``, and those numbers.

    Raises:
        DataError: a subject is in both (named). SensorError: ``train`` is empty.
    """
    refuse_overlap("subject", train=train.subjects, test=test.subjects)
    by = Normalizer.fit(train)
    return by.apply(train), by.apply(test), by
