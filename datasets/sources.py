"""What a source of events is, and several of them as one: binning and the referee read any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .events import Spikes


@runtime_checkable
class EventSource(Protocol):
    """Labelled event samples on a disk: what binning reads. ``SpikeFile`` and ``Joined`` are two."""

    channels: int
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    @property
    def identity(self) -> list[list[Any]]:
        """Per file: absolute path, size in bytes, time of last change in ns. Changes whenever the content may have."""
        ...

    def chunks(self) -> Iterator[Spikes]:
        """All samples in order, some hundred at a time."""
        ...


class Joined:
    """Several event sources one after the other, as one: ``Joined(train, test)`` for folds over all speakers.

    Raises:
        DataError: the sources name different classes or have different numbers of channels.
    """

    def __init__(self, *sources: EventSource) -> None:
        if not sources:
            raise ConfigError("Joined needs at least one source")
        first = sources[0]
        for other in sources[1:]:
            if other.classes != first.classes or other.channels != first.channels:
                raise DataError(f"cannot join {other!r} to {first!r}: they differ in class names or channels")
        self.sources = sources
        self.channels, self.classes = first.channels, first.classes
        self.labels = np.concatenate([s.labels for s in sources])
        self.speakers = np.concatenate([s.speakers for s in sources])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> list[list[Any]]:
        """The identities of all files, in order."""
        return [entry for source in self.sources for entry in source.identity]

    def chunks(self) -> Iterator[Spikes]:
        """All samples of all sources in order."""
        for source in self.sources:
            yield from source.chunks()
