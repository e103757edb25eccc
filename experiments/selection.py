"""Choosing settings inside every fold, when each speaker is left out once: the outer speaker has no say in it.

For the fold of speaker f, a candidate is trained without f and another speaker g, and judged on g, for every g. The
network trained without both serves two folds: judged on g for the fold of f, judged on f for the fold of g. So each
candidate costs one training per pair of speakers, and no sample of f reaches the choice that is made for f.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..errors import ConfigError, RunError
from ..networks import load_network
from .config import Config, override
from .data import load_test
from .evaluation import evaluate
from .experiment import train


@dataclass(frozen=True)
class Candidate:
    """Settings that may be chosen.

    Attributes:
        name: also the name of the folder it is trained in.
        why: a few words.
        settings: ``key=value`` pairs over the experiment's defaults.
    """

    name: str
    why: str
    settings: tuple[str, ...] = ()


def check(candidates: Sequence[Candidate]) -> None:
    """Raises :class:`ConfigError` for an empty list or a name given twice."""
    names = [c.name for c in candidates]
    if not names:
        raise ConfigError("there is no candidate to choose from")
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ConfigError(f"two candidates are named {twice[0]!r}")


def pairs(speakers: Sequence[int], folds: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """The pairs of speakers to leave out together, for the choices of ``folds`` (by default of all speakers).

    Raises:
        ConfigError: fewer than three speakers, so that none would be left to train on.
    """
    if len(set(speakers)) < 3:
        raise ConfigError(f"choosing inside the folds needs at least three speakers, not {sorted(set(speakers))}")
    wanted = set(speakers if folds is None else folds)
    return [p for p in combinations(sorted(set(speakers)), 2) if wanted & set(p)]


def trained(base: Config, candidate: Candidate, left_out: Sequence[int]) -> Config:
    """The configuration that trains ``candidate`` on all speakers but ``left_out`` and tests it on these.

    Raises:
        ConfigError: a setting of the candidate is unknown or out of range.
    """
    config = override(base, candidate.settings)
    config.data.test_speakers, config.data.validation_speakers = list(left_out), 0
    return config


def judge(
    base: Config,
    candidates: Sequence[Candidate],
    speakers: Sequence[int],
    folder: Path,
    console: Console,
    *,
    folds: Sequence[int] | None = None,
    overwrite: bool = False,
    done: Sequence[dict[str, Any]] = (),
    save: Callable[[list[dict[str, Any]]], None] = lambda runs: None,
) -> list[dict[str, Any]]:
    """Train every candidate without every pair of speakers, each into ``folder/NAME/without-F-G``.

    Args:
        folds: the speakers for whom a choice is wanted; by default all.
        done: what an earlier call had finished; it is not trained again.
        save: called with all that is finished, after every training.

    Returns:
        One entry a training: ``candidate``, ``left_out`` [2], ``accuracy`` by left-out speaker, ``epochs``.

    Raises:
        ConfigError: see ``check``, ``pairs``, ``trained``.
    """
    check(candidates)
    jobs = [(c, p) for c in candidates for p in pairs(speakers, folds)]
    runs = [dict(r) for r in done]
    finished = {(r["candidate"], tuple(r["left_out"])) for r in runs}
    for number, (candidate, left_out) in enumerate(jobs, 1):
        if (candidate.name, left_out) in finished:
            continue
        config = trained(base, candidate, left_out)
        place = folder / candidate.name / f"without-{left_out[0]}-{left_out[1]}"
        epochs = train(config, place, console, overwrite)["epochs"]
        net, test = load_network(place), load_test(config)
        accuracy = {str(s): evaluate(net, test.take(test.speakers == s)).accuracy for s in left_out}
        runs.append({"candidate": candidate.name, "left_out": list(left_out), "accuracy": accuracy, "epochs": epochs})
        save(runs)
        shown = ", ".join(f"speaker {s} {100 * a:.1f} %" for s, a in accuracy.items())
        console.print(f"choice {number}/{len(jobs)}: {candidate.name} without {left_out[0]} and {left_out[1]}: {shown}")
    return runs


def score(runs: Sequence[dict[str, Any]], candidate: str, speaker: int) -> float:
    """The mean accuracy of ``candidate`` on the inner speakers of the fold of ``speaker``.

    Raises:
        RunError: it was not judged for this fold.
    """
    found = [
        accuracy
        for r in runs
        if r["candidate"] == candidate and speaker in r["left_out"]
        for other, accuracy in r["accuracy"].items()
        if int(other) != speaker
    ]
    if not found:
        raise RunError(f"candidate {candidate} was not judged without speaker {speaker}")
    return float(np.mean(found))


def choose(runs: Sequence[dict[str, Any]], candidates: Sequence[Candidate], speaker: int) -> Candidate:
    """The candidate with the best ``score`` for the fold of ``speaker``; of equals the one named first."""
    check(candidates)
    scores = [score(runs, c.name, speaker) for c in candidates]
    return candidates[int(np.argmax(scores))]
