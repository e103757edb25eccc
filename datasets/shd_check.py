"""The check of a whole event file before anything is read from it, and how its outcome is remembered.

Every sample is looked at once, so that a damaged file fails when it is opened and not in the middle of a training. What
was found is kept in the cache by path, size and time of change.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from ..files import atomic_path, cache_folder
from ._heap import blank_object
from .cache_keys import cache_key
from .events import to_microseconds
from .shd_file import LayoutFile
from .shd_layout import SpikeFileError, end_to_end, find_fault

_VERSION = 1  # of the check; stricter rules must raise it


class Summary(NamedTuple):
    """What the whole-file check found.

    Attributes:
        events: all events.
        empty: samples without any event (legal).
        last_us: the time of the latest event, microseconds.
    """

    events: int
    empty: int
    last_us: int


_checks: dict[str, Summary] = {}


def checked(file: LayoutFile) -> Summary:
    """The outcome of :func:`check`, remembered in this process and in ``checked`` in the cache folder."""
    key = cache_key([_VERSION, file.identity])
    if key not in _checks:
        record = cache_folder() / "checked" / f"{key}.json"
        try:
            found = json.loads(record.read_text("utf-8"))
            _checks[key] = Summary(int(found["events"]), int(found["empty"]), int(found["last_us"]))
        except (OSError, ValueError, KeyError, TypeError):
            _checks[key] = check(file)
            try:
                with atomic_path(record) as temporary:
                    temporary.write_text(json.dumps(_checks[key]._asdict() | {"path": str(file.path)}), "utf-8")
            except OSError:  # nowhere to remember it: the next process checks again
                pass
    return _checks[key]


def check(file: LayoutFile) -> Summary:
    """Check every sample of a file: as many times as units, finite times >= 0 in order, units in range.

    Raises:
        SpikeFileError: names the first sample that is wrong, and what is wrong with it.
    """
    if (place := blank_object(file.path)) is not None:
        problem = f"is damaged: zeros at byte {place}, where events must be; copy or download the file again"
        raise SpikeFileError(file.path, problem)
    events = empty = last_us = 0
    for start, stop in file._pieces():
        times, units = file._read_raw(start, stop)
        for offset, (t, x) in enumerate(zip(times, units, strict=True)):
            if len(t) != len(x):
                problem = f"has {len(x)} units but {len(t)} times"
                raise SpikeFileError(file.path, problem, "spikes/units", start + offset)
        t, x, counts = end_to_end(times, units)
        fault = find_fault(t, x, counts, file.channels, ordered=not file.sort)
        if fault:
            raise SpikeFileError(file.path, fault.problem, fault.dataset, start + fault.sample)
        events += len(t)
        empty += int((counts == 0).sum())
        last_us = max(last_us, int(to_microseconds(t.max())) if len(t) else 0)
    return Summary(events, empty, last_us)
