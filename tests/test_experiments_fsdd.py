"""Leaving one speaker out: the folds, what is written as each finishes, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ranvier.datasets import write_shd
from ranvier.errors import DataError, RunError
from ranvier.experiments import Config, fsdd, override
from ranvier.experiments.config import checked, differences
from ranvier.experiments.selection import Candidate

QUIET = Console(quiet=True)
ONE = (Candidate("only", "nothing to choose"),)
TWO = (Candidate("still", "learns nothing", ("lr=0",)), Candidate("lively", "learns", ("lr=0.05", "equalise=0.5")))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(18) % 2, np.arange(18) // 2 % 3
    times = [np.sort(rng.uniform(0, 0.1, 30)) for _ in labels]
    units = [10 * label + rng.integers(0, 10, 30) for label in labels]
    path = write_shd(tmp_path / "words.h5", times, units, labels, speakers, ["a", "b"], channels=20)
    made = Config(experiment="fsdd")
    made.data.source, made.data.train, made.data.channels = "files", [str(path)], 20
    made.data.window, made.data.channel_factor, made.data.validation_speakers = 100.0, 4, 0
    made.model.hidden, made.training.epochs, made.training.batch_size = [4], 1, 4
    return made


def test_every_speaker_is_the_test_set_once_per_seed(config: Config, tmp_path: Path) -> None:
    found = fsdd.sweep(config, tmp_path / "sweep", QUIET, seeds=2, candidates=ONE)
    assert [(r["speaker"], r["seed"]) for r in found["runs"]] == [(k, s) for s in range(2) for k in range(3)]
    assert all(r["samples"] == 6 for r in found["runs"])
    kept = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert kept == found | {"format": 1}
    by_seed = [np.mean([r["accuracy"] for r in found["runs"] if r["seed"] == s]) for s in range(2)]
    assert found["choice"] == [] and set(found["chosen"].values()) == {"only"}
    assert found["mean"] == pytest.approx(np.mean(by_seed)) and found["sd"] == pytest.approx(np.std(by_seed, ddof=1))


def test_a_killed_sweep_goes_on_where_it_was(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fsdd.sweep(config, tmp_path / "whole", QUIET, seeds=1, candidates=ONE)
    trained: list[Path] = []
    train = fsdd.train

    def counted(one: Config, place: Path, console: Console, overwrite: bool) -> dict:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(place)
        return train(one, place, console, overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(fsdd, "train", counted)
        with pytest.raises(KeyboardInterrupt):
            fsdd.sweep(config, tmp_path / "cut", QUIET, seeds=1, candidates=ONE)
        assert len(json.loads((tmp_path / "cut" / "results.json").read_text())["runs"]) == 2
        trained.clear()
        again = fsdd.sweep(config, tmp_path / "cut", QUIET, seeds=1, candidates=ONE)
    assert [p.name for p in trained] == ["speaker2-seed0"]
    assert again["runs"] == whole["runs"]


def test_one_speaker_cannot_be_left_out(config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_shd(
        tmp_path / "one.h5", [np.sort(rng.uniform(0, 0.1, 5))] * 2, [np.arange(5)] * 2, [0, 1], [0, 0], ["a", "b"]
    )
    config.data.train, config.data.channels = [str(path)], 700
    with pytest.raises(DataError, match="at least two"):
        fsdd.folds(config)


def test_the_candidates_are_legal_and_differ() -> None:
    base = fsdd.defaults()
    made = [checked(override(base, c.settings)) for c in fsdd.CANDIDATES]
    assert all(differences(a, b) for i, a in enumerate(made) for b in made[:i])
    assert all(c.why for c in fsdd.CANDIDATES)


def test_every_fold_is_trained_with_its_own_choice(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what the inner speakers say is set here, so that the folds have to differ
    accuracy = {"still": {"0": 0.9, "1": 0.1, "2": 0.5}, "lively": {"0": 0.2, "1": 0.8, "2": 0.5}}

    def judged(_base: Config, candidates: tuple[Candidate, ...], speakers: list[int], *_: object, **__: object) -> list:
        return [
            {"candidate": c.name, "left_out": [f, g], "accuracy": {str(s): accuracy[c.name][str(s)] for s in (f, g)}}
            for c in candidates
            for f, g in ((0, 1), (0, 2), (1, 2))
        ]

    monkeypatch.setattr(fsdd, "judge", judged)
    found = fsdd.sweep(config, tmp_path / "sweep", QUIET, seeds=1, candidates=TWO)
    assert found["chosen"] == {"0": "lively", "1": "still", "2": "still"}
    assert found["scores"]["0"] == pytest.approx({"still": 0.3, "lively": 0.65})
    rates = {s: fsdd.load_config(tmp_path / "sweep" / f"speaker{s}-seed0").training.lr for s in range(3)}
    assert rates == {0: 0.05, 1: 0.0, 2: 0.0}


def test_a_sweep_with_a_choice_goes_on_where_it_was(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fsdd.sweep(config, tmp_path / "sweep", QUIET, seeds=1, candidates=TWO)
    kept = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert kept == whole | {"format": 1} and len(kept["choice"]) == 2 * 3
    for name in ("ranvier.experiments.selection.train", "ranvier.experiments.fsdd.train"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("trained again"))
    assert fsdd.sweep(config, tmp_path / "sweep", QUIET, seeds=1, candidates=TWO) == whole
    with pytest.raises(RunError, match="other candidates"):
        fsdd.sweep(config, tmp_path / "sweep", QUIET, seeds=1, candidates=ONE)
