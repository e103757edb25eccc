"""Sensor windows in the numbers that the sensor itself gives, for devices that have nothing before the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..deploy import Sensor
from ..errors import ConfigError
from .batch import Batch, Split
from .config import AugmentConfig
from .har_data import SensorSplit


@dataclass(frozen=True)
class RawSplit:
    """``split`` with batches of whole numbers int16 [T, B, axes]: a value of the recordings over ``lsb`` [axes]."""

    split: SensorSplit
    lsb: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.split)

    @property
    def channels(self) -> int:
        return self.split.channels

    @property
    def steps(self) -> int:
        return self.split.steps

    @property
    def classes(self) -> tuple[str, ...]:
        return self.split.classes

    @property
    def labels(self) -> np.ndarray:
        return self.split.labels

    @property
    def speakers(self) -> np.ndarray:
        return self.split.speakers

    @property
    def padded(self) -> bool:
        return self.split.padded

    def take(self, chosen: np.ndarray) -> RawSplit:
        """The windows ``chosen``: indices, or a mask [N]."""
        return replace(self, split=self.split.take(chosen))

    def batch(
        self, rows: np.ndarray, rng: torch.Generator | None = None, augment: AugmentConfig | None = None
    ) -> Batch:
        """The windows ``rows`` [B], as the sensor gives them: nothing is changed."""
        x, labels = self.split.windows.batch(rows)
        numbers = np.clip(np.rint(x.numpy() / np.array(self.lsb)), -(1 << 15), (1 << 15) - 1).astype(np.int16)
        return Batch(torch.from_numpy(numbers), torch.nn.functional.one_hot(labels, len(self.classes)).float())

    @property
    def sensor(self) -> Sensor:
        """What the numbers stand for in the network: the normalisation of its training, for weights and biases."""
        by, lsb = self.split.by, np.array(self.lsb)
        return Sensor(unit=lsb / by.scale, offset=-by.mean.astype(np.float64) / by.scale)


def raw(split: Split, lsb: Sequence[float]) -> RawSplit:
    """``split`` in the sensor's own numbers; ``lsb``: what one of them is in the unit of the recordings, one number or
    one per axis.

    Raises:
        ConfigError: the run is not on sensor recordings, or ``lsb`` is not above 0, or of another length.
    """
    if not isinstance(split, SensorSplit):
        raise ConfigError("a sensor's resolution was given, but this run is not on sensor recordings")
    units = tuple(map(float, lsb)) * (split.channels if len(lsb) == 1 else 1)
    if len(units) != split.channels or not all(np.isfinite(u) and u > 0 for u in units):
        raise ConfigError(
            f"a sensor's resolution is one number above 0, or one for each of {split.channels} axes; got "
            f"{', '.join(f'{u:g}' for u in lsb)}"
        )
    return RawSplit(split, units)
