"""How busy others keep the machine while something is measured: a timing on a busy machine is none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

QUIET = 0.05
"""Share of the machine's CPU time; with more than this taken by others, a cell is marked and measured again."""


class Others:
    """Share of all cores' time used by processes other than this one and ``pids``, since it was made."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self.pids = list(pids)
        self.started = time.perf_counter()
        self.before = self._used()

    def share(self) -> float | None:
        """Between 0 and 1; None where the system does not say (it needs /proc)."""
        after, passed = self._used(), time.perf_counter() - self.started
        if self.before is None or after is None or passed <= 0:
            return None
        used = after - self.before
        return round(min(1.0, max(0.0, used / (passed * (os.cpu_count() or 1)))), 4)

    def _used(self) -> float | None:
        """Seconds of CPU time used by others so far."""
        try:
            tick = os.sysconf("SC_CLK_TCK")
            numbers = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
            user, nice, system, _, _, irq, softirq, steal = numbers[:8]
            own = sum(os.times()[:2])
            for pid in self.pids:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                own += (int(fields[11]) + int(fields[12])) / tick
        except (OSError, ValueError, AttributeError):
            return None
        return (user + nice + system + irq + softirq + steal) / tick - own
