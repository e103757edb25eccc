"""Input ports: what a device receives, and what a number from a sensor stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError, ExportError
from ..networks import Network

RANGES = {"events": (0, 1), "counts": (0, 255), "samples": (-(1 << 15), (1 << 15) - 1)}
"""What each kind of port takes; beyond it saturates."""
HEADROOM = 2.0
"""How far beyond the calibration samples a unit that is chosen from them reaches."""


@dataclass(frozen=True)
class Sensor:
    """The numbers of a ``samples`` port: q stands for ``unit`` q + ``offset`` in what the network was trained on.

    For data that was normalised in training as (x - mean) / deviation, from a sensor whose number q is x = lsb q:
    ``unit = lsb / deviation``, ``offset = -mean / deviation``. Both go into weights and biases, so that the device
    takes the sensor's numbers as they come.

    Args:
        unit: one number, or one per channel; above 0. None: for samples given as real numbers a power of two that
            leaves room for twice the largest, for whole numbers 1.
        offset: one number, or one per channel.
    """

    unit: float | Sequence[float] | np.ndarray | None = None
    offset: float | Sequence[float] | np.ndarray = 0.0


@dataclass(frozen=True)
class IntInput:
    """An input port. ``events``: any value above 0 counts as 1. ``counts``: 0 to 255. ``samples``: 16 bits with a sign.

    Of ``samples``, the number q of a channel stands for units q + offsets, and the network takes q 2^shifts (all [N]).
    """

    name: str
    size: int
    port: str
    units: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    shifts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.port not in RANGES:
            raise ExportError(f"input {self.name!r} receives {self.port!r}; {', '.join(RANGES)} have an integer form")
        expected = self.size if self.port == "samples" else 0
        if any(len(values) != expected for values in (self.units, self.offsets, self.shifts)):
            raise ExportError(f"input {self.name!r}: units, offsets and shifts must be [{expected}]")
        if not all(0 <= shift <= 15 for shift in self.shifts):
            raise ExportError(f"input {self.name!r}: shifts must be 0 to 15")

    @property
    def binary(self) -> bool:
        return self.port == "events"

    @property
    def samples(self) -> bool:
        return self.port == "samples"

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int16 if self.samples else np.uint8)

    @property
    def factors(self) -> np.ndarray:
        """What the port's numbers are multiplied with before they enter, int64 [N]."""
        return np.left_shift(1, np.array(self.shifts, np.int64)) if self.samples else np.ones(self.size, np.int64)

    def numbers(self, value: np.ndarray) -> np.ndarray:
        """``value`` [T, B, N] as the artefact receives it. For ``samples``, real numbers are what the network was
        trained on, whole ones (by their type) what the sensor gives.

        Raises:
            DataError: for values that the port does not take.
        """
        if self.samples and value.dtype.kind == "f":
            if not np.isfinite(value).all():
                raise DataError(f"input {self.name!r}: samples must be finite")
            value = np.floor((value - np.array(self.offsets)) / np.array(self.units) + 0.5)
        elif value.dtype.kind not in "bui" and not np.array_equal(value, np.floor(value)):
            raise DataError(f"input {self.name!r}: an integer network takes whole numbers (events or counts)")
        elif value.min() < 0 and not self.samples:
            raise DataError(f"input {self.name!r}: values must be 0 or more")
        return np.clip(value, *RANGES[self.port]).astype(self.dtype)

    def real(self, numbers: np.ndarray) -> np.ndarray:
        """What ``numbers`` stand for in the float network."""
        if not self.samples:
            return numbers
        return numbers * np.array(self.units) + np.array(self.offsets)


def calibrated_ports(
    net: Network,
    calibration: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    sensors: Mapping[str, Sensor] | None,
) -> tuple[tuple[IntInput, ...], Tensor | dict[str, Tensor]]:
    """The ports of ``net``, and the calibration samples as the float network takes them.

    Raises:
        ConfigError: for a sensor of another input, or units and offsets that no sensor has.
    """
    given = {n: np.asarray(v) for n, v in calibration.items()} if isinstance(calibration, Mapping) else {}
    if not isinstance(calibration, Mapping) and net.inputs:
        given = {net.inputs[0]: np.asarray(calibration)}
    kinds = {n: net.graph.nodes[n]["port"] for n in net.inputs}
    for name in sensors or {}:
        if kinds.get(name) != "samples":
            raise ConfigError(f"sensors: {name!r} is no input of kind 'samples'")
    ports = []
    for name, kind in kinds.items():
        size = net.graph.nodes[name]["size"]
        if kind == "samples":
            ports.append(_port(name, size, (sensors or {}).get(name, Sensor()), given.get(name)))
            if name in given and given[name].dtype.kind in "bui":
                given[name] = ports[-1].real(given[name])
        else:
            ports.append(IntInput(name, size, kind))
    tensors = {n: torch.as_tensor(v).float() for n, v in given.items()}
    return tuple(ports), tensors if isinstance(calibration, Mapping) else next(iter(tensors.values()))


def _port(name: str, size: int, sensor: Sensor, values: np.ndarray | None) -> IntInput:
    unit = sensor.unit
    if unit is None:
        peak = float(np.abs(values).max()) if values is not None and values.size and values.dtype.kind == "f" else 0.0
        highest = RANGES["samples"][1]
        unit = 2.0 ** math.ceil(math.log2(HEADROOM * peak / highest)) if math.isfinite(peak) and peak > 0 else 1.0
    try:
        units, offsets = (np.broadcast_to(np.asarray(v, np.float64), (size,)).tolist() for v in (unit, sensor.offset))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sensor of {name!r}: unit and offset must be numbers or [{size}] ({error})") from error
    if not all(math.isfinite(u) and u > 0 for u in units) or not all(map(math.isfinite, offsets)):
        raise ConfigError(f"sensor of {name!r}: units must be finite and above 0, offsets finite")
    # a channel with a large unit is shifted, so that its weights keep their 8 bits beside those of the others
    shifts = [round(math.log2(u / min(units))) for u in units]
    if max(shifts) > 15:
        raise ConfigError(f"sensor of {name!r}: its units differ by more than 2^15; use two inputs")
    return IntInput(name, size, "samples", tuple(units), tuple(offsets), tuple(shifts))
