"""The timing task: what tells its classes apart, and an experiment that goes on where it stopped."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ranvier.errors import ConfigError
from ranvier.experiments import timing
from ranvier.experiments.runs import read_json
from ranvier.networks import delays_of


def test_classes_differ_in_timing_and_in_nothing_else() -> None:
    patterns = timing.draw_patterns(0)
    assert all(len(set(p)) == timing.INPUTS for p in patterns)  # no two inputs of a class fire together
    train = timing.draw_samples(patterns, 400, 0, 1)
    assert torch.equal(train.spikes.sum(0), torch.ones(400, timing.INPUTS))  # one spike each: rates say nothing
    again = timing.draw_samples(patterns, 400, 0, 1)
    assert torch.equal(train.spikes, again.spikes)
    assert not torch.equal(train.spikes, timing.draw_samples(patterns, 400, 0, 2).spikes)
    # with the shift known and little jitter, the nearest pattern is the class
    times = train.spikes.argmax(0).numpy()
    shape = times - times.mean(1, keepdims=True)
    known = patterns - patterns.mean(1, keepdims=True)
    nearest = ((shape[:, None] - known[None]) ** 2).sum(-1).argmin(1)
    assert np.mean(nearest == train.classes.numpy()) > 0.99


def test_the_hidden_neurons_remember_nothing() -> None:
    net = timing.build("none", 0, 5)
    assert float(net.neuron("hidden").values(1.0)["decay_mem"]) < 0.01
    assert not delays_of(net) and len(delays_of(timing.build("fixed", 0, 5))) == 1


def test_an_experiment_is_resumed_and_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TRAIN", 128)
    monkeypatch.setattr(timing, "TEST", 50)
    monkeypatch.setattr(timing, "SEEDS", 2)
    config = timing.defaults()
    config.training.epochs, config.model.hidden = 4, [3]
    seen: list[tuple[str, int]] = []
    original = timing.run_one

    def counted(variant: str, seed: int, *rest: object) -> dict[str, object]:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append((variant, seed))
        return original(variant, seed, *rest)

    monkeypatch.setattr(timing, "run_one", counted)
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(KeyboardInterrupt):
        timing.EXPERIMENT.run(config, tmp_path, console, False)
    first = read_json(tmp_path / timing.RESULTS_FILE)
    assert len(first["runs"]) == 5
    monkeypatch.setattr(timing, "run_one", original)
    timing.EXPERIMENT.run(config, tmp_path, console, False)
    found = read_json(tmp_path / timing.RESULTS_FILE)
    assert found["runs"][:5] == first["runs"]
    assert {(r["variant"], r["seed"]) for r in found["runs"]} == {(v, s) for v in timing.VARIANTS for s in (0, 1)}
    own = [r["accuracy"] for r in found["runs"] if r["variant"] == "learned"]
    assert found["summary"]["learned"]["accuracy"]["mean"] == pytest.approx(np.mean(own))
    assert "learned delays: annealed" in console.file.getvalue()
    config.training.epochs = 5
    with pytest.raises(ConfigError, match=r"epochs: 4 -> 5.*--overwrite"):
        timing.EXPERIMENT.run(config, tmp_path, console, False)


def test_learned_delays_tell_apart_what_is_chance_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes with the same intervals in another order: seen in seconds, not in the minutes of the real thing."""
    monkeypatch.setattr(timing, "TRAIN", 256)
    monkeypatch.setattr(timing, "TEST", 200)
    monkeypatch.setattr(timing, "CLASSES", 3)
    config = timing.defaults()
    config.training.epochs, config.model.hidden = 16, [12]
    learned, none = (timing.run_one(v, 1, config)["accuracy"] for v in ("learned", "none"))
    assert learned > 0.85
    assert learned > none + 0.1
