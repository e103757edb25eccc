"""What an augmentation is: a small frozen dataclass of numbers, checked when it is made, that takes ``Examples`` and a
random generator and returns ``Examples``.

Counts stay whole numbers 0..255. T stays what it is: what is moved beyond the window is cut, so use a window with some
room.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import ConfigError


class Examples(NamedTuple):
    """Samples with soft targets.

    Attributes:
        x: uint8 [T, B, C], counts.
        targets: float32 [B, classes], rows sum to 1.
        lengths: int64 [B], steps up to and with the last event.
    """

    x: Tensor
    targets: Tensor
    lengths: Tensor


@runtime_checkable
class Augmentation(Protocol):
    """What all augmentations are: a frozen dataclass of numbers that can be called."""

    def __call__(self, examples: Examples, rng: torch.Generator) -> Examples: ...


def require(owner: Any, name: str, low: float, high: float = math.inf) -> None:
    """Refuse a parameter that is not a number (a whole one where it is declared ``int``) in low..high."""
    value = getattr(owner, name)
    whole = next(f.type for f in fields(owner) if f.name == name) == "int"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ConfigError(f"{type(owner).__name__}: {name} must be {kind}, {limits}; got {value!r}")
