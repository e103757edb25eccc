"""A search of settings: who judges, what is pruned, that it goes on, and what it writes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ranvier import cli
from ranvier.errors import ConfigError, RunError
from ranvier.experiments import Config, har, override
from ranvier.experiments import sweep as searched
from ranvier.experiments.har_data import load_training
from ranvier.experiments.runs import read_json
from ranvier.experiments.sweep import Range, sweep

optuna = pytest.importorskip("optuna", reason="Optuna is not installed (pip install 'ranvier[sweep]')")

QUIET = Console(quiet=True)
SPACE = (
    Range("training.lr", 1e-3, 1e-1, log=True),
    Range("model.hidden", 3, 6, text="[{}]"),
    Range("model.copies", choices=(1, 2)),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people in UCI-HAR's layout, noise: what is learned does not matter here."""
    root = tmp_path_factory.mktemp("har")
    rng = np.random.default_rng(0)
    for part, people in (("train", range(1, 8)), ("test", range(8, 11))):
        folder = root / "UCI HAR Dataset" / part
        (folder / "Inertial Signals").mkdir(parents=True)
        np.savetxt(folder / f"subject_{part}.txt", np.repeat(people, 4), fmt="%d")
        np.savetxt(folder / f"y_{part}.txt", np.tile([1, 2], 2 * len(people)), fmt="%d")
        for name in [f"{a}_{b}" for a in ("total_acc", "body_gyro") for b in "xyz"]:
            np.savetxt(folder / "Inertial Signals" / f"{name}_{part}.txt", rng.normal(size=(4 * len(people), 128)))
    return root


@pytest.fixture
def config(published: Path) -> Config:
    small = ["source=uci_har", f"root={published}", "model.channels=1", "order=2", "epochs=1", "batch_size=16"]
    return override(har.defaults(), small)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Config], float]], list[Config]]:
    """Replaces training by a score computed from the settings; gives the list of what was asked for."""

    def replace(score: Callable[[Config], float]) -> list[Config]:
        seen: list[Config] = []

        def one(made: Config, folder: Path, console: Console) -> dict[str, float]:
            seen.append(made)
            folder.mkdir(parents=True)
            value = score(made)
            return {"accuracy": value, "macro_f1": value}

        monkeypatch.setattr(searched, "train_one", one)
        return seen

    return replace


def distance(made: Config) -> float:
    """Best at a learning rate of 0.01; the size does not matter."""
    return 1 - abs(np.log10(made.training.lr) + 2)


def test_a_search_trains_and_keeps_no_folders(config: Config, tmp_path: Path) -> None:
    found = sweep(config, tmp_path, 2, QUIET, space=SPACE, fold=1)
    assert [len(t["scores"]) for t in found["trials"]] == [3, 3] and 0 <= found["best"]["value"] <= 1
    assert not list((tmp_path / "trials").iterdir())
    assert {"format": 1, **found} == read_json(tmp_path / searched.RESULTS_FILE)
    assert "importance" in (tmp_path / searched.PICTURE).read_text()


def test_people_put_aside_are_in_nothing(config: Config, tmp_path: Path, scored: Callable[..., list[Config]]) -> None:
    seen = scored(distance)
    found = sweep(config, tmp_path, 1, QUIET, space=SPACE, fold=2)
    aside = set(har.fold_subjects(config)[2])
    assert set(found["put_aside"]) == aside and len(seen) == searched.INNER_FOLDS
    tested = [set(c.data.test_speakers) for c in seen]
    assert set.union(*tested) == set(range(1, 11)) - aside and sum(map(len, tested)) == 10 - len(aside)
    for one in seen:
        assert set(one.data.excluded_speakers) == aside
        assert not set(load_training(one)[0].speakers.tolist()) & (aside | set(one.data.test_speakers))


def test_it_finds_what_matters_and_prunes_what_is_bad(
    config: Config, tmp_path: Path, scored: Callable[..., list[Config]]
) -> None:
    scored(distance)
    found = sweep(config, tmp_path, 25, QUIET, space=SPACE)
    assert found["best"]["value"] > 0.8
    assert max(found["importance"], key=lambda k: found["importance"][k]) == "training.lr"
    pruned = [t for t in found["trials"] if t["state"] == "pruned"]
    whole = [t for t in found["trials"] if t["state"] == "complete"]
    assert len(pruned) + len(whole) == 25 and len(pruned) > 2
    assert all(len(t["scores"]) < 3 for t in pruned) and all(len(t["scores"]) == 3 for t in whole)
    assert np.mean([t["scores"][0] for t in pruned]) < np.mean([t["scores"][0] for t in whole])


def test_a_killed_search_goes_on(config: Config, tmp_path: Path, scored: Callable[..., list[Config]]) -> None:
    calls: list[int] = []

    def killed(made: Config) -> float:
        calls.append(1)
        if len(calls) == 8:  # in the third trial
            raise KeyboardInterrupt
        return distance(made)

    scored(killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(config, tmp_path, 5, QUIET, space=SPACE)
    scored(distance)
    found = sweep(config, tmp_path, 5, QUIET, space=SPACE)
    ended = [t for t in found["trials"] if t["state"] in ("complete", "pruned")]
    assert len(ended) == 5
    assert len({t["settings"]["training.lr"] for t in ended}) == 5  # it does not draw the first ones again
    seen = scored(distance)
    again = sweep(config, tmp_path, 5, QUIET, space=SPACE)
    assert not seen and again["best"] == found["best"]  # there is nothing left to do


def test_two_searches_share_a_data_base(config: Config, tmp_path: Path, scored: Callable[..., list[Config]]) -> None:
    scored(distance)
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    sweep(config, tmp_path / "a", 3, QUIET, space=SPACE, storage=storage)
    found = sweep(config, tmp_path / "b", 5, QUIET, space=SPACE, storage=storage)
    assert len(found["trials"]) == 5 and not (tmp_path / "b" / searched.DATABASE).exists()
    with pytest.raises(RunError, match="another fold: 0"):
        sweep(config, tmp_path / "c", 6, QUIET, space=SPACE, storage=storage, fold=1)


def test_a_training_that_fails_does_not_end_the_search(
    config: Config, tmp_path: Path, scored: Callable[..., list[Config]]
) -> None:
    failures: list[int] = []

    def sometimes(made: Config) -> float:
        if len(failures) < 2:
            failures.append(1)
            raise RunError("the loss is nan")
        return distance(made)

    scored(sometimes)
    found = sweep(config, tmp_path, 3, QUIET, space=SPACE)
    states = [t["state"] for t in found["trials"]]
    assert states.count("fail") == 2 and len(states) - 2 == 3


def test_a_search_in_which_everything_fails_ends(
    config: Config, tmp_path: Path, scored: Callable[..., list[Config]]
) -> None:
    def never(made: Config) -> float:
        raise RunError("the loss is nan")

    scored(never)
    with pytest.raises(RunError, match=r"the last 10 trials failed \(the loss is nan\)"):
        sweep(config, tmp_path, 3, QUIET, space=SPACE)
    assert [t["state"] for t in read_json(tmp_path / searched.RESULTS_FILE)["trials"]] == ["fail"] * 10
    scored(distance)
    assert sweep(config, tmp_path, 3, QUIET, space=SPACE)["best"]["value"] > 0  # mended, it goes on


def test_every_trial_is_said(
    config: Config, tmp_path: Path, scored: Callable[..., list[Config]], capsys: pytest.CaptureFixture[str]
) -> None:
    scored(distance)
    found = sweep(config, tmp_path, 12, Console(width=200), space=SPACE)
    said = capsys.readouterr().out
    for t in found["trials"]:
        cut = f", given up after {len(t['scores'])} of its parts" if t["state"] == "pruned" else ""
        assert f"Trial {t['number']}: {np.mean(t['scores']):.3f}{cut}; best" in said
    assert "given up" in said


def test_what_is_given_is_not_searched(config: Config, tmp_path: Path, scored: Callable[..., list[Config]]) -> None:
    seen = scored(distance)
    pairs = ["lr=0.02", "model.theta=700"]
    said = searched.run_sweep(config, pairs, tmp_path / "a", 2, QUIET, None, 0)
    assert {(c.training.lr, c.model.theta) for c in seen} == {(0.02, 700.0)} and len({c.model.order for c in seen}) > 1
    assert said.count("lr=") == 1 and said.count("model.theta=") == 1 and said.startswith("Best of 2 trials")
    everything = [f"{r.key}={r.text.format(r.choices[0] if r.choices else r.low)}" for r in searched.SPACES["har"]]
    with pytest.raises(ConfigError, match="every setting that could be searched is given"):
        searched.run_sweep(config, everything, tmp_path / "b", 2, QUIET, None, 0)


def test_wrong_searches(
    config: Config, tmp_path: Path, scored: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(distance)
    with pytest.raises(ConfigError, match="nothing is known to search in 'digits'"):
        sweep(Config(), tmp_path, 1, QUIET)
    with pytest.raises(ConfigError, match="fold must be 0 to 4, got 7"):
        sweep(config, tmp_path, 1, QUIET, space=SPACE, fold=7)
    with pytest.raises(ConfigError, match="trials must be at least 1"):
        sweep(config, tmp_path, 0, QUIET, space=SPACE)
    with pytest.raises(ConfigError, match=r"unknown setting 'model\.hiden'"):
        sweep(config, tmp_path, 1, QUIET, space=(Range("model.hiden", 1, 2),))
    with pytest.raises(ConfigError, match="storage nonsense cannot be opened"):
        sweep(config, tmp_path / "n", 1, QUIET, space=SPACE, storage="nonsense")
    assert not (tmp_path / "n" / "config.yaml").exists()  # other settings may be tried there
    sweep(config, tmp_path / "s", 1, QUIET, space=SPACE)
    with pytest.raises(RunError, match=r"other settings \(training.epochs"):
        sweep(override(config, ["epochs=3"]), tmp_path / "s", 1, QUIET, space=SPACE)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'ranvier\[sweep\]'"):
        sweep(config, tmp_path / "o", 1, QUIET, space=SPACE)


def test_the_command_names_the_best_settings(
    config: Config, tmp_path: Path, scored: Callable[..., list[Config]]
) -> None:
    scored(distance)
    pairs = ["source=uci_har", f"root={config.data.root}", "epochs=1"]
    done: Any = CliRunner().invoke(cli.app, ["sweep", "har", *pairs, "--trials", "3", "--run", f"{tmp_path}/s"])
    assert done.exit_code == 0, done.output
    line = next(text for text in done.stdout.splitlines() if text.startswith("ranvier train har "))
    best = override(har.defaults(), line.split()[3:])  # what it prints can be run
    assert best.data.source == "uci_har" and best.training.lr == pytest.approx(
        read_json(tmp_path / "s" / searched.RESULTS_FILE)["best"]["settings"]["training.lr"], rel=1e-3
    )
