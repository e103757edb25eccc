"""What a value of a step program is on its way to integers: its binary point and interval, or a constant that is not
rounded yet; and the formats that calibration gives a population.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .program import Arg, IntValue, bits_of


@dataclass(frozen=True)
class Value:
    """An integer value while lowering: its operand, binary point and interval."""

    arg: Arg
    frac: int
    lo: int
    hi: int

    @property
    def bits(self) -> int:
        return bits_of(self.lo, self.hi)


@dataclass(frozen=True)
class Constant:
    """A value known at export: real numbers [1] or [N], quantised where they are used, in the format that use needs."""

    real: np.ndarray
    name: str

    def exact_frac(self, limit: int) -> int | None:
        """The smallest binary point, up to ``limit``, at which all are whole numbers."""
        return next((f for f in range(limit + 1) if np.all(self.real * 2.0**f == np.round(self.real * 2.0**f))), None)


@dataclass(frozen=True)
class Formats:
    """What calibration decided for one population.

    ``states``: interval and binary point of each state. ``current``: those of the input current, which saturates.
    ``magnitude``: the largest absolute value of each value of the step program. ``frac``: binary point that
    intermediate values need at least. ``param_bits``: width of factors that are constants.
    """

    states: Mapping[str, IntValue]
    current: IntValue
    magnitude: Mapping[str, float]
    frac: int
    param_bits: int
