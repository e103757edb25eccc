"""One cell: everyone is prepared, then measured in turns, round after round, within a budget of time."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .contestants import KINDS, Contestant, Skipped
from .load import Others
from .workload import Cell, make_workload

ROUNDS = 11
ENOUGH = 7  # rounds for a median
LEVELS = (ENOUGH, 5, 3, 2, 1)
SHORTEST_S = 0.05  # a sample is repeated calls of at least this long together
LONG_S = 1.0
LONGEST_SHARE = 0.15  # of the budget: one step of a peer may take no longer
ALWAYS = ("ranvier-numba", "matmul-floor")


@dataclass
class Times:
    """Samples of one contestant, in seconds, and how many calls each is the mean of."""

    number: dict[str, int] = field(default_factory=dict)
    estimate: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    @property
    def round_s(self) -> float:
        return sum(self.number[kind] * self.estimate[kind] for kind in KINDS)


def plan_rounds(
    costs: Mapping[str, float], left_s: float, rounds: int = ROUNDS, done: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Samples for each contestant, given the seconds that one takes and how many there are: ``rounds`` for all where
    they fit; else fewer, from the slowest on, down to one of ``LEVELS`` each and only then to the next.
    """
    done = done or {}
    plan = dict.fromkeys(costs, rounds)
    for least in LEVELS:
        for name in sorted(costs, key=lambda n: -costs[n]):
            while plan[name] > least and sum((plan[n] - done.get(n, 0)) * costs[n] for n in costs) > left_s:
                plan[name] -= 1
    return plan


def measure_cell(
    cell: Cell,
    contestants: Mapping[str, Contestant],
    names: list[str],
    budget_s: float = 40.0,
    rounds: int = ROUNDS,
    say: Callable[[str], object] = lambda _: None,
    started: float | None = None,
) -> dict[str, Any]:
    """Measure ``names`` on ``cell``; the entry of the JSON. ``started`` is when the budget began to run."""
    started = time.perf_counter() if started is None else started
    work = make_workload(cell)
    reasons = {name: "not asked for (--peers)" for name in contestants if name not in names}
    notes: dict[str, str] = {}
    rates: dict[str, float] = {}
    times: dict[str, Times] = {}
    first_s: dict[str, float] = {}
    try:
        for name in names:
            say(f"{cell}: preparing {name}")
            before = time.perf_counter()
            try:
                rate = contestants[name].prepare(work, math.inf if name in ALWAYS else LONGEST_SHARE * budget_s)
                times[name] = _first_look(contestants[name])
            except Skipped as skipped:
                reasons[name] = str(skipped)
                continue
            first_s[name] = round(time.perf_counter() - before, 2)
            if rate is not None:
                rates[name] = round(rate, 5)
        left = budget_s - (time.perf_counter() - started)
        worker = getattr(contestants.get("spyx"), "process", None)
        others = Others([worker.pid] if worker is not None else [])
        done = {name: len(t.samples["step"]) for name, t in times.items()}
        plan = plan_rounds({name: t.round_s for name, t in times.items()}, left, rounds, done)
        for name in (n for n in plan if plan[n] < min(ENOUGH, rounds)):
            notes[name] = f"rounds cut to {plan[name]} to keep within {budget_s:.0f} s"
        order, shuffled = list(times), random.Random(0)
        for turn in range(rounds):
            say(f"{cell}: round {turn + 1} of {rounds}")
            shuffled.shuffle(order)  # so that nobody always follows the same one
            gc.collect()  # here, since it is off while the clock runs
            for name in order:
                if turn < plan[name] - done[name]:
                    for kind in KINDS:
                        sample = contestants[name].time(kind, times[name].number[kind])
                        times[name].samples[kind].append(sample)
        busy = others.share()
    finally:
        for name in names:
            contestants[name].release()

    def medians(kind: str) -> dict[str, float | None]:
        return {n: _ms(statistics.median(times[n].samples[kind])) if n in times else None for n in contestants}

    return {
        **cell.as_dict(),
        "ms": medians("step"),
        "forward_ms": medians("forward"),
        "hidden_rate": rates,
        "reasons": reasons,
        "notes": notes,
        "rounds": {name: len(t.samples["step"]) for name, t in times.items()},
        "samples_ms": {name: [_ms(s) for s in t.samples["step"]] for name, t in times.items()},
        "prepare_s": first_s,
        "others": busy,
    }


def _first_look(contestant: Contestant) -> Times:
    """One call of each kind says how many calls make a sample. Long ones are samples themselves."""
    times = Times()
    for kind in KINDS:
        seconds = contestant.time(kind, 1)
        times.estimate[kind] = seconds
        times.number[kind] = max(1, min(200, round(SHORTEST_S / seconds)))
    if times.round_s > LONG_S:
        times.samples = {kind: [seconds] for kind, seconds in times.estimate.items()}
    return times


def _ms(seconds: float) -> float:
    return float(f"{seconds * 1e3:.4g}")


__all__ = ["ROUNDS", "measure_cell", "plan_rounds"]
