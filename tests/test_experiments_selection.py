"""Choosing inside the folds: who judges whom, what is chosen, and that a left-out speaker has no say in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ranvier.datasets import write_shd
from ranvier.errors import ConfigError, RunError
from ranvier.experiments import Config, selection
from ranvier.experiments.selection import Candidate, check, choose, judge, pairs, score, trained

QUIET = Console(quiet=True)
CANDIDATES = (Candidate("slow", "", ("lr=1e-4",)), Candidate("fast", "", ("lr=0.05",)))
SPEAKERS = [0, 1, 2, 3]


def words(path: Path, wrong: int | None = None, silent: bool = False) -> Config:
    """Two words of four speakers, who say them at places of their own; ``wrong`` has his labels exchanged, and says
    the same every time if ``silent``.
    """
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(40) % 2, np.arange(40) // 2 % 4
    times = [np.sort(rng.uniform(0, 0.1, 30)) for _ in labels]
    units = [6 * label + speaker + rng.integers(0, 8, 30) for label, speaker in zip(labels, speakers, strict=True)]
    for i in np.flatnonzero(speakers == wrong):
        labels[i] = 1 - labels[i]
        if silent:
            units[i] = np.zeros(30, int)
    write_shd(path, times, units, labels, speakers, ["a", "b"], channels=20)
    made = Config(experiment="fsdd")
    made.data.source, made.data.train, made.data.channels = "files", [str(path)], 20
    made.data.window, made.data.channel_factor, made.data.validation_speakers = 100.0, 4, 0
    made.model.hidden, made.training.epochs, made.training.batch_size = [6], 2, 4
    return made


def test_a_left_out_speaker_has_no_say_in_his_choice(tmp_path: Path) -> None:
    true = judge(words(tmp_path / "true.h5"), CANDIDATES, SPEAKERS, tmp_path / "true", QUIET)
    false = judge(words(tmp_path / "false.h5", wrong=2, silent=True), CANDIDATES, SPEAKERS, tmp_path / "false", QUIET)
    for c in CANDIDATES:
        assert score(true, c.name, 2) == score(false, c.name, 2)
    assert choose(true, CANDIDATES, 2) is choose(false, CANDIDATES, 2)
    # and what was changed does matter to those who may look at it
    assert any(score(true, c.name, f) != score(false, c.name, f) for c in CANDIDATES for f in (0, 1, 3))


def test_each_pair_is_left_out_once_and_serves_two_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    real = selection.train

    def watched(config: Config, *rest: Any) -> dict[str, Any]:
        seen.append(config.data.test_speakers)
        return real(config, *rest)

    monkeypatch.setattr(selection, "train", watched)
    saved: list[int] = []
    base = words(tmp_path / "words.h5")
    runs = judge(base, CANDIDATES[:1], SPEAKERS, tmp_path / "a", QUIET, save=lambda r: saved.append(len(r)))
    assert seen == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]] and saved == [1, 2, 3, 4, 5, 6]
    assert all(sorted(r["accuracy"]) == [str(s) for s in r["left_out"]] for r in runs)
    # one fold needs three of the six, and what is done is not done again
    seen.clear()
    few = judge(base, CANDIDATES[:1], SPEAKERS, tmp_path / "b", QUIET, folds=[3], done=runs[:3])
    assert seen == [[1, 3], [2, 3]] and score(few, "slow", 3) == score(runs, "slow", 3)
    with pytest.raises(RunError, match="fast was not judged without speaker 3"):
        choose(few, CANDIDATES, 3)


def test_score_and_choice() -> None:
    runs = [
        {"candidate": name, "left_out": [f, g], "accuracy": {str(f): a, str(g): b}}
        for name, f, g, a, b in (
            ("x", 0, 1, 0.9, 0.5),
            ("x", 0, 2, 0.9, 0.3),
            ("x", 1, 2, 0.7, 0.9),
            ("y", 0, 1, 0.0, 0.2),
            ("y", 0, 2, 0.0, 0.6),
            ("y", 1, 2, 1.0, 1.0),
        )
    ]
    assert score(runs, "x", 0) == pytest.approx((0.5 + 0.3) / 2)  # not 0.9: that is speaker 0 himself
    assert score(runs, "y", 2) == pytest.approx((0.0 + 1.0) / 2)
    x, y = Candidate("x", ""), Candidate("y", "")
    assert choose(runs, [x, y], 0) is x and choose(runs, [y, x], 0) is y  # equal: the first
    assert choose(runs, [x, y], 2) is x and choose(runs, [x, y], 1) is x


def test_settings_of_a_candidate(tmp_path: Path) -> None:
    base = words(tmp_path / "words.h5")
    base.data.validation_speakers = 2
    made = trained(base, CANDIDATES[1], (1, 3))
    assert (made.training.lr, made.data.test_speakers, made.data.validation_speakers) == (0.05, [1, 3], 0)
    assert base.data.test_speakers == [] and base.training.lr != 0.05
    with pytest.raises(ConfigError, match="did you mean training"):
        trained(base, Candidate("wrong", "", ("training.lrr=1",)), [0])


def test_wrong_lists() -> None:
    with pytest.raises(ConfigError, match="no candidate"):
        check([])
    with pytest.raises(ConfigError, match="two candidates are named 'fast'"):
        check([*CANDIDATES, Candidate("fast", "")])
    with pytest.raises(ConfigError, match="at least three speakers"):
        pairs([0, 1])
