"""The data of a run on body-worn sensors: windows of training, validation and test subjects.

A network reads normalised values, each a whole multiple of 1/levels: those that the bytes of a device stand for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets import (
    Normalizer,
    SensorData,
    SensorWindows,
    cut_windows,
    hold_out,
    read_sensors,
    refuse_overlap,
    split_speakers,
)
from ..datasets.har_readers import AXES
from ..datasets.sensors import ZERO, mirror_signs
from ..errors import ConfigError
from .batch import Batch
from .config import SENSOR_SOURCES, AugmentConfig, Config, DataConfig


@dataclass(frozen=True)
class SensorSplit:
    """Labelled windows of a run; what ``counts.CountSplit`` is for counts.

    Attributes:
        windows: in the sensors' units. by: the normalisation, fitted on training subjects.
        levels: see ``Normalizer.to_bytes``.
        every: all windows of the source, one for each step at which one can start, for shifts in time. None: no shifts.
    """

    windows: SensorWindows
    by: Normalizer
    levels: int
    every: SensorWindows | None = None

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def padded(self) -> bool:
        """All windows are of one length."""
        return False

    @property
    def channels(self) -> int:
        return self.windows.x.shape[2]

    @property
    def steps(self) -> int:
        return self.windows.x.shape[1]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.windows.classes

    @property
    def labels(self) -> np.ndarray:
        return self.windows.labels

    @property
    def speakers(self) -> np.ndarray:
        """The subjects."""
        return self.windows.subjects

    @property
    def flat(self) -> NDArray[np.float64]:
        """Normalised windows [N, T * axes], for a classifier without time."""
        return self.by.apply(self.windows).x.reshape(len(self), -1).astype(np.float64)

    def take(self, chosen: np.ndarray) -> SensorSplit:
        """The windows ``chosen``: indices, or a mask [N]."""
        return replace(self, windows=self.windows.take(chosen))

    def batch(
        self, rows: np.ndarray, rng: torch.Generator | None = None, augment: AugmentConfig | None = None
    ) -> Batch:
        """The windows ``rows`` [B], changed as ``augment`` says with draws from ``rng`` where both are given."""
        x, labels = self.windows.batch(rows)
        if rng is not None and augment is not None:
            if self.every is not None and (augment.time_later or augment.time_earlier):
                x, labels = self.every.batch(self._shifted(np.asarray(rows), augment, rng))
            x = augmented(x, augment, torch.from_numpy(self.by.scale), rng, self.windows.axes)
        values = (torch.from_numpy(self.by.to_bytes(x.numpy(), self.levels)).float() - ZERO) / self.levels
        return Batch(values, torch.nn.functional.one_hot(labels, len(self.classes)).float())

    def _shifted(self, rows: NDArray[np.int64], augment: AugmentConfig, rng: torch.Generator) -> NDArray[np.int64]:
        """Rows of ``every``: the windows ``rows`` begun earlier or later in their recording, as far as it goes.

        What moves to later times in a window is a window begun earlier.
        """
        assert self.every is not None
        later, earlier = (round(t * self.windows.rate / 1000) for t in (augment.time_later, augment.time_earlier))
        moved = torch.randint(-later, earlier + 1, (len(rows),), generator=rng).numpy()
        recording, start = self.windows.recordings[rows], self.windows.starts[rows]
        first = np.searchsorted(self.every.recordings, recording)
        count = np.searchsorted(self.every.recordings, recording, "right") - first
        return first + np.clip(start + moved, 0, count - 1)


def augmented(
    x: Tensor, augment: AugmentConfig, scale: Tensor, rng: torch.Generator, axes: Sequence[str] = AXES
) -> Tensor:
    """Windows [T, B, axes], changed as another wearing of the device would.

    ``rotation`` turns every three axes of a sample about one random axis by a normal angle, all sensors alike;
    ``mirror`` shows what the other arm would; ``sensor_gain`` scales each sensor; ``sensor_noise`` adds white noise in
    units of ``scale`` [axes]. ``time_stretch`` changes the tempo about the window's middle; where that asks for what
    lies outside, the first or last sample stays.

    Raises:
        ConfigError: a rotation or gain of axes that do not come in threes; a mirror for axes that are not called as
            those of accelerometers and gyroscopes (acc_x, gyro_x, ...).
    """
    if augment.time_stretch:
        x = _stretched(x, augment.time_stretch, rng)
    batch, number = x.shape[1:]
    if (augment.rotation or augment.sensor_gain) and number % 3:
        raise ConfigError(f"augment.rotation and sensor_gain need axes in threes (x, y, z); there are {number}")
    if augment.mirror:
        swap = torch.rand(batch, generator=rng) < augment.mirror
        x = torch.where(swap.unsqueeze(1), x * torch.from_numpy(mirror_signs(axes)), x)
    sensors = x.unflatten(2, (-1, 3)) if number % 3 == 0 else x.unsqueeze(-1)
    if augment.rotation:
        turn = _rotations(batch, math.radians(augment.rotation), rng)
        sensors = torch.einsum("tbsj,bij->tbsi", sensors, turn)
    if augment.sensor_gain:
        draw = 2 * torch.rand(batch, sensors.shape[2], generator=rng) - 1
        sensors = sensors * (1 + augment.sensor_gain) ** draw.unsqueeze(-1)
    x = sensors.flatten(2)
    if augment.sensor_noise:
        x = x + augment.sensor_noise * scale * torch.randn(x.shape, generator=rng)
    return x


def _stretched(x: Tensor, largest: float, rng: torch.Generator) -> Tensor:
    """``x`` [T, B, axes] at up to (1 + ``largest``) times another tempo each, by straight lines between samples."""
    steps, batch, axes = x.shape
    if steps < 2:
        return x
    tempo, middle = (1 + largest) ** (2 * torch.rand(batch, generator=rng) - 1), (steps - 1) / 2
    at = ((torch.arange(steps).unsqueeze(1) - middle) * tempo + middle).clamp(0, steps - 1)
    before = at.floor().clamp(max=steps - 2)
    rows = before.long().unsqueeze(2).expand(-1, -1, axes)
    return torch.lerp(x.gather(0, rows), x.gather(0, rows + 1), (at - before).unsqueeze(2))


def _rotations(number: int, deviation: float, rng: torch.Generator) -> Tensor:
    """Random rotation matrices [B, 3, 3] by Rodrigues' formula; the angle, in radians, is normal."""
    axis = torch.nn.functional.normalize(torch.randn(number, 3, generator=rng), dim=1)
    angle = (deviation * torch.randn(number, generator=rng)).view(-1, 1, 1)
    zero = torch.zeros(number)
    a, b, c = axis.T
    cross = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], 1).view(-1, 3, 3)
    return torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * cross @ cross


@lru_cache(maxsize=2)
def _read(source: str, root: str, one_arm: bool) -> SensorData:
    found = read_sensors(source, root)
    return found.on_one_arm() if one_arm else found


@lru_cache(maxsize=4)
def _windows(source: str, root: str, one_arm: bool, window: float, stride: float, rate: float) -> SensorWindows:
    return cut_windows(_read(source, root, one_arm), window, stride, rate=rate)


def windows_of(data: DataConfig) -> SensorWindows:
    """All windows of ``data.source``, at one sample every ``data.dt`` ms; kept in memory.

    Raises:
        ConfigError: not a sensor source, or a window that is no whole number of steps. DataError: as its reader.
    """
    if data.source not in SENSOR_SOURCES:
        raise ConfigError(f"data.source={data.source} is no sensor data; there are {', '.join(SENSOR_SOURCES)}")
    return _windows(data.source, data.root, data.one_arm, data.window, data.stride, 1000 / data.dt)


def _sides(config: Config) -> tuple[SensorWindows, SensorWindows]:
    whole = windows_of(config.data)
    if not config.data.test_speakers:
        raise ConfigError("sensor data has no test set of its own; name its subjects: data.test_speakers=[1,2]")
    if config.data.excluded_speakers:
        refuse_overlap("subject", test=config.data.test_speakers, excluded=config.data.excluded_speakers)
        whole = whole.take(split_speakers(whole.subjects, config.data.excluded_speakers, who="subject").train)
    parts = split_speakers(whole.subjects, config.data.test_speakers, who="subject")
    return whole.take(parts.train), whole.take(parts.test)


def _training(config: Config) -> tuple[SensorWindows, SensorWindows | None]:
    train, test = _sides(config)
    refuse_overlap("subject", train=train.subjects, test=test.subjects)
    if not config.data.validation_speakers:
        return train, None
    parts = hold_out(train.subjects, config.data.validation_speakers, config.training.seed)
    return train.take(parts.train), train.take(parts.test)


def load_training(config: Config) -> tuple[SensorSplit, SensorSplit | None]:
    """Training and validation windows; the validation subjects are drawn from the training subjects by the seed.

    Raises:
        DataError: no training subject would be left, or as the reader. ConfigError: no test subject is named.
    """
    train, valid = _training(config)
    by = Normalizer.fit(train)
    d = config.data
    moves = config.augment.time_later or config.augment.time_earlier
    every = _windows(d.source, d.root, d.one_arm, d.window, d.dt, 1000 / d.dt) if moves else None
    return SensorSplit(train, by, d.levels, every), None if valid is None else SensorSplit(valid, by, d.levels)


def load_test(config: Config) -> SensorSplit:
    """The windows of ``data.test_speakers``, normalised by what training saw. Errors as for :func:`load_training`."""
    return SensorSplit(_sides(config)[1], Normalizer.fit(_training(config)[0]), config.data.levels)
