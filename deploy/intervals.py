"""Whole numbers while lowering: rounding, binary points, and the intervals that operations give."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ExportError
from .program import MAX_FRAC


def quantised(real: np.ndarray, frac: int, check: bool = True) -> np.ndarray:
    """floor(real 2^frac + 1/2) as int64; the one rounding of this library."""
    scaled = np.floor(np.asarray(real, np.float64) * 2.0**frac + 0.5)
    if check and (not np.all(np.isfinite(scaled)) or np.any(np.abs(scaled) >= 2.0**62)):
        raise ExportError(f"a constant of {np.max(np.abs(real)):g} does not fit an integer at binary point {frac}")
    return np.clip(scaled, -(2.0**62), 2.0**62).astype(np.int64)


def fitting_frac(magnitude: float, bits: int) -> int:
    """The binary point at which ``magnitude`` fills a signed number of ``bits``."""
    if magnitude == 0:
        return bits - 1
    frac = bits - 1 - (math.floor(math.log2(magnitude)) + 1)
    if math.floor(magnitude * 2.0**frac + 0.5) > (1 << (bits - 1)) - 1:
        frac -= 1
    return min(frac, MAX_FRAC)


def trailing_zeros(whole: int) -> int:
    return (whole & -whole).bit_length() - 1


def product_interval(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def hull(kind: str, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    if kind == "add":
        return a[0] + b[0], a[1] + b[1]
    if kind == "sub":
        return a[0] - b[1], a[1] - b[0]
    if kind == "min":
        return min(a[0], b[0]), min(a[1], b[1])
    if kind == "max":
        return max(a[0], b[0]), max(a[1], b[1])
    return 0, 1


NUMPY_SCALAR = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "min": min,
    "max": max,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}

FOLD = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "neg": np.negative, "min": np.minimum, "max": np.maximum,
    "gt": np.greater, "ge": np.greater_equal, "where": lambda c, a, b: np.where(c != 0, a, b),
    "abs": np.abs, "exp": np.exp,
    "reciprocal": lambda a: 1.0 / a, "sqrt": np.sqrt, "fire": lambda a: a > 0, "detach": lambda a: a,
}  # fmt: skip
"""Operations on constants, done once at export in float64."""
