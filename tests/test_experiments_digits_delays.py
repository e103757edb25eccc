"""Learned delays at equal parameters: sizes, folds, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ranvier.datasets import write_shd
from ranvier.errors import ConfigError, RunError
from ranvier.experiments import Config, build_network, digits_delays, override
from ranvier.experiments.runs import read_json

QUIET = Console(quiet=True)
PLAN = (("digits", "tiny", tuple(digits_delays.VARIANTS)),)
SIZES = {"tiny": 700}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(18) % 2, np.arange(18) // 2 % 3
    times = [np.sort(rng.uniform(0, 0.1, 30)) for _ in labels]
    units = [10 * label + rng.integers(0, 10, 30) for label in labels]
    path = str(write_shd(tmp_path / "words.h5", times, units, labels, speakers, ["a", "b"], channels=20))
    made = Config(experiment="digits-delays")
    made.data.source, made.data.train, made.data.test, made.data.channels = "files", [path], [path], 20
    made.data.window, made.data.channel_factor, made.data.validation_speakers = 100.0, 4, 0
    made.training.epochs, made.training.batch_size, made.training.engine = 1, 8, "eager"
    return made


def test_networks_of_one_size_have_equally_many_parameters_delays_among_them() -> None:
    config = digits_delays.defaults()
    for wanted in digits_delays.SIZES.values():
        counts, hidden = {}, {}
        for name, settings in digits_delays.VARIANTS.items():
            one = digits_delays.fitted(override(config, settings), 70, 20, wanted)
            net = build_network(one, 70, 20)
            counts[name], hidden[name] = net.count_parameters(), one.model.hidden[0]
        # one neuron more would be too many
        assert all(wanted - 1500 < n <= wanted for n in counts.values())
        assert hidden["lif, learned delays"] <= hidden["lif"]
        assert len({n.partition(",")[0] for n in counts}) == 2
    with pytest.raises(ConfigError, match="too few for one hidden neuron"):
        digits_delays.fitted(config, 70, 20, 10)


def test_a_killed_sweep_goes_on_and_other_settings_are_refused(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep(one: Config) -> dict:
        return digits_delays.sweep(one, tmp_path / "sweep", QUIET, seeds=1, plan=PLAN, sizes=SIZES)

    train, done = digits_delays.train, []

    def counted(*args: object) -> dict:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args[1])
        return train(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(digits_delays, "train", counted)
        with pytest.raises(KeyboardInterrupt):
            sweep(config)
    assert len(read_json(tmp_path / "sweep" / "results.json")["runs"]) == 3
    found = sweep(config)
    variants = list(digits_delays.VARIANTS)
    assert [(r["seed"], r["variant"]) for r in found["runs"]] == [(s, v) for s in range(1) for v in variants]
    kept = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert kept["summary"] == found["summary"] and [s["seeds"] for s in found["summary"]] == [1] * len(variants)
    first = [r["accuracy"] for r in found["runs"] if r["variant"] == "lif"]
    assert found["summary"][0]["mean"] == pytest.approx(first[0])
    monkeypatch.setattr(digits_delays, "train", lambda *_: pytest.fail("trained again"))
    assert sweep(config) == found
    config.training.lr = 0.1
    with pytest.raises(RunError, match="other settings"):
        sweep(config)
